"""Tasks: templates, label words, few-shot draws, files and hub data sets, and every bad input."""

import importlib.util
import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from softlens import catalogue, readers
from softlens.catalogue import load_task
from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError
from softlens.splits import divide, interleave, shuffled
from softlens.tasks import Split, Task, template_parts

WORDS = {"negative": "bad", "positive": "good"}


class TinyLM:
    """Longest-match tokens over a written-out vocabulary; embeddings put near words together."""

    name = "tiny"
    special_ids = frozenset({0})
    unused_ids = frozenset({9})
    vocabulary = ("<unk>", " good", " fine", " great", " won", "derful", " bad", " ok", " Good")
    embedding = torch.tensor(
        [[9, 9], [1, 0.0], [1, 0.2], [1, 0.1], [1, 0.05], [1, 0.3], [-1, 0], [0, 1], [1, 0], [1, 0]]
    )

    def token(self, index):
        return self.vocabulary[index]

    def encode(self, text, leading_space=False):
        text = " " + text if leading_space else text
        ids = []
        while text:
            fits = [i for i, token in enumerate(self.vocabulary) if text.startswith(token)]
            if not fits:
                return [*ids, 0]
            best = max(fits, key=lambda i: len(self.vocabulary[i]))
            ids.append(best)
            text = text[len(self.vocabulary[best]) :]
        return ids


def split(n=4, classes=2, salt=""):
    return Split([f"text {salt}{i}" for i in range(n)], [i % classes for i in range(n)])


def task(**changes):
    settings = {
        "name": "toy",
        "label_words": ("bad", "good"),
        "template": "{text} {prompt}",
        "train": split(20, salt="a"),
        "dev": split(10, salt="b"),
        "test": split(10, salt="c"),
    }
    return Task(**{**settings, **changes})


def rows(n=40):
    return pd.DataFrame(
        {
            "text": [f"sentence number {i}, as written" for i in range(n)],
            "label": ["positive" if i % 4 else "negative" for i in range(n)],
        }
    )


# -- splits and tasks ---------------------------------------------------------------------------


def test_split_counts_and_takes_the_first():
    texts = interleave([["a", "b", "c"], ["d"]])
    assert texts == Split(("a", "d", "b", "c"), (0, 1, 0, 0))
    assert texts.counts == {0: 3, 1: 1}
    assert texts.take(2) == Split(("a", "d"), (0, 1))
    assert len(texts.take(99)) == 4
    with pytest.raises(SoftlensError, match="take at least one text"):
        texts.take(0)


def test_representations_hold_no_texts():
    shown = repr(task())
    assert "text a0" not in shown
    assert "20 train, 10 dev, 10 test" in shown
    assert repr(split()) == "Split(4 texts, {0: 2, 1: 2} a class)"


def test_task_is_normalised_and_frozen():
    toy = task(label_words=[" bad", "good "])
    assert toy.label_words == toy.class_names == ("bad", "good")
    with pytest.raises(AttributeError):
        toy.name = "other"


def test_with_changes_the_question_and_nothing_else():
    toy = task(class_names=("negative", "positive"))
    changed = toy.with_(template="{prompt} {text}", label_words={"positive": "x", "negative": "y"})
    assert changed.label_words == ("y", "x")
    assert changed.template == "{prompt} {text}"
    assert replace(changed, template=toy.template, label_words=toy.label_words) == toy
    with pytest.raises(SoftlensError, match=r"names the labels \['positive'\]"):
        toy.with_(label_words={"positive": "x"})
    with pytest.raises(SoftlensError, match="template '' holds"):
        toy.with_(template="")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_words": ("good", "good")}, "'good' stands for 2 classes"),
        ({"label_words": ("good", " good")}, "'good' stands for 2 classes"),
        ({"label_words": ("good",)}, "two classes or more"),
        ({"label_words": ("good", "")}, "label words row 1 is ''"),
        ({"label_words": ("a", "b", "c")}, "no training text has class 'c'"),
        ({"class_names": ("a", "b", "c")}, "2 label words and 3 class names"),
        ({"dev": Split((), ())}, "dev split is empty"),
        ({"test": split(9, classes=3)}, r"test row 2 has label 2.*labels are 0 to 1"),
        ({"unlabelled": ("fine", "\n")}, r"unlabelled row 1 is '\\n'"),
        ({"readable": ("",)}, "readable prompts row 0"),
        ({"template": "{text} It was"}, r"holds \{prompt\} 0 times; it needs"),
        ({"template": ""}, r"template '' holds \{prompt\} 0 times"),
    ],
)
def test_bad_tasks(changes, words):
    with pytest.raises(SoftlensError, match=words):
        task(**changes)


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        (["a", " "], [0, 1], "row 1 is ' '; every text must be a string"),
        (["a", None], [0, 1], "row 1 is None"),
        (["a", "b"], [0], "2 texts and 1 labels"),
    ],
)
def test_bad_splits(texts, labels, words):
    with pytest.raises(SoftlensError, match=words):
        Split(texts, labels)


