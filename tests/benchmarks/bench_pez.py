"""One step of PEZ against the published way, on the same LM, texts and machine.

``python -m tests.benchmarks.bench_pez`` prints a table and writes ``figures/bench_pez.json``. The
peer does what the published code does (arXiv 2302.03668): it normalises the whole embedding at each
projection and takes the nearest row by a dot product, forwards whole rows of text and prompt with
logits of all tokens at every position, and gets the fluency from a second forward, of the prompt.
It runs with the model's own attention. Ours is the library's tuner, the texts' keys and values
already known, as they are in every pass over the texts but the first.

Before any timing the two must agree on the loss, the nats per token and the gradient of a prompt.
Times are medians over alternated repeats in one process.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from softlens import Task, load_lm, load_task
from softlens.files import write_json
from softlens.lm import LM, available
from softlens.lm.surprisals import context_texts, default_context
from softlens.lm.transformer import pad
from softlens.objectives import Objective
from softlens.tuners.base import Problem
from softlens.tuners.pez import PezOptions, PezTuner
from tests.benchmarks.timing import alternated

TEXTS = 32
WEIGHT = 0.3
OPTIONS = PezOptions(optimiser="adamw", batch_size=TEXTS)


class Published:
    """The published step, on rows of text and prompt."""

    def __init__(self, lm: LM, task: Task, start: list[int], weight: float) -> None:
        self.lm, self.weight = lm, weight
        texts = lm.encode_texts(task.template, task.train.texts)
        rows = [[*before, *start] for before in texts.befores]
        self.ids = pad(rows, lm.device)
        self.ends = torch.tensor([len(row) for row in rows])
        self.mask = (torch.arange(self.ids.shape[1])[None] < self.ends[:, None]).long()
        self.words = torch.tensor(task.answer_ids(lm))
        self.labels = torch.tensor(task.train.labels)
        self.head = context_texts(lm, default_context(lm)).befores[0]
        layer: Any = lm.model.get_input_embeddings()
        self.table = layer.weight.detach()
        self.free = self.table[start].float().clone().requires_grad_()
        rate = OPTIONS.learning_rate or 0.1
        self.optimiser = torch.optim.AdamW([self.free], lr=rate, weight_decay=OPTIONS.weight_decay)

    def project(self) -> Tensor:
        """Indices of the nearest rows: what semantic search does with a dot product."""
        corpus = torch.nn.functional.normalize(self.table.float(), dim=1)
        queries = torch.nn.functional.normalize(self.free.detach(), dim=1)
        return (queries @ corpus.T).topk(1, dim=1).indices[:, 0]

    def losses(self, projected: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor | None]:
        """Cross-entropy over the label words, and of the prompt's own tokens."""
        length = len(nearest)
        rows = self.table[self.ids].clone()
        places = self.ends[:, None] - length + torch.arange(length)
        rows[torch.arange(len(rows))[:, None], places] = projected.to(rows.dtype)
        logits = self.lm.model(inputs_embeds=rows, attention_mask=self.mask).logits
        answers = logits[torch.arange(len(rows)), self.ends - 1][:, self.words]
        task = torch.nn.functional.cross_entropy(answers.float(), self.labels)
        if not self.weight:
            return task, None
        head = self.table[list(self.head)]
        alone = torch.cat([head, projected.to(rows.dtype)])[None]
        logits = self.lm.model(inputs_embeds=alone).logits[0, len(head) - 1 : -1]
        return task, torch.nn.functional.cross_entropy(logits.float(), nearest)

    def gradient(self) -> tuple[float, float, Tensor]:
        """Task loss, nats per token, and the objective's gradient at the projection."""
        nearest = self.project()
        projected = self.table[nearest].float().clone().requires_grad_()
        task, fluency = self.losses(projected, nearest)
        total = task if fluency is None else task + self.weight * fluency
        (found,) = torch.autograd.grad(total, projected)
        return task.item(), 0.0 if fluency is None else fluency.item(), found

    def step(self) -> None:
        """Project, forward, step the continuous copy."""
        self.free.grad = self.gradient()[2]
        torch.nn.utils.clip_grad_norm_([self.free], OPTIONS.clip or float("inf"))
        self.optimiser.step()


