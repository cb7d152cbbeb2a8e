"""The sweep on the real LM that the repository carries, and how it is planned."""

import random
from collections import Counter

import pandas as pd
import pytest

import softlens as sl
from softlens import Prompt
from softlens.lm import LM
from softlens.sweeps import real


@pytest.mark.real
def test_three_runs_are_what_their_tokens_do(smollm2: LM):
    """From nothing but a row's token ids (of a soft prompt: its vectors): the same accuracy."""
    if not (real.folder() / "cells").is_dir():
        pytest.skip("no run is finished yet: make figures-real runs them, in hours")
    swept = sl.load_sweep(real.folder())
    rows = swept.frame.to_dict("records")
    for row in random.Random(0).sample(rows, min(3, len(rows))):
        assert row["lm_checksum"] == smollm2.checksum
        ids = [int(index) for index in str(row["token_ids"]).split()]
        prompt = Prompt.from_ids(smollm2, ids) if ids else swept.run(str(row["cell"])).prompt
        found = sl.evaluate(smollm2, sl.load_task(str(row["task"])), prompt)
        assert found.accuracy == pytest.approx(row["accuracy"], abs=0.005), row
        assert found.label_mass == pytest.approx(row["label_mass"], rel=0.05), row


def test_every_beginning_of_the_plan_is_a_balanced_table(tiny, toy_task: sl.Task):
    cells = real.planned(tiny(), toy_task)
    places = pd.DataFrame([cell.place for cell in cells])
    assert len(cells) == len({cell.key for cell in cells}) == 63
    assert set(places["seed"]) == set(real.SEEDS)
    hard = places[places["method"] != "soft"]
    wanted = {(m, w) for m in real.HARD for some in real.WEIGHTS for w in some}
    counts = Counter(zip(hard["method"], hard["weight"], strict=True))
    assert counts == dict.fromkeys(wanted, len(real.SEEDS))
    assert list(places[places["method"] == "soft"]["weight"]) == [0.0] * len(real.SEEDS)
    # After each seed of the first weights, all methods have been run equally often.
    for number, seed in enumerate(real.SEEDS, start=1):
        first = places.iloc[: number * (1 + 2 * len(real.HARD))]
        assert set(first["seed"]) == set(real.SEEDS[:number])
        assert set(first[first["method"] != "soft"]["weight"]) == set(real.WEIGHTS[0])
        assert seed in set(first["seed"])
