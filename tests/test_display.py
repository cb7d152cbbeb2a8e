"""Every token visible, on one line, and inert; in HTML, in a terminal and in matplotlib."""

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from softlens.display import Result, show, show_html, show_text, token_boxes
from softlens.lm import LM
from softlens.plots import show_plot

NASTY = [
    "<script>alert(1)</script>",
    "\u202eabc",
    "\u200b",
    "a\nb",
    "\t",
    "\x1b[31m",
    "&amp;",
    "$x$",
]


@given(st.text(max_size=20))
@example("<script>")
@example("\u05d0\u202e\x1b[2J")
@example("\ud800")
def test_what_is_shown_is_one_visible_line(text: str):
    shown = show(text)
    inner = shown.removeprefix("\u2068").removesuffix("\u2069")
    assert inner.isprintable() or inner == ""
    assert " " not in inner
    assert "\u0301" not in inner
    assert len(inner) >= len(text)
    assert not any(unicodedata.combining(c) for c in inner)


@given(st.text(max_size=20))
@example('"><img onerror=x>')
def test_html_holds_no_markup_and_comes_back(text: str):
    shown = show_html(text)
    assert not re.search(r"[<>\"']", shown)
    assert html.unescape(shown) == show(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" film", "␣film"),
        ("\n\n", "⏎⏎"),
        ("\u200b", r"\u{200b}"),
        ("\x1b[31m", r"\u{1b}[31m"),
        ("e\u0301", r"e\u{301}"),
        ("\u00a0", r"\u{a0}"),
        ("\u05d0", "\u2068\u05d0\u2069"),
    ],
)
def test_marks(text: str, shown: str):
    assert show(text) == shown


def test_running_text_keeps_its_inner_spaces():
    assert show_text(" the film\n was ") == "␣the film⏎ was␣"
    assert show_text("  ") == "␣␣"
    assert show_text("") == ""


def test_the_whole_vocabulary_in_every_view(tiny: Callable[..., LM]):
    lm = tiny()
    tokens = [lm.token(i) for i in range(lm.vocab_size)] + NASTY
    boxes = token_boxes(tokens, [0.5] * len(tokens), "cosine")
    tags = re.findall(r"<(/?\w+)", boxes)
    assert set(tags) <= {"div", "/div", "span", "/span", "small", "/small", "br"}
    figure, axes = plt.subplots()
    axes.text(0, 0, "".join(show_plot(token) for token in [*tokens, "\u4e2d", "\u05d0"]))
    axes.text(0, 1, show_plot("$\\frac{$ $"))
    figure.canvas.draw()
    plt.close(figure)


def test_boxes_say_their_values_in_words():
    boxes = token_boxes([" a", "b"], [0.25, -1.0], "nats", "surprisal")
    assert 'aria-label="surprisal: ␣a 0.25; b -1.00"' in boxes
    assert ">nats<" in boxes
    assert "http" not in boxes
    assert token_boxes(["same", "same"], [1.0, 1.0], "cosine")


@dataclass(frozen=True, repr=False)
class Table(Result):
    frame: pd.DataFrame

    @property
    def headline(self) -> str:
        return "two rows (nats)"


def test_a_result_shows_itself_in_words_and_in_html():
    table = Table(pd.DataFrame({"token": [" a", "<b>"], "nats": [1.23456, float("nan")]}))
    assert repr(table).splitlines()[0] == "two rows (nats)"
    assert "␣a" in repr(table)
    assert "1.235" in repr(table)
    assert "nan" not in repr(table).lower()
    assert "&lt;b&gt;" in table._repr_html_()
    assert "<b>" not in table._repr_html_()
    assert repr(Table(pd.DataFrame())) == "two rows (nats)"
    assert table._repr_html_().startswith("<div>two rows (nats)</div>")