# -- templates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{text} {prompt}", ("{text}", "")),
        ("{text}{prompt}", ("{text}", "")),
        ("{prompt} {text} It was", ("", "{text} It was")),
        ("Review: {text}\n{prompt} so", ("Review: {text}", "so")),
        # The answer " good" brings its own space.
        ("{prompt} {text} it was ", ("", "{text} it was")),
        ("{text} {prompt} it was:\n", ("{text}", "it was:\n")),
    ],
)
def test_template_parts(template, parts):
    assert template_parts(template) == parts


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{text} It was", r"holds \{prompt\} 0 times"),
        ("{prompt} It was", r"holds \{text\} 0 times"),
        ("{text} {prompt} {prompt}", r"holds \{prompt\} 2 times"),
        ("{text} {prompt} {mask}", r"holds \{mask\}; only"),
    ],
)
def test_bad_templates(template, words):
    with pytest.raises(SoftlensError, match=words):
        template_parts(template)


# -- label words of an LM -----------------------------------------------------------------------


def test_answer_ids():
    assert task().answer_ids(TinyLM()) == [6, 1]


def test_label_word_of_two_tokens_names_pieces_and_offers_others():
    with pytest.raises(SoftlensError, match=r"'wonderful' is 2 tokens for tiny") as caught:
        task(label_words=("bad", "wonderful")).answer_ids(TinyLM())
    message = str(caught.value)
    assert "[' won', 'derful']" in message
    # Nearest whole words first; neither the pieces, nor half words, nor unused rows.
    assert "near in meaning: fine, great, good" in message
    assert "derful," not in message


def test_unknown_label_word():
    with pytest.raises(SoftlensError, match="'zebra' is no word of tiny's vocabulary"):
        task(label_words=("bad", "zebra")).answer_ids(TinyLM())


def test_label_words_of_one_token():
    class Lowering(TinyLM):
        def encode(self, text, leading_space=False):
            return super().encode(text.lower(), leading_space)

    with pytest.raises(SoftlensError, match="'good' and 'Good' are the same token 1"):
        task(label_words=("good", "Good")).answer_ids(Lowering())


# -- few-shot -----------------------------------------------------------------------------------


def test_few_shot_draws_balanced_disjoint_sets():
    toy = task()
    drawn = toy.few_shot(3, seed=1)
    assert drawn.train.counts == drawn.dev.counts == {0: 3, 1: 3}
    assert not set(drawn.train.texts) & set(drawn.dev.texts)
    pool = set(toy.train.texts) | set(toy.dev.texts)
    assert set(drawn.train.texts) | set(drawn.dev.texts) <= pool
    assert drawn.test == toy.test
    assert drawn == toy.few_shot(3, seed=1)
    assert drawn != toy.few_shot(3, seed=2)


def test_few_shot_never_shares_a_text_that_occurs_twice():
    toy = task(dev=split(20, salt="a"))  # dev repeats train
    drawn = toy.few_shot(5)
    assert not set(drawn.train.texts) & set(drawn.dev.texts)


@pytest.mark.parametrize("shots", [0, 8, 1000])
def test_shots_over_what_there_is(shots):
    with pytest.raises(SoftlensError, match=r"class 'bad' has 15 in train and dev.*try 1 to 7"):
        task().few_shot(shots)


# -- dividing -----------------------------------------------------------------------------------


