"""An inspector without a kernel: one piece of HTML, the last state of what was seen."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from softlens.display import token_boxes
from softlens.widgets import positions, views
from softlens.widgets.panels import TextsPanel, TrainingPanel
from softlens.widgets.shades import shaded

if TYPE_CHECKING:
    from softlens.widgets.inspector import Inspector


def page(inspector: Inspector) -> str:
    """The static view of an inspector."""
    bench = inspector.bench
    parts = [views.title(bench)]
    if bench.lm is None:
        parts += [positions.tokens_alone(bench), views.read_only(bench)]
    else:
        shade = shaded(bench)
        boxes = token_boxes(
            bench.pieces, shade.values, shade.unit, "positions of the prompt", signed=shade.signed
        )
        parts += [
            boxes,
            html.escape(shade.note),
            positions.edits(bench),
            inspector.measured.value,
            positions.position(bench),
            positions.near(bench),
        ]
    for panel in inspector.panels:
        if isinstance(panel, TextsPanel) and panel is inspector.front:
            parts += [panel.answers.value, panel.changed.value, panel.tested.value]
        if isinstance(panel, TrainingPanel):
            parts += [panel.moment.value, panel.curves.value]
    if inspector.read_so_far:
        parts.append(views.readings(inspector.read_so_far, bench.draft))
    return wrap(inspector.live.name, parts)


def wrap(name: str, parts: list[str]) -> str:
    """Parts of a static view in their frame, which gives way to the controls called `name`."""
    body = "".join(f'<div style="margin:.35em 0">{part}</div>' for part in parts if part)
    return (
        f'<div class="softlens {name}-static" style="max-width:100%;overflow-x:auto">{body}'
        '<div style="opacity:.75;font-size:smaller">The last state of an inspector. Run the cell '
        "to use it.</div></div>"
    )
