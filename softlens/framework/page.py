"""A report as a page and as a record: one file each, which need nothing else to be read."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd

from softlens.display import number, show_text
from softlens.errors import SoftlensError
from softlens.framework.criterion import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from softlens.framework.report import Report

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a1a1a}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}h3{font-size:1rem;font-weight:500}"
    "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
    "th,td{padding:3px 9px;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}"
    "img{max-width:100%}.verdict{font-weight:600;padding:.6rem .8rem;border-left:5px solid}"
    ".pass{border-color:#009e73}.fail{border-color:#d55e00}.note{color:#555}"
)


def whole(report: Report) -> str:
    """One page that needs nothing else: no network, no script, pictures inside."""
    from softlens.plots import plot_faithfulness

    best = report.best
    title = f"What does this prompt say? {report.task} on {report.lm.name}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        verdict_line(report.verdict),
        f"<p>{html.escape(report.headline)}.</p>",
        "<h2>The prompt and its controls</h2><p class=note>On the same test texts: the prompt, the "
        "best of the task's readable prompts (chosen on dev), random tokens and no prompt. Label "
        "mass: the probability of the label words; near zero, a prompt does not ask.</p>",
        table(scores(report)),
        "<h2>Readings</h2><p class=note>A reading is a text proposed as what the prompt says. "
        "Accuracy, agreement and the share of KL closed (1: the LM behaves as under the "
        "prompt; 0: as without any) are of test texts that no method has seen, with 95% "
        "bootstrap intervals over texts.</p>",
        table(report.table),
        _picture(
            "every reading's share of KL closed", lambda: plot_faithfulness(report.faithfulness)
        ),
        "<h2>Verdict</h2><p class=note>Our reading of the criterion of arXiv 2504.02144: there "
        "is a reading that is faithful within ε and whose gauges are within δ. Clause by "
        "clause, with the evidence; an interval passes if its worse end does.</p>",
        table(report.verdict.table),
        _picture("the smallest gap at each surprisal", report.verdict.plot),
        f"<h2>Faithfulness of the reading by {html.escape(best.reading.method)}</h2>",
        table(best.table),
        f"<p class=note>Worst text: {html.escape(show_text(best.worst_text))}</p>",
    ]
    parts.append(
        "<h2>The prompt itself</h2><p class=note>What its vectors are near to, how unexpected "
        "those tokens are, and which positions carry the answer.</p>"
    )
    for view in report.views:
        parts += [f"<h3>{html.escape(view.headline)}</h3>", _picture(view.headline, view.plot)]
    for reading, gauges in zip(report.readings, report.scrutability, strict=True):
        parts += [
            f"<h2>{html.escape(reading.headline)}</h2>",
            _picture(f"what {reading.method} found", reading.plot),
            gauges._repr_html_(),
        ]
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{html.escape(title)}"
        f"</title><style>{STYLE}</style></head><body>{''.join(parts)}{notes(report)}</body>"
        "</html>\n"
    )


def record(report: Report) -> dict[str, Any]:
    """Everything but the pictures, as JSON takes it: numbers that are none are null."""
    readings = [
        {
            "method": fit.reading.method,
            "text": fit.reading.text,
            "token_ids": list(fit.reading.token_ids),
            "round_trip": fit.reading.round_trip,
            "score": fit.reading.score,
            "score_unit": fit.reading.score_unit,
            "found": fit.reading.frame.to_dict("records"),
            "experts": [asdict(expert) for expert in fit.reading.experts],
            "faithfulness": fit.frame.to_dict("records"),
            "worst_text": fit.worst_text,
            "gauges": gauges.frame.to_dict("records"),
        }
        for fit, gauges in zip(report.faithfulness, report.scrutability, strict=True)
    ]
    found = {
        "format": "softlens.report",
        "lm": report.lm._asdict(),
        "task": report.task,
        "template": report.template,
        "length": report.length,
        "judge": report.scrutability[0].judge,
        "judge_checksum": report.scrutability[0].judge_checksum,
        "seed": report.seed,
        "texts": report.faithfulness[0].n,
        "seconds": report.seconds,
        "notes": list(report.notes),
        "controls": report.controls.to_dict("records"),
        "readings": readings,
        "views": {
            type(view).__name__: _plain(view.frame.to_dict("records")) for view in report.views
        },
        "verdict": {
            "interpretable": report.verdict.passed,
            "by": report.verdict.by,
            "criterion": asdict(report.verdict.criterion),
            "clauses": report.verdict.frame.to_dict("records"),
            "curve": report.verdict.curve.to_dict("records"),
        },
    }
    return _plain(found)


def scores(report: Report) -> pd.DataFrame:
    """The prompt above its controls, with numbers as tables show them."""
    numbers = report.controls.drop(columns="prompt").map(number)
    return report.controls[["prompt"]].join(numbers)


def notes(report: Report) -> str:
    """What was left out, and how long it took."""
    took = f"The report took {report.seconds:.0f} s on {report.lm.name} ({report.lm.checksum})."
    return "".join(f"<p class=note>{html.escape(note)}</p>" for note in (*report.notes, took))


def verdict_line(verdict: Verdict) -> str:
    """The verdict, marked by more than its colour."""
    kind = "pass" if verdict.passed else "fail"
    return f'<p class="verdict {kind}">{html.escape(verdict.headline)}</p>'


def table(frame: pd.DataFrame) -> str:
    """A table without its index."""
    return frame.to_html(index=False, border=0)


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
