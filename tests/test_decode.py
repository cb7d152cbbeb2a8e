"""Nearest tokens against a loop in float64."""

import re
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.linalg
import torch

from softlens import Prompt, SoftlensError, nearest_tokens
from softlens.lm import LM
from softlens.nearness import METRICS


def brute_force(lm: LM, vectors: torch.Tensor, k: int, metric: str) -> tuple[list, np.ndarray]:
    table = lm.embedding.double().numpy()
    allowed = [i for i in range(lm.vocab_size) if i not in lm.special_ids | lm.unused_ids]
    ids, scores = [], []
    for vector in vectors.double().numpy():
        found = []
        for i in allowed:
            if metric == "cosine":
                score = table[i] @ vector / np.linalg.norm(table[i]) / np.linalg.norm(vector)
            elif metric == "dot":
                score = table[i] @ vector
            else:
                score = np.sqrt(((table[i] - vector) ** 2).sum())
            found.append((score if metric == "l2" else -score, i, score))
        found.sort()
        ids.append([i for _, i, _ in found[:k]])
        scores.append([score for *_, score in found[:k]])
    return ids, np.array(scores)


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_equal_to_a_loop_in_float64(any_lm: LM, metric):
    vectors = torch.randn(4, any_lm.hidden_size, generator=torch.Generator().manual_seed(2))
    got = nearest_tokens(any_lm, vectors, k=6, metric=metric)
    ids, scores = brute_force(any_lm, vectors, 6, metric)
    table = got.frame.pivot(index="position", columns="rank", values="token_id").to_numpy()
    assert table.tolist() == ids
    shown = got.frame.pivot(index="position", columns="rank", values="score").to_numpy()
    np.testing.assert_allclose(shown, scores, rtol=1e-12, atol=1e-12)
    assert got.token_ids == tuple(row[0] for row in ids)
    assert got.text == any_lm.decode(got.token_ids)
    assert list(got.frame.columns) == [
        "position", "rank", "token_id", "token", "score", "start_token",
    ]  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_token_is_nearest_to_itself(any_lm: LM, metric):
    prompt = Prompt.from_text(any_lm, "the film was great")
    got = nearest_tokens(any_lm, prompt, metric=metric)
    assert got.token_ids == prompt.token_ids
    assert got.text == prompt.text
    assert got.unchanged is None


def test_it_remembers_the_start(any_lm: LM):
    starts = any_lm.encode("the film was great")
    vectors = any_lm.embed(starts).clone()
    vectors[0] = any_lm.embed(any_lm.encode("dull"))[0]
    got = nearest_tokens(any_lm, Prompt.soft(any_lm, vectors, start_ids=starts), k=2)
    share = 1 - 1 / len(starts)
    assert got.unchanged == pytest.approx(share)
    assert f"{share:.0%} are the start's tokens" in repr(got)
    firsts = got.frame[got.frame["rank"] == 1]["start_token"].tolist()
    assert firsts == [any_lm.token(i) for i in starts]


def with_embedding(lm: LM, rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm, "embedding", rows)
    monkeypatch.setattr(lm, "unit_embedding", torch.nn.functional.normalize(rows, dim=1))
    monkeypatch.setattr(lm, "memo", {})


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
@pytest.mark.parametrize("positions", [1, 3])
def test_ties_go_to_the_lower_id(
    tiny: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, metric: str, positions: int
):
    lm = tiny()
    rows = lm.embedding.clone()
    # At the edge of a product of matrices equal rows get unequal bits.
    rows[[9, 40, 200]] = rows[319].clone() * 3
    rows[319] = rows[9]
    with_embedding(lm, rows, monkeypatch)
    vectors = rows[319].repeat(positions, 1)
    got = nearest_tokens(lm, vectors, k=4, metric=metric)
    assert got.frame["token_id"].tolist() == [9, 40, 200, 319] * positions
    assert got.frame.groupby("position")["score"].nunique().eq(1).all()
    first = nearest_tokens(lm, vectors, k=2, metric=metric)
    assert first.frame["token_id"].tolist() == [9, 40] * positions


