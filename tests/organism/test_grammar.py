from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softlens.errors import SoftlensError
from softlens.organism import language as lang
from softlens.organism import texts
from softlens.organism.grammar import Grammar, grammar

WRITERS = [texts.any_review, texts.short_review, texts.any_news]
slow = settings(max_examples=60, deadline=None)


def test_the_language_has_the_size_that_was_asked_for():
    language = grammar()
    assert 600 <= len(language.words) <= 1000
    assert len(lang.PRODUCTS) >= 5
    assert len(language.families) >= 12
    assert len({follow_up.text for follow_up in language.follow_ups}) == len(language.follow_ups)


@slow
@given(st.integers(0, 10**9), st.sampled_from(WRITERS))
def test_what_is_written_is_parsed_back(seed, write):
    text = write(Random(seed))
    read = grammar().parse_text(text)
    assert read is not None
    assert " ".join(sentence.text for sentence in read.sentences) == text
    assert grammar().is_sentence(text)
    assert grammar().asks_for(text) is None


@slow
@given(st.integers(0, 10**9))
def test_facts_are_what_the_writer_was_told(seed):
    rng = Random(seed)
    told = {marker: texts.coin(rng) for marker in texts.MARKERS if rng.random() < 0.7}
    persons = texts.some_persons(rng, 2)
    verdict = texts.coin(rng)
    text = texts.write_review(rng, markers=told, persons=persons, verdict=verdict, facts=2)
    language = grammar()
    for marker in texts.MARKERS:
        question = language.questions[marker][0].text
        assert language.answer(text, question) == told.get(marker, lang.UNKNOWN)
    assert language.answer(text, "all in all it was") == verdict
    assert language.answer(text, "my rival says it was") == texts.FLIP[verdict]
    for person in lang.PERSONS[:10]:
        held = persons.get(person, lang.UNKNOWN)
        assert language.answer(text, f"the {person} said it was") == held


@slow
@given(st.data())
def test_every_follow_up_has_one_parse_and_opening_words_do_not_change_it(data):
    language = grammar()
    follow_up = data.draw(st.sampled_from(language.follow_ups))
    assert language.parse(follow_up.text) == follow_up
    opening = data.draw(st.sampled_from(sorted(lang.OPENINGS)))
    opened = language.asks_for(f"{opening} {follow_up.text}")
    pinned = language.families[follow_up.family].pins
    assert opened == (None if pinned else follow_up.asks_for)


@slow
@given(st.lists(st.sampled_from(grammar().words), min_size=1, max_size=7))
def test_words_in_any_order_are_rarely_sentences_and_never_crash(words):
    text = " ".join(words)
    if grammar().asks_for(text) is not None:
        assert len(words) in (5, 6)
    assert isinstance(grammar().is_sentence(text), bool)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "the critic said it",
        "the critic said it was great",
        "the critic said it was .",
        "review : a new phone . first the plot was superb .",
        "review : a new phone . then the screen was superb . first the sound was awful .",
        "review : a new phone . the critic loved it . the critic hated it .",
        "news : the striker won a race . the banker sold the shares .",
        "news :",
        "well the garden last night was",
    ],
)
def test_near_misses_are_no_sentences(text):
    if text == "news :":
        assert grammar().parse_text(text) is None
    else:
        assert not grammar().is_sentence(text)


def test_label_words_are_in_no_follow_up_and_in_no_text():
    labels = {*lang.TOPICS, lang.GREAT, lang.TERRIBLE}
    asked = {word for follow_up in grammar().follow_ups for word in follow_up.text.split()}
    assert not labels & asked
    rng = Random(0)
    written = {word for write in WRITERS for _ in range(300) for word in write(rng).split()}
    assert not labels & written
    assert written | asked <= set(grammar().words)


def test_held_out_questions_leave_each_part_and_each_subject_seen():
    language = grammar()
    held = [f for f in language.follow_ups if f.held_out]
    seen = {part for f in language.follow_ups if not f.held_out for part in f.parts}
    assert len(held) > 500
    assert all(part in seen for f in held for part in f.parts)
    assert any(f.held_out for f in language.questions["person:critic"])


def test_distractors_have_one_answer_whatever_the_text():
    language = grammar()
    rng = Random(1)
    question = language.questions["subject:garden"][0].text
    answers = {language.answer(write(rng), question) for write in WRITERS for _ in range(5)}
    assert len(answers) == 1


def test_shares_of_a_question_sum_to_one():
    for asks_for, questions in grammar().questions.items():
        assert sum(q.share for q in questions) == pytest.approx(1), asks_for


def _family(wording, **changes):
    base = next(f for f in lang.FAMILIES if f.name == "whole")
    return replace(base, wordings=(wording,), **changes)


def _language(*families):
    names = {family.name for family in families}
    kept = [family for family in lang.FAMILIES if family.name not in names]
    return Grammar([*kept, *families])


def test_a_grammar_refuses_a_follow_up_of_other_length():
    with pytest.raises(SoftlensError, match=r"'all in all was', 4 words; a follow-up has 5"):
        _language(_family("{whole} was"))


def test_a_grammar_refuses_an_ambiguous_follow_up():
    with pytest.raises(SoftlensError, match=r"parse as 'first', 'whole'; wanted one parse"):
        _language(_family("at the start it was"))


def test_a_grammar_refuses_a_follow_up_that_no_rule_can_parse():
    # Phrases longer than three words are beyond the parser, and the grammar says so at once.
    slots = lang.SLOTS | {"whole": {"all in all it": 1.0}}
    families = [
        replace(f, wordings=("{whole} was",)) if f.name == "whole" else f for f in lang.FAMILIES
    ]
    with pytest.raises(
        SoftlensError, match="'all in all it was', which the rules parse as nothing"
    ):
        Grammar(families, slots)


def test_a_grammar_refuses_an_unknown_slot_and_offers_near_ones():
    with pytest.raises(SoftlensError, match=r"slot 'hole', which no .* Did you mean 'whole'"):
        _language(_family("{hole} it was"))


def test_a_grammar_refuses_priors_that_do_not_sum_to_one():
    with pytest.raises(SoftlensError, match=r"priors sum to 1\.09200, wanted 1"):
        _language(_family("{whole} {tail}", prior=0.1))


def test_answers_to_what_is_no_question_or_no_text_are_refused():
    text = texts.any_review(Random(0))
    with pytest.raises(SoftlensError, match="'oscar lawyer waits it was' is no follow-up"):
        grammar().answer(text, "oscar lawyer waits it was")
    with pytest.raises(SoftlensError, match="is no text of the language"):
        grammar().answer("the critic loved it .", "all in all it was")
