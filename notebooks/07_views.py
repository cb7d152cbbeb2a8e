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
# # Three views of a prompt: what it is near, how unexpected it is, what it works through
#
# A soft prompt is a handful of vectors. Three questions can be asked of it without any training:
#
# * **decode**: which tokens are its vectors nearest to?
# * **surprise**: how unexpected is that text, to the LM and beside what people write?
# * **attribute**: which of its positions carry the answer?
#
# Each has an easy answer that misleads. This notebook gives the answer, and then what to hold
# against it. It runs on the organism, a small LM of a language that we made, so that we know what a
# right answer looks like.

# %%
import pandas as pd

import softlens as sl

lm = sl.load_lm()
judge = sl.load_lm("organism-judge")
task = sl.load_task("sentiment")
readable = "all in all it was"

# %% [markdown]
# `readable` is a question of the language: it asks for the writer's verdict. Beside it stands a soft
# prompt of the same length.

# %%
run = sl.tune(lm, task, length=5, steps=150, seed=0, keep_vectors=1, progress=False)
run

# %% [markdown]
# ## Decode
#
# The oldest reading of a soft prompt: for each vector, the nearest token. The picture shows the
# three nearest by cosine. *From* is the token that a position started from in training.

# %%
nearest = sl.nearest_tokens(lm, run.prompt, k=3, chance=200, track=["verdict"])
ax = nearest.plot()
# %% [markdown]
# Every vector has *some* nearest token. The question is whether it is nearer than it would be by
# accident. `chance=200` compares each position with 200 random vectors of its norm: `p_value` is the
# share of them that come as near to their own nearest token.

# %%
nearest.chance.round(3)

# %% [markdown]
# Only the position that kept its starting token is nearer to a token than noise is. For the others,
# the nearest token is what noise would have had, too. (`nearest.margins` has the gap to the second
# nearest, `nearest.tracked` the rank of a token you have in mind.)
#
# If there is no clear answer, the choice of the metric decides. `centred_cosine` first subtracts what
# all tokens have in common, `whitened_cosine` whatever dominates the embedding:

# %%
by_metric = sl.nearest_by_metric(lm, run.prompt)
ax = by_metric.plot()
# %% [markdown]
# On dark columns the metrics agree, pale ones are in the eye of the metric. Here the one dark column is
# the token that training left where it began. Over the training, the nearest
# token is no steady thing either; this is the path of each position:

# %%
ax = sl.nearest_path(lm, run).plot()
# %% [markdown]
# Because the run kept its vectors (`keep_vectors=1` above, at every step), the same way can be told by
# another metric:

# %%
ax = sl.nearest_path(lm, run, metric="whitened_cosine").plot()
# %% [markdown]
# Whitened, the way is calmer and two of its five ends are other words. What a training went through
# depends on how one looks at it, too.
#
# ### Through the LM: the logit lens
#
# Distance in the embedding says nothing about what the LM makes of a vector. The logit lens puts the
# hidden state of each layer through the LM's head: what would be predicted next, if this layer were
# the last? First the readable prompt, as a picture, then the soft one, as a table.

# %%
ax = sl.logit_lens(lm, readable, task).plot()
# %%
sl.logit_lens(lm, run.prompt, task)

# %% [markdown]
# Row *embedding* is what the head makes of what comes in. Of the readable prompt it echoes the tokens
# themselves, as head and embedding are one matrix; of the soft one it does so only where the position
# kept its starting token, and elsewhere it names another word than the nearest. In the top row, the
# readable prompt is a sentence that unfolds, each word predicting the next. The soft prompt arrives
# at the same answer, but what its positions predict on the way is no sentence.

# %% [markdown]
# ## Surprise
#
# Surprisal is $-\log p$ of each token given what stands before, in nats. Perplexity is $e$ to the mean
# surprisal, per token of this LM. The number depends on the context, so the result names it: here
# after BOS, with a second column after real texts, where the prompt will stand. (On LMs whose first
# position is an attention sink, SmolLM2 for one, the first token after BOS alone is noise. There a
# full stop is put before, and the view says so.)

