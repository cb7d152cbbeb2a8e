"""The criterion clause by clause, and the report in all its forms."""

import html
import html.parser
import json
import math
from collections.abc import Callable
from dataclasses import replace
from inspect import unwrap
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import softlens as sl
from softlens import Criterion, Prompt, Reading, SoftlensError, Task
from softlens.framework.criterion import judged
from softlens.framework.faithfulness import Faithfulness
from softlens.framework.scrutability import judge_of
from softlens.lm import LM, token_surprisal
from softlens.people import real_spans
from softlens.plots.reading import _apart
from softlens.plots.tested import TOP

QUICK = {"matched": {"evaluations": 6000}}


@pytest.fixture(scope="module")
def known(organism: LM, sentiment: Task) -> Prompt:
    """A soft prompt that does what a text does, a little off its rows."""
    rows = Prompt.from_text(organism, "all in all it was").vectors
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    return Prompt.soft(organism, rows + 0.02 * noise)


@pytest.fixture(scope="module")
def made(organism: LM, sentiment: Task, known: Prompt) -> sl.Report:
    return sl.report(
        organism, sentiment, known, methods=["nearest", "matched", "mixture"], progress=False,
        options=QUICK,
    )  # fmt: skip


def verdict_on(lm: LM, task: Task, prompt: Prompt, text: str, **bounds: float) -> sl.Verdict:
    reading = Reading.from_text(lm, text)
    fit = sl.faithfulness(lm, task, prompt, reading)
    gauges = sl.scrutability(lm, task, reading)
    return judged(lm, task, prompt, [fit], [gauges], Criterion(**bounds))


def failed(verdict: sl.Verdict) -> set[str]:
    rows = verdict.frame.to_dict("records")
    return {row["clause"] for row in rows if row["passed"] is False}


def test_the_right_reading_passes(organism: LM, sentiment: Task, known: Prompt):
    verdict = verdict_on(organism, sentiment, known, "on the whole it was")
    assert failed(verdict) == set()
    assert verdict.passed
    assert verdict.by == "given"
    assert "interpretable at (ε = 0.1" in verdict.headline


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("near the end it was", {"gives the same answers"}),
        ("this story is mainly about", {"says what the prompt does (KL)", "is as accurate"}),
        ("great great great great great", {"does not name the answer", "does not loop"}),
        ("oscar lawyer summit it was", {"is as fluent as real text"}),
    ],
)
def test_wrong_readings_fail_where_they_are_wrong(
    organism: LM, sentiment: Task, known: Prompt, text: str, clauses: set[str]
):
    verdict = verdict_on(organism, sentiment, known, text)
    assert clauses <= failed(verdict)
    assert not verdict.passed
    assert "NOT interpretable" in repr(verdict)


def test_epsilon_and_delta_are_the_users(organism: LM, sentiment: Task, known: Prompt):
    text = "near the end it was"
    loose = verdict_on(organism, sentiment, known, text, epsilon=0.5)
    assert "gives the same answers" not in failed(loose)
    strict = verdict_on(organism, sentiment, known, text, nats_per_token=0.5)
    assert {"is as fluent as real text", "also to the judge"} <= failed(strict)
    for name in ("epsilon", "epsilon_elsewhere", "transfer_agreement"):
        with pytest.raises(SoftlensError, match=f"Got {name}=2, wanted a share"):
            Criterion(**{name: 2})


def test_the_worse_end_of_an_interval_decides(organism: LM, sentiment: Task, known: Prompt):
    reading = Reading.from_text(organism, "near the end it was")
    fit = sl.faithfulness(organism, sentiment, known, reading)
    value, low, _ = fit.interval("agreement")
    assert low < value
    between = 1 - (low + value) / 2
    verdict = verdict_on(organism, sentiment, known, reading.text, epsilon=between)
    assert "gives the same answers" in failed(verdict)


