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
# # What does this prompt say, and can we trust the reading?
#
# A soft prompt is a handful of vectors. People print the tokens nearest to them and call that its
# meaning. But a *reading* is a claim, and a claim can be tested:
#
# * **faithful**: does the LM behave under the reading as under the prompt?
# * **scrutable**: could a person understand the reading, and check it?
#
# These are the two desiderata of "Towards Interpretable Soft Prompts"
# ([arXiv 2504.02144](https://arxiv.org/abs/2504.02144)). Here they get numbers, with controls and
# intervals. We work on the organism, where it is known what each sentence asks for.

# %%
import pandas as pd

import softlens as sl

lm = sl.load_lm()
task = sl.load_task("sentiment")

# %% [markdown]
# ## One prompt
#
# Trained to tell good reviews from bad ones. It is asked to put some probability on the label words
# (`mass`), as a prompt in use would be.

# %%
run = sl.tune(lm, task, mass=0.1, seed=0, progress=False)
run

# %% [markdown]
# ## Its readings
#
# First the usual one, nearest tokens:

# %%
nearest = sl.read(lm, run.prompt)
nearest

# %% [markdown]
# `matched` asks another question: which text *that the LM might say* answers as this prompt does? It
# watches the prompt on unlabelled texts, and looks for the text whose answers differ least (KL over
# the vocabulary). One search gives the whole path from fluent to faithful:

# %%
matched = sl.read(lm, run.prompt, "matched", task, evaluations=20_000, progress=False)
ax = matched.plot()

# %% [markdown]
# A surprise. The prompt was trained to find the writer's verdict, and the best short text for that
# would be "all in all it was". But this prompt does not do that. It asks how it was *near the end*,
# which in these reviews agrees with the verdict nine times in ten; and nine in ten is its accuracy.
# Its nearest tokens would not have told.
#
# Need a prompt say only *one* thing? `mixture` fits its answers by a weighted product of readable
# prompts, and held-out texts decide how many:

# %%
mixture = sl.read(lm, run.prompt, "mixture", task)
ax = mixture.plot()

# %% [markdown]
# The end, and some of the middle. Weights below one in sum: it asks softly.
#
# ## Is it faithful?
#
# On test texts that no method has seen, and on texts of another kind, where a reading that is right
# for the wrong reasons comes apart. Beside each stands a random text of the same length.

# %%
by_hand = sl.Reading.from_text(lm, "all in all it was")
found = sl.faithfulness_all(lm, task, run.prompt, [nearest, matched, mixture, by_hand])
ax = sl.plot_faithfulness(found)

# %% [markdown]
# One number is never enough. What we expected by hand ("given") closes nearly all of the KL on test
# texts, because most of that KL is about *asking the question at all*. Yet it gives another answer
# on one text in ten (and yet its accuracy is as high as that of any readable prompt):

# %%
found[-1]

# %% [markdown]
# And off those texts? Here are the numbers of the picture:


# %%
def numbers(one, scored="reading"):
    return {
        f"{measure}, {domain}": "{:.2f} [{:.2f}, {:.2f}]".format(
            *one.interval(measure, domain, scored)
        )
        for measure in ("kl_closed", "agreement")
        for domain in dict.fromkeys(one.frame["domain"])
    }


columns = {one.reading.method: numbers(one) for one in found}
pd.DataFrame(columns | {name: numbers(found[-1], name) for name in ("random", "empty")})

# %% [markdown]
# On shuffled words the order is that of the test texts: `matched` closes
# .90 of the KL, the reading by hand .86. On the texts of the *other task* it turns round: `matched`
# closes .56, the reading by hand .70. Which of the two words is said there is another matter: `matched`
# agrees on .91 of them, the reading by hand on .29, fewer than random text. (No prompt at all agrees on
# .91, too: there agreement alone shows little.) So "near the end it was" is what the prompt does to reviews,
# where it gives the same answer on .996 of them (by hand: .900), and not how surely it asks elsewhere.
# `mixture`, which asks the same question softly, closes as much as any on all three kinds of texts (1.00,
# .71 and .96). A reading is a claim about some texts: say which.

# %% [markdown]
# ## Is it scrutable?
#
# There is no single score. Each gauge says what it shows, and what it cannot:

# %%
sl.scrutability(lm, task, matched)

# %% [markdown]
# ## The criterion
#
# Our reading of the paper's criterion: a prompt is interpretable at $(\varepsilon, \delta)$ if a reading
# exists whose faithfulness gap is at most $\varepsilon$ and whose gauges are within $\delta$. Both are
# several clauses, each with its evidence and its bound ($\varepsilon$ is .1 on texts of the task, .5 on
# others); an interval passes only if its worse end does. `sl.report(lm, task, run.prompt)` does all of
# this in one call; here it takes the readings that we have:

# %%
readings = [nearest, matched, mixture, by_hand]
report = sl.report(lm, task, run.prompt, methods=[], readings=readings)
report

# %% [markdown]
# How small can $\varepsilon$ be, if we may spend so much surprisal? That is a curve, not a point. (It is of
# single texts: `mixture` is several and has no place on it.)

# %%
ax = report.plot()

# %% [markdown]
# `report.save("report.html")` writes one page that needs no network, `report.save("report.json")` the
# numbers.
#
# ## A lie
#
# Nearest tokens can be *made* to say anything
# ([prompt waywardness](https://arxiv.org/abs/2112.08348)). This prompt does the same task, and its
# nearest tokens spell a question about something else:

# %%
wayward = sl.wayward(lm, task, "this story is mainly about", steps=200, progress=False)
wayward

# %%
quick = {"matched": {"evaluations": 15_000}}
methods = ["nearest", "matched"]
lie = sl.report(lm, task, wayward.prompt, methods=methods, options=quick, progress=False)
ax = lie.plot()

# %% [markdown]
# The nearest tokens are flawless English of this language, and fail where it counts. `matched` does
# not follow them:

# %%
lie.table

# %% [markdown]
# What did the lie cost? Nothing that these texts show: the prompt is as accurate as the first one (.900),
# whose vectors could be anywhere. Beside it stand the controls:

# %%
lie.controls.round(3)

# %% [markdown]
# ## A prompt whose meaning is known
#
# Can a method of reading be wrong? Only if there is a right answer. `distil` makes a soft prompt that
# does what a known text does, and drives it away from that text's own tokens:

# %%
witness = sl.load_task("witness")
distilled = sl.distil(lm, witness, "the teacher said it was", steps=200, progress=False)
distilled

# %%
for method in ("nearest", "matched"):
    reading = sl.read(lm, distilled.prompt, method, witness, progress=False)
    display(sl.organism.explain(reading.text))

# %% [markdown]
# Nobody told `matched` about the teacher. Among the language's six thousand questions it found one of
# the few that the vectors behave like.
