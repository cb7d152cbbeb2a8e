"""Each rule against prompts labelled by hand, from the organism and from SmolLM2."""

import pandas as pd
import pytest

from softlens import SoftlensError, odd_rules, oddities
from softlens.oddities import RULES

# What a careful reader says of each text: is it a loop (L), does it hold an answer (A), is it
# filled up (F), does it hold a control token (C)? The label words are terrible and great.
BY_HAND = [
    ("all in all it was", ""),
    ("the critic said it was", ""),
    ("In summary, the film was", ""),
    ("a a a a new", "L"),
    (" For Is Is Is is", "L"),
    ("it was it was it", "L"),
    ("Absolutely VERY absolute VERY absolute", "L"),
    ("on the whole the whole", "L"),
    ("the the end it was", ""),
    ("great says my rival great", "A"),
    ("it was terrible and then", "A"),
    ("Greatness of the film is", "A"),
    ("the greatest film is", "A"),
    ("greeting the terrier it was", ""),
    (" will:\n\n*", "F"),
    ("-----", "F"),
    (" 1. 2. 3.", "F"),
    ("It's the kind of", ""),
    ("the film . . .", "FL"),
    ("...", "F"),
    ("<|endoftext|> the film was", "C"),
    ("<bos> it was", "C"),
    ("[CLS] it was good", "C"),
    ("x < y and y > z", ""),
    ("the film\x07 was", "C"),
    ("the\u200b film was", "C"),
    ("my 5 favourite films", ""),
    ("very, very, very good", "L"),
    ("the film, the film was", "L"),
    ("a film, a book, or so", ""),
    ("good/great films", "A"),
    ("It's not-great", "A"),
    ("<repo_name> it was", "C"),
    ("the film <file_sep>", "C"),
    ("</s> the film was", "C"),
    ("<br> the film was so", ""),
    ("it's so, and it isn't", ""),
]
LETTERS = {"L": "loop", "A": "self_answer", "F": "filler", "C": "control_tokens"}


@pytest.mark.parametrize("letter", LETTERS)
def test_rules_of_the_text_agree_with_a_reader(letter):
    table = pd.DataFrame({"text": [text for text, _ in BY_HAND], "task": "made"})
    found = oddities(table, {"made": ("terrible", "great")}).frame
    said = dict(zip(found["text"], found[LETTERS[letter]], strict=True))
    assert said == {text: letter in letters for text, letters in BY_HAND}
    assert len(set(said.values())) == 2


def row(**values):
    """A run on the organism's `sentiment`; a readable prompt has .99 of the label mass."""
    return {
        "text": "all in all it was", "task": "sentiment", "method": "pez", "weight": 0.3, "seed": 0,
        "accuracy": 1.0, "chance": 0.5, "readable_accuracy": 1.0, "label_mass": 0.99,
        "readable_label_mass": 0.99, "most_share": 0.5, "nats_per_token": 1.2,
        "grammatical": True, "asks_for": "whole", "asked_for": "whole",
    } | values  # fmt: skip


# Runs with what a reader says of them; the first is as it should be.
RUNS = [
    (row(), set()),
    (row(text="church all neighbour church seemed", grammatical=False, asks_for="nothing"),
     {"off_task_but_accurate"}),
    (row(text="near the end it was", asks_for="last", accuracy=0.9), {"off_task_but_accurate"}),
    (row(text="at the start it was", asks_for="first", accuracy=0.65), {"task_ignored"}),
    (row(text="the total price was about", asks_for="price", accuracy=0.5, label_mass=1e-5,
         most_share=1.0), {"task_ignored", "one_class_only", "no_label_mass"}),
    (row(text="tenant virus . the total", grammatical=False, asks_for="nothing", accuracy=0.43,
         label_mass=1e-6, most_share=0.8), {"no_label_mass"}),
    (row(text="great great great it was", grammatical=False, asks_for="nothing", accuracy=0.74),
     {"loop", "self_answer"}),
    (row(text="teacher church all seemed it", grammatical=False, asks_for="nothing", accuracy=0.75),
     {"off_task_but_accurate"}),
]  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rules_of_behaviour_agree_with_a_reader(name):
    found = oddities(pd.DataFrame([values for values, _ in RUNS])).frame
    assert found[name].tolist() == [name in odd for _, odd in RUNS]


