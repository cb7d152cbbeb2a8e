# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Who pays for a readable prompt?
#
# Ask a tuner for prompts that people can read, and it does worse at the task: the trade-off of
# "Towards Interpretable Soft Prompts" ([arXiv 2504.02144](https://arxiv.org/abs/2504.02144)). But a
# curve that falls says only that *this tuner* lost something. Would anybody have lost it?
#
# On the organism that can be answered. Every question of its language has been scored on every task,
# so it is known what a prompt of each surprisal *could* do. The gap of a run then has two parts:
#
# * the **price of interpretability**: what the best readable prompts themselves lose at that
#   surprisal;
# * the **price of the optimiser**: the rest. Something better was there, and was not found.

# %%
import softlens as sl

lm = sl.load_lm()
task = sl.load_task("sentiment")

# %% [markdown]
# ## A sweep
#
# PEZ and RLPrompt, asked for fluency with three weights, three seeds each; shorter trainings than by
# default, so that the page is soon done. What is finished is kept in a folder: run the cell again,
# or kill it half way, and it goes on where it stopped.

# %%
short = {"pez": {"steps": 150}, "rlprompt": {"steps": 60}}
turned_up = sl.sweep(
    lm,
    task,
    methods=["pez", "rlprompt"],
    proxies=[{"perplexity": weight} for weight in (0, 0.3, 3)],
    seeds=range(3),
    store="runs/tradeoffs",
    options=short,
    progress=False,
)

# %% [markdown]
# Beside them, `tandem`, which needs no weight (interpretability enters as bounds), and soft prompts,
# which nobody can read.

# %%
free = sl.sweep(
    lm,
    task,
    methods=["tandem", "soft"],
    seeds=range(3),
    store="runs/tradeoffs",
    options={"tandem": {"evaluations": 20_000}, "soft": {"steps": 200}},
    progress=False,
)
table = turned_up.concat(free)
table

# %% [markdown]
# A long sweep wants more cores, and the call stays as it is: give it the workers of a *dask* client. On
# a laptop:
#
# ```python
# from dask.distributed import Client
#
# client = Client(n_workers=4, threads_per_worker=1)
# sl.sweep(lm, task, methods, proxies, seeds=range(5), store="runs/", client=client)
# ```
#
# On a cluster under Slurm (`pip install dask-jobqueue`; the store lies on a disk that all nodes share):
#
# ```python
# from dask.distributed import Client
# from dask_jobqueue import SLURMCluster
#
# cluster = SLURMCluster(cores=1, processes=1, memory="8GB", walltime="08:00:00")
# cluster.scale(jobs=20)
# sl.sweep(lm, task, methods, proxies, seeds=range(5), store="/shared/runs", client=Client(cluster))
# ```
#
# Each run is in the store as soon as it is finished. A job that Slurm kills costs the run it was
# at, and the same call goes on with the rest. What one run will take is measured beforehand on a few
# of its steps:

# %%
sl.estimate(lm, task, "pez", proxies={"perplexity": 0.3})

# %% [markdown]
# ## The trade-off
#
# Each point is a run, larger with more weight. A coloured step says what a method reaches if it may
# be so surprising: within each seed the run that is best *on dev*, then the mean over seeds, with
# its interval. The best seed alone would be a lottery ticket. (`sl.plot_tradeoff` takes such a table
# from anywhere.)

# %%
ax = table.plot()

# %% [markdown]
# The two tuners live in different places. PEZ never comes near fluent text. RLPrompt starts from the
# LM and is fluent from its first step; more weight moves it down the gold front, to cheaper questions
# about a part of the review.
#
# ## The gap, taken apart

# %%
split = sl.price_split(table)
ax = sl.plot_price(split)

# %%
parts = ["gap", "price_of_interpretability", "price_of_optimiser"]
split.groupby(["method", "weight"], sort=False)[parts].mean().round(3)

