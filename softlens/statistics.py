"""Statistics of many runs: tables in, tables out. Plots draw what these return."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, permutation_test

from softlens.errors import SoftlensError


def table_of(table: Any, needed: Sequence[str]) -> pd.DataFrame:
    """The table of a sweep, or a table itself, if it has rows and the columns needed.

    Raises:
        SoftlensError: it is no table, has no rows, or lacks a column (says which).
    """
    frame = getattr(table, "frame", table)
    if not isinstance(frame, pd.DataFrame):
        raise SoftlensError(
            f"Got a {type(table).__name__}, wanted a sweep or a table with a row a run: "
            "sl.load_sweep(store), or a pandas DataFrame."
        )
    if frame.empty:
        raise SoftlensError(
            "Got a table without rows, wanted at least one run. Is a filter too narrow, or the "
            "sweep not yet run?"
        )
    if absent := [column for column in needed if column not in frame.columns]:
        raise SoftlensError(f"Got a table without {absent}; it has {list(frame.columns)}.")
    return frame


def columns_of(by: Sequence[str] | str) -> list[str]:
    """The columns that make groups, as a list: one may be given by its name alone.

    Raises:
        SoftlensError: there is none.
    """
    names = [by] if isinstance(by, str) else list(by)
    if not names:
        raise SoftlensError("Got by=[], wanted at least one column to group by: by=['task'].")
    return names


def mean_interval(
    frame: pd.DataFrame, by: Sequence[str], value: str, confidence: float = 0.95
) -> pd.DataFrame:
    """Mean of `value` in each group, with a bootstrap interval (BCa) over its rows.

    Args:
        frame: one row a run.
        by: columns that make the groups; their order of appearance is kept.
        value: the column to average.
        confidence: of the interval, in (0, 1).

    Returns:
        ``*by, mean, low, high, n``. `low` and `high` are NaN where a group has one row, and equal
        to the mean where its rows are all alike.

    Raises:
        SoftlensError: for a column that is not there, or none at all.
    """
    by = columns_of(by)
    absent = [column for column in (*by, value) if column not in frame.columns]
    if absent:
        raise SoftlensError(f"No column {absent[0]!r}; the table has {list(frame.columns)}.")
    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        values = group[value].dropna().to_numpy(dtype=float)
        low, high = _interval(values, confidence)
        mean = values.mean() if len(values) else float("nan")
        rows.append((*key, mean, low, high, len(values)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])


def undominated(
    gain: Sequence[float] | np.ndarray, cost: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Which points no other equals or beats in both: more gain, less cost."""
    gain, cost = np.asarray(gain), np.asarray(cost)
    best, found = -np.inf, np.zeros(len(gain), dtype=bool)
    for i in np.lexsort((-gain, cost)):
        if gain[i] > best:
            best, found[i] = gain[i], True
    return found


LEAST_TEXTS = 20
"""Texts below which a bootstrap interval over them is not worth its name."""


class Resamples:
    """Bootstrap over texts, the same resamples for all that is measured on them (paired).

    Percentile intervals (Efron 1979). How often each text is drawn is kept, not which, so that the
    means of a resample are one product of matrices.

    Args:
        texts: how many texts.
        what: whose texts they are, for the error.
        resamples: how many times they are drawn anew.
        confidence: of the intervals, in (0, 1).
        seed: of the draws.

    Raises:
        SoftlensError: fewer texts than `LEAST_TEXTS`.
    """

    def __init__(
        self,
        texts: int,
        what: str = "the task's test split",
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        if texts < LEAST_TEXTS:
            raise SoftlensError(
                f"Got {texts} texts, and an interval over texts needs at least {LEAST_TEXTS}. "
                f"Give {what} {LEAST_TEXTS - texts} more."
            )
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(texts, np.full(texts, 1 / texts), size=resamples)
        self._shares = counts / texts
        self._ends = (0.5 - confidence / 2, 0.5 + confidence / 2)

    def mean(self, values: np.ndarray) -> tuple[float, float, float]:
        """Mean of one value a text, and its interval."""
        low, high = np.quantile(self._shares @ values, self._ends)
        return float(values.mean()), float(low), float(high)

    def closed(self, values: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
        """1 - mean of `values` / mean of `reference`, and its interval; NaN where that is 0."""
        below = self._shares @ reference
        if not (below > 0).all():
            return float("nan"), float("nan"), float("nan")
        low, high = np.quantile(1 - (self._shares @ values) / below, self._ends)
        return float(1 - values.mean() / reference.mean()), float(low), float(high)


def _interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    with warnings.catch_warnings():
        # Three seeds are few for BCa; where it degenerates, the percentile interval takes over.
        warnings.simplefilter("ignore")
        for method in ("BCa", "percentile"):
            found = bootstrap(
                (values,), np.mean, confidence_level=confidence, method=method, rng=0
            ).confidence_interval
            if np.isfinite(found.low) and np.isfinite(found.high):
                return float(found.low), float(found.high)
    return float("nan"), float("nan")


def sign_flip(differences: pd.Series) -> float:
    """Two-sided p of a mean difference: an exact permutation test over all flips of signs."""
    values = differences.to_numpy()
    if not np.any(values):
        return 1.0
    every = {"permutation_type": "samples", "n_resamples": 10_000, "rng": 0}
    return float(permutation_test((values,), np.mean, **every).pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """Each p adjusted for all of them (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(adjusted, 1.0)
    return found