def tuner_of(lm: LM, task: Task, length: int, weight: float) -> PezTuner:
    """The library's own tuner, the texts' keys and values already known."""
    problem = Problem.encode(lm, task, length, truncate=False)
    asked = Objective(problem.setting(), {"perplexity": weight} if weight else {})
    tuner = PezTuner(problem, asked, OPTIONS, steps=100, seed=0)
    problem.train.prefix()
    return tuner


def agreement(lm: LM, tuner: PezTuner, peer: Published) -> dict[str, float]:
    """How far ours is from the peer on the first prompt: loss, nats, and gradient (relative)."""
    loss, nats, wanted = peer.gradient()
    gradients: dict[str, Tensor] = {}
    original = tuner.objective.gradients

    def watched(*given: Any) -> Any:
        terms, found = original(*given)
        gradients.update(found)
        return terms, found

    with mock.patch.object(tuner.objective, "gradients", watched):
        row = tuner.step()
    got = torch.stack([*gradients.values()]).sum(dim=0)
    return {
        "loss": abs(row["task_loss"] - loss),
        "nats": abs(row.get("perplexity", 0.0) - nats),
        "gradient": float((got - wanted).norm() / wanted.norm()),
    }


def compare(lm: LM, task: Task, length: int, weight: float, repeats: int) -> dict[str, Any]:
    """Parity, then times of both, alternated."""
    tuner = tuner_of(lm, task, length, weight)
    peer = Published(lm, task, tuner.token_ids, weight)
    off = agreement(lm, tuner, peer)
    # bfloat16 keeps 8 bits of every activation, and the two layouts round apart.
    loose = 1.0 if lm.dtype == torch.float32 else 100.0
    assert off["loss"] < 1e-3 * loose, off
    assert off["nats"] < 1e-3 * loose, off
    assert off["gradient"] < 5e-3 * loose, off

    attention = lm.model.config._attn_implementation

    def published() -> None:
        lm.model.set_attn_implementation("sdpa")
        peer.step()
        lm.model.set_attn_implementation(attention)

    seconds = alternated({"published": published, "ours": tuner.step}, repeats)
    times = {name: median(found) for name, found in seconds.items()}
    return {
        "lm": lm.name,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "length": length,
        "proxy": "perplexity" if weight else "none",
        "seconds": times,
        "slowest": {name: max(found) for name, found in seconds.items()},
        "ratio": times["published"] / times["ours"],
        "off": off,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/bench_pez.json"))
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    chosen = parser.parse_args()
    grounds: list[tuple[str, str, str]] = [("organism", "sentiment", "float32")]
    if available("smollm2-135m"):
        grounds += [("smollm2-135m", "reviews", dtype) for dtype in ("float32", "bfloat16")]
    print(f"{torch.get_num_threads()} threads, {TEXTS} texts, length {chosen.length}")
    results = []
    for name, task_name, dtype in grounds:
        lm = load_lm(name, dtype=dtype)
        task = load_task(task_name).head(train=TEXTS)
        for weight in (0.0, WEIGHT):
            row = compare(lm, task, chosen.length, weight, chosen.repeats)
            results.append(row)
            times = ", ".join(f"{key} {value:.4f} s" for key, value in row["seconds"].items())
            print(
                f"{name:13s} {dtype:9s} proxy {row['proxy']:10s} {times}  "
                f"{row['ratio']:5.1f} x the published speed; "
                f"gradients differ by {row['off']['gradient']:.1e}",
                flush=True,
            )
        del lm
    write_json(chosen.out, {"threads": torch.get_num_threads(), "results": results})
    print(json.dumps({"written": str(chosen.out)}))


if __name__ == "__main__":
    main()
