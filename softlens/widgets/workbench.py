"""What an inspector knows and can do, without any widget: the state of one inspection."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from softlens.attribution.game import SECONDS_OF_WORK
from softlens.decode import nearest_tokens, position_ids
from softlens.errors import SoftlensError, near
from softlens.evaluation import Outcome
from softlens.lm import LM, token_surprisal
from softlens.nearness import METRICS
from softlens.prompts import Prompt
from softlens.readings.base import stands_inside
from softlens.runs import Run
from softlens.tasks import Task
from softlens.widgets.draft import DROPPED, KEPT, MASKED, Draft, no_vectors
from softlens.widgets.replay import Replay, name_of
from softlens.widgets.sample import Controls, Memory, Sample

NOW, GIVEN = "now", "as given"
UNDO = 100


class PiecesError(SoftlensError):
    """A word is not one token; `pieces` are the tokens it has."""

    def __init__(self, message: str, pieces: tuple[int, ...]) -> None:
        super().__init__(message)
        self.pieces = pieces


@dataclass(eq=False)
class Workbench:
    """A prompt on the bench: its draft, the sample it is tried on, and what was asked so far.

    Attributes:
        lm: the LM; None where it is not at hand, and then nothing can be edited or measured.
        given: the prompt that was brought.
        run: the run it is from, if any.
        task: the task, if any; without one there is no accuracy.
        sample: texts of the task that edits are tried on.
        replay: the run's history.
        draft: the prompt as it is now.
        chosen: the position that is looked at.
        text: the text of the sample that is looked at.
        memory: what was asked of the LM lately, by what it depends on.
        measure: what colours the boxes, one of `softlens.widgets.shades.COLOURS`.
        metric: what nearest means, one of `softlens.nearness.METRICS`.
    """

    lm: LM | None
    given: Prompt
    run: Run | None = None
    task: Task | None = None
    sample: Sample | None = None
    replay: Replay | None = None
    chosen: int = 0
    text: int = 0
    measure: str = "cosine"
    metric: str = "cosine"
    draft: Draft = field(init=False)
    _past: list[Draft] = field(default_factory=list, init=False, repr=False)
    memory: Memory = field(default_factory=lambda: Memory(256), init=False, repr=False)

    def __post_init__(self) -> None:
        self.draft = Draft.of(self.given)

    # -- editing ------------------------------------------------------------------------------

    @property
    def ready(self) -> LM:
        """The LM.

        Raises:
            SoftlensError: it is not at hand.
        """
        if self.lm is None:
            raise SoftlensError(
                f"This needs the LM {self.given.lm.name!r} (checksum {self.given.lm.checksum}), "
                "which is not at hand: only what the file has is shown. Load it, and inspect "
                "again with sl.inspect(lm, run)."
            )
        return self.lm

    def choose(self, position: int) -> None:
        """Look at `position`."""
        self.chosen = self.draft.checked(position)

    def become(self, draft: Draft) -> None:
        """Take another draft; `undo` goes back.

        Raises:
            SoftlensError: a token id outside the vocabulary.
        """
        lm = self.ready
        for slot in draft.slots:
            if slot.token_id is not None and not 0 <= slot.token_id < lm.vocab_size:
                raise SoftlensError(
                    f"Got token id {slot.token_id}, wanted 0 to {lm.vocab_size - 1}, the rows of "
                    f"the embedding of {lm.name!r}."
                )
        if draft != self.draft:
            self._past = [*self._past[1 - UNDO :], self.draft]
            self.draft = draft

    def undo(self) -> None:
        """Go back by one edit, if there was one."""
        if self._past:
            self.draft = self._past.pop()

    def id_of(self, word: str, position: int) -> int:
        """The one token that `word` is at `position`.

        Raises:
            PiecesError: it is several tokens, which are in the error.
            SoftlensError: it is empty, or no word the LM knows.
        """
        lm = self.ready
        self.draft.checked(position)
        if not word.strip():
            raise SoftlensError("Got an empty word, wanted one to put there. Or drop the position.")
        ids = lm.encode(word, leading_space=position > 0 or self.inside)
        if len(ids) == 1 and ids[0] not in lm.special_ids:
            return ids[0]
        if any(i in lm.special_ids for i in ids):
            words = [lm.token(i).strip() for i in lm.ordinary_ids.tolist()]
            raise SoftlensError(
                f"{word!r} is no word of {lm.name!r}.{near(word, words)} Type one that it knows, "
                "or choose one of the nearest tokens."
            )
        pieces = [lm.token(i) for i in ids]
        raise PiecesError(
            f"{word!r} is {len(ids)} tokens for {lm.name!r}: {pieces}. A position holds one: "
            "choose one of the pieces, or type another word.",
            tuple(ids),
        )

    @property
    def prompt(self) -> Prompt | None:
        """The prompt as it is now; None where every position is dropped."""
        return self.given if self.lm is None else self.draft.prompt(self.lm)

    # -- names --------------------------------------------------------------------------------

    @cached_property
    def named(self) -> tuple[int, ...]:
        """A token to name each position of the given prompt by: its own, or the nearest."""
        return position_ids(self.ready, self.given)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """A token to name each position by."""
        if self.lm is not None:
            return self.draft.token_ids(self.named)
        if self.given.token_ids is not None:
            return self.given.token_ids
        if self.replay is not None:
            return self.replay.at(-1).token_ids
        return (-1,) * self.given.length

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text of each of these tokens, for views."""
        return tuple("?" if i < 0 else name_of(self.lm, i) for i in self.token_ids)

    @property
    def names_given(self) -> tuple[str, ...]:
        """The same of the prompt as it was given."""
        return tuple(name_of(self.lm, i) for i in self.named)

    @property
    def inside(self) -> bool:
        """Whether something stands before the prompt, so that its text has a leading space."""
        return stands_inside(self.task)

    @property
    def scored(self) -> str:
        """What the LM is fed."""
        if not self.draft.present:
            return "nothing"
        slots = [self.draft.slots[i] for i in self.draft.present]
        free = sum(s.state == MASKED or (s.state == KEPT and not self.given.is_hard) for s in slots)
        if not free:
            return "tokens"
        if free == len(slots):
            return "soft vectors"
        return f"tokens, and soft vectors at {free} of {len(slots)} positions"

    # -- measuring ----------------------------------------------------------------------------

    def prepare(self, progress: bool = True) -> None:
        """Measure what is seen first, with a bar where that takes more than about two seconds."""
        if self.sample is None:
            return
        draft = self.draft
        prompts = [draft.vectors(self.ready), draft.dropped(self.chosen).vectors(self.ready)]
        prompts += self.sample.held_against(self.given.length)
        work = len(prompts) * len(self.sample) * self.ready.parameters
        quick = work < SECONDS_OF_WORK
        for rows in tqdm(prompts, desc="prompts", leave=False, disable=quick or not progress):
            self.sample.outcome(rows)

    def outcome(self, draft: Draft) -> Outcome | None:
        """What a draft does on the sample; None without a task."""
        if self.sample is None:
            return None
        return self.sample.outcome(draft.vectors(self.ready))

    def controls(self) -> Controls | None:
        """What it is held against; None without a task."""
        if self.sample is None:
            return None
        return self.sample.controls(self.given.length)

    def nats(self, draft: Draft) -> np.ndarray:
        """Surprisal of each position that is present, of the tokens it is named by; nats."""
        lm = self.ready
        named = draft.token_ids(self.named)
        ids = tuple(named[i] for i in draft.present)
        if not ids:
            return np.empty(0)
        return self.memory.get_or(
            ("nats", ids), lambda: token_surprisal(lm, [ids])[0, 0].cpu().double().numpy()
        )

    def numbers(self) -> pd.DataFrame:
        """The draft beside what was given, the draft without the chosen position, and controls.

        Columns: ``scored, text, accuracy, label_mass, loss_nats, nats_per_token, changed``: the
        number of predictions that differ from those of the prompt as it was given.
        """
        drafts = {
            NOW: self.draft,
            GIVEN: Draft.of(self.given),
            f"without position {self.chosen}": self.draft.dropped(self.chosen),
        }
        rows: list[dict[str, Any]] = []
        given = self.outcome(drafts[GIVEN])
        for scored, draft in drafts.items():
            nats = self.nats(draft)
            rows.append(
                {
                    "scored": scored,
                    "text": self.text_of(draft),
                    **_measured(self.outcome(draft), given),
                    "nats_per_token": nats.mean() if len(nats) else np.nan,
                }
            )
        controls = self.controls()
        if controls is not None:
            for scored, text, nats_per_token, outcomes in (
                ("best readable", controls.readable_text, controls.readable_nats,
                 [controls.readable]),
                (f"random, mean of {len(controls.random)}", "", controls.random_nats,
                 controls.random),
                ("empty", "", np.nan, [controls.empty]),
            ):  # fmt: skip
                each = [_measured(one, given) for one in outcomes if one is not None]
                if each:
                    means = pd.DataFrame(each).mean()
                    held = {"scored": scored, "text": text, **means}
                    rows.append({**held, "nats_per_token": nats_per_token})
        columns = ["scored", "text", "accuracy", "label_mass", "loss_nats", "nats_per_token"]
        return pd.DataFrame(rows).reindex(columns=[*columns, "changed"])

    def text_of(self, draft: Draft) -> str:
        """The tokens that are present, decoded; of soft positions, the nearest ones."""
        lm = self.ready
        named = draft.token_ids(self.named)
        return lm.decode([named[i] for i in draft.present]).strip()

    def changed(self) -> list[int]:
        """Texts of the sample whose prediction differs from that of the prompt as given."""
        now, given = self.outcome(self.draft), self.outcome(Draft.of(self.given))
        if now is None or given is None:
            return []
        return np.flatnonzero(now.predicted != given.predicted).tolist()

    def neighbours(self, k: int = 8) -> pd.DataFrame:
        """The tokens nearest to what stands at the chosen position: ``token_id, token, score``."""
        lm = self.ready
        if self.metric not in METRICS:
            raise SoftlensError(
                f"Got metric {self.metric!r}, wanted {METRICS}.{near(self.metric, METRICS)}"
            )
        draft = self.draft
        if draft.slots[self.chosen].state in (DROPPED, MASKED):
            draft = draft.restored(self.chosen)
        row = draft.vectors(lm)[draft.present.index(self.chosen)][None]
        key = ("near", self.metric, k, row.cpu().numpy().tobytes())
        frame = self.memory.get_or(key, lambda: nearest_tokens(lm, row, k, self.metric).frame)
        return frame[["token_id", "token", "score"]]

    def answers(self, k: int = 5) -> pd.DataFrame:
        """Probabilities after the chosen text: ``token_id, answer, now, as given, empty``.

        The label words come first, then the other ones of the `k` most probable tokens now.
        """
        lm, at = self.ready, self.text
        if self.sample is None or self.task is None:
            raise SoftlensError("Answers need a task: sl.inspect(lm, prompt, task).")
        if not 0 <= at < len(self.sample):
            raise SoftlensError(f"Got text {at}, wanted 0 to {len(self.sample) - 1}.")
        prompts = [draft.vectors(lm) for draft in (self.draft, Draft.of(self.given))]
        found = self.sample.shares([*prompts, no_vectors(lm)], at)
        words = self.sample.words.tolist()
        likely = [i for i in found[0].topk(k).indices.tolist() if i not in words]
        ids = [*words, *likely]
        names = [*self.task.label_words, *(lm.token(i) for i in likely)]
        columns = dict(zip((NOW, GIVEN, "empty"), found[:, ids].double().numpy(), strict=True))
        return pd.DataFrame({"token_id": ids, "answer": names, **columns})


def _measured(outcome: Outcome | None, given: Outcome | None) -> dict[str, float]:
    if outcome is None or given is None:
        return {}
    return {
        "accuracy": outcome.accuracy,
        "label_mass": outcome.label_mass,
        "loss_nats": outcome.loss,
        "changed": float((outcome.predicted != given.predicted).sum()),
    }
