"""The inspector: a prompt in the notebook, to be turned over in one's hands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import matplotlib.pyplot as plt
import pandas as pd
from tqdm.auto import tqdm

from softlens import files, plots
from softlens.display import visible
from softlens.errors import SoftlensError
from softlens.framework import faithfulness
from softlens.prompts import Prompt
from softlens.readings import Reading, read
from softlens.widgets import positions, static, testset, views
from softlens.widgets.draft import Draft
from softlens.widgets.elements import Boxes
from softlens.widgets.panel import Panel, row
from softlens.widgets.panels import (
    PositionPanel,
    ReadingsPanel,
    SavePanel,
    TextsPanel,
    TrainingPanel,
)
from softlens.widgets.replay import training
from softlens.widgets.shades import COLOURS, shaded
from softlens.widgets.shell import Shell
from softlens.widgets.workbench import Workbench

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Inspector(Shell):
    """An inspector in the notebook. Whatever can be clicked can be called, too.

    Attributes:
        bench: the state, without any widget.
        widget: the ipywidgets box that is shown.
        read_so_far: readings, each with its tested numbers as text, and the draft that it reads.
        tested: the draft that was scored on the test texts last, and its numbers; or None.
    """

    def __init__(
        self,
        bench: Workbench,
        readings: Sequence[Reading | str] = (),
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.bench = bench
        self.read_so_far: list[tuple[Reading, dict[str, str], Draft]] = []
        self.tested: tuple[Draft, pd.DataFrame] | None = None
        self._curves: bytes | None = None
        quick = bench.lm is None or bench.lm.is_small
        for reading in tqdm(readings, "readings", leave=False, disable=quick or not progress):
            self._test_reading(reading)
        self._build()
        self.refresh()

    # -- what is here -------------------------------------------------------------------------

    @property
    def prompt(self) -> Prompt | None:
        """The prompt as it is now; None, the empty prompt, where every position is dropped."""
        return self.bench.prompt

    @property
    def numbers(self) -> pd.DataFrame:
        """The prompt as it is now beside what was given and the controls, on the sample.

        ``scored, text, accuracy, label_mass, loss_nats, nats_per_token, changed``: the last is the
        number of predictions that differ from those of the prompt as it was given.
        """
        return self.bench.numbers()

    @property
    def frame(self) -> pd.DataFrame:
        """A row a position: ``position, token_id, token, state``, and what colours the boxes."""
        bench = self.bench
        lm = bench.lm
        # Not the pieces, which show half characters as no file can hold them.
        names = bench.pieces if lm is None else [lm.token(i) for i in bench.token_ids]
        frame = pd.DataFrame(
            {
                "position": range(bench.given.length),
                "token_id": bench.token_ids,
                "token": names,
                "state": [slot.state for slot in bench.draft.slots],
            }
        )
        if lm is not None:
            shade = shaded(bench)
            frame[f"{shade.measure}_{shade.unit}".replace("cosine_", "")] = shade.values
        return frame

    def __repr__(self) -> str:
        if self.bench.lm is None:
            return f"Inspector({self.bench.given!r}, read only: its LM is not at hand)"
        text = self.bench.text_of(self.bench.draft)
        return f"Inspector({text!r})\n{visible(self.numbers).to_string(index=False)}"

    # -- what can be done ---------------------------------------------------------------------

    def choose(self, position: int) -> None:
        """Look at `position`."""
        self.bench.choose(position)
        self.refresh()

    def replace(self, position: int, token: str | int) -> None:
        """Put another token at `position`: a word, or a token id.

        Raises:
            SoftlensError: the word is not one token (the error has its pieces), or is unknown.
        """
        index = self.bench.id_of(token, position) if isinstance(token, str) else token
        self._become(self.bench.draft.replaced(position, index), position)

    def drop(self, position: int) -> None:
        """Take `position` out; what follows moves up."""
        self._become(self.bench.draft.dropped(position), position)

    def mask(self, position: int) -> None:
        """Put the mean of the LM's embedding at `position`."""
        self._become(self.bench.draft.masked(position), position)

    def restore(self, position: int) -> None:
        """Put back what was given at `position`."""
        self._become(self.bench.draft.restored(position), position)

    def restore_all(self) -> None:
        """Put back the whole prompt."""
        self._become(Draft.of(self.bench.given), self.bench.chosen)

    def undo(self) -> None:
        """Take the last edit back."""
        self.bench.undo()
        self.refresh()

    def put(self, token_ids: Sequence[int]) -> None:
        """Put these tokens at all positions, in one edit."""
        draft = self.bench.draft
        if len(token_ids) != len(draft.slots):
            raise SoftlensError(
                f"Got {len(token_ids)} tokens for {len(draft.slots)} positions, wanted as many."
            )
        for position, index in enumerate(token_ids):
            draft = draft.replaced(position, index)
        self._become(draft, self.bench.chosen)

    def _become(self, draft: Draft, position: int) -> None:
        self.bench.become(draft)
        self.bench.choose(position)
        self.refresh()

    def colour(self, measure: str) -> None:
        """Colour the boxes by "cosine", "surprisal" or "attribution"."""
        before, self.bench.measure = self.bench.measure, measure
        try:
            shaded(self.bench)
        except BaseException:
            self.bench.measure = before
            raise
        self.refresh(numbers=False)

    def read(self, method: str = "nearest", **options: Any) -> Reading:
        """Read the prompt as it is now, and test the reading (see `softlens.faithfulness`)."""
        lm, prompt = self.bench.ready, self.prompt
        if prompt is None:
            raise SoftlensError("The empty prompt says nothing: restore a position first.")
        found = read(lm, prompt, method, self.bench.task, progress=False, **options)
        self._test_reading(found)
        self.refresh(numbers=False)
        return found

    def _test_reading(self, reading: Reading | str) -> None:
        lm, task = self.bench.ready, self.bench.task
        if isinstance(reading, str):
            reading = Reading.from_text(lm, reading, task=task)
        reading.check(lm)
        tested: dict[str, str] = {}
        if task is not None:
            found = faithfulness(lm, task, self.prompt, reading)
            tested = views.tested_reading(found)
        self.read_so_far.append((reading, tested, self.bench.draft))

    @property
    def tested_now(self) -> bool:
        """Whether the test texts were scored under the prompt as it is now."""
        return self.tested is not None and self.tested[0] == self.bench.draft

    def score_on_test(self, progress: testset.Progress = lambda done, of: None) -> pd.DataFrame:
        """The prompt as it is now on the whole test split, beside what was given and the controls.

        ``scored, accuracy, label_mass, loss_nats``; `progress` hears of pairs of a prompt
        and a text that are done, and of all: those of the controls are among them.
        """
        found = testset.score(self.bench, progress)
        self.tested = self.bench.draft, found
        self.refresh(numbers=False)
        return found

    # -- files --------------------------------------------------------------------------------

    def plot(self, ax: Axes | None = None) -> Axes:
        """The positions as coloured boxes, as they are now."""
        shade = shaded(self.bench)
        return plots.plot_tokens(
            self.bench.pieces, shade.values, shade.unit, ax, signed=shade.signed
        )

    def save(self, path: str | Path) -> list[Path]:
        """Write what is seen: the positions as PNG, PDF and CSV, the numbers as another CSV.

        Args:
            path: where, without a suffix.
        """
        if not str(path).strip():
            raise SoftlensError("Got no name for the files, wanted one, as 'inspected'.")
        path = Path(path)
        figure = self.plot().figure
        try:
            written = plots.save(figure, path, self.frame)  # type: ignore[arg-type]
        except OSError as reason:
            raise SoftlensError(
                f"Cannot write {path}: {reason.strerror or reason}. Give another name."
            ) from reason
        finally:
            plt.close(figure)  # type: ignore[arg-type]
        written.append(path.with_name(path.name + "_numbers.csv"))
        files.write_atomic(written[-1], self.numbers.to_csv(index=False).encode())
        return written

    def curves(self) -> bytes:
        """The run's training as a PNG, drawn once; empty without a run."""
        run = self.bench.run
        if run is not None and self._curves is None:
            self._curves = training(run)
        return self._curves or b""

    # -- widgets ------------------------------------------------------------------------------

    def _build(self) -> None:
        bench = self.bench
        self.title, self.scale, self.measured = w.HTML(), w.HTML(), w.HTML()
        self.measured.add_class("softlens-numbers")
        self.boxes = Boxes(
            self._chosen, label="positions of the prompt", selects=bench.lm is not None
        )
        self.boxes.add_class("softlens-prompt")
        self.colours = w.Dropdown(
            options=COLOURS[: 3 if bench.task is not None else 2],
            value=bench.measure,
            description="colour by",
            layout=w.Layout(width="auto", min_width="14em"),
        )
        self.colours.add_class("softlens-colours")
        self.colours.observe(self._coloured, "value")
        self.panels: list[Panel] = []
        if bench.lm is not None:
            self.panels.append(PositionPanel(self))
        if bench.sample is not None:
            self.panels.append(TextsPanel(self))
        if bench.replay is not None:
            self.panels.append(TrainingPanel(self))
        if bench.lm is not None:
            self.panels += [ReadingsPanel(self), SavePanel(self)]
        self.tabs = w.Tab(
            [panel.widget for panel in self.panels], titles=[panel.name for panel in self.panels]
        )
        self.tabs.observe(self._turned, "selected_index")
        parts: list[w.Widget] = [self.title]
        parts.append(row(self.colours, self.scale) if bench.lm is not None else self.scale)
        parts += [self.boxes, self.measured]
        if self.panels:
            parts.append(self.tabs)
        self.show(parts)

    @property
    def front(self) -> Panel | None:
        """The panel that is seen."""
        index = self.tabs.selected_index
        return self.panels[index] if self.panels and index is not None else None

    def _chosen(self, index: int) -> None:
        with self.safely():
            if self.bench.lm is not None:
                self.choose(index)

    def _coloured(self, change: Any) -> None:
        if change["new"] == self.bench.measure:
            return
        with self.safely():
            try:
                self.colour(change["new"])
            finally:
                # That of before, where it failed or was interrupted.
                self.colours.value = self.bench.measure

    def _turned(self, _: Any) -> None:
        with self.safely():
            self.refresh(numbers=False)

    def refresh(self, numbers: bool = True) -> None:
        """Show the present state: numbers first, then the boxes, then the panel in front."""
        bench = self.bench
        if bench.lm is None:
            self.measured.value = views.read_only(bench)
            self.boxes.items = positions.items(bench, None)
        else:
            if numbers:
                self.measured.value = views.numbers(bench, bench.numbers())
            shade = shaded(bench)
            self.boxes.chosen = bench.chosen
            self.boxes.items = positions.items(bench, shade)
            self.scale.value = positions.scale(shade)
            if self.colours.value != bench.measure:
                self.colours.value = bench.measure
        self.title.value = views.title(bench)
        if self.front is not None:
            self.front.fill()
        self.keep()

    def page(self) -> str:
        """The static view, as HTML."""
        return static.page(self)

    def close(self) -> None:
        """Take the inspector off the page, and free what it holds; the static view stays."""
        super().close()
        self.panels, self.read_so_far = [], []
        self._curves, self.tested = None, None
