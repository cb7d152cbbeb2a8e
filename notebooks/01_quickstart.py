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
# # What does a soft prompt say?
#
# A *soft prompt* is a handful of free vectors, fed to a frozen language model in the place of word
# embeddings and trained until the model does a task. It often works well. What it *says* is another
# matter: its vectors are not words. The usual answer is to look up the words whose embeddings are
# nearest. In this notebook we train one on a real language model and real texts, read it that way,
# and then do what is usually left out: we try the reading.
#
# Everything here is small, so that the whole notebook runs in one to two minutes on two cores. The
# figure that `make figures` draws repeats it with all texts and three seeds.

# %%
import softlens as sl
from softlens.figures import soft_and_nearest

# %% [markdown]
# ## A frozen language model
#
# SmolLM2-135M is a causal language model of GPT-2's size. It is loaded once and never changed.
# On many processors it computes faster in bfloat16: `auto` tries, and takes the faster; the prompt
# and every result stay in float32.

# %%
lm = sl.load_lm("smollm2-135m", dtype="auto")
lm

# %% [markdown]
# ## A task
#
# Movie-review snippets that people rated: is this one negative or positive? The model is never told
# so. It reads a text and then the prompt, and we look at which of two *label words* it finds more
# likely as the next word. We take a few hundred of the texts; `load_task("reviews")` has them all.

# %%
task = sl.load_task("reviews").head(train=128, dev=64, test=300)
task

# %% [markdown]
# ## Before training: what must be beaten
#
# An accuracy means nothing by itself. These stand beside it: no prompt at all, prompts of random
# tokens, and the best of a dozen prompts that a person would write (chosen on the dev texts).
# *Label mass* is the probability that the model gives to the two label words together. Where it is
# near zero the model is about to say something else entirely, and accuracy only compares crumbs.

# %%
sl.controls(lm, task, length=5)

# %% [markdown]
# ## Training
#
# Five vectors start as five random words of the vocabulary and follow the gradient of the
# cross-entropy between the label words. The iterate that does best on the dev texts is kept.

# %%
run = sl.tune(lm, task, method="soft", length=5, steps=60, batch_size=16, seed=0, progress=False)
run

# %%
ax = run.plot()
# %% [markdown]
# The lowest panel is the first hint that something is odd. The prompt has learned its task, and yet
# hardly any of its vectors has come nearer to another word than the one it started from.
#
# ## Reading it
#
# For each position, the tokens whose embeddings have the highest cosine with the vector, and the
# token the position *started* from.

# %%
nearest = sl.nearest_tokens(lm, run.prompt, k=5)
ax = nearest.plot()
# %%
print(f"reads {nearest.text!r}; {nearest.unchanged:.0%} of its tokens are the random start")

# %% [markdown]
# Cosines this high look like evidence until one sees where they come from: the nearest tokens are
# the ones the random start put there. Whatever the training wrote into these vectors, it is not
# visible in which words they are near to.
#
# ## Trying the reading
#
# If the reading were faithful, the tokens would do what the vectors do. So we feed the tokens to the
# model instead, and then their text, encoded anew as if a person had typed it.

# %%
frame = soft_and_nearest(lm, task, [run])
frame[["scored", "text", "accuracy", "accuracy_calibrated", "label_mass", "loss"]].round(4)

# %%
ax = sl.plot_controls(frame)

# %% [markdown]
# The soft prompt works. Its nearest tokens say nothing a person could act on, and they do not work
# either: they do no better than random tokens, because random tokens are what they are, and worse
# than no prompt at all. That is the field's first disappointment, and the reason for this library. A
# reading is a *claim* about what a prompt does, and a claim can be tested.
#
# Two more things are worth a second look in the table. The empty prompt already does well: the model
# leans to the right word without being asked, so a soft prompt's gain is smaller than its accuracy
# suggests. And no prompt, soft ones included, gives the label words more than a thousandth of the
# probability: all of them are compared on what the model considers unlikely to come next.
#
# One seed and 300 texts are no evidence for more than this one prompt. `make figures` gives three
# seeds, two tasks, all the test texts and intervals.
