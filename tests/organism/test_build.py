import json
from dataclasses import replace

import pandas as pd
import pytest

from softlens import files
from softlens.errors import SoftlensError
from softlens.organism import build as build_room
from softlens.organism import gates
from softlens.organism.__main__ import main
from softlens.organism.build import RECIPES, build, gates_as_text, install, make, write_card
from softlens.statistics import undominated

TINY = replace(RECIPES["organism"], hidden=16, layers=1, heads=2, steps=2, rows=4)
SMALL = gates.Sizes(texts=8, enumerated=4, sampled=50, stride=400, seeds=0)


@pytest.fixture
def bundled(tmp_path):
    """A data folder with files of an earlier build."""
    (tmp_path / "organism").mkdir()
    (tmp_path / "organism" / "config.json").write_text("old")
    (tmp_path / "readable_front.csv").write_text("old")
    return tmp_path


def _content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_gates_that_do_not_pass_leave_the_bundled_files(bundled):
    before = _content(bundled)
    with pytest.raises(SoftlensError, match=r"gates did not pass.*stay as they were") as error:
        build(bundled, ["organism"], {"organism": TINY}, SMALL, progress=False)
    assert "witness: worst wording" in str(error.value)
    assert _content(bundled) == before


@pytest.mark.parametrize("moment", ["train", "measure", "readable_front"])
def test_an_interruption_leaves_the_bundled_files(bundled, monkeypatch, moment):
    before = _content(bundled)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    where = build_room.gates if moment == "measure" else build_room
    if moment == "readable_front":
        monkeypatch.setattr(build_room, "check", lambda *a: _table(passed=True))
    monkeypatch.setattr(where, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(bundled, ["organism"], {"organism": TINY}, SMALL, progress=False)
    assert _content(bundled) == before


def test_a_build_that_passes_replaces_files_and_writes_the_card(bundled, monkeypatch):
    monkeypatch.setattr(build_room, "check", lambda *a: _table(passed=True))
    monkeypatch.setattr(build_room, "readable_front", lambda *a, **k: pd.DataFrame({"text": ["x"]}))
    card = bundled / "README.md"
    card.write_text(f"# Data\n\n{build_room.START}\n{build_room.END}\n\n## Real texts\n")
    build(bundled, ["organism"], {"organism": TINY}, SMALL, progress=False)
    sums = json.loads((bundled / "organism" / "checksums.json").read_text())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(sums)
    for name, wanted in sums.items():
        assert files.sha256(bundled / "organism" / name) == wanted
    assert (bundled / "readable_front.csv").read_text() == "text\nx\n"
    assert "| a gate | 0.5 | >= 0.97 | yes |" in card.read_text()
    assert card.read_text().endswith("## Real texts\n")
    assert sorted(p.name for p in bundled.iterdir()) == [
        "README.md",
        "organism",
        "readable_front.csv",
    ]


def test_two_builds_give_the_same_bits(tmp_path):
    make(TINY, tmp_path / "one", progress=False)
    make(TINY, tmp_path / "two", progress=False)
    assert _content(tmp_path / "one") == _content(tmp_path / "two")


def test_a_failed_rename_puts_the_old_folder_back(bundled, tmp_path):
    before = _content(bundled)
    made = tmp_path / "made"
    made.mkdir()
    with pytest.raises(FileNotFoundError):
        install(made, bundled, ["organism"])
    assert _content(bundled) == before


def test_an_unknown_name_is_refused(tmp_path, capsys):
    with pytest.raises(SoftlensError, match=r"Got 'organsm'.* Did you mean 'organism'"):
        build(tmp_path, ["organsm"])
    assert main(["organsm", "--folder", str(tmp_path)]) == 1
    assert "Did you mean 'organism'" in capsys.readouterr().err


def test_a_card_keeps_what_other_lms_had(tmp_path):
    card = tmp_path / "README.md"
    card.write_text(f"before\n{build_room.START}\n{build_room.END}\nafter\n")
    write_card(card, _table(passed=True))
    write_card(card, _table(passed=False).assign(lm="organism-judge"))
    write_card(card, _table(passed=True).assign(observed=0.25))
    text = card.read_text()
    assert text.count("### organism\n") == 1
    assert "| a gate | 0.25 | >= 0.97 | yes |" in text
    assert "### organism-judge\n\n| gate" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


def test_gates_say_their_intervals():
    assert gates.Gate("g", 0.5, low=0.97).threshold == ">= 0.97"
    assert gates.Gate("g", 0.5, high=0.62).threshold == "<= 0.62"
    assert gates.Gate("g", 0.5, 0.4, 0.6).threshold == "0.4 to 0.6"
    assert gates.Gate("g", 0.5, 0.4, 0.6).passed
    assert gates.Gate("g", 0.5).passed
    assert gates.Gate("g", 0.5).threshold == "reported"
    assert not gates.Gate("g", float("nan"), low=0.4).passed
    assert "| no |" in gates_as_text(_table(passed=False))


def test_the_front_has_no_point_that_another_beats():
    gain, cost = [0.6, 0.8, 0.8, 0.7, 1.0], [1.0, 2.0, 1.5, 1.6, 3.0]
    assert undominated(gain, cost).tolist() == [True, False, True, False, True]


def _table(*, passed):
    return pd.DataFrame(
        {
            "lm": "organism",
            "gate": "a gate",
            "observed": 0.5,
            "threshold": ">= 0.97",
            "passed": passed,
        },
        index=[0],
    )
