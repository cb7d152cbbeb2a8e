"""Tiny LMs built from a config, with a tokenizer trained on a few sentences: offline, quick."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from softlens import corpora
from softlens.lm import LM, available, load_lm
from softlens.tasks import Split, Task

torch.set_num_threads(1)

WORDS = (
    "the", "a", "film", "was", "great", "terrible", "good", "bad", "and", "dull",
    "bright", "it", "overall", "in", "short", "story", "plot",
)  # fmt: skip
SENTENCES = [
    " ".join((first, second, third)) for first in WORDS for second in WORDS for third in WORDS
]

_COMMON: dict[str, Any] = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0}
_LLAMA: dict[str, Any] = _COMMON | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_UNGROUPED: dict[str, Any] = {k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"}
CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(**_COMMON, n_embd=32, n_layer=3, n_head=4, n_positions=128),
    "llama": lambda: LlamaConfig(**_LLAMA, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_LLAMA),
    "gpt_neox": lambda: GPTNeoXConfig(**_UNGROUPED),
}


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most 320 tokens, as GPT-2's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


@pytest.fixture(scope="session")
def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the tiny LMs."""
    return train_tokenizer()


def tiny_model(family: str, seed: int = 0) -> Any:
    """A random model of `family`, with weights large enough that answers differ."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]())
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5 if "embed" in key or "wte" in key else 0.15)
    return model


@pytest.fixture(scope="session")
def tiny(bpe_tokenizer: PreTrainedTokenizerFast) -> Callable[..., LM]:
    """``tiny("gpt2")``: a small random LM of a family, made once."""
    made: dict[Any, LM] = {}

    def make(family: str = "gpt2", seed: int = 0, **options: Any) -> LM:
        key = (family, seed, *sorted(options.items()))
        if key not in made:
            model = tiny_model(family, seed)
            made[key] = LM(model, bpe_tokenizer, name=f"tiny-{family}-{seed}", **options)
        return made[key]

    return make


@pytest.fixture(params=sorted(CONFIGS))
def any_lm(request: pytest.FixtureRequest, tiny: Callable[..., LM]) -> LM:
    """Each of the tiny LMs in turn."""
    return tiny(request.param)


@pytest.fixture(scope="session")
def toy_task() -> Task:
    """A learnable two-class task on the tiny tokenizer's words."""

    def split(count: int, offset: int) -> Split:
        labels = [i % 2 for i in range(count)]
        texts = [
            f"{WORDS[(i + offset) % 7]} film was {'good' if label else 'bad'} "
            f"{WORDS[(3 * i + offset) % 11]}"
            for i, label in enumerate(labels)
        ]
        return Split(tuple(texts), tuple(labels))

    return Task(
        name="toy",
        label_words=("terrible", "great"),
        template="{text} {prompt}",
        train=split(24, 0),
        dev=split(12, 1),
        test=split(20, 2),
        readable=("overall it was", "in short it was"),
        source="made in the tests",
    )


def real_is_missing() -> str | None:
    """Why the real LM and its texts cannot be used, or None where they can."""
    if os.environ.get("REAL") == "0":
        return "REAL=0 leaves out the real LM and its texts"
    if not available("smollm2-135m") or not corpora.available():
        return "the real LM or its texts are not installed: run `make real`"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the real LM where it is not there, notebooks included, and say so."""
    reason = real_is_missing()
    for item in items:
        # Its source, for an output may name the LM where stored runs are shown.
        source = item.path.with_suffix(".py")
        notebook = item.path.suffix == ".ipynb" and "smollm2-135m" in source.read_text("utf-8")
        if reason and (notebook or item.get_closest_marker("real")):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def smollm2() -> LM:
    """The real LM; for tests marked `real`."""
    return load_lm("smollm2-135m")


@pytest.fixture
def hub_folder(tmp_path: Path, bpe_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny GPT-2 saved in the hub's format."""
    folder = tmp_path / "hub-format"
    tiny_model("gpt2").save_pretrained(folder)
    bpe_tokenizer.save_pretrained(folder)
    return folder
