"""Prompts: vectors that stand in the place of token embeddings, and the files they live in."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from softlens import files
from softlens.errors import DamagedFileError, SoftlensError
from softlens.lm import LM

log = logging.getLogger(__name__)


class LMName(NamedTuple):
    """Which LM a prompt belongs to."""

    name: str
    checksum: str


@dataclass(frozen=True, eq=False)
class Prompt:
    """`length` vectors for one LM: *soft* if free, *hard* if they are rows of its embedding.

    Raises:
        SoftlensError: for vectors that are not (length, hidden) or not finite.
    """

    vectors: Float[Tensor, "length hidden"]
    """Float32; what the LM is fed."""
    lm: LMName
    """Name and checksum of the LM the prompt is for."""
    token_ids: tuple[int, ...] | None = None
    """The tokens of a hard prompt, None for a soft one."""
    text: str | None = None
    """The text of a hard prompt, None for a soft one."""
    start_ids: tuple[int, ...] | None = field(default=None)
    """The token each position started from in training, None where that is not known."""
    template: str | None = None
    """Where it stands in a row, as it was trained; None where that is not known."""

    def __post_init__(self) -> None:
        vectors = self.vectors.detach().to("cpu", torch.float32, copy=True)
        if vectors.ndim != 2:
            raise SoftlensError(
                f"Got prompt vectors of shape {tuple(vectors.shape)}, wanted (length, hidden)."
            )
        bad = (~torch.isfinite(vectors)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise SoftlensError(
                f"The prompt holds NaN or infinity at position {bad[0]}. Was the training stopped "
                "by a loss that was not a number? Lower the learning rate."
            )
        object.__setattr__(self, "vectors", vectors)

    @classmethod
    def from_text(cls, lm: LM, text: str, leading_space: bool = True) -> "Prompt":
        """A hard prompt: the embedding rows of `text`.

        A word that the LM does not have becomes its token for unknown words; a log line names it.

        Args:
            lm: whose tokens and rows.
            text: what it says.
            leading_space: encode it as it stands after other words; False where nothing is before
                it, as with a template ``{prompt} {text}``.

        Raises:
            SoftlensError: a text without tokens.
        """
        ids = lm.encode(text, leading_space=leading_space)
        if not ids:
            raise SoftlensError(f"The text {text!r} has no tokens. Use None for the empty prompt.")
        _say_lacking(lm, text)
        return cls.from_ids(lm, ids)

    @classmethod
    def from_ids(cls, lm: LM, ids: Sequence[int]) -> "Prompt":
        """A hard prompt from token ids.

        Raises:
            SoftlensError: an id outside the vocabulary.
        """
        ids = tuple(int(i) for i in ids)
        outside = [i for i in ids if not 0 <= i < lm.vocab_size]
        if outside:
            raise SoftlensError(
                f"Got token ids {outside[:5]}, wanted 0 to {lm.vocab_size - 1}, the rows of the "
                f"embedding of {lm.name!r}."
            )
        name = LMName(lm.name, lm.checksum)
        return cls(lm.embed(ids), name, token_ids=ids, text=lm.decode(ids))

    @classmethod
    def soft(
        cls, lm: LM, vectors: Float[Tensor, "length hidden"], start_ids: Sequence[int] | None = None
    ) -> "Prompt":
        """A soft prompt for `lm` from free vectors.

        Args:
            lm: the LM they are for.
            vectors: shape (length, hidden).
            start_ids: the tokens that training started from, one a position, if it is known.

        Raises:
            SoftlensError: vectors of another width than the LM's, or with NaN or infinity.
        """
        started = None if start_ids is None else tuple(int(i) for i in start_ids)
        prompt = cls(vectors, LMName(lm.name, lm.checksum), start_ids=started)
        prompt.check(lm)
        return prompt

    @classmethod
    def from_peft(
        cls, source: str | Path | Any, lm: LM, *, any_base: bool = False, adapter: str | None = None
    ) -> "Prompt":
        """The soft prompt of a PEFT adapter: PROMPT_TUNING, P_TUNING or CPT.

        PEFT puts an adapter onto any base of the same width, and often of another, without a word.
        Here its width, layers, heads, base model and, where a tokenizer or the base itself is at
        hand, its vocabulary are compared with `lm`; a log line says what could not be.

        PEFT feeds ``[prompt, text]``, without BOS in front and without a space between. For the
        very logits it had there, load the LM with ``sl.load_lm(..., bos=False)`` and ask in the
        prompt's own template, ``task.with_(template=prompt.template)``, which is
        ``{prompt}{text}``. Where the tokenizer starts every text with BOS (Llama's, Gemma's) and
        the texts in PEFT were ``tokenizer(text)``, the rows were ``[prompt, BOS, text]``: a log
        line names their template, such as ``{prompt}<s> {text}``. A prompt that `to_peft` wrote
        brings its own template, and fits an LM with and without ``bos``. In
        float32 the two sides differ by about a millionth of the largest logit, as far as PEFT does
        from itself with another kernel of attention; with ``dtype="float64"`` on both, by 1e-14.

        Args:
            source: the adapter's folder, or a live ``PeftModel``, in training or not.
            lm: the LM it was trained on.
            any_base: accept a base of another name or of other weights, of the same shape.
            adapter: which one of a ``PeftModel``; the active one unless given.

        Raises:
            SoftlensError: an adapter of another kind (PREFIX_TUNING, LoRA, ...: says why not), with
                more tensors than the prompt, or for another LM.
            DamagedFileError: half an adapter.
        """
        from softlens.adapters import from_peft

        return from_peft(source, lm, any_base=any_base, adapter=adapter)

    def to_peft(self, folder: str | Path, lm: LM, template: str | None = None) -> Path:
        """Write a PEFT adapter (PROMPT_TUNING) with the same logits in PEFT; returns `folder`.

        Rows here start with BOS, and PEFT puts nothing before a prompt: so the adapter's first
        virtual token is BOS (unless `lm` was loaded with ``bos=False``). Feed it the rest of the
        row, ``tokenizer(" " + text, add_special_tokens=False)``.

        Args:
            folder: where ``adapter_config.json`` and ``adapter_model.safetensors`` go.
            lm: the LM the prompt is for.
            template: where the prompt stands; a tuned prompt knows.

        Raises:
            SoftlensError: a prompt of another LM, or one with something before it: PEFT only
                prepends.
        """
        from softlens.adapters import to_peft

        return to_peft(self, folder, lm, template)

    @classmethod
    def from_file(cls, path: str | Path, lm: LM, key: str | None = None) -> "Prompt":
        """A soft prompt from vectors in a file: .npy, .npz, .pt, .pth, .bin or .safetensors.

        Nothing in the file is run: numpy without pickle, torch with weights_only.

        Args:
            path: the file; it holds one matrix (length, hidden), or several by name.
            lm: the LM they were trained on.
            key: which of several.

        Raises:
            SoftlensError: no matrix of the LM's width, several, or objects in the place of numbers.
            DamagedFileError: half a file.
        """
        from softlens.adapters import matrix_of

        return cls.soft(lm, matrix_of(Path(path), lm, key))

    @property
    def length(self) -> int:
        """Positions."""
        return self.vectors.shape[0]

    @property
    def is_hard(self) -> bool:
        """True where the vectors are rows of the embedding and have token ids."""
        return self.token_ids is not None

    def __repr__(self) -> str:
        what = repr(self.text) if self.is_hard else "soft"
        return f"Prompt({what}, {self.length} x {self.vectors.shape[1]}, for {self.lm.name!r})"

    def check(self, lm: LM) -> None:
        """Raise `SoftlensError` unless this prompt was made for `lm`."""
        if self.vectors.shape[1] != lm.hidden_size:
            raise SoftlensError(
                f"The prompt has shape {tuple(self.vectors.shape)}, but {lm.name!r} takes vectors "
                f"of width {lm.hidden_size}: it was made for {self.lm.name!r}. Load that LM."
            )
        if self.lm.checksum != lm.checksum:
            raise SoftlensError(
                f"The prompt was made for {self.lm.name!r} (checksum {self.lm.checksum}), and this "
                f"is {lm.name!r} (checksum {lm.checksum}). Load the LM it was made for; a text can "
                "be carried over with Prompt.from_text(lm, prompt.text)."
            )

    def save(self, path: str | Path, beside: Mapping[str, Tensor] | None = None) -> Path:
        """Write a safetensors file: the vectors, with everything else in its metadata.

        Args:
            path: the file.
            beside: tensors that stand in it, too, under names of their own.
        """
        metadata = {"format": "softlens.prompt", "lm": self.lm.name, "checksum": self.lm.checksum}
        tensors = dict(beside or {}) | {"vectors": self.vectors.contiguous()}
        if self.token_ids is not None:
            tensors["token_ids"] = torch.tensor(self.token_ids)
            metadata["text"] = self.text or ""
        if self.template is not None:
            metadata["template"] = self.template
        if self.start_ids is not None:
            tensors["start_ids"] = torch.tensor(self.start_ids)
        path = Path(path)
        files.write_atomic(path, save(tensors, metadata))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Prompt":
        """Read what `save` wrote; it opens without the LM.

        Raises:
            SoftlensError: there is no such file.
            DamagedFileError: it is truncated, or no prompt.
        """
        if not Path(path).is_file():
            raise SoftlensError(f"No prompt at {path}. Check the path.")
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            name = LMName(metadata["lm"], metadata["checksum"])
            vectors = tensors["vectors"]
        except (SafetensorError, KeyError) as reason:
            raise DamagedFileError(
                f"{path} is damaged, or no prompt of softlens ({type(reason).__name__}: {reason})."
            ) from reason
        ids, starts = tensors.get("token_ids"), tensors.get("start_ids")
        return cls(
            vectors,
            name,
            token_ids=None if ids is None else tuple(ids.tolist()),
            text=None if ids is None else metadata["text"],
            start_ids=None if starts is None else tuple(starts.tolist()),
            template=metadata.get("template"),
        )


def lacking(lm: LM, text: str) -> list[str]:
    """The words of `text` that the LM does not have, for which its tokenizer puts "unknown".

    That token said in so many letters is none of them: a reading may hold what was found.
    """
    unknown = lm.tokenizer.unk_token_id
    if unknown is None or unknown not in lm.encode(text, leading_space=True):
        return []
    words = [word for word in text.split() if str(lm.tokenizer.unk_token) not in word]
    return [word for word in words if unknown in lm.encode(word, leading_space=True)]


def _say_lacking(lm: LM, text: str) -> None:
    """Say once of each word that `lacking` finds."""
    new = [word for word in lacking(lm, text) if ("lacking", word) not in lm.memo]
    if new:
        lm.memo |= {("lacking", word): True for word in new}
        log.warning(
            "%r does not have %s, and is fed its token for unknown words, %r, in their place.",
            lm.name,
            ", ".join(map(repr, new)),
            lm.tokenizer.unk_token,
        )


@runtime_checkable
class PromptLike(Protocol):
    """Stands for a prompt where one is asked for: a reading, a run."""

    def as_prompt(self, lm: LM) -> Prompt:
        """The prompt that is meant, after checking that it is of `lm`."""
        ...


def meant(lm: LM, given: Prompt | str | PromptLike | None) -> Prompt | str | None:
    """`given`, but of a `softlens.Reading` the tokens it found and of a run its prompt."""
    return given.as_prompt(lm) if isinstance(given, PromptLike) else given


def as_prompt(lm: LM, given: Prompt | str | PromptLike, leading_space: bool = True) -> Prompt:
    """The prompt that is meant, whatever was given for it.

    Args:
        lm: the LM it is asked on.
        given: a prompt, a text, or what `meant` knows.
        leading_space: how a text is encoded, see `Prompt.from_text`.

    Raises:
        SoftlensError: something else; of another LM; a text without tokens; a mixture of texts.
    """
    found = meant(lm, given)
    if isinstance(found, str):
        return Prompt.from_text(lm, found, leading_space)
    if not isinstance(found, Prompt):
        raise SoftlensError(
            f"Got a {type(found).__name__}, wanted a Prompt, a text, a Reading or a Run. Vectors "
            "become one with Prompt.soft(lm, vectors), ids with Prompt.from_ids."
        )
    found.check(lm)
    return found
