"""Tries of prompts against one forward for each."""

import itertools

import pytest
import torch

from softlens.lm import LM, answer_logits, sequence_chunks
from softlens.lm.tries import _parts

TEXTS = ["the film was good", "it was a dull plot and", "great"]


def together(lm: LM, table, sequences, texts, words=None) -> torch.Tensor:
    count = lm.vocab_size if words is None else len(words)
    found = torch.full((len(sequences), len(texts), count), float("nan"))
    for some, chosen, logits in sequence_chunks(lm, table, sequences, texts, words):
        found[torch.tensor(some)[:, None], torch.tensor(chosen)[None]] = logits
    return found


@pytest.mark.parametrize(
    "template", ["{text} {prompt}", "{text} {prompt} it was", "{prompt} {text} it was"]
)
@pytest.mark.parametrize("path", ["fast", "plain"])
def test_all_coalitions_equal_their_own_forward(
    any_lm: LM, template: str, path: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("softlens.lm.tries.PART_NODES", 11)
    monkeypatch.setattr(any_lm, "path", path)
    table = torch.randn(5, any_lm.hidden_size, generator=torch.Generator().manual_seed(0))
    subsets = [c for n in range(6) for c in itertools.combinations(range(5), n)]
    # Repeated and unordered ones, too.
    sequences = [*subsets, (4, 0, 0), (3, 1), (1,)]
    texts = any_lm.encode_texts(template, TEXTS, reserve=5)
    got = together(any_lm, table, sequences, texts)
    for sequence, logits in zip(sequences, got, strict=True):
        wanted = answer_logits(any_lm, table[list(sequence)][None], texts)[0]
        torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    words = torch.tensor([7, 300])
    some = together(any_lm, table, sequences, texts, words)
    torch.testing.assert_close(some, got[..., words], rtol=1e-4, atol=1e-4)


def test_what_is_shared_is_forwarded_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("softlens.lm.tries.PART_NODES", 1000)
    subsets = sorted(c for n in range(8) for c in itertools.combinations(range(7), n))
    parts = list(_parts(subsets))
    assert sum(len(part.ends) for part in parts) == 2**7
    assert sum(len(part.vectors) for part in parts) == 2**7 - 1