def test_shuffled_depends_on_the_texts_alone():
    texts = [f"t{i}" for i in range(50)]
    other = [*texts, "t3"]
    random.Random(0).shuffle(other)
    assert shuffled(texts) == shuffled(other)
    assert shuffled(texts) != texts
    assert shuffled(texts) != shuffled(texts, salt="x")


def test_divide_keeps_the_shares_of_classes():
    parts = divide(
        [[f"a{i}" for i in range(100)], [f"b{i}" for i in range(20)]], "ab", (0.5, 0.2, 0.3)
    )
    assert {name: dict(part.counts) for name, part in parts.items()} == {
        "train": {0: 50, 1: 10},
        "dev": {0: 20, 1: 4},
        "test": {0: 30, 1: 6},
    }


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_divide_leaves_no_split_empty(n):
    parts = divide([[f"a{i}" for i in range(n)]], "a", (0.04, 0.48, 0.48))
    assert sum(map(len, parts.values())) <= n
    assert min(map(len, parts.values())) >= 1


@pytest.mark.parametrize(
    ("groups", "fractions", "words"),
    [
        ([["a", "b"], ["c", "d", "e"]], (0.5, 0.2, 0.3), "class 'x' has 2 different texts"),
        ([["a", "b", "c"], ["c", "d", "e"]], (0.5, 0.2, 0.3), "'c' has two different labels"),
        ([["a"], ["b"]], (0.5, 0.5, 0.5), "sum to 1 at most"),
    ],
)
def test_bad_divisions(groups, fractions, words):
    with pytest.raises(SoftlensError, match=words):
        divide(groups, "xy", fractions)


# -- files --------------------------------------------------------------------------------------


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_file_kind_gives_the_same_task(tmp_path, suffix):
    path = write(rows(), tmp_path / f"toy{suffix}")
    toy = load_task(path, label_words=WORDS)
    assert toy.label_words == ("bad", "good")
    assert toy.class_names == ("negative", "positive")
    assert toy.train.counts == {0: 5, 1: 15}
    assert toy.dev.counts == {0: 2, 1: 6}
    assert toy.test.counts == {0: 3, 1: 9}
    reference = load_task(write(rows(), tmp_path / "toy.csv"), label_words=WORDS)
    assert toy == replace(reference, source=toy.source)


def test_splits_do_not_depend_on_the_order_of_rows_or_the_seed(tmp_path):
    one = load_task(write(rows(), tmp_path / "toy.csv"), label_words=WORDS)
    mixed = rows().sample(frac=1, random_state=0)
    assert load_task(write(mixed, tmp_path / "toy.csv"), label_words=WORDS, seed=3) == one


def test_columns_template_shots_and_numbered_labels(tmp_path):
    frame = rows().rename(columns={"text": "Satz", "label": "Urteil"})
    frame["Urteil"] = (frame["Urteil"] == "positive").astype(int)
    path = write(frame, tmp_path / "toy.csv")
    toy = load_task(
        str(path),
        text_column="Satz",
        label_column="Urteil",
        label_words=("bad", "good"),
        template="{prompt} {text} It was",
        shots=2,
        seed=5,
    )
    assert toy.template == "{prompt} {text} It was"
    assert toy.train.counts == toy.dev.counts == {0: 2, 1: 2}
    assert toy.class_names == ("0", "1")
    whole = load_task(path, text_column="Satz", label_column="Urteil", label_words=("bad", "good"))
    assert toy.test.texts == whole.test.texts
    assert (
        load_task(
            path, text_column="Satz", label_column="Urteil", label_words={0: "bad", 1: "good"}
        )
        == whole
    )


def test_a_split_column_is_respected(tmp_path):
    frame = rows(8)
    frame["split"] = ["train", "train", "validation", "dev", "TEST", "test", "train", "unlabelled"]
    frame.loc[6, "label"] = "negative"
    frame.loc[7, "label"] = ""
    toy = load_task(write(frame, tmp_path / "toy.csv"), label_words=WORDS)
    assert set(toy.train.texts) == set(frame["text"][[0, 1, 6]])
    assert set(toy.dev.texts) == set(frame["text"][[2, 3]])
    assert toy.unlabelled == (frame["text"][7],)


