"""How tokens and results are shown: the one formatter of token text, and the result mixin.

Token text is untrusted. Whatever a vocabulary holds (spaces, newlines, control characters, halves
of characters, markup) comes out visible, on one line, and inert.
"""

import html
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from softlens.lm import LM

MARKS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥", "\\": "\\\\"}
# Letters that need a neighbour (Mn, Me, Mc), and what has no glyph or moves others (C*, Z*).
_ESCAPED = ("C", "Z", "M")
# Letters and symbols by their category that leave no ink: Hangul fillers, a Braille blank, a
# musical null; and the marks above, so that a token that holds one is not taken for a space.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159␣⏎␍⇥")


def show(text: str) -> str:
    r"""`text` with every character visible and inert, for a terminal.

    Spaces, newlines and tabs get a mark; control, zero-width, directional, private, blank and
    combining characters are written as ``\u{200b}``, the bytes of half a character (see `piece`)
    as ``\xe2``, a backslash as two; so unlike tokens look unlike. Right-to-left letters are
    isolated so that they do not reorder what stands beside them. An empty text is ``\u{}``.
    """
    if not text:
        return "\\u{}"
    shown = "".join(_visible(character) for character in text)
    if any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in shown):
        return f"\u2068{shown}\u2069"
    return shown


def show_text(text: str) -> str:
    """The same for running text: marks for spaces only at its ends, where they are not seen."""
    inner = text.strip(" ")
    if not inner:
        return MARKS[" "] * len(text)
    before, _, after = text.partition(inner)
    words = (show(word) if word else "" for word in inner.split(" "))
    return MARKS[" "] * len(before) + " ".join(words) + MARKS[" "] * len(after)


def show_html(text: str) -> str:
    """The same, escaped for HTML."""
    return html.escape(show(text), quote=True)


def piece(lm: "LM", index: int) -> str:
    r"""The text of one token, like ``lm.token``, but half a character keeps its bytes.

    They are lone surrogates, as Python's "surrogateescape" makes them (PEP 383): `show` writes
    them as ``\xe2``, while ``lm.token`` has the same U+FFFD for all of them. Such a text is for
    showing only: no file or table takes it.
    """
    text = lm.token(index)
    if "\ufffd" not in text:
        return text
    raw = str(lm.tokenizer.convert_ids_to_tokens(int(index)))
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", raw):  # sentencepiece's fallback
        return bytes.fromhex(byte[1]).decode("utf-8", "surrogateescape")
    if all(character in _BYTES for character in raw):
        return bytes(_BYTES[c] for c in raw).decode("utf-8", "surrogateescape")
    return text


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's ``encoder.py``)."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTES = _byte_letters()


