"""What is in memory at once: bounded however long the texts are, and as ever for our own tasks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from softlens import attribute, load_lm, load_task
from softlens.lm import (
    LM,
    EncodedTexts,
    next_token_entropy,
    score_answers,
    sequence_chunks,
    token_surprisal,
    transformer,
    word_logits,
)
from softlens.lm import texts as of_texts
from softlens.lm.answers import ROW_TOKENS
from softlens.lm.texts import BLOCK_BYTES, CHUNK_TOKENS
from softlens.tasks import Split, Task

LONG = [" ".join(["film"] * (100 - i)) for i in range(40)]
PROMPTS = [[5 + i] for i in range(40)]
WORDS = torch.tensor([9, 30])

CALLS: dict[str, Callable[[LM, EncodedTexts], Any]] = {
    "scores": lambda lm, texts: score_answers(lm, PROMPTS, texts, WORDS),
    "words": lambda lm, texts: word_logits(lm, PROMPTS, texts, WORDS),
    "surprisal": lambda lm, texts: token_surprisal(lm, PROMPTS, texts),
    "entropy": lambda lm, texts: next_token_entropy(lm, lm.embedding[:40, None], texts),
    "tries": lambda lm, texts: list(
        sequence_chunks(lm, lm.embedding, [(row,) for (row,) in PROMPTS], texts, WORDS)
    ),
}


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most positions of one forward, and the most bytes of one block of keys and values."""
    seen = {"positions": 0, "bytes": 0}
    hidden, prefix = transformer._hidden, of_texts.KeyValueCache.prefix

    def noting(model: Any, **inputs: Any) -> torch.Tensor:
        rows, width = inputs["inputs_embeds"].shape[:2]
        seen["positions"] = max(seen["positions"], rows * width)
        return hidden(model, **inputs)

    def weighing(*given: Any) -> transformer.Prefix:
        made = prefix(*given)
        size = made.keys_values.numel() * made.keys_values.element_size()
        seen["bytes"] = max(seen["bytes"], size)
        return made

    monkeypatch.setattr(transformer, "_hidden", noting)
    monkeypatch.setattr(of_texts.KeyValueCache, "prefix", weighing)
    return seen


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kept", [1000, 1 << 29])
def test_the_block_of_long_texts_is_bounded(
    tiny: Callable[..., LM], call: str, kept: int, largest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(of_texts, "BLOCK_BYTES", 400_000)
    lm = tiny(cache_memory=kept)
    CALLS[call](lm, lm.encode_texts("{text} {prompt}", LONG))
    assert 200_000 < largest["bytes"] <= 400_000
    assert largest["positions"] <= CHUNK_TOKENS


def test_the_block_of_gradients_is_bounded(
    tiny: Callable[..., LM], toy_task: Task, largest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(of_texts, "BLOCK_BYTES", 400_000)
    task = replace(toy_task, test=Split(tuple(LONG), (0, 1) * 20))
    attribute(tiny(), task, "it", "gradient_x_input", texts=40)
    assert 200_000 < largest["bytes"] <= 400_000


@pytest.mark.parametrize("call", CALLS)
def test_the_plain_path_counts_the_texts(
    tiny: Callable[..., LM], call: str, largest, monkeypatch: pytest.MonkeyPatch
):
    lm = tiny()
    monkeypatch.setattr(lm, "path", "plain")
    CALLS[call](lm, lm.encode_texts("{text} {prompt}", LONG[:10]))
    # All prompts on one text, but no second text beside it.
    assert CHUNK_TOKENS < largest["positions"] <= 40 * 103
    monkeypatch.setattr("softlens.lm.answers.ROW_TOKENS", 1500)
    largest["positions"] = 0
    CALLS[call](lm, lm.encode_texts("{text} {prompt}", LONG[:10]))
    # Of a few prompts, several texts are forwarded together again.
    assert 1000 < largest["positions"] <= CHUNK_TOKENS


@pytest.mark.parametrize("name", ["topic", "sentiment", "witness"])
def test_chunks_of_the_bundled_tasks_are_cut_by_positions_alone(name: str):
    lm, task = load_lm(), load_task(name)
    texts = lm.encode_texts(task.template, task.test.texts)
    longest = lm.cache.bytes_per_token * texts.longest * len(texts)
    assert longest < BLOCK_BYTES
    for tokens in (1, 5, 128):
        sizes = [len(chunk) for chunk in texts.chunks(tokens)]
        assert set(sizes[:-1]) <= {CHUNK_TOKENS // tokens}
        assert len(sizes) == math.ceil(len(texts) / (CHUNK_TOKENS // tokens))
    assert 128 * (1 + texts.longest) < ROW_TOKENS


@pytest.mark.real
@pytest.mark.parametrize("name", ["reviews", "genre"])
def test_chunks_of_the_real_lm_are_cut_by_positions_and_logits_alone(smollm2: LM, name: str):
    task = load_task(name)
    most = of_texts.logits_together(smollm2.vocab_size)
    for split in (task.train, task.dev, task.test):
        texts = smollm2.encode_texts(task.template, split.texts)
        sizes = [len(chunk) for chunk in texts.chunks(1, most)]
        assert set(sizes[:-1]) <= {most}
        assert len(sizes) == math.ceil(len(texts) / most)
        assert 128 * (1 + texts.longest) < ROW_TOKENS