def test_overlapping_splits_are_told(tmp_path, caplog):
    frame = rows(9)
    frame["split"] = ["train", "dev", "test"] * 3
    frame["label"] = ["negative"] * 4 + ["positive"] * 5
    frame.loc[1, "text"] = frame.loc[0, "text"]
    with caplog.at_level(logging.WARNING):
        load_task(write(frame, tmp_path / "toy.csv"), label_words=WORDS)
    assert "1 texts are in train and in dev" in caplog.text


def test_labels_may_be_the_words(tmp_path):
    toy = load_task(write(rows(), tmp_path / "toy.csv"))
    assert toy.label_words == ("negative", "positive")
    # In another order the same words still name their own classes.
    same = load_task(tmp_path / "toy.csv", label_words=["positive", "negative"])
    assert same == toy


def test_texts_are_kept_as_written(tmp_path):
    frame = rows()
    frame.loc[0, "text"] = "NA"
    toy = load_task(write(frame, tmp_path / "toy.csv"), label_words=WORDS)
    assert "NA" in toy.train.texts + toy.dev.texts + toy.test.texts


def changed(column, value):
    frame = rows()
    frame[column] = frame.get(column, "train")
    frame.loc[2, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "options", "words"),
    [
        (changed("text", " "), {}, r"toy.csv row 3 has the text ' '.*fill it in or delete"),
        (changed("label", ""), {}, "toy.csv row 3 has no label"),
        (changed("split", "trial"), {}, "row 3 has the split 'trial'; splits are train"),
        (changed("split", "dev"), {}, "no labelled rows for split test"),
        (rows().rename(columns={"text": "texts"}), {}, r"no column 'text'\. Did you mean 'texts'"),
        (rows(), {"label_column": "grade"}, "no column 'grade'.*Its columns: 'text', 'label'"),
        (rows(0), {}, "has no rows"),
        (rows(), {"label_words": ("great", "awful")}, "does not say which is which"),
        (rows(), {"label_words": ("a", "b", "c")}, "3 label words.*2 classes"),
        (rows(), {"label_words": "great"}, "one string; give one word a class"),
        (rows(), {"label_words": {"positive": "a", "neg": "b"}}, r"names the labels \['neg'"),
        (rows(), {"label_words": {"positive": "a", "negative": "a"}}, "stands for 2 classes"),
        (rows().assign(label=[0, 1] * 20), {"label_words": None}, "labels are numbers"),
        (rows().assign(label="positive"), {"label_words": None}, "two classes or more"),
        (rows(), {"template": "{text}"}, r"holds \{prompt\} 0 times"),
        (rows(), {"template": ""}, r"holds \{prompt\} 0 times"),
        (rows(), {"shots": 9}, "shots=9.*try 1 to 3"),
    ],
)
def test_bad_files(tmp_path, frame, options, words):
    path = write(frame, tmp_path / "toy.csv")
    with pytest.raises(SoftlensError, match=words):
        load_task(path, **{"label_words": WORDS, **options})


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(SoftlensError, match="there is no file"):
        load_task("nowhere/toy.csv")
    (tmp_path / "toy.xlsx").write_bytes(b"PK")
    with pytest.raises(SoftlensError, match=r"ends in '\.xlsx'.*\.csv, \.tsv"):
        load_task(tmp_path / "toy.xlsx")


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        (".csv", b"text,label\nna\xefve,positive\n", "is not UTF-8 text"),
        (".csv", b'text,label\n"never closed,positive\n', "cannot be read as CSV"),
        (".csv", b"", "cannot be read as CSV"),
        (".jsonl", b'{"text": "a", "lab', "cannot be read as JSONL"),
        (".parquet", b"PAR1 cut off", "cannot be read as PARQUET"),
    ],
)
def test_damaged_files(tmp_path, suffix, content, words):
    path = tmp_path / f"toy{suffix}"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=words):
        load_task(path, label_words=WORDS)


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("toy.csv", "good{}, really{},pos", "toy.csv row 1 has 3 fields and the header 2; put "
         "double quotes around a text with a comma"),
        ("toy.tsv", "good{}\treally{}\tpos", "toy.tsv row 1 has 3 fields.*a space for a tab"),
    ],
)  # fmt: skip
def test_a_field_too_many_in_every_row_does_not_shift_the_columns(tmp_path, name, line, words):
    header = "text,label\n" if name.endswith(".csv") else "text\tlabel\n"
    lines = [line.format(i, i) for i in range(8)]
    (tmp_path / name).write_text(header + "\n".join(lines))
    with pytest.raises(SoftlensError, match=words):
        load_task(tmp_path / name, label_words={"pos": "good", "neg": "bad"})


