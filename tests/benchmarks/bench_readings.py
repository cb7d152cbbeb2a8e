"""Readings measured where the truth is known: the tables of the framework.

    python -m tests.benchmarks.bench_readings readings --seeds 20
    python -m tests.benchmarks.bench_readings distilled --seeds 50
    python -m tests.benchmarks.bench_readings mixtures --seeds 20
    python -m tests.benchmarks.bench_readings wayward --seeds 10
    python -m tests.benchmarks.bench_readings readings --lm smollm2-135m --tasks reviews --seeds 5
    python -m tests.benchmarks.bench_readings distilled --lm smollm2-135m --tasks reviews --seeds 5
    python -m tests.benchmarks.bench_readings wayward --lm smollm2-135m --tasks reviews --seeds 5
    python -m tests.benchmarks.bench_readings report --seeds 3

On an LM that is no organism, texts to distil are the tasks' readable prompts, and no grammar says
what a reading asks for: the share of KL closed and agreement do. Without --tasks, the seed draws
the organism's task of a distilled prompt (in the column "of").

Each experiment keeps a table, one row a run, and a run that is there is not done again. Settings
were tried on seeds 0 to 9; what is reported starts at 100.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest, spearmanr

import softlens as sl
from softlens import files
from softlens.behaviour import log_answers
from softlens.organism import asks_for, grammar, speaks
from softlens.statistics import mean_interval

METHODS = ("nearest", "verbalize", "matched", "mixture")
Row = dict[str, object]

# -- soft prompts as they are trained ------------------------------------------------------------

NAMES_TASK = ("film", "movie", "review", "opinion", "rating", "rate", "quality", "recommend")
"""The rule of "the description names the task" on the reviews, written before looking: one of
these words is in it."""


def readings(lm: sl.LM, name: str, seed: int, mass: float) -> Iterator[Row]:
    """One soft prompt, read by each method, each reading tested."""
    task = sl.load_task(name)
    run = sl.tune(lm, task, seed=seed, progress=False, mass=mass)
    found, seconds = [], []
    for method in METHODS:
        began = time.perf_counter()
        found.append(sl.read(lm, run.prompt, method, task, seed=seed, progress=False))
        seconds.append(time.perf_counter() - began)
    report = sl.report(lm, task, run.prompt, methods=[], readings=found, seed=seed, progress=False)
    for fit, took, row in zip(
        report.faithfulness, seconds, report.frame.to_dict("records"), strict=True
    ):
        elsewhere = [fit.interval("kl_closed", d)[0] for d in dict.fromkeys(fit.frame["domain"])]
        text = fit.reading.text.lower()
        yield {
            "method": row["method"],
            "text": row["reading"],
            "accuracy_prompt": row["accuracy_prompt"],
            "accuracy_gap": row["accuracy_prompt"] - row["accuracy_reading"],
            "agreement": row["agreement"],
            "kl_closed": row["kl_closed"],
            "kl_closed_low": row["kl_closed_low"],
            "kl_closed_high": row["kl_closed_high"],
            "kl_labels_closed": fit.interval("kl_labels_closed")[0],
            "kl_closed_worst_domain": min(elsewhere),
            "label_mass_prompt": run.metrics["label_mass"],
            "nats_per_token": row["nats_per_token"],
            "grammatical": row["grammatical"],
            "asks_for": row["asks_for"],
            "names_task": any(word in text for word in NAMES_TASK),
            "passed": row["passed"],
            "failed": row["failed"],
            "seconds": took,
        }


# -- prompts whose meaning is known ---------------------------------------------------------------

KINDS = {
    "sentiment": ("first", "middle", "last", "whole", "opposite"),
    "topic": ("topic",),
    "witness": ("person:critic", "person:teacher", "person:neighbour", "person:doctor"),
}
"""Questions that are drawn from. Few texts of `witness` speak of persons other than the critic: how
many tell is in the column "telling"."""


TOLD = 0.1
"""Share of texts with another answer than the commonest, from which on a question is told apart."""


DRAWN = "drawn"
"""In place of a task: the seed draws one."""


def known_text(lm: sl.LM, name: str, seed: int) -> tuple[sl.Task, str]:
    """A task and a text for it: a question in any wording, off the organism a readable prompt."""
    rng = Random(f"distilled {seed}")
    if not speaks(lm):
        task = sl.load_task(name)
        return task, rng.choice(task.readable)
    drawn = rng.choice(list(KINDS))
    task = sl.load_task(drawn if name == DRAWN else name)
    return task, rng.choice(grammar().questions[rng.choice(KINDS[task.name])]).text


def distilled(lm: sl.LM, name: str, seed: int, mass: float) -> Iterator[Row]:
    """One known text, distilled and read back by each method."""
    task, said = known_text(lm, name, seed)
    made = sl.distil(lm, task, said, seed=seed, progress=False)
    texts = lm.encode_texts(task.template, task.test.texts, reserve=16, truncate=True)
    ids = sl.Reading.from_text(lm, said, task=task).token_ids
    answers = log_answers(lm, [ids], texts)[0].argmax(dim=1)
    telling = float((answers != answers.mode().values).float().mean())
    asked = asks_for(said) if speaks(lm) else None
    for method in METHODS:
        began = time.perf_counter()
        found = sl.read(lm, made.prompt, method, task, seed=seed, progress=False)
        took = time.perf_counter() - began
        fit = sl.faithfulness(lm, task, made.prompt, found)
        right = asks_for(found.text) == asked if asked else None
        yield {
            "method": method,
            "of": task.name,
            "said": said,
            "text": found.shown,
            "asked": asked,
            "asks_for": asks_for(found.text) or "nothing" if asked else None,
            "telling": telling,
            "right": right,
            "right_if_told": right if telling >= TOLD else None,
            "distilled_closed": made.metrics["kl_closed"],
            "kl_closed": fit.kl_closed,
            "agreement": fit.agreement,
            "seconds": took,
        }


def mixtures(lm: sl.LM, _: str, seed: int, mass: float) -> Iterator[Row]:
    """Two or three questions with known weights, distilled; which weights come back."""
    rng = Random(f"mixture {seed}")
    count = rng.choice((2, 3))
    kinds = rng.sample(("first", "middle", "last", "whole"), count)
    said = {kind: grammar().questions[kind][0].text for kind in kinds}
    weights = {kind: round(rng.uniform(0.3, 1.0), 2) for kind in kinds}
    task = sl.load_task("sentiment")
    made = sl.distil(
        lm, task, {said[k]: weights[k] for k in kinds}, 5 * count, seed=seed, progress=False
    )
    began = time.perf_counter()
    found = sl.read(lm, made.prompt, "mixture", task, seed=seed, progress=False)
    took = time.perf_counter() - began
    back = dict.fromkeys(grammar().questions, 0.0)
    for expert in found.experts:
        if (kind := asks_for(expert.text)) in back:
            back[str(kind)] += expert.weight
    single = sl.read(lm, made.prompt, "matched", task, seed=seed, progress=False)
    fits = sl.faithfulness_all(lm, task, made.prompt, [found, single])
    relevant = ("first", "middle", "last", "whole")
    known = [weights.get(kind, 0.0) for kind in relevant]
    got = [back[kind] for kind in relevant]
    yield {
        "method": "mixture",
        "said": " ".join(f"{weights[k]:+.2f} {k}" for k in kinds),
        "text": found.shown,
        "distilled_closed": made.metrics["kl_closed"],
        "experts": len(found.experts),
        "questions_right": set(kinds) == {k for k, w in back.items() if abs(w) > 0.05},
        "rank_correlation": float(spearmanr(known, got).statistic),
        "weight_error": float(np.abs(np.subtract(known, got)).mean()),
        "kl_closed": fits[0].kl_closed,
        "kl_closed_single": fits[1].kl_closed,
        "kl_vocab": fits[0].kl_vocab,
        "kl_vocab_single": fits[1].kl_vocab,
        "seconds": took,
    }


# -- prompts that lie -----------------------------------------------------------------------------

LIES = (
    "this story is mainly about",
    "my rival says it was",
    "at the start it was",
    "the garden last night was",
    "the total price was about",
    "i went there with my",
    "great great great great great",
    "in short i hated it",
    "the critic hated it .",
    "terrible terrible terrible terrible terrible",
)
"""Target texts: other questions, contradictions, loops."""


def wayward(lm: sl.LM, name: str, seed: int, mass: float) -> Iterator[Row]:
    """One lie: what it costs, and whether readings are taken in."""
    task, lie = sl.load_task(name), LIES[seed % len(LIES)]
    length = sl.Reading.from_text(lm, lie, task=task).token_ids
    mass = mass if lm.is_small else 0.0  # as `wayward` itself weighs it
    plain = sl.tune(lm, task, length=len(length), seed=seed, mass=mass, progress=False)
    made = sl.wayward(lm, task, lie, seed=seed, progress=False)
    report = sl.report(
        lm, task, made.prompt, methods=["nearest", "matched"], seed=seed, progress=False
    )
    rows = report.frame.set_index("method")
    yield {
        "method": "nearest and matched",
        "said": lie,
        "accuracy": made.metrics["accuracy"],
        "accuracy_free": plain.metrics["accuracy"],
        "decoded": made.metrics["decoded"],
        "nearest_closed": rows.loc["nearest", "kl_closed"],
        "nearest_passed": rows.loc["nearest", "passed"],
        "matched_text": rows.loc["matched", "reading"],
        "matched_closed": rows.loc["matched", "kl_closed"],
        "matched_passed": rows.loc["matched", "passed"],
        "matched_agreement": rows.loc["matched", "agreement"],
        "matched_follows": _follows(lm, str(rows.loc["matched", "reading"]), lie),
        "seconds": report.seconds,
    }


def _follows(lm: sl.LM, text: str, lie: str) -> bool | None:
    """Whether a reading asks for what the lie asks for; None where no grammar tells."""
    if not speaks(lm):
        return None
    return asks_for(lie) is not None and asks_for(text) == asks_for(lie)


def report(lm: sl.LM, name: str, seed: int, mass: float) -> Iterator[Row]:
    """Seconds of a whole report."""
    task = sl.load_task(name)
    run = sl.tune(lm, task, seed=seed, progress=False, mass=mass)
    made = sl.report(lm, task, run.prompt, seed=seed, progress=False)
    yield {"method": "report", "passed": made.verdict.passed, "seconds": made.seconds}


EXPERIMENTS: dict[str, Callable[[sl.LM, str, int, float], Iterator[Row]]] = {
    "readings": readings,
    "distilled": distilled,
    "mixtures": mixtures,
    "wayward": wayward,
    "report": report,
}
TASKS = {
    "readings": ["topic", "sentiment", "witness"],
    "report": ["topic", "sentiment", "witness"],
    "distilled": [DRAWN],
}
"""Of each experiment on the organism; the others are of `sentiment`."""
KEYS = ("lm", "task", "seed", "mass")


def summary(experiment: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Means with 95% bootstrap intervals over runs; shares with Wilson's."""
    by = ["task", "mass", "method"] if experiment in ("readings", "report") else ["method"]
    columns = []
    for name in rows.columns:
        values = rows[name]
        if name in (*by, *KEYS) or values.isna().all():
            continue
        if pd.api.types.is_bool_dtype(values.dropna().infer_objects()):
            columns.append(_shares(rows, by, name))
        elif pd.api.types.is_numeric_dtype(values):
            table = mean_interval(rows, by, name)
            cell = [
                f"{m:.3f} [{low:.3f}, {high:.3f}]"
                for m, low, high in zip(table["mean"], table["low"], table["high"], strict=True)
            ]
            columns.append(table[by].assign(**{name: cell}).set_index(by)[name])
    count = rows.groupby(by, sort=False).size().rename("runs")
    return pd.concat([count, *columns], axis=1).reset_index()


