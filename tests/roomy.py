"""The organism with room for a long prompt: only its speed and its layout mean anything."""

import copy

import torch
from transformers import AutoModelForCausalLM

import softlens as sl
from softlens.lm import LM


def roomy(lm: LM, positions: int = 512) -> LM:
    """`lm`, a GPT-2, with more positions: those it was trained on, over and over."""
    config = copy.deepcopy(lm.model.config)
    config.n_positions = positions
    model = AutoModelForCausalLM.from_config(config)
    state = lm.model.state_dict()
    rows = state["transformer.wpe.weight"]
    state["transformer.wpe.weight"] = rows.repeat(-(-positions // len(rows)), 1)[:positions]
    model.load_state_dict(state)
    return LM(model.to(torch.float32), lm.tokenizer, name=f"{lm.name} with {positions} positions")


def long_prompt(lm: LM, length: int) -> sl.Prompt:
    """So many ordinary tokens."""
    ids = lm.ordinary_ids.tolist()
    return sl.Prompt.from_ids(lm, [ids[i % len(ids)] for i in range(length)])
