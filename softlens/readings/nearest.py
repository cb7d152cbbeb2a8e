"""Nearest tokens as a reading."""

from softlens.decode import nearest_tokens
from softlens.readings.base import Reading
from softlens.readings.registry import Asked, reader


@reader(
    needs_task=False,
    source="Lester et al. 2021 (arXiv 2104.08691), section 7; Prompt waywardness (2112.08348)",
    fails="nearness is geometry: a prompt can be made to lie near any text and do as it did",
)
def nearest(asked: Asked, *, metric: str = "cosine", k: int = 5) -> Reading:
    """The token nearest to each vector; `frame` is that of `softlens.nearest_tokens`.

    `metric` is "cosine", "l2" or "dot"; `score` the mean over positions.
    """
    found = nearest_tokens(asked.lm, asked.prompt, k=k, metric=metric)
    first = found.frame["rank"] == 1
    return asked.reading(
        found.token_ids,
        "nearest",
        score=float(found.frame["score"][first].mean()),
        score_unit=f"mean {metric}",
        frame=found.frame,
    )
