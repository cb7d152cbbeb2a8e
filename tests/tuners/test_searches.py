"""Searches among what the LM says: sample, race, beam, enumerate, tandem."""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

import softlens as sl
from softlens import Run, SoftlensError, Task, tune
from softlens.lm import LM
from softlens.organism import asks_for, readable_front
from softlens.tuners import TUNERS, run_config
from softlens.tuners.base import Problem
from softlens.tuners.pool import Pool
from softlens.tuners.tandem import TandemTuner

SEARCHES = ("sample", "race", "beam", "tandem")


def search(lm: LM, task: Task, method: str, **changes: Any) -> Run:
    settings: dict[str, Any] = {"length": 3, "progress": False, "evaluations": 3000}
    if method == "tandem":
        settings |= {"most_nats": 20.0, "ban": ()}
    return sl.tune(lm, task, method, **(settings | changes))


@pytest.fixture(scope="module")
def organism() -> LM:
    return sl.load_lm()


@pytest.mark.parametrize("method", SEARCHES)
def test_they_keep_to_their_budget_and_beat_their_start(any_lm: LM, toy_task: Task, method: str):
    run = search(any_lm, toy_task, method)
    assert 800 < run.metrics["evaluations"] <= 3000
    start = sl.Prompt.from_ids(any_lm, run.prompt.start_ids or any_lm.ordinary_ids[:3].tolist())
    before = sl.evaluate(any_lm, toy_task, start, split="train").loss
    after = sl.evaluate(any_lm, toy_task, run.prompt, split="train").loss
    assert after < before
    assert run.prompt.is_hard
    assert run.metrics["scored"] == "tokens"
    assert {"step", "objective", "task_loss", "candidates", "texts", "evaluations"} <= set(
        run.history.columns
    )


@pytest.mark.parametrize("method", SEARCHES)
def test_same_seed_same_prompt_and_history(tiny: Callable[..., LM], toy_task: Task, method: str):
    first, second = (search(tiny(), toy_task, method, seed=3) for _ in range(2))
    assert first.prompt.token_ids == second.prompt.token_ids
    pd.testing.assert_frame_equal(first.history, second.history)


@pytest.mark.parametrize("method", SEARCHES)
def test_bans_and_proxies_reach_them(tiny: Callable[..., LM], toy_task: Task, method: str):
    lm = tiny()
    banned = tuple(search(lm, toy_task, method).prompt.token_ids or ())
    run = search(lm, toy_task, method, ban=banned)
    assert not set(run.prompt.token_ids or ()) & set(banned)
    assert run.config.options["ban"] == list(banned)
    plain = search(lm, toy_task, method, proxies={"perplexity": 0.0})
    fluent = search(lm, toy_task, method, proxies={"perplexity": 5.0})
    assert fluent.metrics["perplexity"] <= plain.metrics["perplexity"]
    assert "perplexity" in fluent.history


def test_a_template_with_the_prompt_in_front(tiny: Callable[..., LM], toy_task: Task):
    task = toy_task.with_(template="{prompt} {text} it was")
    for method in SEARCHES:
        assert search(tiny(), task, method, evaluations=1500).prompt.is_hard


