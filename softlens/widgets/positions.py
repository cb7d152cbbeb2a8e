"""The positions of a prompt, and the tokens near to them: as boxes, and in words."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import pandas as pd

from softlens.display import box_colours, box_scale, piece, scores, show, token_boxes
from softlens.widgets.draft import DROPPED, KEPT, MASKED, REPLACED
from softlens.widgets.shades import Shade
from softlens.widgets.views import shown
from softlens.widgets.workbench import Workbench


def items(bench: Workbench, shade: Shade | None) -> list[dict[str, Any]]:
    """The prompt's positions as `Boxes` takes them; the key is the position."""
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
            {"key": i, "text": ("≈" if soft else "") + show(named), "value": value,
             "state": state, "colour": colour, "label": label}
        )  # fmt: skip
    return made


def scale(shade: Shade | None) -> str:
    """What the colours mean."""
    if shade is None:
        return ""
    note = f' <span class="dim">{html.escape(shade.note)}</span>' if shade.note else ""
    return box_scale(shade.values, shade.unit, "high", shade.signed) + note


def near_items(bench: Workbench, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Nearest tokens as `Boxes` takes them; the key is the position they are for, and their id."""
    values = frame["score"].tolist()
    strong = "low" if bench.metric == "l2" else "high"
    made = []
    for index, score, colour in zip(
        frame["token_id"], scores(values), box_colours(values, strong), strict=True
    ):
        name = show(piece(bench.ready, index))
        label = f"put {name} here, {bench.metric} {score}"
        made.append(
            {"key": [bench.chosen, index], "text": name, "value": score, "state": "",
             "colour": colour, "label": label}
        )  # fmt: skip
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


def piece_items(bench: Workbench, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The pieces of a word as `Boxes` takes them, with keys as those of `near_items`."""
    named = [(index, show(piece(bench.ready, index))) for index in ids]
    return [
        {"key": [bench.chosen, index], "text": name, "value": "", "state": "", "colour": "",
         "label": f"put {name} here"}
        for index, name in named
    ]  # fmt: skip


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


def tokens_alone(bench: Workbench) -> str:
    """The positions without any measure."""
    return token_boxes(bench.pieces, [float("nan")] * len(bench.pieces), "", "positions")
