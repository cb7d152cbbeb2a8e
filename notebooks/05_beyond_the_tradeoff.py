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
# and takes the best, `race` does so by successive halving, and once more with a small weight on its
# candidates' perplexity. Three seeds each, and for all the same number of *evaluations* (a prompt on a
# text is one).

# %%
searches = [({}, ["sample", "race", "tandem"]), ({"perplexity": 0.1}, ["race"])]
table = sl.concat_sweeps(
    [
        sl.sweep(
            lm,
            sl.load_task(name),
            methods,
            proxies,
            seeds=range(3),
            store="runs/beyond",
            options={method: {"evaluations": evaluations} for method in methods},
            progress=False,
        )
        for name, evaluations in {"topic": 7_000, "sentiment": 20_000, "witness": 30_000}.items()
        for proxies, methods in searches
    ]
)
runs = table.frame.assign(right=table.frame["asks_for"] == table.frame["asked_for"])
place = ["task", "method", "weight", "seed"]
runs[[*place, "text", "right", "accuracy", "nats_per_token", "evaluations"]].round(3)

# %% [markdown]
# The means, beside the controls. *Right* counts the seeds that end in the question that the task is
# about; an interval over three seeds is no more than their range:

# %%
by = ["task", "method", "weight"]
beside = ["label_mass", "nats_per_token", "empty_accuracy", "random_accuracy", "readable_accuracy"]
means = mean_interval(runs, by, "accuracy").set_index(by)[["mean", "low", "high"]]
groups = runs.groupby(by, sort=False)
means.join([groups["right"].sum(), groups[beside].mean()]).sort_index().round(3)

# %% [markdown]
# Where the LM asks the right question by itself, looking at its samples is enough. The needle is not
# among the few hundred prompts that `sample` can afford; what it ends in answers the task without
# asking for it: see its accuracy, and its label mass. `race` finds the needle as often as `tandem`
# does. Where several wordings do the task alike, on `topic` and `sentiment`, `tandem` ends in a less
# surprising one than the others do without a weight, in most seeds the least surprising that there is.
# But a weight of a tenth does the same for `race`, and no worse. So it is not `tandem`'s repairs that cost
# nothing here, but what both do first: to draw from the LM, and to race. What `tandem` spares is the
# choice of a weight, and a part of the budget. Against what could be had (a step says what a method reaches
# if it may be so surprising, in the mean of the seeds; the black line is the front):

# %%
axes = table.plot()

# %% [markdown]
# On these tasks nothing had to be paid: the readable question does as well as anything, and `race` and
# `tandem` find it in every seed. What PEZ and RLPrompt lose when their proxy's weight goes up is a price of how
# they search.
#
# ## On a real LM
#
# There nobody knows the readable prompts, and the LM was never made to be asked them. A run takes five
# minutes or more on a processor, so none is made here: the library carries the runs that
# `make figures-real` computes. SmolLM2-135M, five tokens, three seeds, all methods with a budget of
# about 14,400 evaluations (some stop before), and 2,000 test texts, by which an accuracy is known to
# .02. Two tasks: whether a snippet of a movie `review` is good or bad, and of which `genre` a text is
# (film review, product review, news, tweet). First the texts found at two of five weights:

# %%
every = sl.load_sweep("../data/real_runs")
real = every.filter(weight=[0, 0.3])
measured = ["nats_per_token", "nats_after_texts", "label_mass"]
found = real.frame[real.frame["method"] != "soft"].set_index(["task", "method", "weight", "seed"])
found[["text", "accuracy", *measured]].sort_index().round(3)

# %%
axes = every.plot()

# %% [markdown]
# `nats_per_token` is the surprisal where nothing stands before the prompt, `nats_after_texts` that
# where it is used: behind training texts, one at a time. Tandem bounds the latter (3 nats by
# default), and by .2 it must lie below the former: a prompt that belongs there is less surprising
# there. The picture has the runs of all weights. Its dotted line is a *bound*: the best of them, chosen
# on dev. On the test texts a run may lie above it. The means of the two weights, with the controls:

# %%
by = ["task", "method", "weight"]
means = mean_interval(real.frame, by, "accuracy").set_index(by)[["mean", "low", "high"]]
means.join(real.frame.groupby(by)[beside[1:]].mean()).sort_index().round(3)

# %% [markdown]
# Here it is another story. On `reviews` soft prompts do eight points better than the best prompt that
# people wrote, and that one is as good as no prompt at all (.788 and .778: the texts do not tell them
# apart). In the mean of the seeds no method's texts go beyond it by more than a point, `tandem` included,
# and a weight of .3 on the proxy costs them five to thirteen points. Is that the price of being readable?
# Nobody can say, for the true front is unknown. One seed of RLPrompt found "This adds to the overall", one
# of race "It is particularly": picked afterwards, by the test texts, these close half of the gap and two
# fifths of it, so a part of it may still be the search.
#
# On `genre` soft prompts do almost thirty points better than no prompt, and texts get a quarter of that
# in the mean, at the most. What does best is no sentence about the text, but the beginning of what could
# stand next in it: a new paragraph ("\n\nIn \n"), a number (" 151."), a place and a colon
# ("\nThetford:"). `tandem` may draw nothing of the kind. Its bounds
# keep whole words that are likelier *after* a text than without one, and under them it ends below no
# prompt at all: a definition of "readable" that costs nothing on one task can cost everything on
# another. (With three seeds an interval is no more than their range.)
#
# How much weight is too much? There are five of them (the controls are those above; no prompt has .778 on
# `reviews` and .549 on `genre`, random ones have .526 and .347, the best readable .788 and .470):

# %%
means = mean_interval(every.frame, by, "accuracy").set_index(by)[["mean", "low", "high"]]
told = every.frame.groupby(by)[["nats_per_token", "nats_after_texts"]].mean()
means.join(told).sort_index().round(3)

# %% [markdown]
# On `reviews` a tenth costs PEZ four points, and the others nothing that three seeds could show: what race
# and RLPrompt draw from the LM loses up to half of its surprisal and is two points *better* in the mean,
# and `tandem`, which has bounds, ends where it did. From .3 on all pay, and with a weight of 1 or more race
# and RLPrompt are nearer to a coin than to no prompt. On `genre` RLPrompt keeps what it has up to .3, at less
# than half of the surprisal; race and PEZ lose three points at a tenth; and `tandem` ends in the same texts,
# or nearly, at every weight. With a weight of 1 or more none does better than no prompt in the mean. So at a
# small weight the two aims still go together, where the tokens are drawn from the LM.
#
# Without a weight `tandem` has, in the mean, the texts that are least surprising where they are used,
# for it keeps its bounds. The label mass is near zero for everything: this LM was not asked anything, it
# was nudged. What the organism shows is that readable prompts *can* be had for nothing where they exist
# and the budget reaches them. It does not show that they exist for every LM and task at this length.
