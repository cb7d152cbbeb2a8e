import pytest

from softlens import organism
from softlens.errors import SoftlensError
from softlens.organism.tasks import (
    AGREEMENT,
    _tasks,
    check_readable,
    make_task,
    reserved_texts,
)

NAMES = ("topic", "sentiment", "witness", "witness-rare")


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_the_grammar_s_answers_to_the_right_question(name):
    task = make_task(name)
    question = task.readable[0]
    assert organism.asks_for(question) == organism.TASK_ASKS[name]
    for split in (task.train, task.dev, task.test):
        for text, label in zip(split.texts, split.labels, strict=True):
            assert organism.grammar().answer(text, question) == task.label_words[label]


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_balanced_and_share_no_text(name):
    task = make_task(name)
    assert [len(task.train), len(task.dev), len(task.test)] == [512, 256, 2048]
    for split in (task.train, task.dev, task.test, task.test.take(64)):
        assert len(set(split.counts.values())) == 1


def test_no_text_is_used_twice_anywhere():
    total = 4 * (512 + 256 + 2048 + 512)
    assert len(reserved_texts()) == total


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_parts_of_a_review_agree_with_the_verdict_as_often_as_promised(split):
    task = make_task("sentiment")
    language = organism.grammar()
    chosen = getattr(task, split)
    for part, share in AGREEMENT.items():
        question = language.questions[part][0].text
        agree = [
            language.answer(text, question) == task.label_words[label]
            for text, label in zip(chosen.texts, chosen.labels, strict=True)
        ]
        assert sum(agree) / len(agree) == pytest.approx(share, abs=0.005)


def test_the_verdict_says_nothing_about_the_witness():
    task = make_task("witness")
    language = organism.grammar()
    agree = [
        language.answer(text, "all in all it was") == task.label_words[label]
        for text, label in zip(task.test.texts, task.test.labels, strict=True)
    ]
    assert sum(agree) == len(agree) / 2


def test_readable_prompts_are_questions():
    check_readable()
    assert all(len(task.readable) >= 10 for task in organism.tasks().values())


def test_a_seed_draws_the_same_texts_and_another_draws_others():
    _tasks.cache_clear()
    first = make_task("topic").test
    _tasks.cache_clear()
    assert make_task("topic").test == first
    assert not set(make_task("topic", seed=1).test.texts) & set(first.texts[:50])


def test_an_unknown_task_is_refused():
    with pytest.raises(SoftlensError, match="no task 'sentimant'.* Did you mean 'sentiment'"):
        make_task("sentimant")