@pytest.mark.parametrize("template", ["{prompt} {text}", "{text} {prompt} it was"])
def test_without_a_text_before_the_prompt_nothing_must_be_relevant_to_it(
    tiny: Callable[..., LM],
    toy_task: Task,
    template: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    # As on a large LM, where relevance is bounded by default.
    task, raced = toy_task.with_(template=template), []

    def race(self, pool, rows, original=TandemTuner._race):
        raced.append(len(rows))
        original(self, pool, rows)
        if template.startswith("{prompt}"):
            assert self._within(pool.rows).all()

    monkeypatch.setattr(TandemTuner, "_race", race)
    with caplog.at_level("INFO"):
        run = search(tiny(), task, "tandem", draw_after="texts", most_nats=50.0)
    assert run.config.options["most_relevance"] == -0.2
    assert len(raced) > 1
    assert min(raced) > 1
    if template.startswith("{prompt}"):
        assert "No candidate keeps the bounds" not in caplog.text


@pytest.mark.parametrize("method", SEARCHES)
def test_label_mass_is_paid_from_the_budget(tiny: Callable[..., LM], toy_task: Task, method: str):
    run = search(tiny(), toy_task, method, proxies={"label_mass": 0.1})
    assert run.metrics["evaluations"] <= 3000


def test_stages_of_a_race_rise(tiny: Callable[..., LM], toy_task: Task):
    for stages, words in (((), "at least 1"), ((0, 6), "greater than or equal"), ((6, 6), "rise")):
        with pytest.raises(SoftlensError, match=words):
            search(tiny(), toy_task, "race", stages=stages)


def test_the_history_counts_what_the_metrics_say(tiny: Callable[..., LM], toy_task: Task):
    run = search(tiny(), toy_task, "sample")
    assert run.history["evaluations"].is_monotonic_increasing
    assert run.metrics["evaluations"] == run.history["evaluations"].iloc[-1]
    assert run.metrics["ended"] == "all evaluations spent"


def test_searches_count_evaluations_not_steps(tiny: Callable[..., LM], toy_task: Task):
    with pytest.raises(SoftlensError, match=r"Got steps=10.*counted in evaluations"):
        search(tiny(), toy_task, "race", steps=10)
    with pytest.raises(SoftlensError, match="'evaluations' is no option of the method 'soft'"):
        sl.tune(tiny(), toy_task, "soft", evaluations=100, progress=False)


@pytest.mark.parametrize("method", SEARCHES)
def test_a_budget_that_is_too_small_is_named_with_the_least(
    tiny: Callable[..., LM], toy_task: Task, method: str, caplog: pytest.LogCaptureFixture
):
    run = search(tiny(), toy_task, method, evaluations=5)
    wanted = re.search(rf"Got evaluations=5, but '{method}' needs at least (\d+) here", caplog.text)
    assert wanted is not None
    least = int(wanted[1])
    assert 5 < run.metrics["evaluations"] <= least
    caplog.clear()
    run = search(tiny(), toy_task, method, evaluations=least, proxies={"perplexity": 0.1})
    if method in ("sample", "race"):  # the proxy is asked, too
        assert f"needs at least {least + 1} here" in caplog.text
    caplog.clear()
    for enough in (least, least + 50, 2 * least):
        run = search(tiny(), toy_task, method, evaluations=enough)
        assert run.metrics["evaluations"] <= enough
    assert "needs at least" not in caplog.text


@pytest.mark.parametrize(("draw_after", "rounds"), [("texts", 2), ("bos", 0)])
def test_with_the_least_tandem_keeps_to_its_budget_otherwise_too(
    tiny: Callable[..., LM],
    toy_task: Task,
    caplog: pytest.LogCaptureFixture,
    draw_after: str,
    rounds: int,
):
    given = {"draw_after": draw_after, "most_relevance": 20.0, "rounds": rounds}
    search(tiny(), toy_task, "tandem", evaluations=5, **given)
    least = int(re.findall(r"at least (\d+) here", caplog.text)[0])
    for enough in (least, least + 100):
        run = search(tiny(), toy_task, "tandem", evaluations=enough, **given)
        assert run.metrics["evaluations"] <= enough


def test_no_budget_is_logged_with_what_was_picked(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", logger="softlens")
    run_config(tiny(), toy_task, "race")
    assert "evaluations=None: 60000 evaluations for an LM of 0.1M parameters" in caplog.text
    caplog.clear()
    run_config(tiny(), toy_task, "race", evaluations=100)
    assert "evaluations=" not in caplog.text
    run_config(tiny(), toy_task, "enumerate")
    assert "as many evaluations as it takes" in caplog.text


def test_enumerate_has_no_budget(organism: LM):
    task = sl.load_task("topic")
    with pytest.raises(SoftlensError, match=r"evaluations=500, but 'enumerate' asks.*what that"):
        sl.tune(organism, task, "enumerate", evaluations=500, progress=False)
    # What a sweep wrote down about a run can be run.
    config = run_config(organism, task, "enumerate")
    assert run_config(organism, task, "enumerate", **config.options) == config


def test_enumerate_finds_the_best_question_of_the_front(organism: LM):
    task = sl.load_task("sentiment")
    run = sl.tune(organism, task, "enumerate", texts=8, progress=False)
    front = readable_front("sentiment")
    assert asks_for(run.text) == "whole"
    assert run.metrics["accuracy"] >= front["accuracy"].max() - 0.005
    cheap = sl.tune(
        organism, task, "enumerate", texts=8, proxies={"perplexity": 2.0}, progress=False
    )
    assert cheap.metrics["nats_per_token"] < run.metrics["nats_per_token"]
    with pytest.raises(SoftlensError, match="No question of the language has 9 tokens"):
        sl.tune(organism, task, "enumerate", length=9, progress=False)


def test_enumerate_is_for_the_organism_only(tiny: Callable[..., LM], toy_task: Task):
    with pytest.raises(SoftlensError, match="does not speak it"):
        sl.tune(tiny(), toy_task, "enumerate", progress=False)


@pytest.mark.parametrize("task", ["topic", "sentiment", "witness", "witness-rare"])
def test_tandem_ends_in_the_right_question(organism: LM, task: str):
    budget = 60_000 if task == "witness-rare" else 30_000
    run = sl.tune(organism, sl.load_task(task), "tandem", evaluations=budget, progress=False)
    front = readable_front(task)
    right = sl.organism.TASK_ASKS[task]
    best = front[front["asks_for"] == right]
    assert asks_for(run.text) == right
    assert run.metrics["accuracy"] >= best["accuracy"].max() - 0.02
    assert run.metrics["nats_per_token"] <= best["nats_per_token"].min() + 0.15


def test_tandem_keeps_its_bounds_or_says_that_it_cannot(
    organism: LM, caplog: pytest.LogCaptureFixture
):
    task = sl.load_task("topic")
    few = {"evaluations": 6000, "progress": False, "rounds": 1}
    run = sl.tune(organism, task, "tandem", most_nats=1.2, **few)
    after = organism.encode_texts(task.template, task.train.texts[:8])
    nats = sl.lm.token_surprisal(organism, [run.prompt.token_ids], after)
    assert float(nats.mean()) <= 1.35
    with caplog.at_level("INFO", logger="softlens"):
        sl.tune(organism, task, "tandem", most_nats=0.01, **few)
    assert "No candidate keeps the bounds" in caplog.text


def test_tandem_after_texts_asks_about_the_task_only_what_keeps_the_bounds(
    organism: LM, monkeypatch: pytest.MonkeyPatch
):
    raced: list[tuple[int, ...]] = []

    def noted(pool: Pool, rows: list[tuple[int, ...]], original=Pool.add) -> int:
        raced.extend(rows)
        return original(pool, rows)

    monkeypatch.setattr(Pool, "add", noted)
    task, bounds = sl.load_task("topic"), {"most_nats": 2.0, "most_relevance": 0.5}
    few = {"evaluations": 9000, "draw_after": "texts", "rounds": 1, "progress": False}
    run = sl.tune(organism, task, "tandem", **bounds, **few)
    assert run.metrics["evaluations"] <= 9000
    after = Problem.encode(organism, task, 5, False).setting().before
    place = sl.lm.token_surprisal(organism, raced, after).mean(dim=(1, 2))
    bos = sl.lm.token_surprisal(organism, raced)[:, 0].mean(dim=1)
    assert len(set(raced)) > 50
    assert place.max() <= 2.0
    assert (place - bos).max() <= 0.5


def test_tandem_after_texts_says_when_nothing_keeps_the_bounds(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", logger="softlens"):
        run = search(tiny(), toy_task, "tandem", draw_after="texts", most_nats=0.01)
    assert "Nothing that was drawn keeps the bounds" in caplog.text
    assert run.prompt.is_hard


def test_ctrl_c_keeps_the_best_so_far(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    held: list[list[int]] = []

    def interrupted(self, original=TandemTuner.step):
        if self._rounds == 1:
            held.append(self.token_ids)
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(TandemTuner, "step", interrupted)
    run = search(tiny(), toy_task, "tandem")
    assert run.metrics["ended"] == "interrupted"
    assert len(run.history) == 1
    assert list(run.prompt.token_ids or ()) == held[0]
    assert run.history["token_ids"].iloc[-1] == " ".join(map(str, held[0]))
    start = sl.Prompt.from_ids(tiny(), run.prompt.start_ids or tiny().ordinary_ids[:3].tolist())
    before, after = (
        sl.evaluate(tiny(), toy_task, prompt, split="train").loss for prompt in (start, run.prompt)
    )
    assert after < before


def interrupt(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> list[Any]:
    """Press Ctrl-C in the call of that number; the tuners that had been called before."""
    original, seen = getattr(owner, name), []

    def pressed(self: Any, *given: Any, **named: Any) -> Any:
        seen.append(self)
        if len(seen) == at:
            raise KeyboardInterrupt
        return original(self, *given, **named)

    monkeypatch.setattr(owner, name, pressed)
    return seen


@pytest.mark.parametrize(
    ("method", "stage"), [("sample", 2), ("race", 2), ("race", 3), ("beam", 2), ("tandem", 2)]
)
def test_ctrl_c_within_the_first_round_keeps_what_was_found(
    tiny: Callable[..., LM],
    toy_task: Task,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    stage: int,
):
    """Each stage of a race, level of a beam and block of samples asks the pool once."""
    pools = interrupt(monkeypatch, Pool, "ask", stage)
    evaluations = 9000 if method == "sample" else 3000
    run = search(tiny(), toy_task, method, evaluations=evaluations)
    assert run.metrics["ended"] == "interrupted"
    ids = run.prompt.token_ids or ()
    assert len(ids) == 3
    if method == "beam":
        assert ids[:1] == pools[0].rows[0]
    else:
        assert tuple(ids) == pools[0].rows[0]
    monkeypatch.undo()
    tuned = sl.evaluate(tiny(), toy_task, run.prompt, split="dev")
    assert run.metrics["accuracy_dev"] == pytest.approx(tuned.accuracy)


def test_ctrl_c_while_the_first_are_asked_keeps_one_that_was_drawn(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    """At worst it is something that the LM says, not the random start."""
    for method in ("sample", "race", "tandem"):
        pools = interrupt(monkeypatch, Pool, "ask", 1)
        run = search(tiny(), toy_task, method)
        monkeypatch.undo()
        assert run.prompt.token_ids is not None
        assert tuple(run.prompt.token_ids) in pools[0].rows
    tuners = interrupt(monkeypatch, TandemTuner, "_race", 1)
    bounds = {"draw_after": "texts", "most_nats": 20.0, "most_relevance": 20.0}
    run = search(tiny(), toy_task, "tandem", **bounds)
    nats = {row: place for row, (place, _) in tuners[0]._nats.items()}
    assert len(nats) > 5
    assert nats[tuple(run.prompt.token_ids or ())] == min(nats.values())


def test_a_second_ctrl_c_loses_the_measure_but_not_the_prompt(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    pools = interrupt(monkeypatch, Pool, "ask", 3)
    looks = interrupt(monkeypatch, Problem, "on_dev", 2)
    run = search(tiny(), toy_task, "race")
    assert len(looks) == 2
    assert tuple(run.prompt.token_ids or ()) == pools[0].rows[0]
    assert run.metrics["accuracy_dev"] != run.metrics["accuracy_dev"]


def test_ctrl_c_keeps_a_question_of_the_language(organism: LM, monkeypatch: pytest.MonkeyPatch):
    pools = interrupt(monkeypatch, Pool, "ask", 2)
    task = sl.load_task("sentiment").head(train=32, dev=16, test=16)
    run = sl.tune(organism, task, "enumerate", texts=4, progress=False)
    assert tuple(run.prompt.token_ids or ()) == pools[0].rows[0]
    assert asks_for(run.text) is not None


def test_all_methods_are_named():
    assert {"soft", "sample", "race", "beam", "enumerate", "tandem"} <= set(TUNERS)


def test_the_last_row_of_tandem_is_of_the_prompt_that_it_names(
    tiny: Callable[..., LM], toy_task: Task
):
    lm = tiny()
    for seed in range(3):
        run = tune(
            lm, toy_task, "tandem", 3, {"perplexity": 0.3}, seed=seed, evaluations=6000,
            indifference=0.5, most_nats=20.0, most_share=1.0, progress=False,
        )  # fmt: skip
        last = run.history.iloc[-1]
        ids = [int(i) for i in last["token_ids"].split()]
        assert ids == list(run.prompt.token_ids)
        assert last["perplexity"] == pytest.approx(run.metrics["nats_per_token"], rel=1e-4)


@pytest.mark.parametrize("name", ["batch_size", "patience", "evaluations_of_dev"])
def test_options_that_a_search_does_not_heed_are_said(
    tiny: Callable[..., LM], toy_task: Task, caplog: pytest.LogCaptureFixture, name: str
):
    given: dict[str, Any] = {"evaluations": 300, "progress": False}
    default = TUNERS["sample"].Options.model_fields[name].default
    alone = tune(tiny(), toy_task, "sample", 2, **given, **{name: default})
    assert "changes nothing" not in caplog.text
    told = tune(tiny(), toy_task, "sample", 2, **given, **{name: 1})
    assert f"{name}: 'sample' counts evaluations" in caplog.text
    assert told.prompt.token_ids == alone.prompt.token_ids
