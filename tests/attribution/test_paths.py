"""The two paths: values by the forward, ends that are the attributions, and how it shows itself."""

import itertools
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from softlens import Prompt, SoftlensError, attribute, fade_in
from softlens.lm import LM
from softlens.tasks import Task
from tests.attribution.oracles import log_prob
from tests.attribution.test_attribution import mean_row, soft

TEXTS = 2


def test_both_paths_by_the_forward(any_lm: LM, toy_task: Task):
    prompt = soft(any_lm)
    got = fade_in(any_lm, toy_task, prompt, texts=TEXTS, steps=256)
    stand = mean_row(any_lm)
    each = [log_prob(any_lm, toy_task, t) for t in range(TEXTS)]

    @torch.no_grad()
    def worth(vectors: torch.Tensor) -> float:
        return float(np.mean([float(value(vectors)) for value in each]))

    faded = got.frame[got.frame["path"] == "faded"].set_index("share")["value"]
    drawn = got.frame[got.frame["path"] == "drawn"].set_index("share")["value"]
    for share in (0, 0.25, 0.8125, 1):
        mixed = worth(stand + share * (prompt.vectors - stand))
        assert faded[share] == pytest.approx(mixed, abs=1e-4)
        mean = 0.0
        for there in itertools.product([False, True], repeat=4):
            chance = np.prod([share if one else 1 - share for one in there])
            rows = torch.where(torch.tensor(there)[:, None], prompt.vectors, stand)
            mean += chance * worth(rows)
        assert drawn[share] == pytest.approx(mean, abs=1e-4)
    # What positions have added sums to the gain everywhere: the integral of the slopes.
    sums = got.gathered.groupby(["path", "share"], sort=False)["attribution"].sum()
    np.testing.assert_allclose(sums.to_numpy(), got.frame["gain"], atol=2e-3)


def test_the_ends_are_the_attributions(any_lm: LM, toy_task: Task):
    prompt = soft(any_lm)
    keys = {"texts": TEXTS, "absent": "mean_embedding"}
    got = fade_in(any_lm, toy_task, prompt, steps=128, **keys)
    exact = attribute(any_lm, toy_task, prompt, **keys).frame["attribution"]
    along = attribute(any_lm, toy_task, prompt, "integrated_gradients", steps=128, **keys)
    np.testing.assert_allclose(got.ends("drawn"), exact, atol=1e-6)
    np.testing.assert_allclose(got.ends("faded"), along.frame["attribution"], atol=1e-3)


def test_random_rows_are_a_mean_of_paths(tiny: Callable[..., LM], toy_task: Task):
    lm, prompt = tiny(), soft(tiny())
    got = fade_in(lm, toy_task, prompt, absent="random_row", texts=TEXTS, steps=256)
    exact = attribute(lm, toy_task, prompt, absent="random_row", texts=TEXTS)
    assert got.frame["value"].iloc[0] == pytest.approx(exact.value_absent, abs=1e-4)
    np.testing.assert_allclose(got.ends("drawn"), exact.frame["attribution"], atol=1e-6)
    assert got.ends("faded").sum() == pytest.approx(exact.value - exact.value_absent, abs=2e-3)


def test_a_long_prompt_has_the_faded_path_only(tiny: Callable[..., LM], toy_task: Task):
    got = fade_in(tiny(), toy_task, soft(tiny(), 13), texts=1, steps=16)
    assert list(got.frame["path"].unique()) == ["faded"]
    assert "is left out, as 13 have too many coalitions" in got.headline
    assert np.isnan(got.rank_correlation)
    axes = got.plot()
    assert len(axes) == 1
    plt.close(axes[0].figure)


def test_it_shows_itself(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    got = fade_in(lm, toy_task, "it <b>\n é", texts=2, steps=16)
    html = got._repr_html_()
    assert "<b>" not in html
    assert 'aria-label="integrated gradients of each position: ' in html
    assert 'aria-label="Shapley values of each position: ' in html
    assert "rank correlation of the ends" in repr(got)
    axes = got.plot()
    assert len(axes) == 2
    axes[0].figure.canvas.draw()
    assert [text.get_text() for text in axes[0].texts].count("sum") == 1
    plt.close(axes[0].figure)
    figure, mine = plt.subplots(2, 1)
    assert [*got.plot(list(mine))] == [*mine]
    assert all(axes.lines for axes in mine)
    with pytest.raises(SoftlensError, match=r"Got 1 Axes, wanted 2.*plt.subplots\(1, 2\)"):
        got.plot(mine[0])
    plt.close(figure)
    one = fade_in(lm, toy_task, Prompt.soft(lm, torch.ones(1, 32)), texts=1, steps=16)
    assert np.isnan(one.rank_correlation)
    assert "undefined" in one.headline


def test_bad_input(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    for kind, match in (
        ({"absent": "removed"}, "there is none to one that is shorter"),
        ({"target": "accuracy"}, "'accuracy' has no gradient"),
        ({"steps": 8}, "Got steps=8, wanted at least 16"),
    ):
        with pytest.raises(SoftlensError, match=match):
            fade_in(lm, toy_task, "it was", **kind)
