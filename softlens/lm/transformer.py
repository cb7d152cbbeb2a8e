"""Everything that touches transformers' caches, masks, position ids and attention functions.

Two layouts of the same computation, and the plain forward they are checked against:

* **text first**: the texts' keys and values are computed once (`prefill`); only prompt positions
  are forwarded (`after_texts`), all prompts of a text side by side on the query axis under a
  block-diagonal mask, so that the cache is never copied. Prompts that begin alike share what they
  share under the mask of a tree (`after_nodes`, `softlens.lm.tries`).
* **prompt first**: one row holds ``[before | prompt | text 1 | text 2 | ...]`` (`packed`); each
  text sees the prompt and itself, and nothing is padded.
* **plain** (`plain`): one right-padded row for each prompt and text, as any script would do it.

Masks are additive floats: a boolean one is silently misread by eager attention.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import eager_mask

GROUPED = "softlens_grouped"


def grouped_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "batch heads queries dim"],
    key: Float[Tensor, "batch groups keys dim"],
    value: Float[Tensor, "batch groups keys dim"],
    attention_mask: Float[Tensor, "#batch 1 queries keys"] | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "batch queries heads dim"], None]:
    """Softmax attention without repeating the keys of grouped heads; softmax in float32 at least.

    On a CPU this is several times faster than the fused kernel's backward pass in bfloat16
    (`make bench`), and a little faster in float32.
    """
    batch, heads, queries, dim = query.shape
    groups = key.shape[1]
    scale = dim**-0.5 if scaling is None else scaling
    # Heads of a group are neighbours, so they fold onto the query axis and share one matmul.
    folded = (query * scale).reshape(batch, groups, heads // groups * queries, dim)
    scores = torch.matmul(folded, key.transpose(2, 3)).view(
        batch, groups, -1, queries, key.shape[2]
    )
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None, :, : key.shape[2]]
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = torch.softmax(scores, dim=-1, dtype=wide).to(value.dtype)
    mixed = torch.matmul(weights.view(batch, groups, -1, key.shape[2]), value)
    return mixed.view(batch, heads, queries, dim).transpose(1, 2), None


def use_grouped_attention(model: PreTrainedModel) -> None:
    """Switch `model` to `grouped_attention`; raises where its family cannot exchange attention."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, eager_mask)
    model.set_attn_implementation(GROUPED)


@dataclass(frozen=True)
class Prefix:
    """What the LM remembers of a batch of texts, right-padded.

    Attributes:
        keys_values: shape (layers, 2, batch, groups, padded, dim).
        lengths: tokens of each text, shape (batch,).
        last_hidden: the final hidden state at each text's last token, shape (batch, hidden);
            it predicts the first token that follows.
    """

    keys_values: Tensor
    lengths: Int[Tensor, " batch"]
    last_hidden: Float[Tensor, "batch hidden"]


class _FrozenLayer(DynamicLayer):
    """A cache layer that hands out ``prefix + new`` and keeps nothing.

    transformers' own layers change in the forward that reads them, so that a second use is
    silently wrong; this one can be reused and lets gradients pass.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True
        self.dtype, self.device = keys.dtype, keys.device

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        past: tuple[Any, Any] = (self.keys, self.values)
        return torch.cat([past[0], key_states], dim=2), torch.cat([past[1], value_states], dim=2)


def masks_itself(model: PreTrainedModel) -> bool:
    """True where attention has a mask of its own, by places in the row (GPT-Neo's windows).

    Prompts that stand side by side are then taken for one long row, and hidden from each other's
    texts.
    """
    buffers = [b for b in model.buffers() if b.ndim > 1 and b.dtype in (torch.bool, torch.uint8)]
    return any(buffer.shape[-1] == buffer.shape[-2] for buffer in buffers)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive float mask from a boolean one: 0 where visible, the dtype's lowest elsewhere."""
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)


