"""The table of a sweep: one row a finished run, with what is missing and what failed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from softlens.display import Result, visible
from softlens.errors import SoftlensError, near
from softlens.runs import Run, load_run
from softlens.sweeps.cells import Cell
from softlens.sweeps.measures import COLUMNS, PLACE, WORDS
from softlens.sweeps.store import Store

log = logging.getLogger(__name__)

SHOWN = ["method", "proxy", "weight", "seed", "accuracy", "nats_per_token", "label_mass", "text"]
FAILED = [*PLACE, "error"]


@dataclass(frozen=True, repr=False, eq=False)
class Sweep(Result):
    """Runs over methods, proxies and seeds, with their measures. It opens without an LM."""

    frame: pd.DataFrame = field(repr=False)
    """One row a finished run. Where it stands: ``cell, lm, lm_checksum, task, method, length, seed,
    proxy`` ("none", a name, or "a+b"), ``weight`` (NaN for several), and ``lambda_<proxy>`` of
    every proxy in the sweep. Test measures: ``scored, accuracy, accuracy_calibrated,
    accuracy_vocab, label_mass, loss, least_share, most_share`` (``accuracy_dev`` is the one
    selected on). Of the text (of a soft prompt: its nearest tokens): ``text, token_ids,
    nats_per_token, perplexity, max_surprisal`` (after BOS), ``nats_after_texts, repetition,
    judge_perplexity, transfer_accuracy, transfer_agreement, round_trip, grammatical, asks_for,
    asked_for, label_words``, and what they do, ``nearest_accuracy, nearest_label_mass``. Beside
    them ``empty_*``, ``random_*``, ``readable_*`` and ``chance``; and ``evaluations, steps,
    starts, seconds, ended``."""
    failed: pd.DataFrame = field(repr=False)
    """One row a failed cell: where it stands, and its ``error``."""
    cells: Mapping[str, Cell] = field(repr=False)
    """Every cell that was asked for, by key."""
    stores: Mapping[str, Path] = field(repr=False)
    """The store of each finished cell, by key."""

    @classmethod
    def of(cls, store: Store, asked: Sequence[Cell] | None = None) -> Sweep:
        """What a store holds of the cells that were `asked` for, or all it holds."""
        records, failed = store.records(), store.failed()
        if asked is None:
            cells = {key: record["cell"] for key, record in records.items()} | store.planned()
            cells = {cell.key: cell for cell in sorted(cells.values(), key=_order)}
        else:
            cells = {cell.key: cell for cell in asked}
        rows = {key: records[key]["row"] for key in cells if key in records}
        _say_alike([cells[key] for key in rows])
        return cls(
            _table(rows, cells),
            _errors([failed[key] for key in cells if key in failed]),
            cells,
            dict.fromkeys(rows, store.folder),
        )

    @property
    def store(self) -> Path | None:
        """The folder it is kept in; None where there are several, or none."""
        folders = set(self.stores.values())
        return folders.pop() if len(folders) == 1 else None

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        lms = ", ".join(repr(name) for name in dict.fromkeys(self.frame["lm"]))
        tasks = ", ".join(dict.fromkeys(self.frame["task"]))
        failed = f", {len(self.failed)} failed" if len(self.failed) else ""
        return (
            f"sweep on {lms or 'no LM yet'}: {tasks or 'no task yet'}; {len(self.frame)} of "
            f"{len(self.cells)} runs finished{failed} (accuracy on test in [0, 1])"
        )

    @property
    def table(self) -> pd.DataFrame:
        """The columns one looks at first; `frame` has all."""
        several = [c for c in ("lm", "task", "length") if self.frame[c].nunique() > 1]
        return visible(self.frame[[*several, *SHOWN]])

    def plot(self, ax: Any = None, kind: str = "tradeoff") -> Any:
        """Draw the runs.

        Args:
            ax: Axes: for a trade-off one for each task, for weights three; new ones unless given.
            kind: "tradeoff": accuracy against surprisal, with fronts and controls (see
                `plot_tradeoff`); "weights": accuracy, surprisal and label mass along the proxy's
                weight (see `plot_weights`).

        Raises:
            SoftlensError: another `kind`, a trade-off of soft prompts alone, or weights of several
                LMs, tasks or proxies, which would be drawn as one line.
        """
        from softlens.plots import plot_tradeoff, plot_weights

        if kind == "weights":
            return plot_weights(self.frame.dropna(subset=["weight"]), ax)
        if kind != "tradeoff":
            raise SoftlensError(f"Got kind={kind!r}, wanted 'tradeoff' or 'weights'.")
        return plot_tradeoff(self, ax)

    def missing(self) -> pd.DataFrame:
        """The cells that were asked for and are not finished: where they stand, and ``failed``."""
        left = [cell for key, cell in self.cells.items() if key not in self.stores]
        errors = set(self.failed["cell"])
        rows = [cell.place | {"failed": cell.key in errors} for cell in left]
        return pd.DataFrame(rows, columns=[*PLACE, "failed"])

    def filter(self, **columns: Any) -> Sweep:
        """The runs whose columns have these values; several in a list.

        Raises:
            SoftlensError: no column is named, or one that is not there, or no run is left.
        """
        if not columns:
            raise SoftlensError(
                "Got nothing to filter by. Name columns and their values: "
                "sweep.filter(method='pez', weight=[0, 0.3])."
            )
        kept = pd.Series(True, index=self.frame.index)
        for name, value in columns.items():
            if name not in self.frame:
                raise SoftlensError(
                    f"No column {name!r}.{near(name, self.frame.columns)} The table has "
                    f"{list(self.frame.columns)}."
                )
            allowed = _several(value)
            kept &= self.frame[name].isin(allowed)
            if not kept.any():
                raise SoftlensError(
                    f"No run is left with {name} in {allowed} (asked for {columns}). {name!r} has "
                    f"{list(self.frame[name].drop_duplicates())[:10]}."
                )
        # Of what is not finished only its place is known, so that other columns rule it out.
        places = {name: value for name, value in columns.items() if name in PLACE}
        finished = set(self.frame["cell"][kept])
        waiting = self.missing()
        if len(places) < len(columns):
            waiting = waiting.iloc[:0]
        for name, value in places.items():
            waiting = waiting[waiting[name].isin(_several(value))]
        wanted = finished | set(waiting["cell"])
        return Sweep(
            self.frame[kept].reset_index(drop=True),
            self.failed[self.failed["cell"].isin(wanted)].reset_index(drop=True),
            {key: cell for key, cell in self.cells.items() if key in wanted},
            {key: path for key, path in self.stores.items() if key in finished},
        )

    def concat(self, *others: Sweep) -> Sweep:
        """This sweep and others as one table; see `concat_sweeps`."""
        return concat_sweeps([self, *others])

    def run(self, cell: str) -> Run:
        """The whole run of a finished cell: its prompt, config and history. No LM is needed.

        Args:
            cell: its key, as in the column ``cell``; the first digits are enough.

        Raises:
            SoftlensError: no cell, or several, begin with that.
        """
        found = [key for key in self.stores if key.startswith(cell)] if cell else []
        if len(found) != 1:
            raise SoftlensError(
                f"{len(found) or 'No'} finished cells begin with {cell!r}; the column 'cell' of "
                f"the table has their keys, {len(self.stores)} in all."
            )
        run = load_run(self.stores[found[0]] / "cells" / found[0])
        # A cell has always told its task; files of older runs do not.
        return replace(run, task_digest=self.cells[found[0]].texts)

    @cached_property
    def histories(self) -> pd.DataFrame:
        """The histories of all runs, one below the other, each row with its run's place."""
        names = ["cell", "task", "method", "length", "seed", "proxy", "weight"]
        parts = []
        for row in _records(self.frame[names]):
            parts.append(self.run(row["cell"]).history.assign(**row))
        table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
        return table[names + [name for name in table if name not in names]]


