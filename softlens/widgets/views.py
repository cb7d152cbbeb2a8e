"""What an inspector shows, as HTML: for its live panels and for its static view alike."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

from softlens.display import (
    number,
    piece,
    show,
    show_text,
    token_boxes,
)
from softlens.framework import Faithfulness
from softlens.readings import Reading
from softlens.widgets.draft import Draft
from softlens.widgets.replay import Moment
from softlens.widgets.workbench import GIVEN, NOW, Workbench

HEADS = {
    "scored": "",
    "text": "reads",
    "accuracy": "accuracy",
    "label_mass": "label mass",
    "loss_nats": "loss (nats)",
    "nats_per_token": "nats per token",
    "changed": "predictions changed",
}
CLIPPED = 90
"""Characters of a text in a cell."""
OTHER_DRAFT = ' <span class="dim">(edited since)</span>'
"""Beside a reading of a prompt that no longer stands there."""
WORDS = ("scored", "text", "answer", "method", "reads", "label", "was", "became")


def shown(text: str) -> str:
    """A raw text as HTML, inert."""
    return html.escape(show_text(text), quote=True)


def table(frame: pd.DataFrame, strong: int | None = None) -> str:
    """A table whose cells are ready HTML; row `strong` stands out."""
    heads = "".join(
        f'<th scope="col"{_words(c)}>{html.escape(HEADS.get(str(c), str(c)))}</th>' for c in frame
    )
    rows = []
    for i, row in enumerate(frame.itertuples(index=False)):
        cells = "".join(f"<td{_words(c)}>{cell}</td>" for c, cell in zip(frame, row, strict=True))
        rows.append(f"<tr{' class=now' if i == strong else ''}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _words(column: object) -> str:
    return ' class="words"' if column in WORDS else ""


def title(bench: Workbench) -> str:
    """What is inspected, in one line."""
    count = bench.given.length
    where = f"<b>{count} position{'s' * (count > 1)}</b> for <b>{shown(bench.given.lm.name)}</b>"
    if bench.task is not None:
        where += f" on <b>{shown(bench.task.name)}</b> ({shown(bench.task.template)})"
    parts = [where, f"the LM is fed {html.escape(bench.scored)}"]
    if bench.run is not None:
        parts.append(f"trained by {shown(bench.run.config.method)}, seed {bench.run.config.seed}")
    return "; ".join(parts)


def caption(bench: Workbench) -> str:
    """On which texts numbers are, and how well they are known."""
    if bench.sample is None:
        return (
            '<span class="dim">No task, so no accuracy: pass one, as sl.inspect(lm, prompt, task).'
            "</span>"
        )
    n = len(bench.sample)
    split = bench.sample.split
    chosen = "" if split == "test" else "; choose here, and report on the test texts"
    return (
        f'<span class="dim">on the first {n} {split} texts: an accuracy is known to about '
        f"±{1.96 * np.sqrt(0.25 / n):.2f}{chosen}</span>"
    )


def numbers(bench: Workbench, frame: pd.DataFrame) -> str:
    """The table of measures, with the controls."""
    known = frame.dropna(axis="columns", how="all")
    cells = {
        column: [
            _clipped(value) if column in WORDS else _count(value) if column == "changed" else
            number(value)
            for value in known[column].fillna("" if column in WORDS else np.nan)
        ]
        for column in known
    }  # fmt: skip
    return table(pd.DataFrame(cells), strong=0) + caption(bench)


def _clipped(text: str) -> str:
    """A raw text as HTML, inert; of a long one its start, and all of it where it is hovered."""
    short = shown(_short(text))
    return short if len(text) <= CLIPPED else f'<span title="{shown(text)}">{short}</span>'


def _count(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def read_only(bench: Workbench) -> str:
    """What a run's file says by itself."""
    words = (
        f"<div>Read only: the LM {shown(bench.given.lm.name)} (checksum "
        f"{shown(bench.given.lm.checksum)}) is not at hand, so tokens have numbers in the place of "
        "names, and nothing can be edited or measured.</div>"
    )
    if bench.run is None:
        return words
    frame = bench.run.table.rename(columns={"loss": "loss_nats"})
    cells = {column: [shown(str(value)) for value in frame[column]] for column in frame}
    text = f"<div>reads: <b>{shown(bench.run.text)}</b></div>"
    return words + text + table(pd.DataFrame(cells), strong=0)


def tested(bench: Workbench, frame: pd.DataFrame) -> str:
    """The prompt on the whole test split."""
    assert bench.task is not None
    cells = {
        column: [shown(value) if column in WORDS else f"{value:.4f}" for value in frame[column]]
        for column in frame
    }
    return table(pd.DataFrame(cells), strong=0) + (
        f'<span class="dim">on all {len(bench.task.test)} test texts</span>'
    )


