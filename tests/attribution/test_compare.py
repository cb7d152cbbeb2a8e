"""Judging attributions: measures against their definitions, planted and broken cases."""

import itertools
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from softlens import Prompt, SoftlensError, attribute, compare_attributions
from softlens.attribution import METHODS, make_game, plant, randomised
from softlens.lm import LM, answer_logits
from softlens.tasks import Task

PROMPT = "overall it was great"
KEYS = {"texts": 3, "absent": "mean_embedding"}


def test_measures_are_their_definitions(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    got = compare_attributions(
        lm, toy_task, PROMPT, ["leave_one_out", "shapley"], planted=0, randomise=False, **KEYS
    )
    game = make_game(lm, toy_task, PROMPT, "log_prob", "mean_embedding", 3, "test", 0)
    found = attribute(lm, toy_task, PROMPT, "leave_one_out", **KEYS).frame["attribution"]
    exact = attribute(lm, toy_task, PROMPT, "shapley", **KEYS).frame["attribution"]
    order = np.argsort(-found.to_numpy())

    def worth(kept: np.ndarray) -> float:
        present = np.isin(np.arange(game.players), kept)
        return float(game.values(present[None]).mean())

    whole = worth(order)
    ks = range(1, game.players)
    row = got.frame.iloc[0]
    assert row["method"] == "leave_one_out"
    assert row["comprehensiveness"] == pytest.approx(
        np.mean([whole - worth(order[k:]) for k in ks]), abs=1e-5
    )
    assert row["sufficiency"] == pytest.approx(
        np.mean([whole - worth(order[:k]) for k in ks]), abs=1e-5
    )
    assert row["rank_correlation"] == pytest.approx(spearmanr(found, exact).statistic)
    shapley = got.frame.iloc[1]
    assert shapley["rank_correlation"] == 1
    assert list(got.summary["method"]) == ["leave_one_out", "shapley", "random order"]
    assert "randomised_correlation" not in got.frame
    assert got.planted.empty


def test_the_best_order_beats_chance(tiny: Callable[..., LM], toy_task: Task):
    """No order of four is above the best of all 24, and chance is near their mean."""
    lm = tiny()
    game = make_game(lm, toy_task, PROMPT, "log_prob", "mean_embedding", 3, "test", 0)
    from softlens.attribution.compare import _retention

    each = [
        _retention(game, [np.array(o)])["sufficiency"]
        for o in itertools.permutations(range(game.players))
    ]
    got = compare_attributions(lm, toy_task, PROMPT, planted=0, randomise=False, **KEYS)
    chance = got.frame.set_index("method").loc["random order", "sufficiency"]
    assert min(each) - 1e-6 <= got.frame["sufficiency"].min()
    assert abs(chance - np.mean(each)) < 3 * np.std(each) / np.sqrt(24) + 1e-6


def test_a_planted_position_does_the_work(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    prompt = plant(lm, toy_task, 4, 2, seed=3, steps=40)
    start = lm.embed(prompt.start_ids)
    moved = (prompt.vectors - start).norm(dim=1) > 0
    assert moved.tolist() == [False, False, True, False]
    # Whatever stands around it, the trained vector does better than the token it started from.
    generator = torch.Generator().manual_seed(9)
    around = lm.embed(torch.randint(20, 300, (80,), generator=generator).tolist()).view(20, 4, -1)
    texts = lm.encode_texts(toy_task.template, toy_task.train.texts, reserve=4)
    labels = torch.tensor(toy_task.train.labels).repeat(20)
    losses = []
    for vector in (start[2], prompt.vectors[2]):
        prompts = around.clone()
        prompts[:, 2] = vector
        logits = answer_logits(lm, prompts, texts, torch.tensor(toy_task.answer_ids(lm)))
        losses.append(float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels)))
    assert losses[1] < losses[0] - 0.05
    got = compare_attributions(
        lm, toy_task, PROMPT, ["shapley", "attention_rollout"], planted=2, randomise=False, **KEYS
    )
    assert got.planted["gain"].notna().all()
    assert set(got.planted["method"]) == {"shapley", "attention_rollout", "random order"}
    tried = got.planted[got.planted["method"] != "random order"]
    assert (tried["recovered"] == (tried["found"] == tried["position"])).all()
    with pytest.raises(SoftlensError, match="Got position 4 of a prompt of 4"):
        plant(lm, toy_task, 4, 4)


def test_a_randomised_lm_keeps_embeddings_and_sizes_only(any_lm: LM):
    broken = randomised(any_lm, seed=1)
    torch.testing.assert_close(broken.embedding, any_lm.embedding)
    changed = 0
    for was, now in zip(any_lm.model.parameters(), broken.model.parameters(), strict=True):
        torch.testing.assert_close(was.flatten().sort().values, now.flatten().sort().values)
        changed += not torch.equal(was, now)
    assert changed > 5
    assert broken.checksum != any_lm.checksum


def test_a_method_that_sees_only_the_input_is_caught(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    from softlens.attribution.methods import Found, Method

    def norms(game, samples, steps, seed):
        sizes = game.vectors.norm(dim=1).double().numpy()
        return Found(np.tile(sizes, (len(game.texts), 1)))

    monkeypatch.setitem(METHODS, "norms", Method(norms, "removed"))
    got = compare_attributions(
        tiny(), toy_task, [PROMPT, "it was a dull plot"], ["norms", "shapley"], planted=0, **KEYS
    )
    means = got.summary.set_index("method")["randomised_correlation"]
    assert means["norms"] == pytest.approx(1)
    assert means["shapley"] < 0.9


def test_it_shows_itself(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    soft = Prompt.soft(lm, torch.randn(3, 32, generator=torch.Generator().manual_seed(0)))
    got = compare_attributions(lm, toy_task, ["it was", soft], planted=1, texts=2)
    assert len(got.frame) == 2 * (len(METHODS) + 1)
    assert len(repr(got).splitlines()) == 2 + len(METHODS) + 1
    axes = got.plot()
    assert [len(ax.lines) > 0 for ax in axes] == [True] * 5
    assert axes[0].get_yticklabels()[-1].get_text() == "random order"
    axes[0].figure.canvas.draw()
    plt.close(axes[0].figure)
    assert "<table" in got._repr_html_()
    figure, mine = plt.subplots(1, 6)
    assert [*got.plot(mine[1:])] == [*mine[1:]]
    assert [len(panel.lines) > 0 for panel in mine] == [False] + [True] * 5
    with pytest.raises(SoftlensError, match="Got 6 Axes, wanted 5, one for each panel"):
        got.plot(mine)
    plt.close(figure)


def test_bad_input(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    with pytest.raises(SoftlensError, match="Got a prompt of 1 positions, wanted at least 2"):
        compare_attributions(lm, toy_task, "film")
    with pytest.raises(SoftlensError, match="Unknown method 'lime'"):
        compare_attributions(lm, toy_task, PROMPT, ["lime"])
    with pytest.raises(SoftlensError, match="no prompts or no methods"):
        compare_attributions(lm, toy_task, [])
    with pytest.raises(SoftlensError, match="there is none to one that is shorter"):
        compare_attributions(lm, toy_task, PROMPT, absent="removed")
    without = ["shapley", "leave_one_out", "attention_rollout"]
    got = compare_attributions(
        lm, toy_task, PROMPT, without, absent="removed", planted=0, randomise=False, texts=2
    )
    assert got.absent == "removed"