def concat_sweeps(sweeps: Sequence[Sweep]) -> Sweep:
    """Several sweeps as one table; a run that is in two counts once.

    Of two LMs, take one at a time where runs are pooled: ``sweep.filter(lm=...)``.

    Raises:
        SoftlensError: there is none.
    """
    if not sweeps:
        raise SoftlensError("Got no sweeps, wanted at least one.")
    cells: dict[str, Cell] = {}
    stores: dict[str, Path] = {}
    for sweep in sweeps:
        cells |= sweep.cells
        stores = dict(sweep.stores) | stores
    rows = {row["cell"]: row for s in reversed(sweeps) for row in _records(s.frame)}
    _say_alike([cells[key] for key in cells if key in rows])
    errors = [row for s in sweeps for row in _records(s.failed)]
    once = {row["cell"]: row for row in errors if row["cell"] not in stores}
    return Sweep(
        _table({key: rows[key] for key in cells if key in rows}, cells),
        _errors(list(once.values())),
        cells,
        stores,
    )


def _several(value: Any) -> list[Any]:
    return list(value) if pd.api.types.is_list_like(value) else [value]


def _say_alike(cells: Sequence[Cell]) -> None:
    """Warn of runs that stand in one place of the table and are no repetitions of each other."""
    places: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        place = {k: v for k, v in cell.place.items() if k not in ("cell", "weight", "proxy")}
        weights = tuple(sorted(cell.run.proxies.items()))
        places.setdefault((*place.values(), weights), []).append(cell)
    shared = [group for group in places.values() if len(group) > 1]
    if not shared:
        return
    differ: dict[str, None] = {}
    for group in shared:
        known = [_flat(cell.model_dump(mode="json")) for cell in group]
        names = dict.fromkeys(name for each in known for name in each)
        differ |= dict.fromkeys(n for n in names if any(k.get(n) != known[0].get(n) for k in known))
    log.warning(
        "%d runs share task, method, length, seed and weights with another, and differ in %s: "
        "means and intervals would take them for repetitions. Keep such runs in stores of their "
        "own, or take what sl.sweep returns, which has only those that were asked for.",
        sum(map(len, shared)),
        ", ".join(differ),
    )


