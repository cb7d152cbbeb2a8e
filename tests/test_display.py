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

from softlens.display import (
    Result,
    box_colours,
    box_scale,
    piece,
    show,
    show_html,
    show_text,
    token_boxes,
)
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
@example("\u3164\u115f\u2800")
def test_what_is_shown_is_one_visible_line(text: str):
    shown = show(text)
    inner = shown.removeprefix("\u2068").removesuffix("\u2069")
    assert inner.isprintable()
    assert " " not in inner
    assert "\u0301" not in inner
    assert len(inner) >= len(text)
    assert not any(unicodedata.combining(c) for c in inner)
    assert not set(inner) & set("\u3164\u115f\u1160\uffa0\u2800")


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\\u{}x␣ ⏎\n2423")), max_size=4))
@example(r"\u{200b}")
@example("\u200b")
def test_what_is_shown_can_be_read_back(text: str):
    names = {"␣": " ", "⏎": "\n", "␍": "\r", "⇥": "\t", r"\\": "\\", r"\u{}": ""}

    def back(found: re.Match) -> str:
        if found[0] in names:
            return names[found[0]]
        return chr(int(found[1], 16)) if found[1] else chr(0xDC00 + int(found[2], 16))

    inner = show(text).removeprefix("\u2068").removesuffix("\u2069")
    assert re.sub(r"[␣⏎␍⇥]|\\\\|\\u\{(\w*)\}|\\x(\w\w)", back, inner) == text


@pytest.mark.parametrize(
    "category", ["Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs", "Mc", "Me", "Mn"]
)
def test_whole_categories_are_escaped(category: str):
    letters = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) == category]
    for letter in letters[:: max(1, len(letters) // 2000)]:
        assert show(letter).isprintable()
        assert letter not in show(letter)


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
        ("\ufffd", "\ufffd"),
        ("\udce2\udc80", r"\xe2\x80"),
        ("␣", r"\u{2423}"),
        (r"\n", r"\\n"),
        ("\u3164", r"\u{3164}"),
        ("", r"\u{}"),
    ],
)
def test_marks(text: str, shown: str):
    assert show(text) == shown


def test_running_text_keeps_its_inner_spaces():
    assert show_text(" the film\n was ") == "␣the film⏎ was␣"
    assert show_text("  ") == "␣␣"
    assert show_text("") == ""
    assert show_text("a  b") == "a  b"


def test_every_token_of_a_byte_level_vocabulary_looks_unlike_the_others(tiny: Callable[..., LM]):
    lm = tiny()
    assert len({lm.token(i) for i in range(256)}) < 200
    shown = [show(piece(lm, i)) for i in range(lm.vocab_size) if i not in lm.unused_ids]
    assert len(set(shown)) == len(shown)
    assert not any("\ufffd" in text for text in shown)


def test_bytes_of_a_sentencepiece_vocabulary():
    class Tokenizer:
        def convert_ids_to_tokens(self, index: int) -> str:
            return ["<0xE2>", "\u2581odd\ufffd"][index]

    class FakeLM:
        tokenizer = Tokenizer()

        def token(self, index: int) -> str:
            return ["\ufffd", " odd\ufffd"][index]

    assert show(piece(FakeLM(), 0)) == r"\xe2"
    assert show(piece(FakeLM(), 1)) == "␣odd\ufffd"


@pytest.mark.real
def test_every_token_of_the_real_lm_looks_unlike_the_others(smollm2: LM):
    shown = {show(piece(smollm2, i)) for i in range(smollm2.vocab_size)}
    assert len(shown) == smollm2.vocab_size - len(smollm2.unused_ids)


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
    unknown = token_boxes(["a", "b"], [float("nan"), 1.0], "nats")
    assert "nan" not in unknown
    assert 'aria-label="tokens: a –; b 1.00"' in unknown
    assert "233,0.50" in token_boxes(["a"], [1.0], "nats", strong="low")


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


def test_a_scale_has_the_colours_of_its_boxes_and_survives_a_sanitizer():
    values = [0.2, 0.6, 1.0]
    scale = box_scale(values, "cosine")
    cells = re.findall(r"background:(rgba[^\"]*)", scale)
    assert [cells[0], cells[-1]] == [box_colours(values)[0], box_colours(values)[-1]]
    assert "0.20" in scale
    assert "1.00" in scale
    assert "gradient" not in scale
    signed = re.findall(r"background:(rgba[^\"]*)", box_scale([-0.1, 0.3], "nats", signed=True))
    assert signed[0].startswith("rgba(230,159,0")
    assert signed[-1].startswith("rgba(86,180,233")


def test_boxes_may_have_words_in_the_place_of_numbers():
    boxes = token_boxes(["a", "b"], [1.0, 0.0], "new: another", words=["new", "<kept>"])
    assert ">new</small>" in boxes
    assert "&lt;kept&gt;" in boxes
    assert "1.00" not in boxes
    assert boxes.endswith("<small>new: another</small></div>")
