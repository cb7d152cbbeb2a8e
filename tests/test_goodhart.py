"""Where a proxy and what it stands for part, on curves whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from softlens import SoftlensError, overoptimisation

WEIGHTS = (0.0, 0.1, 0.3, 1.0)


def sweep(accuracy, mass, nats, seeds=4, spread=0.0, **more):
    """Runs along the weights, each gauge a curve, seeds shifted all along by `spread`."""
    rows = []
    for seed in range(seeds):
        # A seed's own level shifts all its weights alike; its noise is small beside the changes.
        for i, weight in enumerate(WEIGHTS):
            noise = spread * seed + 0.001 * ((seed * 7 + i * 3) % 5)
            rows.append(
                {"task": "made", "method": "pez", "seed": seed, "weight": weight,
                 "proxy": "perplexity" if weight else "none", "scored": "tokens",
                 "accuracy": accuracy[i] + noise, "label_mass": mass[i] + noise,
                 "nats_per_token": nats[i] + noise, "judge_perplexity": np.exp(nats[i] + noise)}
            )  # fmt: skip
    return pd.DataFrame(rows).assign(**more)


def test_they_part_where_the_gauge_turns():
    found = overoptimisation(sweep([0.6, 0.8, 0.7, 0.5], [0.5, 0.6, 0.7, 0.8], [9, 7, 5, 3]))
    parts = found.parts.set_index("gauge")
    # Better up to .1, worse from .3 on, while the surprisal falls all along.
    assert parts.loc["accuracy", "best_weight"] == 0.1
    assert parts.loc["accuracy", "parts_at"] == 0.3
    assert parts.loc["accuracy", "gauge_change"] == pytest.approx(-0.1, abs=0.01)
    assert parts.loc["accuracy", "proxy_change"] == pytest.approx(2.0, abs=0.01)
    # The mass rises all along, and the judge agrees: nothing parts.
    assert np.isnan(parts.loc["label_mass", "parts_at"])
    assert np.isnan(parts.loc["judge_nats", "parts_at"])
    assert parts.loc["accuracy", "n"] == 4
    roles = found.frame.drop_duplicates("gauge").set_index("gauge")["role"]
    assert roles.to_dict() == {
        "accuracy": "task", "label_mass": "held out", "judge_nats": "held out",
        "perplexity": "proxy",
    }  # fmt: skip


def test_what_is_lost_while_the_proxy_gets_worse_was_not_lost_to_it():
    # Alike at the first three weights; from .3 on the proxy itself gets worse.
    frame = sweep([1, 1, 1, 0.5], [0.5] * 4, [10, 1.6, 1.5, 5])
    frame["accuracy"] = frame["weight"].map({0.0: 1.0, 0.1: 1.0, 0.3: 1.0, 1.0: 0.5})
    parts = overoptimisation(frame).parts.set_index("gauge")
    assert parts.loc["accuracy", "best_weight"] == 0.3
    assert np.isnan(parts.loc["accuracy", "parts_at"])
    # Lost while the proxy gets better still, it is.
    frame.loc[frame["weight"] == 1.0, "nats_per_token"] = 1.0
    parts = overoptimisation(frame).parts.set_index("gauge")
    assert parts.loc["accuracy", "parts_at"] == 1.0


def test_one_seed_cannot_tell(caplog):
    frame = sweep([0.8, 0.7, 0.6, 0.5], [0.5] * 4, [9, 7, 5, 3])
    assert "cannot be told" not in overoptimisation(frame).headline
    found = overoptimisation(frame[frame["seed"] == 0])
    assert "3 of them cannot be told (one seed)" in found.headline
    assert "have one seed, and no interval" in caplog.text


def test_seeds_that_are_missing_at_a_weight_decide_nothing_there():
    frame = sweep([0.8, 0.81, 0.9, 0.3], [0.5] * 4, [9, 8, 7, 3])
    whole = overoptimisation(frame).parts.set_index("gauge")
    assert whole.loc["accuracy", "best_weight"] == 0.3
    # One seed at .3 cannot make it the best, and what is lost at 1 is seen all the same.
    fewer = frame[(frame["weight"] != 0.3) | (frame["seed"] == 0)]
    parts = overoptimisation(fewer).parts.set_index("gauge")
    assert parts.loc["accuracy", ["best_weight", "parts_at", "n"]].tolist() == [0.1, 1.0, 4]
    # A last weight of one seed does not undo what could be told of those before it.
    early = frame[(frame["weight"] != 1.0) | (frame["seed"] == 0)]
    parts = overoptimisation(early).parts.set_index("gauge")
    assert parts.loc["accuracy", "n"] == 4
    assert np.isnan(parts.loc["accuracy", "parts_at"])


def test_of_few_seeds_none_may_say_otherwise():
    frame = sweep([0.8, 0.7, 0.6, 0.5], [0.5] * 4, [9, 7, 5, 3], seeds=3)
    assert overoptimisation(frame).parts.set_index("gauge").loc["accuracy", "parts_at"] == 0.1
    # In one seed the proxy is a little worse at .1: the interval leaves 0 out all the same.
    at = (frame["weight"] == 0.1) & (frame["seed"] == 0)
    frame.loc[at, "nats_per_token"] = 9.1
    assert overoptimisation(frame).parts.set_index("gauge").loc["accuracy", "parts_at"] == 0.3


def test_weights_without_a_common_seed_cannot_be_told():
    frame = sweep([0.8, 0.7, 0.6, 0.5], [0.5] * 4, [9, 7, 5, 3])
    apart = frame[(frame["weight"] > 0) == (frame["seed"] > 0)]
    apart = apart[apart["weight"].isin([0.0, 0.3])]
    found = overoptimisation(apart)
    assert found.untold == len(found.parts) == 3
    assert found.parts["n"].eq(0).all()
    # Nor can a gauge that was taken at one weight only.
    frame.loc[frame["weight"] == 0, "judge_perplexity"] = np.nan
    parts = overoptimisation(frame).parts.set_index("gauge")
    assert parts.loc["accuracy", "parts_at"] == 0.1


def test_lengths_that_a_weight_lacks_are_no_loss(caplog):
    parts = [
        sweep([accuracy] * 4, [0.5] * 4, [9, 7, 5, 3], length=length)
        for length, accuracy in ((3, 0.6), (8, 0.9))
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[(frame["length"] == 3) | (frame["weight"] == 0)]
    found = overoptimisation(frame)
    assert found.parts["parts_at"].isna().all()
    assert "Left out: prompts of 8 tokens of pez on made" in caplog.text


def test_runs_of_two_lms_are_not_pooled():
    frame = sweep([0.8, 0.7, 0.6, 0.5], [0.5] * 4, [9, 7, 5, 3], lm="one")
    with pytest.raises(SoftlensError, match=r"runs of 2 LMs \(one, other\).*filter\(lm='one'\)"):
        overoptimisation(pd.concat([frame, frame.assign(lm="other")]))


def test_a_proxy_that_does_not_improve_cannot_be_over_optimised():
    found = overoptimisation(sweep([0.8, 0.7, 0.6, 0.5], [0.5] * 4, [5, 5, 5, 5]))
    assert found.parts["parts_at"].isna().all()


def test_differences_between_seeds_do_not_hide_a_change():
    found = overoptimisation(sweep([0.8, 0.7, 0.6, 0.5], [0.5] * 4, [9, 7, 5, 3], spread=0.2))
    parts = found.parts.set_index("gauge")
    assert parts.loc["accuracy", "parts_at"] == 0.1
    means = found.frame[found.frame["gauge"] == "accuracy"]
    # The curve's own interval is wide all the same.
    assert (means["high"] - means["low"]).min() > 0.2


def test_what_is_certain_and_does_not_matter_is_no_change():
    found = overoptimisation(sweep([0.8] * 4, [0.9, 0.89, 0.88, 0.87], [9, 8.9, 8.8, 3]))
    assert found.parts["parts_at"].isna().all()
    found = overoptimisation(sweep([0.8] * 4, [0.9, 0.8, 0.7, 0.6], [9, 8.9, 8.8, 3]))
    # The surprisal has not fallen by as much as matters before the last weight.
    assert found.parts.set_index("gauge").loc["label_mass", "parts_at"] == 1.0


def test_noise_is_no_change():
    rng = np.random.default_rng(0)
    frame = sweep([0.7] * 4, [0.5] * 4, [9, 7, 5, 3], seeds=6)
    frame["accuracy"] = 0.7 + 0.1 * rng.normal(size=len(frame))
    parts = overoptimisation(frame).parts.set_index("gauge")
    assert np.isnan(parts.loc["accuracy", "parts_at"])


def test_the_gauge_that_is_the_proxy_is_not_held_out():
    frame = sweep([0.8, 0.7, 0.6, 0.5], [0.5, 0.6, 0.7, 0.8], [9, 7, 5, 3])
    frame.loc[frame["proxy"] != "none", "proxy"] = "label_mass"
    found = overoptimisation(frame)
    assert set(found.frame["gauge"]) == {"label_mass", "accuracy", "judge_nats"}
    assert found.frame.loc[found.frame["role"] == "proxy", "better"].eq("higher").all()
    assert found.parts.set_index("gauge").loc["accuracy", "parts_at"] == 0.1


def test_gauges_of_the_organism_and_absent_ones():
    frame = sweep([0.8, 0.7, 0.6, 0.5], [0.5] * 4, [9, 7, 5, 3])
    frame = frame.assign(asks_for="nothing", asked_for="whole", grammatical=frame["weight"] > 0.1)
    frame.loc[frame["weight"] == 0, "asks_for"] = "whole"
    found = overoptimisation(frame.astype({"grammatical": object}))
    on_task = found.frame[found.frame["gauge"] == "on_task"].set_index("weight")["mean"]
    assert on_task.tolist() == [1, 0, 0, 0]
    grammatical = found.frame[found.frame["gauge"] == "grammatical"].set_index("weight")["mean"]
    assert grammatical.tolist() == [0, 0, 1, 1]
    parts = found.parts.set_index("gauge")
    assert parts.loc["on_task", "parts_at"] == 0.1
    # Off the organism nobody knows, and no curve is drawn.
    off = overoptimisation(frame.assign(asked_for=None, grammatical=None))
    assert not {"on_task", "grammatical"} & set(off.frame["gauge"])


def test_tables_without_a_curve_are_refused():
    frame = sweep([0.5] * 4, [0.5] * 4, [5] * 4)
    with pytest.raises(SoftlensError, match="No proxy stands at two weights"):
        overoptimisation(frame[frame["weight"] == 0.3])
    with pytest.raises(SoftlensError, match="No proxy stands at two weights.*'none'"):
        overoptimisation(frame[frame["proxy"] == "none"])
    with pytest.raises(SoftlensError, match="Got a table without rows"):
        overoptimisation(frame.iloc[:0])
    assert "part in" in overoptimisation(frame).headline
