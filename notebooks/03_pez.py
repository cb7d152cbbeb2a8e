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
# # PEZ: a prompt of real tokens, and what happens when it is asked to be fluent
#
# PEZ ("Hard Prompts Made Easy", [arXiv 2302.03668](https://arxiv.org/abs/2302.03668)) trains
# continuous vectors, but the LM never sees them: at each step they are projected onto the nearest
# tokens, the gradient is taken *there*, and applied to the continuous copy. What comes out is a
# prompt that can be written down.
#
# Written down is not yet readable. "Towards Interpretable Soft Prompts"
# ([arXiv 2504.02144](https://arxiv.org/abs/2504.02144)) adds a term for interpretability to such
# tuners. Our reading of it: the task's loss plus $\lambda$ times the prompt's surprisal, in nats per
# token. This notebook turns $\lambda$ up on the organism, where it is known which prompts are right.

# %%
import pandas as pd

import softlens as sl

pd.set_option("display.max_colwidth", None)
lm = sl.load_lm()
task = sl.load_task("sentiment")

# %% [markdown]
# What every accuracy below has to be held against: no prompt, random ones, and the best prompt that a
# person would write.

# %%
sl.controls(lm, task, length=5)

# %% [markdown]
# ## Without a term for interpretability
#
# One run, and its history. *Tokens changed* counts from the random start.

# %%
run = sl.tune(lm, task, method="pez", seed=0, progress=False)
run

# %%
ax = run.plot()
# %% [markdown]
# The prompt does the task. It is no sentence. It shares words with a right question ("all in all it
# seemed"), and who does not know the question would hardly find it in there:

# %%
sl.organism.explain(run.text)

# %% [markdown]
# ## Proxies
#
# A *proxy* stands in for interpretability in the objective. There are several, each with a source
# and with a known way to fail. PEZ follows gradients, so it can use those that have one.

# %%
sl.proxies()[["proxy", "what", "unit", "better", "gradient", "fails"]]

# %% [markdown]
# ## Turning the weight up
#
# `perplexity` is the published term: the gradient reaches a token only as *context* of the tokens
# after it. `perplexity_target` has the same value, but its gradient also knows that the token itself
# is being predicted. No weight and three others, two seeds each, and fewer steps than by default.
# `sl.sweep` runs what is not in its folder yet, and measures each prompt. Points are seeds and the
# line is their mean; with two seeds the bar is no more than their range.

# %%
table = sl.sweep(
    lm,
    task,
    "pez",
    [{}, *({proxy: w} for proxy in ("perplexity", "perplexity_target") for w in (0.1, 0.3, 1))],
    seeds=range(2),
    store="runs/pez",
    options={"pez": {"steps": 150}},
    progress=False,
)
# %%
axes = table.filter(proxy=["none", "perplexity"]).plot(kind="weights")
# %%
axes = table.filter(proxy=["none", "perplexity_target"]).plot(kind="weights")
# %% [markdown]
# The history of a run says what each term did. Here, at a weight of 1, the gradient of the proxy is
# ten times that of the task or more for most of the run (the lowest panel, on a logarithmic scale):
# the task hardly has a say, its loss stays where it was, and the accuracy on dev stays near chance.

# %%
strong = table.filter(proxy="perplexity_target", weight=1.0, seed=0)
axes = table.run(strong.frame["cell"][0]).plot()
# %% [markdown]
# ## The prompts that appear
#
# With their gauges: is it a sentence of the language, what does it ask for, how much of the LM's
# probability is on the label words at all?

# %%
columns = ["accuracy", "nats_per_token", "label_mass", "grammatical", "asks_for"]
ordered = table.frame.sort_values(["proxy", "weight", "seed"])
ordered[["proxy", "weight", "seed", "text", *columns]].round(3)

# %% [markdown]
# `perplexity` lowers the surprisal, not to that of any sentence, and the task pays for it.
# `perplexity_target` works much better as a proxy, and that is the trouble: from a weight of .3 on
# the prompts are flawless sentences of the language that ask something else. The proxy is satisfied,
# the label mass is gone, and so is the accuracy. Who looks at the surprisal alone sees a success. Being
# fluent is not being about the task. (Two seeds show the direction; how much is lost they do not.)

# %% [markdown]
# ## Against the truth
#
# The readable front is what *could* be had: every question of the language, by its surprisal and its
# accuracy. The distance between the runs and the front is no price of being readable. It is what
# the optimiser did not find.

# %%
marks = table.frame.assign(scored="pez " + table.frame["proxy"])
ax = sl.plot_front(sl.organism.readable_front("sentiment"), marks)
