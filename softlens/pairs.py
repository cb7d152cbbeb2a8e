"""Methods held against each other in pairs, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from softlens.errors import SoftlensError
from softlens.statistics import columns_of, holm, mean_interval, sign_flip, table_of
from softlens.tradeoff import GAIN, one_lm

PLACE = ("proxy", "weight", "length")
"""What, beside its method and seed, tells one run of a sweep from another."""


def compare_methods(
    table: Any, value: str = GAIN, by: Sequence[str] = ("task",), variant: str = "method"
) -> pd.DataFrame:
    """Methods held against each other in pairs, seed by seed.

    Two methods are compared on what both ran (the same seed, proxy, weight and length), which is
    averaged within a seed. The test flips the signs of the seeds' differences, all ways that there
    are (an exact permutation test); few seeds cannot give a small p, and `least_p` says how small.

    Args:
        table: a sweep, or its frame.
        value: the column compared.
        by: columns that make the groups.
        variant: the column whose values are compared.

    Returns:
        ``*by, one, other, difference, low, high, n, p, p_holm, least_p``: one minus other, its
        bootstrap interval over `n` seeds, and p adjusted for all pairs (Holm 1979).

    Raises:
        SoftlensError: fewer than two methods, pairs with fewer than two seeds in common, or several
            LMs that neither `by` nor `variant` keeps apart.
    """
    by = columns_of(by)
    # Proxies are compared at whatever weights they have, and weights of whatever proxy.
    loose = {"proxy", "weight"} if variant in {"proxy", "weight"} else {variant}
    place = [*PLACE, "method"] if variant in PLACE else PLACE
    known = table_of(table, ["seed"])
    alike = ["seed", *(c for c in place if c in known and c not in loose)]
    frame = one_lm(table_of(table, [*by, variant, value, "seed"]), [*by, variant])
    frame = frame.assign(**{value: frame[value].astype(float)})
    rows, differences = [], []
    for key, group in frame.groupby(by, sort=False, dropna=False):
        named = dict(zip(by, key, strict=True))
        means = group.groupby([variant, *alike], dropna=False)[value].mean()
        for one, other in combinations(dict.fromkeys(group[variant]), 2):
            both = pd.concat([means[one], means[other]], axis=1, join="inner", keys=["a", "b"])
            by_seed = (both["a"] - both["b"]).groupby("seed").mean().dropna()
            if len(by_seed) < 2:
                raise SoftlensError(
                    f"{one!r} and {other!r} share {len(by_seed)} seeds at the same weights "
                    f"({named}), wanted at least 2: run more seeds, or leave one of them out."
                )
            rows.append(named | {"one": one, "other": other, "p": sign_flip(by_seed)})
            pair = {"difference": by_seed.to_numpy(), "pair": len(rows) - 1}
            differences.append(pd.DataFrame(pair))
    if not rows:
        raise SoftlensError(
            f"Got one {variant} in each group, wanted at least two to compare: "
            f"{list(frame[variant].unique())}."
        )
    found = mean_interval(pd.concat(differences), ["pair"], "difference").drop(columns="pair")
    found = pd.concat([pd.DataFrame(rows), found.rename(columns={"mean": "difference"})], axis=1)
    found["p_holm"] = holm(found["p"].to_numpy())
    found["least_p"] = 2.0 ** (1 - found["n"])
    columns = ["one", "other", "difference", "low", "high", "n", "p", "p_holm", "least_p"]
    return found[[*by, *columns]]