# %% [markdown]
# PEZ pays the optimiser alone: at its surprisals the front is at its top, so that nothing it loses is
# lost to being readable. RLPrompt at a weight of 3 is the other case: it sits on the front, and what
# it loses nobody could have had. The same word, "trade-off", for two different things.
#
# ## Is one better than the other?
#
# Paired seed by seed, at the weights that both ran. Three seeds cannot give a p below .25, and the
# table says so instead of hiding it.

# %%
sl.compare_methods(table, "accuracy").round(3)

# %% [markdown]
# One number for a whole front is the area under it, here as a share of what would be right at no
# surprisal:

# %%
from softlens.statistics import mean_interval

mean_interval(sl.hypervolume(table), ["method"], "hypervolume").round(3)

# %% [markdown]
# ## Does more weight make prompts more interpretable?
#
# The proxy sees surprisal. Held against it are the accuracy on test texts and gauges that no tuner saw. A
# star stands where the proxy still gets better and a gauge gets worse, both beyond their paired intervals
# and, as an interval of three seeds is narrower than it says, in every one of them:

# %%
found = sl.overoptimisation(table)
axes = found.plot()

# %%
found.parts.dropna(subset=["parts_at"]).round(3)

# %% [markdown]
# What parts from the proxy is what the prompts are for: the task on this LM or on the judge, or the mass
# on the label words. No gauge of readability does (the judge's surprisal, the worst token): they follow
# the proxy. So more weight makes prompts more fluent, and no more about the task. RLPrompt at the last
# weight no longer asks for the verdict in any seed (last panel); that gets no star, because one seed did
# not ask for it without a weight either.
#
# ## On a real LM
#
# There the true front is unknown. The best of all methods together takes its place, chosen on dev,
# and it is called what it is: a *bound*. The price of the optimiser is then at least what is
# measured. `sl.price_split` says in its column `reference` which of the two it used. The runs are those
# that the library carries (`make figures-real` goes on with them): SmolLM2-135M on movie reviews, and on
# telling four genres apart.

# %%
real = sl.load_sweep("../data/real_runs")
split = sl.price_split(real)
by_weight = split.groupby(["task", "method", "weight"])
controls = ["empty_accuracy", "random_accuracy", "readable_accuracy"]
measures = ["label_mass", "nats_per_token", *parts]
means = mean_interval(split, ["task", "method", "weight"], "accuracy")
means = means.set_index(["task", "method", "weight"]).join(by_weight[[*controls, *measures]].mean())
means.sort_index().round(4)

# %% [markdown]
# Two things before the prices. Most of these texts do no better than no prompt (`empty_accuracy`). In the
# mean of the seeds, on `reviews` race, RLPrompt and `tandem` do at a weight of .1, and `tandem` without
# one; on `genre` only RLPrompt up to .3 and race up to .1. And no prompt asks the question: the label mass
# is below a hundredth in every mean, so that all of it is a choice among words that the LM would hardly say.
# (Runs on `reviews` at the weights .1, 1 and 3 are mostly from another processor than the rest, which is
# another seed to race and RLPrompt.)
#
# All that PEZ loses is its optimiser's, here as there. On `reviews` the rest differs: at a weight of .1 race,
# RLPrompt and `tandem` are as near to the best as without one. From .3 on the bound itself is .08 to .33
# lower at the surprisals that they reach, and it lies below no prompt at all: more than half of each gap
# would have been saved by saying nothing. The rest *may* be a price of being so fluent, or it may be that no
# method has looked long enough: a bound says what was found. On `genre` RLPrompt and race *are* the bound.
# RLPrompt stays near the best up to .3, race falls from .1 on, and past that the bound falls as well. What
# `tandem` loses there counts as its optimiser's, for other methods found better texts no more surprising
# than its own; but its bounds forbade it most of those, and that is a price of *its* idea of readable. A
# negative price is a run that does better on the test texts than what was best on dev.