def test_what_cannot_be_tested_says_so(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    verdict = verdict_on(lm, toy_task, Prompt.from_text(lm, "it was"), "it was")
    rows = verdict.frame.set_index("clause")
    assert rows.loc["also to the judge", "passed"] is None
    assert rows.loc["also to the judge", "evidence"] == "not tested"


def test_a_judge_that_is_the_lm_itself_judges_nothing(
    organism: LM, sentiment: Task, known: Prompt, caplog: pytest.LogCaptureFixture
):
    made = sl.report(
        organism, sentiment, known, methods=["nearest"], judge=organism, progress=False
    )
    assert "The judge is the tuned LM itself" in caplog.text
    rows = made.verdict.frame.set_index("clause")
    for clause in ("also to the judge", "means the same to the judge"):
        assert rows.loc[clause, "passed"] is None
        assert rows.loc[clause, "evidence"] == "not tested: the judge is the LM itself"
    for shown in (repr(made), made._repr_html_(), " ".join(made.to_dict()["notes"])):
        assert "is the tuned LM itself: its gauges are not held out" in shown
    assert made.to_dict()["judge"] == "organism"
    assert "2 of 12 clauses not tested" in made.verdict.headline


def test_bounds_are_real_spans(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    mean, worst = real_spans(lm, toy_task, 2)
    means, tops = [], []
    for text in toy_task.train.texts:
        nats = token_surprisal(lm, [lm.encode(text)])[0, 0].numpy()
        for start in range(0, len(nats) - 1, 2):
            means.append(nats[start : start + 2].mean())
            tops.append(nats[start : start + 2].max())
    assert mean == pytest.approx(np.quantile(means, 0.9), rel=1e-4)
    assert worst == pytest.approx(np.quantile(tops, 0.9), rel=1e-4)
    settled = Criterion(nats_per_token=1.5).settled(lm, toy_task, 2)
    assert settled.nats_per_token == 1.5
    assert settled.max_surprisal == worst


@pytest.mark.parametrize("bounds", [{}, {"max_surprisal": 0.01}])
def test_the_criterion_shown_is_the_one_that_was_applied(
    organism: LM, sentiment: Task, known: Prompt, bounds: dict[str, float]
):
    """Two readings of other lengths: each has its own bounds, and the right one's are shown."""
    readings = [
        Reading.from_text(organism, text, method)
        for text, method in (
            ("a new film", "wrong"),
            ("on the whole it was", "right"),
        )
    ]
    fits = sl.faithfulness_all(organism, sentiment, known, readings)
    gauged = [sl.scrutability(organism, sentiment, reading) for reading in readings]
    verdict = judged(organism, sentiment, known, fits, gauged, Criterion(**bounds))
    assert verdict.by == (None if bounds else "right")
    tops = verdict.frame.set_index(["method", "clause"])["bound"].unstack("method")
    wrong, right = tops.loc["is as fluent as real text", ["wrong", "right"]]
    assert wrong != right
    assert verdict.criterion.nats_per_token == right
    assert f"δ = {right:.2f} nats" in verdict.headline


# -- the report ---------------------------------------------------------------------------------


def test_it_reads_a_known_prompt(made: sl.Report):
    assert made.verdict.passed
    assert made.verdict.by in ("nearest", "matched")
    frame = made.frame.set_index("method")
    assert frame.loc["matched", "asks_for"] == "whole"
    assert frame.loc["matched", "kl_closed"] > 0.99
    assert frame.loc["matched", "kl_closed_low"] <= frame.loc["matched", "kl_closed"]
    assert set(frame.index) == {"nearest", "matched", "mixture"}
    assert {"accuracy_random", "judge_perplexity", "passed", "failed"} <= set(frame.columns)


def test_the_curve_falls_and_is_about_all_texts(made: sl.Report):
    curve = made.verdict.curve
    assert len(curve) > 8
    assert set(curve["method"]) == {"nearest", "matched"}
    smallest = curve[curve["smallest"]]
    assert smallest["epsilon"].is_monotonic_decreasing
    assert (curve["low"] <= curve["epsilon"] + 1e-9).all()
    costs = curve["nats_per_token"]
    assert made.verdict.epsilon_at(costs.max()) == pytest.approx(curve["epsilon"].min())
    assert math.isnan(made.verdict.epsilon_at(costs.min() / 2))
    fit = next(f for f in made.faithfulness if f.reading.method == "matched")
    same = curve[curve["text"] == fit.reading.text]["epsilon"].item()
    assert same == pytest.approx(fit.gap, abs=1e-6)


def test_it_prints(made: sl.Report):
    shown = repr(made)
    for words in ("report on a prompt of 5", "matched", "says what the prompt does (KL)", "pass"):
        assert words in shown
    for fit, row in zip(made.faithfulness, made.table.to_dict("records"), strict=True):
        for column, measure in (("accuracy", "accuracy"), ("agreement", "agreement"),
                                ("KL closed", "kl_closed")):  # fmt: skip
            value, low, high = fit.interval(measure)
            assert low <= value <= high
            assert row[column] == f"{value:.2f} [{low:.2f}, {high:.2f}]"
    assert "all in all it was" in made._repr_html_()


def test_the_prompt_stands_above_its_controls(made: sl.Report):
    rows = made.controls.set_index("prompt")
    kinds = [name.split()[0] for name in rows.index]
    assert kinds == ["this", "best", "random", "empty"]
    fit = made.faithfulness[0]
    assert rows["accuracy"].iloc[0] == pytest.approx(fit.accuracy_prompt)
    assert rows["accuracy"].iloc[3] == pytest.approx(fit.accuracy_empty)
    for shown in (repr(made), made._repr_html_(), made.to_html()):
        for name, accuracy in rows["accuracy"].items():
            assert html.escape(str(name)) in shown or str(name) in shown
            assert f"{accuracy:.3f}" in shown


class Tags(html.parser.HTMLParser):
    """Names of elements, and everything a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_nothing_else(made: sl.Report, tmp_path: Path):
    before = plt.get_fignums()
    path = made.save(tmp_path / "report.html")
    tags = Tags()
    tags.feed(path.read_text(encoding="utf-8"))
    assert not set(tags.names) & {"script", "link", "iframe"}
    assert len(tags.fetched) == 2 + len(made.views) + len(made.readings)
    assert all(src.startswith("data:image/png;base64,") for src in tags.fetched)
    assert plt.get_fignums() == before
    page = path.read_text(encoding="utf-8")
    for words in ("<th>shows</th>", "<th>cannot_show</th>", "that the LM might say it"):
        assert page.count(words) >= len(made.readings)


def test_json_has_it_all(made: sl.Report, tmp_path: Path):
    record = sl.load_report(made.save(tmp_path / "report.json"))
    assert record["verdict"]["interpretable"] is True
    assert [r["method"] for r in record["readings"]] == ["nearest", "matched", "mixture"]
    assert len(record["verdict"]["curve"]) == len(made.verdict.curve)
    assert record["readings"][2]["experts"]
    assert record["controls"] == made.controls.to_dict("records")
    assert (record["judge"], record["seed"], record["texts"]) == ("organism-judge", 0, 128)
    assert len(record["judge_checksum"]) > 8
    for reading, told in zip(made.readings, record["readings"], strict=True):
        assert len(told["found"]) == len(reading.frame) > 0
        assert list(told["found"][0]) == list(reading.frame.columns)
    carried = [row["attribution"] for row in record["views"]["Attribution"]]
    assert carried == made.views[2].frame["attribution"].tolist()
    assert {"NearestTokens", "Surprisal"} <= record["views"].keys()
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text) == record
    with pytest.raises(SoftlensError, match="wanted a name that ends in .html or .json"):
        made.save(tmp_path / "report.pdf")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SoftlensError, match="No report of softlens at"):
        sl.load_report(tmp_path / "other.json")


def test_untrusted_tokens_stay_inert(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    ids = [lm.encode(letter)[0] for letter in "<b>"]
    hard = Prompt.from_ids(lm, ids)
    task = replace(toy_task, name="<i>task</i>")
    made = sl.report(lm, task, hard, methods=["nearest"], progress=False)
    page = made.to_html()
    assert "<b>" not in page
    assert "<i>" not in page
    assert "No judge: pass judge=" in page
    bare = sl.report(lm, replace(task, readable=()), hard, methods=["nearest"], progress=False)
    assert "No best readable prompt" in repr(bare)
    assert len(bare.controls) == 3
    assert "<b>" not in made._repr_html_()


def test_plots(made: sl.Report):
    for one in (made, made.verdict, *made.readings, *made.faithfulness, *made.scrutability):
        assert any(panel.has_data() or panel.texts for panel in np.ravel(one.plot()))
    plt.close("all")


def test_small_gaps_are_seen_and_great_ones_are_arrows(made: sl.Report):
    curve = pd.concat([made.verdict.curve, made.verdict.curve.tail(1).assign(epsilon=7.0)])
    ax = replace(made.verdict, curve=curve).plot()
    assert ax.get_yscale() == "symlog"
    tops = [places[1] for dots in ax.collections for places in np.asarray(dots.get_offsets())]
    assert sorted(tops) == pytest.approx(sorted(curve["epsilon"].clip(upper=TOP)))
    line = max(ax.lines, key=lambda one: len(one.get_xdata()))
    assert line.get_zorder() > max(dots.get_zorder() for dots in ax.collections)
    plt.close("all")


def test_numbers_on_a_path_keep_apart():
    places = np.array([[0, 0], [0.01, 0.5], [0.02, 0.51], [0.5, 0.5], [0.54, 0.5], [0.56, 0.5]])
    assert _apart(places, np.arange(6)) == [0, 1, 3, 5]


def test_a_lie_is_found_out(organism: LM, sentiment: Task):
    """A wayward prompt: its nearest tokens fail, and `matched` does not follow them."""
    lie = "this story is mainly about"
    wayward = sl.wayward(organism, sentiment, lie, steps=200, progress=False).prompt
    made = sl.report(
        organism, sentiment, wayward, methods=["nearest", "matched"], progress=False, options=QUICK
    )
    frame = made.frame.set_index("method")
    assert frame.loc["nearest", "reading"] == lie
    assert frame.loc["nearest", "asks_for"] == "topic"
    assert not frame.loc["nearest", "passed"]
    assert frame.loc["matched", "asks_for"] != "topic"
    assert frame.loc["matched", "kl_closed"] > 0.9 > frame.loc["nearest", "kl_closed"]


def test_readings_of_ones_own(organism: LM, sentiment: Task, known: Prompt):
    guesses = ["near the end it was", "all in all it was"]
    made = sl.report(organism, sentiment, known, methods=[], readings=guesses, progress=False)
    assert list(made.frame["method"]) == ["given", "given 2"]
    assert list(made.frame["passed"]) == [False, True]
    assert made.verdict.by == "given 2"


@pytest.mark.parametrize("length", [3, 60])
def test_texts_that_do_not_fit_are_cut(
    tiny: Callable[..., LM], toy_task: Task, length: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("softlens.attribution.methods.PERMUTATIONS", 8)
    lm = tiny()
    texts = tuple(f"{text} the film was good {'and dull ' * 60}" for text in toy_task.test.texts)
    task = replace(toy_task, test=replace(toy_task.test, texts=texts))
    assert all(len(lm.encode(text)) > lm.context_length for text in texts)
    prompt = Prompt.from_ids(lm, lm.ordinary_ids[:length])
    made = sl.report(lm, task, prompt, methods=["nearest"], progress=False)
    assert made.faithfulness[0].n == len(texts)
    assert len(made.views[2].frame) == length


def test_what_is_off_the_distribution_is_named(
    organism: LM, sentiment: Task, known: Prompt, tiny: Callable[..., LM], toy_task: Task
):
    fit = sl.faithfulness(organism, sentiment, known, "near the end it was")
    found = {d: fit.interval("kl_closed", d) for d in ("other task", "shuffled words")}
    gaps = {domain: 1 - closed for domain, (closed, _, _) in found.items()}
    worse = min(found, key=lambda domain: found[domain][1])
    verdict = verdict_on(organism, sentiment, known, "near the end it was")
    evidence = verdict.frame.set_index("clause").loc["also on other texts", "evidence"]
    assert f"gap {gaps[worse]:.3f} on {worse} (95%: up to" in evidence
    assert "bound" in evidence
    lm, prompt = tiny(), Prompt.from_text(tiny(), "it was")
    alone = sl.report(lm, toy_task, prompt, methods=["nearest"], progress=False)
    assert "No texts of another kind: pass other=" in repr(alone)
    assert "on shuffled words" in repr(alone)
    others = [f"{text} and dull" for text in toy_task.train.texts]
    tested = sl.report(lm, toy_task, prompt, methods=["nearest"], other=others, progress=False)
    assert "No texts of another kind" not in repr(tested)


def test_the_worse_of_other_texts_is_the_one_with_the_worse_end(
    organism: LM, sentiment: Task, known: Prompt, monkeypatch: pytest.MonkeyPatch
):
    ends = {"other task": (0.75, 0.2, 0.9), "shuffled words": (0.7, 0.6, 0.8)}
    original = Faithfulness.interval

    def given(self: Faithfulness, measure: str, domain: str = "test", **named: Any) -> Any:
        return ends[domain] if domain in ends else original(self, measure, domain, **named)

    monkeypatch.setattr(Faithfulness, "interval", given)
    verdict = verdict_on(organism, sentiment, known, "near the end it was")
    clause = verdict.frame.set_index("clause").loc["also on other texts"]
    assert "on other task (95%: up to 0.800)" in clause["evidence"]
    assert clause["passed"] is False


def test_the_judge_has_a_bound_of_its_own(organism: LM, sentiment: Task, known: Prompt):
    judge = sl.load_lm("organism-judge")
    made = sl.report(organism, sentiment, known, methods=[], readings=["on the whole it was"],
                     progress=False)  # fmt: skip
    bounds = made.verdict.frame.set_index("clause")["bound"]
    assert bounds["is as fluent as real text"] == real_spans(organism, sentiment, 5)[0]
    assert bounds["also to the judge"] == real_spans(judge, sentiment, 5)[0]
    assert bounds["also to the judge"] != bounds["is as fluent as real text"]
    own = Criterion(nats_per_token=1.5)
    made = sl.report(organism, sentiment, known, methods=[], readings=["on the whole it was"],
                     criterion=own, progress=False)  # fmt: skip
    assert made.verdict.frame.set_index("clause")["bound"]["also to the judge"] == 1.5


@pytest.mark.parametrize("length", [3, 5])
def test_questions_of_the_grammar_are_within_the_bounds(organism: LM, sentiment: Task, length: int):
    """A text's first word was never trained: it sets no bound."""
    mean, worst = real_spans(organism, sentiment, length)
    assert (mean, worst) == real_spans(organism, sl.load_task("topic"), length)
    assert worst < 1.1 * math.log(organism.vocab_size)
    for text in ("all in all", "on the whole", "near the end", "at the start"):
        ids = organism.encode(text + " it was", leading_space=True)[:length]
        nats = token_surprisal(organism, [ids])[0, 0]
        assert float(nats.mean()) <= mean
        assert float(nats.max()) <= worst


def test_a_hard_prompt_read_as_itself_passes_in_a_frame(organism: LM, sentiment: Task):
    framed = sentiment.with_(template="{text} {prompt} it was")
    for text in ("all in all", "on the whole"):
        made = sl.report(organism, framed, text, methods=[], readings=[text], progress=False)
        failed = made.verdict.frame.query("passed == False")
        assert made.verdict.passed, failed[["clause", "evidence"]].to_string()


def test_a_reading_of_white_space_can_be_gauged(tiny: Callable[..., LM], toy_task: Task):
    lm, other = tiny("gpt2"), tiny("gpt2", seed=1)
    reading = Reading.from_ids(lm, lm.encode("\n"), "of a test")
    gauges = sl.scrutability(lm, toy_task, reading, judge=other)
    assert gauges.transfer_agreement is None
    assert gauges.judge_perplexity is None


def test_a_text_and_the_name_of_a_judge_will_do(organism: LM, sentiment: Task):
    text, readings = "all in all it was", ["on the whole it was"]
    made = sl.report(organism, sentiment, text, methods=[], readings=readings,
                     judge="organism-judge", progress=False)  # fmt: skip
    assert made.scrutability[0].judge == "organism-judge"
    assert made.length == len(organism.encode(text))
    assert made.verdict.passed
    with pytest.raises(SoftlensError, match="Got a int as the judge, wanted an LM"):
        unwrap(judge_of)(organism, 3)
    with pytest.raises(SoftlensError, match="no-such-judge"):
        sl.report(organism, sentiment, text, methods=[], readings=readings, judge="no-such-judge")
    with pytest.raises(SoftlensError, match="Got a int, wanted a Prompt, a text"):
        unwrap(sl.report)(organism, sentiment, 3, methods=[], readings=readings)


def test_bad_input(tiny: Callable[..., LM], toy_task: Task):
    prompt = Prompt.from_text(tiny(), "it was")
    with pytest.raises(SoftlensError, match="Got no methods of reading"):
        sl.report(tiny(), toy_task, prompt, methods=[])
    with pytest.raises(SoftlensError, match="Got options for 'matched', which is not asked for"):
        sl.report(tiny(), toy_task, prompt, methods=["nearest"], options={"matched": {}})
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-0'"):
        sl.report(tiny("gpt2", 1), toy_task, prompt, methods=["nearest"])
