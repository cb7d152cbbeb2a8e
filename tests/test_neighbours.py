"""Nearest tokens side by side, and over a training."""

import dataclasses
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
from softlens.tuners.soft import SoftTuner


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
    lm = tiny()
    run = tune(lm, toy_task, length=2, steps=2, progress=False)
    old = dataclasses.replace(run, history=run.history.drop(columns="token_ids"))
    with pytest.raises(SoftlensError, match="no column 'token_ids'"):
        nearest_path(lm, old)
    with pytest.raises(SoftlensError, match="no column 'token_ids'"):
        nearest_path(lm, dataclasses.replace(run, history=pd.DataFrame()))
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-0'"):
        nearest_path(tiny("gpt2", seed=1), run)


@pytest.mark.parametrize("method", ["soft", "pez"])
def test_keeping_vectors_changes_nothing_else(tiny: Callable[..., LM], toy_task: Task, method: str):
    asked = {"length": 3, "steps": 11, "patience": 100, "progress": False}
    plain = tune(tiny(), toy_task, method, **asked)
    some = tune(tiny(), toy_task, method, keep_vectors=4, **asked)
    every = tune(tiny(), toy_task, method, keep_vectors=1, **asked)
    assert (plain.kept_steps, plain.kept_vectors) == ((), None)
    # So that a run without bears the name that it had before there was the option.
    assert "keep_vectors" not in plain.config.options
    assert some.config.options == plain.config.options | {"keep_vectors": 4}
    for run in (some, every):
        assert torch.equal(run.prompt.vectors, plain.prompt.vectors)
        pd.testing.assert_frame_equal(run.history, plain.history)
    assert some.kept_steps == (4, 8, 11)
    assert every.kept_steps == tuple(range(1, 12))
    assert some.kept_vectors.shape == (3, 3, 32)
    assert torch.equal(some.kept_vectors, every.kept_vectors[[3, 7, 10]])
    # They move at every step, also where the proposal stays.
    assert (every.kept_vectors.diff(dim=0) != 0).flatten(1).any(dim=1).all()


def test_the_kept_vectors_are_the_trainings(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    soft = tune(lm, toy_task, length=3, steps=9, patience=100, keep_vectors=1, progress=False)
    by_cosine, told = nearest_path(lm, soft, "cosine"), nearest_path(lm, soft)
    pd.testing.assert_frame_equal(by_cosine.frame, told.frame)
    best = [torch.equal(one, soft.prompt.vectors) for one in soft.kept_vectors]
    assert any(best)
    pez = tune(lm, toy_task, "pez", length=3, steps=9, keep_vectors=1, progress=False)
    assert not any(torch.equal(one, pez.prompt.vectors) for one in pez.kept_vectors)
    for one, ids in zip(pez.kept_vectors, pez.history["token_ids"], strict=True):
        projected = nearest_tokens(lm, one, 320 - 1).frame.groupby("position")["token_id"]
        allowed = {int(i) for row in pez.history["token_ids"] for i in row.split()}
        first = [next(i for i in column if i in allowed) for _, column in projected]
        assert first == [int(i) for i in ids.split()]


@pytest.mark.parametrize("metric", METRICS)
def test_the_path_by_any_metric_at_any_rate(tiny: Callable[..., LM], toy_task: Task, metric: str):
    lm = tiny()
    run = tune(lm, toy_task, length=3, steps=11, patience=100, keep_vectors=4, progress=False)
    path = nearest_path(lm, run, metric)
    told = np.zeros((11, 3), dtype=int)
    for row in path.frame.to_dict("records"):
        told[row["first_step"] - 1 : row["last_step"], row["position"]] = row["token_id"]
    looks = [nearest_tokens(lm, one, 1, metric).token_ids for one in run.kept_vectors]
    assert told.tolist() == [list(looks[0])] * 4 + [list(looks[1])] * 4 + [list(looks[2])] * 3
    assert f"tokens nearest by {metric} over 11 steps of 'soft', looked at 3 times" in repr(path)
    axes = path.plot()
    assert axes.get_title().startswith("nearest by ")
    axes.figure.canvas.draw()
    plt.close(axes.figure)


def test_the_last_step_is_kept_wherever_a_training_ends(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    early = tune(tiny(), toy_task, length=2, steps=40, evaluations_of_dev=40, patience=1,
                 keep_vectors=100, progress=False)  # fmt: skip
    assert early.kept_steps == (early.metrics["steps"],) != (40,)
    step = SoftTuner.step

    def interrupted(tuner: SoftTuner) -> dict[str, float]:
        interrupted.calls += 1
        if interrupted.calls == 6:
            raise KeyboardInterrupt
        return step(tuner)

    interrupted.calls = 0
    monkeypatch.setattr(SoftTuner, "step", interrupted)
    run = tune(tiny(), toy_task, length=2, steps=40, keep_vectors=2, progress=False)
    assert run.kept_steps == (2, 4, 5)


def test_a_path_by_a_metric_without_vectors(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    run = tune(lm, toy_task, length=2, steps=2, progress=False)
    with pytest.raises(SoftlensError, match=r"kept none. Tune it again with keep_vectors=1"):
        nearest_path(lm, run, "l2")
    kept = tune(lm, toy_task, length=2, steps=2, keep_vectors=1, progress=False)
    with pytest.raises(SoftlensError, match=r"Got metric 'cosin'.*mean 'cosine'"):
        nearest_path(lm, kept, "cosin")
    with pytest.raises(
        SoftlensError, match="keep_vectors=0: Input should be greater than or equal"
    ):
        tune(lm, toy_task, length=2, steps=2, keep_vectors=0, progress=False)
    with pytest.raises(SoftlensError, match="'keep_vectors' is no option of the method 'gcg'"):
        tune(lm, toy_task, "gcg", length=2, keep_vectors=1, progress=False)
