"""Over-optimisation: the proxy gets better and what it stands for gets worse. Where do they part?

Goodhart's law on prompts. A tuner sees the proxy; the *gauges* held against it are those it does
not see: another LM's surprisal, the worst token, repetition, label mass, transfer, and on the
organism the grammar (compare Gao, Schulman and Hilton 2022, arXiv 2210.10760, for learned rewards).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from softlens.display import Result
from softlens.errors import SoftlensError
from softlens.statistics import mean_interval
from softlens.tradeoff import hard_runs, one_lm

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Column = Callable[[pd.DataFrame], pd.Series]


def _of(column: str) -> Column:
    return lambda frame: frame[column].astype(float)


def _nats(column: str) -> Column:
    return lambda frame: frame[column].astype(float).map(np.log)


def _on_task(frame: pd.DataFrame) -> pd.Series:
    known = frame["asked_for"].notna()
    return (frame["asks_for"] == frame["asked_for"]).astype(float).where(known)


@dataclass(frozen=True)
class HeldAgainst:
    """A gauge that a proxy is held against."""

    column: str
    """The column of the table that it needs."""
    take: Column
    """How it is taken from the table."""
    high: bool
    """Whether high is good."""
    least: float
    """The smallest change that matters; less is no parting, however certain it is."""
    label: str
    """What it is called in pictures."""


SHARE, NATS = 0.05, 0.25
# fmt: off
GAUGES: dict[str, HeldAgainst] = {
    "accuracy": HeldAgainst("accuracy", _of("accuracy"), True, SHARE, "test accuracy"),
    "label_mass": HeldAgainst("label_mass", _of("label_mass"), True, SHARE, "label mass"),
    "judge_nats": HeldAgainst("judge_perplexity", _nats("judge_perplexity"), False, NATS,
                              "judge (nats/token)"),
    "max_surprisal": HeldAgainst("max_surprisal", _of("max_surprisal"), False, NATS,
                                 "worst token (nats)"),
    "repetition": HeldAgainst("repetition", _of("repetition"), False, SHARE, "repetition"),
    "transfer_accuracy": HeldAgainst("transfer_accuracy", _of("transfer_accuracy"), True, SHARE,
                                     "judge's accuracy"),
    "grammatical": HeldAgainst("grammatical", _of("grammatical"), True, SHARE, "grammatical"),
    "on_task": HeldAgainst("asks_for", _on_task, True, SHARE, "asks the task"),
}
# fmt: on

PROXIED: dict[str, tuple[Column, str]] = {
    "perplexity": (_of("nats_per_token"), "nats_per_token"),
    "perplexity_target": (_of("nats_per_token"), "nats_per_token"),
    "judge_perplexity": (_nats("judge_perplexity"), "judge_nats"),
    "max_surprisal": (_of("max_surprisal"), "max_surprisal"),
    "repetition": (_of("repetition"), "repetition"),
    "label_mass": (_of("label_mass"), "label_mass"),
}
"""The column in which each proxy is seen, and the gauge that it is, which is then not held out."""
PROXY, HELD_OUT, TASK = "proxy", "held out", "task"
CONTROLS = ("empty", "random", "readable")
"""Columns of the table that hold a gauge of theirs are ``<control>_<gauge>``."""


@dataclass(frozen=True, repr=False)
class Overoptimisation(Result):
    """A proxy and the held-out gauges along its weight, and where they part."""

    frame: pd.DataFrame = field(repr=False, compare=False)
    """``task, method, proxy, weight, gauge, role, better, mean, low, high, n``: means over seeds
    with bootstrap intervals."""
    parts: pd.DataFrame = field(repr=False, compare=False)
    """``task, method, proxy, gauge, best_weight, parts_at, proxy_change, gauge_change, n``: the
    first weight at which the proxy is better than at the gauge's best smaller weight, and the gauge
    worse, both beyond their 95% intervals over seeds (of fewer than six: in every seed, too) and by
    as much as matters (.05 of a share, .25 nats); NaN where they never part, and where `n`, the
    seeds that both weights have, is below 2. Of weights at which the gauge is alike the one with
    the better proxy is the best. Changes are means over seeds from the best to that weight (from
    the best to the last where they never part)."""
    controls: pd.DataFrame = field(repr=False, compare=False)
    """``task, gauge, control, value``: what the empty prompt, random prompts (their mean) and the
    best readable prompt have of the gauges that the table knows of them."""

    @property
    def untold(self) -> int:
        """How many (method, task, gauge) have fewer than two seeds: nobody can say of them."""
        return int((self.parts["n"] < 2).sum())

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        parted = int(self.parts["parts_at"].notna().sum())
        untold = f"; {self.untold} of them cannot be told (one seed)" if self.untold else ""
        return (
            f"over-optimisation: the proxy and a gauge it does not see part in {parted} of "
            f"{len(self.parts)} (method, task, gauge){untold}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """Where they part; `frame` has the curves."""
        return self.parts

    def plot(self, ax: Any = None) -> NDArray[Any]:
        """The proxy and each gauge against the weight, a row of panels a task."""
        from softlens.plots import plot_overoptimisation

        return plot_overoptimisation(self, ax)


def overoptimisation(table: Any) -> Overoptimisation:
    """Hold the proxy of each method against the gauges that it does not see, along its weight.

    Runs without a proxy are the weight 0 of every proxy. Seeds are paired: a change is the mean of
    the seeds' own changes.

    Args:
        table: a sweep, or its frame: ``task, method, proxy, weight, seed, accuracy``, the columns
            of the proxies, and of those in `GAUGES` what there is.

    Raises:
        SoftlensError: no run with a proxy whose column is known, or no two weights of it; runs of
            several LMs.
    """
    frame = one_lm(hard_runs(table, ["task", "method", "proxy", "weight", "seed", "accuracy"]))
    frame = _alike(frame)
    names = [name for name in frame["proxy"].unique() if name in PROXIED]
    curves, parts = [], []
    for proxy in names:
        of = frame[frame["proxy"].isin([proxy, "none"])]
        for (task, method), runs in of.groupby(["task", "method"], sort=False):
            if not (runs["proxy"] == proxy).any() or runs["weight"].nunique() < 2:
                continue
            named = {"task": task, "method": method, "proxy": proxy}
            seen, is_gauge = PROXIED[proxy]
            long = [_long(runs, seen(runs), proxy, PROXY, is_gauge in _HIGH)]
            for gauge, held in GAUGES.items():
                if held.column not in runs or gauge == is_gauge:
                    continue
                if (values := held.take(runs)).notna().any():
                    role = TASK if gauge == "accuracy" else HELD_OUT
                    long.append(_long(runs, values, gauge, role, held.high))
            tidy = pd.concat(long, ignore_index=True)
            means = mean_interval(tidy, ["weight", "gauge", "role", "better"], "value")
            curves.append(means.assign(**named))
            parts += [
                named
                | _part(
                    tidy, proxy, GAUGES[is_gauge].least if is_gauge in GAUGES else NATS, str(gauge)
                )
                for gauge in dict.fromkeys(tidy["gauge"])
                if gauge != proxy
            ]
    if not curves:
        raise SoftlensError(
            f"No proxy stands at two weights in this table (proxies {list(frame['proxy'].unique())}"
            f", weights {sorted(frame['weight'].dropna().unique())}): sweep one of {[*PROXIED]} "
            "over several weights, 0 among them."
        )
    columns = ["task", "method", "proxy", "weight", "gauge", "role", "better"]
    found = pd.concat(curves, ignore_index=True)[[*columns, "mean", "low", "high", "n"]]
    found = found.sort_values(["task", "method", "proxy", "gauge", "weight"], ignore_index=True)
    told = Overoptimisation(found, pd.DataFrame(parts), _controls(frame))
    if told.untold:
        log.warning(
            "%d of %d (method, task, gauge) have one seed, and no interval: whether they part "
            "cannot be told. Run at least three seeds.",
            told.untold,
            len(told.parts),
        )
    return told


def _alike(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the prompt lengths that some weight of a method lacks, which would pass for its."""
    if "length" not in frame or frame["length"].nunique() < 2:
        return frame
    kept = []
    for _, runs in frame.groupby(["task", "method"], sort=False):
        weights = runs.groupby("length")["weight"].nunique()
        whole = weights[weights == runs["weight"].nunique()].index
        if left := sorted(set(runs["length"]) - set(whole)):
            log.warning(
                "Left out: prompts of %s tokens of %s on %s, which are not there at every weight.",
                ", ".join(map(str, left)),
                runs["method"].iloc[0],
                runs["task"].iloc[0],
            )
        kept.append(runs[runs["length"].isin(whole)])
    return pd.concat(kept).sort_index()


