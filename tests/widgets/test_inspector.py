"""The inspector without a browser: what an edit does, what is shown, and what goes wrong."""

import gc
import html
import math
import re
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

import softlens as sl
from softlens import decode
from softlens.lm import LM
from softlens.prompts import LMName
from softlens.tasks import digest
from softlens.widgets import inspector as inspectors
from softlens.widgets import sample as samples
from softlens.widgets import shades, static, testset, views, workbench
from softlens.widgets.sample import (
    LEAST,
    REMEMBERED,
    SECONDS_A_POSITION,
    SECONDS_A_WEIGHT,
    SMALL_AIM,
    SMALL_SAMPLE,
    Memory,
    Sample,
)
from softlens.widgets.shades import affordable
from softlens.widgets.workbench import PiecesError

TEXT = "at the start it was"
EVIL = '<img src=x onerror="alert(1)">'


def measured(lm, task, prompt, split="dev"):
    """What `sl.evaluate` says, as the inspector names it."""
    found = sl.evaluate(lm, task, prompt, split=split)
    return [found.accuracy, found.label_mass, found.loss]


def shown(inspector, scored="now"):
    row = inspector.numbers.set_index("scored").loc[scored]
    return row[["accuracy", "label_mass", "loss_nats"]].tolist()


# -- what an edit does ----------------------------------------------------------------------------


