"""Soft prompts made to test readings with.

*Distilled* ones are known to do what a text does; *wayward* ones have nearest tokens that spell
whatever one likes. On the first a method of reading is right or wrong; on the second, nearest
tokens are a lie.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from softlens.behaviour import Probes, closed, kl, kl_from, log_answers
from softlens.decode import nearest_tokens
from softlens.display import Result, number, show_text
from softlens.errors import SoftlensError
from softlens.evaluation import evaluate_all
from softlens.lm import LM, answer_logits
from softlens.objectives import cross_entropy
from softlens.prompts import Prompt
from softlens.readings.base import product_of, stands_inside, tokens_of
from softlens.readings.registry import LEAST_ROOM
from softlens.tasks import Task
from softlens.tuners.base import Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

BATCH, LOOKS = 32, 10
MARGIN = 0.05
"""By how much of a cosine the wanted token must be nearer than any other."""
AWAY = 10.0
"""Weight of what drives a distilled prompt away from its text, in nats for a cosine."""
MASS = 0.1
"""Weight of -log label mass on a small LM, where right prompts have all the mass."""
KEPT, STARTS = 0.99, 3
"""Share of KL that a distilled prompt should close: below it, another start is tried, then a
warning says so. An opposite answer to half of the texts still closes more than nine tenths."""


@dataclass(frozen=True, repr=False)
class Planted(Result):
    """A soft prompt with something known about it."""

    prompt: Prompt
    """The prompt."""
    kind: str
    """ "distilled": it does what `says` does; "wayward": its nearest tokens spell what `says`."""
    says: dict[str, float]
    """Texts and their weights; of a wayward prompt, the one text of weight 1."""
    metrics: dict[str, float]
    """Distilled: ``kl_vocab`` (nats), ``kl_closed``, ``shared`` (share of positions whose nearest
    token occurs in the text), ``cosine`` (of the vectors to the text's nearest embedding row, the
    mean). Wayward: ``accuracy, empty_accuracy, label_mass`` (test texts), ``decoded`` (share of
    positions whose nearest token is the one wanted)."""
    frame: pd.DataFrame = field(repr=False, compare=False)
    """History: ``step, loss`` (nats), and what was seen now and then of what is to be kept."""

    @property
    def text(self) -> str:
        """The heaviest text."""
        return max(self.says, key=lambda text: abs(self.says[text]))

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        numbers = ", ".join(f"{key} {number(value)}" for key, value in self.metrics.items())
        one = len(self.says) == 1 and self.says[self.text] == 1
        parts = [show_text(self.text)] if one else [
            f"{weight:+.2f} × ({show_text(text)})" for text, weight in self.says.items()
        ]  # fmt: skip
        what = "does what this text does" if self.kind == "distilled" else "is nearest to this text"
        return f"{self.kind} prompt of {self.prompt.length}, {what}: {' '.join(parts)}; {numbers}"

    @property
    def table(self) -> pd.DataFrame:
        """Nothing beside the headline; the history is in `frame`."""
        return pd.DataFrame()

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """The loss over the steps."""
        from softlens.plots import plot_loss

        return plot_loss(self.frame, ax)


def distil(
    lm: LM,
    task: Task,
    text: str | Mapping[str, float | int],
    length: int = 5,
    noise: float | int = 1.0,
    *,
    steps: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Planted:
    """Make a soft prompt that does what a known text does, without lying near it.

    It starts at the text's rows plus noise, and goes down the KL from the text's answers on the
    task's unlabelled texts, while it is driven away from the text's rows until another token is
    nearer to each vector. (From a random start it ends in another question that answers alike.)

    Args:
        lm: the LM.
        task: where the prompt stands, and the texts it is watched on.
        text: what it shall do as; or texts with weights, whose answers' weighted product it shall
            have (as `mixture` reads it).
        length: positions of the prompt.
        noise: of the start, in standard deviations of the embedding.
        steps: of Adam; None: 400 for a small LM, else 150.
        seed: of the start and of the batches.
        progress: show a bar.

    Raises:
        SoftlensError: no text, an empty one or one in words that the LM does not have; a bad length
            or noise.
    """
    says = {text: 1.0} if isinstance(text, str) else {t: float(w) for t, w in text.items()}
    space = stands_inside(task)
    rows = [tokens_of(lm, one, "text to distil", space) for one in says]
    if not rows or not all(rows):
        raise SoftlensError(f"Got {text!r} to distil, wanted texts of at least one token each.")
    if length < 1 or noise < 0:
        raise SoftlensError(f"Got length={length} and noise={noise}, wanted at least 1 and 0.")
    probes = Probes.of(lm, task, max(length, LEAST_ROOM, *map(len, rows)))
    weights = torch.tensor(list(says.values()))
    target, held = (
        product_of(log_answers(lm, rows, part), weights) for part in (probes.search, probes.choose)
    )
    generator = torch.Generator().manual_seed(seed)
    whole = [index for row in rows for index in row]
    known = sorted(set(whole))
    spread = lm.embed([whole[i * len(whole) // length] for i in range(length)])

    def loss(vectors: Tensor) -> Tensor:
        some = torch.randint(len(target), (min(BATCH, len(target)),), generator=generator)
        logits = answer_logits(lm, vectors[None], probes.search.subset(some.tolist()))
        agreement = kl(target[some], logits[0].log_softmax(dim=-1)).mean()
        return agreement + AWAY * _too_near(lm, vectors, known)

    def seen(vectors: Tensor) -> tuple[tuple[float, ...], dict[str, float]]:
        found = float(kl_from(lm, held, vectors[None], probes.choose).mean())
        near = nearest_tokens(lm, vectors, k=1).token_ids
        shared = sum(index in known for index in near) / length
        return (-shared, -found), {"kl_vocab": found, "shared": shared}

    empty = float(kl_from(lm, held, [[]], probes.choose).mean())
    found = None
    for _ in range(STARTS):
        around = torch.randn(length, lm.hidden_size, generator=generator).to(lm.device)
        start = spread + float(noise) * lm.embedding.std(dim=0) * around
        tried = _descend(lm, start, loss, seen, steps, "distil", progress)
        if found is None or _nearer(tried[2], found[2]):
            found = tried
        if found[2]["shared"] == 0 and closed(found[2]["kl_vocab"], empty) >= KEPT:
            break
    assert found is not None
    vectors, history, last = found
    units = torch.nn.functional.normalize(vectors, dim=1) @ lm.unit_embedding[known].T
    metrics = {
        **last,
        "kl_closed": closed(last["kl_vocab"], empty),
        "cosine": float(units.amax(dim=1).mean()),
    }
    if metrics["kl_closed"] < KEPT:
        log.warning(
            "The distilled prompt closes %.2f of the KL to its text: more steps, another seed or a "
            "greater length may do better.",
            metrics["kl_closed"],
        )
    if metrics["shared"] > 0:
        log.warning(
            "%.2f of the distilled prompt's positions are still nearest to a token of its text, so "
            "that nearest tokens tell part of it: more steps or more noise may drive them away.",
            metrics["shared"],
        )
    return Planted(Prompt.soft(lm, vectors), "distilled", says, metrics, history)


def wayward(
    lm: LM,
    task: Task,
    target_text: str,
    *,
    weight: float | int = 10.0,
    steps: int | None = None,
    mass: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Planted:
    """Train a soft prompt for `task` whose nearest tokens spell `target_text`, whatever that says.

    Prompt waywardness (Khashabi et al. 2022, arXiv 2112.08348): the task's loss plus a term that
    keeps each vector at its token. Deviation: not the distance itself, but by how much another
    token comes nearer (by cosine, with a margin of 0.05), so that nothing is paid for being right.

    Args:
        lm: the LM.
        task: what the prompt is trained for; its train split, dev selects, test is reported.
        target_text: what the nearest tokens shall spell, one position a token.
        weight: of that term.
        steps: of Adam; None: 400 for a small LM, else 150.
        mass: weight of -log label mass in the loss; None: 0.1 for a small LM, else 0.
        seed: of the batches.
        progress: show a bar.

    Raises:
        SoftlensError: an empty target, one in words that the LM does not have, or one with tokens
            that nearest-token decoding leaves out.
    """
    ids = tokens_of(lm, target_text, "target", stands_inside(task))
    left_out = sorted(lm.special_ids | lm.unused_ids)
    if not ids or set(ids) & set(left_out):
        raise SoftlensError(
            f"Got the target {target_text!r}, tokens {[lm.token(i) for i in ids]}, wanted at least "
            "one and no control token: those are never offered as nearest."
        )
    problem = Problem.encode(lm, task, len(ids), truncate=True)
    batches = problem.batches(BATCH, seed)
    mass = (MASS if lm.is_small else 0.0) if mass is None else mass
    wanted = torch.tensor(ids, device=lm.device)
    generator = torch.Generator().manual_seed(seed)
    around = torch.randn(len(ids), lm.hidden_size, generator=generator).to(lm.device)
    start = lm.embed(ids) + 0.1 * lm.embedding.std(dim=0) * around

    def loss(vectors: Tensor) -> Tensor:
        texts, labels = next(batches)
        logits = answer_logits(lm, vectors[None], texts, None if mass else problem.words)
        words = logits.log_softmax(dim=-1)[..., problem.words] if mass else logits
        task_loss = cross_entropy(words, labels).mean()
        if mass:
            task_loss = task_loss - mass * words.logsumexp(dim=-1).mean()
        return task_loss + float(weight) * _strayed(lm, vectors, wanted, left_out)

    def seen(vectors: Tensor) -> tuple[tuple[float, ...], dict[str, float]]:
        near = nearest_tokens(lm, vectors, k=1).token_ids
        decoded = sum(a == b for a, b in zip(near, ids, strict=True)) / len(ids)
        accuracy, dev_loss = problem.on_dev(vectors)
        return (decoded, accuracy, -dev_loss), {"decoded": decoded, "accuracy_dev": accuracy}

    vectors, history, last = _descend(lm, start, loss, seen, steps, "wayward", progress)
    prompt = Prompt.soft(lm, vectors, start_ids=ids)
    here, empty = evaluate_all(lm, task, [prompt, None], truncate=True)
    metrics = {
        "accuracy": here.accuracy,
        "empty_accuracy": empty.accuracy,
        "label_mass": here.label_mass,
        "decoded": last["decoded"],
    }
    return Planted(prompt, "wayward", {target_text: 1.0}, metrics, history)


def _nearer(one: dict[str, float], other: dict[str, float]) -> bool:
    return (one["shared"], one["kl_vocab"]) < (other["shared"], other["kl_vocab"])


def _too_near(lm: LM, vectors: Float[Tensor, "length hidden"], known: list[int]) -> Tensor:
    """Mean cosine by which one of the tokens `known` is nearer than all others, and the margin."""
    cosines = torch.nn.functional.normalize(vectors, dim=1) @ lm.unit_embedding.T
    own = cosines[:, known].amax(dim=1)
    others = cosines.clone()
    others[:, [*known, *lm.special_ids, *lm.unused_ids]] = -torch.inf
    return (MARGIN + own - others.amax(dim=1)).relu().mean()


def _strayed(
    lm: LM, vectors: Float[Tensor, "length hidden"], wanted: Tensor, left_out: list[int]
) -> Tensor:
    """Mean cosine by which another token is nearer than the wanted one, the margin counted in."""
    cosines = torch.nn.functional.normalize(vectors, dim=1) @ lm.unit_embedding.T
    own = cosines.gather(1, wanted[:, None])[:, 0]
    others = cosines.scatter(1, wanted[:, None], -torch.inf)
    others[:, left_out] = -torch.inf
    return (MARGIN + others.amax(dim=1) - own).relu().mean()


Seen = Callable[[Tensor], tuple[tuple[float, ...], dict[str, float]]]
"""What a proposal is worth, best in order, and what of it goes into the history."""


def _descend(
    lm: LM,
    start: Float[Tensor, "length hidden"],
    loss: Callable[[Tensor], Tensor],
    seen: Seen,
    steps: int | None,
    name: str,
    progress: bool,
) -> tuple[Tensor, pd.DataFrame, dict[str, float]]:
    """Adam, its rate falling as a cosine, as in soft prompt tuning; the best seen is kept."""
    count = (400 if lm.is_small else 150) if steps is None else steps
    if count < 1:
        raise SoftlensError(f"Got steps={steps}, wanted at least 1, or None for a budget.")
    lm.need_gradients("planting or distilling a prompt")
    vectors = start.clone().requires_grad_()
    adam = torch.optim.Adam([vectors], lr=lm.vector_rate)
    falling = lambda step: 0.5 * (1 + math.cos(math.pi * step / count))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, falling)
    worth, noted = seen(vectors.detach())
    best, rows = (worth, vectors.detach().clone(), noted), []
    try:
        for step in tqdm(range(1, count + 1), desc=name, disable=not progress, leave=False):
            value = loss(vectors)
            adam.zero_grad()
            value.backward()
            adam.step()
            schedule.step()
            row = {"step": step, "loss": float(value.detach())}
            if step % max(1, count // LOOKS) == 0 or step == count:
                worth, noted = seen(vectors.detach())
                row |= noted
                if worth > best[0]:
                    best = (worth, vectors.detach().clone(), noted)
            rows.append(row)
    except KeyboardInterrupt:
        log.warning("Interrupted after %d steps; keeping the best prompt so far.", len(rows))
    return best[1], pd.DataFrame(rows), best[2]
