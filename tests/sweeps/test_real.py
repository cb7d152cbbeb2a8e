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


def test_the_store_is_small():
    """What everybody who clones the repository downloads."""
    sizes = [path.stat().st_size for path in real.folder().rglob("*") if path.is_file()]
    assert sum(sizes) < 5_000_000


def test_every_beginning_of_the_plan_is_a_balanced_table(tiny, toy_task: sl.Task):
    lm = tiny()
    first, others = (real.planned(lm, toy_task, weights) for weights in real.WEIGHTS)
    assert len({cell.key for cell in first + others}) == len(first) + len(others) == 63
    first, others = (pd.DataFrame([c.place for c in cells]) for cells in (first, others))
    both = pd.concat([first, others])
    assert set(both["seed"]) == set(real.SEEDS)
    soft = both["method"] == "soft"
    wanted = {(m, w) for m in real.HARD for some in real.WEIGHTS for w in some}
    counts = Counter(zip(both[~soft]["method"], both[~soft]["weight"], strict=True))
    assert counts == dict.fromkeys(wanted, len(real.SEEDS))
    assert list(both[soft]["weight"]) == [0.0] * len(real.SEEDS)
    # After each seed, all methods and weights of the part have been run equally often.
    for part in (first, others):
        each = len(part) // len(real.SEEDS)
        for number, seed in enumerate(real.SEEDS):
            places = part.iloc[number * each : (number + 1) * each]
            assert set(places["seed"]) == {seed}
            assert not places.duplicated(["method", "weight"]).any()
