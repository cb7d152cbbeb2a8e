"""Answers to many prompts that share vectors and beginnings: a trie instead of rows.

Coalitions of a prompt's positions, prefixes of permutations and prompts with one position replaced
are sequences over a small table of vectors. After a text, the keys and values of a position
depend only on what stands before it, so that equal beginnings are forwarded once: all 2^n - 1
subsequences of n vectors are as many tokens, not n 2^(n-1).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from softlens.lm import transformer
from softlens.lm.answers import answer_chunks, as_vectors, is_fast
from softlens.lm.frozen import LM
from softlens.lm.texts import CHUNK_TOKENS, EncodedTexts, logits_together

# Nodes forwarded at once for a text: beyond, their mask on each other wastes more than the
# repeated ancestors of the next part cost.
PART_NODES = 96

Sequences = Sequence[tuple[int, ...]]
"""Rows of a table of vectors, in order; () is the empty prompt."""


@torch.no_grad()
def sequence_chunks(
    lm: LM,
    table: Float[Tensor, "rows hidden"],
    sequences: Sequences,
    texts: EncodedTexts,
    words: Int[Tensor, " words"] | None = None,
) -> Iterator[tuple[list[int], list[int], Float[Tensor, "sequences texts answers"]]]:
    """Yield (sequence indices, text indices, logits of `words` or of all tokens), part by part.

    Args:
        lm: the LM.
        table: the vectors that prompts are made of.
        sequences: prompts, as rows of `table`; equal ones are computed once.
        texts: encoded texts.
        words: token ids whose logits are wanted; None for the whole vocabulary.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for index, sequence in enumerate(sequences):
        places.setdefault(tuple(sequence), []).append(index)
    # A sequence stands next to those it shares most with.
    distinct = sorted(places)
    longest = max(map(len, distinct))
    as_vectors(lm, [table[:longest]], texts)
    if not texts.text_first or not is_fast(lm, longest, texts):
        rows = [table[list(sequence)] for sequence in distinct]
        chunks = answer_chunks(lm, rows, texts, words)
    else:
        chunks = _trie_chunks(lm, table, distinct, texts, words)
    for some, chosen, logits in chunks:
        repeated = [(i, place) for i, at in enumerate(some) for place in places[distinct[at]]]
        pick = torch.tensor([i for i, _ in repeated], device=logits.device)
        yield [place for _, place in repeated], chosen, logits[pick]


@dataclass(frozen=True)
class _Part:
    """Some branches of a trie: each node's vector, its place, and what it sees."""

    vectors: list[int]
    steps: list[int]
    parents: list[int]
    ends: list[int]

    def visible(self, device: torch.device) -> Tensor:
        seen = np.eye(len(self.vectors), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return torch.from_numpy(seen).to(device)


def _trie_chunks(
    lm: LM, table: Tensor, distinct: Sequences, texts: EncodedTexts, words: Tensor | None
) -> Iterator[tuple[list[int], list[int], Tensor]]:
    suffix = list(texts.afters[0])
    tail = range(len(table), len(table) + len(suffix))
    vectors = torch.cat([table.to(lm.device), lm.embed(suffix)])
    vocabulary = lm.vocab_size if words is None else len(words)
    start = 0
    for part in _parts([(*sequence, *tail) for sequence in distinct]):
        rows = list(range(start, start + len(part.ends)))
        start += len(part.ends)
        visible = part.visible(lm.device) if part.vectors else None
        most_pairs = logits_together(vocabulary)
        each = max(len(part.vectors), -(-len(rows) * CHUNK_TOKENS // most_pairs), 1)
        for chosen in texts.chunks(each):
            prefix = texts.subset(chosen).prefix()
            states = prefix.last_hidden[:, None]
            if visible is not None:
                nodes = vectors[torch.tensor(part.vectors, device=lm.device)]
                steps = torch.tensor(part.steps, device=lm.device)
                below = transformer.after_nodes(lm.model, prefix, nodes, visible, steps)
                states = torch.cat([states.to(below.dtype), below], dim=1)
            ends = torch.tensor([end + 1 for end in part.ends], device=lm.device)
            yield rows, chosen, lm.logits(states[:, ends].transpose(0, 1), words).float()


def _parts(sequences: Sequences) -> Iterator[_Part]:
    """The trie of sorted `sequences`, in parts that repeat the branch they begin in.

    The end of an empty sequence is -1: the text itself.
    """
    part = _Part([], [], [], [])
    branch: tuple[int, ...] = ()
    nodes: list[int] = []
    for sequence in sequences:
        if len(part.vectors) + len(sequence) > PART_NODES and part.ends:
            yield part
            part, branch, nodes = _Part([], [], [], []), (), []
        shared = 0
        while shared < min(len(branch), len(sequence)) and branch[shared] == sequence[shared]:
            shared += 1
        nodes = nodes[:shared]
        for step in range(shared, len(sequence)):
            part.vectors.append(sequence[step])
            part.steps.append(step)
            part.parents.append(nodes[-1] if nodes else -1)
            nodes.append(len(part.vectors) - 1)
        part.ends.append(nodes[-1] if nodes else -1)
        branch = sequence
    if part.ends:
        yield part
