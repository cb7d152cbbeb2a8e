"""Attribution against captum, what a view costs, how exact it is, and which methods agree.

``python -m tests.benchmarks.bench_views`` prints tables and writes ``figures/bench_views.json``;
``--parts peers views exactness agreement`` picks some.
Peers are captum's `IntegratedGradients`, `FeatureAblation` and `ShapleyValueSampling` on the plain
forward of the same prompt and texts, one call a text, as its documentation has it; Shapley
values are sampled with as many permutations by both, and ours are also timed exactly, from all
coalitions. Ours includes everything up to the finished result, but texts' keys and values stay in
memory between repeats, as they do in a session. Medians of alternated repeats in one process, and
ratios of processor time, which another program beside it changes little; ``--lm smollm2-135m
--tasks reviews`` for the real LM.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from captum.attr import (
    FeatureAblation,
    IntegratedGradients,
    ShapleyValues,
    ShapleyValueSampling,
)
from torch import Tensor

from softlens import (
    Prompt,
    attribute,
    compare_attributions,
    fade_in,
    load_lm,
    load_task,
    logit_lens,
    nearest_tokens,
    surprisal,
)
from softlens.attribution.game import stand_ins
from softlens.files import write_json
from softlens.lm import LM
from softlens.tasks import Task
from tests.benchmarks.timing import alternated


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


def peers(
    lm: LM, task: Task, prompt: Prompt, texts: int, steps: int, permutations: int
) -> dict[str, Callable[[], np.ndarray]]:
    """captum's methods, each for all texts, shape (texts, length)."""
    each = values(lm, task, texts)
    length = prompt.length
    given, stand = prompt.vectors[None], stand_ins(lm, length, "mean_embedding", 0)
    mask = torch.arange(length)[None, :, None].expand(1, length, lm.hidden_size).contiguous()

    def gradients() -> np.ndarray:
        return np.stack([
            IntegratedGradients(value).attribute(
                given, stand, n_steps=steps, method="gausslegendre", internal_batch_size=steps
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
                given, stand, feature_mask=mask, n_samples=permutations
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


def both_times(
    calls: Mapping[str, Callable[[], object]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each call by the clock, and of the processor.

    On one thread the latter are what it would take on a machine that does nothing else.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}

    def timed(name: str) -> None:
        began = time.process_time()
        calls[name]()
        spent[name].append(time.process_time() - began)

    times = alternated({name: partial(timed, name) for name in calls}, repeats)
    return times, {name: taken[1:] for name, taken in spent.items()}


def peer_rows(
    lm: LM,
    task: Task,
    prompt: Prompt,
    texts: int,
    repeats: int,
    steps: int = 32,
    permutations: int = 25,
) -> list[dict[str, object]]:
    """Times of ours and of captum's, alternated; differences where both are exact."""
    theirs = peers(lm, task, prompt, texts, steps, permutations)
    # By both with as many permutations, and by ours from all coalitions.
    jobs: list[tuple[str, str, int | None]] = [
        ("integrated_gradients", "integrated_gradients", None),
        ("leave_one_out", "leave_one_out", None),
        ("shapley", "shapley", permutations),
        ("shapley, all coalitions", "shapley", 10**6),
    ]
    rows: list[dict[str, object]] = []
    for name, method, samples in jobs:

        def ours(method: str = method, samples: int | None = samples) -> np.ndarray:
            return attribute(
                lm, task, prompt, method, absent="mean_embedding", texts=texts, steps=steps,
                samples=samples, progress=False,
            ).by_text  # fmt: skip

        times, spent = both_times({"ours": ours, "captum": theirs[method]}, repeats)
        ratios = sorted(c / o for c, o in zip(spent["captum"], spent["ours"], strict=True))
        rows.append(
            {
                "method": name,
                "milliseconds": 1e3 * median(times["ours"]),
                "captum_milliseconds": 1e3 * median(times["captum"]),
                "processor_milliseconds": 1e3 * median(spent["ours"]),
                "captum_processor_milliseconds": 1e3 * median(spent["captum"]),
                "ratio": median(ratios),
                "ratio_low": ratios[0],
                "ratio_high": ratios[-1],
                "largest_difference": float(np.abs(ours() - theirs[method]()).max()),
            }
        )
    return rows


def view_rows(lm: LM, task: Task, prompt: Prompt, repeats: int) -> list[dict[str, object]]:
    """Milliseconds of each view as a user calls it, by the clock and of the processor."""
    calls: dict[str, Callable[[], object]] = {
        "nearest_tokens": lambda: nearest_tokens(lm, prompt),
        "surprisal": lambda: surprisal(lm, prompt, task),
        "logit_lens": lambda: logit_lens(lm, prompt, task),
        "attribute": lambda: attribute(lm, task, prompt, progress=False),
        "attribute, 4 texts": lambda: attribute(lm, task, prompt, texts=4, progress=False),
        "attribute, leave_one_out": lambda: attribute(
            lm, task, prompt, "leave_one_out", progress=False
        ),
        "attribute of a text's words, leave_one_out": lambda: attribute(
            lm, task, prompt, "leave_one_out", of="text", texts=1, progress=False
        ),
        "fade_in": lambda: fade_in(lm, task, prompt, texts=4, progress=False),
    }
    times, spent = both_times(calls, repeats)
    return [
        {
            "view": name,
            "milliseconds": 1e3 * median(times[name]),
            "processor_milliseconds": 1e3 * median(spent[name]),
        }
        for name in calls
    ]


def exactness_rows(lm: LM, task: Task, texts: int) -> list[dict[str, object]]:
    """Differences from captum's exact Shapley values, and gaps of completeness, at length 4."""
    prompt = drawn(lm, 4)
    given, stand = prompt.vectors[None], stand_ins(lm, 4, "mean_embedding", 0)
    mask = torch.arange(4)[None, :, None].expand(1, 4, lm.hidden_size).contiguous()
    keys = {"absent": "mean_embedding", "texts": texts, "progress": False}
    exact = attribute(lm, task, prompt, **keys)  # type: ignore[call-overload]
    with torch.no_grad():
        theirs = np.stack([
            ShapleyValues(value).attribute(given, stand, feature_mask=mask)[0, :, 0].numpy()
            for value in values(lm, task, texts)
        ])  # fmt: skip
    rows: list[dict[str, object]] = [
        {"what": "Shapley against captum's over all coalitions, largest difference (nats)",
         "value": float(np.abs(exact.by_text - theirs).max())},
        {"what": "Shapley's gap of completeness (nats)", "value": abs(exact.gap)},
    ]  # fmt: skip
    for steps in (4, 16, 64, 256):
        found = attribute(  # type: ignore[call-overload]
            lm, task, prompt, "integrated_gradients", steps=steps, **keys
        )
        rows.append({"what": f"integrated gradients' gap, {steps} steps (nats)",
                     "value": abs(found.gap)})  # fmt: skip
    return rows


def agreement_rows(
    lm: LM,
    task: Task,
    length: int,
    prompts: int,
    texts: int,
    steps: int = 64,
    planted: int = 3,
    randomise: bool = True,
) -> list[dict[str, object]]:
    """Which method agrees with exact Shapley: means over prompts, half readable, half random."""
    readable = list(task.readable[: prompts // 2])
    others = [drawn(lm, length, seed) for seed in range(prompts - len(readable))]
    found = compare_attributions(
        lm, task, [*readable, *others], texts=16 if lm.is_small else texts, steps=steps,
        planted=planted, randomise=randomise, progress=False,
    )  # fmt: skip
    rows = found.summary.assign(task=task.name).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def drawn(lm: LM, length: int, seed: int = 0) -> Prompt:
    """A prompt of random tokens."""
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randint(len(lm.ordinary_ids), (length,), generator=generator)
    return Prompt.from_ids(lm, lm.ordinary_ids[picked].tolist())


PARTS = ("peers", "views", "exactness", "agreement")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/bench_views.json"))
    parser.add_argument("--lm", default="organism")
    parser.add_argument("--tasks", nargs="+", default=["sentiment"], help="the first for times")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--length", type=int, default=10)
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32, help="of integrated gradients")
    parser.add_argument("--permutations", type=int, default=25)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--planted", type=int, default=3, help="0 plants none, which trains none")
    parser.add_argument("--randomise", action=argparse.BooleanOptionalAction, default=True)
    asked = parser.parse_args()
    lm, tasks = load_lm(asked.lm), [load_task(name) for name in asked.tasks]
    prompt = drawn(lm, asked.length)
    found: dict[str, list[dict[str, object]]] = {}
    for part in asked.parts:
        if part == "peers":
            rows = peer_rows(
                lm, tasks[0], prompt, asked.texts, asked.repeats, asked.steps, asked.permutations
            )
        elif part == "views":
            rows = view_rows(lm, tasks[0], prompt, asked.repeats)
        elif part == "exactness":
            rows = exactness_rows(lm, tasks[0], asked.texts)
        else:
            how = (5, asked.prompts, asked.texts, asked.steps, asked.planted, asked.randomise)
            rows = [r for task in tasks for r in agreement_rows(lm, task, *how)]
        found[part] = rows
        print(f"{part}\n{pd.DataFrame(rows).to_string(index=False, float_format='{:.3g}'.format)}",
              flush=True)  # fmt: skip
    setting = {"lm": lm.name, "tasks": asked.tasks, "length": asked.length, "texts": asked.texts}
    write_json(
        asked.out,
        {"threads": torch.get_num_threads(), **setting, "steps": asked.steps,
         "permutations": asked.permutations, **found},
    )  # fmt: skip


if __name__ == "__main__":
    main()
