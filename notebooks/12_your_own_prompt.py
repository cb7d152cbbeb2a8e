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
# # Your own prompt: trained with PEFT, read here, and back again
#
# You trained a soft prompt with [PEFT](https://github.com/huggingface/peft), on a model of your own.
# What does it say? This notebook goes the whole way: a prompt trained in PEFT, read and tested here, one
# that stands behind the text, and one handed back to PEFT with the same logits.
#
# The model is the bundled organism, so that it runs anywhere and the right answers are known. For a
# model of yours, put its folder or its hub id in the place of `base`.

# %%
import os
import tempfile
import warnings

import pandas as pd
import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import softlens as sl

os.chdir(tempfile.mkdtemp())
warnings.filterwarnings("ignore", category=FutureWarning)  # between PEFT and transformers
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

base = sl.load_lm().model.name_or_path
task = sl.load_task("topic").head(test=400).with_(template="{prompt} {text}")
task

# %% [markdown]
# ## Trained with PEFT
#
# Nothing here is ours: five virtual tokens before each text, and the topic as the next word.

# %%
torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained(base)
config = peft.PromptTuningConfig(
    task_type="CAUSAL_LM", num_virtual_tokens=5, prompt_tuning_init="SAMPLE_VOCAB"
)
model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)

answers = tokenizer(list(task.label_words), add_special_tokens=False)["input_ids"]
texts = tokenizer(list(task.train.texts), add_special_tokens=False)["input_ids"]
rows = [torch.tensor(ids + answers[y]) for ids, y in zip(texts, task.train.labels, strict=True)]

optimiser = torch.optim.Adam(model.prompt_encoder.parameters(), lr=0.1)
for _ in range(80):
    batch = [rows[i] for i in torch.randint(len(rows), (16,))]
    ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in batch], batch_first=True)
    labels = torch.full_like(ids, -100)
    last = mask.sum(dim=1) - 1
    labels[range(16), last] = ids[range(16), last]
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

model.eval().save_pretrained("my_adapter")
sorted(os.listdir("my_adapter"))

# %% [markdown]
# ## In: one line, and what it checks
#
# PEFT puts an adapter onto any base that does not crash. `from_peft` compares the width, the layers
# and heads, the name of the base and, where it can, the vocabulary, and refuses what is for another
# LM. Prefix tuning is refused too, with the reason: it is keys and values, and no vector of it stands
# where a token would.

# %%
lm = sl.load_lm(bos=False)
prompt = sl.Prompt.from_peft("my_adapter", lm)
prompt

# %% [markdown]
# Why `bos=False`? PEFT puts nothing before a prompt, not even BOS, while rows here usually start with
# it. Without BOS, the logits are those of PEFT. How exactly? The largest difference on 20 texts, over
# the whole vocabulary:

# %%
probes = task.test.texts[:20]


@torch.no_grad()
def peft_logits(adapted):
    rows = [
        tokenizer(t, return_tensors="pt", add_special_tokens=False)["input_ids"] for t in probes
    ]
    return torch.stack([adapted(input_ids=row).logits[0, -1] for row in rows])


def our_logits(lm, prompt):
    encoded = lm.encode_texts(task.template, probes)
    return sl.lm.answer_logits(lm, prompt.vectors[None], encoded)[0].cpu()


def furthest(one, other):
    return f"{float((one - other).abs().max()):.1e}"


def adapted(folder, **options):
    base_model = AutoModelForCausalLM.from_pretrained(base, **options)
    tuned = peft.PeftModel.from_pretrained(base_model, folder).eval()
    tuned.prompt_encoder.to(tuned.base_model.dtype)
    return tuned


exact = peft_logits(adapted("my_adapter", dtype=torch.float64))
wide = sl.load_lm(dtype="float64", bos=False, device="cpu")
pd.Series(
    {
        "float32: softlens and PEFT": furthest(our_logits(lm, prompt), peft_logits(model)),
        "float32: PEFT with two kernels of attention": furthest(
            peft_logits(adapted("my_adapter", attn_implementation="eager")), peft_logits(model)
        ),
        "float32 and float64: PEFT": furthest(peft_logits(model), exact),
        "float32 and float64: softlens": furthest(our_logits(lm, prompt), exact),
        "float64: softlens and PEFT": furthest(our_logits(wide, prompt), exact),
    },
    name="largest difference of logits",
).to_frame()

