"""Building the bundled LMs: train, measure, and replace what is bundled only if all gates pass."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from softlens import files
from softlens.errors import SoftlensError, near
from softlens.lm import LM
from softlens.organism import gates
from softlens.organism.front import readable_front
from softlens.organism.tasks import reserved_texts
from softlens.organism.train import Recipe, train

log = logging.getLogger(__name__)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("organism"),
        Recipe("organism-judge", seed=100, hidden=72, heads=6),
        Recipe(
            "organism-llama",
            architecture="llama",
            tokenizer="bpe",
            seed=200,
            learning_rate=1.5e-3,
            steps=2000,
        ),
    )
}
"""Only the first is tuned on; the others judge what was found on it."""
BUNDLED = tuple(RECIPES)
FRONT = "readable_front.csv"
CARD = "README.md"
START, END = "<!-- gates: written by make organism -->", "<!-- end of gates -->"


def build(
    folder: Path | None = None,
    names: Sequence[str] = BUNDLED,
    recipes: dict[str, Recipe] | None = None,
    sizes: gates.Sizes | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train the named LMs, check their gates, and put them into `folder`.

    Everything is made in a temporary folder inside `folder`; at the end each finished folder is
    renamed into place. An interruption, or a gate that does not pass, leaves the old files.

    Args:
        folder: where the bundled data is; by default ours.
        names: which LMs to train; the others stay, and the front is written with the organism.
        recipes: other recipes than the bundled ones.
        sizes: how much the gates look at.
        progress: show bars.

    Returns:
        The gates of the trained LMs: ``lm, gate, observed, threshold, passed``.

    Raises:
        SoftlensError: an unknown name, or gates that did not pass (they are listed).
    """
    folder = files.data_dir() if folder is None else Path(folder)
    recipes = RECIPES if recipes is None else recipes
    for name in names:
        if name not in recipes:
            raise SoftlensError(
                f"Got {name!r}, wanted some of {', '.join(recipes)}.{near(name, recipes)}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    # In a temporary folder beside the bundled ones: a rename is atomic on one file system only.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as made:
        work = Path(made)
        tables = []
        for name in names:
            seconds = make(recipes[name], work / name, progress)
            log.info("%s: %.0f CPU-seconds of training", name, seconds)
            organism = _first(work / "organism", folder / "organism")
            judged = organism if name != "organism" else None
            tables.append(check(work / name, sizes, judged).assign(lm=name))
        table = pd.concat(tables, ignore_index=True)
        failed = table[~table["passed"]]
        if len(failed):
            raise SoftlensError(
                "These gates did not pass, so the bundled files stay as they were:\n"
                f"{failed.to_string(index=False)}\nTry another seed in softlens.organism.build."
            )
        if "organism" in names:
            front = readable_front(load(work / "organism"), progress=progress)
            front.round(4).to_csv(work / FRONT, index=False)
        install(work, folder, [*names, *([FRONT] if "organism" in names else [])])
        write_card(folder / CARD, table)
    return table


def make(recipe: Recipe, folder: Path, progress: bool = True) -> float:
    """Train one LM and write its folder with checksums; the CPU-seconds that training took."""
    threads = torch.get_num_threads()
    # Sums depend on how work is divided: one thread makes the same bits on every core count.
    torch.set_num_threads(1)
    try:
        started = time.process_time()
        model, tokenizer, counts = train(recipe, reserved=reserved_texts(), progress=progress)
        seconds = time.process_time() - started
    finally:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    counts[tokenizer.all_special_ids] = counts.max()
    rarest = {
        "token": tokenizer.convert_ids_to_tokens(int(counts.argmin())),
        "times_trained": int(counts.min()),
    }
    files.write_json(folder / "recipe.json", asdict(recipe) | {"rarest": rarest})
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes private files
    sums = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    files.write_json(folder / "checksums.json", sums)
    return seconds


def load(folder: Path) -> LM:
    """An LM from a folder that `make` wrote."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return LM(model, AutoTokenizer.from_pretrained(folder), name=folder.name)


def check(
    folder: Path, sizes: gates.Sizes | None = None, judged: Path | None = None
) -> pd.DataFrame:
    """The gates of the LM in a folder; with `judged`, also the transfer of that LM's front."""
    other = load(judged) if judged is not None else None
    return gates.measure(load(folder), sizes or gates.Sizes(), other)


def seeds_table(
    name: str, seeds: Sequence[int], store: Path, organism: Path, progress: bool = True
) -> pd.DataFrame:
    """Train one recipe with several seeds and measure each: a column a seed, median and worst.

    Args:
        name: of the recipe.
        seeds: of the trainings; a seed whose folder is in `store` already is not trained again.
        store: folder for the trained LMs.
        organism: the LM whose front must transfer, for the other two.
        progress: show bars.
    """
    columns: dict[str, pd.Series] = {}
    first = pd.DataFrame()
    for seed in seeds:
        folder = store / f"{name}-{seed}"
        if not (folder / "checksums.json").is_file():
            make(replace(RECIPES[name], seed=seed), folder, progress)
        first = check(folder, None, organism if name != "organism" else None)
        columns[f"seed {seed}"] = first["observed"]
    table = pd.DataFrame(columns)
    upper = first["threshold"].str.startswith("<=")
    lower = first["threshold"].str.startswith(">=")
    summary = pd.DataFrame({"gate": first["gate"], "threshold": first["threshold"]})
    summary["median"] = table.median(axis=1)
    summary["lowest"] = table.min(axis=1).where(~upper)
    summary["highest"] = table.max(axis=1).where(~lower)
    return pd.concat([summary, table], axis=1)


def install(made: Path, folder: Path, names: Sequence[str]) -> None:
    """Rename finished files and folders into place, the old ones out of the way first."""
    for name in names:
        old = made / f"old-{name}"
        if (folder / name).exists():
            os.replace(folder / name, old)
        try:
            os.replace(made / name, folder / name)
        except BaseException:
            if old.exists() and not (folder / name).exists():
                os.replace(old, folder / name)
            raise
        if old.is_dir():
            shutil.rmtree(old)


def write_card(path: Path, table: pd.DataFrame) -> None:
    """Put the gates into the data card, between its two marks, for the LMs that were measured."""
    if not path.is_file():
        return
    text = path.read_text()
    if START not in text or END not in text:
        return
    before, rest = text.split(START)
    old, after = rest.split(END)
    blocks = _blocks(old)
    for name, group in table.groupby("lm", sort=False):
        blocks[str(name)] = gates_as_text(group)
    inner = "\n\n".join(f"### {name}\n\n{block}" for name, block in blocks.items())
    files.write_atomic(path, f"{before}{START}\n\n{inner}\n\n{END}{after}".encode())


def gates_as_text(table: pd.DataFrame) -> str:
    """Gates as a Markdown table."""
    rows = ["| gate | observed | threshold | passed |", "|---|---|---|---|"]
    for row in table.itertuples():
        passed = "yes" if row.passed else "no"
        rows.append(f"| {row.gate} | {row.observed:.3g} | {row.threshold} | {passed} |")
    return "\n".join(rows)


def _blocks(text: str) -> dict[str, str]:
    parts = [part for part in text.split("### ") if part.strip()]
    return {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1].strip() for part in parts}


def _first(*folders: Path) -> Path:
    for folder in folders:
        if folder.is_dir():
            return folder
    raise SoftlensError(
        f"No organism at {folders[-1]}, and the others are measured against it. Build it first: "
        "`python -m softlens.organism organism`."
    )