def test_a_stray_quote_in_a_tsv_swallows_no_rows(tmp_path):
    lines = [f"text {i}\t{'pos' if i % 2 else 'neg'}" for i in range(12)]
    lines[3], lines[6] = '"so it begins\tpos', 'and "here" it ends\tneg'
    path = tmp_path / "toy.tsv"
    path.write_text("text\tlabel\n" + "\n".join(lines))
    with pytest.raises(SoftlensError, match="toy.tsv row 4 has a double quote at the start"):
        load_task(path, label_words={"pos": "good", "neg": "bad"})
    # As it advises; quotes around a text of several lines are meant.
    lines[3], lines[6] = '"""so"" it begins"\tpos', '"two\nlines"\tneg'
    path.write_text("text\tlabel\n" + "\n".join(lines))
    toy = load_task(path, label_words={"pos": "good", "neg": "bad"})
    texts = toy.train.texts + toy.dev.texts + toy.test.texts
    assert {'"so" it begins', "two\nlines", "text 4"} <= set(texts)


def test_a_missing_string_of_parquet_is_no_class(tmp_path):
    frame = rows()
    frame["label"] = frame["label"].astype("string")
    frame.loc[2, "label"] = pd.NA
    with pytest.raises(SoftlensError, match=r"toy\.parquet row 3 has no label"):
        load_task(write(frame, tmp_path / "toy.parquet"))


# -- names --------------------------------------------------------------------------------------


def test_unknown_names_offer_the_near_ones_and_list_all():
    with pytest.raises(SoftlensError, match=r"no task 'review'\. Did you mean 'reviews'") as caught:
        load_task("review")
    for name in catalogue.TASKS:
        assert name in str(caught.value)


def test_named_tasks_come_from_their_room(monkeypatch):
    toy = task(class_names=("negative", "positive"))
    monkeypatch.setitem(catalogue.TASKS, "topic", lambda: toy)
    assert load_task("topic") is toy
    changed = load_task("topic", template="{prompt} {text}", label_words=("x", "y"), shots=2)
    assert changed.template == "{prompt} {text}"
    assert changed.label_words == ("x", "y")
    assert len(changed.train) == 4
    with pytest.raises(SoftlensError, match="'topic' knows its columns"):
        load_task("topic", text_column="text")


def test_a_folder_of_the_same_name_does_not_shadow_a_task(tmp_path, monkeypatch):
    (tmp_path / "topic").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(catalogue.TASKS, "topic", task)
    assert load_task("topic").name == "toy"


# -- the hub ------------------------------------------------------------------------------------


@pytest.fixture
def data_set_folder(tmp_path):
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    folder = tmp_path / "films"
    folder.mkdir()
    for name, n in (("train", 40), ("validation", 12)):
        frame = rows(n).rename(columns={"text": "sentence"})
        frame["sentence"] = name + " " + frame["sentence"]
        frame["label"] = (frame["label"] == "positive").astype(int)
        frame.to_parquet(folder / f"{name}.parquet")
    secret = pd.DataFrame({"sentence": ["s1", "s2"], "label": [-1, -1]})
    secret.to_parquet(folder / "test.parquet")
    return folder


@pytest.fixture
def no_index(monkeypatch, tmp_path):
    """A user's cache folder of our own."""
    monkeypatch.setenv("SOFTLENS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return tmp_path / "cache"


def test_a_folder_in_the_hubs_format(data_set_folder, no_index):
    toy = load_task(data_set_folder, text_column="sentence", label_words=("bad", "good"))
    # No labelled test: validation stands in for it, and a fifth of train for dev.
    assert len(toy.test) == 12
    assert toy.dev.counts == {0: 2, 1: 6}
    assert toy.train.counts == {0: 8, 1: 24}
    assert all(text.startswith("validation") for text in toy.test.texts)
    assert set(toy.unlabelled) == {"s1", "s2"}
    with pytest.raises(SoftlensError, match=r"no column 'text'.*'sentence'"):
        load_task(data_set_folder, label_words=("bad", "good"))


def test_saved_data_sets_bring_their_class_names(data_set_folder, no_index, tmp_path):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])}
    )
    content = {"text": [f"t{i}" for i in range(20)] + [""], "label": [0, 1] * 10 + [0]}
    part = datasets.Dataset.from_dict(content, features=features)
    datasets.DatasetDict({"all": part}).save_to_disk(str(tmp_path / "saved"))
    toy = load_task(tmp_path / "saved", label_words=("good", "bad"))
    assert toy.class_names == ("pos", "neg")  # in the data set's order, not the alphabet's
    assert len(toy.train) + len(toy.dev) + len(toy.test) == 20  # one split is one pool


