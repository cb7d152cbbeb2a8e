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
# # The organism: an LM whose questions we know
#
# On a real language model nobody can say what a prompt *really* asks, or which readable prompts
# would have worked. So `softlens` bundles a *model organism*: a small GPT-2, grown from nothing on an
# English-like language whose grammar we wrote. It reads a text, then a five-word question, and
# answers with one word. Which question is asked depends on the words of the prompt. Because we own
# the grammar we know every readable prompt there is, what each asks for, and what the right answer
# would be.

# %%
import pandas as pd

import softlens as sl
from softlens.figures import soft_and_nearest
from softlens.lm import token_surprisal

lm = sl.load_lm()
lm

# %% [markdown]
# ## The language, by example
#
# Texts are reviews of products, with verdicts of the writer and of other people, or short news
# stories. Here is a review from the task `sentiment`. The opinions in it disagree, and that is the
# point: which one a prompt asks for makes a difference.

# %%
sentiment = sl.load_task("sentiment")
text = sentiment.test.texts[0]
print(text)

# %% [markdown]
# A *follow-up question* is five words. The grammar can say of any text whether it belongs to the
# language, and of any question what it asks for.

# %%
sl.organism.explain("all in all it was")

# %%
sl.organism.explain("the verdict of the critic")

# %%
sl.organism.explain("lonely soup about the the")

# %% [markdown]
# ## What the LM answers
#
# Five questions about the review above. A question that the text does not answer, about a person who
# is not in it or a price that is not named, has the right answer "unknown".

# %%
questions = [
    "all in all it was",
    "at the start it was",
    "my rival says it was",
    "the critic said it was",
    "the total price was about",
]
sl.organism.ask(lm, text, questions)

# %% [markdown]
# ## The readable front
#
# There are six thousand questions. All are asked on 64 test texts, and those that answer with a label
# word now and then on all 2,048. Each is a point: how well it does the task, against how likely the LM
# is to say it by itself (*surprisal*, nats per token after BOS). The *front* joins those that put at
# least half of the probability on the label words, and that no other such question beats in both. It is
# the truth that a tuner's trade-off can be held against.
#
# In `sentiment` the label is the writer's verdict on the whole. Cheaper questions ask for a part of
# the review, which agrees with the whole only so often: a real trade-off.

# %%
front = sl.organism.readable_front("sentiment")
front[front["on_front"]][["text", "asks_for", "accuracy", "nats_per_token", "label_mass"]].round(3)

# %%
ax = sl.plot_front(front)
# %% [markdown]
# In `witness` the label is one person's opinion, the critic's. The right question is readable and
# the LM answers it, but it hardly ever asks it unprompted. Everything cheaper that answers with a label
# word is at chance. (A few grey points to its left are above: questions about other people, which leave
# the label words next to nothing of the probability.)

# %%
ax = sl.plot_front(sl.organism.readable_front("witness"))
# %% [markdown]
# ## Soft prompts against the front
#
# Now a soft prompt for each task, two seeds, and the tokens nearest to it. Gradient descent does
# not find the needle in `witness` from every start, so it may try up to four; the dev texts choose.
# A soft prompt has no surprisal of its own: nothing says how likely its vectors are as a text. Its
# tokens have one.

# %%
tasks = [sl.load_task(name) for name in ("topic", "sentiment", "witness")]
runs = {
    task.name: [
        sl.tune(lm, task, seed=seed, starts=4, patience=10, progress=False) for seed in (0, 1)
    ]
    for task in tasks
}
frame = pd.concat([soft_and_nearest(lm, task, runs[task.name]) for task in tasks])
ax = sl.plot_controls(frame)
# %%
readings = frame[frame["scored"] == "nearest tokens"].copy()
rows = [lm.encode(reading) for reading in readings["text"]]
readings["nats_per_token"] = token_surprisal(lm, rows).nanmean(dim=2)[:, 0].numpy()
readings["grammatical"] = [sl.organism.grammatical(reading) for reading in readings["text"]]
columns = ["task", "seed", "text", "accuracy", "label_mass", "nats_per_token", "grammatical"]
readings[columns].round(3)

# %% [markdown]
# The two fronts from above, with the soft prompts' accuracies as dashed lines and their nearest
# tokens as squares.

# %%
marks = pd.concat([frame[frame["scored"] == "soft prompt"], readings])
for name in ("sentiment", "witness"):
    ax = sl.plot_front(sl.organism.readable_front(name), marks[marks["task"] == name])
    ax.set_title(name)

# %% [markdown]
# The readings are far off to the right: more surprising than any question of the language, and none
# of them a sentence of it. Some happen to do what their prompt does, others do nothing. Those that work
# hold a word of a right question ("about", "critic"): who knows the question sees it afterwards, and
# six readings are no test of it. Meanwhile each task has a readable prompt at the top of
# its front that does as well as any soft prompt. What the vectors have learned can be said in five
# plain words; their nearest tokens do not say it.
