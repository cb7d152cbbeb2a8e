"""Labelled texts from files, folders and the hub: rows of text, label and split."""

import importlib.util
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError, near
from softlens.files import cache_dir

log = logging.getLogger(__name__)

LabelWords = Sequence[str] | Mapping[Any, str]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT_NAMES = {
    "train": "train",
    "dev": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "unlabelled": "unlabelled",
    "unsupervised": "unlabelled",
}


@dataclass(frozen=True)
class HubEntry:
    """A data set of the hub under a short name."""

    hub_id: str
    text_column: str
    label_words: tuple[str, ...]
    template: str = "{text} {prompt}"
    label_column: str = "label"


FIVE = ("terrible", "bad", "okay", "good", "great")
# Label words in the order of the data sets' own labels, and the seven few-shot sets, as RLPrompt
# has them (arXiv 2205.12548); "mr" is its name of "rotten_tomatoes", "imdb" is ours. For GPT-2 its
# template puts the prompt after the text.
HUB = {
    "sst2": HubEntry("stanfordnlp/sst2", "sentence", ("terrible", "great")),
    "agnews": HubEntry("fancyzhx/ag_news", "text", ("World", "Sports", "Business", "Tech")),
    "imdb": HubEntry("stanfordnlp/imdb", "text", ("terrible", "great")),
    "rotten_tomatoes": HubEntry(
        "cornell-movie-review-data/rotten_tomatoes", "text", ("terrible", "great")
    ),
    "mr": HubEntry("cornell-movie-review-data/rotten_tomatoes", "text", ("terrible", "great")),
    "cr": HubEntry("SetFit/CR", "text", ("terrible", "great")),
    "yelp": HubEntry("fancyzhx/yelp_polarity", "text", ("terrible", "great")),
    "sst5": HubEntry("SetFit/sst5", "text", FIVE),
    "yelp5": HubEntry("Yelp/yelp_review_full", "text", FIVE),
}


@dataclass(frozen=True)
class Table:
    """Checked rows: a text, its label (None where it has none), its split (None where not said)."""

    name: str
    rows: tuple[tuple[str, str | None, str | None], ...]
    classes: tuple[str, ...]
    """The labels that occur, sorted; or the data set's own class names in its own order."""
    ordered: bool
    """Whether that order means something, so that label words may come as a sequence."""
    source: str
    may_move: bool = False
    """Whether a missing dev or test split may be made from the others (hub data sets)."""


def kind_of(name_or_path: str | PathLike[str]) -> str | None:
    """``"file"``, ``"folder"`` or ``"hub"`` for what looks like one, None for a plain name."""
    name, path = os.fspath(name_or_path), Path(name_or_path)
    if path.is_dir() and (isinstance(name_or_path, PathLike) or os.sep in name):
        return "folder"
    # A number behind a dot is a version's, as in "org/name-v1.5".
    ends = path.suffix and not path.suffix[1:2].isdigit()
    if ends or path.is_absolute() or name.startswith((".", "~")) or path.is_file():
        return "file"
    if name.count("/") == 1 and all(name.split("/")):
        return "hub"
    return "file" if isinstance(name_or_path, PathLike) else None


def read(
    name_or_path: str | PathLike[str],
    kind: str,
    text_column: str | None = None,
    label_column: str | None = None,
    split_column: str = "split",
) -> Table:
    """The rows of a file, a folder or a hub data set (`kind` as `kind_of` says)."""
    text_column, label_column = text_column or "text", label_column or "label"
    if kind == "hub":
        return _read_datasets(str(name_or_path), text_column, label_column, str(name_or_path))
    path = Path(name_or_path).expanduser()
    if kind == "folder":
        return _read_datasets(str(path), text_column, label_column, path.name)
    frame = _read_frame(path)
    wanted = [text_column, label_column]
    if split_column in frame.columns:
        wanted.append(split_column)
    for column in wanted:
        if column not in frame.columns:
            offers = near(column, map(str, frame.columns))
            raise SoftlensError(
                f"{path.name} has no column {column!r}.{offers} Its columns: "
                f"{', '.join(map(repr, map(str, frame.columns)))}; "
                "name yours with text_column= and label_column="
            )
    values = [frame[column].tolist() for column in wanted]
    if len(wanted) == 2:
        values.append([None] * len(frame))
    rows = tuple(
        _row(path.name, number, *cells) for number, cells in enumerate(zip(*values, strict=True), 1)
    )
    classes, ordered = _classes(row[1] for row in rows)
    return Table(path.stem, rows, classes, ordered, f"the file {path.name}")