def test_named_hub_sets_are_found_in_the_cache_folder(data_set_folder, no_index):
    target = no_index / "datasets" / "sst2"
    target.parent.mkdir(parents=True)
    data_set_folder.rename(target)
    toy = load_task("sst2")
    assert toy.name == "sst2"
    assert toy.label_words == ("terrible", "great")
    assert len(toy.test) == 12
    # As MODELS.md says for PEZ.
    asked = {"template": "{prompt} {text} . It was", "label_words": ("negative", "positive")}
    assert load_task("sst2", **asked) == toy.with_(**asked)
    assert load_task("sst2", **asked).label_words == ("negative", "positive")


@pytest.mark.parametrize("name", readers.HUB)
def test_every_named_hub_set_from_small_files(name, no_index):
    entry, folder = readers.HUB[name], no_index / "datasets" / name
    folder.mkdir(parents=True)
    count = len(entry.label_words)
    for split, n in (("train", 24), ("test", 6)):
        labels = [i % count for i in range(n * count)]
        texts = [f"{split} text {i} of class {label}" for i, label in enumerate(labels)]
        frame = pd.DataFrame({entry.text_column: texts, entry.label_column: labels})
        frame.to_json(folder / f"{split}.jsonl", orient="records", lines=True)
    task = load_task(name, shots=8, seed=1)
    assert task.label_words == entry.label_words
    assert task.template == "{text} {prompt}"
    assert task.train.counts == dict.fromkeys(range(count), 8)
    for part in (task.train, task.dev, task.test):
        assert part.labels == tuple(int(text.split()[-1]) for text in part.texts)


def test_without_the_hub_the_error_says_where_files_go(no_index, monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(
        SoftlensError, match=r"'stanfordnlp/sst2' cannot be had.*ConnectionError"
    ) as e:
        load_task("sst2")
    assert str(no_index / "datasets" / "sst2") in str(e.value)
    assert "hf download --repo-type dataset stanfordnlp/sst2 --local-dir" in str(e.value)
    with pytest.raises(SoftlensError, match="'some/set' cannot be had"):
        load_task("some/set", label_words=("a", "b"))


def test_a_folder_that_is_no_data_set(no_index, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedFileError, match="no data set in the hub's format"):
        load_task(tmp_path / "empty", label_words=("a", "b"))


def test_missing_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "datasets" else found(name)
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'softlens\[hub\]'"):
        load_task("agnews")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("reviews", None),
        ("toy.csv", "file"),
        ("some/toy.csv", "file"),
        ("org/name", "hub"),
        ("org/name-v1.5", "hub"),
        ("org/name-3.1-small", "hub"),
        ("some/toy.xlsx", "file"),
        (Path("toy"), "file"),
        ("/no/such/folder", "file"),
    ],
)
def test_what_a_name_means(name, kind):
    assert readers.kind_of(name) == kind


def test_hub_table_is_whole():
    for name, entry in readers.HUB.items():
        assert entry.hub_id.count("/") == 1, name
        assert template_parts(entry.template)
        assert len(set(entry.label_words)) == len(entry.label_words)


def test_json_lines_keep_numbers_and_dates_as_text(tmp_path):
    lines = [
        {"text": f"2024-01-{i + 10}", "label": "positive" if i % 2 else "negative"}
        for i in range(12)
    ]
    path = tmp_path / "toy.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    toy = load_task(path, label_words=WORDS)
    assert "2024-01-10" in toy.train.texts + toy.dev.texts + toy.test.texts
