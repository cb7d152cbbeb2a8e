"""Texts as an LM sees them: rows around the prompt, and the memory of their keys and values."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor
from transformers import PreTrainedModel

from softlens.errors import SoftlensError
from softlens.lm.transformer import Prefix, prefill

log = logging.getLogger(__name__)

Row = tuple[int, ...]
Group = tuple[Row, ...]
KeysValues = tuple[Tensor, Tensor]
"""Keys and values of one row (layers, 2, groups, length, dim), and its last hidden state."""

# Tokens forwarded at once: enough to keep the cores busy, little enough for a laptop's memory.
CHUNK_TOKENS = 2048
LOGIT_BYTES = 1 << 27
# Padded keys and values of the texts that are asked at once. The largest chunk of a task of our
# own (short tweets, SmolLM2 in float32) has 2.7 GB; texts that fill a context would have 30.
BLOCK_BYTES = 3 << 30


def logits_together(answers: int) -> int:
    """How many places' logits over so many answers may be in memory at once, at least one."""
    return max(1, LOGIT_BYTES // (4 * answers))


@dataclass(frozen=True)
class EncodedTexts:
    """Token rows that stand before and after the prompt, one pair for each text.

    Attributes:
        befores: BOS (if rows have one) and what the template puts before the prompt.
        afters: what the template puts after it; the answer follows its last token.
        sources: the texts themselves, for error messages and tables.
        cache: the shared memory of keys and values.
        groups: which rows of `befores` are computed together; empty where they are streamed.
    """

    befores: tuple[Row, ...]
    afters: tuple[Row, ...]
    sources: tuple[str, ...]
    cache: "KeyValueCache" = field(repr=False, compare=False)
    groups: Mapping[Row, Group] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.befores)

    @property
    def text_first(self) -> bool:
        """True where the same follows the prompt for every text, and something is before it."""
        return len(set(self.afters)) == 1 and all(self.befores)

    @property
    def longest(self) -> int:
        """Tokens of the longest row without its prompt."""
        return max(self._lengths)

    @property
    def shortest(self) -> int:
        """Tokens of the shortest row without its prompt."""
        return min(self._lengths)

    @property
    def _lengths(self) -> list[int]:
        return [len(b) + len(a) for b, a in zip(self.befores, self.afters, strict=True)]

    def subset(self, indices: Sequence[int]) -> "EncodedTexts":
        """The texts at `indices`; keys and values already computed stay known."""
        pick = [int(i) for i in indices]
        return EncodedTexts(
            tuple(self.befores[i] for i in pick),
            tuple(self.afters[i] for i in pick),
            tuple(self.sources[i] for i in pick),
            self.cache,
            self.groups,
        )

    def followed_by(self, ids: Sequence[int]) -> "EncodedTexts":
        """The same texts with some tokens after each, where the prompt begins."""
        rows = tuple((*before, *ids) for before in self.befores)
        return EncodedTexts(rows, self.afters, self.sources, self.cache)

    def chunks(self, tokens_each: int, budget: int = CHUNK_TOKENS) -> Iterator[list[int]]:
        """Indices of texts of like length, so that ``texts x tokens_each`` stays below `budget`.

        Where they stand first, their padded keys and values stay below `BLOCK_BYTES`, too.
        """
        size = max(1, budget // max(1, tokens_each))
        bytes_each = self.cache.bytes_per_token if self.text_first else 0
        chunk: list[int] = []
        for index in sorted(range(len(self)), key=lambda i: (len(self.befores[i]), i)):
            block = bytes_each * (len(chunk) + 1) * len(self.befores[index])
            if chunk and (len(chunk) == size or block > BLOCK_BYTES):
                yield chunk
                chunk = []
            chunk.append(index)
        if chunk:
            yield chunk

    def prefix(self) -> Prefix:
        """Keys and values of what stands before the prompt in each text."""
        return self.cache.prefix(self.befores, self.groups)


class KeyValueCache:
    """Keys and values of token rows, computed once and kept while they fit into `limit` bytes.

    Rows are computed in the groups that their set of texts was divided into when it was encoded:
    a product's last bits depend on what else is in its batch, and must not depend on what was
    asked before. The least recently used groups give way. A set that is larger than the whole
    limit is streamed: its rows are computed when asked for, and not kept.
    """

    def __init__(self, model: PreTrainedModel, limit: int, bytes_per_token: int) -> None:
        self.limit, self.bytes_per_token = limit, bytes_per_token
        self.used = 0
        self._model = model
        self._kept: OrderedDict[Group, dict[Row, KeysValues]] = OrderedDict()

    def estimate(self, rows: Iterable[Row]) -> int:
        """Bytes that the keys and values of `rows` would take."""
        return self.bytes_per_token * sum(len(row) for row in set(rows))

    def holds(self, group: Group) -> bool:
        """Whether the keys and values of `group` are in memory."""
        return group in self._kept

    def divide(self, rows: Sequence[Row]) -> dict[Row, Group]:
        """The group of each row; nothing where `rows` are to be streamed.

        Decided before anything is computed, and said in a log line.
        """
        need, distinct = self.estimate(rows), sorted(set(rows), key=lambda row: (len(row), row))
        if need > self.limit:
            log.info(
                "%d texts need %.0f MB of keys and values, and cache_memory is %.0f MB: they are "
                "streamed, computed anew at each use.",
                len(distinct),
                need / 1e6,
                self.limit / 1e6,
            )
            return {}
        return {row: group for group in _in_groups(distinct) for row in group}

    def prefix(self, rows: Sequence[Row], groups: Mapping[Row, Group]) -> Prefix:
        """The padded keys and values of `rows`, from memory where they are there."""
        places: dict[Row, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row, []).append(place)
        kept = dict.fromkeys(groups[row] for row in places if row in groups)
        streamed = sorted((row for row in places if row not in groups), key=lambda r: (len(r), r))
        lengths = [len(row) for row in rows]
        block, last = torch.empty(0), [torch.empty(0)] * len(rows)
        # Group by group into the block: what is streamed is never there twice.
        for found in chain(map(self._of_group, kept), map(self._computed, _in_groups(streamed))):
            for row, (keys_values, hidden) in found.items():
                if not block.numel():
                    layers, two, heads, _, dim = keys_values.shape
                    block = keys_values.new_zeros(layers, two, len(rows), heads, max(lengths), dim)
                for place in places.get(row, ()):
                    block[:, :, place, :, : len(row)] = keys_values
                    last[place] = hidden
        return Prefix(block, torch.tensor(lengths, device=block.device), torch.stack(last))

    def _of_group(self, group: Group) -> dict[Row, KeysValues]:
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        computed, size = self._computed(group), self.estimate(group)
        while self._kept and self.used + size > self.limit:
            self.used -= self.estimate(self._kept.popitem(last=False)[0])
        self._kept[group] = computed
        self.used += size
        return computed

    def _computed(self, group: Group) -> dict[Row, KeysValues]:
        prefix = prefill(self._model, group)
        return {
            row: (
                prefix.keys_values[:, :, i, :, : len(row)].clone(),
                prefix.last_hidden[i].clone(),
            )
            for i, row in enumerate(group)
        }


def _in_groups(rows: Sequence[Row]) -> Iterator[Group]:
    """Rows in order of length, cut so that a group has about `CHUNK_TOKENS` tokens with padding."""
    group: list[Row] = []
    for row in rows:
        if group and (len(group) + 1) * len(row) > CHUNK_TOKENS:
            yield tuple(group)
            group = []
        group.append(row)
    if group:
        yield tuple(group)


def encode_texts(
    texts: Sequence[str],
    parts: tuple[str, str],
    encode: Callable[..., list[int]],
    start: Row,
    context_length: int,
    cache: KeyValueCache,
    truncate: bool = False,
    reserve: int = 0,
    spaced: bool = True,
) -> EncodedTexts:
    """Encode ``before {text}``, the place of the prompt, and ``{text} after`` (one has the text).

    Args:
        texts: at least one; none may be empty.
        parts: what the template puts before and after the prompt; ``{text}`` is in one of them.
        encode: the LM's ``encode(text, leading_space=...)``.
        start: the tokens that start every row: BOS, or none.
        context_length: the LM's positions.
        cache: where keys and values will be kept.
        truncate: shorten a text that is too long, keeping its end and the template's words,
            instead of refusing it.
        reserve: positions the prompt will need.
        spaced: whether what follows the prompt is encoded with a space before it.

    Raises:
        SoftlensError: naming the row, for an empty text and for one that is too long; with
            `truncate`, where there is no room even without the text.
    """
    if not len(texts):
        raise SoftlensError("Got no texts, wanted at least one. Check the split or the selection.")
    behind = "{text}" in parts[1]
    befores, afters = [], []
    for row, text in enumerate(texts):
        if not text.strip():
            raise SoftlensError(f"Text {row} is empty. Remove the row, or say what it should be.")
        before = encode(parts[0].replace("{text}", text)) if parts[0] else []
        after = encode(parts[1].replace("{text}", text), leading_space=spaced) if parts[1] else []
        used = len(start) + len(before) + len(after)
        excess = used + reserve - context_length
        if excess > 0:
            if not truncate:
                raise SoftlensError(
                    f"Text {row} is too long: {used} tokens and {reserve} for the prompt, but the "
                    f"LM has {context_length} positions. Shorten it, or pass truncate=True to keep "
                    f"its end. It begins: {text[:60]!r}"
                )
            whole = after if behind else before
            first, last = text_place(whole, parts[behind], encode, spaced and behind)
            if first + excess > last:
                raise SoftlensError(
                    f"Text {row} is too long: without a word of it, {used - last + first} tokens "
                    f"of the template and {reserve} for the prompt exceed the {context_length} "
                    "positions of the LM. Use a shorter prompt or template."
                )
            del whole[first : first + excess]
        befores.append((*start, *before))
        afters.append(tuple(after))
    return EncodedTexts(tuple(befores), tuple(afters), tuple(texts), cache, cache.divide(befores))


def text_place(
    row: Sequence[int], part: str, encode: Callable[..., list[int]], spaced: bool
) -> tuple[int, int]:
    """Where the tokens of the text begin and end in `row`, the tokens of a filled-in `part`.

    A token that the text shares with the template's own words counts as the text's.
    """
    head, tail = part.split("{text}")
    first = _common(row, encode(head, leading_space=spaced))
    last = len(row) - _common(row[first:][::-1], encode(tail)[::-1])
    return first, last


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows share at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
