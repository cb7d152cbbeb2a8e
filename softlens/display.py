"""How tokens and results are shown: the one formatter of token text, and the result mixin.

Token text is untrusted. Whatever a vocabulary holds (spaces, newlines, control characters, halves
of characters, markup) comes out visible, on one line, and inert.
"""

import html
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

MARKS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥", "\ufffd": "\N{REPLACEMENT CHARACTER}"}
# Letters that need a neighbour (Mn, Me, Mc), and what has no glyph or moves others (C*, Z*).
_ESCAPED = ("C", "Z", "M")


def show(text: str) -> str:
    r"""`text` with every character visible and inert, for a terminal.

    Spaces, newlines and tabs get a mark; control, zero-width, directional, private and combining
    characters are written as ``\u{200b}``; right-to-left letters are isolated so that they do
    not reorder what stands beside them.
    """
    shown = "".join(_visible(character) for character in text)
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return f"\u2068{shown}\u2069"
    return shown


def show_text(text: str) -> str:
    """The same for running text: marks for spaces only at its ends, where they are not seen."""
    inner = text.strip(" ")
    if not inner:
        return show(text)
    before, _, after = text.partition(inner)
    return show(before) + " ".join(show(word) for word in inner.split(" ")) + show(after)


def show_html(text: str) -> str:
    """The same, escaped for HTML."""
    return html.escape(show(text), quote=True)


def _visible(character: str) -> str:
    if character in MARKS:
        return MARKS[character]
    category = unicodedata.category(character)
    return f"\\u{{{ord(character):x}}}" if category.startswith(_ESCAPED) else character


def token_boxes(
    tokens: Sequence[str], values: Sequence[float], unit: str, label: str = "tokens"
) -> str:
    """Tokens as HTML boxes, each with its value in words; colour is never alone.

    Args:
        tokens: raw token texts.
        values: one number a token, what the colour shows.
        unit: what the numbers are, "cosine" or "nats".
        label: what a screen reader calls the row.
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    boxes = []
    for token, value in zip(tokens, values, strict=True):
        strength = 0.08 + 0.42 * (value - low) / (high - low or 1)
        boxes.append(
            '<span style="display:inline-block;margin:1px;padding:2px 6px;border-radius:4px;'
            "border:1px solid rgba(128,128,128,.5);font-family:monospace;text-align:center;"
            f'background:rgba(86,180,233,{strength:.2f})">{show_html(token)}'
            f'<br><small style="opacity:.75">{value:.2f}</small></span>'
        )
    spoken = "; ".join(f"{show(t)} {v:.2f}" for t, v in zip(tokens, values, strict=True))
    return (
        f'<div role="img" aria-label="{html.escape(f"{label}: {spoken}")}">'
        f"{''.join(boxes)} <small>{html.escape(unit)}</small></div>"
    )


class Result:
    """A frozen result that shows itself: one line and a table, in a terminal and in a notebook.

    A subclass has `frame` (pandas), and `headline`, the line that says what is shown in which
    unit. `table` may show another table than the frame, its texts already made visible.
    """

    if TYPE_CHECKING:

        @property
        def frame(self) -> pd.DataFrame:
            """The result as a tidy table."""

    @property
    def headline(self) -> str:
        """One line that says what is shown, with units."""
        return type(self).__name__

    @property
    def table(self) -> pd.DataFrame:
        """What is shown: `frame`, with numbers rounded and texts made visible."""
        return visible(self.frame)

    def __repr__(self) -> str:
        table = self.table
        if table.empty:
            return self.headline
        rows = table.to_string(index=False, max_rows=20, line_width=110)
        return f"{self.headline}\n{rows}"

    def _repr_html_(self) -> str:
        headline = f"<div>{html.escape(self.headline)}</div>"
        if self.table.empty:
            return headline
        # to_html escapes what is in the cells.
        return headline + self.table.to_html(index=False, max_rows=20, border=0)


def visible(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose numbers are rounded and whose texts are made visible by `show`."""
    shown = frame.copy()
    for column in shown.columns:
        if pd.api.types.is_float_dtype(shown[column]):
            shown[column] = [number(value) for value in shown[column]]
        elif not pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = [_cell(value) for value in shown[column]]
    return shown


def number(value: float) -> str:
    """A number as tables show it: three digits, NaN as nothing."""
    return "" if pd.isna(value) else f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.3f}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    return "" if value is None else show_text(value) if isinstance(value, str) else str(value)
