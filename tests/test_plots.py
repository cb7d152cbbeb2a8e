"""Statistics apart from drawing, and pictures that hold what the table says."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from softlens import SoftlensError, oddities, overoptimisation, plots, price_split
from softlens.statistics import mean_interval

SCORED = list(plots.COLOURS)


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        {
            "task": task,
            "scored": scored,
            "seed": seed,
            "accuracy": 0.4 + 0.1 * seed + 0.05 * i,
            "label_mass": 10.0**-i / 2,
            "chance": 0.5 if task == "one" else 0.25,
        }
        for task in ("one", "two")
        for i, scored in enumerate(SCORED)
        for seed in (range(3) if i < 3 else range(1))
    ]
    return pd.DataFrame(rows)


def test_means_and_intervals(frame: pd.DataFrame):
    summary = mean_interval(frame, ["task", "scored"], "accuracy").set_index(["task", "scored"])
    soft = summary.loc[("one", "soft prompt")]
    assert soft["mean"] == pytest.approx(0.5)
    assert 0.4 <= soft["low"] < 0.5 < soft["high"] <= 0.6 + 1e-9
    assert soft["n"] == 3
    alone = summary.loc[("two", "empty prompt")]
    assert np.isnan(alone["low"])
    assert alone["n"] == 1
    assert list(summary.loc["one"].index) == SCORED


def test_intervals_cover_the_mean_as_often_as_they_say():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"group": np.repeat(np.arange(120), 12), "x": generator.normal(3, 1, 120 * 12)}
    )
    summary = mean_interval(frame, ["group"], "x")
    share = ((summary["low"] <= 3) & (summary["high"] >= 3)).mean()
    assert 0.85 <= share <= 1.0


def test_equal_values_and_absent_columns(frame: pd.DataFrame):
    same = mean_interval(frame.assign(accuracy=0.25), ["scored"], "accuracy")
    assert (same[["mean", "low", "high"]] == 0.25).all(axis=None)
    with pytest.raises(SoftlensError, match="No column 'loss'; the table has"):
        mean_interval(frame, ["scored"], "loss")


def test_the_figure_shows_every_seed(frame: pd.DataFrame):
    axes = plots.plot_controls(frame)
    points = sum(len(drawn.get_offsets()) for drawn in axes.collections)
    assert points == len(frame)
    assert axes.get_xlim() == (0, 1)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == SCORED * 2
    words = [text.get_text() for text in axes.texts]
    assert [word for word in words if word in ("one", "two")] == ["one", "two"]
    # Means and label masses in words, the small ones by their power of ten.
    assert {"0.50", "0.65", "0.05", "5e-04"} <= set(words)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend[0] == "chance"
    assert "95% bootstrap interval of the mean" in legend
    dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [0.5, 0.25]
    plt.close(axes.figure)
    without = plots.plot_controls(frame.drop(columns="chance"))
    assert "chance" not in [text.get_text() for text in without.get_legend().get_texts()]
    plt.close(without.figure)
    with pytest.raises(SoftlensError, match=r"without \['label_mass'\]"):
        plots.plot_controls(frame.drop(columns="label_mass"))
    with pytest.raises(SoftlensError, match="Got an empty table"):
        plots.plot_controls(frame.iloc[:0])


def test_saved_whole_and_the_same_twice(frame: pd.DataFrame, tmp_path: Path):
    contents = []
    for folder in ("first", "second"):
        axes = plots.plot_controls(frame)
        written = plots.save(axes.figure, tmp_path / folder / "lambda_0.3", frame)
        plt.close(axes.figure)
        assert [path.name.removeprefix("lambda_0.3") for path in written] == [
            ".pdf", ".png", ".csv",
        ]  # fmt: skip
        contents.append([path.read_bytes() for path in written])
    assert contents[0] == contents[1]
    assert contents[0][0].startswith(b"%PDF")
    assert b"/FontFile2" in contents[0][0]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "first" / "lambda_0.3.csv"), frame)


def test_training_paths():
    history = pd.DataFrame(
        {
            "step": [1, 2, 3],
            "task_loss": [0.9, 0.7, 0.5],
            "accuracy_dev": [np.nan, 0.6, np.nan],
            "tokens_changed": [0, 1, 1],
        }
    )
    loss, accuracy, changed = plots.plot_history(history, length=5)
    assert len(accuracy.lines[0].get_xdata()) == 1
    assert "nats" in loss.get_ylabel()
    assert "of 5" in changed.get_ylabel()
    plt.close(loss.figure)
    _, _, policy = plots.plot_history(history.assign(entropy=[2.0, 1.0, 0.1]), length=5)
    assert "entropy" in policy.get_ylabel()
    assert policy.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.1]
    plt.close(policy.figure)


def test_the_front_shows_every_question_and_what_is_held_against_it():
    front = pd.DataFrame(
        {
            "nats_per_token": [0.5, 1.0, 1.5, 2.0],
            "accuracy": [0.6, 0.9, 0.9, 0.5],
            "label_mass": [1.0, 0.9, 0.8, 0.1],
            "asks_for": ["first", "whole", "whole", "price"],
            "on_front": [True, True, False, False],
        }
    )
    marks = pd.DataFrame(
        {
            "scored": ["soft prompt", "nearest tokens"],
            "accuracy": [0.95, 0.4],
            "nats_per_token": [np.nan, 9.0],
        }
    )
    axes = plots.plot_front(front, marks)
    assert sum(len(drawn.get_offsets()) for drawn in axes.collections) == len(front) + 1
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [
        "label mass below 0.5", "asks for first", "asks for whole",
        "readable front", "soft prompt", "nearest tokens",
    ]  # fmt: skip
    assert "nats" in axes.get_xlabel()
    plt.close(axes.figure)
    with pytest.raises(SoftlensError, match="Got an empty front"):
        plots.plot_front(front.iloc[:0])


def test_variants_of_one_method_can_be_told_apart_on_the_front():
    front = pd.DataFrame(
        {"nats_per_token": [1.0], "accuracy": [0.9], "label_mass": [1.0], "asks_for": ["whole"],
         "on_front": [True]}
    )  # fmt: skip
    marks = pd.DataFrame(
        {"scored": ["pez a", "pez b", "gcg"], "accuracy": [0.5] * 3, "nats_per_token": [7.0] * 3}
    )
    axes = plots.plot_front(front, marks)
    first, second, other = axes.collections[-3:]
    assert not np.array_equal(first.get_facecolor(), second.get_facecolor())
    assert np.array_equal(first.get_facecolor(), second.get_edgecolor())
    assert np.array_equal(other.get_edgecolor()[0, :3], [0, 0, 0])
    plt.close(axes.figure)


def test_histories_show_proxies_and_gradients():
    history = pd.DataFrame(
        {
            "step": [1, 2],
            "task_loss": [0.9, 0.7],
            "perplexity": [8.0, 6.0],
            "grad_norm_task": [0.1, 0.2],
            "grad_norm_perplexity": [0.0, 0.3],
            "accuracy_dev": [np.nan, 0.6],
            "tokens_changed": [0, 1],
        }
    )
    axes = plots.plot_history(history, 5, proxies={"perplexity": "nats per token"})
    assert [ax.get_ylabel().replace("\n", " ") for ax in axes] == [
        "task loss (nats)", "accuracy on dev", "tokens changed (of 5)",
        "perplexity (nats per token)", "gradient's norm (nats per unit of embedding)",
    ]  # fmt: skip
    assert [line.get_label() for line in axes[-1].lines] == ["task", "perplexity"]
    assert axes[-1].get_yscale() == "log"
    plt.close(axes[0].figure)


def test_weights_show_every_run_and_the_means():
    frame = pd.DataFrame(
        [
            {"method": method, "weight": weight, "accuracy": 0.9 - 0.1 * weight - 0.01 * seed,
             "nats_per_token": 9.0 - 3 * weight + seed, "label_mass": 0.5, "empty_accuracy": 0.5}
            for method in ("pez", "rlprompt") for weight in (0.0, 0.3, 1.0) for seed in (0, 1, 2)
        ]
    )  # fmt: skip
    axes = plots.plot_weights(frame)
    assert len(axes) == 3
    points = sum(len(c.get_offsets()) for c in axes[1].collections if c.get_label() != "")
    assert points >= len(frame)
    means = axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(means, [10.0, 9.1, 7.0])
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["pez", "rlprompt", "empty prompt"]
    plt.close(axes[0].figure)
    with pytest.raises(SoftlensError, match=r"without \['nats_per_token'\]"):
        plots.plot_weights(frame.drop(columns="nats_per_token"))
    half = len(frame) // 2
    for name, kept in (("task", "'a'"), ("lm", "'a'"), ("proxy", r"\['none', 'a'\]")):
        mixed = frame.assign(**{name: ["a"] * half + ["b"] * half})
        with pytest.raises(SoftlensError, match=rf"several values of {name!r} .*{name}={kept}"):
            plots.plot_weights(mixed)
    plots.plot_weights(frame.assign(proxy=["none"] * half + ["b"] * half))
    plt.close("all")


def test_methods_and_kinds_look_different():
    looks = [plots.look(name) for name in (*plots.COLOURS, *plots.METHODS)]
    assert len(set(looks)) == len(looks)
    assert plots.look("pez lambda 0.3") == plots.look("pez")
    assert plots.look("never heard of") == ("0.4", "o")


@pytest.fixture
def table() -> pd.DataFrame:
    """Two methods on two tasks, three weights and seeds; the second has one weight only."""
    return pd.DataFrame(
        [
            {"task": task, "method": method, "weight": weight, "seed": seed, "lm": "some-lm",
             "proxy": "perplexity" if weight else "none", "text": "a a a", "scored": "tokens",
             "accuracy": 0.9 - 0.2 * weight + 0.01 * seed, "chance": 0.5, "label_mass": 0.5,
             "accuracy_dev": 0.9 - 0.2 * weight, "nats_per_token": 9 - 5 * weight - 0.1 * seed,
             "empty_accuracy": 0.4, "random_accuracy": 0.45, "readable_accuracy": 0.95}
            for task in ("one", "two") for method in ("pez", "tandem")
            for weight in (0.0, 0.3, 1.0) for seed in (0, 1, 2)
            if method == "pez" or weight == 0
        ]
    )  # fmt: skip


def test_the_tradeoff_shows_every_run_the_front_and_the_controls(table: pd.DataFrame):
    axes = plots.plot_tradeoff(table)
    assert [panel.get_title() for panel in axes] == ["one", "two"]
    for panel in axes:
        points = sum(len(c.get_offsets()) for c in panel.collections if c.get_label()[0] != "_")
        assert points == 12
    names = [text.get_text() for text in axes[-1].get_legend().get_texts()]
    assert names == [
        "pez", "tandem", "pooled bound", "empty prompt", "random prompts", "best readable",
    ]  # fmt: skip
    # The front of pez: at most 4.0 nats .7, at most 8.5 nats .84, at most 9 nats .91, on average.
    front = axes[0].lines[0]
    assert front.get_ydata()[-1] == pytest.approx(0.91)
    plt.close(axes[0].figure)
    alone = plots.plot_tradeoff(table[table["task"] == "one"])
    assert "nats" in alone.get_xlabel()
    plt.close(alone.figure)


def test_pictures_of_several_panels_say_how_many_they_take(table: pd.DataFrame):
    history = pd.DataFrame(
        {"step": [1], "task_loss": [0.9], "accuracy_dev": [0.5], "tokens_changed": [0]}
    )
    figure, mine = plt.subplots(2, 4)
    for draw, wanted in (
        (lambda ax: plots.plot_tradeoff(table, ax), 2),
        (lambda ax: plots.plot_price(price_split(table), ax), 2),
        (lambda ax: plots.plot_weights(table[table["task"] == "one"], ax), 3),
        (lambda ax: plots.plot_history(history, 5, ax=ax), 3),
    ):
        some = mine.ravel()[:wanted]
        assert [*draw(list(some))] == [*some]
        with pytest.raises(SoftlensError, match=f"Got 8 Axes, wanted {wanted}, one for each panel"):
            draw(mine)
        with pytest.raises(SoftlensError, match=f"Got ax with a Figure in it, wanted {wanted}"):
            draw(figure)
    plt.close(figure)


def test_the_price_is_drawn_in_two_parts_that_add_up(table: pd.DataFrame):
    gold = pd.DataFrame(
        {"task": ["one", "one", "two"], "nats_per_token": [1, 5, 1], "accuracy": [0.7, 1.0, 1.0]}
    )
    split = price_split(table, gold)
    axes = plots.plot_price(split)
    bars = [bar for bar in axes[0].patches if np.isfinite(bar.get_x())]
    drawn = sum(bar.get_height() for bar in bars)
    means = split[split["task"] == "one"].groupby(["method", "weight"])["gap"].mean()
    assert drawn == pytest.approx(means.sum())
    assert axes[-1].get_legend().get_title().get_text() == "against the given front"
    words = [text.get_text() for text in axes[0].texts]
    assert words == ["pez", "tandem"]
    plt.close(axes[0].figure)


def test_odd_behaviour_is_counted_in_the_picture(table: pd.DataFrame):
    axes = plots.plot_oddities(oddities(table))
    words = [text.get_text() for text in axes.texts]
    # "a a a" is a loop of every run; of the greatest weight all are fluent and ignore the task;
    # nobody can tell whether they are off task.
    assert words.count("6/6") == 5
    assert words.count("?") >= 4
    assert {"pez", "tandem"} <= set(words)
    plt.close(axes.figure)
    one = plots.plot_oddities(oddities(table.drop(columns="weight")))
    assert [tick.get_text() for tick in one.get_xticklabels()] == ["pez", "tandem"]
    plt.close(one.figure)


def test_proxies_are_drawn_beside_their_gauges(table: pd.DataFrame):
    found = overoptimisation(table.assign(label_mass=1 - 0.5 * table["weight"]))
    axes = plots.plot_overoptimisation(found)
    assert axes.shape == (2, 3)
    assert [panel.get_ylabel() for panel in axes[:, 0]] == ["one", "two"]
    assert axes[0, 0].get_title() == "proxy: perplexity\n(nats/token) ↓"
    assert axes[0, 1].get_title() == "test accuracy ↑"
    # Both the accuracy and the mass part from the proxy at once, and a star says where.
    stars = [line for line in axes[1, 1].lines if line.get_marker() == "*"]
    assert [float(star.get_xdata()[0]) for star in stars] == [1.0]
    plt.close(axes[0, 0].figure)


def test_many_gauges_stand_below_each_other(table: pd.DataFrame):
    names = ["label_mass", "max_surprisal", "repetition", "grammatical", "transfer_accuracy"]
    found = overoptimisation(table.assign(**dict.fromkeys(names, 0.5)))
    axes = plots.plot_overoptimisation(found)
    assert axes.shape == (2, 7)
    corners = np.array([panel.get_subplotspec().get_geometry()[:2] for panel in axes.ravel()])
    assert (corners == (4, 5)).all()
    legends = [legend for panel in axes[0, 0].figure.axes if (legend := panel.get_legend())]
    words = [text.get_text() for text in legends[0].get_texts()]
    controls = ["empty prompt", "random prompts", "best readable"]
    assert words == ["pez", *controls, "parts from\nthe proxy here"]
    assert len(legends) == 1
    plt.close(axes[0, 0].figure)
