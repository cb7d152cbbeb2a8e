"""A sweep's table: what is in it, and that it holds what the runs found."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import softlens as sl
from softlens import SoftlensError, Sweep, Task, load_run
from softlens.lm import LM, token_surprisal
from softlens.sweeps.cells import make_cells
from softlens.sweeps.measures import COLUMNS
from softlens.tasks import digest
from tests.sweeps.conftest import OPTIONS, small


def test_one_row_a_run_in_a_balanced_order(swept: Sweep):
    frame = swept.frame
    assert list(frame["method"]) == ["soft", "pez", "sample"] * 2
    assert list(frame["weight"]) == [0.0] * 3 + [0.3] * 3
    assert list(frame["proxy"]) == ["none"] * 3 + ["perplexity"] * 3
    assert list(frame["lambda_perplexity"]) == list(frame["weight"])
    assert set(COLUMNS) <= set(frame.columns)
    assert frame["cell"].is_unique
    assert swept.missing().empty
    assert swept.failed.empty


def test_rows_are_what_tune_and_evaluate_say(swept: Sweep, tiny: Callable[..., LM], toy_task: Task):
    lm, judge = tiny(), tiny(seed=1)
    for row in swept.frame.to_dict("records"):
        run = swept.run(row["cell"])
        given = {"proxies": {"perplexity": row["weight"]} if row["weight"] else {}}
        given |= OPTIONS[row["method"]]
        again = sl.tune(
            lm, toy_task, row["method"], 2, seed=row["seed"], judge=judge, progress=False, **given
        )
        assert run.config == again.config
        pd.testing.assert_frame_equal(run.history, again.history)
        assert (row["text"], row["nats_per_token"]) == (run.text, run.metrics["nats_per_token"])
        found = sl.evaluate(lm, toy_task, again.prompt)
        assert (row["accuracy"], row["label_mass"]) == (found.accuracy, found.label_mass)
        assert (row["least_share"], row["most_share"]) == (
            min(found.shares.values()),
            max(found.shares.values()),
        )
        for name in ("empty_accuracy", "random_label_mass", "readable_accuracy", "readable_text"):
            assert row[name] == again.metrics[name]
        ids = [int(i) for i in row["token_ids"].split()] or list(
            sl.nearest_tokens(lm, again.prompt, k=1).token_ids
        )
        nats = token_surprisal(lm, [ids])[0, 0]
        assert row["perplexity"] == pytest.approx(np.exp(float(nats.mean())))
        assert row["max_surprisal"] == pytest.approx(float(nats.max()))
        judged = sl.evaluate(judge, toy_task, lm.decode(ids).strip())
        assert row["transfer_accuracy"] == judged.accuracy
        assert row["chance"] == 0.5


def test_a_soft_prompt_is_scored_and_so_are_its_nearest_tokens(
    swept: Sweep, tiny: Callable[..., LM], toy_task: Task
):
    lm, rows = tiny(), swept.filter(method="soft").frame
    assert set(rows["scored"]) == {"soft"}
    assert set(rows["token_ids"]) == {""}
    for row in rows.to_dict("records"):
        nearest = sl.nearest_tokens(lm, swept.run(row["cell"]).prompt, k=1)
        found = sl.evaluate(lm, toy_task, sl.Prompt.from_ids(lm, nearest.token_ids))
        assert row["nearest_accuracy"] == found.accuracy
        assert row["text"] == nearest.text
    hard = swept.filter(method=["pez", "sample"]).frame
    assert hard["nearest_accuracy"].isna().all()
    assert hard["nearest_label_mass"].isna().all()


def test_what_does_not_apply_is_none(swept: Sweep):
    assert set(swept.frame["grammatical"]) == {None}
    assert set(swept.frame["asked_for"]) == {None}
    assert swept.frame["judge_perplexity"].gt(1).all()


def test_the_organism_has_its_gauges(tmp_path: Path):
    lm, task = sl.load_lm(), sl.load_task("topic").head(16, 8, 16)
    found = small(lm, task, tmp_path / "s", methods=["sample"], proxies=[{}], lengths=(5,)).frame
    assert found["asked_for"][0] == "topic"
    assert isinstance(found["grammatical"][0], bool)
    assert found["asks_for"][0] == (sl.organism.asks_for(found["text"][0]) or "nothing")
    assert found["judge_perplexity"].notna().all(), "the bundled judge is the default"
    bos = sl.surprisal(lm, sl.Prompt.from_text(lm, found["text"][0])).nats_per_token
    assert found["nats_per_token"][0] == pytest.approx(bos, rel=1e-5)
    assert found["nats_after_texts"][0] != pytest.approx(bos, rel=1e-3)


def test_it_opens_without_an_lm_and_is_the_same(swept: Sweep):
    assert swept.store is not None
    back = sl.load_sweep(swept.store)
    left = back.frame.sort_values("cell", ignore_index=True)
    pd.testing.assert_frame_equal(left, swept.frame.sort_values("cell", ignore_index=True))
    assert back.store == swept.store
    assert "6 of 6 runs finished" in back.headline
    assert "perplexity" in repr(back)
    assert "<table" in back._repr_html_()


def test_histories_are_those_of_the_runs(swept: Sweep):
    table = swept.histories
    steps = table.groupby("cell")["step"].max()
    for row in swept.frame.to_dict("records"):
        assert steps[row["cell"]] == row["steps"]
    pez = table[(table["method"] == "pez") & (table["weight"] == 0.3)]
    run = swept.run(swept.filter(method="pez", weight=0.3).frame["cell"][0])
    assert list(pez["perplexity"]) == list(run.history["perplexity"])


def test_runs_of_a_store_say_their_task_whether_or_not_their_files_do(
    swept: Sweep, toy_task: Task, monkeypatch
):
    cell = swept.frame["cell"][0]
    assert swept.run(cell).task_digest == digest(toy_task)

    def old(folder):
        return dataclasses.replace(load_run(folder), task_digest="")

    monkeypatch.setattr("softlens.sweeps.table.load_run", old)
    assert swept.run(cell).task_digest == digest(toy_task)


def test_filters(swept: Sweep):
    assert len(swept.filter(method="pez").frame) == 2
    assert len(swept.filter(method=["pez", "soft"], weight=0).frame) == 2
    assert swept.filter(method="pez").missing().empty
    with pytest.raises(SoftlensError, match="Got nothing to filter by"):
        swept.filter()
    with pytest.raises(SoftlensError, match="No column 'metod'. Did you mean 'method'"):
        swept.filter(metod="pez")
    with pytest.raises(SoftlensError, match=r"No run is left with weight in \[7\].*has \[0.0, 0.3"):
        swept.filter(method="pez", weight=7)


def test_sweeps_are_joined_and_no_run_counts_twice(
    swept: Sweep, tiny: Callable[..., LM], toy_task: Task, tmp_path: Path
):
    other = small(tiny("llama"), toy_task, tmp_path / "other", proxies=[{"repetition": 1}, {}])
    both = swept.concat(other, swept)
    assert len(both.frame) == len(swept.frame) + len(other.frame)
    assert set(both.frame["lm"]) == {"tiny-gpt2-0", "tiny-llama-0"}
    assert {"lambda_perplexity", "lambda_repetition"} <= set(both.frame.columns)
    assert both.store is None
    assert both.run(other.frame["cell"][0]).config.lm == "tiny-llama-0"
    with pytest.raises(SoftlensError, match="Got no sweeps"):
        sl.concat_sweeps([])


def test_a_run_is_found_by_the_beginning_of_its_key(swept: Sweep):
    key = swept.frame["cell"][2]
    assert swept.run(key).config == swept.run(key[:8]).config
    with pytest.raises(SoftlensError, match="No finished cells begin with 'x'"):
        swept.run("x")


def test_it_draws_itself(swept: Sweep):
    drawn = swept.plot()
    assert drawn.get_xlabel().startswith("surprisal (nats per token")
    assert "best readable" in [text.get_text() for text in drawn.get_legend().get_texts()]
    along = swept.plot(kind="weights")
    assert [panel.get_xlabel() for panel in along] == ["weight of the proxy"] * 3
    with pytest.raises(SoftlensError, match="Got kind='front', wanted 'tradeoff' or 'weights'"):
        swept.plot(kind="front")
    plt.close("all")


def test_one_seed_and_one_length_need_no_list(tiny: Callable[..., LM], toy_task: Task):
    given = {"judge": None, "gauges_judge": None, "options": None}
    (alone,) = make_cells(tiny(), toy_task, "pez", [{}], 3, 2, **given)
    (listed,) = make_cells(tiny(), toy_task, ["pez"], {}, [3], [2], **given)
    assert alone.key == listed.key
    assert (alone.run.seed, alone.run.length) == (3, 2)


@pytest.mark.parametrize("several", [np.array([0.3]), pd.Series([0.3]), {0.3: "x"}.keys(), (0.3,)])
def test_a_filter_takes_whatever_is_a_list(swept: Sweep, several: Any):
    assert set(swept.filter(weight=several).frame["weight"]) == {0.3}


def test_runs_that_are_no_repetitions_of_each_other_are_said(
    tiny: Callable[..., LM], toy_task: Task, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first = small(tiny(), toy_task, tmp_path, methods=["pez"], proxies=[{}])
    sl.load_sweep(tmp_path)
    assert "share task" not in caplog.text
    other = {"pez": {"steps": 2}}
    second = small(tiny(), toy_task, tmp_path, methods=["pez"], proxies=[{}], options=other)
    small(tiny(), toy_task.head(test=10), tmp_path, methods=["pez"], proxies=[{}])
    assert len(second.frame) == 1
    assert "share task" not in caplog.text, "what was asked for has one of each"
    sl.load_sweep(tmp_path)
    assert "3 runs share task, method, length, seed and weights with another" in caplog.text
    assert "run.steps" in caplog.text
    assert "texts" in caplog.text
    caplog.clear()
    first.concat(second)
    assert "2 runs share task, method, length, seed and weights with another" in caplog.text


def test_a_file_that_is_called_like_a_named_task_is_another_task(
    tiny: Callable[..., LM], tmp_path: Path
):
    """Its label words are its own, and nobody knows its front."""
    path = tmp_path / "sentiment.csv"
    rows = [f"{text} number {i},{label}" for i in range(60)
            for text, label in (("it was bad", "great"), ("it was good", "terrible"))]  # fmt: skip
    path.write_text("text,label\n" + "\n".join(rows))
    words = {"great": "great", "terrible": "terrible"}
    task = sl.load_task(path, label_words=words)
    assert task.name == "sentiment"
    lm = sl.load_lm()
    found = small(lm, task, tmp_path / "s", methods=["sample"], proxies=[{}], seeds=range(2))
    assert set(found.frame["label_words"]) == {" / ".join(task.label_words)}
    assert set(sl.price_split(found)["reference"]) == {"pooled bound"}
    said = found.frame.assign(text="so great and terrible")
    assert set(sl.oddities(said).frame["self_answer"]) == {True}
    named = said.assign(label_words="good / bad")
    assert set(sl.oddities(named).frame["self_answer"]) == {False}
