"""Read soft prompts, and measure whether the reading can be trusted.

    import softlens as sl

    lm = sl.load_lm()                           # a frozen LM; "smollm2-135m", a folder, a hub id
    task = sl.load_task("reviews")              # texts, labels, label words, a template
    run = sl.tune(lm, task, length=5)           # a soft prompt, with its history and controls
    sl.tune(lm, task, "pez", proxies={"perplexity": 0.3})   # ... or tokens, asked to be fluent
    sl.evaluate(lm, task, run.prompt)           # accuracy, label mass, loss
    sl.nearest_tokens(lm, run.prompt, k=5)      # what its vectors are nearest to
    sl.surprisal(lm, run.prompt, task)          # how unexpected that is; nats per token
    sl.attribute(lm, task, run.prompt)          # which positions carry the answer
    sl.attribute(lm, task, run.prompt, of="text")   # ... and which words of the texts
    sl.compare_attributions(lm, task, run.prompt)   # which of its methods to believe
    reading = sl.read(lm, run.prompt, "matched", task)      # a text that does as the prompt does
    sl.faithfulness(lm, task, run.prompt, reading)          # does it?
    sl.scrutability(lm, task, reading)          # could a person understand and check it?
    sl.report(lm, task, run.prompt)             # all of that, and a verdict with its evidence
    sl.estimate(lm, task, "pez")                # seconds and memory, before a long run
    sl.sweep(lm, task, ["pez", "race"], [{}, {"perplexity": 0.3}], range(3), store="runs/")
    sl.transfer(reading, lm, [judge], task)     # what it does on other LMs
    sl.inspect(lm, run)                         # ... or turn it over in your hands, in a notebook
    sl.Prompt.from_peft("adapter", lm)          # a prompt trained elsewhere; prompt.to_peft
    sl.plot_tradeoff(table)                     # many runs: what being readable costs them ...
    sl.inspect_sweep(table)                     # ... as points to be opened one by one
    sl.price_split(table)                       # ... and whether it is the optimiser who pays
    sl.overoptimisation(table)                  # where a proxy and what it stands for part
    sl.oddities(table)                          # odd behaviour, by stated rules, counted

The rooms: `softlens.lm` (the frozen LM and the two primitives), `softlens.tasks` and
`softlens.prompts` (the data), `softlens.adapters` (PEFT in and out), `softlens.tuners`,
`softlens.objectives`, `softlens.proxies` and `softlens.constraints` (training),
`softlens.decode`, `softlens.neighbours`, `softlens.lens`, `softlens.surprisal`,
`softlens.people` and `softlens.attribution` (views), `softlens.evaluation`,
`softlens.controls` and `softlens.transfer` (measures),
`softlens.behaviour` and `softlens.readings` (texts proposed as what a prompt says),
`softlens.framework` (whether they can be trusted), `softlens.sweeps` (many runs, kept as they
finish), `softlens.tradeoff`, `softlens.goodhart` and `softlens.oddities` (what they say),
`softlens.plots`, `softlens.widgets`.
"""

from softlens import organism
from softlens.attribution import (
    Attribution,
    AttributionComparison,
    FadeIn,
    WordAttribution,
    attribute,
    compare_attributions,
    fade_in,
)
from softlens.catalogue import load_task
from softlens.controls import Controls, controls
from softlens.decode import NearestTokens, nearest_tokens
from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError
from softlens.evaluation import Evaluation, evaluate, evaluate_all
from softlens.framework import (
    Criterion,
    Faithfulness,
    Planted,
    Report,
    Scrutability,
    Verdict,
    distil,
    faithfulness,
    faithfulness_all,
    gauges,
    load_report,
    report,
    scrutability,
    wayward,
)
from softlens.goodhart import Overoptimisation, overoptimisation
from softlens.lens import LogitLens, logit_lens
from softlens.lm import LM, load_lm
from softlens.neighbours import (
    NearestByMetric,
    NearestPath,
    nearest_by_metric,
    nearest_path,
)
from softlens.oddities import Oddities, odd_rules, oddities
from softlens.pairs import compare_methods
from softlens.plots import (
    plot_controls,
    plot_faithfulness,
    plot_front,
    plot_price,
    plot_tradeoff,
    plot_weights,
    style,
)
from softlens.prompts import Prompt
from softlens.proxies import proxies
from softlens.readings import Reading, read, reading_methods
from softlens.runs import Run, RunConfig, load_run
from softlens.surprisal import Surprisal, surprisal
from softlens.sweeps import Estimate, Sweep, concat_sweeps, estimate, load_sweep, sweep
from softlens.tasks import Split, Task
from softlens.tradeoff import fronts, hypervolume, price_split
from softlens.transfer import Transfer, transfer
from softlens.tuners import tune
from softlens.widgets import Inspector, SweepInspector, inspect, inspect_sweep

__all__ = [
    "LM",
    "Attribution",
    "AttributionComparison",
    "Controls",
    "Criterion",
    "DamagedFileError",
    "Estimate",
    "Evaluation",
    "FadeIn",
    "Faithfulness",
    "Inspector",
    "LogitLens",
    "MissingExtraError",
    "NearestByMetric",
    "NearestPath",
    "NearestTokens",
    "Oddities",
    "Overoptimisation",
    "Planted",
    "Prompt",
    "Reading",
    "Report",
    "Run",
    "RunConfig",
    "Scrutability",
    "SoftlensError",
    "Split",
    "Surprisal",
    "Sweep",
    "SweepInspector",
    "Task",
    "Transfer",
    "Verdict",
    "WordAttribution",
    "attribute",
    "compare_attributions",
    "compare_methods",
    "concat_sweeps",
    "controls",
    "distil",
    "estimate",
    "evaluate",
    "evaluate_all",
    "fade_in",
    "faithfulness",
    "faithfulness_all",
    "fronts",
    "gauges",
    "hypervolume",
    "inspect",
    "inspect_sweep",
    "load_lm",
    "load_report",
    "load_run",
    "load_sweep",
    "load_task",
    "logit_lens",
    "nearest_by_metric",
    "nearest_path",
    "nearest_tokens",
    "odd_rules",
    "oddities",
    "organism",
    "overoptimisation",
    "plot_controls",
    "plot_faithfulness",
    "plot_front",
    "plot_price",
    "plot_tradeoff",
    "plot_weights",
    "price_split",
    "proxies",
    "read",
    "reading_methods",
    "report",
    "scrutability",
    "style",
    "surprisal",
    "sweep",
    "transfer",
    "tune",
    "wayward",
]
__version__ = "0.1.0"