def cache_name(model: PreTrainedModel) -> str:
    """What a model calls its cache: transformers renamed it in 5.24, and warns of the old name."""
    known = inspect.signature(model.base_model.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def _hidden(model: PreTrainedModel, **inputs: Any) -> Tensor:
    return model.base_model(**inputs, use_cache=False).last_hidden_state


def pad(rows: Sequence[Sequence[int]], device: torch.device, fill: int = 0) -> Int[Tensor, "n m"]:
    """Right-padded ids; no padded position is ever seen by a real one."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], device=device)


@torch.no_grad()
def prefill(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Prefix:
    """Keys, values and last hidden state of token rows (each at least one token long)."""
    ids = pad(rows, model.device)
    lengths = torch.tensor([len(row) for row in rows], device=model.device)
    width = ids.shape[1]
    # Padding stands behind every real token, so a causal mask alone keeps it out.
    causal = torch.ones(1, 1, width, width, dtype=torch.bool, device=model.device).tril()
    output = model.base_model(
        input_ids=ids,
        attention_mask=additive(causal, model.dtype),
        position_ids=torch.arange(width, device=model.device)[None].expand(len(rows), -1),
        use_cache=True,
    )
    layers = getattr(output, cache_name(model)).layers
    keys_values = torch.stack([torch.stack([layer.keys, layer.values]) for layer in layers])
    last = output.last_hidden_state[torch.arange(len(rows)), lengths - 1]
    return Prefix(keys_values, lengths, last)


def after_texts(
    model: PreTrainedModel, prefix: Prefix, prompts: Float[Tensor, "*texts prompts length hidden"]
) -> Float[Tensor, "batch prompts length hidden"]:
    """Final hidden states of every prompt after every text of `prefix`; gradients reach `prompts`.

    With a leading dimension, each text has prompts of its own.

    Padding at a prompt's end is harmless: nothing before it sees it.
    """
    count, length, hidden = prompts.shape[-3:]
    own = torch.ones(length, length, dtype=torch.bool, device=model.device).tril()
    steps = torch.arange(length, device=model.device).repeat(count)
    visible = torch.block_diag(*[own] * count)
    nodes = prompts.reshape(*prompts.shape[:-3], count * length, hidden)
    states = after_nodes(model, prefix, nodes, visible, steps)
    return states.view(-1, count, length, hidden)


def after_nodes(
    model: PreTrainedModel,
    prefix: Prefix,
    nodes: Float[Tensor, "*batch nodes hidden"],
    visible: Bool[Tensor, "nodes nodes"],
    steps: Int[Tensor, " nodes"],
) -> Float[Tensor, "texts nodes hidden"]:
    """Final hidden states of vectors that stand after every text and see what `visible` says.

    Args:
        model: the LM.
        prefix: the texts.
        nodes: the vectors, the same for every text or each text's own; gradients reach them.
        visible: which nodes (columns) each node (row) sees, itself among them.
        steps: how many places behind the text each node stands; 0 is the first.
    """
    batch, padded = len(prefix.lengths), prefix.keys_values.shape[4]
    text_visible = torch.arange(padded, device=model.device)[None, :] < prefix.lengths[:, None]
    seen = torch.cat(
        [
            text_visible[:, None, None, :].expand(batch, 1, len(steps), padded),
            visible[None, None].expand(batch, 1, -1, -1),
        ],
        dim=3,
    )
    layers: list[Any] = [_FrozenLayer(kv[0], kv[1]) for kv in prefix.keys_values]
    return _hidden(
        model,
        inputs_embeds=nodes.to(model.dtype).expand(batch, -1, -1),
        attention_mask=additive(seen, model.dtype),
        position_ids=prefix.lengths[:, None] + steps[None, :],
        **{cache_name(model): Cache(layers=layers)},
    )


def pack(lengths: Sequence[int], row_tokens: int = 96) -> list[list[int]]:
    """First-fit-decreasing bins of indices whose lengths sum to at most `row_tokens` each."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for b, free in enumerate(room):
            if free >= lengths[index]:
                bins[b].append(index)
                room[b] -= lengths[index]
                break
        else:
            bins.append([index])
            room.append(max(row_tokens, lengths[index]) - lengths[index])
    return bins


def packed(
    model: PreTrainedModel,
    before: Sequence[int],
    prompts: Float[Tensor, "prompts length hidden"],
    prompt_lengths: Int[Tensor, " prompts"],
    afters: Sequence[Sequence[int]],
) -> Float[Tensor, "batch prompts hidden"]:
    """Final hidden state at the end of ``before + prompt + after`` for each prompt and `after`.

    A row has at least one token; any of its three parts may be empty.
    """
    device, embed = model.device, model.get_input_embeddings()
    count, length, hidden = prompts.shape
    head = len(before) + length
    bins = pack([len(after) for after in afters])
    width = head + max(sum(len(afters[i]) for i in row) for row in bins)

    ids = torch.zeros(len(bins), width - head, dtype=torch.long, device=device)
    # Segment 0 is what every text sees; padding gets a segment of its own for each position.
    segment = torch.arange(width, device=device).repeat(len(bins), 1) + len(afters) + 1
    segment[:, :head] = 0
    offset = torch.zeros(len(bins), width, dtype=torch.long, device=device)
    answer = torch.empty(len(afters), 2, dtype=torch.long, device=device)
    for r, row in enumerate(bins):
        start = head
        for i in row:
            stop = start + len(afters[i])
            ids[r, start - head : stop - head] = torch.tensor(afters[i], device=device)
            segment[r, start:stop] = i + 1
            offset[r, start:stop] = torch.arange(stop - start, device=device)
            answer[i] = torch.tensor([r, stop - 1], device=device)
            start = stop

    same = segment[:, :, None] == segment[:, None, :]
    shared = (segment == 0)[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    visible = (same | shared) & causal
    inside = torch.arange(width, device=device)
    # Where prompts are shorter than the longest, their padding is hidden from the texts.
    hole = (inside[None, :] >= len(before) + prompt_lengths[:, None]) & (inside[None, :] < head)
    visible = visible[None] & (
        ~hole[:, None, None, :] | torch.eye(width, dtype=torch.bool, device=device)
    )
    position = torch.where(
        segment[None] == 0,
        inside[None, None],
        len(before) + prompt_lengths[:, None, None] + offset[None],
    )
    start_rows = embed(torch.tensor([before], dtype=torch.long, device=device)).to(prompts.dtype)
    rows = torch.cat(
        [
            start_rows[:, None].expand(count, len(bins), -1, -1),
            prompts[:, None].expand(-1, len(bins), -1, -1),
            embed(ids)[None].expand(count, -1, -1, -1).to(prompts.dtype),
        ],
        dim=2,
    )
    states = _hidden(
        model,
        inputs_embeds=rows.reshape(-1, width, hidden).to(model.dtype),
        attention_mask=additive(visible.reshape(-1, 1, width, width), model.dtype),
        position_ids=position.reshape(-1, width),
    ).view(count, len(bins), width, hidden)
    # Where nothing follows, the prompt's own last token answers, not the padding behind it.
    alone = torch.tensor([not len(after) for after in afters], device=device)
    own = len(before) + prompt_lengths[:, None] - 1
    places = torch.where(alone, own, answer[None, :, 1])
    every = torch.arange(count, device=device)[:, None]
    return states[every, answer[None, :, 0], places].transpose(0, 1)


def plain(
    model: PreTrainedModel,
    befores: Sequence[Sequence[int]],
    prompts: Float[Tensor, "prompts length hidden"],
    prompt_lengths: Int[Tensor, " prompts"],
    afters: Sequence[Sequence[int]],
) -> tuple[Float[Tensor, "batch prompts length_ hidden"], Float[Tensor, "batch prompts hidden"]]:
    """The same by one right-padded row for each pair: the reference, and the way of last resort.

    Returns:
        Hidden states that predict each prompt token (one position earlier, shape
        (batch, prompts, length, hidden)), and those at the end of each row.
    """
    embed, device = model.get_input_embeddings(), model.device
    rows, spans = [], []
    for before, after in zip(befores, afters, strict=True):
        head = embed(torch.tensor(before, dtype=torch.long, device=device))
        tail = embed(torch.tensor(after, dtype=torch.long, device=device))
        for prompt, size in zip(prompts.to(model.dtype), prompt_lengths.tolist(), strict=True):
            rows.append(torch.cat([head, prompt[:size], tail]))
            spans.append((len(before), len(before) + size + len(after)))
    width = max(stop for _, stop in spans)
    stops = torch.tensor([stop for _, stop in spans], device=device)
    states = _hidden(
        model,
        inputs_embeds=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        attention_mask=(torch.arange(width, device=device)[None] < stops[:, None]).long(),
    )
    every = torch.arange(len(rows), device=device)
    starts = torch.tensor([start for start, _ in spans], device=device)
    inner = starts[:, None] - 1 + torch.arange(prompts.shape[1], device=device)[None]
    predicting = states[every[:, None], inner.clamp(max=width - 1)]
    shape = (len(befores), len(prompts))
    return predicting.unflatten(0, shape), states[every, stops - 1].unflatten(0, shape)
