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
# # RLPrompt: a policy that writes prompts, and what it learns to say
#
# RLPrompt ([arXiv 2205.12548](https://arxiv.org/abs/2205.12548)) needs no gradient of the LM. A
# *policy* writes prompts token by token: the frozen LM with a small adaptor on its hidden state. A
# prompt's reward is how clearly it makes the LM right on the training texts, and the policy learns
# by soft Q-learning to write what is rewarded.
#
# Interpretability enters through the reward: our reading of
# [arXiv 2504.02144](https://arxiv.org/abs/2504.02144) is the task's reward minus $\lambda$ times the
# prompt's surprisal. It must enter *before* rewards are standardised over the prompts of a step, and
# on their scale (about -180 to 200), or it does nothing.

# %%
import pandas as pd

import softlens as sl

lm = sl.load_lm()
task = sl.load_task("sentiment")

# %% [markdown]
# What every accuracy below has to be held against: no prompt, random ones, and the best prompt that a
# person would write.

# %%
sl.controls(lm, task, length=5)

# %% [markdown]
# ## Two beginnings
#
# The published policy begins at random. It may also begin *as the LM*: the adaptor then starts out
# adding nothing, and the first prompts are what the LM itself would say. That alone is a prior for
# fluency, before any weight is set.

# %%
runs = {
    start: sl.tune(lm, task, method="rlprompt", start=start, steps=90, seed=0, progress=False)
    for start in ("random", "lm")
}
pd.DataFrame(
    [
        {
            "start": start,
            "text": run.text,
            "asks_for": sl.organism.asks_for(run.text),
            **{key: run.metrics[key] for key in ("accuracy", "nats_per_token", "label_mass")},
        }
        for start, run in runs.items()
    ]
).round(3)

# %% [markdown]
# A policy that begins at random tries words; its entropy falls, rises again, and is far from zero at the
# end: ninety steps are a small part of the 12,000 that were published.

# %%
ax = runs["random"].plot()
# %% [markdown]
# One that begins as the LM says sentences from the first step, and soon settles. Here it settles on a
# good one that is not the best: a question about the review's *last* sentence, which agrees with
# the verdict in nine of ten reviews.

# %%
ax = runs["lm"].plot()
# %% [markdown]
# ## Turning the weight up
#
# Three weights for each beginning, two seeds, and few steps. `sl.sweep` runs what is not in its folder
# yet, and measures each prompt. Points are seeds and the line is their mean; with two seeds the bar
# is no more than their range.

# %%
tables = {
    start: sl.sweep(
        lm,
        task,
        "rlprompt",
        [{"perplexity": weight} for weight in (0, 0.3, 1)],
        seeds=range(2),
        store="runs/rlprompt",
        options={"rlprompt": {"steps": 50, "start": start}},
        progress=False,
    )
    for start in ("random", "lm")
}
# %%
axes = tables["random"].plot(kind="weights")
# %%
axes = tables["lm"].plot(kind="weights")
# %% [markdown]
# ## The prompts that appear

# %%
frame = pd.concat([table.frame.assign(start=start) for start, table in tables.items()])
columns = ["accuracy", "nats_per_token", "label_mass", "grammatical", "asks_for"]
frame[["start", "weight", "seed", "text", *columns]].round(3)

# %% [markdown]
# Three things can be read off.
#
# - From a random start the prompts are no sentences at any weight. Two of them do the task without
#   fault and with nearly all of the LM's probability on the label words; that they ask for the
#   verdict, their words hardly tell.
# - There the weight does, in the mean of the two seeds, what the paper describes: the surprisal goes
#   down, and so does the accuracy. At the largest weight the prompts are still no sentences, and ask nothing.
# - From the LM's start the weight has nothing left to do. All prompts are sentences that ask for
#   something close to the task. What made them readable is where the search began.
#
# ## Against the truth
#
# One seed stays at the question about the last sentence, whatever the weight. The front shows what
# kind of loss that is: a better question costs two tenths of a nat per token, and the policy no longer
# tries it. Not a price of being readable, but of the search.

# %%
marks = frame.assign(scored="rlprompt " + frame["start"])
ax = sl.plot_front(sl.organism.readable_front("sentiment"), marks)
