"""What is bundled: its files, its behaviour at reduced sizes, and its readable front."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from softlens import files
from softlens.errors import DamagedFileError, SoftlensError
from softlens.lm import load_lm, token_surprisal
from softlens.organism import (
    TASK_ASKS,
    ask,
    asks_for,
    gates,
    grammar,
    make_task,
    readable_front,
)
from softlens.organism.build import BUNDLED
from softlens.organism.front import COLUMNS
from softlens.organism.tasks import tasks
from softlens.statistics import undominated

NAMES = BUNDLED
SIZES = gates.Sizes(texts=512, enumerated=8, sampled=1000, stride=25, seeds=0)


@pytest.fixture(scope="module")
def lms():
    return {name: load_lm(name) for name in NAMES}


@pytest.fixture(scope="module")
def front():
    table = pd.read_csv(files.data_dir() / "readable_front.csv", keep_default_na=False)
    assert list(table.columns) == COLUMNS
    return table


def test_all_bundled_files_fit_and_have_their_checksums():
    total = 0
    for name in NAMES:
        folder = files.data_dir() / name
        sums = json.loads((folder / "checksums.json").read_text())
        assert {path.name for path in folder.iterdir()} == {*sums, "checksums.json"}
        assert all(files.sha256(folder / file) == wanted for file, wanted in sums.items())
        total += sum(path.stat().st_size for path in folder.iterdir())
    total += (files.data_dir() / "readable_front.csv").stat().st_size
    assert (files.data_dir() / "organism" / "model.safetensors").stat().st_size < 1_000_000
    assert total < 8_000_000


@pytest.mark.parametrize("name", NAMES)
def test_every_token_was_trained(name):
    recipe = json.loads((files.data_dir() / name / "recipe.json").read_text())
    assert recipe["rarest"]["times_trained"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_bundled_lms_pass_their_gates(name, lms):
    judged = None if name == "organism" else lms["organism"]
    table = gates.measure(lms[name], SIZES, judged)
    assert table["passed"].all(), table[~table["passed"]].to_string()


def test_soft_prompts_learn_every_task_of_the_organism(lms):
    """One seed; that nearest tokens do not tell is a statement about several."""
    found = list(gates.tuned(lms["organism"], gates.Sizes(seeds=1), tasks()))
    learned = [gate for gate in found if ": soft prompt" in gate.gate]
    assert len(learned) == len(TASK_ASKS)
    assert all(gate.passed for gate in learned), learned


def test_a_random_hundred_rows_of_the_front_are_what_the_lm_does(front, lms):
    lm = lms["organism"]
    rows = front.sample(100, random_state=7)
    for name, group in rows.groupby("task"):
        task = make_task(name)
        words = torch.tensor(task.answer_ids(lm))
        for count, few in group.groupby("texts"):
            part = task.test.take(count)
            labels = torch.tensor(part.labels)
            for row in few.itertuples():
                log_probs = _plain(lm, part.texts, row.text)
                right = log_probs.argmax(1) == words[labels]
                among = log_probs[:, words].argmax(1) == labels
                assert right.double().mean() == pytest.approx(row.accuracy_vocab, abs=2.1e-3)
                assert among.double().mean() == pytest.approx(row.accuracy, abs=0.02)
                mass = log_probs[:, words].exp().sum(1).mean()
                assert mass == pytest.approx(row.label_mass, abs=2e-4)
    ids = [lm.encode(text) for text in rows["text"]]
    nats = token_surprisal(lm, ids, "bos")[:, 0].nanmean(1)
    np.testing.assert_allclose(nats, rows["nats_per_token"], atol=2e-4)
    assert [len(row) for row in ids] == rows["length"].tolist()
    assert [asks_for(text) for text in rows["text"]] == rows["asks_for"].tolist()


def _plain(lm, texts, question):
    """Log-probabilities of the answer by one plain forward a text length, nothing cached."""
    rows = [[lm.bos_id, *lm.encode(f"{text} {question}")] for text in texts]
    found = torch.empty(len(rows), lm.vocab_size)
    for length in {len(row) for row in rows}:
        at = [i for i, row in enumerate(rows) if len(row) == length]
        with torch.no_grad():
            logits = lm.model(
                input_ids=torch.tensor([rows[i] for i in at]), logits_to_keep=1
            ).logits
        found[at] = logits[:, -1].log_softmax(-1)
    return found


def test_the_front_holds_every_question_once_for_each_task(front):
    written = {follow_up.text for follow_up in grammar().follow_ups}
    for _, group in front.groupby("task"):
        assert written <= set(group["text"])
        assert group["text"].is_unique


def test_the_front_is_the_undominated_part_and_ends_with_the_right_question(front):
    assert set(front["task"]) == set(TASK_ASKS)
    for name, group in front[front["label_mass"] >= 0.5].groupby("task"):
        best = undominated(group["accuracy_vocab"], group["nats_per_token"])
        assert best.tolist() == group["on_front"].tolist()
        top = group[group["on_front"]].sort_values("accuracy_vocab").iloc[-1]
        assert top["accuracy_vocab"] >= 0.97
        assert top["asks_for"] == TASK_ASKS[name]
    sentiment = front[front["on_front"] & (front["task"] == "sentiment")]
    kinds = sentiment.sort_values("nats_per_token")["asks_for"].drop_duplicates().tolist()
    assert kinds == ["first", "middle", "last", "whole"]


def test_damaged_bundled_files_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "organism"
    folder.mkdir()
    for path in (files.data_dir() / "organism").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    monkeypatch.setattr(files, "data_dir", lambda: tmp_path)
    with pytest.raises(DamagedFileError, match=r"config\.json is damaged .*make organism"):
        load_lm("organism")


def test_ask_shows_answers_beside_what_is_right(lms):
    lm, task = lms["organism"], make_task("witness")
    text = task.test.texts[0]
    table = ask(lm, text, ["the critic said it was", "the total price was about"])
    assert table["asks_for"].tolist() == ["person:critic", "price"]
    assert table["right"][0] == task.label_words[task.test.labels[0]]
    assert (table["answer"] == table["right"]).all()
    plain = _plain(lm, (text,), "the critic said it was")[0].softmax(0)
    assert table["probability"][0] == pytest.approx(float(plain.max()), rel=1e-4)
    with pytest.raises(SoftlensError, match="No front of task 'witnes'.*mean 'witness'"):
        readable_front("witnes")
    assert set(readable_front("topic")["task"]) == {"topic"}