# %%
fluent = sl.surprisal(lm, readable, task, judge=judge)
fluent
# %%
ax = fluent.plot()
# %% [markdown]
# The dashed line is the prompt's mean, the green band where the means of the language's questions
# lie. On another LM it would be those of the openings of the task's own texts. A prompt above the
# band is less likely than what people write; one *below* it, as here, is a set phrase: once it has
# begun, nothing in it is a surprise.
#
# A soft prompt has no tokens, so there are two numbers, and neither is "its surprisal":
# `surprisal_nats` is that of its nearest tokens, and `entropy_nats` is how unsure the LM is of what
# comes next after each of the vectors themselves.

# %%
sl.surprisal(lm, run.prompt, task, context="text")

# %% [markdown]
# As a text, the nearest tokens are more surprising than any question of the grammar, by more than ten
# nats a token. The vectors themselves leave the LM quite sure of its answer: the entropy after the
# last one is small. One more reason not to take the one for the other.

# %% [markdown]
# ## Attribute
#
# Which positions carry the answer? `attribute` shares out what the prompt adds to the log-probability
# of the right label word. By default it computes Shapley values: the mean contribution of a position
# over all orders in which positions could be added. Up to 12 positions they are exact, because the
# coalitions are branches of one tree behind texts that the LM has already read.

# %%
shapley = sl.attribute(lm, task, readable)
shapley
# %%
ax = shapley.plot()
# %% [markdown]
# Bars are means over texts, with their 95% intervals. The same as boxes in reading order:

# %%
ax = shapley.plot(kind="tokens")
# %% [markdown]
# Now leave-one-out, the method that everybody writes first: remove one word, and see what is lost.

# %%
ax = sl.attribute(lm, task, readable, "leave_one_out").plot()
# %% [markdown]
# It credits the last word alone. That is not wrong, it is the answer to another question: each of the
# first words can be spared *if all the others are there*, so each of them alone looks useless. Taken
# together they are what makes the question. Shapley values see that, as they also ask what a word
# adds when others are missing.
#
# ### What does absent mean?
#
# A word can be removed; a vector can also be replaced, by the mean of the embedding or by random rows.
# These are different questions, too, and the result always says which was asked.

# %%
pd.DataFrame(
    {
        absent: sl.attribute(lm, task, readable, absent=absent).frame["attribution"]
        for absent in ("removed", "mean_embedding", "random_row")
    }
).set_axis(readable.split()).round(3)

# %% [markdown]
# The last word carries half of the answer if it may be removed, and seems to do harm if the mean
# embedding may stand in its place. An attribution that does not say what *absent* meant says little.
#
# ### A soft prompt
#
# Attribution needs no tokens: it works on vectors as they are. The names below the bars are the
# nearest tokens, and they only say which position is meant.

# %%
ax = sl.attribute(lm, task, run.prompt).plot()
# %% [markdown]
# Above twelve positions the coalitions are too many, so orders are sampled in pairs (an order and its
# reverse), and `sampling_error` says how far that may move each number. (On a large LM, sampling sets
# in where all coalitions would take more than about two seconds. The result always says which it was.)

# %%
sl.attribute(lm, task, f"{readable} near the end it was at first it was", texts=8, samples=32)

# %% [markdown]
# ### The words of the text
#
# A prompt is a question, and the answer stands in the text. `of="text"` keeps the prompt whole and lets
# the words of each text come and go. Two reviews, first under `readable`, which asks for the verdict as
# a whole:

# %%
places = [0, 2]
sl.attribute(lm, task, readable, "leave_one_out", of="text", texts=places)

# %% [markdown]
# ... and the same two under a prompt that asks about the end:

# %%
sl.attribute(lm, task, "near the end it was", "leave_one_out", of="text", texts=places)

# %% [markdown]
# The same reviews, and other words. The first prompt reads the writer's own verdict ("i admired it"),
# the second the adjective of the last aspect, and the word *finally*, which says that it is the last.
# Each reads what it says it asks about. A soft prompt says nothing, and this is a way to find out.
#
# Five methods of attribution, five pictures: *13_attribution* asks which of them to believe, what a
# soft prompt reads in a text, and why two good methods differ.
#
# One thing no attribution says: *why* a position matters. For that a prompt has to be read, and the
# reading tested.
