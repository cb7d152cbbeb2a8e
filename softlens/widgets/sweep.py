"""Many runs as points, each to be looked at and opened."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

import ipywidgets as w
import pandas as pd

from softlens.display import number, show_text
from softlens.errors import SoftlensError
from softlens.lm import LM, load_lm
from softlens.lm.sources import BUNDLED
from softlens.prompts import Prompt
from softlens.runs import Run
from softlens.tasks import Task
from softlens.widgets import views
from softlens.widgets.elements import Points
from softlens.widgets.inspector import Inspector
from softlens.widgets.opening import bundled_task, inspect
from softlens.widgets.panel import button, row
from softlens.widgets.replay import training
from softlens.widgets.runs import GAUGES, checked
from softlens.widgets.scatter import Point, scatter
from softlens.widgets.shell import Shell
from softlens.widgets.static import wrap

CONTROLS = {
    "readable_accuracy": "best readable",
    "random_accuracy": "random",
    "empty_accuracy": "empty",
}
ALL = "all"


class SweepInspector(Shell):
    """Runs of a sweep as points. Whatever can be clicked can be called, too.

    Attributes:
        frame: the finished runs, one row each, numbered from 0.
        opened: the inspector of the run that was opened last, or None.
    """

    def __init__(self, table: Any, lm: LM | None = None, task: Task | None = None) -> None:
        super().__init__()
        self._sweep = table if hasattr(table, "run") else None
        self.frame = checked(table)
        self._lm, self._task = lm, task
        self.gauges = [
            gauge for gauge in GAUGES if gauge in self.frame and self.frame[gauge].notna().any()
        ]
        if not self.gauges:
            raise SoftlensError(f"The table has no gauge to draw, wanted one of {[*GAUGES]}.")
        self.method, self.setting, self.gauge = ALL, ALL, self.gauges[0]
        self.chosen: int | None = None
        self.opened: Inspector | None = None
        self._run: Run | None = None
        self._build()
        self.refresh()

    def __repr__(self) -> str:
        return f"SweepInspector({len(self.frame)} runs of {sorted(set(self.frame['method']))})"

    # -- what can be done ---------------------------------------------------------------------

    @property
    def shown(self) -> pd.DataFrame:
        """The runs in the picture."""
        frame = self.frame
        if self.method != ALL:
            frame = frame[frame["method"] == self.method]
        if self.setting != ALL:
            frame = frame[frame["setting"] == self.setting]
        return frame[frame[self.gauge].notna() & frame["accuracy"].notna()]

    def select(
        self, method: str | None = None, setting: str | None = None, gauge: str | None = None
    ) -> None:
        """Show the runs of one method, of one setting of the proxies, or along another gauge.

        "all" shows all of them, None leaves a choice as it is.
        """
        asked = {"method": method, "setting": setting, "gauge": gauge}
        asked = {name: value for name, value in asked.items() if value is not None}
        for name, value in asked.items():
            known = self.gauges if name == "gauge" else [ALL, *self.frame[name]]
            if value not in known:
                raise SoftlensError(
                    f"Got {name} {value!r}, wanted one of {list(dict.fromkeys(known))}."
                )
        for name, value in asked.items():
            setattr(self, name, value)
            self.selectors[name].value = value
        self.refresh()

    def choose(self, index: int) -> None:
        """Look at the run in row `index` of `frame`."""
        if index not in self.frame.index:
            raise SoftlensError(f"Got run {index}, wanted 0 to {len(self.frame) - 1}.")
        run = None
        if self._sweep is not None and "cell" in self.frame:
            run = self._sweep.run(self.frame.loc[index, "cell"])
        self.chosen, self._run = int(index), run
        self.refresh()

    def open(self) -> Inspector:
        """Open the chosen run in an inspector.

        Raises:
            SoftlensError: none is chosen; its LM is not at hand; it has no tokens.
        """
        if self.chosen is None:
            raise SoftlensError("No run is chosen: press a point, or call choose(row).")
        one = self._row(self.chosen)
        lm = self._lm_of(one)
        what: Run | Prompt | None = self._run
        task = self._task
        if what is None:
            ids = str(one.get("token_ids", "") or "").split()
            if not ids:
                raise SoftlensError(
                    "The table does not have this run's vectors: it is of a soft prompt. Give the "
                    "sweep itself, whose store has them: sl.inspect_sweep(sl.load_sweep(store))."
                )
            what = Prompt.from_ids(lm, [int(i) for i in ids])
            task = task or bundled_task(str(one.get("task", "")))
        opened, before = inspect(lm, what, task), self.opened
        opened.within, self.opened = self, opened
        self.place.children = (opened.widget,)
        if before is not None:
            before.close()
        self.keep()
        return opened

    def _row(self, index: int) -> dict[str, Any]:
        return {str(key): value for key, value in self.frame.loc[index].to_dict().items()}

    def _lm_of(self, one: dict[str, Any]) -> LM:
        name = str(one.get("lm", ""))
        if self._lm is None and name in BUNDLED:
            self._lm = load_lm(name)
        checksum = one.get("lm_checksum")
        if self._lm is None or (checksum and checksum != self._lm.checksum):
            here = "none is given" if self._lm is None else f"this is {self._lm.name!r}"
            raise SoftlensError(
                f"This run is of the LM {name!r} (checksum {checksum}), and {here}. Load it, and "
                "pass it: sl.inspect_sweep(table, lm=lm)."
            )
        return self._lm

    # -- widgets ------------------------------------------------------------------------------

    def _build(self) -> None:
        self.title, self.details = w.HTML(), w.HTML()
        self.details.add_class("softlens-details")
        self.points = Points(
            self._pressed, hint="Hover over a point, or press it. Arrow keys go from run to run."
        )
        self.points.add_class("softlens-runs")
        choices = {
            "method": [ALL, *dict.fromkeys(self.frame["method"])],
            "setting": [ALL, *dict.fromkeys(self.frame["setting"])],
            "gauge": [(GAUGES[gauge], gauge) for gauge in self.gauges],
        }
        self.selectors = {}
        for name, options in choices.items():
            made = w.Dropdown(
                options=options, value=getattr(self, name), description=name,
                layout=w.Layout(width="auto", min_width="13em", max_width="24em"),
            )  # fmt: skip
            made.add_class(f"softlens-{name}")
            made.observe(lambda change, name=name: self._selected(name, change["new"]), "value")
            self.selectors[name] = made
        self.go = button("Open in the inspector", "edit and test this prompt", self._opened)
        self.go.add_class("softlens-open")
        self.place = w.VBox()
        self.show(
            [self.title, row(*self.selectors.values()), self.points, self.details, row(self.go),
             self.place]
        )  # fmt: skip

    def _pressed(self, index: int) -> None:
        with self.safely():
            self.choose(index)

    def _selected(self, name: str, value: str) -> None:
        if value == getattr(self, name):
            return
        with self.safely():
            self.select(**{name: value})

    def _opened(self) -> None:
        with self.safely():
            self.open()

    def refresh(self) -> None:
        """Draw what is selected, and describe what is chosen."""
        shown = self.shown
        left_out = len(self.frame) - len(shown)
        self.title.value = (
            f"<b>{len(shown)} of {len(self.frame)} runs</b>"
            + (f' <span class="dim">({left_out} left out)</span>' if left_out else "")
            + '<span class="dim">; test accuracy; lines are the means of the controls</span>'
        )
        self.points.svg = self._picture()
        self.details.value = self._described()
        self.go.disabled = self.chosen is None
        self.keep()

    def _picture(self, paper: bool = False) -> str:
        shown = self.shown
        if shown.empty:
            return '<p class="dim">No run of this selection has an accuracy and this gauge.</p>'
        points = [
            Point(index, one[self.gauge], one["accuracy"], str(one["method"]), self._label(one))
            for index, one in zip(shown.index.tolist(), shown.to_dict("records"), strict=True)
        ]  # fmt: skip
        lines = {
            name: float(shown[column].mean())
            for column, name in CONTROLS.items()
            if column in shown and shown[column].notna().any()
        }
        return scatter(points, GAUGES[self.gauge], "test accuracy", self.chosen, lines, paper)

    def _label(self, one: Mapping[Any, Any]) -> str:
        return (
            f"{one['method']}, {one['setting']}, seed {one['seed']}: accuracy "
            f"{number(one['accuracy'])}, {GAUGES[self.gauge]} {number(one[self.gauge])}; reads "
            f"{show_text(str(one['text']))}"
        )

    def _described(self) -> str:
        """The chosen run: its text, its gauges beside its controls, its training."""
        if self.chosen is None:
            return '<span class="dim">No run is chosen.</span>'
        one = self._row(self.chosen)
        known = ["accuracy", *CONTROLS, *(g for g in self.gauges if g != "accuracy")]
        cells = {c.replace("_", " "): [number(float(one[c]))] for c in known if c in one}
        parts = [
            f"<div><b>{views.shown(str(one['text']))}</b> <span class=dim>("
            f"{html.escape(str(one['method']))}, {html.escape(str(one['setting']))}, seed "
            f"{views.shown(str(one['seed']))})</span></div>",
            views.table(pd.DataFrame(cells)),
        ]
        if self._run is not None:
            parts.append(views.curves(training(self._run)))
        return "".join(parts)

    def page(self) -> str:
        """The static view, as HTML."""
        picture = self._picture(paper=True)
        if picture.startswith("<svg"):
            data = base64.b64encode(picture.encode()).decode()
            words = f"{len(self.shown)} runs: test accuracy against {GAUGES[self.gauge]}"
            picture = (
                f'<img alt="{html.escape(words)}" style="max-width:100%" '
                f'src="data:image/svg+xml;base64,{data}">'
            )
        parts = [self.title.value, picture, self.details.value]
        if self.opened is not None:
            parts.append(self.opened.page())
        return wrap(self.live.name, parts)

    def close(self) -> None:
        """Take the widget off the page, and free what it holds; the static view stays."""
        if self.opened is not None:
            self.opened.close()
        super().close()
        self.opened, self._run, self._sweep = None, None, None


def inspect_sweep(table: Any, lm: LM | None = None, task: Task | None = None) -> SweepInspector:
    """Runs of a sweep as points on accuracy and surprisal, each to be looked at and opened.

    Args:
        table: a sweep, or its frame: a row a run, at least with ``method, seed, text, accuracy``
            and one of the gauges. The training of a run is shown where a sweep has it.
        lm: the LM of the runs, to open one in an inspector; None loads a bundled one.
        task: the task of the runs; None is the bundled one that a table names, and that the runs
            of a sweep were tuned on.

    Raises:
        SoftlensError: an empty table, or one that lacks these columns or all accuracies.
    """
    return SweepInspector(table, lm, task)
