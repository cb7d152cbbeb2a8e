"""The families of causal LMs that are tried: tiny models from their configs, fitting tokenizers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.conftest import SENTENCES, WORDS, train_tokenizer

ROWS = 352
"""Of every embedding; tokenizers have fewer tokens, so that some rows are used by none."""
WINDOW = 24
"""Positions of a sliding window, where a family has one."""

_IDS: dict[str, Any] = {"vocab_size": ROWS, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_USUAL: dict[str, Any] = _IDS | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_GROUPED: dict[str, Any] = _USUAL | {"num_key_value_heads": 2}
_GEMMA: dict[str, Any] = _GROUPED | {
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": WINDOW,
}
_GPT: dict[str, Any] = _IDS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_NEO: dict[str, Any] = _IDS | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "max_position_embeddings": 128,
    "attention_types": [[["global", "local"], 1]],
    "window_size": WINDOW,
}
_OPT = {key: value for key, value in _USUAL.items() if key != "intermediate_size"}

FAMILIES: dict[str, tuple[Callable[[], Any], str]] = {
    "gpt2": (lambda: t.GPT2Config(**_GPT), "byte-level BPE"),
    "gpt_neo": (lambda: t.GPTNeoConfig(**_NEO), "byte-level BPE"),
    "gpt_neox": (lambda: t.GPTNeoXConfig(**_USUAL), "byte-level BPE, added tokens"),
    "gptj": (lambda: t.GPTJConfig(**_GPT, rotary_dim=4), "byte-level BPE"),
    "opt": (
        # As OPT-350m: embeddings narrower than the layers.
        lambda: t.OPTConfig(**_OPT, ffn_dim=64, word_embed_proj_dim=16),
        "byte-level BPE, adds BOS",
    ),
    "llama": (lambda: t.LlamaConfig(**_GROUPED), "sentencepiece, adds BOS"),
    "mistral": (
        lambda: t.MistralConfig(**_GROUPED, sliding_window=WINDOW),
        "sentencepiece, adds BOS",
    ),
    "qwen2": (lambda: t.Qwen2Config(**_GROUPED), "byte-level BPE, added tokens"),
    "qwen3": (lambda: t.Qwen3Config(**_GROUPED, head_dim=8), "byte-level BPE, added tokens"),
    "gemma2": (lambda: t.Gemma2Config(**_GEMMA), "sentencepiece, adds BOS"),
    "gemma3": (lambda: t.Gemma3TextConfig(**_GEMMA), "sentencepiece, adds BOS"),
    "phi": (lambda: t.PhiConfig(**_GROUPED), "byte-level BPE, added tokens"),
    "bloom": (lambda: t.BloomConfig(**_IDS, hidden_size=32, n_layer=2, n_head=4), "byte-level BPE"),
    "smollm3": (lambda: t.SmolLM3Config(**_GROUPED), "byte-level BPE, adds BOS"),
    "mpt": (
        lambda: t.MptConfig(
            **_IDS, d_model=32, n_heads=4, n_layers=2, max_seq_len=128, expansion_ratio=2
        ),
        "words",
    ),
}
SHARDED = "qwen3"
"""The one whose weights are saved in several files."""


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind, for the sentences of the tests."""
    if kind == "words":
        return _words()
    if kind.startswith("sentencepiece"):
        return _sentencepiece()
    tokenizer = train_tokenizer()
    if "adds BOS" in kind:
        _add_bos(tokenizer.backend_tokenizer, "<|endoftext|>")
    if "added tokens" in kind:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>"]})
        tokenizer.add_tokens([" overall"])
    return tokenizer


def _add_bos(raw: Tokenizer, token: str) -> None:
    raw.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, 0)]
    )


def _sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama's and Gemma's: BPE over spaces marked by a letter, bytes for what is unknown."""
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    given = ["<s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    raw.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=345, special_tokens=given, show_progress=False),
    )
    _add_bos(raw, "<s>")
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="<s>", unk_token="<unk>"
    )


def _words() -> PreTrainedTokenizerFast:
    names = ("<s>", "[UNK]", *WORDS, "brightly", "plainly")
    vocabulary = {word: i for i, word in enumerate(names)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="<s>", unk_token="[UNK]"
    )


def save_family(name: str, folder: Path) -> Path:
    """A random model of a family and its tokenizer, in the hub's format."""
    config, kind = FAMILIES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config())
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                rows = any(part in key for part in ("embed_tokens", "wte", "embed_in"))
                weight.normal_(0, 0.5 if rows or "word_embeddings" in key else 0.15)
    more: dict[str, Any] = {"max_shard_size": "20KB"} if name == SHARDED else {}
    model.save_pretrained(folder, **more)
    tokenizer_of(kind).save_pretrained(folder)
    return folder