# %% [markdown]
# In float64 nothing is between the two. In float32, which has seven digits for logits above ten, they
# are as far apart as PEFT is from itself when its attention adds up in another order, and no further
# than each is from the exact value.
#
# Does one token in front matter? Here is the adapter as PEFT feeds it, and the same vectors behind
# BOS, each with its controls in that place (the random prompts are five; their mean is shown):

# %%
usual = sl.load_lm()
rows = []
for place, one in {"as PEFT feeds it": lm, "behind BOS": usual}.items():
    beside = sl.controls(one, task, prompt.length).beside(sl.evaluate(one, task, prompt))
    rows.append(beside.assign(rows=place))
pd.concat(rows).set_index(["rows", "prompt"]).round(3)

# %% [markdown]
# It does the task. Neither a random prompt nor a readable one does, in this place: the best readable
# one is right half of the time, but its label mass is next to nothing, so it does not even ask. Behind
# BOS a third of the adapter's accuracy is gone: it was trained as the first thing in the row, and the
# first place is a special one to an LM. So a prompt is read where it was trained to stand.

# %% [markdown]
# ## What does it say?
#
# The first thing everybody does with a soft prompt is to print its nearest tokens:

# %%
ax = sl.nearest_tokens(lm, prompt, k=3).plot()

# %% [markdown]
# ## Can a reading be trusted?
#
# The report asks several methods what the prompt says, tests each answer on texts that no method has
# seen, gauges whether a person could check it, and gives a verdict. For an adapter it is one line:

# %%
report = sl.report(
    lm,
    task,
    prompt,
    methods=["nearest", "matched"],
    options={"matched": {"evaluations": 6_000}},
    progress=False,
)
report
# %%
ax = report.plot()

# %% [markdown]
# No. No text that the search could find closes more than a small part of what the prompt does, and
# the nearest tokens close none. That is no failure of the search alone: in this language, questions
# *follow* what they are about, so nothing that people say there is built to ask for the topic from in
# front. A soft prompt can, and no text that was tried does.
#
# ## The same task, asked where people ask
#
# A prompt behind the text, which PEFT has no place for:

# %%
behind = task.with_(template="{text} {prompt}")
run = sl.tune(usual, behind, length=5, steps=150, progress=False)
reading = sl.read(usual, run.prompt, "matched", behind, evaluations=6_000, progress=False)
reading
# %%
sl.faithfulness(usual, behind, run.prompt, reading)

# %% [markdown]
# And what a person would write? Behind the text a readable prompt does the task, too:

# %%
scores = sl.evaluate(usual, behind, run.prompt)
sl.controls(usual, behind, run.prompt.length).beside(scores).round(3)

# %% [markdown]
# ## Elsewhere
#
# A text can be taken to other LMs, each of which reads it with its own tokens: these two were trained
# apart, and one is a Llama with a vocabulary of another kind. Does it ask them the same?

# %%
judge, llama = sl.load_lm("organism-judge"), sl.load_lm("organism-llama")
moved = sl.transfer(reading, usual, [judge, llama], behind)
ax = moved.plot()

# %% [markdown]
# It does. (On texts of *another task* it does worse than no prompt, as the table above says: a reading
# is a claim about some texts.) The vectors themselves cannot go: they mean something in the embedding
# that they were trained in, and `transfer` says so instead of showing a number.

# %%
try:
    sl.transfer(run.prompt, usual, judge, behind)
except sl.SoftlensError as reason:
    print(reason)

# %% [markdown]
# ## And out again
#
# PEFT can only put a prompt first. One that stands behind the text is refused, because there it would
# be another prompt:

# %%
try:
    run.prompt.to_peft("for_peft", usual)
except sl.SoftlensError as reason:
    print(reason)

# %% [markdown]
# One that was tuned here to stand before it goes out, and PEFT has the same logits, to the digits of
# float32 again. It was tuned with rows that start with BOS; so its adapter has six virtual tokens, and
# the first is BOS.

# %%
front = sl.tune(usual, task, length=5, steps=40, progress=False).prompt
front.to_peft("for_peft", usual)
back = adapted("for_peft")
(
    back.peft_config["default"].num_virtual_tokens,
    furthest(our_logits(usual, front), peft_logits(back)),
)
