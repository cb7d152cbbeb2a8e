"""A prompt under edit: what was given, and what stands at each position now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from softlens.attribution.game import stand_ins
from softlens.errors import SoftlensError
from softlens.lm import LM
from softlens.prompts import Prompt

KEPT, REPLACED, DROPPED, MASKED = "kept", "replaced", "dropped", "masked"


@dataclass(frozen=True)
class Slot:
    """What stands at a position."""

    state: str = KEPT
    """One of "kept", "replaced", "dropped", "masked" (the mean embedding stands there)."""
    token_id: int | None = None
    """The token of a replaced position."""


@dataclass(frozen=True)
class Draft:
    """A prompt with its edits; every edit gives another draft."""

    given: Prompt
    """The prompt before any edit."""
    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, prompt: Prompt) -> Draft:
        """`prompt` without any edit."""
        return cls(prompt, (Slot(),) * prompt.length)

    @property
    def edited(self) -> tuple[int, ...]:
        """Positions that are no longer what was given."""
        return tuple(i for i, slot in enumerate(self.slots) if slot.state != KEPT)

    @property
    def present(self) -> tuple[int, ...]:
        """Positions that are not dropped."""
        return tuple(i for i, slot in enumerate(self.slots) if slot.state != DROPPED)

    def replaced(self, position: int, token_id: int) -> Draft:
        """With another token at `position`; its own one restores it."""
        self.checked(position)
        if self.given.token_ids is not None and self.given.token_ids[position] == token_id:
            return self.restored(position)
        return self._with(position, Slot(REPLACED, int(token_id)))

    def dropped(self, position: int) -> Draft:
        """Without `position`: what follows moves up."""
        return self._with(self.checked(position), Slot(DROPPED))

    def masked(self, position: int) -> Draft:
        """With the mean of the LM's embedding at `position`."""
        return self._with(self.checked(position), Slot(MASKED))

    def restored(self, position: int) -> Draft:
        """With what was given at `position`."""
        return self._with(self.checked(position), Slot())

    def _with(self, position: int, slot: Slot) -> Draft:
        slots = list(self.slots)
        slots[position] = slot
        return replace(self, slots=tuple(slots))

    def checked(self, position: int) -> int:
        """`position`, if the prompt has it.

        Raises:
            SoftlensError: it has not.
        """
        if not 0 <= position < len(self.slots):
            raise SoftlensError(
                f"Got position {position}, wanted 0 to {len(self.slots) - 1}: the prompt has "
                f"{len(self.slots)} positions."
            )
        return position

    def vectors(self, lm: LM) -> Float[Tensor, "present hidden"]:
        """What the LM is fed: the positions that are present, in order."""
        rows = self.given.vectors.to(lm.device)
        if not self.edited:
            return rows
        rows = rows.clone()
        for position in self.edited:
            slot = self.slots[position]
            if slot.state == MASKED:
                rows[position] = stand_ins(lm, 1, "mean_embedding", 0)[0, 0]
            elif slot.token_id is not None:
                rows[position] = lm.embedding[slot.token_id]
        return rows[list(self.present)]

    def token_ids(self, named: Sequence[int]) -> tuple[int, ...]:
        """A token to name each position by: its own, or what `named` has for the given prompt.

        A dropped or masked position keeps the name of what stood there.
        """
        tokens = (slot.token_id for slot in self.slots)
        return tuple(n if t is None else t for n, t in zip(named, tokens, strict=True))

    def prompt(self, lm: LM) -> Prompt | None:
        """The draft as a `Prompt`: hard if all its positions are tokens; None if none is left."""
        if not self.present:
            return None
        if not self.edited:
            return self.given
        slots = [self.slots[i] for i in self.present]
        free = any(s.state == MASKED or (s.state == KEPT and not self.given.is_hard) for s in slots)
        if free:
            made = Prompt.soft(lm, self.vectors(lm))
        else:
            # Positions of a soft prompt are all replaced here, or dropped.
            ids = self.token_ids(self.given.token_ids or (0,) * len(self.slots))
            made = Prompt.from_ids(lm, [ids[i] for i in self.present])
        return replace(made, template=self.given.template)


def without(lm: LM, draft: Draft, position: int) -> Float[Tensor, "present hidden"]:
    """The vectors of `draft` without `position`."""
    return draft.dropped(position).vectors(lm)


def no_vectors(lm: LM) -> Float[Tensor, "0 hidden"]:
    """The empty prompt."""
    return torch.empty(0, lm.hidden_size, device=lm.device)
