"""Nearest tokens side by side, and over a training."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from softlens import Prompt, SoftlensError, nearest_by_metric, nearest_path, nearest_tokens, tune
from softlens.lm import LM
from softlens.nearness import METRICS
from softlens.tasks import Task


def test_each_row_is_what_its_metric_says(any_lm: LM):
    vectors = torch.randn(3, any_lm.hidden_size, generator=torch.Generator().manual_seed(2))
    got = nearest_by_metric(any_lm, vectors)
    assert list(got.texts) == list(METRICS)
    for metric, rows in got.frame.groupby("metric"):
        one = nearest_tokens(any_lm, vectors, k=1, metric=metric)
        assert tuple(rows["token_id"]) == one.token_ids
        np.testing.assert_allclose(rows["margin"], one.margins)
    named = got.frame.groupby("position")["token_id"].value_counts()
    for row in got.frame.to_dict("records"):
        assert row["agree"] == named[row["position"], row["token_id"]]
    tokens = Prompt.from_text(any_lm, "the film was")
    assert nearest_by_metric(any_lm, tokens, ["cosine", "l2", "centred_cosine"]).agreement == 1


def test_by_metric_shows_itself(tiny: Callable[..., LM]):
    lm = tiny()
    got = nearest_by_metric(lm, torch.randn(2, 32), ["cosine", "dot"])
    assert len(repr(got).splitlines()) == 4
    assert "position 1" in got._repr_html_()
    axes = got.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cosine", "dot product"]
    axes.figure.canvas.draw()
    plt.close(axes.figure)
    with pytest.raises(SoftlensError, match=r"Got metrics=\('cosine',\), wanted at least two"):
        nearest_by_metric(lm, torch.ones(1, 32), ["cosine"])


@pytest.mark.parametrize("method", ["soft", "pez"])
def test_the_path_retells_the_history(tiny: Callable[..., LM], toy_task: Task, method: str):
    lm = tiny()
    run = tune(lm, toy_task, method, length=3, steps=12, progress=False)
    path = nearest_path(lm, run)
    told = np.zeros((12, 3), dtype=int)
    for row in path.frame.to_dict("records"):
        told[row["first_step"] - 1 : row["last_step"], row["position"]] = row["token_id"]
    wanted = [[int(i) for i in ids.split()] for ids in run.history["token_ids"]]
    assert told.tolist() == wanted
    assert path.changes.sum() == (np.diff(told, axis=0) != 0).sum()
    axes = path.plot()
    assert len(axes.patches) == len(path.frame)
    axes.figure.canvas.draw()
    plt.close(axes.figure)
    assert "changes of each position" in path._repr_html_()
    assert f"{path.changes.sum()} changes" in repr(path)


def test_a_run_without_tokens_or_of_another_lm(tiny: Callable[..., LM], toy_task: Task):
    import dataclasses

    lm = tiny()
    run = tune(lm, toy_task, length=2, steps=2, progress=False)
    old = dataclasses.replace(run, history=run.history.drop(columns="token_ids"))
    with pytest.raises(SoftlensError, match="no column 'token_ids'"):
        nearest_path(lm, old)
    with pytest.raises(SoftlensError, match="no column 'token_ids'"):
        nearest_path(lm, dataclasses.replace(run, history=pd.DataFrame()))
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-0'"):
        nearest_path(tiny("gpt2", seed=1), run)
