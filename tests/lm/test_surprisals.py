"""Token surprisal against the model's own next-token loss."""

from collections.abc import Callable

import pytest
import torch

from softlens.errors import SoftlensError
from softlens.lm import LM, answer_logits, default_context, token_surprisal

ROWS = [[5, 9, 40, 3], [7, 2, 11, 60]]


def by_hand(lm: LM, before: list[int], row: list[int]) -> torch.Tensor:
    ids = torch.tensor([[*before, *row]])
    log_probs = lm.model(input_ids=ids).logits[0].log_softmax(-1)
    at = torch.arange(len(before) - 1, ids.shape[1] - 1)
    return -log_probs[at, torch.tensor(row)]


@pytest.mark.parametrize("path", ["fast", "plain"])
def test_every_context_equals_the_next_token_loss(any_lm: LM, path: str):
    texts = any_lm.encode_texts("{text} {prompt}", ["the film was good", "it was a dull plot"])
    any_lm.path = path
    try:
        for context, befores in (
            ("bos", [[any_lm.bos_id]]),
            ("bos.", [[any_lm.bos_id, *any_lm.encode(".")]]),
            (texts, [list(row) for row in texts.befores]),
        ):
            got = token_surprisal(any_lm, ROWS, context)
            wanted = torch.stack(
                [torch.stack([by_hand(any_lm, before, row) for before in befores]) for row in ROWS]
            )
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    finally:
        any_lm.path = "fast"


def test_shorter_prompts_end_in_nan(any_lm: LM):
    both = token_surprisal(any_lm, [[5, 9, 40], [7]], "bos")
    torch.testing.assert_close(both[1, 0, :1], token_surprisal(any_lm, [[7]], "bos")[0, 0])
    assert both[1, 0, 1:].isnan().all()
    assert both[0].isfinite().all()


def test_gradient_reaches_the_vectors_as_context(any_lm: LM):
    vectors = any_lm.embed(ROWS[0])[None].clone().requires_grad_()
    nats = token_surprisal(any_lm, [ROWS[0]], "bos", vectors=vectors)
    (slope,) = torch.autograd.grad(nats.sum(), vectors)
    step = torch.zeros_like(vectors)
    step[0, 1, 3] = 1e-2
    up = token_surprisal(any_lm, [ROWS[0]], "bos", vectors=vectors.detach() + step).sum()
    down = token_surprisal(any_lm, [ROWS[0]], "bos", vectors=vectors.detach() - step).sum()
    assert float((up - down) / 2e-2) == pytest.approx(float(slope[0, 1, 3]), rel=0.05, abs=1e-3)
    # What stands last is context to nothing.
    assert slope[0, -1].abs().max() == 0


def test_chunks_keep_the_order(any_lm: LM, monkeypatch: pytest.MonkeyPatch):
    texts = any_lm.encode_texts("{text} {prompt}", ["a b c d", "it", "the film was", "dull plot"])
    rows = [[i, i + 1] for i in range(7)]
    wanted = token_surprisal(any_lm, rows, texts)
    monkeypatch.setattr("softlens.lm.surprisals.CHUNK_TOKENS", 3)
    monkeypatch.setattr("softlens.lm.answers.FOLD_TOKENS", 4)
    torch.testing.assert_close(token_surprisal(any_lm, rows, texts), wanted, rtol=1e-4, atol=1e-5)


def test_bad_contexts_and_empty_prompts(tiny: Callable[..., LM]):
    lm = tiny()
    with pytest.raises(SoftlensError, match="length of 0"):
        token_surprisal(lm, [[]], "bos")
    with pytest.raises(SoftlensError, match="wanted 'bos'"):
        token_surprisal(lm, [[1]], "eos")
    with pytest.raises(SoftlensError, match="stand before the prompt"):
        token_surprisal(lm, [[1]], lm.encode_texts("{prompt} {text}", ["film"]))


@pytest.mark.real
def test_the_sink_of_the_real_lm_is_found_and_cured(smollm2: LM):
    """After BOS alone a first token costs nats that a full stop before it takes away."""
    assert smollm2.sink
    assert default_context(smollm2) == "bos."
    row = smollm2.encode("It was", leading_space=True)
    alone = float(token_surprisal(smollm2, [row], "bos")[0, 0, 0])
    cured = float(token_surprisal(smollm2, [row])[0, 0, 0])
    assert alone > cured + 4


@pytest.mark.real
def test_the_fast_layouts_agree_on_the_real_lm(smollm2: LM):
    assert smollm2.path == "fast"
    # float32 itself is 1e-5 away from float64 after 30 layers.
    assert smollm2.parity <= 3e-5
    texts = smollm2.encode_texts("{text} {prompt}", ["The capital of France"])
    logits = answer_logits(smollm2, [smollm2.encode(" is")], texts)
    assert smollm2.token(int(logits.argmax())) == " Paris"
