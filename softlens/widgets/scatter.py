"""Points on two axes as one SVG, each a mark that can be found by its number."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import MaxNLocator

from softlens.plots.style import look

WIDTH, HEIGHT = 620, 330
LEFT, RIGHT, TOP, BOTTOM = 52, 96, 34, 42


@dataclass(frozen=True)
class Point:
    """A run in the picture."""

    index: int
    """Its number, the mark's ``data-point``."""
    x: float
    y: float
    method: str
    """Decides colour and shape."""
    label: str
    """What it is, in words."""


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    chosen: int | None = None,
    lines: Mapping[str, float] | None = None,
    paper: bool = False,
) -> str:
    """The picture, every text in it escaped.

    Args:
        points: at least one.
        x_label: of the horizontal axis, with its unit.
        y_label: of the vertical axis.
        chosen: the number of the point that is ringed.
        lines: heights of dashed lines, by name.
        paper: black on white, for where the page's own colours do not reach.
    """
    lines = lines or {}
    xs, ys = [p.x for p in points], [*(p.y for p in points), *lines.values()]
    across = MaxNLocator(6).tick_values(min(xs), max(xs))
    up = MaxNLocator(5).tick_values(min(ys), max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        right = (x - across[0]) / (across[-1] - across[0])
        high = (y - up[0]) / (up[-1] - up[0])
        return (
            LEFT + right * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - high * (HEIGHT - TOP - BOTTOM),
        )

    ink = "#000" if paper else "currentColor"
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'] if paper else []
    for tick in across:
        x, y = at(tick, up[0])
        parts += [_line(x, TOP, x, y), _text(x, y + 16, f"{tick:g}", ink)]
    for tick in up:
        x, y = at(across[0], tick)
        parts += [_line(x, y, WIDTH - RIGHT, y), _text(x - 6, y + 4, f"{tick:.4g}", ink, "end")]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, ink))
    parts.append(
        f'<text transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle" fill="{ink}">{html.escape(y_label)}</text>'
    )
    for name, height in lines.items():
        _, y = at(across[0], height)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y, f'stroke="{ink}" stroke-dasharray="5 4"'))
        parts.append(_text(WIDTH - RIGHT + 5, y + 4, name, ink, "start"))
    right = LEFT + 6
    for method in dict.fromkeys(p.method for p in points):
        parts += [_mark(right, 14, method) + "/>", _text(right + 10, 18, method, ink, "start")]
        right += 30 + 7 * len(method)
    for point in sorted(points, key=lambda p: (p.x, p.y)):
        x, y = at(point.x, point.y)
        words = html.escape(point.label, quote=True)
        if point.index == chosen:
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="none" stroke="{ink}" '
                'stroke-width="2"/>'
            )
        parts.append(
            f'{_mark(x, y, point.method)} data-point="{point.index}" role="button" '
            f'aria-label="{words}"><title>{words}</title></path>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" xmlns="http://www.w3.org/2000/svg" '
        f'role="group" aria-label="{html.escape(y_label)} against {html.escape(x_label)}" '
        f'font-size="11" font-family="sans-serif">{"".join(parts)}</svg>'
    )


def _mark(x: float, y: float, method: str) -> str:
    """The open tag of a method's mark at a place."""
    colour, letter = look(method)
    style = MarkerStyle(letter)
    polygons = style.get_path().transformed(style.get_transform()).to_polygons()
    shapes = [np.asarray(polygon, dtype=float).tolist() for polygon in polygons]
    path = " ".join(
        "M" + "L".join(f"{10 * a:.1f} {-10 * b:.1f}" for a, b in shape) + "Z" for shape in shapes
    )
    return (
        f'<path transform="translate({x:.1f} {y:.1f})" d="{path}" fill="{to_hex(colour)}" '
        'fill-opacity=".8" stroke="rgba(128,128,128,.8)"'
    )


def _line(x1: float, y1: float, x2: float, y2: float, how: str = "") -> str:
    how = how or 'stroke="rgba(128,128,128,.28)"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {how}/>'


def _text(x: float, y: float, words: str, ink: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}">'
        f"{html.escape(words)}</text>"
    )