def test_a_replaced_word_is_measured_as_evaluate_measures_its_text(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    assert shown(inspector) == pytest.approx(measured(lm, task, TEXT))
    inspector.replace(2, "end")
    assert inspector.prompt.text.strip() == "at the end it was"
    assert shown(inspector) == pytest.approx(measured(lm, task, "at the end it was"))
    assert shown(inspector, "as given") == pytest.approx(measured(lm, task, TEXT))


def test_a_dropped_position_is_measured_as_the_shorter_prompt(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    without = shown(inspector, "without position 0")
    inspector.drop(0)
    assert inspector.prompt.length == 4
    assert shown(inspector) == pytest.approx(measured(lm, task, "the start it was"))
    assert shown(inspector) == pytest.approx(without)


def test_a_masked_position_holds_the_mean_embedding(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.mask(1)
    vectors = sl.Prompt.from_text(lm, TEXT).vectors.clone()
    vectors[1] = lm.embedding[lm.ordinary_ids].mean(dim=0)
    assert not inspector.prompt.is_hard
    torch.testing.assert_close(inspector.prompt.vectors, vectors)
    assert shown(inspector) == pytest.approx(measured(lm, task, sl.Prompt.soft(lm, vectors)))


def test_an_edit_of_a_soft_prompt_leaves_the_other_vectors_soft(lm, task, soft_run):
    inspector = sl.inspect(lm, soft_run, task)
    inspector.replace(1, "great")
    vectors = soft_run.prompt.vectors.clone()
    vectors[1] = lm.embed(lm.encode("great", leading_space=True))[0]
    torch.testing.assert_close(inspector.prompt.vectors, vectors)
    assert inspector.bench.scored == "tokens, and soft vectors at 2 of 3 positions"
    assert shown(inspector) == pytest.approx(measured(lm, task, sl.Prompt.soft(lm, vectors)))
    for position in range(3):
        inspector.replace(position, "great")
    assert inspector.prompt.text.split() == ["great"] * 3


def test_nearest_tokens_of_a_soft_prompt_are_searched_for_once(lm, task, soft_run, monkeypatch):
    inspector = sl.inspect(lm, soft_run, task)
    inspector.replace(1, "great")
    searched = []
    search = decode.nearest

    def counted(*args, **options):
        searched.append(args)
        return search(*args, **options)

    monkeypatch.setattr(decode, "nearest", counted)
    inspector.replace(1, "end")
    assert len(searched) == 2  # what colours the boxes, and the neighbours of the new token
    assert inspector.bench.pieces[1] == "end"


def test_the_controls_are_those_of_evaluate(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    assert shown(inspector, "empty") == pytest.approx(measured(lm, task, None))
    best = min(
        (sl.evaluate(lm, task, text, split="dev") for text in task.readable), key=lambda e: e.loss
    )
    row = inspector.numbers.set_index("scored").loc["best readable"]
    assert row["text"] == best.prompt_text
    assert row["accuracy"] == pytest.approx(best.accuracy)
    drawn = sl.controls(lm, task, 5).random
    random = [measured(lm, task, e.prompt_text) for e in drawn]
    assert shown(inspector, "random, mean of 5") == pytest.approx(np.mean(random, axis=0), abs=1e-6)


def test_the_surprisal_of_the_controls_is_that_of_the_view(lm, task):
    numbers = sl.inspect(lm, TEXT, task).numbers.set_index("scored")
    readable = sl.surprisal(lm, numbers["text"]["best readable"])
    random = [
        sl.surprisal(lm, e.prompt_text).nats_per_token for e in sl.controls(lm, task, 5).random
    ]
    nats = numbers["nats_per_token"]
    assert nats["best readable"] == pytest.approx(readable.nats_per_token)
    assert nats["random, mean of 5"] == pytest.approx(np.mean(random))
    assert np.isnan(nats["empty"])
    assert nats["random, mean of 5"] > nats["best readable"] > 0


def test_changed_predictions_are_those_that_differ(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.replace(2, "end")
    frames = [sl.evaluate(lm, task, t, split="dev").frame for t in (TEXT, "at the end it was")]
    differ = np.flatnonzero(frames[0]["predicted"] != frames[1]["predicted"]).tolist()
    assert differ
    assert inspector.bench.changed() == differ
    assert inspector.numbers["changed"].tolist()[:2] == [len(differ), 0]
    listed = views.changed(inspector.bench, most=3)
    assert f"{len(differ)} of 64 predictions changed (the first 3)" in listed


def test_surprisal_is_that_of_the_view(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.drop(1)
    inspector.colour("surprisal")
    found = sl.surprisal(lm, "at start it was")
    assert inspector.numbers["nats_per_token"][0] == pytest.approx(found.nats_per_token)
    values = inspector.frame["surprisal_nats"].tolist()
    assert np.isnan(values[1])
    assert values[:1] + values[2:] == pytest.approx(found.frame["surprisal_nats"].tolist())


def test_attribution_is_that_of_the_view(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.colour("attribution")
    found = sl.attribute(lm, task, TEXT, "shapley", texts=32, split="dev", progress=False)
    values = inspector.frame["attribution_nats"].tolist()
    assert values == pytest.approx(found.frame["attribution"].tolist())
    assert "shapley" in inspector.scale.value


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neighbours_are_the_nearest_tokens(lm, task, soft_run, metric):
    inspector = sl.inspect(lm, soft_run, task)
    inspector.bench.metric = metric
    inspector.choose(2)
    found = sl.nearest_tokens(lm, soft_run.prompt, k=8, metric=metric).frame.query("position == 2")
    ours = inspector.bench.neighbours()
    assert ours["token_id"].tolist() == found["token_id"].tolist()
    assert ours["score"].tolist() == pytest.approx(found["score"].tolist())


def test_answers_are_probabilities_of_the_next_token(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.bench.text = 5
    inspector.replace(2, "end")
    frame = inspector.bench.answers(k=4)
    shares = {}
    for name, text in {"now": "at the end it was", "as given": TEXT, "empty": ""}.items():
        ids = [lm.bos_id, *lm.encode(task.dev.texts[5])]
        ids += lm.encode(text, leading_space=True) if text else []
        with torch.no_grad():
            shares[name] = lm.model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)
    assert frame["token_id"].tolist()[:2] == task.answer_ids(lm)
    assert frame["answer"].tolist()[:2] == list(task.label_words)
    for name, wanted in shares.items():
        # Under every prompt, those of tokens that are no label words, too.
        assert frame[name].tolist() == pytest.approx(
            wanted[frame["token_id"].tolist()].tolist(), rel=1e-3
        )
    assert len(frame) > 2
    assert {*shares["now"].topk(4).indices.tolist()} <= {*frame["token_id"]}
    assert "nan" not in views.answers(inspector.bench, frame)


def test_the_test_texts_are_scored_as_evaluate_scores_them(lm, task, monkeypatch):
    monkeypatch.setattr(lm, "memo", {})
    inspector = sl.inspect(lm, TEXT, task)
    inspector.replace(2, "end")
    heard = []
    frame = inspector.score_on_test(lambda done, of: heard.append((done, of)))
    # Two prompts on the test texts; then the controls: readable ones on dev, and the best of them,
    # the empty prompt and five random ones on test and training texts.
    own, held = 2 * 80, len(task.readable) * 64 + 7 * (80 + 64)
    done = [pairs for pairs, _ in heard]
    assert {of for _, of in heard} == {own + held}
    assert done == sorted(done)
    assert done[0] == 0
    assert own in done
    assert len([pairs for pairs in done if own < pairs < own + held]) >= 2
    assert done[-2:] == [own + held] * 2
    again = []
    inspector.score_on_test(lambda done, of: again.append((done, of)))
    assert again[-1] == (own, own)  # the LM remembers the controls
    frame = frame.set_index("scored")
    for scored, text in {"now": "at the end it was", "as given": TEXT, "empty": None}.items():
        assert frame.loc[scored].tolist() == pytest.approx(measured(lm, task, text, "test"))
    assert {"best readable", "random, mean of 5"} <= {*frame.index}
    assert inspector.tested_now
    inspector.undo()
    assert not inspector.tested_now


def controls_on_test(inspector):
    frame = inspector.score_on_test().set_index("scored")
    return {name: frame.loc[row, "accuracy"] for row, name in testset.CONTROLS.items()}


def test_the_controls_of_a_run_are_used_again(lm, task, soft_run, monkeypatch):
    monkeypatch.setattr(lm, "memo", {})
    monkeypatch.setattr(testset, "controls", None)
    inspector = sl.inspect(lm, soft_run, task)
    assert inspector.bench.sample.readable == (soft_run.metrics["readable_text"],)
    for name, accuracy in controls_on_test(inspector).items():
        assert accuracy == soft_run.metrics[f"{name}_accuracy"]


@pytest.mark.parametrize("other", ["task", "template", "size", "interrupted"])
def test_the_controls_of_a_run_are_not_those_of_another_task(lm, task, soft_run, other):
    if other == "task":
        task = sl.load_task("topic").head(train=64, dev=64, test=80)
    elif other == "template":
        task = task.with_(template="{prompt} {text}")
    elif other == "size":
        task = task.head(train=32)
    else:
        keys = [key for key in soft_run.metrics if key.startswith(("empty_", "random_"))]
        metrics = soft_run.metrics | dict.fromkeys(keys, math.nan)
        soft_run = replace(soft_run, metrics=metrics)
    inspector = sl.inspect(lm, soft_run, task, texts=4)
    wanted = sl.controls(lm, task, 3).metrics()
    for name, accuracy in controls_on_test(inspector).items():
        assert accuracy == wanted[f"{name}_accuracy"]
    assert inspector.bench.sample.readable == task.readable


def test_the_test_table_is_that_of_the_draft(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.tabs.selected_index = 1
    panel = inspector.front
    panel.test.click()
    first = panel.tested.value
    inspector.tabs.selected_index = 0
    inspector.replace(2, "end")
    inspector.score_on_test()
    inspector.tabs.selected_index = 1
    accuracy = sl.evaluate(lm, task, "at the end it was").accuracy
    assert f"<td>{accuracy:.4f}</td>" in panel.tested.value != first
    inspector.drop(0)
    assert "score again" in panel.tested.value
    inspector.undo()
    assert inspector.tested_now
    assert f"<td>{accuracy:.4f}</td>" in panel.tested.value


def test_an_edited_prompt_stands_where_it_was_trained(lm, task, run, soft_run, tmp_path):
    for one in (run, soft_run):
        assert one.prompt.template == task.template
        inspector = sl.inspect(lm, one, task, texts=4)
        inspector.replace(1, "great")
        assert inspector.prompt.template == task.template
        inspector.mask(0)
        assert inspector.prompt.template == task.template


def test_undo_and_restore_go_back(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    before = shown(inspector)
    inspector.replace(2, "end")
    inspector.drop(0)
    inspector.undo()
    assert inspector.prompt.text.strip() == "at the end it was"
    inspector.restore(2)
    assert inspector.prompt is inspector.bench.given
    inspector.mask(1)
    inspector.drop(3)
    inspector.restore_all()
    assert shown(inspector) == before
    inspector.undo()
    assert inspector.frame["state"].tolist() == ["kept", "masked", "kept", "dropped", "kept"]


def test_nothing_left_is_the_empty_prompt(lm, task):
    inspector = sl.inspect(lm, "great", task)
    inspector.drop(0)
    assert inspector.prompt is None
    assert shown(inspector) == pytest.approx(shown(inspector, "empty"))
    for measure in ("surprisal", "cosine", "attribution"):
        inspector.colour(measure)
        assert np.isnan(inspector.frame.iloc[0, -1])
    with pytest.raises(sl.SoftlensError, match="says nothing: restore a position"):
        inspector.read()
    inspector.undo()
    assert inspector.prompt.length == 1


def test_readings_stand_side_by_side_with_their_faithfulness(lm, task, soft_run):
    inspector = sl.inspect(lm, soft_run, task, readings=["all in all it was"])
    inspector.read("nearest")
    (_, given, _), (nearest, tested, _) = inspector.read_so_far
    found = sl.faithfulness(lm, task, soft_run.prompt, nearest)
    assert nearest.text == sl.read(lm, soft_run.prompt).text
    assert tested["accuracy"] == f"{found.accuracy_reading:.3f}"
    assert tested["KL closed"].startswith(f"{found.kl_closed:.2f} [")
    assert given["accuracy"] != tested["accuracy"]
    assert "all in all it was" in inspector.static().data


def test_a_reading_of_another_draft_is_marked(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.tabs.selected_index = 2
    inspector.read("nearest")
    inspector.replace(2, "end")
    inspector.read("nearest")
    for page in (inspector.front.table.value, inspector.static().data):
        assert page.count('nearest <span class="dim">(edited since)</span>') == 1
    inspector.undo()
    marked = [row.count("edited since") for row in inspector.front.table.value.split("</tr>")[1:3]]
    assert marked == [0, 1]


def test_a_reading_of_another_lm_is_refused_without_a_task_too(lm):
    other = sl.Reading.from_text(sl.load_lm("organism-judge"), "it was")
    with pytest.raises(sl.SoftlensError, match="is of 'organism-judge'"):
        sl.inspect(lm, TEXT, readings=[other])


def test_a_training_is_replayed(lm, task, run, soft_run):
    inspector = sl.inspect(lm, run, task)
    replay = inspector.bench.replay
    assert len(replay) == len(run.history)
    moment = replay.at(7)
    row = run.history.iloc[7]
    assert moment.numbers["task_loss"] == row["task_loss"]
    assert moment.numbers["perplexity"] == row["perplexity"]
    soft = sl.inspect(lm, soft_run, task).bench.replay
    counts = [sum(soft.at(i).changed) for i in range(len(soft))]
    assert counts == soft_run.history["tokens_changed"].tolist()
    inspector.put(moment.token_ids)
    assert inspector.prompt.token_ids == moment.token_ids
    assert shown(inspector) == pytest.approx(
        measured(lm, task, sl.Prompt.from_ids(lm, moment.token_ids))
    )
    with pytest.raises(sl.SoftlensError, match="Got 2 tokens for 4 positions"):
        inspector.put([1, 2])


def test_the_task_of_a_run_is_found(lm, soft_run):
    inspector = sl.inspect(lm, soft_run)
    assert inspector.bench.task.name == "sentiment"
    assert len(inspector.bench.sample) == 256


def test_texts_of_ones_own_are_not_taken_for_the_bundled_ones(lm, task, soft_run, caplog):
    own = replace(task, test=sl.Split(("mine", *task.test.texts[1:]), task.test.labels))
    elsewhere = replace(soft_run, task_digest=digest(own))
    three = soft_run.config.model_copy(update={"label_words": ("good", "bad", "dull")})
    for run in (elsewhere, replace(elsewhere, config=three)):
        caplog.clear()
        assert sl.inspect(lm, run).bench.task is None
        assert "tuned on other texts than those of the bundled task 'sentiment'" in caplog.text
        assert "Pass the run's own task" in caplog.text
    assert sl.inspect(lm, elsewhere, own, texts=4).bench.task is own
    # A file that does not say it.
    assert sl.inspect(lm, replace(soft_run, task_digest="")).bench.task.name == "sentiment"


# -- bad input ------------------------------------------------------------------------------------


def test_without_the_lm_the_file_is_shown(soft_run, tmp_path):
    run = sl.load_run(soft_run.save(tmp_path / "run"))
    inspector = sl.inspect(None, run)
    page = inspector.static().data
    assert "is not at hand" in page
    assert f"{run.metrics['accuracy']:.3f}" in page
    assert run.text in page
    ids = run.history["token_ids"].iloc[-1].split()
    assert inspector.frame["token"].tolist() == [f"#{i}" for i in ids]
    assert [panel.name for panel in inspector.panels] == ["Training"]
    for act in (
        lambda: inspector.replace(0, "great"),
        lambda: inspector.drop(0),
        inspector.score_on_test,
        inspector.bench.answers,
    ):
        with pytest.raises(sl.SoftlensError, match="needs the LM 'organism'.*not at hand"):
            act()
    assert inspector.prompt is run.prompt
    assert "read only" in repr(inspector)


def test_a_run_of_another_lm_is_refused(soft_run):
    with pytest.raises(sl.SoftlensError, match="Load"):
        sl.inspect(sl.load_lm("organism-judge"), soft_run)


def test_unknown_words_are_refused_with_near_ones(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    with pytest.raises(sl.SoftlensError, match="'greatt' is no word of 'organism'.*'great'"):
        inspector.replace(0, "greatt")
    with pytest.raises(sl.SoftlensError, match="empty word"):
        inspector.replace(0, " ")
    with pytest.raises(sl.SoftlensError, match="position 9, wanted 0 to 4"):
        inspector.replace(9, "great")


def test_ids_outside_the_vocabulary_leave_the_prompt_as_it_is(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    ids = list(inspector.prompt.token_ids)
    for act in (
        lambda: inspector.replace(0, 10**6),
        lambda: inspector.replace(0, -1),
        lambda: inspector.put([*ids[:4], lm.vocab_size]),
    ):
        with pytest.raises(sl.SoftlensError, match=f"wanted 0 to {lm.vocab_size - 1}"):
            act()
        assert inspector.prompt is inspector.bench.given
    inspector.replace(0, "great")
    inspector.undo()
    assert inspector.prompt is inspector.bench.given


def test_a_word_of_several_tokens_offers_its_pieces(tiny, toy_task):
    lm = tiny("gpt2")
    inspector = sl.inspect(lm, "film was", toy_task)
    panel = inspector.panels[0]
    word = "greatdull"
    with pytest.raises(PiecesError, match="'greatdull' is . tokens.*holds one"):
        inspector.replace(0, word)
    panel.word.value = word
    assert "holds one" in inspector.error.value
    pieces = lm.encode(word, leading_space=True)
    assert len(panel.pieces.items) == len(pieces) > 1
    panel.pieces.press(1)
    assert inspector.frame["token_id"][0] == pieces[1]
    assert inspector.error.value == ""
    assert not panel.pieces.items


def test_the_pieces_of_a_word_go_when_another_position_is_chosen(tiny, toy_task):
    inspector = sl.inspect(tiny("gpt2"), "film was", toy_task)
    panel = inspector.panels[0]
    panel.word.value = "greatdull"
    inspector.choose(0)
    assert panel.pieces.items
    inspector.choose(1)
    assert not panel.pieces.items


def test_without_a_task_there_is_no_accuracy(lm):
    inspector = sl.inspect(lm, TEXT)
    assert inspector.numbers["accuracy"].isna().all()
    assert "No task, so no accuracy" in inspector.static().data
    assert "Texts" not in [panel.name for panel in inspector.panels]
    with pytest.raises(sl.SoftlensError, match="An attribution needs a task"):
        inspector.colour("attribution")
    assert inspector.bench.measure == "cosine"
    with pytest.raises(sl.SoftlensError, match="Test texts need a task"):
        inspector.score_on_test()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"run_or_prompt": 3}, "Got a int to inspect"),
        ({"lm": None}, "no vectors without an LM"),
        ({"texts": 0}, "texts=0, wanted at least 1"),
        ({"split": "deev"}, "Did you mean 'dev'"),
        ({"run_or_prompt": "the " * 96}, "96 positions, wanted 1 to 95"),
    ],
)
def test_bad_arguments_are_refused(lm, task, asked, words):
    with pytest.raises(sl.SoftlensError, match=words):
        sl.inspect(**{"lm": lm, "run_or_prompt": TEXT, "task": task} | asked)


@pytest.mark.parametrize("template", ["{text} {prompt}", "{prompt} {text}"])
def test_a_long_prompt_is_tried_on_fewer_texts(lm, template):
    task = sl.load_task("sentiment").with_(template=template)
    own = (
        0 if template.startswith("{text}") else np.mean([len(lm.encode(t)) for t in task.dev.texts])
    )
    counts = []
    for length in (1, 5, 20, 40):
        found = Sample.of(lm, task, "dev", None, length)
        counts.append(len(found))
        assert found.texts == task.dev.texts[: len(found)]
        rate = SECONDS_A_POSITION + SECONDS_A_WEIGHT * lm.parameters
        fits = SMALL_AIM / (rate * (length + own))
        assert counts[-1] == pytest.approx(min(fits, SMALL_SAMPLE), rel=0.05)
        assert len(Sample.of(lm, task, "dev", 100, length)) == 100  # as many as are asked for
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 0.6 * counts[0]
    assert own or counts[:2] == [SMALL_SAMPLE] * 2


def test_the_least_is_kept_where_even_one_text_takes_long(lm, monkeypatch):
    monkeypatch.setattr(samples, "SMALL_AIM", 0.0)
    assert len(sl.inspect(lm, TEXT, sl.load_task("sentiment")).bench.sample) == LEAST


def test_a_long_text_is_clipped_in_its_cell_and_whole_where_it_is_hovered(lm, task):
    text = " ".join([TEXT] * 8)
    page = sl.inspect(lm, text, task).measured.value
    assert f'title="{text}">{text[:89]}…</span>' in page
    assert f">{text}<" not in page
    evil = EVIL * 4
    assert "<img" not in views._clipped(evil)
    assert html.escape(evil) in views._clipped(evil)
    assert views._clipped("a\nb \\ c") == views.shown("a\nb \\ c") == "a⏎b \\\\ c"
    assert views._clipped("\n" * 89) == "⏎" * 89


def test_two_hundred_positions_are_quick(bpe_tokenizer, toy_task):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=512,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    lm = LM(AutoModelForCausalLM.from_config(config), bpe_tokenizer, name="long")
    prompt = sl.Prompt.from_ids(lm, [int(lm.ordinary_ids[i % 300]) for i in range(200)])
    inspector = sl.inspect(lm, prompt, toy_task)
    began = time.process_time()
    inspector.replace(100, int(lm.ordinary_ids[7]))
    assert time.process_time() - began < 2
    assert len(inspector.boxes.items) == 200
    began = time.process_time()
    inspector.colour("attribution")
    assert time.process_time() - began < 10
    assert np.isfinite(inspector.frame["attribution_nats"]).all()


def test_an_attribution_is_one_that_can_be_waited_for(lm, task, monkeypatch):
    of_organism, of_smollm = 32 * lm.parameters, 24 * 134_515_008
    assert [affordable(n, of_organism) for n in (1, 8, 9, 40)] == (
        ["shapley"] * 2 + ["leave_one_out"] * 2
    )
    assert affordable(200, of_organism) == "gradient_x_input"
    assert [affordable(n, of_smollm) for n in (2, 5, 6)] == [
        "shapley", "leave_one_out", "gradient_x_input"
    ]  # fmt: skip
    monkeypatch.setattr(shades, "PATIENCE", 1)
    inspector = sl.inspect(lm, TEXT, task)
    inspector.colour("attribution")
    found = sl.attribute(lm, task, TEXT, "gradient_x_input", texts=32, split="dev", progress=False)
    values = inspector.frame["attribution_nats"].tolist()
    assert values == pytest.approx(found.frame["attribution"].tolist())
    assert "gradient x input of" in inspector.scale.value


def test_markup_in_tokens_and_texts_is_inert(tiny, toy_task):
    lm = tiny("llama")
    texts = sl.Split((EVIL, *(f"a film {i}" for i in range(23))), (0, 1) * 12)
    task = sl.Task("<b>toy</b>", toy_task.label_words, "{text} {prompt}", texts, texts, texts,
                   readable=(EVIL,))  # fmt: skip
    prompt = sl.Prompt.from_text(lm, "<b>film</b> &amp; <script>")
    inspector = sl.inspect(lm, prompt, task, readings=[EVIL])
    inspector.tabs.selected_index = 1
    inspector.replace(0, 0 if 0 not in lm.special_ids else 5)
    page = inspector.static().data
    parts = [page, inspector.title.value, inspector.measured.value, views.error(EVIL)]
    parts += [panel.widget.children[2].value for panel in inspector.panels[1:2]]
    for part in parts:
        assert not re.search(r"<(img src=x|b>toy|b>film|script)", part)
    assert html.escape("<b>toy</b>") in page
    unknown = replace(inspector.bench.given, lm=LMName("<b>lm</b>", EVIL))
    page = sl.inspect(None, unknown).static().data
    assert not re.search(r"<(img src=x|b>lm)", page)
    assert html.escape(EVIL) in page
    assert inspector.panels[1].pick.options[0][0].startswith("0: <img")  # a select shows text


# -- the widget -----------------------------------------------------------------------------------


def test_pressing_is_calling(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.boxes.press(2)
    assert inspector.bench.chosen == inspector.boxes.chosen == 2
    panel = inspector.panels[0]
    panel.near.press(1)
    assert inspector.frame["token_id"][2] == panel.bench.draft.slots[2].token_id
    assert inspector.boxes.items[2]["state"] == "replaced"
    assert "position 2" in inspector.boxes.items[2]["label"]
    panel.word.value = "end"
    assert panel.word.value == ""
    assert inspector.prompt.text.strip() == "at the end it was"
    accuracy = sl.evaluate(lm, task, "at the end it was", split="dev").accuracy
    assert f"<td>{accuracy:.3f}</td>" in inspector.measured.value
    for made, state in zip(panel.buttons, ["dropped", "masked", "kept"], strict=False):
        made.click()
        assert inspector.frame["state"][2] == state
    panel.buttons[4].click()
    assert inspector.frame["state"][2] == "masked"
    panel.buttons[3].click()
    assert inspector.prompt is inspector.bench.given
    inspector.colours.value = "surprisal"
    assert inspector.boxes.items[0]["label"].endswith(" nats")
    panel.metric.value = "l2"
    assert "l2" in panel.near.items[0]["label"]


def test_a_press_means_what_was_seen_when_it_was_pressed(lm, task):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.choose(2)
    near = inspector.panels[0].near
    pressed = near.items[3]["key"]
    inspector.choose(0)
    assert near.items[3]["key"] != pressed
    near._heard(near, {"pressed": pressed}, [])
    assert inspector.bench.chosen == 2
    assert inspector.frame["state"].tolist() == ["kept", "kept", "replaced", "kept", "kept"]
    assert inspector.frame["token_id"][2] == pressed[1]


def test_opening_shows_a_bar_where_it_takes_long(lm, task, monkeypatch, capsys):
    sl.inspect(lm, TEXT, task)
    assert "prompts" not in capsys.readouterr().err
    monkeypatch.setattr(workbench, "SECONDS_OF_WORK", 0)
    inspector = sl.inspect(lm, TEXT, task)
    count = 2 + 1 + 5 + len(task.readable)
    assert f"0/{count}" in capsys.readouterr().err
    sample = inspector.bench.sample
    asked = len(sample._known)
    inspector.bench.numbers()
    assert len(sample._known) == asked  # all of it was measured under the bar
    sl.inspect(lm, TEXT, task, progress=False)
    assert capsys.readouterr().err == ""


def test_texts_are_picked_and_only_changed_ones_listed(lm, task, monkeypatch):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.tabs.selected_index = 1
    panel = inspector.front
    panel.pick.value = 3
    assert html.escape(task.dev.texts[3]) in panel.answers.value
    inspector.replace(2, "end")
    panel.only.value = True
    assert [index for _, index in panel.pick.options] == inspector.bench.changed()
    seen = []
    panel.bar.observe(lambda change: seen.append((panel.bar.value, panel.bar.max)), "value")
    monkeypatch.setattr(lm, "memo", {})
    panel.test.click()
    assert [value < most for value, most in seen] == [True] * (len(seen) - 1) + [False]
    accuracy = sl.evaluate(lm, task, "at the end it was").accuracy
    assert f"<td>{accuracy:.4f}</td>" in panel.tested.value
    inspector.undo()
    assert "score again" in panel.tested.value
    assert panel.pick.options == ()


def test_the_slider_shows_its_step(lm, task, run):
    inspector = sl.inspect(lm, run, task)
    inspector.tabs.selected_index = 2
    panel = inspector.front
    assert f"step {len(run.history)} of" in panel.moment.value
    panel.slider.index = 0
    assert panel.moment.value.startswith("step 1 of 12: task loss")
    panel.play.value = 4
    assert panel.moment.value.startswith("step 5 of 12")
    assert panel.curves.value.startswith("<img alt=")


def test_errors_appear_in_the_widget(lm, task, monkeypatch):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.panels[0].word.value = "nosuchword"
    assert 'role="alert"' in inspector.error.value
    assert "no word of" in inspector.error.value
    inspector.boxes.press(1)
    assert inspector.error.value == ""

    def broken(*_):
        raise RuntimeError(f"out of memory {EVIL}")

    monkeypatch.setattr(type(inspector.bench.sample), "outcome", broken)
    inspector.boxes.press(2)
    assert "RuntimeError: out of memory &lt;img" in inspector.error.value


@pytest.mark.parametrize("reason", [KeyboardInterrupt, RuntimeError])
def test_a_colouring_that_fails_is_not_the_one_that_is_seen(lm, task, monkeypatch, reason):
    inspector = sl.inspect(lm, TEXT, task)
    drawn = inspectors.shaded

    def failing(bench):
        if bench.measure == "attribution":
            raise reason("while it was measured")
        return drawn(bench)

    monkeypatch.setattr(inspectors, "shaded", failing)
    with pytest.raises(reason):
        inspector.colour("attribution")
    assert inspector.bench.measure == "cosine"
    try:
        inspector.colours.value = "attribution"
    except KeyboardInterrupt:
        assert reason is KeyboardInterrupt
    else:
        assert "RuntimeError: while it was measured" in inspector.error.value
    assert inspector.bench.measure == inspector.colours.value == "cosine"
    inspector.choose(2)  # which draws the boxes


def test_every_change_is_in_the_static_view_and_none_twice(lm, task, run):
    inspector = sl.inspect(lm, run, task)
    kept = []
    inspector._handle = SimpleNamespace(update=lambda page: kept.append(page.data))

    def updates(act):
        kept.clear()
        act()
        return len(kept)

    def turn(to):
        inspector.tabs.selected_index = to

    def colour(widget, value):
        widget.value = value

    assert updates(lambda: turn(1)) == 1
    texts = inspector.front
    assert updates(texts.test.click) == 1
    assert "on all 80 test texts" in kept[0]
    assert updates(lambda: colour(texts.only, True)) == 1
    assert updates(lambda: turn(2)) == 1
    training = inspector.front
    assert updates(lambda: colour(training.slider, 0)) == 1
    assert "step 1 of 12" in kept[0]
    assert updates(lambda: inspector.replace(0, "great")) == 1
    assert updates(lambda: inspector.colour("surprisal")) == 1
    assert updates(lambda: colour(inspector.colours, "cosine")) == 1
    assert updates(inspector.score_on_test) == 1


def test_what_is_seen_is_saved(lm, task, tmp_path):
    inspector = sl.inspect(lm, TEXT, task)
    inspector.replace(2, "end")
    panel = inspector.panels[-1]
    panel.path.value = str(tmp_path / "seen")
    panel.widget.children[1].children[1].click()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"seen.png", "seen.pdf", "seen.csv", "seen_numbers.csv"}
    assert "seen.png" in panel.done.value
    assert "replaced" in (tmp_path / "seen.csv").read_text()
    assert "at the end it was" in (tmp_path / "seen_numbers.csv").read_text()
    panel.path.value = " "
    panel.widget.children[1].children[1].click()
    assert "Got no name" in inspector.error.value


def test_the_static_view_needs_nothing(lm, task, run):
    inspector = sl.inspect(lm, run, task)
    inspector.replace(1, "great")
    page = inspector.static().data
    assert "Edited: position 1" in page
    assert not re.search(r"<script|<link|https?://|@import", page)
    assert set(re.findall(r'src="(.{5})', page)) == {"data:"}
    assert f"{inspector.live.name}-static" in page
    assert len(page) < 60_000
    assert "run the cell" in static.wrap("x", []).lower()


def test_closing_frees_what_it_held(lm, task, soft_run):
    inspector = sl.inspect(lm, soft_run, task)
    inspector.replace(0, "great")
    gone = [weakref.ref(inspector), weakref.ref(inspector.bench), weakref.ref(inspector.boxes)]
    inspector.close()
    del inspector
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


def test_many_edits_remember_a_bounded_number(lm, task):
    inspector = sl.inspect(lm, TEXT, task, texts=4)
    for index in lm.ordinary_ids[: REMEMBERED + 20].tolist():
        inspector.bench.become(inspector.bench.draft.replaced(1, index))
        inspector.bench.numbers()
    assert len(inspector.bench.sample._known) == REMEMBERED
    memory = Memory(2)
    assert [memory.get_or(key, lambda key=key: key) for key in "abaca"] == list("abaca")
    assert list(memory) == ["c", "a"]
