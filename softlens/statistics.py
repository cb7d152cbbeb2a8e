"""Statistics of many runs: tables in, tables out. Plots draw what these return."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from softlens.errors import SoftlensError


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
        SoftlensError: for a column that is not there.
    """
    absent = [column for column in (*by, value) if column not in frame.columns]
    if absent:
        raise SoftlensError(f"No column {absent[0]!r}; the table has {list(frame.columns)}.")
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        values = group[value].dropna().to_numpy()
        low, high = _interval(values, confidence)
        mean = values.mean() if len(values) else float("nan")
        rows.append((*key, mean, low, high, len(values)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])


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
