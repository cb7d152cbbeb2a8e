"""The whole vocabulary of every bundled LM, shown safely in every view."""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from softlens import (
    Prompt,
    attribute,
    fade_in,
    load_lm,
    load_task,
    logit_lens,
    nearest_by_metric,
    nearest_path,
    nearest_tokens,
    plots,
    surprisal,
    tune,
)
from softlens.display import Result, marks, piece, show, token_boxes
from softlens.lm import LM
from softlens.lm.sources import BUNDLED
from softlens.tasks import Split, Task

TAGS = {"div", "span", "br", "small", "table", "thead", "tbody", "tr", "th", "td"}
# What tokenizers are known to hold, and what a hostile one might.
NASTY = [
    "<script>alert(1)</script>", "\u202eevil", "\u200b", "\u200d", "\x1b[31m", "\x00", "\r\n",
    "$x^2$", "&lt;", "\u05e9\u05dc\u05d5\u05dd", "\U0001f600", "\ud83d", "\udce2\udc80", "e\u0301",
    "'\" onmouseover=alert(1)", "\ufffd", "\\", " ", "",
]  # fmt: skip


def parts(ids: list[int], size: int = 80) -> Iterator[list[int]]:
    return (ids[i : i + size] for i in range(0, len(ids), size))


def check_shown(result: Result) -> None:
    """No markup but ours, nothing unprintable, a row on one line."""
    made = result._repr_html_()
    assert set(re.findall(r"</?([a-zA-Z]+)", made)) <= TAGS
    assert not re.search(r"<[^>]*\son\w+\s*=", made)
    plain = html.unescape(re.sub(r"<[^>]*>", "", made))
    for text in (plain, repr(result)):
        isolated = re.sub("[\u2066\u2067\u2068\u2069\n]", "", text)
        assert isolated.isprintable()


def check_drawn(axes) -> None:
    figure = (axes[0] if hasattr(axes, "__len__") else axes).figure
    figure.canvas.draw()
    plt.close(figure)


def of_tokens(lm: LM, task: Task, ids: list[int]) -> Task:
    """The task with a single test text: what these tokens spell."""
    test = Split((f"a {lm.decode(ids)}",), (0,))
    return Task(task.name, task.label_words, task.template, task.train, task.dev, test)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_token_of_the_bundled_lms_in_every_view(name: str):
    lm, task = load_lm(name), load_task("sentiment")
    for ids in parts(list(range(lm.vocab_size))):
        prompt = Prompt.from_ids(lm, ids)
        near = nearest_tokens(lm, prompt, k=1, exclude=None)
        for view in (
            near,
            nearest_by_metric(lm, prompt, exclude=None),
            surprisal(lm, prompt, people=[]),
            logit_lens(lm, prompt, k=1),
        ):
            check_shown(view)
        check_drawn(plots.plot_tokens(near.pieces, near.frame["score"].tolist(), "cosine"))
        words = attribute(lm, of_tokens(lm, task, ids[:60]), None, "gradient_x_input", of="text",
                          truncate=True)  # fmt: skip
        check_shown(words)
    check_drawn(words.plot())
    few = Prompt.from_ids(lm, list(range(6)))
    for view in (
        attribute(lm, task, few, "leave_one_out", texts=1),
        fade_in(lm, task, few, texts=1, steps=16),
        surprisal(lm, few, task),
        nearest_by_metric(lm, few),
        nearest_tokens(lm, few),
        logit_lens(lm, few, task),
    ):
        check_shown(view)
        check_drawn(view.plot())


def test_every_token_of_the_organism_on_a_path():
    lm, task = load_lm(), load_task("sentiment")
    run = tune(lm, task, length=2, steps=1, progress=False)
    told: set[int] = set()
    for start in range(0, lm.vocab_size, 32):
        ids = (start + np.arange(32)) % lm.vocab_size
        # A short stay has no room for its token's name: three steps for each.
        lines = [" ".join(map(str, row)) for row in ids.reshape(4, 8)]
        history = pd.DataFrame({"step": range(1, 13), "token_ids": np.repeat(lines, 3)})
        path = nearest_path(lm, replace(run, history=history))
        check_shown(path)
        axes = path.plot()
        assert len(axes.texts) == len(path.frame)
        check_drawn(axes)
        told |= {*path.frame["token_id"]}
    assert told == {*range(lm.vocab_size)}


