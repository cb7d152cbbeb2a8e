"""One optimiser step of soft prompt tuning against PEFT, on the same LM, texts and machine.

``make bench`` prints a table and writes ``figures/bench_soft_prompt.json``. Both train the same
number of vectors by Adam on the cross-entropy between the label words of 32 reviews. PEFT only
prepends, so it is held against our prompt-first layout on the very same tokens, and against
text-first, which says the same with the prompt behind the text. PEFT computes logits of the whole
vocabulary at every position, as its users' scripts do.

Times are medians over alternated repeats in one process; peak memory is the growth of the resident
set over the loaded LM, each measured in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import torch
from peft import PromptTuningConfig, get_peft_model

from softlens import load_lm, load_task
from softlens.files import write_json
from softlens.lm import LM
from softlens.lm.transformer import pad
from softlens.objectives import Objective
from softlens.tuners.base import Problem
from softlens.tuners.soft import SoftOptions, SoftTuner
from tests.benchmarks.timing import alternated

TEXTS = 32
LAYOUTS = {"text first": "{text} {prompt}", "prompt first": "{prompt} {text} It was"}
PEER = "PEFT"


def our_step(lm: LM, length: int, template: str) -> Callable[[], object]:
    """One step of the library's own tuner, the texts' keys and values already known."""
    task = load_task("reviews", template=template).head(train=TEXTS)
    problem = Problem.encode(lm, task, length, truncate=False)
    options = SoftOptions(batch_size=TEXTS)
    tuner = SoftTuner(problem, Objective(problem.setting(), {}), options, steps=100, seed=0)
    problem.train.prefix()
    return tuner.step


def peft_step(lm: LM, length: int) -> Callable[[], object]:
    """One step of PEFT prompt tuning on the prompt-first rows."""
    task = load_task("reviews", template=LAYOUTS["prompt first"]).head(train=TEXTS)
    texts = lm.encode_texts(task.template, task.train.texts)
    rows = [[*before, *after] for before, after in zip(texts.befores, texts.afters, strict=True)]
    ids = pad(rows, lm.device)
    ends = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1])[None] < ends[:, None]).long()
    words, labels = torch.tensor(task.answer_ids(lm)), torch.tensor(task.train.labels)
    model = get_peft_model(
        lm.model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    )
    adam = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.03)

    def step() -> None:
        logits = model(input_ids=ids, attention_mask=mask).logits
        answers = logits[torch.arange(len(rows)), length + ends - 1][:, words]
        loss = torch.nn.functional.cross_entropy(answers.float(), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step


def make(what: str, length: int) -> Callable[[], object]:
    """A step by its name: a layout of ours with a dtype, or the peer."""
    name, dtype = what.split("/")
    lm = load_lm("smollm2-135m", dtype=dtype)
    if name == PEER:
        # As PEFT's users have it: the model's own attention.
        lm.model.set_attn_implementation("sdpa")
        return peft_step(lm, length)
    return our_step(lm, length, LAYOUTS[name])


def growth_mib(step: Callable[[], object]) -> float:
    """MiB by which the resident set grows at most during three steps, sampled while they run."""
    process, done = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):
        step()
    done.set()
    watcher.join()
    return (highest - before) / 2**20


def peak_mib(what: str, length: int) -> float:
    """MiB that three steps add to the loaded LM, in a fresh process."""
    module = "tests.benchmarks.bench_soft_prompt"
    command = [sys.executable, "-m", module, "--memory", what, "--length", str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/bench_soft_prompt.json"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 10, 50])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory:
        print(growth_mib(make(chosen.memory, chosen.length)))
        return

    names = [
        f"{PEER}/float32",
        *(f"{name}/{d}" for name in LAYOUTS for d in ("float32", "bfloat16")),
    ]
    results = []
    print(f"{torch.get_num_threads()} threads, {TEXTS} reviews, SmolLM2-135M, float32 peer")
    for length in chosen.lengths:
        steps = {name: make(name, length) for name in names}
        seconds = alternated(steps, chosen.repeats)
        del steps
        peer = median(seconds[names[0]])
        for name in names:
            row = {
                "length": length,
                "step": name,
                "seconds": median(seconds[name]),
                "slowest": max(seconds[name]),
                "ratio": peer / median(seconds[name]),
                "peak_mib": peak_mib(name, length),
            }
            results.append(row)
            print(
                f"length {length:3d}  {name:24s} {row['seconds']:7.3f} s a step "
                f"(slowest {row['slowest']:.3f})  {row['ratio']:5.1f} x the peer's speed  "
                f"peak +{row['peak_mib']:6.0f} MiB",
                flush=True,
            )
    write_json(chosen.out, {"threads": torch.get_num_threads(), "results": results})
    print(json.dumps({"written": str(chosen.out)}))


if __name__ == "__main__":
    main()
