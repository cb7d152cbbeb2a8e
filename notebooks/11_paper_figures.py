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
# # The paper's figures
#
# Each figure with what it claims, what supports it, and what speaks against it. `make figures` draws
# them all, at full size, in one command, and a second call resumes; `--only NAME` draws one,
# `make figures LM=gpt2 TASK=sst2` those that need no organism on another LM. Each comes as PDF, PNG,
# CSV of what is drawn, and a caption.
#
# Where `make figures` has left its folder, the page shows what is in it. Elsewhere it makes **quick
# drawings**: one task, two seeds, few steps and texts, so that it runs in a minute. Those show what
# each figure looks like and that the whole chain works; their captions say that their numbers are not
# to be believed, and the claims here are about the full ones.

# %%
from pathlib import Path

from softlens.figures import FIGURES, Ground, show

full, quick = (
    Ground(Path("../figures")),
    Ground(Path("runs/figures"), task_names=("sentiment",), quick=True),
)
ground = full if (full.folder / "soft_vs_nearest.md").is_file() else quick
for figure in sorted(FIGURES.values(), key=lambda figure: figure.number):
    print(f"{figure.number:>2}  {figure.name:<22} {figure.title}")

# %% [markdown]
# ## 1. A soft prompt, and its nearest tokens
#
# **Claim.** What a soft prompt does and what its nearest tokens do are two things.
# **For**: the same vectors, scored twice, beside the controls, on two LMs. **Against**: nearest by cosine
# is one decoding of several (figure 7 has better ones), and now and then the tokens are right: on `topic`
# they do the task, and on `reviews` they do more than random tokens do, though less than no prompt. On
# `witness` the soft prompt itself does not find the question.

# %%
show(ground, "soft_vs_nearest")

# %% [markdown]
# ## 2, 3. The trade-off of PEZ and of RLPrompt
#
# **Claim.** More weight on fluency, less accuracy. **For**: both curves, with the controls, chosen on
# dev. **Against**: one sentence cannot hold both. PEZ stays far to the right of the gold front on
# `sentiment` and `witness` at every weight, and its accuracy goes up and down. On `topic`, where the LM
# asks the right question by itself, a small weight takes two seeds of three to the front or near it, and
# costs nothing. RLPrompt starts as fluent as the LM, and loses mostly where the front itself does.

# %%
show(ground, "tradeoff_pez")

# %%
show(ground, "tradeoff_rlprompt")

# %% [markdown]
# ## 4. The price taken apart
#
# **Claim.** Most of what PEZ loses is the price of its optimiser; what is lost on the gold front is the
# price of interpretability. RLPrompt is the other way round where it is given a weight. **For**: the
# front is exact, every question of the language was scored.
# **Against**: the front is one of *questions of the language*; prompts that are no sentences can lie
# above it, and then the optimiser's price is negative. Elsewhere there is only a bound.

# %%
show(ground, "price_apart")

# %% [markdown]
# ## 5. Odd behaviour, counted
#
# **Claim.** Accurate prompts that say something else are common. **For**: stated rules, tested on
# examples labelled by hand. **Against**: halfway between chance and the best readable prompt is a
# line that we drew, and rules see only what they were written for.

# %%
show(ground, "odd_behaviour")

# %% [markdown]
# ## 6. Over-optimisation
#
# **Claim.** Past some weight the proxy still improves, and what the prompts are for does not. **For**:
# test texts, a judge and gauges that no tuner saw, paired over seeds. **Against**: few seeds; many gauges
# are looked at, and some star may be chance. Gauges of readability alone get no star: what is lost is
# the task.

# %%
show(ground, "over_optimisation")

# %% [markdown]
# ## 7. Faithfulness of each method of reading
#
# **Claim.** Readings that watch what a prompt does are more faithful than those that look at its
# vectors. **For**: three kinds of texts, and random texts beside them. **Against**: they are given
# unlabelled texts of the task, and on texts of another task much of the lead may be gone. The search
# has a budget (a tiny one in quick drawings, and it shows).

# %%
show(ground, "reading_faithfulness")

# %% [markdown]
# ## 8, 9. Single prompts: attribution, and surprisal along the prompt
#
# **Claim.** The answer hangs on few positions, and an unreadable prompt is unexpected from its first
# token to its last. **For**: exact Shapley values; means over seeds. **Against**: figure 8 is one
# prompt of each kind, an example.

# %%
show(ground, "attribution")

# %%
show(ground, "surprisal_along")

# %% [markdown]
# ## 10. Training paths
#
# **Claim.** The terms of the objective do something: tokens change, and both gradients are alive.
# **For**: both norms are logged at every step. **Against**: a live gradient can still point the wrong
# way: this is a check, no explanation.

# %%
show(ground, "training_paths")

# %% [markdown]
# ## 11, 12. The tuner that does not pay, and what its texts do elsewhere
#
# **Claim.** `tandem` finds prompts on the readable front, and they work on LMs that never saw it.
# **For**: seeds paired, evaluations counted; a judge, and an LM with another tokenizer. **Against**:
# `race` does as well here, RLPrompt spends fewer evaluations, and three seeds cannot tell any two apart.
# The organism's language is small, and the LM says the right question now and then by itself. On a
# real LM nobody knows whether the right prompt exists at this length.

# %%
show(ground, "no_price")

# %%
show(ground, "transfer")

# %% [markdown]
# ## 13. A real LM
#
# **Claim.** The methods lie as they do on the organism, PEZ far to the right and what is drawn from the
# LM itself to the left, but no text does the task as well as soft prompts do, and most do no better than
# no prompt. **For**: another LM, pretrained, and texts that people wrote, on two tasks. **Against**: the
# front is a bound, and nobody knows the truth. Hardly any prompt, soft ones included, puts a hundredth
# of the probability on the label words: these are choices among words that the LM would not say. On
# `genre` it is not `tandem` that lies near it: its bounds on what is readable leave it below no prompt
# at all. And a weight of .1 on fluency costs little or nothing there, but for PEZ and for race on `genre`:
# what costs is more of it. The runs are those that the library carries.

# %%
show(ground, "tradeoff_real")

# %% [markdown]
# ## 14. Proxies compared
#
# **Claim.** At this weight most proxies cost accuracy, and one that optimises surprisal far better buys
# little of it back. **For**: the same weight, method and seeds; `perplexity_target` ends at a fifth of the
# nats of `perplexity`, and about as accurate. **Against**: one weight, which suits no two proxies equally;
# and on every gauge drawn the better optimised of those two is the better one. (The full figure has six
# proxies, a quick one fewer.)

# %%
show(ground, "proxies_compared")
