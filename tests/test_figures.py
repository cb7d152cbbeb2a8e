"""Every figure drawn quickly on the organism: files, captions, and what is kept between calls."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import softlens as sl
from softlens import MissingExtraError, SoftlensError, Task, files
from softlens.figures import FIGURES, Ground, LeftOutError, draw, show
from softlens.figures.__main__ import main
from softlens.figures.real import balanced, claims, missing_from, real_runs, scored_on
from softlens.figures.runs import chunks, shared_sweep
from softlens.figures.soft_nearest import of_a_sweep
from softlens.sweeps.store import Store

OF_THE_STORE = "tradeoff_real"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("figures")
    return Ground(folder, task_names=("sentiment",), quick=True, store=folder / "no store")


@pytest.fixture(scope="module")
def drawn(ground: Ground) -> Ground:
    """All figures that need no store of a real LM."""
    for name in FIGURES:
        if name != OF_THE_STORE:
            draw(ground, name)
    return ground


def test_fourteen_figures_each_with_its_number():
    assert sorted(figure.number for figure in FIGURES.values()) == list(range(1, 15))


@pytest.mark.parametrize("name", [name for name in FIGURES if name != OF_THE_STORE])
def test_each_is_drawn_with_its_table_and_caption(drawn: Ground, name: str):
    for suffix, starts in ((".pdf", b"%PDF"), (".png", b"\x89PNG")):
        assert (drawn.folder / f"{name}{suffix}").read_bytes().startswith(starts)
    table = pd.read_csv(drawn.folder / f"{name}.csv")
    assert len(table)
    caption = (drawn.folder / f"{name}.md").read_text()
    assert caption.startswith(f"**Figure {FIGURES[name].number}: ")
    # What it stands on: the LM, how many texts, seeds and intervals.
    assert "LM: organism (0.2M parameters, float32)" in caption
    assert re.search(r"n = \d+ (test|training) texts|Test texts: sentiment: 128", caption)
    assert "QUICK" in caption
    if name != "attribution":
        assert "Seeds: 2; intervals are 95% bootstrap intervals" in caption


def test_seeds_are_counted_where_runs_are_missing(drawn: Ground):
    left = [key for key, cell in drawn.sweep.cells.items() if cell.run.seed == 1]
    fewer = replace(drawn)
    stores = {key: path for key, path in drawn.sweep.stores.items() if key not in left}
    frame = drawn.sweep.frame[~drawn.sweep.frame["cell"].isin(left)]
    fewer.__dict__["sweep"] = replace(drawn.sweep, frame=frame, stores=stores)
    assert "Seeds: 1; intervals are" in fewer.stated()
    assert f"Not there: {len(left)} runs, 0 of which failed." in fewer.stated()
    assert "Not there" not in drawn.stated()


def test_a_figure_whose_runs_failed_is_left_out_and_the_others_are_drawn(
    drawn: Ground, tmp_path: Path
):
    kept = drawn.sweep.frame[drawn.sweep.frame["method"] != "pez"]
    fewer = replace(drawn, folder=tmp_path)
    stores = {key: drawn.sweep.stores[key] for key in kept["cell"]}
    fewer.__dict__["sweep"] = replace(drawn.sweep, frame=kept, stores=stores)
    with pytest.raises(LeftOutError, match="runs that it shows failed or are not there"):
        draw(fewer, "attribution")
    with pytest.raises(LeftOutError, match="no run with the proxy relevance"):
        draw(fewer, "proxies_compared")
    draw(fewer, "tradeoff_rlprompt")


def test_tables_are_those_of_the_runs_that_are_there(drawn: Ground, tmp_path: Path):
    kept = drawn.sweep.frame[drawn.sweep.frame["seed"] == 0]
    fewer = replace(drawn)
    fewer.__dict__["sweep"] = replace(drawn.sweep, frame=kept)
    fewer.__dict__["folder"] = tmp_path
    draw(fewer, "transfer")
    found = pd.read_csv(tmp_path / "transfer.csv")
    assert set(found.loc[found["scored"] == "pez", "seed"]) == {0}


def test_ctrl_c_ends_the_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Interrupted:
        failed = ()

        def missing(self) -> list[int]:
            return [1]

    monkeypatch.setattr("softlens.figures.runs.sweep", lambda *given, **named: Interrupted())
    asked = ["--quick", "--task", "sentiment", "--workers", "1", "--only", "tradeoff_pez"]
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *asked])
    assert ended.value.code == 130
    assert "the same call goes on" in caplog.text
    assert not [*tmp_path.glob("tradeoff_pez*")]


def test_a_page_shows_the_small_picture_and_the_caption(drawn: Ground):
    shown = show(drawn, "over_optimisation")
    assert shown.small.startswith(b"\x89PNG")
    assert len(shown.small) < 80_000
    assert repr(shown).startswith("**Figure 6: ")
    absent = show(drawn, OF_THE_STORE)
    assert "Left out: There are no finished runs on a real LM: `make figures-real`" in repr(absent)
    with pytest.raises(LeftOutError):
        absent.small  # noqa: B018


def test_numbers_in_a_figure_are_those_of_the_sweep(drawn: Ground):
    table = pd.read_csv(drawn.folder / "tradeoff_pez.csv")
    runs = drawn.sweep.frame
    runs = runs[runs["method"].isin(["pez", "soft"]) & runs["proxy"].isin(["none", "perplexity"])]
    assert len(table) == len(runs)
    np.testing.assert_allclose(table["accuracy"], runs["accuracy"])
    parts = pd.read_csv(drawn.folder / "price_apart.csv")
    each = parts[parts["part"] == "run"]
    total = each["price_of_interpretability"] + each["price_of_optimiser"]
    np.testing.assert_allclose(total, each["gap"])
    transferred = pd.read_csv(drawn.folder / "transfer.csv")
    assert {"best readable", "random prompt", "empty prompt"} <= set(transferred["scored"])
    assert set(transferred["lm"]) == {"organism", "organism-judge", "organism-llama"}
    # On its own LM a text does what its run says.
    own = transferred[(transferred["lm"] == "organism") & (transferred["scored"] == "tandem")]
    tandem = drawn.sweep.frame.query("method == 'tandem'")
    np.testing.assert_allclose(sorted(own["accuracy"]), sorted(tandem["accuracy"]), atol=1e-6)


def test_a_second_call_computes_nothing(drawn: Ground, monkeypatch: pytest.MonkeyPatch):
    def never(*args: object, **options: object) -> None:
        raise AssertionError("computed again")

    before = (drawn.folder / "transfer.csv").read_bytes()
    monkeypatch.setattr("softlens.sweeps.serial.tune", never)
    monkeypatch.setattr("softlens.figures.transferred._everywhere", never)
    monkeypatch.setattr("softlens.figures.readings._read_all", never)
    again = replace(drawn)
    for name in ("transfer", "reading_faithfulness", "price_apart"):
        draw(again, name)
    assert (drawn.folder / "transfer.csv").read_bytes() == before


def test_a_damaged_table_is_computed_again(drawn: Ground, caplog: pytest.LogCaptureFixture):
    made = pd.DataFrame({"a": [1.0]})
    assert drawn.table("small", lambda: made)["a"].tolist() == [1.0]
    (kept,) = (drawn.folder / ".runs").glob("small-*.parquet")
    kept.write_bytes(b"no parquet")
    assert drawn.table("small", lambda: made + 1)["a"].tolist() == [2.0]
    assert "damaged" in caplog.text
    # What decides a table is in its name.
    assert drawn.table("small", lambda: made + 2, seeds=(1,))["a"].tolist() == [3.0]


def test_what_cannot_be_drawn_says_why(ground: Ground, capsys: pytest.CaptureFixture[str]):
    assert real_runs(ground) is None
    with pytest.raises(LeftOutError, match="no finished runs on a real LM: `make figures-real`"):
        draw(ground, OF_THE_STORE)
    with pytest.raises(LeftOutError, match="needs the organism"):
        draw(replace(ground, lm_name="another"), "transfer")
    with pytest.raises(SoftlensError, match="No figure 'tradeof_pez'. Did you mean 'tradeoff_pez'"):
        draw(ground, "tradeof_pez")
    with pytest.raises(SystemExit):
        main([str(ground.folder), "--lm", "gpt2"])
    assert "has no tasks of its own" in capsys.readouterr().err


def test_a_store_of_real_runs_is_drawn_and_says_what_it_lacks(drawn: Ground):
    """A store that is half done; the organism stands in for the real LM."""
    store = next(path for path in (drawn.folder / ".runs").iterdir() if path.is_dir())
    ground = replace(drawn, store=store)
    found = real_runs(ground)
    assert found is not None
    assert missing_from(found) == ""
    draw(ground, OF_THE_STORE)
    caption = (drawn.folder / "tradeoff_real.md").read_text()
    assert "sentiment tandem: 2 runs of 2 seeds" in caption
    # The texts are fewer than the task's own here, and their number is not made up.
    assert "All of the tasks' test texts" in caption
    assert re.search(r"of the optimiser, the mean of all runs: .*pez \d\.\d\d and -?\d", caption)
    assert re.search(r"Odd behaviour by the rules of figure 5: .*pez .* \d+ of \d+", caption)
    assert "Gauges part from the proxy by at least 0.05 of a share or 0.25 nats" in caption
    assert "Of the weights that all seeds" not in caption

    class Half:
        frame = found.frame

        def missing(self) -> pd.DataFrame:
            return pd.DataFrame({"task": ["genre"] * 3, "method": ["pez", "pez", "race"]})

    says = missing_from(Half())  # type: ignore[arg-type]
    assert "Not yet run on organism: genre pez 2, genre race 1" in says


def test_runs_are_drawn_where_their_texts_are_not_installed(monkeypatch: pytest.MonkeyPatch):
    found = sl.load_sweep(files.data_dir() / "real_runs")

    def missing(name: str) -> Task:
        raise MissingExtraError("the texts are not there: pip install softlens[real]")

    monkeypatch.setattr("softlens.figures.real.load_task", missing)
    assert scored_on(found) == "All of the tasks' test texts"


def test_claims_are_of_weights_that_all_seeds_have(drawn: Ground, tmp_path: Path):
    store = next(path for path in (drawn.folder / ".runs").iterdir() if path.is_dir())
    whole = sl.load_sweep(shutil.copytree(store, tmp_path / "store"))
    assert len(balanced(whole).frame) == len(whole.frame)
    weights = sorted(whole.frame["weight"].unique())
    lost = whole.frame[whole.frame["weight"] == weights[-1]].iloc[0]["cell"]
    shutil.rmtree(tmp_path / "store" / "cells" / lost)
    Store.open(tmp_path / "store").plan([whole.cells[lost]])
    part = sl.load_sweep(tmp_path / "store")
    assert sorted(balanced(part).frame["weight"].unique()) == weights[:-1]
    wanted = " and ".join(f"{weight:g}" for weight in weights[:-1])
    assert claims(part).startswith(f"Of the weights that all seeds have been run at, {wanted}: ")


def test_soft_runs_of_a_sweep_beside_their_controls(drawn: Ground):
    table = of_a_sweep(drawn.sweep.frame, "here: ")
    assert list(dict.fromkeys(table["scored"])) == [
        "soft prompt", "nearest tokens", "best readable", "random prompt", "empty prompt",
    ]  # fmt: skip
    soft = drawn.sweep.frame.query("method == 'soft'")
    found = table[table["scored"] == "nearest tokens"]["accuracy"]
    np.testing.assert_allclose(found, soft["nearest_accuracy"])
    assert set(table["task"]) == {"here: sentiment"}


def test_the_sweep_is_asked_for_seeds_first(ground: Ground):
    whole = Ground(ground.folder)
    seeds = [chunk.seed for chunk in chunks(whole)]
    assert seeds == sorted(seeds)
    runs = sum(len(c.methods) * len(c.proxies) for c in chunks(whole))
    assert runs == 3 * (3 * (5 + 5 + 3) + 6)


@pytest.fixture
def one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    ground = Ground(tmp_path, task_names=("sentiment",), quick=True, workers=2)
    (first, *_) = chunks(ground)
    monkeypatch.setattr(
        "softlens.figures.runs.chunks", lambda g: [replace(first, proxies=({},), seed=s)
                                                   for s in (0, 1)]
    )  # fmt: skip
    return ground


def test_processes_share_the_store(one_run: Ground, drawn: Ground):
    found = shared_sweep(one_run).frame
    alone = drawn.sweep.frame.query("method == 'pez' and proxy == 'none'")
    # The same bits as one process makes.
    assert sorted(found["token_ids"]) == sorted(alone["token_ids"])
    assert sorted(found["accuracy"]) == sorted(alone["accuracy"])


def test_the_command_line_draws_what_is_named(drawn: Ground, caplog: pytest.LogCaptureFixture):
    quick = ["--quick", "--task", "sentiment", "--workers", "1"]
    store = ["--store", str(drawn.folder / "no store")]
    main([str(drawn.folder), *quick, *store, "--only", "odd_behaviour", OF_THE_STORE])
    assert "Left out: tradeoff_real (figure 13)" in caplog.text


def test_another_lm_and_task_from_folders_in_the_hubs_format(
    hub_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As `make figures LM=gpt2 TASK=sst2`, on a machine without the hub."""
    monkeypatch.setenv("SOFTLENS_CACHE", str(tmp_path / "cache"))
    texts = tmp_path / "cache" / "datasets" / "sst2"
    texts.mkdir(parents=True)
    for split, count in (("train", 120), ("validation", 40)):
        rows = [(f"the film was {('bad', 'good')[i % 2]} {split} {i}", i % 2) for i in range(count)]
        table = pd.DataFrame(rows, columns=["sentence", "label"])
        table.to_parquet(texts / f"{split}.parquet")
    asked = ["--quick", "--lm", str(hub_folder), "--task", "sst2", "--workers", "1"]
    main([str(tmp_path / "figures"), *asked, "--only", "soft_vs_nearest", "transfer"])
    shown = pd.read_csv(tmp_path / "figures" / "soft_vs_nearest.csv")
    assert {"soft prompt", "empty prompt"} <= set(shown["scored"])
    assert any("sst2" in task for task in shown["task"])
    caption = (tmp_path / "figures" / "soft_vs_nearest.md").read_text()
    # Both LMs are drawn, and both are told.
    assert any("smollm2-135m: " in task for task in shown["task"])
    assert "LM: hub-format" in caption
    assert re.search(r"LM: smollm2-135m\. .*est texts.*\. Seeds: \d", caption)
    assert not (tmp_path / "figures" / "transfer.csv").exists()
