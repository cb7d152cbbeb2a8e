"""Attribution against captum, and what a view costs: time in one run, and agreement.

``python -m tests.benchmarks.bench_views`` prints a table and writes ``figures/bench_views.json``.
Peers are captum's `IntegratedGradients`, `FeatureAblation` and `ShapleyValueSampling` on the plain
forward of the same prompt and texts, one call a text, as its documentation has it; the sampled
Shapley values are held against our exact ones. Ours includes everything up to the finished result,
but texts' keys and values stay in memory between repeats, as they do in a session. Medians of
alternated repeats in one process; ``--lm smollm2-135m --task reviews`` for the real LM.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients, ShapleyValueSampling
from torch import Tensor

from softlens import Prompt, attribute, load_lm, load_task, logit_lens, nearest_tokens, surprisal
from softlens.attribution.game import stand_ins
from softlens.files import write_json
from softlens.lm import LM
from softlens.tasks import Task
from tests.benchmarks.timing import alternated

STEPS = 32
PERMUTATIONS = 25


def values(lm: LM, task: Task, texts: int) -> list[Callable[[Tensor], Tensor]]:
    """The log-probability of the right label word on each text, by the plain forward."""
    encoded = lm.encode_texts(task.template, task.test.texts[:texts], reserve=16)
    words = torch.tensor(task.answer_ids(lm))

    def of(index: int) -> Callable[[Tensor], Tensor]:
        before, after = lm.embed(encoded.befores[index]), lm.embed(encoded.afters[index])
        label = task.test.labels[index]

        def value(rows: Tensor) -> Tensor:
            sides = [side.expand(len(rows), -1, -1) for side in (before, after)]
            whole = torch.cat([sides[0], rows, sides[1]], dim=1)
            logits = lm.model(inputs_embeds=whole).logits[:, -1]
            return logits[:, words].log_softmax(dim=-1)[:, label]

        return value

    return [of(index) for index in range(texts)]


def peers(lm: LM, task: Task, prompt: Prompt, texts: int) -> dict[str, Callable[[], np.ndarray]]:
    """captum's methods, each for all texts, shape (texts, length)."""
    each = values(lm, task, texts)
    length = prompt.length
    given, stand = prompt.vectors[None], stand_ins(lm, length, "mean_embedding", 0)
    mask = torch.arange(length)[None, :, None].expand(1, length, lm.hidden_size).contiguous()

    def gradients() -> np.ndarray:
        return np.stack([
            IntegratedGradients(value).attribute(
                given, stand, n_steps=STEPS, method="gausslegendre", internal_batch_size=STEPS
            )[0].sum(dim=-1).detach().numpy()
            for value in each
        ])  # fmt: skip

    def ablation() -> np.ndarray:
        return np.stack([
            FeatureAblation(value).attribute(given, stand, feature_mask=mask)[0, :, 0]
            .detach().numpy()
            for value in each
        ])  # fmt: skip

    def shapley() -> np.ndarray:
        return np.stack([
            ShapleyValueSampling(value).attribute(
                given, stand, feature_mask=mask, n_samples=PERMUTATIONS
            )[0, :, 0].detach().numpy()
            for value in each
        ])  # fmt: skip

    return {
        "integrated_gradients": gradients,
        "leave_one_out": no_gradient(ablation),
        "shapley": no_gradient(shapley),
    }


def no_gradient(call: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """The same without a graph, which perturbation needs not."""

    def run() -> np.ndarray:
        with torch.no_grad():
            return call()

    return run


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/bench_views.json"))
    parser.add_argument("--lm", default="organism")
    parser.add_argument("--task", default="sentiment")
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    lm, task = load_lm(chosen.lm), load_task(chosen.task)
    generator = torch.Generator().manual_seed(0)
    picked = torch.randint(len(lm.ordinary_ids), (chosen.length,), generator=generator)
    prompt = Prompt.from_ids(lm, lm.ordinary_ids[picked].tolist())

    results = []
    for method, peer in peers(lm, task, prompt, chosen.texts).items():

        def ours(method: str = method) -> np.ndarray:
            return attribute(
                lm, task, prompt, method, absent="mean_embedding", texts=chosen.texts,
                steps=STEPS, progress=False,
            ).by_text  # fmt: skip

        times = alternated({"ours": ours, "captum": peer}, chosen.repeats)
        ratios = sorted(c / o for c, o in zip(times["captum"], times["ours"], strict=True))
        row = {
            "method": method,
            "milliseconds": 1e3 * median(times["ours"]),
            "captum_milliseconds": 1e3 * median(times["captum"]),
            "ratio": median(ratios),
            "ratio_low": ratios[0],
            "ratio_high": ratios[-1],
            "largest_difference": float(np.abs(ours() - peer()).max()),
        }
        results.append(row)
        print(
            f"{method:21s} ours {row['milliseconds']:8.1f} ms  captum "
            f"{row['captum_milliseconds']:9.1f} ms  ratio {row['ratio']:5.1f} "
            f"({row['ratio_low']:.1f} to {row['ratio_high']:.1f})  largest difference "
            f"{row['largest_difference']:.1e}",
            flush=True,
        )
    views: dict[str, Callable[[], object]] = {
        "nearest_tokens": lambda: nearest_tokens(lm, prompt),
        "surprisal": lambda: surprisal(lm, prompt, task),
        "logit_lens": lambda: logit_lens(lm, prompt, task),
        "attribute": lambda: attribute(lm, task, prompt, progress=False),
    }
    times = alternated(views, chosen.repeats)
    costs = {name: 1e3 * median(taken) for name, taken in times.items()}
    for name, cost in costs.items():
        print(f"{name:21s} {cost:8.1f} ms")
    setting = {"lm": lm.name, "task": task.name, "length": chosen.length, "texts": chosen.texts}
    write_json(
        chosen.out,
        {"threads": torch.get_num_threads(), **setting, "steps": STEPS,
         "permutations": PERMUTATIONS, "results": results, "views_milliseconds": costs},
    )  # fmt: skip


if __name__ == "__main__":
    main()
