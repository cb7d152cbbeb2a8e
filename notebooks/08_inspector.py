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
# # The inspector: turn a prompt over in your hands
#
# The views of the other notebooks are pictures: they answer the question that was asked. Here you ask.
# Press a word, see what it is near to and what the answers become without it, put another one there,
# and the numbers follow at once. What can be pressed can be called, too, so that what you find can be
# written down.

# %%
import pandas as pd

import softlens as sl

lm = sl.load_lm()
task = sl.load_task("sentiment")

# %% [markdown]
# ## A question that is understood, and wrong
#
# The task is to name the writer's verdict on a review. *at the start it was* is a fine question of the
# language that the organism speaks, and still it is right on two texts out of three only.
#
# Press each word in turn, and read the row *without position ...*: which word can be left out, and
# which one makes it this question? Then press that one, and type others in its place: `end`, `middle`,
# `whole`. (Tab goes from control to control, the arrow keys from word to word.)

# %%
question = sl.inspect(lm, "at the start it was", task)
question

# %% [markdown]
# What you make of it is at hand in code: `question.prompt` is the prompt as it stands after your edits.
#
# No kernel? Then the above is the inspector's last state. This is what you would have found, in calls
# to an inspector that is not shown, above the controls (the best readable prompt, random tokens, and no
# prompt at all, which has no surprisal):

# %%
asked = sl.inspect(lm, "at the start it was", task)


def with_controls(rows, inspector):
    """Rows of numbers above those of the controls."""
    frame = pd.concat([pd.DataFrame(rows), inspector.numbers.iloc[3:]])
    columns = ["scored", "text", "accuracy", "label_mass", "nats_per_token", "changed"]
    return frame[columns].set_index("scored").round(3)


def without_each(inspector):
    """What is left when one position is dropped."""
    rows = []
    for position in range(inspector.bench.given.length):
        inspector.choose(position)
        rows.append(inspector.numbers.iloc[2])
    return with_controls(rows, inspector)


def with_words(inspector, position, words):
    """What each word does at a position."""
    rows = []
    for word in words:
        inspector.replace(position, word)
        rows.append({**inspector.numbers.iloc[0], "scored": word})
    return rows


without_each(asked)

# %% [markdown]
# Three of the five words change nothing. Without `was` the label mass is near 0: the LM is not asked
# anything any more, and the accuracy is that of the empty prompt, a coin's. `start` is in between:
# without it there is still a question, but a vaguer one. Now other words in its place:

# %%
with_controls(with_words(asked, 2, ("start", "middle", "end", "whole")), asked)

# %% [markdown]
# The frame asks, and one word says what is asked for: how it was at first, in the middle, at last, on
# the whole. Reviews change their mind, so the earlier the part, the less it says of the verdict.
#
# ## A prompt that nobody understands, and right
#
# PEZ optimises vectors and keeps the nearest tokens. What it finds answers every text rightly. What
# does it say?

# %%
run = sl.tune(lm, task, "pez", length=5, seed=2, progress=False)
print(run.text)

# %% [markdown]
# Before you read on: how many of these words are needed? Under *Training* you can follow how they came
# about, step by step.

# %%
found = sl.inspect(lm, run)
found

# %% [markdown]
# Attribution gives a guess (choose it under *colour by*): which words raise the probability of the
# right label?

# %%
found.colour("attribution")
ax = found.plot()

# %% [markdown]
# Two of them, it says: `all` and `seemed` share the effect about equally, and the other three have next
# to none. Dropping the words one by one says the same more plainly:

# %%
without_each(found)

# %% [markdown]
# Three of the words are ballast: no prediction changes without them. The last one opens the question
# (without it the label mass is gone), and **one word says what is asked for: `all`** (it helps to open the
# question, too: without it most of the label mass goes). If that is so,
# two things must follow. `all` alone must mend the readable question, and another word in its place
# must break this one in the same way:

# %%
rows = with_words(asked, 2, ["all"])
rows += with_words(found, 3, ("all", "whole", "end", "middle", "start"))
with_controls(rows, found).drop(columns="changed")

# %% [markdown]
# Both hold: `at the all it was` is no good English and right everywhere, and among the ballast the
# words `end`, `middle` and `start` ask for what they ask for in the question above. So the riddle has
# a plain reading: *(on the) whole (it) seemed*. The ballast is what makes it unreadable: the riddle
# costs the LM 10.4 nats a token, nearer to random tokens (13.2) than to the best readable prompt, which
# is as accurate at 1.4. Nothing in the objective of PEZ cares about ballast.
#
# ## Is it so?
#
# Edits are tried on dev texts, because choosing one by its accuracy is a selection. What is reported
# is asked of the test texts, and a reading is tested like any other:

# %%
asked.score_on_test().set_index("scored").round(4)

# %%
found.restore_all()
found.read("nearest")
sl.faithfulness(lm, task, run.prompt, "on the whole it seemed")

# %% [markdown]
# The readable text does what the riddle does, and everybody can check it. (On news, where nobody asks
# for a verdict, the two name different labels, and nearly the same answer as a whole: off its task, a
# prompt's KL says more than its agreement.)
#
# ## Who says it plainly?
#
# PEZ never asks how a word sounds. RLPrompt draws its words from the LM, which speaks plainly. Two short
# runs of each, one point a run: hover over a point to read its prompt, press it for its numbers and
# its training, and open it to take it apart as above.

# %%
runs = sl.sweep(
    lm,
    task,
    methods=["pez", "rlprompt"],
    seeds=range(2),
    store="runs/inspector",
    options={"pez": {"steps": 100}, "rlprompt": {"steps": 20}},
    progress=False,
)
many = sl.inspect_sweep(runs)
many.choose(int(many.frame.query("accuracy == accuracy.max()")["nats_per_token"].idxmin()))
many

# %% [markdown]
# Both runs of PEZ are right on every text and say nothing to a reader; look at them, and you meet the
# words `all` and `whole` again. One run of RLPrompt ends in `near the end it was`, which asks for a
# part, and is right on nine texts out of ten. The other found what the riddle was all along: `on the
# whole it was`.
#
# What can be pressed can be called: `found.prompt` and `many.opened.prompt` are prompts as they stand
# after your edits, `found.save("name")` writes what is seen as pictures and tables, and
# `found.static()` is the view that stays in the notebook when the kernel is gone.