def test_all_tokens_tie_with_a_zero_vector(tiny: Callable[..., LM]):
    got = nearest_tokens(tiny(), torch.zeros(1, 32), k=3, metric="dot", exclude=[1])
    assert got.frame["token_id"].tolist() == [0, 2, 3]


def test_scores_that_float32_cannot_tell_apart(
    tiny: Callable[..., LM], monkeypatch: pytest.MonkeyPatch
):
    lm = tiny()
    rows = lm.embedding.clone()
    vector = 100 * rows[7]
    rows[11:111] = vector + 1e-4 * torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    with_embedding(lm, rows, monkeypatch)
    got = nearest_tokens(lm, vector[None], k=20, metric="l2").frame
    ids, scores = brute_force(lm, vector[None], 20, "l2")
    assert got["token_id"].tolist() == ids[0]
    np.testing.assert_allclose(got["score"], scores[0], rtol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_cosine_does_not_see_the_size(tiny: Callable[..., LM], size: float):
    lm = tiny()
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    small, usual = nearest_tokens(lm, size * vector), nearest_tokens(lm, vector)
    assert small.token_ids == usual.token_ids
    np.testing.assert_allclose(small.frame["score"], usual.frame["score"], rtol=1e-5)


def test_special_unused_and_named_tokens_are_left_out(tiny: Callable[..., LM], monkeypatch):
    lm = tiny()
    vector = lm.embedding[[lm.bos_id]]
    assert nearest_tokens(lm, vector, k=1).token_ids != (lm.bos_id,)
    assert nearest_tokens(lm, vector, k=1, exclude=None).token_ids == (lm.bos_id,)
    film = lm.encode("a")
    assert nearest_tokens(lm, lm.embed(film), k=1, exclude=["a"]).token_ids != tuple(film)
    assert nearest_tokens(lm, lm.embed(film), k=1, exclude=film).token_ids != tuple(film)
    monkeypatch.setattr(lm, "unused_ids", frozenset({77}))
    assert nearest_tokens(lm, lm.embed([77]), k=1, exclude=None).token_ids != (77,)


def test_bad_input(tiny: Callable[..., LM]):
    lm = tiny()
    vectors = torch.ones(3, 32)
    with pytest.raises(SoftlensError, match=r"Got metric 'cosin'.*mean 'cosine'"):
        nearest_tokens(lm, vectors, metric="cosin")
    with pytest.raises(SoftlensError, match=r"shape \(3, 7\), wanted \(length, 32\)"):
        nearest_tokens(lm, vectors[:, :7])
    with pytest.raises(SoftlensError, match="Got k=320, wanted a whole number from 1 to 319"):
        nearest_tokens(lm, vectors, k=320)
    with pytest.raises(SoftlensError, match="Got k=0"):
        nearest_tokens(lm, vectors, k=0)
    vectors[1] = 0
    with pytest.raises(SoftlensError, match="position 1 is zero.*metric='l2'"):
        nearest_tokens(lm, vectors)
    assert nearest_tokens(lm, vectors, metric="l2").text
    vectors[2, 5] = float("nan")
    with pytest.raises(SoftlensError, match="position 2 holds NaN"):
        nearest_tokens(lm, vectors, metric="l2")
    with pytest.raises(SoftlensError, match="Wanted single tokens"):
        nearest_tokens(lm, torch.ones(1, 32), exclude=["a film of one token it is not"])
    with pytest.raises(SoftlensError, match="id 900, wanted 0 to 319"):
        nearest_tokens(lm, torch.ones(1, 32), exclude=[900])
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-1'"):
        nearest_tokens(lm, Prompt.from_text(tiny("gpt2", seed=1), "film"))
    with pytest.raises(SoftlensError, match="Got 1 start_ids for a prompt of 2 positions"):
        nearest_tokens(lm, Prompt.soft(lm, torch.ones(2, 32), start_ids=[5]))


def test_halves_of_characters_keep_their_bytes_in_every_view(tiny: Callable[..., LM]):
    lm = tiny()
    halves = lm.encode("\u00e9")  # two bytes, of which the tokenizer knows no whole
    got = nearest_tokens(lm, Prompt.soft(lm, lm.embed(halves), start_ids=halves[::-1]), k=1)
    assert got.token_ids == tuple(halves)
    assert got.text == "\u00e9"
    assert got.frame["token"].tolist() == ["\ufffd", "\ufffd"]
    got.frame.to_csv()
    table = got.table
    assert table["rank 1"].tolist() == [r"\xc3 1.00", r"\xa9 1.00"]
    assert table["started from"].tolist() == [r"\xa9", r"\xc3"]
    assert r"\xc3" in got._repr_html_()
    axes = got.plot()
    assert axes.texts[0].get_text() == "\\xc3\n1.00"
    plt.close(axes.figure)


def test_near_has_the_strong_colour_whichever_way_the_metric_runs(tiny: Callable[..., LM]):
    lm = tiny()
    vectors = torch.stack([lm.embedding[70], lm.embedding[80] + 1])
    for metric in ("cosine", "l2"):
        boxes = nearest_tokens(lm, vectors, k=1, metric=metric)._repr_html_()
        # The scale has these colours, too, behind the boxes.
        assert re.findall(r"rgba\(86,180,233,(\S+)\)", boxes)[:2] == ["0.50", "0.08"]


def test_the_picture_shows_tokens_scores_and_starts(any_lm: LM):
    prompt = Prompt.soft(any_lm, torch.randn(3, any_lm.hidden_size), start_ids=[5, 6, 7])
    for metric, unit in (("cosine", "cosine"), ("l2", "Euclidean distance")):
        nearest = nearest_tokens(any_lm, prompt, k=2, metric=metric)
        figure, axes = plt.subplots()
        assert nearest.plot(axes) is axes
        assert len(axes.texts) == 6
        assert figure.axes[1].get_ylabel() == unit
        assert axes.get_xticklabels()[1].get_text().startswith("1\nfrom ")
        figure.canvas.draw()
        plt.close(figure)
    assert "aria-label" in nearest._repr_html_()
    assert len(repr(nearest).splitlines()) == 5


def in_space(lm: LM, metric: str) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """The vocabulary where a metric takes cosines, by another way than the library's."""
    table = lm.embedding.double().numpy()
    mean = table[lm.ordinary_ids].mean(axis=0)
    turn = np.eye(len(mean))
    if metric == "whitened_cosine":
        # The inverse square root of the covariance: another rotation, the same cosines.
        covariance = np.cov(table[lm.ordinary_ids].T, bias=True)
        turn = scipy.linalg.fractional_matrix_power(covariance, -0.5).real
    return (table - mean) @ turn, lambda v: (v - mean) @ turn


@pytest.mark.parametrize("metric", ["centred_cosine", "whitened_cosine"])
def test_centred_and_whitened_equal_to_numpy(any_lm: LM, metric: str):
    vectors = any_lm.embedding[[30, 90, 200]] + 0.3 * torch.randn(
        3, any_lm.hidden_size, generator=torch.Generator().manual_seed(4)
    )
    got = nearest_tokens(any_lm, vectors, k=4, metric=metric)
    table, move = in_space(any_lm, metric)
    moved = move(vectors.double().numpy())
    cosines = moved @ table.T / np.linalg.norm(moved, axis=1)[:, None]
    cosines /= np.linalg.norm(table, axis=1)
    cosines[:, sorted(any_lm.special_ids | any_lm.unused_ids)] = -np.inf
    order = np.argsort(-cosines, axis=1)[:, :4]
    assert got.frame["token_id"].tolist() == order.ravel().tolist()
    np.testing.assert_allclose(
        got.frame["score"], np.take_along_axis(cosines, order, 1).ravel(), rtol=1e-6
    )
    prompt = Prompt.from_text(any_lm, "the film was great")
    assert nearest_tokens(any_lm, prompt, metric=metric).token_ids == prompt.token_ids


def test_centring_takes_away_what_all_tokens_share(tiny: Callable[..., LM], monkeypatch):
    lm = tiny()
    plain = nearest_tokens(lm, lm.embedding[[70]], k=2, metric="centred_cosine").frame["score"]
    with_embedding(lm, lm.embedding + 100, monkeypatch)
    raw = nearest_tokens(lm, lm.embedding[[70]], k=2).frame["score"]
    centred = nearest_tokens(lm, lm.embedding[[70]], k=2, metric="centred_cosine").frame["score"]
    assert raw.min() > 0.999
    np.testing.assert_allclose(centred, plain, atol=1e-4)
    mean = lm.embedding[lm.ordinary_ids].double().mean(dim=0)
    monkeypatch.setitem(lm.memo, "centred_cosine", (mean.float().double(), torch.eye(32).double()))
    with pytest.raises(SoftlensError, match="position 0 is the vocabulary's mean"):
        nearest_tokens(lm, mean.float()[None], metric="centred_cosine")


@pytest.mark.parametrize("metric", METRICS)
def test_margins_and_ranks_of_given_tokens(any_lm: LM, metric: str):
    vectors = torch.randn(3, any_lm.hidden_size, generator=torch.Generator().manual_seed(2))
    usual = any_lm.vocab_size - len(any_lm.special_ids | any_lm.unused_ids)
    every = nearest_tokens(any_lm, vectors, k=usual, metric=metric).frame
    wanted = [*any_lm.encode(" film"), 100]
    got = nearest_tokens(any_lm, vectors, k=1, metric=metric, track=[" film", 100])
    for row in got.tracked.to_dict("records"):
        same = every[
            (every["position"] == row["position"]) & (every["token_id"] == row["token_id"])
        ]
        assert same["rank"].item() == row["rank"]
        assert same["score"].item() == pytest.approx(row["score"], rel=1e-9, abs=1e-12)
    assert got.tracked["token_id"].tolist() == wanted * 3
    table = every.pivot(index="position", columns="rank", values="score")
    np.testing.assert_allclose(got.margins, (table[1] - table[2]).abs())


@pytest.mark.parametrize("metric", METRICS)
def test_tokens_are_nearer_than_chance_and_noise_is_not(any_lm: LM, metric: str):
    generator = torch.Generator().manual_seed(7)
    vectors = torch.cat([any_lm.embedding[[80]], torch.randn(1, any_lm.hidden_size,
                         generator=generator)])  # fmt: skip
    got = nearest_tokens(any_lm, vectors, metric=metric, chance=60, seed=1)
    token, noise = got.chance["p_value"]
    assert noise > 0.02
    if metric != "dot":  # a long row is the nearest to most vectors
        assert token == pytest.approx(1 / 61)
    assert "than random vectors of their norm" in got.headline
    assert "p (chance)" in got.table
    assert nearest_tokens(any_lm, vectors, metric=metric).chance is None
    drawn = torch.nn.functional.normalize(
        torch.randn(60, any_lm.hidden_size, generator=torch.Generator().manual_seed(1)), dim=1
    )
    best = nearest_tokens(any_lm, drawn * vectors[1].norm(), k=1, metric=metric).frame["score"]
    assert got.chance["random_median"][1] == pytest.approx(best.sort_values().iloc[29], rel=1e-4)


def test_bad_tokens_and_too_few_draws(tiny: Callable[..., LM]):
    lm = tiny()
    vectors = torch.ones(1, 32)
    with pytest.raises(SoftlensError, match="Got chance=5, wanted at least 20"):
        nearest_tokens(lm, vectors, chance=5)
    with pytest.raises(SoftlensError, match="track has 'a film', which is"):
        nearest_tokens(lm, vectors, track=["a film"])
    with pytest.raises(SoftlensError, match=r"wanted a list of tokens: track=\['film'\]"):
        nearest_tokens(lm, vectors, track="film")
    with pytest.raises(SoftlensError, match="left out of the ranking"):
        nearest_tokens(lm, vectors, track=[lm.bos_id])