def test_every_token_of_a_byte_level_vocabulary(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    for ids in parts(list(range(lm.vocab_size)), 40):
        prompt = Prompt.from_ids(lm, ids)
        for view in (
            surprisal(lm, prompt, toy_task),
            attribute(lm, toy_task, prompt, "leave_one_out", texts=1),
            logit_lens(lm, prompt, toy_task),
            fade_in(lm, toy_task, prompt, texts=1, steps=16),
            attribute(lm, of_tokens(lm, toy_task, ids), None, "gradient_x_input", of="text"),
        ):
            check_shown(view)
            check_drawn(view.plot())


def test_hostile_tokens_in_boxes_and_pictures():
    values = [float(i - 3) for i in range(len(NASTY))]
    for signed in (False, True):
        boxes = token_boxes(NASTY, values, "nats", signed=signed)
        assert set(re.findall(r"</?([a-zA-Z]+)", boxes)) <= TAGS
        assert not re.search(r"<[^>]*\sonmouseover", boxes)
        check_drawn(plots.plot_tokens(NASTY, values, "nats", signed=signed))
        check_drawn(plots.plot_bars(NASTY, values, "nats", signed=signed))
    words = [[plots.show_plot(token) for token in NASTY]]
    check_drawn(plots.heat_map([values], words, ["row"], words[0], "nats"))


def test_signs_are_read_without_colour():
    values = [0.5, -0.25, 0.0, float("nan")]
    assert marks(values, signed=True) == ["++++++++", "----", "", ""]
    assert marks([2.0, 1.0, float("nan")]) == ["########", "####", ""]
    assert marks([0.0, 0.0]) == ["", ""]
    boxes = token_boxes(["a", "b", "c", "d"], values, "nats", signed=True)
    assert 'aria-label="tokens: a +0.50; b -0.25; c 0.00; d –"' in boxes
    assert re.findall(r"rgba\((\d+,\d+,\d+),(\d\.\d\d)\)", boxes)[:4] == [
        ("86,180,233", "0.50"), ("230,159,0", "0.29"), ("86,180,233", "0.00"), ("230,159,0", "0.00")
    ]  # fmt: skip
    # The scale stands beside them, the same to both sides.
    assert "-0.50</small>" in boxes
    assert "+0.50</small>" in boxes
    axes = plots.plot_bars(["a", "b"], [1.0, -1.0], "nats", signed=True)
    assert [bar.get_hatch() for bar in axes.patches] == [None, "///"]
    plt.close(axes.figure)


@pytest.mark.real
def test_every_token_of_the_real_lm(smollm2: LM):
    lm = smollm2
    pieces = [piece(lm, i) for i in range(lm.vocab_size)]
    assert all(show(token).strip("\u2068\u2069").isprintable() for token in pieces)
    assert all(plots.show_plot(token).isprintable() for token in pieces)
    for some in parts(list(range(lm.vocab_size)), 4096):
        boxes = token_boxes([pieces[i] for i in some], [0.5] * len(some), "nats")
        assert set(re.findall(r"</?([a-zA-Z]+)", boxes)) <= TAGS
    check_drawn(plots.plot_tokens(pieces[::997], [0.5] * len(pieces[::997]), "nats"))
    # The views themselves, on tokens that are no plain words: halves of characters and the like.
    odd = [i for i, token in enumerate(pieces) if not token.isascii() or not token.isprintable()]
    few, task = odd[:: len(odd) // 12][:12], load_task("reviews")
    prompt = Prompt.from_ids(lm, few)
    for view in (
        surprisal(lm, prompt, people=[]),
        logit_lens(lm, prompt, k=1),
        nearest_tokens(lm, prompt, k=2),
        attribute(lm, task, prompt, "gradient_x_input", texts=1),
        attribute(lm, of_tokens(lm, task, few), None, "gradient_x_input", of="text"),
    ):
        check_shown(view)
        check_drawn(view.plot())
