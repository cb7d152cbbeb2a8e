"""The report: one prompt, its readings side by side, what they are worth, and the verdict."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd

from softlens import files
from softlens.display import Result, show_html
from softlens.errors import SoftlensError, near
from softlens.framework.criterion import Criterion, Verdict, judged
from softlens.framework.faithfulness import Faithfulness, faithfulness_all
from softlens.framework.scrutability import Scrutability, scrutability
from softlens.lm import LM
from softlens.prompts import LMName, Prompt
from softlens.readings import READERS, Reading, read
from softlens.readings.frame import frame_of
from softlens.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a1a1a}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}"
    "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
    "th,td{padding:3px 9px;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}"
    "img{max-width:100%}.verdict{font-weight:600;padding:.6rem .8rem;border-left:5px solid}"
    ".pass{border-color:#009e73}.fail{border-color:#d55e00}.note{color:#555}"
)


@dataclass(frozen=True, repr=False)
class Report(Result):
    """What one prompt says, and whether that can be trusted."""

    lm: LMName
    task: str
    template: str
    length: int
    """Positions of the prompt."""
    readings: tuple[Reading, ...]
    faithfulness: tuple[Faithfulness, ...]
    scrutability: tuple[Scrutability, ...]
    verdict: Verdict
    seconds: float
    """That the report took."""
    notes: tuple[str, ...] = field(default=())
    """What was left out, and why."""

    @property
    def frame(self) -> pd.DataFrame:
        """One row a reading, from ``method, reading`` to ``passed, failed`` (the clauses).

        Between them its faithfulness on test texts, with the ends of the interval of the share of
        KL closed, and every gauge.
        """
        rows = []
        for fit, gauges in zip(self.faithfulness, self.scrutability, strict=True):
            clauses = self.verdict.frame[self.verdict.frame["method"] == fit.reading.method]
            _, low, high = fit.interval("kl_closed")
            failed = [
                str(row["clause"]) for row in clauses.to_dict("records") if row["passed"] is False
            ]
            tokens = gauges.frame[gauges.frame["scored"] == "tokens"]
            rows.append(
                {
                    "method": fit.reading.method,
                    "reading": fit.reading.shown,
                    "accuracy_prompt": fit.accuracy_prompt,
                    "accuracy_reading": fit.accuracy_reading,
                    "accuracy_empty": fit.accuracy_empty,
                    "accuracy_random": fit.accuracy_random,
                    "agreement": fit.agreement,
                    "kl_labels": fit.kl_labels,
                    "kl_vocab": fit.kl_vocab,
                    "kl_closed": fit.kl_closed,
                    "kl_closed_low": low,
                    "kl_closed_high": high,
                    **dict(zip(tokens["gauge"], tokens["value"], strict=True)),
                    "passed": not failed,
                    "failed": "; ".join(failed),
                }
            )
        return pd.DataFrame(rows)

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        one = self.faithfulness[0]
        return (
            f"report on a prompt of {self.length} for {self.task!r} on {self.lm.name!r} (accuracy "
            f"{one.accuracy_prompt:.3f}, empty {one.accuracy_empty:.3f}): {self.verdict.headline}"
        )

    @property
    def table(self) -> pd.DataFrame:
        """The readings side by side."""
        rows = []
        for row in self.frame.to_dict("records"):
            interval = f"[{row['kl_closed_low']:.2f}, {row['kl_closed_high']:.2f}]"
            cells = {
                "method": row["method"],
                "reading": row["reading"],
                "accuracy": f"{row['accuracy_reading']:.3f}",
                "agreement": f"{row['agreement']:.3f}",
                "KL closed": f"{row['kl_closed']:.2f} {interval}",
                "nats/token": f"{row['nats_per_token']:.2f}",
            }
            if row["asks_for"] is not None:
                cells |= {"asks for": row["asks_for"]}
            rows.append(cells | {"verdict": "pass" if row["passed"] else "FAIL"})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        notes = "".join(f"\n{note}" for note in self.notes)
        return f"{super().__repr__()}\n\n{self.verdict!r}{notes}"

    def _repr_html_(self) -> str:
        return (
            f"{_verdict_line(self.verdict)}{super()._repr_html_()}"
            f"{self.verdict.table.to_html(index=False, border=0)}{self._notes()}"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The smallest faithfulness gap at each price of surprisal."""
        return self.verdict.plot(ax)

    def save(self, path: str | Path) -> Path:
        """Write the report as one file: ``.html``, self-contained, or ``.json``.

        Raises:
            SoftlensError: another ending.
        """
        path = Path(path)
        if path.suffix == ".json":
            files.write_json(path, self.to_dict())
        elif path.suffix == ".html":
            files.write_atomic(path, self.to_html().encode())
        else:
            raise SoftlensError(f"Got {path.name!r}, wanted a name that ends in .html or .json.")
        return path

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON takes it: numbers that are none are null."""
        readings = [
            {
                "method": fit.reading.method,
                "text": fit.reading.text,
                "token_ids": list(fit.reading.token_ids),
                "round_trip": fit.reading.round_trip,
                "score": fit.reading.score,
                "score_unit": fit.reading.score_unit,
                "experts": [asdict(expert) for expert in fit.reading.experts],
                "faithfulness": fit.frame.to_dict("records"),
                "worst_text": fit.worst_text,
                "gauges": gauges.frame.to_dict("records"),
            }
            for fit, gauges in zip(self.faithfulness, self.scrutability, strict=True)
        ]
        record = {
            "format": "softlens.report",
            "lm": self.lm._asdict(),
            "task": self.task,
            "template": self.template,
            "length": self.length,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "readings": readings,
            "verdict": {
                "interpretable": self.verdict.passed,
                "by": self.verdict.by,
                "criterion": asdict(self.verdict.criterion),
                "clauses": self.verdict.frame.to_dict("records"),
                "curve": self.verdict.curve.to_dict("records"),
            },
        }
        return _plain(record)

    def to_html(self) -> str:
        """One page that needs nothing else: no network, no script, pictures inside."""
        best = self._best()
        title = f"What does this prompt say? {self.task} on {self.lm.name}"
        parts = [
            f"<h1>{html.escape(title)}</h1>",
            _verdict_line(self.verdict),
            f"<p>{html.escape(self.headline)}.</p>",
            "<h2>Readings</h2><p class=note>A reading is a text proposed as what the prompt says. "
            "Accuracy, agreement and the share of KL closed (1: the LM behaves as under the "
            "prompt; 0: as without any) are of test texts that no method has seen, with 95% "
            "bootstrap intervals over texts.</p>",
            _table(self.table),
            _picture("every reading's share of KL closed", self._draw_faithfulness),
            "<h2>Verdict</h2><p class=note>Our reading of the criterion of arXiv 2504.02144: there "
            "is a reading that is faithful within ε and whose gauges are within δ. Clause by "
            "clause, with the evidence; an interval passes if its worse end does.</p>",
            _table(self.verdict.table),
            _picture("the smallest gap at each surprisal", self.verdict.plot),
            f"<h2>Faithfulness of the reading by {html.escape(best.reading.method)}</h2>",
            _table(best.table),
            f"<p class=note>Worst text: {show_html(best.worst_text)}</p>",
        ]
        for reading, gauges in zip(self.readings, self.scrutability, strict=True):
            parts += [
                f"<h2>{html.escape(reading.headline)}</h2>",
                _picture(f"what {reading.method} found", reading.plot),
                gauges._repr_html_(),
            ]
        return (
            f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{html.escape(title)}"
            f"</title><style>{STYLE}</style></head><body>{''.join(parts)}{self._notes()}</body>"
            "</html>\n"
        )

    def _best(self) -> Faithfulness:
        """The reading that passes, else the most faithful single one."""
        for fit in self.faithfulness:
            if fit.reading.method == self.verdict.by:
                return fit
        return max(self.faithfulness, key=lambda fit: fit.kl_closed)

    def _draw_faithfulness(self, ax: Axes | None = None) -> Axes:
        from softlens.plots import plot_faithfulness

        return plot_faithfulness(self.faithfulness, ax)

    def _notes(self) -> str:
        took = f"The report took {self.seconds:.0f} s on {self.lm.name} ({self.lm.checksum})."
        return "".join(f"<p class=note>{html.escape(note)}</p>" for note in (*self.notes, took))


def report(
    lm: LM,
    task: Task,
    prompt: Prompt,
    *,
    methods: Sequence[str] | None = None,
    readings: Sequence[Reading | str] = (),
    judge: LM | None = None,
    criterion: Criterion | None = None,
    texts: int = 512,
    other: Task | Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    options: dict[str, dict[str, Any]] | None = None,
) -> Report:
    """Ask one question of a prompt from anywhere: what does it say, and can we trust that?

    Args:
        lm: the LM the prompt was made for.
        task: what it is for.
        prompt: the prompt.
        methods: of reading, as `softlens.reading_methods` lists them; None: all that apply.
        readings: further ones: made before, or texts of your own.
        judge: a second LM for the gauges that need one; None as in `scrutability`.
        criterion: epsilon and delta; `Criterion`'s own unless given.
        texts: test texts at most.
        other: texts off the training distribution, as in `faithfulness`.
        seed: of methods that draw, and of the bootstrap.
        progress: show bars.
        options: of methods, by their name: ``{"matched": {"evaluations": 10_000}}``.

    Raises:
        SoftlensError: whatever reading, faithfulness or scrutability refuse.
    """
    began, notes = time.perf_counter(), []
    chosen = list(READERS) if methods is None else list(methods)
    if not chosen and not readings:
        raise SoftlensError(
            f"Got no methods of reading and no readings, wanted some of {[*READERS]}."
        )
    given = options or {}
    for name in given:
        if name not in chosen:
            raise SoftlensError(
                f"Got options for {name!r}, which is not asked for.{near(name, chosen)} Asked for: "
                f"{chosen}."
            )
    if methods is None and not any(frame_of(task.template)):
        chosen.remove("frame")
        notes.append(f"No reading by 'frame': the template {task.template!r} has no frame.")
    claims = [Reading.from_text(lm, r, task=task) if isinstance(r, str) else r for r in readings]
    for claim in claims:
        claim.check(lm)
    found = tuple(
        read(lm, prompt, name, task, seed=seed, progress=progress, **given.get(name, {}))
        for name in chosen
    )
    found = _named_apart((*found, *claims))
    faithful = tuple(faithfulness_all(lm, task, prompt, found, texts=texts, other=other, seed=seed))
    gauged = tuple(scrutability(lm, task, reading, judge) for reading in found)
    if gauged[0].judge is None:
        notes.append("No judge: pass judge=, another LM, for the gauges that need one.")
    broken = [reading.method for reading in found if not reading.round_trip]
    if broken:
        notes.append(f"Typed in, the readings by {', '.join(broken)} have other tokens.")
    verdict = judged(lm, task, prompt, faithful, gauged, criterion, texts, seed)
    return Report(
        lm=prompt.lm,
        task=task.name,
        template=task.template,
        length=prompt.length,
        readings=found,
        faithfulness=faithful,
        scrutability=gauged,
        verdict=verdict,
        seconds=time.perf_counter() - began,
        notes=tuple(notes),
    )


def _named_apart(readings: Sequence[Reading]) -> tuple[Reading, ...]:
    """The readings, numbered where two were obtained in the same way."""
    seen: dict[str, int] = {}
    named = []
    for reading in readings:
        times = seen[reading.method] = seen.get(reading.method, 0) + 1
        method = reading.method if times == 1 else f"{reading.method} {times}"
        named.append(replace(reading, method=method))
    return tuple(named)


def _verdict_line(verdict: Verdict) -> str:
    kind = "pass" if verdict.passed else "fail"
    return f'<p class="verdict {kind}">{html.escape(verdict.headline)}</p>'


def _table(table: pd.DataFrame) -> str:
    return table.to_html(index=False, border=0)


def _picture(label: str, draw: Callable[[], Axes]) -> str:
    """What `draw` draws, inside the page."""
    figure = draw().get_figure(root=True)
    assert figure is not None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{html.escape(label)}" src="data:image/png;base64,{data}"></p>'


def _plain(value: Any) -> Any:
    """`value` as JSON takes it."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def load_report(path: str | Path) -> dict[str, Any]:
    """The numbers of a saved ``.json`` report; no LM is needed.

    Raises:
        SoftlensError: there is no report of softlens at `path`.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        if record["format"] != "softlens.report":
            raise KeyError("format")
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise SoftlensError(
            f"No report of softlens at {path} ({type(reason).__name__}). Give a .json file that "
            "report.save wrote."
        ) from reason
    return record