def read_hub(name: str) -> Table:
    """A data set of `HUB`: from the user's cache folder where its files lie there, else the hub."""
    entry = HUB[name]
    local = cache_dir() / "datasets" / name
    where = str(local) if local.is_dir() else entry.hub_id
    return _read_datasets(where, entry.text_column, entry.label_column, name)


def words_in_order(
    label_words: LabelWords | None, classes: Sequence[str], ordered: bool
) -> tuple[str, ...]:
    """One label word for each of `classes`, in their order; the labels themselves unless given."""
    example = "{" + ", ".join(f"{name!r}: ..." for name in classes) + "}"
    if label_words is None:
        if all(name.lstrip("-").isdigit() for name in classes):
            raise SoftlensError(
                f"labels are numbers ({', '.join(classes)}), which name nothing; "
                f"give the word that answers for each: label_words={example}"
            )
        return tuple(classes)
    if isinstance(label_words, str):
        raise SoftlensError(
            f"got label_words={label_words!r}, one string; give one word a class: {example}"
        )
    if isinstance(label_words, Mapping):
        words = {str(key): word for key, word in label_words.items()}
        if set(words) != set(classes):
            raise SoftlensError(
                f"label_words names the labels {sorted(words)}, but the labels are "
                f"{list(classes)}; give a word for each of them and no other"
            )
        return tuple(words[name] for name in classes)
    if len(label_words) != len(classes):
        raise SoftlensError(
            f"got {len(label_words)} label words {tuple(label_words)} for {len(classes)} classes "
            f"{tuple(classes)}; give one word a class"
        )
    # Words in the order a person thinks of ("great, terrible") would silently swap classes that
    # are only sorted by name.
    if not ordered and set(label_words) != set(classes):
        raise SoftlensError(
            f"labels are names ({', '.join(classes)}), so a list of label words does not say which "
            f"is which; give a mapping: label_words={example}"
        )
    return tuple(label_words) if ordered else tuple(classes)


