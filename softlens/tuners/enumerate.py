"""The gold on the organism: every question of its language is a candidate."""

from typing import ClassVar

from pydantic import Field

from softlens.errors import SoftlensError
from softlens.lm import LM
from softlens.organism.grammar import grammar
from softlens.tuners.base import TunerOptions
from softlens.tuners.pool import Row
from softlens.tuners.sample import SearchOptions, SearchTuner, usual_budget

FINALISTS = 64


class EnumerateOptions(SearchOptions):
    """Options of `enumerate`, which spends what it needs and has no budget."""

    texts: int = Field(default=48, ge=1, description="training texts that every question is asked")

    def for_lm(self, lm: LM) -> "EnumerateOptions":
        """Refuse a budget, but for the usual one, which the settled options bear."""
        settled = self.model_copy(update={"evaluations": usual_budget(lm)})
        if self.evaluations not in (None, settled.evaluations):
            raise SoftlensError(
                f"Got evaluations={self.evaluations}, but 'enumerate' asks about every question of "
                "the language, and spends what that takes. Leave evaluations= out and lower "
                "texts=, or use 'race' or 'tandem', which keep to a budget."
            )
        return settled


class EnumerateTuner(SearchTuner):
    """Every question of the organism's grammar, then all training texts for the best of them."""

    Options: ClassVar[type[TunerOptions]] = EnumerateOptions
    options: EnumerateOptions

    def step(self) -> dict[str, float]:
        """All of it."""
        p = self.problem
        self.pool.add([row for row in questions(p.lm, p.length) if all(p.allowed[list(row)])])
        if not len(self.pool):
            raise SoftlensError(
                f"No question of the language has {p.length} tokens that may be used. They have 5, "
                "or 6 with an opening word."
            )
        self.follow(self.pool)
        stages = [self.options.texts, len(p.train)]
        self.pool.race(stages, lambda texts, n: FINALISTS, after=self.follow)
        self.finished = "all questions asked"
        return self.row()


def questions(lm: LM, length: int) -> list[Row]:
    """The grammar's questions of `length` tokens.

    Raises:
        SoftlensError: `lm` is not an organism.
    """
    rows = []
    for follow_up in grammar().follow_ups:
        words = follow_up.text.split()
        rows.append(tuple(lm.encode(follow_up.text, leading_space=True)))
        # A word of its own may stand for all that are unknown.
        if len(rows[-1]) != len(words) or lm.decode(rows[-1]).split() != words:
            raise SoftlensError(
                f"'enumerate' asks every question of the organism's language, and {lm.name!r} does "
                "not speak it. On other LMs use 'sample', 'race' or 'tandem'."
            )
    return [row for row in rows if len(row) == length]
