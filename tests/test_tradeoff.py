"""Fronts, their area, methods in pairs, and the gap taken apart, against numbers by hand."""

import numpy as np
import pandas as pd
import pytest

from softlens import (
    SoftlensError,
    compare_methods,
    fronts,
    hypervolume,
    organism,
    price_split,
)
from softlens.statistics import table_of, undominated
from softlens.tradeoff import attained, hard_runs, reference


def runs(points, task="made", method="pez", seed=0, **more):
    """Runs from (nats, dev, test) triples, the weights their places."""
    rows = [
        {"task": task, "method": method, "seed": seed, "weight": float(i), "proxy": "none",
         "length": 5, "lm": "some-lm", "scored": "tokens", "chance": 0.5, "text": f"prompt {i}",
         "nats_per_token": nats, "accuracy_dev": dev, "accuracy": test}
        for i, (nats, dev, test) in enumerate(points)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**more)


ONE = runs([(2.0, 0.6, 0.65), (4.0, 0.9, 0.8), (5.0, 0.85, 0.99), (8.0, 0.95, 0.9)])
OTHER = runs([(1.0, 0.7, 0.6), (4.0, 0.8, 1.0)], seed=1)


def test_dev_chooses_and_test_is_reported():
    # The run at 5 nats is the best on test and not on dev: it is never taken.
    found = attained(ONE, [1.0, 2.0, 3.9, 4.0, 6.0, 8.0])
    np.testing.assert_allclose(found, [0.5, 0.65, 0.65, 0.8, 0.8, 0.9])


def test_a_front_is_the_mean_over_seeds_and_not_the_best_of_them():
    found = fronts(pd.concat([ONE, OTHER]))
    assert found["nats_per_token"].tolist() == [1.0, 2.0, 4.0, 5.0, 8.0]
    by_hand = [(0.5 + 0.6) / 2, (0.65 + 0.6) / 2, (0.8 + 1.0) / 2, (0.8 + 1.0) / 2, 0.95]
    np.testing.assert_allclose(found["mean"], by_hand)
    assert (found["n"] == 2).all()
    assert (found["low"] <= found["mean"]).all()
    assert (found["mean"] <= found["high"]).all()
    # The interval of two seeds lies between them.
    assert found["low"].min() >= 0.5
    assert found["high"].max() <= 1.0


def test_one_seed_has_no_interval_and_that_is_said(caplog):
    found = fronts(ONE)
    assert found["low"].isna().all()
    assert "One seed has no interval" in caplog.text
    assert "at least three" in caplog.text


def test_the_area_against_a_count_of_random_points():
    frame = pd.concat([ONE, OTHER])
    found = hypervolume(frame, most=8).set_index("seed")["hypervolume"]
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 8, 100_000), rng.uniform(0.5, 1.0, 100_000)
    for seed, part in frame.groupby("seed"):
        below = (y <= attained(part, x)).mean()
        assert found[seed] == pytest.approx(below, abs=0.005)
    default = hypervolume(frame)
    assert (default["most"] == 8.0).all()
    with pytest.raises(SoftlensError, match="wanted a surprisal above 0"):
        hypervolume(frame, most=0)


def test_the_two_prices_add_up_to_the_gap():
    gold = pd.DataFrame(
        {"task": "made", "nats_per_token": [1.0, 3.0, 9.0], "accuracy": [0.6, 0.9, 0.7]}
    )
    found = price_split(runs([(0.5, 0, 0.4), (2.0, 0, 0.6), (3.0, 0, 0.95), (7.0, 0, 0.5)]), gold)
    np.testing.assert_allclose(found["reachable"], [0.5, 0.6, 0.9, 0.9])
    np.testing.assert_allclose(found["price_of_interpretability"], [0.4, 0.3, 0.0, 0.0])
    np.testing.assert_allclose(found["price_of_optimiser"], [0.1, 0.0, -0.05, 0.4])
    total = found["price_of_interpretability"] + found["price_of_optimiser"]
    np.testing.assert_allclose(total, found["gap"])
    assert (found["reference"] == "given front").all()
    with pytest.raises(SoftlensError, match="No prompt of the task 'made' is in gold"):
        price_split(ONE, gold.assign(task="another"))