def _flat(known: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in known.items():
        below = _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {}
        found |= below or {before + name: value}
    return found


def _order(cell: Cell) -> tuple[Any, ...]:
    c = cell.run
    return c.task, c.seed, c.length, sorted(c.proxies.items()), c.method, cell.key


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _table(rows: Mapping[str, Mapping[str, Any]], cells: Mapping[str, Cell]) -> pd.DataFrame:
    """Rows as a table with the same types whatever is in them."""
    names = dict.fromkeys(name for cell in cells.values() for name in cell.run.proxies)
    weights = {f"lambda_{name}": name for name in names}
    table = pd.DataFrame([dict(row) for row in rows.values()], columns=list(COLUMNS))
    for column in COLUMNS:
        if column not in WORDS:
            table[column] = pd.to_numeric(table[column]).astype(float)
    whole = ["length", "seed", "evaluations", "steps", "starts"]
    table = table.astype(dict.fromkeys(whole, "int64") | dict.fromkeys(WORDS, object))
    # pandas would turn a column of nothing but None into NaN, which is no word.
    table[list(WORDS)] = table[list(WORDS)].where(table[list(WORDS)].notna(), None)
    at = list(COLUMNS).index("weight") + 1
    for number, (column, name) in enumerate(weights.items()):
        values = [cells[key].run.proxies.get(name, 0.0) for key in table["cell"]]
        table.insert(at + number, column, pd.Series(values, dtype=float))
    return table


def _errors(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([dict(row) for row in rows], columns=FAILED)