def tested_reading(found: Faithfulness) -> dict[str, str]:
    """A reading's faithfulness as cells of `readings`."""
    low, high = found.interval("kl_closed")[1:]
    return {
        "accuracy": number(found.accuracy_reading),
        "of the prompt": number(found.accuracy_prompt),
        "random": number(found.accuracy_random),
        "empty": number(found.accuracy_empty),
        "agreement": number(found.agreement),
        "KL closed": f"{found.kl_closed:.2f} [{low:.2f}, {high:.2f}]",
    }


def curves(png: bytes) -> str:
    """The picture of a training."""
    if not png:
        return ""
    return (
        f'<img alt="task loss, accuracy on dev and tokens changed, over the steps" '
        f'style="max-width:100%;background:white" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode()}">'
    )


def answers(bench: Workbench, frame: pd.DataFrame) -> str:
    """The chosen text, its label, and the answers with a bar for each share."""
    assert bench.sample is not None
    assert bench.task is not None
    label = bench.task.class_names[int(bench.sample.labels[bench.text])]
    names = [show(piece(bench.ready, index)) for index in frame["token_id"]]
    cells = {"answer": [f"<b>{html.escape(name)}</b>" for name in names]}
    for column in (NOW, GIVEN, "empty"):
        cells[column] = [_bar(share) for share in frame[column]]
    text = shown(bench.sample.texts[bench.text])
    return (
        f'<div style="max-width:60em;overflow-wrap:anywhere">“{text}” '
        f'<span class="dim">(label: {shown(label)})</span></div>'
        + table(pd.DataFrame(cells))
        + '<span class="dim">probability of the next token; the label words come first</span>'
    )


def _bar(share: float) -> str:
    return (
        f'<span style="display:inline-block;width:6em;text-align:left">'
        f'<span style="display:inline-block;height:.7em;background:#56B4E9;'
        f'width:{6 * min(1.0, share):.2f}em"></span></span> {share:.3f}'
    )


def changed(bench: Workbench, most: int = 8) -> str:
    """The texts whose predictions the edits changed."""
    which = bench.changed()
    if bench.sample is None or bench.task is None:
        return ""
    if not which:
        return '<span class="dim">No prediction is another than that of the prompt as given.</span>'
    now, given = bench.outcome(bench.draft), bench.outcome(Draft.of(bench.given))
    assert now is not None
    assert given is not None
    names = [shown(name) for name in bench.task.class_names]
    rows = [
        {"text": shown(_short(bench.sample.texts[i])), "label": names[bench.sample.labels[i]],
         "was": names[given.predicted[i]], "became": names[now.predicted[i]]}
        for i in which[:most]
    ]  # fmt: skip
    more = f" (the first {most})" if len(which) > most else ""
    return f"{len(which)} of {len(bench.sample)} predictions changed{more}" + table(
        pd.DataFrame(rows)
    )


def _short(text: str, most: int = CLIPPED) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def moment(one: Moment, of: int) -> str:
    """One step of a training: its tokens, with those marked that changed, and what was logged."""
    boxes = token_boxes(
        one.pieces,
        [float(changed) for changed in one.changed],
        f"new: another token than at {one.since}",
        f"tokens at step {one.step}",
        words=["new" if changed else "kept" for changed in one.changed],
    )
    logged = ", ".join(
        f"{html.escape(name.replace('_', ' '))} "
        + (f"{value:.0f}" if name == "tokens_changed" else number(value))
        for name, value in one.numbers.items()
        if not pd.isna(value)
    )
    return f"step {one.step} of {of}: {logged}{boxes}"


def readings(rows: Sequence[tuple[Reading, dict[str, str], Draft]], now: Draft) -> str:
    """Readings side by side, each with its faithfulness; those of another draft are marked."""
    if not rows:
        return '<span class="dim">No reading yet. Choose a method, and read.</span>'
    frame = pd.DataFrame(
        [
            {
                "method": html.escape(reading.method) + ("" if draft == now else OTHER_DRAFT),
                "reads": html.escape(reading.shown),
                **tested,
            }
            for reading, tested, draft in rows
        ]
    )
    return table(frame) + (
        '<span class="dim">on test texts. agreement: the same label as under the prompt; '
        "KL closed: 1 does as the prompt does, 0 as no prompt; 95% intervals over texts</span>"
    )


def error(words: str) -> str:
    """What went wrong, for people and for screen readers."""
    return f'<div class="softlens-error" role="alert">{html.escape(words)}</div>'