def _read_frame(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise SoftlensError(
            f"there is no file or folder {path}; look at its spelling and the folder it is in"
        )
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise SoftlensError(
            f"{path.name} ends in {path.suffix!r}; a task's file ends in {', '.join(SUFFIXES)}"
        )
    try:
        if kind == ".parquet":
            frame = pd.read_parquet(path)
        elif kind == ".jsonl":
            frame = pd.read_json(path, lines=True, dtype=False)
        else:
            # Everything as written: a text "NA" is a text, and a label "01" is not the number 1.
            frame = pd.read_csv(
                path,
                sep="\t" if kind == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
            )
    except UnicodeDecodeError as error:
        raise DamagedFileError(
            f"{path.name} is not UTF-8 text (byte {error.start}); save it as UTF-8 and try again"
        ) from error
    except (ValueError, OSError) as error:  # pandas' and pyarrow's parsers raise these
        raise DamagedFileError(
            f"{path.name} cannot be read as {kind[1:].upper()}: {error}; "
            "look whether it is complete and of the kind its name says"
        ) from error
    if frame.empty:
        raise SoftlensError(f"{path.name} has no rows; give it at least three texts a class")
    if kind in (".csv", ".tsv"):
        _check_fields(path.name, frame, kind)
    return frame


def _check_fields(where: str, frame: pd.DataFrame, kind: str) -> None:
    """Refuse rows that pandas reads as other fields than were meant, without an error."""
    if not isinstance(frame.index, pd.RangeIndex):
        # It takes what a first row has too many for names of rows.
        wanted = len(frame.columns)
        raise SoftlensError(
            f"{where} row 1 has {wanted + frame.index.nlevels} fields and the header {wanted}; "
            + (
                "write a space for a tab in a text"
                if kind == ".tsv"
                else 'put double quotes around a text with a comma in it: "so, this"'
            )
        )
    if kind == ".tsv":
        # Whatever a stray quote swallows, a tab is in it.
        held = frame.apply(lambda column: column.str.contains("\t", regex=False, na=False))
        if (swallowed := held.any(axis=1).to_numpy()).any():
            raise SoftlensError(
                f"{where} row {swallowed.argmax() + 1} has a double quote at the "
                "start of a field and a tab before the quote that closes it. If the quote is part "
                'of a text, put the text in quotes and double its own ("""so"" it says"); if the '
                "tab is, write a space for it"
            )


def _row(
    where: str, number: int, text: Any, label: Any, split: Any
) -> tuple[str, str | None, str | None]:
    if not isinstance(text, str) or not text.strip():
        raise SoftlensError(
            f"{where} row {number} has the text {text!r}; every text must be a string with "
            "something in it: fill it in or delete the row"
        )
    name = None
    if split is not None:
        name = SPLIT_NAMES.get(str(split).strip().lower())
        if name is None:
            raise SoftlensError(
                f"{where} row {number} has the split {split!r}; splits are {', '.join(SPLIT_NAMES)}"
            )
    if name == "unlabelled":
        return text.strip(), None, name
    missing = pd.api.types.is_scalar(label) and pd.isna(label)
    written = "" if missing else _label(label)
    if not written:
        raise SoftlensError(
            f"{where} row {number} has no label; fill it in, delete the row, or give it the split "
            "'unlabelled'"
        )
    return text.strip(), written, name


def _label(value: Any) -> str:
    """A label as it is written: 1, 1.0 and "1" are the same label."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _classes(labels: Iterable[str | None]) -> tuple[tuple[str, ...], bool]:
    found = {label for label in labels if label is not None}
    try:
        return tuple(sorted(found, key=int)), True
    except ValueError:
        return tuple(sorted(found)), False


def _read_datasets(where: str, text_column: str, label_column: str, name: str) -> Table:
    if importlib.util.find_spec("datasets") is None:
        raise MissingExtraError(
            f"data set {name!r} is read with the package datasets, which is not installed; "
            "type: pip install 'softlens[hub]'"
        )
    import datasets

    is_folder = Path(where).is_dir()
    try:
        if is_folder and (Path(where) / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(where)
        else:
            loaded = datasets.load_dataset(where)
    except Exception as error:  # the hub's client raises a dozen kinds
        hub_id = HUB[name].hub_id if name in HUB else name
        if is_folder:
            raise DamagedFileError(
                f"the folder {where} is no data set in the hub's format ({error}); it needs files "
                "train.parquet, validation.parquet, test.parquet (or .csv, .jsonl)"
            ) from error
        raise SoftlensError(
            f"data set {hub_id!r} cannot be had from the hub ({type(error).__name__}). Without the "
            f"hub, fetch it on another machine (`hf download --repo-type dataset {hub_id} "
            f"--local-dir folder`), and put its files train, validation and test (.parquet, .csv "
            f"or .jsonl) into {cache_dir() / 'datasets' / name} or give the path of their folder"
        ) from error
    rows: list[tuple[str, str | None, str | None]] = []
    classes: tuple[str, ...] = ()
    empty = 0
    for split, part in loaded.items():
        for column in (text_column, label_column):
            if column not in part.column_names:
                raise SoftlensError(
                    f"data set {name!r} has no column {column!r}.{near(column, part.column_names)} "
                    f"Its columns: {', '.join(map(repr, part.column_names))}; "
                    "name yours with text_column= and label_column="
                )
        class_names = tuple(getattr(part.features[label_column], "names", None) or ())
        classes = classes or class_names
        cells = zip(part[text_column], part[label_column], strict=True)
        for number, (text, label) in enumerate(cells, 1):
            if not (isinstance(text, str) and text.strip()):
                empty += 1
            elif label is None or label == -1:  # the hub's mark for a label that is kept secret
                rows.append((text.strip(), None, "unlabelled"))
            else:
                label = class_names[label] if class_names else label
                # A set of one split is one pool, whatever the split is called.
                own_split = split if len(loaded) > 1 else None
                rows.append(_row(f"{name} ({split})", number, text, label, own_split))
    if empty:
        # Unlike a file of one's own, a published data set cannot be mended by its reader.
        log.warning("%s: %d empty texts are left out", name, empty)
    found, ordered = _classes(row[1] for row in rows)
    source = where if is_folder else f"https://huggingface.co/datasets/{where}"
    return Table(name, tuple(rows), classes or found, ordered or bool(classes), source, True)
