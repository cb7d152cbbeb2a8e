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
# # Beyond the trade-off
#
# The tuners of the two notebooks before *optimise a prompt into existence* and then ask it to be
# fluent. The more they are asked, the worse they do the task. Is that the price of being readable,
# or the price of looking for a readable prompt in this way?
#
# `tandem` goes the other way round. A readable prompt that does the task is a sentence that the LM
# might say at that place. So candidates are
#
# 1. **drawn** from the LM, each at most once (a stochastic beam,
#    [arXiv 1903.06059](https://arxiv.org/abs/1903.06059)), so that rare sentences are not drowned by
#    copies of common ones;
# 2. **raced** by successive halving ([arXiv 1502.07943](https://arxiv.org/abs/1502.07943)): a text or
#    two tells that most of them ask something else;
# 3. **repaired** word by word, with what the LM would say there;
# 4. **chosen** on the dev texts: of those that do the task equally well (within .02 nats), the one
#    that is least surprising where it stands.
#
# Interpretability enters as *bounds*, not as a weight in a sum. A large LM says much that breaks them
# once it is no longer beside the text that suggested it, so there what is drawn (at a temperature
# below one) is asked how readable it is before it is asked about the task.

# %%
import softlens as sl
from softlens.statistics import mean_interval

lm = sl.load_lm()

# %% [markdown]
# ## Three tasks, three searches
#
# The right questions are known: `topic` is asked for often, `sentiment` by a rarer question than
# those about parts of the review, `witness` by one that the LM asks about twice in ten thousand
# times: a needle. Beside `tandem` stand the two searches it is made from: `sample` draws from the LM
# and takes the best, `race` does so by successive halving. Three seeds each, and for all the same
# number of *evaluations* (a prompt on a text is one).

# %%
methods = ["sample", "race", "tandem"]
table = sl.concat_sweeps(
    [
        sl.sweep(
            lm,
            sl.load_task(name),
            methods,
            seeds=range(3),
            store="runs/beyond",
            options={method: {"evaluations": evaluations} for method in methods},
            progress=False,
        )
        for name, evaluations in {"topic": 7_000, "sentiment": 20_000, "witness": 30_000}.items()
    ]
)
runs = table.frame.assign(right=table.frame["asks_for"] == table.frame["asked_for"])
shown = ["task", "method", "seed", "text", "right", "accuracy", "nats_per_token", "evaluations"]
runs[shown].round(3)

# %% [markdown]
# The means, beside the controls. *Right* counts the seeds that end in the question that the task is
# about; an interval over three seeds is no more than their range:

# %%
by = ["task", "method"]
beside = ["label_mass", "nats_per_token", "empty_accuracy", "random_accuracy", "readable_accuracy"]
means = mean_interval(runs, by, "accuracy").set_index(by)[["mean", "low", "high"]]
groups = runs.groupby(by, sort=False)
means.join([groups["right"].sum(), groups[beside].mean()]).round(3)

# %% [markdown]
# Where the LM asks the right question by itself, looking at its samples is enough. The needle is not
# among the few hundred prompts that `sample` can afford; what it ends in answers the task without
# asking for it: see its accuracy, and its label mass. `race` finds the needle as often as `tandem`
# does. What `tandem` adds shows where several wordings do the task alike: it ends in the least
# surprising of them, and it stops before the budget is spent. Against what could be had:

# %%
axes = table.plot()

# %% [markdown]
# On these tasks nothing had to be paid: the readable question does as well as anything, and it is
# found, in every seed. What PEZ and RLPrompt lose when their proxy's weight goes up is a price of how
# they search.
#
# ## On a real LM
#
# There nobody knows the readable prompts, and the LM was never made to be asked them. One task, a few
# of its texts, one seed, and a seventh of the evaluations that `tandem` would take by itself, so that
# the page is soon done. With 100 test texts an accuracy is known to about .04.

# %%
real = sl.load_lm("smollm2-135m", dtype="auto")
found = sl.sweep(
    real,
    sl.load_task("reviews").head(train=64, dev=64, test=100),
    "tandem",
    seeds=[0],
    store="runs/beyond-real",
    options={"tandem": {"evaluations": 2_000}},
    progress=False,
)
controls = ["empty_accuracy", "random_accuracy", "readable_accuracy"]
measured = ["label_mass", "nats_per_token", "nats_after_texts", "evaluations", "seconds"]
found.frame[["text", "accuracy", *controls, *measured]].T

# %% [markdown]
# `nats_per_token` is the surprisal where nothing stands before the prompt, `nats_after_texts` that
# where it is used: behind 32 training texts, one at a time. Tandem bounds the latter (3 nats by
# default), and by .2 it must lie below the former: a prompt that belongs there is less surprising
# there.
#
# It is English, and it does as well as the best readable prompt that people wrote; what both gain over
# saying nothing is within the error of 100 texts. The label mass is near zero: this LM was not asked
# anything, it was nudged. What the organism shows is that readable prompts *can* be had for nothing
# where they exist and the budget reaches them. It does not show that they exist for every LM and task
# at this length.