def _visible(character: str) -> str:
    if character in MARKS:
        return MARKS[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    hidden = unicodedata.category(character).startswith(_ESCAPED) or character in _BLANK
    return f"\\u{{{code:x}}}" if hidden else character


def token_boxes(
    tokens: Sequence[str],
    values: Sequence[float],
    unit: str,
    label: str = "tokens",
    strong: str = "high",
    signed: bool = False,
    words: Sequence[str] | None = None,
) -> str:
    """Tokens as HTML boxes, each with its value in words, and the scale beside them.

    Colour is never alone: every value is written, signed ones with their sign, and a screen reader
    is told all of them.

    Args:
        tokens: raw token texts.
        values: one number a token, what the colour shows.
        unit: what the numbers are, "cosine" or "nats".
        label: what a screen reader calls the row.
        strong: which values get the strong colour, "high" or "low". NaN gets none.
        signed: values on both sides of zero: blue above, orange below, zero without colour.
        words: what is written in the place of the numbers; then the unit, and no scale, follows.
    """
    scale = box_scale(values, unit, strong, signed)
    if words is not None:
        scale = f"<small>{html.escape(unit)}</small>"
    words = scores(values, signed) if words is None else words
    boxes = [
        f'<span style="{_BOX}padding:2px 6px;text-align:center;background:{colour}">'
        f'{show_html(token)}<br><small style="opacity:.75">{html.escape(word)}</small></span>'
        for token, colour, word in zip(
            tokens, box_colours(values, strong, signed), words, strict=True
        )
    ]
    spoken = "; ".join(f"{show(token)} {word}" for token, word in zip(tokens, words, strict=True))
    return (
        f'<div role="img" aria-label="{html.escape(f"{label}: {spoken}")}">'
        f"{''.join(boxes)} {scale}</div>"
    )


def box_colours(values: Sequence[float], strong: str = "high", signed: bool = False) -> list[str]:
    """The background of each box of `token_boxes`, as CSS; half transparent, for any theme."""
    low, high = _ends(values, signed)
    colours = []
    for value in values:
        share = 0.0 if pd.isna(value) else (value - low) / (high - low or 1)
        if signed:
            colour, strength = ("86,180,233" if value >= 0 else "230,159,0"), abs(2 * share - 1)
        else:
            colour, strength = "86,180,233", share if strong == "high" else 1 - share
        strength = 0.08 + 0.42 * strength
        if pd.isna(value) or (signed and value == 0):
            strength = 0.0
        colours.append(f"rgba({colour},{strength:.2f})")
    return colours


def _ends(values: Sequence[float], signed: bool) -> tuple[float, float]:
    known = [float(value) for value in values if not pd.isna(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if signed:
        high = max(abs(low), abs(high))
        low = -high
    return low, high


_BOX = (
    "display:inline-block;margin:1px;border-radius:4px;border:1px solid rgba(128,128,128,.5);"
    "font-family:monospace;"
)


def box_scale(
    values: Sequence[float], unit: str, strong: str = "high", signed: bool = False
) -> str:
    """The colours of `token_boxes` from the lowest to the highest value, and the unit, as HTML."""
    low, high = _ends(values, signed)
    steps = [low + (high - low) * i / 7 for i in range(8)]
    # Plain cells: a gradient is struck out where a notebook is not trusted.
    cells = "".join(
        f'<span style="display:inline-block;width:.5em;height:.8em;background:{colour}"></span>'
        for colour in box_colours(steps, strong, signed)
    )
    first, last = scores([low, high], signed)
    return (
        f'<small style="opacity:.75">{first}</small> <span style="{_BOX}line-height:0">{cells}'
        f'</span> <small style="opacity:.75">{last}</small> <small>{html.escape(unit)}</small>'
    )


def scores(values: Sequence[float], signed: bool = False) -> list[str]:
    """Numbers that stand beside each other, with as many digits as the largest needs.

    NaN is a dash; signed ones carry their sign, zero none.
    """
    largest = max((abs(float(v)) for v in values if not pd.isna(v)), default=1.0)
    digits = 2
    while largest and largest < 10.0 ** (1 - digits) and digits < 8:
        digits += 1
    sign = "+" if signed else ""
    words = ["–" if pd.isna(v) else f"{float(v):{sign}.{digits}f}" for v in values]
    return [word.lstrip("+-") if not word.strip("+-0.") else word for word in words]


def marks(values: Sequence[float], signed: bool = False, most: int = 8) -> list[str]:
    """Bars of letters for a terminal: ``+++`` and ``--`` where signed, else blocks.

    The longest has `most` letters; they are read in black and white and by screen readers.
    """
    largest = max((abs(float(v)) for v in values if not pd.isna(v)), default=0.0)
    bars = []
    for value in values:
        share = 0.0 if pd.isna(value) or not largest else abs(float(value)) / largest
        letter = "#" if not signed else "+" if value >= 0 else "-"
        bars.append(letter * round(most * share))
    return bars


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
        # Chinese and Japanese letters take two columns of a terminal.
        with pd.option_context("display.unicode.east_asian_width", True):
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
