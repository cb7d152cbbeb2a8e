"""Constraints on the tokens of a prompt: what no tuner may use."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest

import torch
from jaxtyping import Bool
from torch import Tensor

from softlens.errors import SoftlensError, near
from softlens.lm import LM
from softlens.tasks import Task

Ban = str | Sequence[str | int]
LABELS, CONTROL, PIECES = "labels", "control", "pieces"
SHOWN = 5
KINDS = (LABELS, CONTROL, PIECES)
_ENDINGS = "s|es|ed|ing|er|ers|est|ly|ness"
"""Of label words too short to be told by their beginning: as "badly", "sadder", "wars"."""
_LIST_MARK = re.compile(r"[\-*•‣▪–—_=#>|~`+]+|[0-9a-zA-Z]{1,2}[.):]|[.:;…]+")


def allowed_tokens(lm: LM, task: Task, ban: Ban = ()) -> Bool[Tensor, " vocab"]:
    """Which tokens a prompt may hold: ordinary ones, without what `ban` names.

    Args:
        lm: the LM.
        task: the task, for its label words and its texts.
        ban: any of "labels" (label words, their inflections and casings: they answer for the
            prompt), "control" (line breaks, list marks and other layout), "pieces" (tokens that
            never stand as a whole word in the task's texts), single tokens (texts of one token),
            and token ids; one, or a list.

    Raises:
        SoftlensError: for a ban that is neither of these, or one that leaves no token.
    """
    bans: Sequence[str | int] = [ban] if isinstance(ban, str) else list(ban)
    allowed = torch.zeros(lm.vocab_size, dtype=torch.bool)
    allowed[lm.ordinary_ids] = True
    texts = _token_texts(lm)
    for one in bans:
        if one == LABELS:
            words = [word.lower() for word in task.label_words]
            allowed[[i for i, text in enumerate(texts) if _names(text, words)]] = False
        elif one == CONTROL:
            allowed[[i for i, text in enumerate(texts) if _is_layout(text)]] = False
        elif one == PIECES:
            whole = _whole_words(lm, task)
            allowed[[i for i in range(lm.vocab_size) if i not in whole]] = False
        else:
            allowed[_single_tokens(lm, one)] = False
    if not allowed.any():
        named = ", ".join(map(repr, bans[:SHOWN])) + (", ..." if len(bans) > SHOWN else "")
        raise SoftlensError(
            f"ban= of {len(bans)} entries ({named}) leaves no token of {lm.name!r} to make a "
            "prompt of. Ban fewer."
        )
    return allowed.to(lm.device)


def _token_texts(lm: LM) -> list[str]:
    key = "token texts"
    if key not in lm.memo:
        ordinary = set(lm.ordinary_ids.tolist())
        lm.memo[key] = [lm.token(i) if i in ordinary else "" for i in range(lm.vocab_size)]
    return lm.memo[key]


def _names(text: str, words: Sequence[str]) -> bool:
    """Whether a token is a label word in any casing, an inflection, or most of one."""
    bare = text.strip().lower()
    return any(
        bare == word
        or (bare.startswith(word) and _is_ending(bare[len(word) :], word))
        or (len(word) > 3 and bare.startswith(word[:-1]))
        or (len(bare) > 3 and word.startswith(bare))
        for word in words
    )


def _is_ending(rest: str, word: str) -> bool:
    """Whether a word of three letters or more goes on as an inflection does: "bad", "baddest"."""
    if len(word) < 3 or not word.isalpha():
        return False
    endings = _ENDINGS + ("|d|r|rs|st" if word[-1] == "e" else "")
    return re.fullmatch(f"{word[-1]}?(?:{endings})", rest) is not None


def _is_layout(text: str) -> bool:
    bare = text.strip()
    return (
        not bare
        or any(character in text for character in "\n\r\t")
        or not bare.isprintable()
        or "�" in bare
        or _LIST_MARK.fullmatch(bare) is not None
    )


def _whole_words(lm: LM, task: Task) -> set[int]:
    """Tokens that stand as a whole word, or between words, more often than as a part of one."""
    key = ("whole words", task)
    if key not in lm.memo:
        texts = _token_texts(lm)
        starts = [text.startswith(" ") or not text[:1].isalpha() for text in texts]
        if not any(text.startswith(" ") for text in texts):
            lm.memo[key] = set(range(lm.vocab_size))  # one token a word: there are no pieces
            return lm.memo[key]
        whole, cut = Counter[int](), Counter[int]()
        for text in (*task.train.texts, *task.unlabelled, *task.readable):
            ids = lm.encode(text, leading_space=True)
            for index, following in zip_longest(ids, ids[1:]):
                continued = following is not None and not starts[following]
                (cut if continued else whole)[index] += 1
        contractions = {i for i, text in enumerate(texts) if re.fullmatch(r"'[a-z]{1,2}", text)}
        lm.memo[key] = contractions | {
            i for i, times in whole.items() if starts[i] and times > cut[i]
        }
    return lm.memo[key]


def _single_tokens(lm: LM, one: str | int) -> list[int]:
    """The token of an id; of a text all tokens that it is, with and without a space before it."""
    if isinstance(one, int):
        if not 0 <= one < lm.vocab_size:
            raise SoftlensError(f"Got the token id {one} to ban, wanted 0 to {lm.vocab_size - 1}.")
        return [one]
    ordinary, found = set(lm.ordinary_ids.tolist()), list[int]()
    for leading_space in (False, True):
        ids = lm.encode(one, leading_space=leading_space)
        if len(ids) == 1 and ids[0] in ordinary:
            found += ids
    if found:
        return found
    raise SoftlensError(
        f"Got {one!r} to ban: neither one of {', '.join(map(repr, KINDS))} nor one token of "
        f"{lm.name!r}.{near(one, KINDS)} Longer texts are banned token by token."
    )
