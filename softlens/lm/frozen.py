"""The frozen LM: a causal language model, its tokenizer, and what is known about both."""

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import psutil
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from softlens.errors import SoftlensError
from softlens.lm import parity, transformer
from softlens.lm.head import Head, scaled
from softlens.lm.texts import EncodedTexts, KeyValueCache, encode_texts
from softlens.templates import glued_behind, template_parts

log = logging.getLogger(__name__)

# A first position whose hidden norm is this many times the others' is a dump for attention
# ("massive activations", Sun et al. 2024, arXiv 2402.17762); what it predicts is noise.
SINK_RATIO = 10.0


class LM:
    """A frozen causal language model with its tokenizer.

    Args:
        model: any causal LM of transformers; it is put into evaluation mode and frozen.
        tokenizer: its tokenizer.
        name: how errors, files and figures call it.
        bos_id: the token every row starts with; the tokenizer's BOS, else its EOS.
        bos: False if rows start with the text or the prompt itself, as PEFT feeds them.
        cache_memory: bytes that keys and values of texts may take; a quarter of what is free.

    Attributes:
        fast_length: positions up to which the fast layouts hold (the smallest attention window).
        path: "fast" where the two fast layouts agree with the plain forward, else "plain".
        cache: the memory of texts' keys and values.
        start: the tokens every row starts with: BOS, or nothing.
        start_id: the token that starts a text, None where the tokenizer has none.
        differentiable: whether gradients reach a prompt through every layer.
        memo: what was found out about this LM and does not change, by whoever found it.
        parity: worst relative error of the fast layouts at load (`softlens.lm.parity`).
        opened_as: the name or path that `load_lm` opened it by, so that another process can do the
            same; None for an LM that was put together by hand.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        bos_id: int | None = None,
        bos: bool = True,
        cache_memory: int | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.start_id = self._start(bos_id)
        self.start = (self.bos_id,) if bos else ()
        self.head = Head(model, self.embedding)
        probe = self.start_id or 0
        self.differentiable = parity.differentiable(model, probe)
        self.path, self.parity = parity.choose_path(model, probe, name, self.differentiable)
        self.fast_length = parity.fast_length(model)
        # The plain path keeps nothing, and not every family can be asked what it would keep.
        per_token = 0 if self.path == "plain" else _bytes_per_token(model)
        limit = _free_memory(self.device) // 4 if cache_memory is None else int(cache_memory)
        self.cache = KeyValueCache(model, limit, per_token)
        self.memo: dict[Any, Any] = {}
        self.opened_as: str | None = None

    def __repr__(self) -> str:
        return (
            f"LM({self.name!r}: {self.model.config.model_type}, "
            f"{self.parameters / 1e6:.1f}M parameters, "
            f"{self.vocab_size:,} tokens, {str(self.dtype).removeprefix('torch.')}, {self.device}, "
            f"{self.path} path{'' if self.start else ', rows without BOS'})"
        )

    # -- what it is ---------------------------------------------------------------------------

    @property
    def text_start(self) -> tuple[int, ...]:
        """What a text begins with, whatever rows do: BOS, or nothing where there is none."""
        return () if self.start_id is None else (self.start_id,)

    @property
    def own_start(self) -> int | None:
        """The tokenizer's BOS, else its EOS, else None."""
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((int(one) for one in known if one is not None), None)

    @property
    def bos_id(self) -> int:
        """The token that starts a text.

        Raises:
            SoftlensError: the tokenizer has none, and none was given.
        """
        if self.start_id is None:
            raise SoftlensError(
                f"The tokenizer of {self.name!r} has neither a BOS nor an EOS token for rows to "
                "start with. Pass bos_id=, the id of the token that starts a text, or bos=False "
                "for rows that start with the text or the prompt itself."
            )
        return self.start_id

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The type the LM computes in; prompts and results stay in float32."""
        return self.model.dtype

    @cached_property
    def parameters(self) -> int:
        """How many weights there are; tied ones count once."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def is_small(self) -> bool:
        """Below ten million parameters: a tuning takes seconds, and budgets are more generous."""
        return self.parameters < 10_000_000

    @property
    def vector_rate(self) -> float:
        """Adam's learning rate for free vectors, in our trials: 0.1 on a small LM, else 0.03."""
        return 0.1 if self.is_small else 0.03

    @property
    def vocab_size(self) -> int:
        """Rows of the input embedding."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def hidden_size(self) -> int:
        """Width of the input embedding, and of every prompt."""
        return self.model.get_input_embeddings().weight.shape[1]

    @property
    def context_length(self) -> int:
        """Positions the LM has."""
        config = self.model.config
        for key in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
            if (length := getattr(config, key, None)) is not None:
                return int(length)
        return 1 << 20

    @cached_property
    def checksum(self) -> str:
        """16 hex digits of the vocabulary and 1,024 strided values of every weight, as bfloat16.

        It is the same for float32 and bfloat16 copies of one model, and another after a fine-tuning
        that moves any of these values by more than bfloat16 rounds off. A change of other values
        alone, or a smaller one, it does not see. A prompt carries it, to be read with its own LM.
        """
        digest = hashlib.sha256()
        for token, index in sorted(self.tokenizer.get_vocab().items()):
            digest.update(f"{token}\0{index}\0".encode("utf-8", "surrogatepass"))
        for key, weight in self.model.named_parameters():
            flat = weight.detach().flatten()
            strided = flat[:: max(1, flat.numel() // 1024)].to(torch.bfloat16).view(torch.int16)
            digest.update(f"{key}{tuple(weight.shape)}".encode())
            digest.update(strided.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def embedding(self) -> Float[Tensor, "vocab hidden"]:
        """What the LM is fed for each token, float32, detached.

        Gemma scales the rows of its matrix before the first layer; these are the scaled ones.
        """
        layer = self.model.get_input_embeddings()
        if not scaled(layer):
            return layer.weight.detach().float()
        with torch.no_grad():
            return layer(torch.arange(self.vocab_size, device=self.device)).float()

    @cached_property
    def unit_embedding(self) -> Float[Tensor, "vocab hidden"]:
        """`embedding` with rows of length 1; zero rows stay zero."""
        return torch.nn.functional.normalize(self.embedding, dim=1)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Control tokens, which stand for no text."""
        added = self.tokenizer.added_tokens_decoder
        marked = (i for i, token in added.items() if token.special)
        return frozenset([*self.tokenizer.all_special_ids, *marked])

    @cached_property
    def unused_ids(self) -> frozenset[int]:
        """Rows of the embedding that no token of the tokenizer maps to."""
        return frozenset(range(self.vocab_size)) - frozenset(self.tokenizer.get_vocab().values())

    @cached_property
    def ordinary_ids(self) -> Int[Tensor, " tokens"]:
        """Every token that stands for text: neither special nor unused."""
        left_out = self.special_ids | self.unused_ids
        return torch.tensor([i for i in range(self.vocab_size) if i not in left_out])

    @cached_property
    def sink(self) -> bool:
        """True where the first position is an attention sink, so that what it predicts is noise."""
        ids = self.ordinary_ids[:: max(1, len(self.ordinary_ids) // 8)][:8].tolist()
        row = torch.tensor([[*self.text_start, *ids]], device=self.device)
        with torch.no_grad():
            states = self.model(
                input_ids=row,
                attention_mask=torch.ones_like(row),
                output_hidden_states=True,
                use_cache=False,
            )
        norms = states.hidden_states[len(states.hidden_states) // 2][0].float().norm(dim=1)
        return bool(norms[0] > SINK_RATIO * norms[1:].median())

    # -- text and tokens ----------------------------------------------------------------------

    @cached_property
    def spaces_in_tokens(self) -> bool:
        """True where a token carries the space before it, and a text does not gain one."""
        plain, spaced = self._ids("a"), self._ids(" a")
        return plain != spaced and self._ids("a a") == plain + spaced

    @cached_property
    def tokens_mark_spaces(self) -> bool:
        """True where a token says whether a space stands before it; else each is a whole word.

        So do the tokens of sentencepiece, where a text gains a space and `spaces_in_tokens` is
        False.
        """
        return any(self.token(i).startswith(" ") for i in self.ordinary_ids.tolist())

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if max(ids, default=0) >= self.vocab_size:
            beyond = next(i for i in ids if i >= self.vocab_size)
            raise SoftlensError(
                f"The token {self.tokenizer.convert_ids_to_tokens(beyond)!r} ({beyond}) of the "
                f"tokenizer has no row in the embedding of {self.name!r}, which ends at "
                f"{self.vocab_size - 1}. Is it the tokenizer of another model? If tokens were "
                "added, model.resize_token_embeddings(len(tokenizer)) gives them rows."
            )
        return ids

    def encode(self, text: str, leading_space: bool = False) -> list[int]:
        """Token ids of `text` without special tokens.

        With `leading_space` the text is encoded as it would be inside a sentence: the space
        before it belongs to its first token where the tokenizer works that way. A control token
        takes none.
        """
        wanted = leading_space and self.spaces_in_tokens and text and not text[0].isspace()
        if wanted and not text.startswith(self._control_tokens):
            text = " " + text
        return self._ids(text)

    @cached_property
    def _control_tokens(self) -> tuple[str, ...]:
        names = self.tokenizer.convert_ids_to_tokens(sorted(self.special_ids))
        return tuple(name for name in names if name)

    def decode(self, ids: Sequence[int]) -> str:
        """The exact text of `ids`: nothing cleaned up, special tokens kept."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def token(self, index: int) -> str:
        """The text of one token; a piece of a character shows as U+FFFD."""
        piece: Any = self.tokenizer.convert_ids_to_tokens(int(index))
        if piece is None:
            return f"<unused {index}>"
        text = self.decode([index])
        # sentencepiece drops the mark of a leading space when a token stands alone
        return " " + text if piece.startswith("▁") and not text.startswith(" ") else text

    def embed(self, ids: Sequence[int]) -> Float[Tensor, "length hidden"]:
        """Embedding rows of `ids`, float32."""
        return self.embedding[torch.as_tensor(list(ids), dtype=torch.long, device=self.device)]

    def encode_texts(
        self,
        template: str,
        texts: Sequence[str],
        *,
        reserve: int = 0,
        truncate: bool = False,
    ) -> EncodedTexts:
        """Texts in a template, ready for the two primitives; see `softlens.lm.texts`."""
        return encode_texts(
            texts,
            template_parts(template),
            self.encode,
            self.start,
            self.context_length,
            self.cache,
            truncate=truncate,
            reserve=reserve,
            spaced=not glued_behind(template),
        )

    def need_gradients(self, what: str) -> None:
        """Raise `SoftlensError`, and say what still works, where no gradient reaches a prompt."""
        if not self.differentiable:
            raise SoftlensError(
                f"{self.name!r} gives no gradients (quantised weights, or kernels without a "
                f"backward pass), and {what} follows them. Without gradients there are: sl.tune "
                "with 'rlprompt', 'sample', 'race', 'beam' or 'tandem', every reading, "
                "sl.attribute with 'shapley' or 'leave_one_out', and all that only scores: "
                "evaluate, nearest_tokens, surprisal, faithfulness, scrutability, report."
            )

    # -- the head -----------------------------------------------------------------------------

    def logits(
        self, hidden: Float[Tensor, "*batch hidden"], words: Int[Tensor, " words"] | None = None
    ) -> Float[Tensor, "*batch answers"]:
        """The LM head in float32 on final hidden states: all tokens, or the rows of `words`."""
        return self.head(hidden, words)

    def _start(self, bos_id: int | None) -> int | None:
        if bos_id is not None and not 0 <= bos_id < self.vocab_size:
            raise SoftlensError(
                f"Got bos_id={bos_id}, wanted 0 to {self.vocab_size - 1}, the rows of the "
                f"embedding of {self.name!r}."
            )
        return self.own_start if bos_id is None else bos_id


def _bytes_per_token(model: PreTrainedModel) -> int:
    """Bytes of keys and values for each token, read off a prefill of two tokens."""
    probe = transformer.prefill(model, [[0, 0]]).keys_values
    return probe.numel() * probe.element_size() // 2


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
