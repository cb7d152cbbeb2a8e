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
# # Odd behaviour
#
# Optimise a prompt, and it does the task in ways nobody asked for. Optimise a *proxy* of
# interpretability, and it satisfies the proxy in ways nobody wanted. Both are easier to talk about
# with names, and easier to believe with counts. So each behaviour here has a rule that is written
# down, and tested on examples labelled by hand:

# %%
import pandas as pd

import softlens as sl

pd.set_option("display.max_colwidth", None)
sl.odd_rules()[["behaviour", "stated"]]

# %% [markdown]
# ## Some runs
#
# PEZ on `sentiment` with nothing, with the published proxy, and with one whose gradient reaches the
# predicted token too. RLPrompt with nothing and with much weight. Short trainings, three seeds.

# %%
lm = sl.load_lm()
task = sl.load_task("sentiment")
store = "runs/odd"
pez = sl.sweep(
    lm,
    task,
    methods="pez",
    proxies=[{}, {"perplexity": 0.3}, {"perplexity_target": 0.3}, {"perplexity_target": 1}],
    seeds=range(3),
    store=store,
    options={"pez": {"steps": 150}},
    progress=False,
)
rl = sl.sweep(
    lm,
    task,
    methods="rlprompt",
    proxies=[{}, {"perplexity": 3}],
    seeds=range(3),
    store=store,
    options={"rlprompt": {"steps": 60}},
    progress=False,
)
table = pez.concat(rl)

# %% [markdown]
# What their accuracies are to be held against, and the rules do so:

# %%
sl.controls(lm, task, length=5)

# %% [markdown]
# ## Counted
#
# Of how many prompts each rule says yes, with Wilson's interval of that share, and one of them:

# %%
odd = sl.oddities(table)
odd

# %% [markdown]
# Four of the rules find nothing here: no loop, no label word, no filler, no control token. Eighteen
# prompts cannot rule them out, as the end of their intervals says. The others, by what was asked for:

# %%
shown = odd.counts(["method", "proxy", "weight"])
shown[shown["shown"] > 0].round(2)

# %% [markdown]
# ## Does the task, and does not say so
#
# Who looks at the accuracy alone misses half of what matters about a prompt. These prompts choose the
# right label word, and who reads them would hardly know it: most are word salad, and one asks how it was
# near the end, which agrees with the verdict nine times in ten.

# %%
odd.examples("off_task_but_accurate", 6)

# %% [markdown]
# What the LM's language says about the first of them:

# %%
sl.organism.explain(odd.examples("off_task_but_accurate", 1)["text"].iloc[0])

# %% [markdown]
# ## Flawless, and about something else
#
# The better a proxy works, the more it has its way. A sentence that ignores the task is the cheapest
# fluent prompt there is:

# %%
odd.examples("task_ignored", 6)

# %% [markdown]
# ## The question that is not asked
#
# An accuracy among the label words can be anything when the LM would say none of them. The rule holds
# a prompt's label mass against that of the best readable prompt:

# %%
odd.examples("no_label_mass", 6)

# %% [markdown]
# ## By method and weight
#
# For one proxy, along its weight:

# %%
one = table.frame[table.frame["proxy"].isin(["none", "perplexity_target"])]
ax = sl.oddities(one[one["method"] == "pez"]).plot()

# %% [markdown]
# Without a proxy PEZ does the task, in two seeds of three, and says nothing that a person would; with a
# weight of 1 it says flawless sentences, two of them about a zoo and a canal, and does not do the task.
# Somewhere between the two there should have been
# a prompt that does both. It exists, and neither weight found it:

# %%
sl.evaluate(lm, task, "all in all it was")

# %% [markdown]
# A count of a few runs is a small number; each share in `odd.counts()` has Wilson's interval. And a
# rule sees what it was written for. Prompts that fool all eight of them will be found by reading,
# which is why `examples` are part of the result.
