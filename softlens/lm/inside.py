"""What a model computes on the way to its answer: attention weights, and states layer by layer."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from softlens.errors import SoftlensError


@torch.no_grad()
def attention_weights(
    model: PreTrainedModel, rows: Sequence[Float[Tensor, "_ hidden"]]
) -> Iterator[Float[Tensor, "layers heads queries keys"]]:
    """Attention of each row of vectors, forwarded alone; only eager attention hands it out."""
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        for row in rows:
            output = model.base_model(
                inputs_embeds=row.to(model.dtype)[None],
                attention_mask=torch.ones(1, len(row), dtype=torch.long, device=model.device),
                output_attentions=True,
                use_cache=False,
            )
            yield torch.stack([weights[0].float() for weights in output.attentions])
    finally:
        model.set_attn_implementation(usual)


@torch.no_grad()
def normed_layers(
    model: PreTrainedModel, row: Float[Tensor, "length hidden"]
) -> Float[Tensor, "layers length hidden"]:
    """Hidden states of one row after the embedding and each layer, as the head would take them.

    What stands between the last layer and the head is found by following its last hidden state
    back to the layer it comes from: a norm, with a projection behind it in some OPTs.
    """
    calls: list[tuple[torch.nn.Module, bool, Tensor, Tensor]] = []

    def note(inside: bool, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
            calls.append((module, inside, inputs[0], output))

    hooks = [
        # Layers, and all that is in them, have a number in their names.
        module.register_forward_hook(partial(note, bool(re.search(r"\.\d+(\.|$)", name))))
        for name, module in model.base_model.named_modules()
    ]
    try:
        output = model.base_model(
            inputs_embeds=row.to(model.dtype)[None],
            attention_mask=torch.ones(1, len(row), dtype=torch.long, device=model.device),
            output_hidden_states=True,
            use_cache=False,
        )
    finally:
        for hook in hooks:
            hook.remove()
    last = output.last_hidden_state
    chain: list[torch.nn.Module] = []
    state, from_layer = last, False
    for module, inside, given, came in reversed(calls):
        if came.shape == state.shape and torch.equal(came, state):
            from_layer = inside
            if inside:
                break
            chain.insert(0, module)
            state = given
    if not from_layer:
        raise SoftlensError(
            f"softlens cannot find what stands between the last layer of a "
            f"{model.config.model_type!r} model and its head, so that its inner layers cannot be "
            "read through its head."
        )
    inner = []
    for state in output.hidden_states[:-1]:
        for module in chain:
            state = module(state)
        inner.append(state[0])
    return torch.stack([*inner, last[0]])
