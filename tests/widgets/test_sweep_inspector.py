"""The inspector of sweeps without a browser."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

import softlens as sl
from softlens.tasks import digest
from softlens.widgets import sweep as sweeps
from softlens.widgets.scatter import HEIGHT, WIDTH, Point, scatter
from softlens.widgets.sweep import ALL


def drawn(inspector):
    return {int(i) for i in re.findall(r'data-point="(\d+)"', inspector.points.svg)}


def test_every_run_is_a_point_and_says_what_it_is(table):
    inspector = sl.inspect_sweep(table)
    assert drawn(inspector) == {0, 1}
    root = ElementTree.fromstring(inspector.points.svg)
    labels = [e.get("aria-label") for e in root.iter() if e.get("data-point")]
    for one in table.to_dict("records"):
        (label,) = [words for words in labels if words.startswith(one["method"])]
        assert f"accuracy {one['accuracy']:.3f}" in label
        assert one["text"].strip() in label
    assert "2 of 2 runs" in inspector.title.value


def test_points_stand_where_their_numbers_are():
    points = [Point(i, x, y, "pez", "p") for i, (x, y) in enumerate([(0, 0), (1, 0.5), (2, 1)])]
    root = ElementTree.fromstring(scatter(points, "x", "y"))
    at = [
        [float(v) for v in re.findall(r"-?[\d.]+", e.get("transform"))]
        for e in root.iter()
        if e.get("data-point")
    ]
    (x0, y0), (x1, y1), (x2, y2) = at
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert 0 < x0 < x2 < WIDTH
    assert 0 < y2 < y0 < HEIGHT


def test_selectors_choose_what_is_drawn(table):
    inspector = sl.inspect_sweep(table)
    assert inspector.gauges == ["nats_per_token", "label_mass"]  # a gauge without values is none
    inspector.selectors["method"].value = "pez"
    assert drawn(inspector) == {0}
    assert "1 of 2 runs" in inspector.title.value
    inspector.selectors["setting"].value = "no proxy"
    assert drawn(inspector) == set()
    assert "No run of this selection" in inspector.points.svg
    inspector.select(method=ALL, setting="perplexity 0.1", gauge="label_mass")
    assert drawn(inspector) == {0}
    assert "label mass" in inspector.points.svg
    with pytest.raises(sl.SoftlensError, match="Got method 'pezz', wanted one of"):
        inspector.select(method="pezz")


def test_what_is_called_moves_the_selectors(table):
    inspector = sl.inspect_sweep(table)
    drawings = []
    inspector.points.observe(lambda change: drawings.append(change["new"]), "svg")
    inspector.select(method="pez", gauge="label_mass")
    assert len(drawings) == 1
    chosen = {name: made.value for name, made in inspector.selectors.items()}
    assert chosen == {"method": "pez", "setting": ALL, "gauge": "label_mass"}
    inspector.selectors["method"].value = ALL
    assert drawn(inspector) == {0, 1}
    with pytest.raises(sl.SoftlensError, match="Got gauge 'beauty'"):
        inspector.select(method="pez", gauge="beauty")
    assert inspector.method == inspector.selectors["method"].value == ALL


def test_a_pressed_point_is_described_and_opened(lm, table):
    inspector = sl.inspect_sweep(table, lm)
    assert inspector.go.disabled
    inspector.points.press(0)
    one = table.iloc[0]
    assert f"<td>{one['accuracy']:.3f}</td>" in inspector.details.value
    assert f"<td>{one['empty_accuracy']:.3f}</td>" in inspector.details.value
    assert "<img" not in inspector.details.value
    inspector.go.click()
    assert inspector.error.value == ""
    assert " ".join(map(str, inspector.opened.prompt.token_ids)) == one["token_ids"]
    assert inspector.opened.bench.task.name == "sentiment"
    assert inspector.place.children == (inspector.opened.widget,)
    assert one["text"].strip() in inspector.static().data


def test_a_sweep_has_trainings_and_soft_vectors(lm, runs, soft_run):
    inspector = sl.inspect_sweep(runs)
    inspector.choose(1)
    assert "data:image/png" in inspector.details.value
    opened = inspector.open()
    assert opened.prompt is soft_run.prompt
    assert "Training" in [panel.name for panel in opened.panels]


def test_a_run_is_opened_on_the_task_that_it_was_tuned_on(lm, task, runs):
    one = runs.runs["pez-0"]
    template = "{prompt} {text}"
    config = one.config.model_copy(update={"template": template})
    told = digest(task.with_(template=template))
    runs.runs["pez-0"] = replace(one, config=config, task_digest=told)
    inspector = sl.inspect_sweep(runs)
    inspector.choose(0)
    assert inspector.open().bench.task.template == template
    runs.runs["pez-0"] = replace(one, task_digest="another")
    inspector.choose(0)
    assert inspector.open().bench.task is None
    assert sl.inspect_sweep(runs, task=task)._task is task


def test_a_run_that_cannot_be_opened_leaves_the_one_that_is_open(runs, monkeypatch):
    inspector = sl.inspect_sweep(runs)
    inspector.choose(0)
    first = inspector.open()

    def failing(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "inspect", failing)
        with pytest.raises(KeyboardInterrupt):
            inspector.open()
    assert inspector.opened is first
    assert inspector.place.children == (first.widget,)
    assert first.within is inspector
    first.drop(0)
    monkeypatch.setattr(runs, "run", failing)
    with pytest.raises(KeyboardInterrupt):
        inspector.choose(1)
    assert inspector.chosen == 0
    assert inspector._run is runs.runs["pez-0"]


def test_what_cannot_be_opened_says_why(table, tiny):
    inspector = sl.inspect_sweep(table)
    with pytest.raises(sl.SoftlensError, match="No run is chosen"):
        inspector.open()
    inspector.choose(1)
    with pytest.raises(sl.SoftlensError, match="it is of a soft prompt. Give the sweep itself"):
        inspector.open()
    for lm, table_of in ((tiny("gpt2"), table), (None, table.assign(lm="mine"))):
        other = sl.inspect_sweep(table_of, lm)
        other.points.press(0)
        other.go.click()
        assert "This run is of the LM" in other.error.value
    with pytest.raises(sl.SoftlensError, match="Got run 7, wanted 0 to 1"):
        inspector.choose(7)


def test_a_run_without_accuracy_is_left_out(table):
    partly = table.assign(accuracy=[0.5, float("nan")])
    inspector = sl.inspect_sweep(partly)
    assert "1 of 2 runs" in inspector.title.value
    inspector.select(method=partly["method"][1])
    assert "has an accuracy and this gauge" in inspector.points.svg


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: t.iloc[:0], "no finished run"),
        (lambda t: t.drop(columns="text"), "no column 'text'"),
        (lambda t: t[["method", "seed", "text", "accuracy"]], "no gauge to draw"),
        (lambda t: t.assign(accuracy=float("nan")), "None of the 2 runs has an accuracy"),
        (lambda t: 3, "Got a int, wanted a sweep"),
    ],
)
def test_bad_tables_are_refused(table, make, words):
    with pytest.raises(sl.SoftlensError, match=words):
        sl.inspect_sweep(make(table))


def test_markup_and_one_point_are_drawn_inert(table):
    evil = '<script>alert(1)</script>" onload="x'
    one = table.iloc[:1].assign(text=evil, method="<b>m</b>", proxy="<i>", seed=evil)
    inspector = sl.inspect_sweep(one)
    inspector.choose(0)
    ElementTree.fromstring(inspector.points.svg)
    for part in (inspector.points.svg, inspector.details.value, inspector.static().data):
        assert not re.search(r'<(script|b>m|i>)|" onload', part)


def test_the_static_view_has_picture_and_choice(runs):
    inspector = sl.inspect_sweep(runs)
    inspector.choose(0)
    page = inspector.static().data
    assert "data:image/svg+xml;base64," in page
    assert not re.search(r"<script|<link|https?://", page)
    inspector.open()
    assert "predictions changed" in inspector.static().data
    inspector.close()
    assert inspector.opened is None


def test_the_static_view_follows_edits_of_the_opened_run(runs):
    inspector = sl.inspect_sweep(runs)
    kept = []
    inspector._handle = SimpleNamespace(update=lambda page: kept.append(page.data))
    inspector.choose(0)
    first = inspector.open()
    kept.clear()
    panel = first.panels[0]
    panel.word.value = "whole"
    assert len(kept) == 1
    assert "Edited: position 0" in kept[0]
    panel.buttons[-1].click()
    assert "Edited:" not in kept[-1]
    second = inspector.open()
    second.drop(1)
    assert "Edited: position 1" in kept[-1]
    assert first.within is None


def test_many_runs_are_drawn_quickly(table):
    many = pd.concat([table] * 150, ignore_index=True)
    inspector = sl.inspect_sweep(many)
    assert len(drawn(inspector)) == 300
    assert len(inspector.points.svg) < 300_000
