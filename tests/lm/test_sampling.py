"""Drawing prompts from the LM, with and without replacement."""

from collections.abc import Callable

import pytest
import torch

from softlens import SoftlensError
from softlens.lm import LM, Drawn, draw_prompts, token_surprisal


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def first_token_shares(lm: LM) -> torch.Tensor:
    row = torch.tensor([[lm.bos_id]])
    with torch.no_grad():
        return lm.model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, 0].softmax(-1)


@pytest.mark.parametrize("replacement", [False, True])
def test_what_is_drawn_is_new_ordered_and_as_likely_as_it_says(any_lm: LM, replacement: bool):
    drawn = draw_prompts(any_lm, 3, 40, generator(), "bos", replacement=replacement)
    rows = [tuple(row) for row in drawn.ids.tolist()]
    assert len(set(rows)) == len(rows)
    assert (drawn.nats.diff() >= 0).all()
    nats = token_surprisal(any_lm, drawn.ids.tolist(), "bos")[:, 0].mean(dim=-1)
    torch.testing.assert_close(drawn.nats, nats, rtol=1e-4, atol=1e-4)
    assert int(drawn.counts.sum()) == 40
    if not replacement:
        assert len(rows) == 40


@pytest.mark.parametrize("replacement", [False, True])
def test_a_low_temperature_draws_what_is_likely_and_reports_the_lms_own_nats(
    any_lm: LM, replacement: bool
):
    def draw(temperature: float) -> Drawn:
        return draw_prompts(
            any_lm, 3, 40, generator(), "bos", replacement=replacement, temperature=temperature
        )

    cold, plain = draw(0.3), draw(1.0)
    own = token_surprisal(any_lm, cold.ids.tolist(), "bos")[:, 0].mean(dim=-1)
    torch.testing.assert_close(cold.nats, own, rtol=1e-4, atol=1e-4)
    assert cold.nats.median() < plain.nats.median()


def test_at_a_temperature_tokens_come_as_often_as_it_says(tiny: Callable[..., LM]):
    lm, count = tiny(), 20_000
    drawn = draw_prompts(lm, 1, count, generator(), "bos", replacement=True, temperature=0.5)
    got = torch.zeros(lm.vocab_size).index_add(0, drawn.ids[:, 0], drawn.counts.float()) / count
    wanted = first_token_shares(lm).square()
    wanted /= wanted.sum()
    spread = (wanted * (1 - wanted) / count).sqrt()
    # A token that is hardly ever drawn is drawn twice at most, which no normal law allows.
    assert ((got - wanted).abs() <= 5 * spread + 2 / count).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_zero(tiny: Callable[..., LM], temperature: float):
    with pytest.raises(SoftlensError, match="wanted more than 0"):
        draw_prompts(tiny(), 2, 5, generator(), "bos", temperature=temperature)


def test_with_replacement_tokens_come_as_often_as_the_lm_says(tiny: Callable[..., LM]):
    lm, count = tiny(), 20_000
    drawn = draw_prompts(lm, 1, count, generator(), "bos", replacement=True)
    got = torch.zeros(lm.vocab_size).index_add(0, drawn.ids[:, 0], drawn.counts.float()) / count
    wanted = first_token_shares(lm)
    spread = (wanted * (1 - wanted) / count).sqrt()
    assert ((got - wanted).abs() <= 5 * spread + 1e-9).all()


def test_without_replacement_inclusion_follows_the_plackett_luce_law(tiny: Callable[..., LM]):
    """The first of k draws without replacement is an ordinary draw; so is the top of the beam."""
    lm = tiny()
    wanted = first_token_shares(lm)
    chosen = torch.topk(wanted, 12).indices
    allowed = torch.zeros(lm.vocab_size, dtype=torch.bool)
    allowed[chosen] = True
    shares = wanted[chosen] / wanted[chosen].sum()
    # P(i is among two) by the law of drawing without replacement.
    pairs = shares[:, None] * shares[None, :] / (1 - shares[:, None])
    pairs.fill_diagonal_(0)
    inclusion = pairs.sum(dim=1) + pairs.sum(dim=0)
    times, counts = 800, torch.zeros(lm.vocab_size)
    source = generator(1)
    for _ in range(times):
        ids = draw_prompts(lm, 1, 2, source, "bos", allowed).ids[:, 0]
        counts[ids] += 1
    got = counts[chosen] / times
    spread = (inclusion * (1 - inclusion) / times).sqrt()
    assert ((got - inclusion).abs() <= 4.5 * spread).all()


def test_a_whole_tree_can_be_drawn(tiny: Callable[..., LM]):
    lm = tiny()
    allowed = torch.zeros(lm.vocab_size, dtype=torch.bool)
    allowed[lm.ordinary_ids[:3]] = True
    drawn = draw_prompts(lm, 3, 1000, generator(), "bos", allowed)
    assert len(drawn) == 27
    assert set(drawn.ids.flatten().tolist()) == set(lm.ordinary_ids[:3].tolist())
    # Under the allowed tokens alone, all sequences together have probability one.
    assert float((-drawn.nats * 3).exp().sum()) == pytest.approx(1, abs=1e-4)


def test_after_texts_draws_are_divided_and_merged(tiny: Callable[..., LM]):
    lm = tiny()
    texts = lm.encode_texts("{text} {prompt}", ["the film was great", "a dull plot"])
    drawn = draw_prompts(lm, 2, 31, generator(), texts)
    assert 16 <= len(drawn) <= 31
    assert int(drawn.counts.sum()) == 31
    lowest = token_surprisal(lm, drawn.ids.tolist(), texts).mean(dim=-1).amin(dim=1)
    assert (drawn.nats >= lowest - 1e-4).all()


def test_same_seed_same_draws(tiny: Callable[..., LM]):
    lm = tiny()
    for replacement in (False, True):
        first, second, other = (
            draw_prompts(lm, 3, 20, generator(seed), replacement=replacement).ids
            for seed in (5, 5, 6)
        )
        assert torch.equal(first, second)
        assert first.shape != other.shape or not torch.equal(first, other)


def test_bad_sizes_and_masks(tiny: Callable[..., LM]):
    lm = tiny()
    with pytest.raises(SoftlensError, match="Got length 0 and count 5"):
        draw_prompts(lm, 0, 5, generator())
    with pytest.raises(SoftlensError, match="No token is allowed"):
        draw_prompts(lm, 2, 5, generator(), allowed=torch.zeros(lm.vocab_size, dtype=torch.bool))
