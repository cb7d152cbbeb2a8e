"""What the benchmarks of the tuners call passing, on rows made by hand and on a small sweep."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import softlens as sl
from tests.benchmarks import bench_real, bench_tuners


def real(method: str, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": method, "task": "sentiment", "seed": 1, "proxy": "perplexity", "weight": 0.0,
        "options": "", "accuracy": 0.80, "calibrated": 0.90, "label_mass": 0.1,
        "least_share": 0.3, "most_share": 0.7, "evaluations": 14_400, "seconds": 60.0,
    }  # fmt: skip
    if method != "soft":
        row |= {"text": "a", "nats_after_texts": 2.0, "relevance": -1.0, "words_only": True}
        row |= {"on_task": True}
    return row | changes


def test_raw_is_held_against_raw_and_calibrated_against_calibrated():
    rows = pd.DataFrame(
        [
            real("soft"),
            real("tandem"),
            real("tandem", calibrated=0.85),
            real("tandem", accuracy=0.75, evaluations=14_401),
            real("tandem", accuracy=0.75, calibrated=0.85),
            real("tandem", words_only=False),
        ]
    )
    table = bench_real.judged(rows)
    assert table["passed_raw"].tolist() == [True, True, False, False, False]
    assert table["passed_calibrated"].tolist() == [True, False, True, False, False]
    assert table["passed"].tolist() == [True, False, False, False, False]
    assert table["affordable"].tolist() == [True, True, False, True, True]
    means = bench_real.shares(table).iloc[0]
    assert means["passed"] == pytest.approx(0.2)
    assert means["passed_raw"] == means["passed_calibrated"] == pytest.approx(0.4)
    assert means["most_evaluations"] == 14_401
    assert means["seconds"] == 60


@pytest.mark.parametrize(
    ("task", "least", "most", "readable"),
    [
        ("sentiment", 0.1, 0.9, True),
        ("sentiment", 0.09, 0.9, False),
        ("topic", 0.0625, 0.9, True),  # of four classes, a quarter of a quarter
        ("topic", 0.06, 0.9, False),
        ("topic", 0.07, 0.91, False),
    ],
)
def test_each_class_is_predicted_for_its_share(
    task: str, least: float, most: float, readable: bool
):
    shares = {"task": task, "least_share": least, "most_share": most}
    table = bench_real.judged(pd.DataFrame([real("soft", task=task), real("tandem", **shares)]))
    assert table["readable"].tolist() == [readable]


def test_soft_prompts_of_other_options_are_not_compared_with():
    rows = pd.DataFrame(
        [
            real("soft", accuracy=0.9),
            real("soft", accuracy=0.5, weight=1.0),
            real("soft", accuracy=0.6, options="length=1"),
            real("tandem", options="length=1 rounds=1"),
            real("tandem", options="evaluations=99"),
            real("tandem", options="length=7"),
        ]
    )
    table = bench_real.judged(rows)
    assert table["soft"].tolist()[:2] == [0.6, 0.9]
    assert table["passed_raw"].tolist()[:2] == [True, False]
    assert table["passed"].isna().tolist() == [False, False, True]
    assert bench_real.shares(table)["passed"].isna().tolist() == [False, False, True]


def test_runs_of_a_sweep_are_judged_as_runs_of_the_benchmark_are(tmp_path: Path):
    organism, task, options = sl.load_lm(), sl.load_task("topic"), {"evaluations": 2_000}
    sl.sweep(
        organism, task, ["sample", "soft"], seeds=[1], store=tmp_path, progress=False,
        options={"sample": options, "soft": {"steps": 1}},
    )  # fmt: skip
    swept = bench_real.swept(organism, tmp_path).set_index("method")
    assert swept.loc["soft"].isna().sum() == 5  # what only a text has
    run = bench_real.one(organism, "sample", "topic", 1, "perplexity", 0.0, "evaluations=2000")
    for name in swept.columns.drop(["seconds", "options", "proxy"]):
        assert swept.loc["sample", name] == pytest.approx(run[name], abs=1e-5), name


def test_the_organisms_table_has_intervals_and_the_limit_of_each_task():
    row = {
        **dict(zip(bench_tuners.KEYS, ("race", "witness", 1, "", 0.0, ""), strict=True)),
        "text": "who", "accuracy": 0.9, "label_mass": 1.0, "nats_per_token": 1.0, "seconds": 1.0,
        "evaluations": 60_001, "passed": True, "grammatical": True, "asks_for": "first",
    }  # fmt: skip
    right = bench_tuners.TASK_ASKS["witness"]
    rows = [row, row | {"seed": 2, "evaluations": 60_000, "asks_for": right, "grammatical": False}]
    rows += [row | {"task": "witness-rare", "evaluations": 200_000}]
    table = bench_tuners.table(pd.DataFrame(rows))
    assert table["affordable"].tolist() == [0.5, 1.0]
    assert table["passed"].tolist() == ["1.00 [0.34, 1.00]", "1.00 [0.21, 1.00]"]
    # Wilson's interval of one in two.
    assert table["grammatical"][0] == table["asks right"][0] == "0.50 [0.09, 0.91]"
