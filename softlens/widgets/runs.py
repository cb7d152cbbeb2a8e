"""A table of runs as the inspector of sweeps takes it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from softlens.errors import SoftlensError

GAUGES = {
    "nats_per_token": "surprisal (nats per token)",
    "perplexity": "perplexity",
    "judge_perplexity": "perplexity under the judge",
    "max_surprisal": "most surprising token (nats)",
    "repetition": "repetition",
    "label_mass": "label mass",
    "transfer_accuracy": "accuracy on the judge",
    "transfer_agreement": "agreement of the judge",
    "accuracy_dev": "accuracy on dev",
    "seconds": "seconds of training",
}
"""What the horizontal axis may show, where a table has it."""
NEEDED = ("method", "seed", "text", "accuracy")


def checked(table: Any) -> pd.DataFrame:
    """The finished runs, numbered from 0, with a column ``setting``: proxies and their weight.

    Raises:
        SoftlensError: what is no table of runs; an empty one, or one that lacks a column or all
            accuracies.
    """
    frame = table if isinstance(table, pd.DataFrame) else getattr(table, "frame", None)
    if not isinstance(frame, pd.DataFrame):
        raise SoftlensError(
            f"Got a {type(table).__name__}, wanted a sweep or its table, as sl.sweep returns it."
        )
    if frame.empty:
        raise SoftlensError(
            "The sweep has no finished run, so there is nothing to look at. Run it, or see its "
            ".failed for what went wrong."
        )
    if missing := [column for column in NEEDED if column not in frame]:
        raise SoftlensError(
            f"The table has no column {missing[0]!r}, wanted {NEEDED} at least, as sl.sweep makes "
            "them."
        )
    if frame["accuracy"].isna().all():
        raise SoftlensError(
            f"None of the {len(frame)} runs has an accuracy (all are NaN), by which they are "
            "drawn. Give a sweep whose runs were scored on a task, as sl.sweep scores them."
        )
    return frame.reset_index(drop=True).assign(setting=_settings)


def _settings(frame: pd.DataFrame) -> list[str]:
    """Proxies and their weight, in words."""
    if "proxy" not in frame:
        return ["no proxy"] * len(frame)
    weights = frame["weight"] if "weight" in frame else [float("nan")] * len(frame)
    return [
        "no proxy"
        if proxy in ("none", "")
        else f"{proxy} {weight:g}"
        if weight == weight
        else proxy
        for proxy, weight in zip(frame["proxy"].astype(str), weights, strict=True)
    ]