def test_on_the_organism_the_reference_is_the_gold_front():
    gold = organism.readable_front("sentiment")
    best = gold[gold["on_front"]].sort_values("nats_per_token")
    points = [(n, 0, a) for n, a in best[["nats_per_token", "accuracy"]].to_numpy()]
    found = price_split(runs(points, task="sentiment", lm="organism"))
    # What is on the front has nothing to blame its optimiser for.
    assert (found["reference"] == "gold front").all()
    np.testing.assert_allclose(found["price_of_optimiser"], 0, atol=1e-12)
    # The same prompts measured anew differ from the table in digits that it does not keep.
    anew = price_split(
        runs([(n - 4e-5, 0, a) for n, _, a in points], task="sentiment", lm="organism")
    )
    np.testing.assert_allclose(anew["price_of_optimiser"], 0, atol=1e-12)
    paid = found["price_of_interpretability"].to_numpy()
    assert paid[0] > 0.3
    assert paid[-1] == 0
    worse = price_split(
        runs([(n, 0, a - 0.2) for n, _, a in points], task="sentiment", lm="organism")
    )
    np.testing.assert_allclose(worse["price_of_optimiser"], 0.2)
    np.testing.assert_allclose(worse["price_of_interpretability"], paid)


def test_elsewhere_it_is_a_bound_chosen_on_dev():
    frame = pd.concat([ONE, OTHER])
    bound = reference(frame)
    assert (bound["reference"] == "pooled bound").all()
    # Dev's front of both seeds: .7 at 1 nat, .9 at 4, .95 at 8; what is reported is test.
    assert bound["nats_per_token"].tolist() == [1.0, 4.0, 8.0]
    assert bound["accuracy"].tolist() == [0.6, 0.8, 0.9]
    found = price_split(frame)
    assert (found["reference"] == "pooled bound").all()
    assert found["best"].tolist() == [0.9] * 6
    # Rows stay where they were, soft ones left out.
    soft = runs([(11.0, 1, 1)], method="soft", scored="soft")
    again = price_split(pd.concat([soft, frame]))
    pd.testing.assert_frame_equal(again, found)


def test_ones_own_task_on_the_organism_has_a_bound():
    found = price_split(pd.concat([ONE, OTHER]).assign(lm="organism", task="mine"))
    assert (found["reference"] == "pooled bound").all()


