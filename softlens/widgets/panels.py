"""The panels of an inspector: thin callbacks over its methods, each filled when it is looked at."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from softlens.display import show_text
from softlens.nearness import METRICS
from softlens.readings import reading_methods
from softlens.widgets import positions, views
from softlens.widgets.elements import Boxes
from softlens.widgets.panel import Panel, button, row
from softlens.widgets.workbench import PiecesError

_WIDE = w.Layout(width="auto", min_width="9em")


class PositionPanel(Panel):
    """The chosen position: what it is near to, and edits of it."""

    name = "Position"

    def build(self) -> list[w.Widget]:
        """Nearest tokens, a field for a word, and buttons."""
        self.title = w.HTML()
        self.near = Boxes(self.asked(self._take), label="nearest tokens: press one to put it here")
        self.near.add_class("softlens-near")
        self.metric = w.Dropdown(
            options=METRICS, value=self.bench.metric, description="nearest by", layout=_WIDE
        )
        self.metric.observe(self.asked(self._by), "value")
        self.word = w.Text(
            placeholder="a word, then Enter", description="or type", continuous_update=False,
            layout=w.Layout(width="17em"),
        )  # fmt: skip
        self.word.add_class("softlens-word")
        self.word.observe(self.asked(self._typed), "value")
        self.pieces = Boxes(self.asked(self._take), label="pieces of the word")
        self.pieces.add_class("softlens-pieces")
        edits = [
            ("Drop", "take the position out; what follows moves up", "drop"),
            ("Mask", "put the mean of the LM's embedding there", "mask"),
            ("Restore", "put back what was given at this position", "restore"),
            ("Restore all", "put back the whole prompt", "restore_all"),
            ("Undo", "take the last edit back", "undo"),
        ]
        self.buttons = [
            button(text, tip, self.asked(lambda name=name: self._edit(name)))
            for text, tip, name in edits
        ]
        for made, (_, _, name) in zip(self.buttons, edits, strict=True):
            made.add_class(f"softlens-{name.replace('_', '-')}")
        return [
            self.title,
            self.near,
            row(self.metric, self.word),
            self.pieces,
            row(*self.buttons),
        ]

    def fill(self) -> None:
        """The neighbours of the chosen position."""
        self.title.value = positions.position(self.bench)
        if any(item["key"][0] != self.bench.chosen for item in self.pieces.items):
            self._offer(())
        frame = self.bench.neighbours()
        self.near.items = positions.near_items(self.bench, frame)

    def _by(self, change: Any) -> None:
        self.bench.metric = change["new"]
        self.owner.refresh(numbers=False)

    def _take(self, key: tuple[int, int]) -> None:
        self.owner.replace(*key)
        self._offer(())
        self.word.value = ""

    def _offer(self, ids: tuple[int, ...]) -> None:
        self.pieces.items = positions.piece_items(self.bench, ids)

    def _typed(self, change: Any) -> None:
        if not change["new"]:
            return
        self._offer(())
        try:
            self.owner.replace(self.bench.chosen, change["new"])
        except PiecesError as several:
            self._offer(several.pieces)
            raise
        self.word.value = ""

    def _edit(self, name: str) -> None:
        self._offer(())
        act = getattr(self.owner, name)
        if name in ("undo", "restore_all"):
            act()
        else:
            act(self.bench.chosen)


class TextsPanel(Panel):
    """One text of the sample and its answers; what edits changed; all test texts on demand."""

    name = "Texts"

    def build(self) -> list[w.Widget]:
        """A picker, the answers, the changed predictions, and the test button."""
        assert self.bench.sample is not None
        assert self.bench.task is not None
        self.pick = w.Dropdown(
            options=[], description="text", layout=w.Layout(width="98%", max_width="60em")
        )
        self.pick.add_class("softlens-pick")
        self.only = w.Checkbox(
            description="only those whose prediction changed", indent=False, value=False
        )
        self.pick.observe(self.asked(self._picked), "value")
        self.only.observe(self.asked(lambda _: self.owner.refresh(numbers=False)), "value")
        self.answers, self.changed, self.tested = w.HTML(), w.HTML(), w.HTML()
        self.answers.add_class("softlens-answers")
        self.tested.add_class("softlens-tested")
        count = len(self.bench.task.test)
        self.test = button(
            f"Score on all {count} test texts",
            "the accuracy to report; do not choose an edit by it",
            self.asked(self._test),
        )
        self.test.add_class("softlens-test")
        self.bar = w.IntProgress(0, 0, count, description="scored")
        self.bar.layout.visibility = "hidden"
        self._filling = False
        return [
            self.pick,
            self.only,
            self.answers,
            self.changed,
            row(self.test, self.bar),
            self.tested,
        ]

    def fill(self) -> None:
        """The chosen text under the present prompt."""
        sample = self.bench.sample
        assert sample is not None
        which = self.bench.changed() if self.only.value else list(range(len(sample)))
        if which and self.bench.text not in which:
            self.bench.text = which[0]
        options = [(f"{i}: {show_text(sample.texts[i])[:110]}", i) for i in which]
        self._filling = True
        try:
            if list(self.pick.options) != options:
                self.pick.options = options
            self.pick.value = self.bench.text if which else None
        finally:
            self._filling = False
        self.answers.value = views.answers(self.bench, self.bench.answers())
        self.changed.value = views.changed(self.bench)
        self.tested.value = self._scored()

    def _scored(self) -> str:
        """The numbers on the test texts, unless they are of another draft."""
        if self.owner.tested is None:
            return ""
        if not self.owner.tested_now:
            return '<span class="dim">edited since; score again</span>'
        return views.tested(self.bench, self.owner.tested[1])

    def _picked(self, change: Any) -> None:
        if self._filling or change["new"] is None:
            return
        self.bench.text = change["new"]
        self.owner.refresh(numbers=False)

    def _test(self) -> None:
        self.bar.layout.visibility = "visible"
        self.test.disabled = True

        def progress(done: int, of: int) -> None:
            self.bar.max, self.bar.value = of, done

        try:
            self.owner.score_on_test(progress)
        finally:
            self.test.disabled = False
            self.bar.layout.visibility = "hidden"


class TrainingPanel(Panel):
    """The training, replayed step by step."""

    name = "Training"

    def build(self) -> list[w.Widget]:
        """A slider over steps, what stood there, and the curves."""
        replay = self.bench.replay
        assert replay is not None
        steps = replay.history["step"].tolist()
        self.slider = w.SelectionSlider(
            options=[(str(step), i) for i, step in enumerate(steps)],
            index=len(steps) - 1,
            description="step",
            readout=False,  # where one could type in vain; the step is said below
            layout=w.Layout(width="60%", min_width="16em"),
        )
        self.slider.add_class("softlens-step")
        # The front end holds values back while one is being answered and then sends the last, so
        # that a dragged slider leaves no queue behind.
        self.slider.observe(self.asked(self._moved), "value")
        self.play = w.Play(min=0, max=len(steps) - 1, interval=120, description="play")
        self.play.observe(self.asked(self._played), "value")
        self.moment = w.HTML()
        self.moment.add_class("softlens-moment")
        self.curves = w.HTML(views.curves(self.owner.curves()))
        parts: list[w.Widget] = [row(self.play, self.slider), self.moment]
        if self.bench.lm is not None:
            put = button(
                "Put these tokens into the prompt",
                "what did the prompt of this step do? Undo goes back",
                self.asked(self._take),
            )
            parts.append(row(put))
        return [*parts, self.curves]

    def fill(self) -> None:
        """The step that the slider is at."""
        replay = self.bench.replay
        assert replay is not None
        last = int(replay.history["step"].iloc[-1])
        self.moment.value = views.moment(replay.at(self.slider.index), last)

    def _moved(self, _: Any) -> None:
        self.fill()
        self.owner.keep()

    def _played(self, change: Any) -> None:
        self.slider.index = change["new"]

    def _take(self) -> None:
        replay = self.bench.replay
        assert replay is not None
        self.owner.put(replay.at(self.slider.index).token_ids)


class ReadingsPanel(Panel):
    """Readings side by side, with their faithfulness."""

    name = "Readings"

    def build(self) -> list[w.Widget]:
        """A method, a button, and the table."""
        methods = reading_methods()["method"].tolist()
        self.method = w.Dropdown(options=methods, description="method", layout=_WIDE)
        self.go = button("Read", "propose a text, and test it", self.asked(self._read))
        self.go.add_class("softlens-read")
        self.table = w.HTML()
        self.table.add_class("softlens-readings")
        return [row(self.method, self.go), self.table]

    def fill(self) -> None:
        """What was read so far."""
        self.table.value = views.readings(self.owner.read_so_far, self.bench.draft)

    def _read(self) -> None:
        self.go.disabled, self.go.description = True, "reading …"
        try:
            self.owner.read(self.method.value)
        finally:
            self.go.disabled, self.go.description = False, "Read"


class SavePanel(Panel):
    """Files of what is seen."""

    name = "Save"

    def build(self) -> list[w.Widget]:
        """A name and a button."""
        self.path = w.Text("inspected", description="files", layout=w.Layout(width="20em"))
        go = button("Save", "CSV tables and a PNG and PDF picture", self.asked(self._save))
        go.add_class("softlens-save")
        self.done = w.HTML(
            "Tables (CSV) and a picture (PNG, PDF) of what is seen, beside the notebook. The "
            "prompt itself is <code>inspector.prompt</code>."
        )
        return [self.done, row(self.path, go)]

    def fill(self) -> None:
        """What was written stays said, whatever is edited after."""

    def _save(self) -> None:
        written = self.owner.save(self.path.value)
        names = ", ".join(views.shown(path.name) for path in written)
        self.done.value = f"Written: {names}"
