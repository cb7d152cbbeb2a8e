"""What is drawn from the finished runs on a real LM."""

from __future__ import annotations

import pandas as pd

from softlens import files, plots
from softlens.errors import SoftlensError
from softlens.figures.base import Drawn, Ground, LeftOutError, figure
from softlens.sweeps import Sweep, load_sweep

MAKE = "`make figures-real` runs what is missing"


def real_runs(ground: Ground) -> Sweep | None:
    """The store of finished runs on a real LM; None where there is none, or nothing in it."""
    folder = ground.store or files.data_dir() / "real_runs"
    try:
        found = load_sweep(folder)
    except SoftlensError:
        return None
    return found if len(found.frame) else None


def missing_from(found: Sweep | None) -> str:
    """A sentence that says what the store lacks; nothing where it is complete."""
    if found is None:
        return f"There are no finished runs on a real LM: {MAKE}."
    left = found.missing()
    if left.empty:
        return ""
    counts = left.groupby(["task", "method"], sort=False).size().reset_index(name="n")
    says = ", ".join(f"{r['task']} {r['method']} {r['n']}" for r in counts.to_dict("records"))
    return f"Not yet run on {found.frame['lm'].iloc[0]}: {says} ({MAKE})."


@figure(13, "The trade-off on a real LM and real texts")
def tradeoff_real(ground: Ground) -> Drawn:
    """Accuracy against surprisal of the runs that the store holds."""
    found = real_runs(ground)
    if found is None:
        raise LeftOutError(missing_from(None).rstrip("."))
    frame = found.frame
    if not (frame["scored"] != "soft").any():
        raise LeftOutError(f"the store has soft prompts only: {MAKE}")
    axes = plots.plot_tradeoff(frame)
    first = axes if not hasattr(axes, "ravel") else axes.ravel()[0]
    runs = frame.groupby(["task", "method"], sort=False)["seed"].agg(["size", "nunique"])
    has = "; ".join(f"{t} {m}: {int(n)} runs of {int(s)} seeds" for (t, m), (n, s) in
                    zip(runs.index, runs.to_numpy(), strict=True))  # fmt: skip
    texts = ", ".join(str(name) for name in pd.unique(frame["lm"]))
    caption = (
        "Test accuracy against surprisal (nats per token) of every finished run; larger points "
        "have more weight on the perplexity proxy. Coloured steps: what a method reaches at each "
        "surprisal, chosen on dev, the mean over seeds with 95% bootstrap bands. The dotted black "
        "line is the pooled bound, the best of all methods and seeds chosen on dev: nobody knows "
        "the true front here, which lies on or above it. Thin lines: the best readable prompt, "
        "random prompts (mean of five) and no prompt. The dashed blue line is the mean of the soft "
        f"prompts. LM: {texts}; all of the tasks' test texts. {has}. {missing_from(found)}"
    )
    return Drawn(first.figure, frame, caption)
