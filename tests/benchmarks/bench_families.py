"""Which path each family takes, how exact it is, and what it gains: the table of MODELS.md.

``python -m tests.benchmarks.bench_families --write`` measures tiny models of each family, as the
tests build them, and writes the table into MODELS.md.
"""

import argparse
import re
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import torch

from softlens import load_lm
from softlens.lm import LM, answer_logits
from tests.benchmarks.timing import alternated
from tests.families import FAMILIES, save_family

TABLE = Path(__file__).parents[2] / "MODELS.md"
HEADER = "| family | tokenizer | path | worst relative error | a step against the plain path |"
TEXTS = ["the film was good and bright, the story and the plot in short", "it was terrible"] * 8


def step(lm: LM, path: str) -> None:
    """Loss and gradient of a prompt of 5 on 16 texts."""
    lm.path = path
    prompts = lm.embed(range(5, 10))[None].clone().requires_grad_()
    texts = lm.encode_texts("{text} {prompt}", TEXTS)
    logits = answer_logits(lm, prompts, texts, torch.tensor([5, 6], device=lm.device))
    torch.autograd.grad(logits.log_softmax(dim=-1).sum(), prompts)


def row(name: str, folder: Path) -> str:
    """One line of the table."""
    lm = load_lm(save_family(name, folder))
    tokenizer = FAMILIES[name][1]
    if lm.path == "plain":
        return f"| `{name}` | {tokenizer} | plain | – | – |"
    window = f" (to {lm.fast_length} positions)" if lm.fast_length < 1 << 20 else ""
    seconds = alternated({path: partial(step, lm, path) for path in ("plain", "fast")}, repeats=15)
    gain = f"{median(seconds['plain']) / median(seconds['fast']):.1f} x faster{window}"
    return f"| `{name}` | {tokenizer} | fast | {lm.parity:.0e} | {gain} |"


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true")
    torch.set_num_threads(1)
    lines = [HEADER, "|---|---|---|---|---|"]
    write = parser.parse_args().write
    with tempfile.TemporaryDirectory() as made:
        for name in FAMILIES:
            lines.append(row(name, Path(made) / name))
            print(lines[-1], flush=True)
    if write:
        text = TABLE.read_text(encoding="utf-8")
        table = "\n".join(lines) + "\n"
        text = re.sub(r"(?m)(^\|.*\n)+", lambda _: table, text, count=1)
        TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
