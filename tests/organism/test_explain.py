import pytest

from softlens import organism
from softlens.errors import SoftlensError


def test_a_question_shows_what_it_asks_for_and_its_parts():
    shown = organism.explain("so the critic said it was")
    assert shown.grammatical
    assert shown.asks_for == "person:critic"
    assert list(shown.frame["words"]) == ["so", "the", "critic", "said", "it", "was"]
    assert "asks for the critic's opinion (person:critic)" in repr(shown)
    assert "<b>so the critic said it was</b>" in shown._repr_html_()


def test_each_kind_of_question_has_a_meaning():
    for questions in organism.grammar().questions.values():
        shown = organism.explain(questions[0].text)
        assert shown.meaning
        assert " ".join(words for _, words in shown.parts) == shown.text


def test_sentences_texts_and_gibberish():
    assert organism.explain("the critic loved it .").kind == "sentence"
    text = "review : a new phone . first the screen was superb . in short i loved it ."
    assert organism.explain(text).kind == "text"
    assert organism.explain(text).frame["part"].tolist() == ["product", "first", "whole"]
    shown = organism.explain("oscar lawyer talks it was")
    assert not shown.grammatical
    assert "not a sentence of the language" in repr(shown)


def test_a_wording_never_trained_is_marked():
    held = next(f for f in organism.grammar().follow_ups if f.held_out)
    assert "never seen in training" in organism.explain(held.text).headline


def test_unknown_words_are_named_and_near_ones_offered():
    with pytest.raises(SoftlensError, match=r"'critc' is not among .* Did you mean 'critic'"):
        organism.explain("the critc said it was")


def test_empty_and_long_texts_are_refused():
    with pytest.raises(SoftlensError, match="The text is empty: give a few words"):
        organism.explain("  ")
    with pytest.raises(SoftlensError, match="has 200 words; the organism reads 90 at most"):
        organism.explain("the " * 200)


@pytest.mark.parametrize("text", ["", "<bos>", "<script>alert(1)</script>", "\u202e it was", "é"])
def test_the_gauges_take_any_string(text):
    assert organism.grammatical(text) is False
    assert organism.asks_for(text) is None


def test_control_tokens_are_explained_as_no_sentence_and_escaped():
    shown = organism.explain("<bos> the critic said it was")
    assert not shown.grammatical
    assert "<bos>" not in shown._repr_html_()


def test_the_gauges_say_what_a_question_asks_for():
    assert organism.grammatical("all in all it was")
    assert organism.asks_for("all in all it was") == organism.TASK_ASKS["sentiment"]
