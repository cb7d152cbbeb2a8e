"""What an inspector shows, as HTML: for its live panels and for its static view alike."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

from softlens.display import (
    box_colours,
    box_scale,
    number,
    piece,
    scores,
    show,
    show_text,
    token_boxes,
)
from softlens.framework import Faithfulness
from softlens.lm import LM
from softlens.readings import Reading
from softlens.widgets.draft import DROPPED, KEPT, MASKED, REPLACED, Draft
from softlens.widgets.replay import Moment
from softlens.widgets.workbench import GIVEN, NOW, Shade, Workbench

HEADS = {
    "scored": "",
    "text": "reads",
    "accuracy": "accuracy",
    "label_mass": "label mass",
    "loss_nats": "loss (nats)",
    "nats_per_token": "nats per token",
    "changed": "predictions changed",
}
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
            shown(value) if column in WORDS else _count(value) if column == "changed" else
            number(value)
            for value in known[column].fillna("" if column in WORDS else np.nan)
        ]
        for column in known
    }  # fmt: skip
    return table(pd.DataFrame(cells), strong=0) + caption(bench)


def _count(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def items(bench: Workbench, shade: Shade | None) -> list[dict[str, str]]:
    """The prompt's positions as `Boxes` takes them."""
    values = [float("nan")] * len(bench.draft.slots) if shade is None else list(shade.values)
    signed, unit = (shade.signed, shade.unit) if shade is not None else (False, "")
    made = []
    for i, (named, slot, colour, value) in enumerate(
        zip(bench.pieces, bench.draft.slots, box_colours(values, "high", signed),
            scores(values, signed), strict=True)
    ):  # fmt: skip
        soft = slot.token_id is None and not bench.given.is_hard
        state = "" if slot.state == KEPT else slot.state
        what = f"{'near ' if soft else ''}{show(named)}"
        label = ", ".join([f"position {i}: {what}", f"{value} {unit}", *([state] if state else [])])
        made.append(
            {"text": ("≈" if soft else "") + show(named), "value": value, "state": state,
             "colour": colour, "label": label}
        )  # fmt: skip
    return made


def scale(shade: Shade | None) -> str:
    """What the colours mean."""
    if shade is None:
        return ""
    note = f' <span class="dim">{html.escape(shade.note)}</span>' if shade.note else ""
    return box_scale(shade.values, shade.unit, "high", shade.signed) + note


def near_items(bench: Workbench, frame: pd.DataFrame) -> list[dict[str, str]]:
    """Nearest tokens as `Boxes` takes them."""
    values = frame["score"].tolist()
    strong = "low" if bench.metric == "l2" else "high"
    made = []
    for index, score, colour in zip(
        frame["token_id"], scores(values), box_colours(values, strong), strict=True
    ):
        name = show(piece(bench.ready, index))
        label = f"put {name} here, {bench.metric} {score}"
        made.append({"text": name, "value": score, "state": "", "colour": colour, "label": label})
    return made


def near(bench: Workbench) -> str:
    """The same as boxes of a static view."""
    frame = bench.neighbours()
    return token_boxes(
        [piece(bench.ready, index) for index in frame["token_id"]],
        frame["score"].tolist(),
        bench.metric,
        "nearest tokens",
        strong="low" if bench.metric == "l2" else "high",
    )


def piece_items(lm: LM, ids: Sequence[int]) -> list[dict[str, str]]:
    """The pieces of a word as `Boxes` takes them."""
    names = [show(piece(lm, index)) for index in ids]
    return [
        {"text": n, "value": "", "state": "", "colour": "", "label": f"put {n} here"} for n in names
    ]


def position(bench: Workbench) -> str:
    """Which position is chosen, and what stands there."""
    slot, name = bench.draft.slots[bench.chosen], shown(bench.pieces[bench.chosen])
    was = shown(bench.names_given[bench.chosen])
    if not bench.given.is_hard:
        was = f"a free vector, nearest to {was}"
    what = {
        KEPT: was,
        REPLACED: f"{name} in the place of {was}",
        DROPPED: f"nothing; {was} was dropped",
        MASKED: f"the mean embedding in the place of {was}",
    }[slot.state]
    return f"<b>Position {bench.chosen}</b>: {what}"


def edits(bench: Workbench) -> str:
    """What was edited, in words."""
    said = []
    for index in bench.draft.edited:
        slot, was = bench.draft.slots[index], shown(bench.names_given[index])
        became = slot.state if slot.token_id is None else f"→ {shown(bench.pieces[index])}"
        said.append(f"position {index}: {was} {became}")
    return "Edited: " + "; ".join(said) if said else ""


def read_only(bench: Workbench) -> str:
    """What a run's file says by itself."""
    words = (
        f"<div>Read only: the LM {shown(bench.given.lm.name)} (checksum "
        f"{bench.given.lm.checksum}) is not at hand, so tokens have numbers in the place of names, "
        "and nothing can be edited or measured.</div>"
    )
    if bench.run is None:
        return words
    frame = bench.run.table.rename(columns={"loss": "loss_nats"})
    cells = {column: [shown(str(value)) for value in frame[column]] for column in frame}
    text = f"<div>reads: <b>{shown(bench.run.text)}</b></div>"
    return words + text + table(pd.DataFrame(cells), strong=0)


def tokens_alone(bench: Workbench) -> str:
    """The positions without any measure."""
    return token_boxes(bench.pieces, [float("nan")] * len(bench.pieces), "", "positions")


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
        cells[column] = ["" if pd.isna(v) else _bar(v) for v in frame[column]]
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


def _short(text: str, most: int = 90) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def moment(one: Moment, of: int) -> str:
    """One step of a training: its tokens, with those marked that changed, and what was logged."""
    boxes = token_boxes(
        one.pieces,
        [float(changed) for changed in one.changed],
        f"1: another token than at {one.since}",
        f"tokens at step {one.step}",
    )
    logged = ", ".join(
        f"{html.escape(name.replace('_', ' '))} "
        + (f"{value:.0f}" if name == "tokens_changed" else number(value))
        for name, value in one.numbers.items()
        if not pd.isna(value)
    )
    return f"step {one.step} of {of}: {logged}{boxes}"


def readings(rows: Sequence[tuple[Reading, dict[str, str]]]) -> str:
    """Readings side by side, each with its faithfulness."""
    if not rows:
        return '<span class="dim">No reading yet. Choose a method, and read.</span>'
    frame = pd.DataFrame(
        [
            {"method": html.escape(reading.method), "reads": html.escape(reading.shown), **tested}
            for reading, tested in rows
        ]
    )
    return table(frame) + (
        '<span class="dim">on test texts. agreement: the same label as under the prompt; '
        "KL closed: 1 does as the prompt does, 0 as no prompt; 95% intervals over texts</span>"
    )


def error(words: str) -> str:
    """What went wrong, for people and for screen readers."""
    return f'<div class="softlens-error" role="alert">{html.escape(words)}</div>'
