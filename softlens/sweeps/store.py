"""The store of a sweep: a folder in which a cell is there whole, or not at all.

Layout: ``store.json`` (what it is a store of), ``cells/<key>/`` (a run as `Run.save` writes it, and
``cell.json`` with the row of the table and the checksums of the other files and of itself),
``controls/``, ``planned/`` (cells asked for and not finished), ``failed/`` (their errors),
``damaged/`` (cells set aside), ``locks/``. A cell's folder is written under a temporary name, and
renamed when complete.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from softlens import files
from softlens.controls import control_metrics, remember_controls
from softlens.errors import DamagedFileError, SoftlensError
from softlens.lm import LM
from softlens.runs import Run, load_run
from softlens.sweeps.cells import VERSION, Cell
from softlens.tasks import Task, digest

try:
    import fcntl
except ImportError:  # Windows: no locks, and the rename alone decides who was first
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LEFT_SECONDS = 3600
"""Age from which on half a cell is what a killed process has left."""
FORMAT = "softlens.sweep"
RUN_FILES = ("run.json", "prompt.safetensors", "history.parquet")


class StoreError(SoftlensError):
    """The store cannot be written; what is finished in it is safe."""


class Store:
    """A folder of finished cells; `create` for writing, `open` for reading."""

    def __init__(self, folder: str | Path, known: dict[str, Any]) -> None:
        self.folder, self.known = Path(folder), known

    @classmethod
    def create(cls, folder: str | Path, lm: LM) -> "Store":
        """The store in `folder`, made if it is not there.

        Raises:
            SoftlensError: it is of another version, LM or type of numbers, or cannot be written.
        """
        wanted = {
            "format": FORMAT,
            "version": VERSION,
            "lm": lm.name,
            "lm_checksum": lm.checksum,
            "dtype": str(lm.dtype).removeprefix("torch."),
        }
        folder = Path(folder)
        if (folder / "store.json").is_file():
            store = cls.open(folder)
            for key in ("lm_checksum", "dtype"):
                if store.known[key] != wanted[key]:
                    raise SoftlensError(
                        f"The store {folder} holds runs of {store.known['lm']!r} (checksum "
                        f"{store.known['lm_checksum']}, {store.known['dtype']}), and this is "
                        f"{lm.name!r} (checksum {lm.checksum}, {wanted['dtype']}). One store is "
                        "for one LM: pass another folder, or load that LM."
                    )
            return store
        with writing(folder):
            # What begins with a dot may be the store.json of another process that begins too.
            strange = [p for p in folder.glob("[!.]*") if p.name != "store.json"]
            if strange and not (folder / "store.json").is_file():
                raise SoftlensError(
                    f"{folder} is not empty and no store of a sweep: it has no store.json. Pass "
                    "an empty or a new folder."
                )
            files.write_json(folder / "store.json", wanted)
        return cls(folder, wanted)

    @classmethod
    def open(cls, folder: str | Path) -> "Store":
        """The store in `folder`, for reading.

        Raises:
            SoftlensError: there is none, or it is of another version.
            DamagedFileError: its ``store.json`` cannot be read.
        """
        path = Path(folder) / "store.json"
        if not path.is_file():
            raise SoftlensError(f"No sweep in {folder}: it has no store.json. Check the path.")
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            version, kind = known["version"], known["format"]
            assert {"lm", "lm_checksum", "dtype"} <= set(known)
        except (ValueError, KeyError, TypeError, AssertionError) as reason:
            raise DamagedFileError(
                f"{path} is damaged ({type(reason).__name__}). Every cell says in its cell.json "
                "which LM it is of; write store.json anew from that of a store of the same LM."
            ) from reason
        if kind != FORMAT or version != VERSION:
            raise SoftlensError(
                f"The store {folder} has version {version} of {kind!r}, wanted version {VERSION} "
                f"of {FORMAT!r}: its numbers mean something else. Pass another folder, or read it "
                "with the softlens that wrote it."
            )
        return cls(folder, known)

    # -- reading ------------------------------------------------------------------------------

    def cell(self, key: str) -> Path:
        """The folder of a finished cell."""
        return self.folder / "cells" / key

    def read(self, key: str) -> dict[str, Any] | None:
        """``cell``, ``row`` and ``environment`` of a finished cell; None where there is none.

        Raises:
            DamagedFileError: a file of it is missing, or not what was written.
        """
        folder = self.cell(key)
        if not folder.is_dir():
            return None
        try:
            record = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
            cell = Cell(**record["cell"])
            damaged = [n for n, s in record["sha256"].items() if files.sha256(folder / n) != s]
            if damaged:
                raise ValueError(f"{damaged[0]} is not what was written")
            if record["told"] != _told(record):
                raise ValueError("cell.json is not what was written")
            if cell.key != key:
                raise ValueError("cell.json is that of another cell")
            assert record["row"]["cell"] == key
        except (ValueError, KeyError, OSError, TypeError, AssertionError, ValidationError) as why:
            raise DamagedFileError(
                f"The cell {key} in {self.folder} is damaged: {type(why).__name__}: "
                f"{str(why)[:200]}. sl.sweep sets it aside and runs it again."
            ) from why
        return record | {"cell": cell}

    def records(self) -> dict[str, dict[str, Any]]:
        """All finished cells by key; damaged ones are left out, and said."""
        found = {}
        for path in sorted((self.folder / "cells").glob("[0-9a-f]*")):
            try:
                if (record := self.read(path.name)) is not None:
                    found[path.name] = record
            except DamagedFileError as reason:
                log.warning("Left out: %s", reason)
        return found

    def planned(self) -> dict[str, Cell]:
        """Cells that were asked for and are not finished, by key."""
        found = {}
        for path in sorted((self.folder / "planned").glob("[0-9a-f]*.json")):
            with contextlib.suppress(ValueError, OSError, ValidationError):
                if not self.cell(path.stem).is_dir():
                    found[path.stem] = Cell(**json.loads(path.read_text(encoding="utf-8")))
        return found

    def failed(self) -> dict[str, dict[str, Any]]:
        """Where each failed cell stands, with its ``error``, by key."""
        found = {}
        for path in sorted((self.folder / "failed").glob("[0-9a-f]*.json")):
            with contextlib.suppress(ValueError, OSError):
                if not self.cell(path.stem).is_dir():
                    found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        return found

    # -- writing ------------------------------------------------------------------------------

    def plan(self, cells: list[Cell]) -> None:
        """Write down what is asked for, so that `missing` knows it after a crash."""
        with writing(self.folder):
            for cell in cells:
                path = self.folder / "planned" / f"{cell.key}.json"
                if not path.is_file():
                    files.write_json(path, cell.model_dump(mode="json"))

    @contextlib.contextmanager
    def claim(self, key: str, wait: bool = False) -> Iterator[bool]:
        """Hold a cell while it is computed; False where another process holds it.

        A lock of the operating system goes with its process, however that ends. Where there are
        none, all may go on: whoever renames first wins, and nothing is lost but time.
        """
        with writing(self.folder):
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
            path = self.folder / "locks" / key
            handle = path.open("a")
        mine = True
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                mine = False
            except OSError as reason:
                log.info("No locks in %s: %s", self.folder, reason)
        try:
            yield mine
        finally:
            if mine:
                path.unlink(missing_ok=True)
            handle.close()

    def usable(self, key: str) -> dict[str, Any] | None:
        """`read`, but a damaged cell is set aside, which is said, so that it is run again."""
        try:
            return self.read(key)
        except DamagedFileError as reason:
            with writing(self.folder):
                (self.folder / "damaged").mkdir(exist_ok=True)
                number = len([*(self.folder / "damaged").glob(f"{key}-*")]) + 1
                aside = self.folder / "damaged" / f"{key}-{number}"
                with contextlib.suppress(FileNotFoundError):  # another process was first
                    self.cell(key).rename(aside)
            log.warning("Set aside as %s, to be run again: %s", aside, reason)
            return None

    def write(self, cell: Cell, run: Run, row: dict[str, Any], device: torch.device) -> None:
        """Keep a finished cell: all of it under a temporary name, then one rename.

        Args:
            cell: what was asked for.
            run: what came of it.
            row: of the table.
            device: where it was computed.
        """
        cells = self.folder / "cells"
        with writing(self.folder):
            cells.mkdir(exist_ok=True)
            for left in cells.glob(f".{cell.key}.*"):
                # Where there are no locks, a young one may be another process's, being written.
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                        shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{cell.key}.", dir=cells) as made:
                staged = Path(made) / "cell"
                run.save(staged)
                record: dict[str, Any] = {
                    "cell": cell.model_dump(mode="json"),
                    "row": row,
                    "environment": environment(device),
                    "sha256": {name: files.sha256(staged / name) for name in RUN_FILES},
                }
                record["told"] = _told(record)
                files.write_json(staged / "cell.json", record)
                try:
                    staged.rename(self.cell(cell.key))
                except OSError:
                    if not self.cell(cell.key).is_dir():
                        raise
                    log.info("Another process has finished the cell %s first.", cell.key)
            for folder in ("planned", "failed"):
                (self.folder / folder / f"{cell.key}.json").unlink(missing_ok=True)

    def fail(self, cell: Cell, error: str) -> None:
        """Keep the error of a cell that could not be run."""
        with writing(self.folder):
            path = self.folder / "failed" / f"{cell.key}.json"
            files.write_json(path, {**cell.place, "error": error})

    def know_controls(self, lm: LM, task: Task, length: int, truncate: bool) -> None:
        """See to it that the LM remembers the controls: from the store, else measured and kept.

        They cost as much as a run and are the same for all cells of one task and length.
        """
        told = f"{digest(task)}-{length}{'-truncated' if truncate else ''}"
        told += "" if lm.start else "-without-bos"
        told += "" if lm.start_id in (None, lm.own_start) else f"-bos{lm.start_id}"
        path = self.folder / "controls" / f"{told}.json"
        with self.claim(f"controls-{told}", wait=True):
            with contextlib.suppress(OSError, ValueError):
                known = json.loads(path.read_text(encoding="utf-8"))
                remember_controls(lm, task, length, known, truncate=truncate)
                return
            measured = control_metrics(lm, task, length, truncate=truncate)
            with writing(self.folder):
                files.write_json(path, measured)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the operating system says against writing, with what to do about it."""
    try:
        yield
    except (OSError, SoftlensError) as reason:
        cause = reason if isinstance(reason, OSError) else reason.__cause__
        if not isinstance(cause, OSError):
            raise
        raise StoreError(
            f"Cannot write into the store {folder}: {cause.strerror or cause}. Finished cells are "
            "safe. Free some space or pass a folder you may write to, and call sl.sweep again: it "
            "goes on where it stopped."
        ) from reason


def environment(device: torch.device) -> dict[str, Any]:
    """What else bits and seconds depend on."""
    packages = ("softlens", "torch", "transformers", "numpy")
    return {
        **{name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def _told(record: dict[str, Any]) -> str:
    """A digest of all that ``cell.json`` says, however it is laid out."""
    said = {key: value for key, value in record.items() if key != "told"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def same_bits(folder: Path) -> str:
    """A digest of what a cell found: its prompt, text, measures and every step; not its seconds."""
    run = load_run(folder)
    timeless = {key: value for key, value in run.metrics.items() if key != "seconds"}
    told = [run.config.model_dump(mode="json"), run.text, run.prompt.token_ids, timeless]
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    found.update(run.prompt.vectors.numpy().tobytes())
    found.update((folder / "history.parquet").read_bytes())
    return found.hexdigest()
