"""Scores of many questions at once, by the library's own two primitives."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from softlens import files
from softlens.errors import SoftlensError, near
from softlens.lm import LM, EncodedTexts, answer_logits, score_answers, token_surprisal
from softlens.organism.grammar import grammar
from softlens.tasks import Split, Task

BLOCK = 100


def score_questions(
    lm: LM, task: Task, questions: Sequence[str], n: int | None = None, progress: bool = False
) -> pd.DataFrame:
    """How well each question does a task, on its first `n` test texts (balanced for any n).

    Returns:
        A row a question: ``text``, ``accuracy`` (among the label words), ``accuracy_vocab``
        (among all tokens), ``label_mass``, ``texts`` (how many were used).
    """
    if not questions:
        return pd.DataFrame(columns=["text", "accuracy", "accuracy_vocab", "label_mass", "texts"])
    split = task.test.take(n or len(task.test))
    words = torch.tensor(task.answer_ids(lm), device=lm.device)
    labels = torch.tensor(split.labels)
    rows = [lm.encode(question, leading_space=True) for question in questions]
    texts = _encode(lm, task, split, max(map(len, rows)))
    parts = []
    for start in tqdm(range(0, len(rows), BLOCK), desc=task.name, disable=not progress):
        scores = score_answers(lm, rows[start : start + BLOCK], texts, words)
        right = scores.log_probs.argmax(dim=-1) == labels
        right_of_all = scores.top_ids == words.cpu()[labels]
        mass = scores.log_probs.exp().sum(dim=-1)
        parts.append(torch.stack([right.float(), right_of_all.float(), mass]).mean(dim=-1))
    table = pd.DataFrame(
        torch.cat(parts, dim=1).T.double().numpy(),
        columns=["accuracy", "accuracy_vocab", "label_mass"],
    )
    table.insert(0, "text", list(questions))
    return table.assign(texts=len(split))


def ask(lm: LM, text: str, questions: Sequence[str]) -> pd.DataFrame:
    """What `lm` answers to each question about a text of the language, and what is right.

    Returns:
        A row a question: ``question, asks_for, right, answer, probability`` (of the answer given,
        over the whole vocabulary).

    Raises:
        SoftlensError: the text or a question is not of the language.
    """
    language = grammar()
    right = [language.answer(text, question) for question in questions]
    rows = [lm.encode(question, leading_space=True) for question in questions]
    encoded = lm.encode_texts("{text} {prompt}", [text], reserve=max(map(len, rows)))
    shares = answer_logits(lm, rows, encoded)[:, 0].softmax(dim=-1)
    best = shares.max(dim=-1)
    return pd.DataFrame(
        {
            "question": list(questions),
            "asks_for": [language.asks_for(question) for question in questions],
            "right": right,
            "answer": [lm.token(int(i)).strip() for i in best.indices],
            "probability": best.values.numpy(),
        }
    )


def readable_front(task: str | None = None) -> pd.DataFrame:
    """The bundled table of every question of the language on every task, or on one.

    Columns: ``task, text, length, accuracy, accuracy_vocab, nats_per_token, label_mass, asks_for,
    on_front, held_out, texts``; see the data card.

    Raises:
        SoftlensError: no such task.
    """
    front = pd.read_csv(files.data_dir() / "readable_front.csv")
    if task is None:
        return front
    names = front["task"].unique()
    if task not in names:
        raise SoftlensError(
            f"No front of task {task!r}; there is {list(names)}.{near(task, names)}"
        )
    return front[front["task"] == task].reset_index(drop=True)


def empty_prompt(lm: LM, task: Task, n: int | None = None) -> tuple[float, float]:
    """Accuracy over the whole vocabulary, and label mass, of no prompt at all."""
    table = score_questions(lm, task, [""], n)
    return float(table["accuracy_vocab"][0]), float(table["label_mass"][0])


def answered(lm: LM, texts: Sequence[str], question: str, answers: Sequence[str]) -> float:
    """Share of texts where the LM's first guess is the answer (or the first piece of it)."""
    wanted = torch.tensor([lm.encode(word, leading_space=True)[0] for word in answers])
    row = lm.encode(question, leading_space=True)
    encoded = lm.encode_texts("{text} {prompt}", texts, reserve=len(row))
    scores = score_answers(lm, [row], encoded, wanted[:1])
    return float((scores.top_ids[0] == wanted).double().mean())


def nats(lm: LM, questions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Nats per token after ``<bos>``, and the number of tokens, of each question."""
    rows = [lm.encode(question, leading_space=True) for question in questions]
    if not rows:
        return np.zeros(0), np.zeros(0, dtype=int)
    parts = [
        token_surprisal(lm, rows[start : start + BLOCK], "bos")[:, 0].nanmean(dim=-1)
        for start in range(0, len(rows), BLOCK)
    ]
    lengths = np.array([len(row) for row in rows])
    return torch.cat(parts).cpu().double().numpy(), lengths


@torch.no_grad()
def samples(lm: LM, count: int, seed: int, words: int = 5) -> list[str]:
    """The first `words` words of `count` texts sampled from the LM after ``<bos>``."""
    generator = torch.Generator().manual_seed(seed)
    # No question has more than 15 of the pieces into which the other tokenizer cuts words.
    whole = all(len(lm.encode(word, leading_space=True)) == 1 for word in grammar().words)
    steps = words if whole else 4 * words
    found: list[str] = []
    while len(found) < count:
        ids = torch.full((min(1000, count - len(found)), 1), lm.bos_id)
        for _ in range(steps):
            logits = lm.model(input_ids=ids, use_cache=False).logits[:, -1].float()
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            ids = torch.cat([ids, drawn], dim=1)
        found += [" ".join(lm.decode(row).split()[:words]) for row in ids[:, 1:].tolist()]
    return found


def _encode(lm: LM, task: Task, split: Split, reserve: int) -> EncodedTexts:
    return lm.encode_texts(task.template, split.texts, reserve=reserve)
