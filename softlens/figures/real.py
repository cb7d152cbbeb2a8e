"""What is drawn from the finished runs on a real LM."""

from __future__ import annotations

import pandas as pd

from softlens import files, plots
from softlens.catalogue import load_task
from softlens.errors import MissingExtraError, SoftlensError
from softlens.figures.base import Drawn, Ground, LeftOutError, figure
from softlens.figures.behaviours import where_they_part
from softlens.figures.fronts import prices
from softlens.goodhart import NATS, SHARE, overoptimisation
from softlens.oddities import oddities
from softlens.sweeps import Sweep, load_sweep
from softlens.tasks import digest
from softlens.tradeoff import price_split

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
    lm = ", ".join(str(name) for name in pd.unique(frame["lm"]))
    caption = (
        "Test accuracy against surprisal (nats per token) of every finished run; larger points "
        "have more weight on the perplexity proxy. Coloured steps: what a method reaches at each "
        "surprisal, chosen on dev, the mean over seeds with 95% bootstrap bands. The dotted black "
        "line is the pooled bound, the best of all methods and seeds chosen on dev: nobody knows "
        "the true front here, which lies on or above it. Thin lines: the best readable prompt, "
        "random prompts (mean of five) and no prompt. The dashed blue line is the mean of the soft "
        f"prompts. LM: {lm}. {scored_on(found)}. {has}. {claims(found)} {missing_from(found)}"
    )
    return Drawn(first.figure, frame, caption.rstrip())


def balanced(found: Sweep) -> Sweep:
    """The runs at the weights of which none is missing; all where every weight lacks some."""
    left = set(found.missing()["weight"])
    weights = [w for w in found.frame["weight"].drop_duplicates() if w not in left]
    return found.filter(weight=weights) if weights else found


def claims(found: Sweep) -> str:
    """The price taken apart, odd behaviours and over-optimisation, in sentences with numbers.

    A weight that some seeds lack is left out: with it, methods would be compared on other runs.
    """
    every, found = found, balanced(found)
    counts = oddities(found).counts(["method"])
    shown = counts[counts["shown"] > 0]
    odd = "; ".join(
        f"{row['method']} {row['behaviour'].replace('_', ' ')} {row['shown']} of {row['of']}"
        for row in shown.to_dict("records")
    )
    says = [
        "Price of interpretability and (at least) of the optimiser, the mean of all runs: "
        f"{prices(price_split(found))}.",
        f"Odd behaviour by the rules of figure 5: {odd or 'none'}.",
    ]
    try:
        part = where_they_part(overoptimisation(found))
        low = found.frame["label_mass"].max() < SHARE
        blind = f" (label mass, below {SHARE:g} in every run, cannot part by that)" if low else ""
        says.append(
            f"Gauges part from the proxy by at least {SHARE:g} of a share or {NATS:g} nats{blind}: "
            f"{part}."
        )
    except SoftlensError:
        says.append("No proxy has two weights yet, so nobody can say where it is over-optimised.")
    if len(found.frame) < len(every.frame):
        weights = " and ".join(f"{weight:g}" for weight in sorted(found.frame["weight"].unique()))
        says.insert(0, f"Of the weights that all seeds have been run at, {weights}:")
    return " ".join(says)


def scored_on(found: Sweep) -> str:
    """How many test texts the runs were scored on: those of the task, if it is still the same."""
    told = {cell.run.task: cell.texts for cell in found.cells.values() if cell.key in found.stores}
    sizes = []
    for name, texts in told.items():
        try:
            task = load_task(name)
        except (SoftlensError, MissingExtraError):
            continue
        if digest(task) == texts:
            sizes.append(f"{name}: {len(task.test):,}")
    return f"Test texts: {'; '.join(sizes)}" if sizes else "All of the tasks' test texts"
