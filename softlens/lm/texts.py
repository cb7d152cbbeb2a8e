"""Texts as an LM sees them: rows around the prompt, and the memory of their keys and values."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from softlens.errors import SoftlensError
from softlens.lm.transformer import Prefix, prefill

log = logging.getLogger(__name__)

# Tokens forwarded at once: enough to keep the cores busy, little enough for a laptop's memory.
CHUNK_TOKENS = 2048


@dataclass(frozen=True)
class EncodedTexts:
    """Token rows that stand before and after the prompt, one pair for each text.

    Attributes:
        befores: BOS and what the template puts before the prompt.
        afters: what the template puts after it; the answer follows its last token.
        sources: the texts themselves, for error messages and tables.
        cache: the shared memory of keys and values.
    """

    befores: tuple[tuple[int, ...], ...]
    afters: tuple[tuple[int, ...], ...]
    sources: tuple[str, ...]
    cache: "KeyValueCache" = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.befores)

    @property
    def text_first(self) -> bool:
        """True where what follows the prompt is the same for every text."""
        return len(set(self.afters)) == 1

    @property
    def longest(self) -> int:
        """Tokens of the longest row without its prompt."""
        return max(len(b) + len(a) for b, a in zip(self.befores, self.afters, strict=True))

    def subset(self, indices: Sequence[int]) -> "EncodedTexts":
        """The texts at `indices`; keys and values already computed stay known."""
        pick = [int(i) for i in indices]
        return EncodedTexts(
            tuple(self.befores[i] for i in pick),
            tuple(self.afters[i] for i in pick),
            tuple(self.sources[i] for i in pick),
            self.cache,
        )

    def chunks(self, tokens_each: int, budget: int = CHUNK_TOKENS) -> Iterator[list[int]]:
        """Indices of texts of like length, so that ``texts x tokens_each`` stays below `budget`."""
        order = sorted(range(len(self)), key=lambda i: (len(self.befores[i]), i))
        size = max(1, budget // max(1, tokens_each))
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def prefix(self, indices: Sequence[int]) -> Prefix:
        """Keys and values of what stands before the prompt in the texts at `indices`."""
        return self.cache.prefix([self.befores[i] for i in indices])


class KeyValueCache:
    """Keys and values of token rows, computed once and kept while they fit into `limit` bytes.

    The least recently used rows give way. A set of rows that is larger than the whole limit is
    streamed: computed when asked for, and not kept.
    """

    def __init__(self, model: PreTrainedModel, limit: int, bytes_per_token: int) -> None:
        self.limit, self.bytes_per_token = limit, bytes_per_token
        self.used = 0
        self._model = model
        self._rows: OrderedDict[tuple[int, ...], tuple[Tensor, Tensor]] = OrderedDict()
        self._streaming: set[tuple[int, ...]] = set()

    def estimate(self, rows: Sequence[tuple[int, ...]]) -> int:
        """Bytes that the keys and values of `rows` would take."""
        return self.bytes_per_token * sum(len(row) for row in set(rows))

    def plan(self, rows: Sequence[tuple[int, ...]]) -> bool:
        """Decide whether `rows` will be kept (True) or streamed, before anything is computed."""
        need = self.estimate(rows)
        keep = need <= self.limit
        if not keep:
            log.info(
                "%d texts need %.0f MB of keys and values, and cache_memory is %.0f MB: they are "
                "streamed, computed anew at each use.",
                len(set(rows)),
                need / 1e6,
                self.limit / 1e6,
            )
        (self._streaming.difference_update if keep else self._streaming.update)(rows)
        return keep

    def prefix(self, rows: Sequence[tuple[int, ...]]) -> Prefix:
        """The padded keys and values of `rows`, from memory where they are there."""
        missing = sorted({r for r in rows if r not in self._rows}, key=lambda r: (len(r), r))
        fresh: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        start = 0
        while start < len(missing):
            size = max(1, CHUNK_TOKENS // len(missing[min(start + 31, len(missing) - 1)]))
            part = missing[start : start + size]
            computed = prefill(self._model, part)
            for i, row in enumerate(part):
                kept = computed.keys_values[:, :, i, :, : len(row)].clone()
                fresh[row] = (kept, computed.last_hidden[i].clone())
            start += size
        found = [fresh[row] if row in fresh else self._rows[row] for row in rows]
        for row in dict.fromkeys(rows):
            if row not in self._streaming:
                self._keep(row, fresh[row] if row in fresh else self._rows[row])
        return _padded(found, [len(row) for row in rows])

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()
        self.used = 0

    def _keep(self, row: tuple[int, ...], value: tuple[Tensor, Tensor]) -> None:
        if row in self._rows:
            self._rows.move_to_end(row)
            return
        size = len(row) * self.bytes_per_token
        while self._rows and self.used + size > self.limit:
            old, _ = self._rows.popitem(last=False)
            self.used -= len(old) * self.bytes_per_token
        if self.used + size <= self.limit:
            self._rows[row] = value
            self.used += size


def _padded(found: Sequence[tuple[Tensor, Tensor]], lengths: Sequence[int]) -> Prefix:
    first = found[0][0]
    layers, two, groups, _, dim = first.shape
    block = first.new_zeros(layers, two, len(found), groups, max(lengths), dim)
    for i, (keys_values, _) in enumerate(found):
        block[:, :, i, :, : keys_values.shape[3]] = keys_values
    last = torch.stack([hidden for _, hidden in found])
    return Prefix(block, torch.tensor(lengths, device=first.device), last)


def encode_texts(
    texts: Sequence[str],
    parts: tuple[str, str],
    encode: Callable[..., list[int]],
    bos_id: int,
    context_length: int,
    cache: KeyValueCache,
    truncate: bool = False,
    reserve: int = 0,
) -> EncodedTexts:
    """Encode ``before {text}``, the place of the prompt, and ``{text} after`` (one has the text).

    Args:
        texts: at least one; none may be empty.
        parts: what the template puts before and after the prompt; ``{text}`` is in one of them.
        encode: the LM's ``encode(text, leading_space=...)``.
        bos_id: starts every row.
        context_length: the LM's positions.
        cache: where keys and values will be kept.
        truncate: shorten a text that is too long, keeping its end, instead of refusing it.
        reserve: positions the prompt will need.

    Raises:
        SoftlensError: naming the row, for an empty text and for one that is too long.
    """
    if not len(texts):
        raise SoftlensError("Got no texts, wanted at least one. Check the split or the selection.")
    befores, afters = [], []
    for row, text in enumerate(texts):
        if not text.strip():
            raise SoftlensError(f"Text {row} is empty. Remove the row, or say what it should be.")
        before = [bos_id, *encode(parts[0].replace("{text}", text))] if parts[0] else [bos_id]
        after = encode(parts[1].replace("{text}", text), leading_space=True) if parts[1] else []
        excess = len(before) + len(after) + reserve - context_length
        if excess > 0:
            if not truncate:
                raise SoftlensError(
                    f"Text {row} is too long: {len(before) + len(after)} tokens and {reserve} for "
                    f"the prompt, but the LM has {context_length} positions. Shorten it, or pass "
                    f"truncate=True to keep its end. It begins: {text[:60]!r}"
                )
            if "{text}" in parts[0]:
                before = [bos_id, *before[1 + excess :]]
            else:
                after = after[excess:]
        befores.append(tuple(before))
        afters.append(tuple(after))
    encoded = EncodedTexts(tuple(befores), tuple(afters), tuple(texts), cache)
    cache.plan(encoded.befores)
    return encoded
