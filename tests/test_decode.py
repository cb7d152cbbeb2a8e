"""Nearest tokens against a loop in float64."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from softlens import Prompt, SoftlensError, nearest_tokens
from softlens.lm import LM


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
    np.testing.assert_allclose(shown, scores, rtol=1e-4, atol=1e-5)
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


def test_ties_go_to_the_lower_id(tiny: Callable[..., LM], monkeypatch: pytest.MonkeyPatch):
    lm = tiny()
    rows = lm.embedding.clone()
    rows[[9, 40, 200]] = rows[300].clone()
    monkeypatch.setattr(lm, "embedding", rows)
    monkeypatch.setattr(lm, "unit_embedding", torch.nn.functional.normalize(rows, dim=1))
    for metric in ("cosine", "l2"):
        got = nearest_tokens(lm, rows[300][None], k=4, metric=metric)
        assert got.frame["token_id"].tolist() == [9, 40, 200, 300]
        first = nearest_tokens(lm, rows[300][None], k=2, metric=metric)
        assert first.frame["token_id"].tolist() == [9, 40]


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
    with pytest.raises(SoftlensError, match="Got k=320, wanted 1 to 319"):
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
