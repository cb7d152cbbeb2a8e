"""The two tokenizers: one token a word, or byte-pair pieces; every token of either is trained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from softlens.organism import language as lang
from softlens.organism import texts
from softlens.organism.grammar import Grammar

SPECIAL = (lang.PAD, lang.UNK, lang.BOS, lang.EOS)
BPE_SIZE = 1600
"""At most; with this many, every word of the language is one piece, besides the pieces of words."""
OTHERWISE_FROM, OTHERWISE, TURNS = 0.6, 4, 4
"""From this share of the training on a word is spelt otherwise every fourth time, until each of its
spellings has had four turns."""


def build_tokenizer(kind: str, grammar: Grammar) -> PreTrainedTokenizerFast:
    """The tokenizer ``"words"`` or ``"bpe"`` for a grammar's words; it adds no ``<bos>``."""
    tokenizer = _words(grammar) if kind == "words" else _bpe(grammar)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=lang.BOS,
        eos_token=lang.EOS,
        pad_token=lang.PAD,
        unk_token=lang.UNK,
        clean_up_tokenization_spaces=False,
    )


def _words(grammar: Grammar) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *grammar.words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=lang.UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _bpe(grammar: Grammar) -> Tokenizer:
    """Byte-pair pieces learned from the words, the questions' ones more often than the texts'.

    No piece is kept that the words do not use; the alphabet is the letters that they have.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=lang.UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator((f" {word}" for word in _counted(grammar)), trainer)
    return tokenizer


def _counted(grammar: Grammar) -> list[str]:
    """Words as often as the language has them: of some texts, all questions, all answers."""
    rng = Random(0)
    words = list(grammar.words)
    for _ in range(1000):
        words += texts.any_review(rng).split() + texts.any_news(rng).split()
    for follow_up in grammar.follow_ups:
        words += follow_up.text.split()
    answers = [lang.GREAT, lang.TERRIBLE, lang.UNKNOWN, *lang.TOPICS]
    return words + 500 * answers


def word_encoder(
    kind: str, tokenizer: PreTrainedTokenizerFast
) -> Callable[[str, float], list[int]]:
    """The ids of a word, for training; the second argument is how much of it is done.

    With ``"bpe"`` every word is spelt otherwise for some time, its last merges left out, so that
    pieces which only serve to build longer ones are trained as well (compare BPE-dropout, Provilkov
    et al. 2020, arXiv 1910.13267, which leaves out any merge): not before whose is whose can have
    been learned, which other spellings make harder, and no word so often that an answer's
    probability would be divided among its spellings.
    """
    usual = cache(lambda word: tokenizer.encode(f" {word}" if kind == "bpe" else word))
    if kind == "words":
        return lambda word, done: usual(word)
    vocabulary, merges = tokenizer.get_vocab(), _merges(tokenizer)
    others = cache(lambda word: spellings(word, merges))
    said: Counter[str] = Counter()

    def encode(word: str, done: float) -> list[int]:
        if done < OTHERWISE_FROM:
            return usual(word)
        said[word] += 1
        turn, now = divmod(said[word], OTHERWISE)
        if now or turn > TURNS * len(others(word)):
            return usual(word)
        return [vocabulary[piece] for piece in others(word)[turn % len(others(word))]]

    return encode


def spellings(word: str, merges: dict[tuple[str, str], int]) -> list[list[str]]:
    """A word's pieces after no merge, one merge, and so on to the usual ones."""
    pieces = ["Ġ", *word]
    found = [list(pieces)]
    while True:
        pairs = enumerate(pairwise(pieces))
        ranked = [(merges[pair], i) for i, pair in pairs if pair in merges]
        if not ranked:
            return found
        _, i = min(ranked)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        found.append(list(pieces))


def _merges(tokenizer: PreTrainedTokenizerFast) -> dict[tuple[str, str], int]:
    pairs = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return {(first, second): rank for rank, (first, second) in enumerate(pairs)}
