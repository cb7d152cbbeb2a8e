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
# What does it say? This notebook takes one the whole way: trained in PEFT, read and tested here, and
# handed back to PEFT with the same logits.
#
# The model is the bundled organism, so that it runs anywhere and the right answers are known. For a
# model of yours, put its folder or its hub id in the place of `base`.

# %%
import os
import tempfile
import warnings

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
task = sl.load_task("topic").with_(template="{prompt} {text}")
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
# it. Without BOS, the logits are those of PEFT, to the last digits of float32. The largest difference
# on 20 texts, over the whole vocabulary:

# %%
probes = task.test.texts[:20]
ours = sl.lm.answer_logits(lm, prompt.vectors[None], lm.encode_texts(task.template, probes))[0]
with torch.no_grad():
    theirs = torch.stack(
        [
            model(
                input_ids=tokenizer(t, return_tensors="pt", add_special_tokens=False)["input_ids"]
            ).logits[0, -1]
            for t in probes
        ]
    )
f"{float((ours - theirs).abs().max()):.1e}"

# %% [markdown]
# Does one token in front matter? Here is the adapter as PEFT feeds it, with its controls:

# %%
sl.evaluate(lm, task, prompt)
# %%
sl.controls(lm, task, prompt.length)

# %% [markdown]
# It does the task. Neither a random prompt nor a readable one does, in this place: their label mass is
# next to nothing, so they do not even ask. Now the same vectors behind BOS:

# %%
sl.evaluate(sl.load_lm(), task, prompt)

# %% [markdown]
# A third of the accuracy is gone: it was trained as the first thing in the row, and the first place
# is a special one to an LM. So a prompt is read where it was trained to stand.

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
    options={"matched": {"evaluations": 20_000}},
    progress=False,
)
report
# %%
ax = report.plot()

# %% [markdown]
# No. No text that the search could find closes more than a small part of what the prompt does, and
# the nearest tokens close none. That is no failure of the search alone: in this language, questions
# *follow* what they are about, so nothing that people say would ask for the topic from in front. A
# soft prompt can; a text cannot.
#
# ## The same task, asked where people ask
#
# A prompt behind the text, which PEFT has no place for:

# %%
behind = task.with_(template="{text} {prompt}")
usual = sl.load_lm()
run = sl.tune(usual, behind, length=5, steps=150, progress=False)
reading = sl.read(usual, run.prompt, "matched", behind, evaluations=20_000, progress=False)
reading
# %%
sl.faithfulness(usual, behind, run.prompt, reading)

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
# It does. The vectors themselves cannot go: they mean something in the embedding that they were
# trained in, and `transfer` says so instead of showing a number.

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
# One that was tuned here to stand before it goes out, and PEFT has the same logits. It was tuned with
# rows that start with BOS; so its adapter has six virtual tokens, and the first is BOS.

# %%
front = sl.tune(usual, task, length=5, steps=40, progress=False).prompt
front.to_peft("for_peft", usual)
back = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "for_peft").eval()
texts = usual.encode_texts(task.template, probes)
ours = sl.lm.answer_logits(usual, front.vectors[None], texts)[0]
with torch.no_grad():
    theirs = torch.stack(
        [
            back(
                input_ids=tokenizer(t, return_tensors="pt", add_special_tokens=False)["input_ids"]
            ).logits[0, -1]
            for t in probes
        ]
    )
back.peft_config["default"].num_virtual_tokens, f"{float((ours - theirs).abs().max()):.1e}"