def _controls(frame: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {"task": task, "gauge": gauge, "control": control, "value": runs[column].mean()}
        for task, runs in frame.groupby("task", sort=False)
        for gauge in GAUGES
        for control in CONTROLS
        if (column := f"{control}_{gauge}") in frame and runs[column].notna().any()
    ]
    return pd.DataFrame(rows, columns=["task", "gauge", "control", "value"])


FEW_SEEDS = 6
"""Below which even seeds that all agree are no evidence at the 5% level (two-sided sign test)."""
_HIGH = {name for name, gauge in GAUGES.items() if gauge.high}


def _long(runs: pd.DataFrame, values: pd.Series, gauge: str, role: str, high: bool) -> pd.DataFrame:
    better = "higher" if high else "lower"
    # Several runs of one seed and weight (lengths) are one repetition.
    means = values.groupby([runs["seed"], runs["weight"]]).mean().rename("value")
    return means.reset_index().assign(gauge=gauge, role=role, better=better)


def _part(tidy: pd.DataFrame, proxy: str, least: float, gauge: str) -> dict[str, object]:
    """The first weight at which the proxy is better than before, and the gauge worse."""
    wide = {name: _oriented(tidy, name) for name in (proxy, gauge)}
    weights = sorted(wide[gauge].columns)
    best, nan = weights[0], float("nan")
    last: dict[str, object] = {"gauge": gauge, "best_weight": best, "parts_at": nan}
    last |= {"proxy_change": nan, "gauge_change": nan, "n": 0}
    most = 0
    for weight in weights[1:]:
        pairs = {name: values[[best, weight]].dropna() for name, values in wide.items()}
        shared = min(map(len, pairs.values()))
        # Where seeds are missing, a weight that fewer than two share with the best decides nothing.
        if shared == 0 or shared < min(most, 2):
            continue
        changes = {}
        for name, both in pairs.items():
            change = pd.DataFrame({"name": name, "change": both[weight] - both[best]})
            (changes[name],) = mean_interval(change, ["name"], "change").to_dict("records")
        most = shared
        last = {
            "gauge": gauge,
            "best_weight": best,
            "parts_at": nan,
            "proxy_change": changes[proxy]["mean"],
            "gauge_change": changes[gauge]["mean"],
            "n": shared,
        }
        if shared < 2:
            continue
        better = changes[proxy]["low"] > 0 and changes[proxy]["mean"] >= least
        worse = changes[gauge]["high"] < 0 and changes[gauge]["mean"] <= -GAUGES[gauge].least
        if shared < FEW_SEEDS:
            # The interval of so few is narrower than it says: none of them may say otherwise.
            proxies, gauges = (pairs[n][weight] - pairs[n][best] for n in (proxy, gauge))
            better, worse = better and proxies.min() > 0, worse and gauges.max() < 0
        if better and worse:
            return last | {"parts_at": weight}
        # Of weights at which the gauge stands alike, the one with the better proxy: what is lost
        # from there on was not lost to the proxy.
        alike = changes[gauge]["mean"] == 0 and changes[proxy]["mean"] > 0
        if changes[gauge]["mean"] > 0 or alike:
            best = weight
    return last


def _oriented(tidy: pd.DataFrame, gauge: str) -> pd.DataFrame:
    """Seeds by weights, turned so that more is better."""
    rows = tidy[tidy["gauge"] == gauge]
    wide = rows.pivot(index="seed", columns="weight", values="value")
    return wide if rows["better"].iloc[0] == "higher" else -wide