def _shares(rows: pd.DataFrame, by: Sequence[str], name: str) -> pd.Series:
    found = {}
    for key, group in rows.groupby(list(by), sort=False):
        known = group[name].dropna().astype(bool)
        share = binomtest(int(known.sum()), max(1, len(known))).proportion_ci(method="wilson")
        found[key] = f"{known.mean():.2f} [{share.low:.2f}, {share.high:.2f}]"
    keys = pd.MultiIndex.from_tuples(list(found), names=list(by))
    index = keys if len(by) > 1 else keys.get_level_values(0)
    return pd.Series(list(found.values()), index=index, name=name)


def aims(rows: pd.DataFrame) -> str:
    """The aim on the organism: at least .9 of the KL closed in 90% of prompts, at a surprisal
    within .3 nats of the grammar's own questions."""
    highest = sl.organism.readable_front()["nats_per_token"].quantile(0.9) + 0.3
    lines = []
    for (task, mass, method), part in rows.groupby(["task", "mass", "method"], sort=False):
        near = part["kl_closed"] >= 0.9
        met = near & (part["nats_per_token"] <= highest)
        lines.append(
            f"{task} mass {mass} {method}: {met.mean():.2f} of {len(part)} prompts close .9 of the "
            f"KL with at most {highest:.2f} nats per token, {near.mean():.2f} with any"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--lm", default="organism")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=100, help="settings were tried on 0 to 9")
    weights = "weights of -log label mass that soft prompts are trained with"
    parser.add_argument("--masses", type=float, nargs="+", default=[0.1, 0.0], help=weights)
    parser.add_argument("--store", type=Path, default=files.cache_dir() / "bench_readings")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lm = sl.load_lm(given.lm)
    run = EXPERIMENTS[given.experiment]
    store = given.store / f"{given.experiment}.csv"
    rows = pd.read_csv(store) if store.is_file() else pd.DataFrame(columns=list(KEYS))
    tasks = given.tasks or TASKS.get(given.experiment, ["sentiment"])
    if not speaks(lm) and (given.experiment == "mixtures" or not given.tasks):
        parser.error("an LM that is no organism needs --tasks, and has no mixtures of questions")
    masses = given.masses if given.experiment in ("readings", "report") else [0.1]
    done = set(rows[list(KEYS)].itertuples(index=False, name=None))
    for task in tasks:
        for mass in masses:
            for seed in range(given.first_seed, given.first_seed + given.seeds):
                key = (lm.name, task, seed, mass)
                if key in done:
                    continue
                new = [dict(zip(KEYS, key, strict=True)) | row for row in run(lm, task, seed, mass)]
                fresh = pd.DataFrame(new)
                rows = fresh if rows.empty else pd.concat([rows, fresh], ignore_index=True)
                files.write_atomic(store, rows.to_csv(index=False).encode())
    asked = rows[(rows["lm"] == lm.name) & (rows["seed"] >= given.first_seed)]
    with pd.option_context("display.width", 250, "display.max_columns", 40):
        print(summary(given.experiment, asked).to_string(index=False))
        if given.experiment == "readings" and speaks(lm):
            print(aims(asked))


if __name__ == "__main__":
    main()