def test_what_cannot_be_told_is_not_made_up():
    real = row(
        task="reviews", text="This is the exponential,", grammatical=None, asks_for=None,
        asked_for=None, accuracy=0.55, readable_accuracy=0.8, nats_per_token=3.5,
    )  # fmt: skip
    salad = real | {"text": "bad destruction bad bed deeds", "nats_per_token": 12.0}
    bare = {"text": "it was", "task": "unheard of"}
    found = oddities(pd.DataFrame([real, salad, bare])).frame
    assert found["off_task_but_accurate"].tolist() == [None, None, None]
    # Off the organism a sentence is what the LM finds likely.
    assert found["task_ignored"].tolist() == [True, False, None]
    assert found["one_class_only"].tolist() == [False, False, None]
    assert found["no_label_mass"].tolist() == [False, False, None]
    assert found["self_answer"].iloc[2] is None
    counts = oddities(pd.DataFrame([real, salad, bare])).counts().set_index("behaviour")
    assert counts.loc["off_task_but_accurate", "of"] == 0
    assert pd.isna(counts.loc["off_task_but_accurate", "share"])


def test_counts_and_their_intervals():
    found = oddities(pd.DataFrame([row(weight=w, seed=s, text="a a a b" if w else "it was so")
                                   for w in (0, 1) for s in range(10)]))  # fmt: skip
    loops = found.counts(["weight"])
    loops = loops[loops["behaviour"] == "loop"].set_index("weight")
    assert loops["shown"].tolist() == [0, 10]
    assert loops["of"].tolist() == [10, 10]
    # Wilson's interval for 0 of 10 ends at z^2 / (n + z^2).
    assert loops.loc[0, "high"] == pytest.approx(1.96**2 / (10 + 1.96**2), abs=1e-3)
    assert loops.loc[1, "low"] == pytest.approx(1 - loops.loc[0, "high"])


def test_examples_are_the_most_accurate_and_each_once():
    table = pd.DataFrame(
        [row(text="a a a b", accuracy=a) for a in (0.5, 0.9)]
        + [row(text="b b b c", accuracy=0.7), row()]
    )
    found = oddities(table)
    assert found.examples("loop")["text"].tolist() == ["a a a b", "b b b c"]
    assert found.examples("loop")["accuracy"].tolist() == [0.9, 0.7]
    assert len(found.examples("loop", 1)) == 1
    assert found.examples("filler").empty
    with pytest.raises(SoftlensError, match="No rule 'loops'. Did you mean 'loop'"):
        found.examples("loops")


def test_what_is_shown_is_inert_and_whole():
    found = oddities(pd.DataFrame([row(text="<script> <script> <script>\x1b[2J")]))
    assert "<script>" not in found._repr_html_()
    assert "\x1b" not in repr(found)
    assert found.table["share"].tolist()[:2] == ["0", "0"]
    assert "1 of 1 prompts show some" in repr(found)
    assert set(odd_rules()["behaviour"]) == set(RULES)
    assert odd_rules()["stated"].str.len().min() > 20
    with pytest.raises(SoftlensError, match=r"without \['task'\]"):
        oddities(pd.DataFrame({"text": ["a"]}))


def test_soft_prompts_are_not_judged_by_another_prompts_text():
    soft = row(text="church church church", method="soft", scored="soft", asks_for="nothing")
    found = oddities(pd.DataFrame([row(scored="tokens"), soft]))
    assert found.frame["text"].tolist() == ["all in all it was"]
    with pytest.raises(SoftlensError, match="Got soft prompts only: they have no text"):
        oddities(pd.DataFrame([soft]))
