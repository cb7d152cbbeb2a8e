"""What stands for a prompt: readings and runs, in every view and measure."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from softlens import (
    Prompt,
    Reading,
    SoftlensError,
    attribute,
    compare_attributions,
    evaluate,
    fade_in,
    logit_lens,
    nearest_by_metric,
    nearest_tokens,
    surprisal,
    tune,
)
from softlens.errors import whole
from softlens.lm import LM
from softlens.prompts import as_prompt
from softlens.readings import Expert
from softlens.tasks import Task

VIEWS: dict[str, Callable] = {
    "nearest": lambda lm, task, p: nearest_tokens(lm, p).frame.drop(columns="start_token"),
    "metrics": lambda lm, task, p: nearest_by_metric(lm, p).frame,
    "lens": lambda lm, task, p: logit_lens(lm, p, task).frame,
    "lens after BOS": lambda lm, task, p: logit_lens(lm, p).frame,
    "surprisal": lambda lm, task, p: surprisal(lm, p, task).frame,
    "positions": lambda lm, task, p: attribute(lm, task, p, texts=2).frame,
    "words": lambda lm, task, p: attribute(
        lm, task, p, "gradient_x_input", of="text", texts=1
    ).frame,
    "fade": lambda lm, task, p: fade_in(lm, task, p, texts=2, steps=16).frame,
    "compare": lambda lm, task, p: compare_attributions(
        lm, task, [p], ["leave_one_out"], planted=0, randomise=False, texts=2
    ).frame.drop(columns="seconds"),
    "evaluate": lambda lm, task, p: evaluate(lm, task, p).frame,
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_a_reading_is_its_tokens_and_a_run_its_prompt(
    tiny: Callable[..., LM], toy_task: Task, view: str
):
    lm, show = tiny(), VIEWS[view]
    # Typed in, these tokens are others: what was found is what is scored.
    found = [*lm.encode("great", leading_space=True), lm.encode("f")[0], lm.encode("ilm")[0]]
    reading = Reading.from_ids(lm, found, "given")
    assert not reading.round_trip
    same = show(lm, toy_task, Prompt.from_ids(lm, found))
    pd.testing.assert_frame_equal(show(lm, toy_task, reading), same)
    run = tune(lm, toy_task, length=2, steps=2, progress=False)
    pd.testing.assert_frame_equal(show(lm, toy_task, run), show(lm, toy_task, run.prompt))
    with pytest.raises(SoftlensError, match="is of 'tiny-gpt2-0'"):
        show(tiny("gpt2", seed=1), toy_task, reading)
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-0'"):
        show(tiny("gpt2", seed=1), toy_task, run)
    experts = tuple(Expert(text, (5,), 0.5, 0.0, 1.0) for text in "ab")
    mixture = replace(reading, experts=experts)
    with pytest.raises(SoftlensError, match="mixes 2 texts, which no prompt says"):
        show(lm, toy_task, mixture)


def test_results_say_that_tokens_were_scored(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    reading = Reading.from_text(lm, "it was")
    assert surprisal(lm, reading).headline.startswith("tokens of a reading '␣it was'")
    run = tune(lm, toy_task, length=2, steps=2, progress=False)
    assert surprisal(lm, run).of == "nearest tokens of a run"
    assert attribute(lm, toy_task, reading, texts=1).scored == "tokens"
    assert attribute(lm, toy_task, run, texts=1).scored == "soft"
    assert evaluate(lm, toy_task, reading).scored == "tokens"
    assert evaluate(lm, toy_task, reading).prompt_text == reading.text


def test_a_text_is_its_own_nearest_tokens(tiny: Callable[..., LM]):
    lm = tiny()
    got = nearest_tokens(lm, "it was great")
    assert got.text == " it was great"
    np.testing.assert_allclose(got.frame.loc[got.frame["rank"] == 1, "score"], 1)


@pytest.mark.parametrize("given", [torch.ones(2, 32), np.ones((2, 32)), [3, 4], 7, None])
def test_what_stands_for_no_prompt(tiny: Callable[..., LM], given: object):
    wanted = f"Got a {type(given).__name__}, wanted a Prompt, a text, a Reading or a Run. Vectors"
    with pytest.raises(SoftlensError, match=wanted):
        as_prompt(tiny(), given)


@pytest.mark.parametrize("got", [2.5, "3", None, 0, -1, 8, torch.ones(2)])
def test_no_whole_number(got: object):
    with pytest.raises(SoftlensError, match="wanted a whole number from 1 to 7: of reasons"):
        whole("k", got, 7, "of reasons")


def test_whole_numbers_of_other_libraries():
    assert [whole("k", k, 7, "") for k in (1, np.int64(7), torch.tensor(3))] == [1, 7, 3]