def test_runs_of_two_lms_are_kept_apart_or_refused():
    both = pd.concat([r.assign(lm=lm) for lm in ("one", "other") for r in (ONE, OTHER)])
    for pooled in (fronts, hypervolume, price_split, reference):
        with pytest.raises(SoftlensError, match=r"Got runs of 2 LMs \(one, other\)"):
            pooled(both)
    with pytest.raises(SoftlensError, match="Got runs of 2 LMs"):
        compare_methods(both.assign(method=["a", "b"] * (len(both) // 2)))
    apart = fronts(both, ["task", "lm", "method"])
    assert set(apart["lm"]) == {"one", "other"}
    assert set(hypervolume(both, ["task", "lm"])["lm"]) == {"one", "other"}


def test_pairs_are_taken_seed_by_seed_at_the_same_weights():
    rng = np.random.default_rng(1)
    parts = []
    for seed in range(6):
        shift = rng.normal()
        parts.append(runs([(1, 0, 0.5 + shift), (1, 0, 0.3 + shift)], seed=seed))
        # The other method ran at the first weight only.
        more = runs([(1, 0, 0.4 + shift + 0.01 * seed)], method="rlprompt", seed=seed)
        parts.append(more)
    (row,) = compare_methods(pd.concat(parts)).to_dict("records")
    assert (row["one"], row["other"], row["n"]) == ("pez", "rlprompt", 6)
    assert row["difference"] == pytest.approx(0.1 - 0.025)
    # Great differences between seeds do not hide that one is always better.
    assert row["low"] > 0
    assert row["p"] == pytest.approx(2 / 2**6)
    assert row["least_p"] == pytest.approx(2 / 2**6)


def test_lengths_weights_and_gauges_that_hold_or_not_are_compared_too():
    parts = [
        runs([(1, 0, 0.5 + gain), (1, 0, 0.4 + gain)], seed=seed, length=length)
        for seed in range(3)
        for length, gain in ((3, 0.0), (5, 0.1 + 0.01 * seed))
    ]
    frame = pd.concat(parts)
    (row,) = compare_methods(frame, variant="length").to_dict("records")
    assert (row["one"], row["other"], row["n"]) == (3, 5, 3)
    assert row["difference"] == pytest.approx(-0.11)
    (row,) = compare_methods(frame, variant="weight").to_dict("records")
    assert row["difference"] == pytest.approx(0.1)
    held = frame.assign(holds=[bool(length == 5) for length in frame["length"]])
    held = held.astype({"holds": object})
    (row,) = compare_methods(held, "holds", variant="length").to_dict("records")
    assert row["difference"] == -1.0


def test_runs_of_several_proxies_have_no_weight_and_are_kept():
    frame = pd.concat([ONE, OTHER])
    both = frame.assign(proxy="perplexity+relevance", weight=float("nan"))
    found = fronts(pd.concat([frame, both]), ["task", "proxy", "weight"])
    assert found["weight"].isna().any()
    assert set(found["proxy"]) == {"none", "perplexity+relevance"}


def test_the_exact_test_and_its_adjustment():
    def method(name, values):
        return pd.concat([runs([(1, 0, v)], method=name, seed=i) for i, v in enumerate(values)])

    frame = pd.concat(
        [method("a", [3.0, 1.0, -1.0]), method("b", [0.0, 0.0, 0.0]), method("c", [0.0, 0.0, 0.0])]
    )
    found = compare_methods(frame).set_index(["one", "other"])
    # Of the eight ways to flip the signs of 3, 1, -1 six have a mean of at least 1 in size.
    assert found.loc[("a", "b"), "p"] == pytest.approx(6 / 8)
    assert found.loc[("b", "c"), "p"] == 1.0
    assert found.loc[("a", "b"), "p_holm"] == 1.0
    assert found.loc[("a", "b"), "least_p"] == 0.25
    with pytest.raises(SoftlensError, match="share 1 seeds at the same weights"):
        compare_methods(frame[(frame["seed"] == 0) | (frame["method"] == "a")])
    with pytest.raises(SoftlensError, match="Got one method in each group"):
        compare_methods(method("a", [1.0, 2.0]))


def test_bad_tables_are_refused_in_words():
    with pytest.raises(SoftlensError, match="Got a list, wanted a sweep or a table"):
        fronts([1, 2])
    with pytest.raises(SoftlensError, match="Got a table without rows"):
        fronts(ONE.iloc[:0])
    with pytest.raises(SoftlensError, match=r"without \['accuracy_dev'\]"):
        fronts(ONE.drop(columns="accuracy_dev"))
    with pytest.raises(SoftlensError, match="accuracy_dev"):
        price_split(ONE.drop(columns="accuracy_dev"))
    with pytest.raises(SoftlensError, match="text"):
        price_split(ONE.drop(columns="text"))
    with pytest.raises(SoftlensError, match="Got soft prompts only"):
        hard_runs(ONE.assign(scored="soft"))
    with pytest.raises(SoftlensError, match="Got soft prompts only"):
        hard_runs(ONE.drop(columns="scored").assign(method="soft"))

    class Holder:
        frame = ONE

    assert table_of(Holder(), ["task"]) is ONE


def test_undominated_against_the_definition():
    rng = np.random.default_rng(2)
    gain, cost = rng.integers(0, 6, 60) / 5, rng.integers(0, 6, 60)
    found = undominated(gain, cost)
    for i in np.flatnonzero(found):
        better = (gain >= gain[i]) & (cost <= cost[i]) & ((gain > gain[i]) | (cost < cost[i]))
        assert not better.any()
    # Every point is equalled or beaten by one of the front.
    for i in range(60):
        assert ((gain[found] >= gain[i]) & (cost[found] <= cost[i])).any()


def test_runs_of_two_tasks_are_kept_apart_or_refused():
    both = pd.concat([r.assign(task=task) for task in ("one", "other") for r in (ONE, OTHER)])
    for pooled in (fronts, hypervolume):
        with pytest.raises(SoftlensError, match=r"Got runs of 2 tasks \(one, other\) in one group"):
            pooled(both, ["method"])
        assert set(pooled(both)["task"]) == {"one", "other"}
        assert set(pooled(both, "task")["task"]) == {"one", "other"}
        with pytest.raises(SoftlensError, match="at least one column to group by"):
            pooled(both, [])


def test_a_file_that_is_called_as_a_task_of_the_organism_has_a_bound():
    named = runs([(1.2, 0.9, 0.9)], task="sentiment").assign(lm="organism", asked_for="whole")
    assert set(price_split(named)["reference"]) == {"gold front"}
    assert set(price_split(named.drop(columns="asked_for"))["reference"]) == {"gold front"}
    assert set(price_split(named.assign(asked_for=None))["reference"]) == {"pooled bound"}
