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
# # Which attribution to believe, and why they differ
#
# `attribute` has five methods, and they do not agree. On the organism we can look closer, because we
# know what its prompts ask for: first at what prompts read in a text, then at which method is to be
# believed about a prompt, and at last at why two good ones differ.

# %%
import softlens as sl

lm = sl.load_lm()
task = sl.load_task("sentiment")
readable = "all in all it was"
run = sl.tune(lm, task, "soft", length=5, steps=150, seed=0, progress=False)
run

# %% [markdown]
# ## What does a prompt read in a text?
#
# `of="text"` keeps the prompt whole and lets the words of each text come and go. Here is a review under
# a prompt that asks for the verdict as a whole, by Shapley values, as there may be several words that
# can stand in for each other:

# %%
ax = sl.attribute(lm, task, readable, of="text", texts=[0], samples=64).plot()
# %% [markdown]
# *Admired* is the writer's verdict. But the jeweller's *hated* counts nearly as much, against the right
# answer: in the coalitions where the verdict is missing, any opinion is taken for it. Leave-one-out
# (notebook 07) does not see that, as it never removes both.
#
# Over several texts, the words with the largest means are drawn as bars (with 95% intervals over the
# places where a word stands, none for a single place). First the prompt that asks about the end, then
# the soft prompt, which says nothing about what it asks:

# %%
end = sl.attribute(lm, task, "near the end it was", "leave_one_out", of="text", texts=12)
ax = end.plot(kind="words")
# %%
soft = sl.attribute(lm, task, run.prompt, "leave_one_out", of="text", texts=12)
ax = soft.plot(kind="words")
# %% [markdown]
# Under the prompt that asks about the end, adjectives carry the answer, and *finally*, which stands in
# every text and helps or harms: where the last aspect contradicts the verdict (*excellent*, in a review
# that is terrible by its verdict), reading the end is what makes the answer wrong.
#
# The soft prompt reads verbs of opinion, and the persons who hold them (*stranger*: without that word,
# "the mocked it" looks like the writer's own). Adjectives do nothing. So it asks about the verdict, as
# `readable` does above, and we know it without reading one of its vectors. The intervals are wide, as
# the same verb is the writer's in one review and a stranger's in the next.

# %% [markdown]
# ## Which attribution to believe?
#
# Now to the positions of prompts. `compare_attributions` asks all methods the same question (same texts,
# same target, same meaning of absent) and judges them in five ways:
#
# * *comprehensiveness*: how much is lost without the positions it ranks highest;
# * *sufficiency*: how much is lost if only those are kept;
# * *rank correlation* with exact Shapley values;
# * *planted positions*: in prompts of random tokens one vector is trained to do the task, whatever
#   stands around it. Is it found?
# * *shuffled weights*: on an LM whose weights were shuffled, a method should say something else. If it
#   does not, it describes the input, not the LM.
#
# The last row is a random order, which is what a method has to beat.

# %%
prompts = [readable, "in the middle it was", "near the end it was", run.prompt]
comparison = sl.compare_attributions(lm, task, prompts, texts=16, planted=3, progress=False)
comparison
# %%
axes = comparison.plot()
# %% [markdown]
# Gradient x input and attention rollout are no better than a random order here, and they do not find the
# position that was planted. The other three find it every time, in three plants, and lose less when only
# what they rank highest is kept. Integrated gradients have one mark against them: on shuffled weights,
# too, they rank the positions much as before. Between them, Shapley values and integrated gradients lose
# more when what they rank highest is removed. Leave-one-out is the cheapest, and blind to words that
# stand in for each other; integrated gradients cost more than ten times as much and need a fine path
# (the view shows the gap that a coarse one leaves). Four prompts are few: before you believe a method on
# your own task, run this cell there.
#
# ## Why two good methods differ
#
# Shapley values and integrated gradients share out the *same* difference: what the target is with the
# prompt, less what it is with the mean embedding in every position. They only take different ways from
# the one to the other, and `fade_in` follows both. On the left all vectors are faded in at once; on
# the right each position is there or not, with the probability on the axis.

# %%
faded = sl.fade_in(lm, task, run.prompt)
axes = faded.plot()
# %% [markdown]
# The thick line is what the target has gained, the thin ones are the positions' parts in it. On the
# left, everything happens in the first half of the way, and it begins with a loss: with vectors that are
# faintly faded in, the LM answers worse than with none at all. It has never met such vectors, and what
# happens there is what integrated gradients share out: what they hold against *to* is lost in the first
# eighth of the way, and only partly regained. In the second half, where the prompt looks like itself,
# the curve is flat and the gradient says nothing. On the right, *pottery* and *to* help the more, the
# more of the others are there. The two end with different numbers for *to*, negative on the left and
# positive on the right. They differ by their path and not by their arithmetic, and of the two questions
# ("what bends the curve as the vectors grow?" and "what is missed when it is gone?") it is the second
# that one mostly has in mind.
