"""Every tuner, view and reading on every family: a failure is named by both."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import softlens as sl
from softlens import LM, Prompt, SoftlensError, Task
from softlens.attribution import METHODS
from softlens.lm import answer_logits
from softlens.tuners import TUNERS
from tests.families import FAMILIES, save_family

QUICK: dict[str, dict[str, Any]] = {
    "soft": {"steps": 2},
    "pez": {"steps": 2},
    "fluentprompt": {"steps": 2},
    "gcg": {"steps": 1, "candidates": 8},
    "rlprompt": {"steps": 2, "width": 16},
    "sample": {"evaluations": 300},
    "race": {"evaluations": 300},
    "beam": {"evaluations": 300},
    "tandem": {"evaluations": 500, "most_relevance": 9.0, "most_nats": 99.0, "mass": 0.0},
}
"""The least that goes through all of a tuner."""
NARROW, WIDE = "llama in bfloat16", "gpt2 in float64"
OTHER = ["the film was good and bright", "a dull plot", "it was terrible"] * 7


@dataclass(eq=False)
class Bench:
    """An LM of a family with a task and a soft prompt that all tools are tried on."""

    lm: LM
    task: Task

    @cached_property
    def run(self) -> sl.Run:
        return sl.tune(self.lm, self.task, length=3, steps=2, progress=False)

    @property
    def soft(self) -> Prompt:
        return self.run.prompt


Tool = Callable[[Bench], None]


def tuner(method: str) -> Tool:
    def tool(bench: Bench) -> None:
        own = {"length": 3} | QUICK[method]
        run = sl.tune(bench.lm, bench.task, method, progress=False, **own)
        assert run.prompt.length == own["length"]
        assert run.prompt.is_hard == (method != "soft")
        assert 0 <= float(run.metrics["accuracy"]) <= 1
        assert np.isfinite(run.history["objective"]).all()

    return tool


def attribution(method: str, of: Any) -> Tool:
    def tool(bench: Bench) -> None:
        view = sl.attribute(
            bench.lm, bench.task, bench.soft, method, of=of, texts=2, samples=4, steps=8,
            progress=False,
        )  # fmt: skip
        assert np.isfinite(view.frame["attribution"]).all()
        if method == "shapley" and isinstance(view, sl.Attribution):
            assert view.total == pytest.approx(view.value - view.value_absent, abs=1e-4)

    return tool


def reading(method: str) -> Tool:
    own: dict[str, Any] = {
        "verbalize": {"length": 3, "draws": 1},
        "matched": {"evaluations": 900, "ban": ()},
        "mixture": {"dictionary": ("it was", "overall it was good", "in short")},
        "frame": {"evaluations": 900, "ban": ()},
    }.get(method, {})

    def tool(bench: Bench) -> None:
        task = bench.task.with_(template="{text} it {prompt} was") if method == "frame" else None
        task = task or bench.task
        found = sl.read(bench.lm, bench.soft, method, task, progress=False, **own)
        fit = sl.faithfulness(bench.lm, task, bench.soft, found, other=OTHER)
        assert 0 <= fit.agreement <= 1
        assert sl.scrutability(bench.lm, task, found).max_surprisal >= 0

    return tool


def view(call: Callable[[Bench], Any]) -> Tool:
    def tool(bench: Bench) -> None:
        seen = call(bench)
        numbers = seen.frame.select_dtypes("number")
        assert len(seen.frame)
        assert numbers.notna().any(axis=None)
        assert not np.isinf(numbers).any(axis=None)
        assert str(seen)
        assert seen._repr_html_()

    return tool


def enumerate_is_the_organisms(bench: Bench) -> None:
    with pytest.raises(SoftlensError, match="'enumerate' asks every question of the organism"):
        sl.tune(bench.lm, bench.task, "enumerate", progress=False)


def peft_and_back(bench: Bench, folder: Path) -> None:
    """Logits of PEFT's own forward on the base in its folder."""
    peft = pytest.importorskip("peft", reason="needs the extra `peft`")
    lm, task = bench.lm, bench.task.with_(template="{prompt} {text}")
    soft = replace(bench.soft, template=task.template)
    where = soft.to_peft(folder / "adapter", lm)
    base = AutoModelForCausalLM.from_pretrained(lm.model.name_or_path, dtype=lm.dtype)
    model = peft.PeftModel.from_pretrained(base, where).eval()
    model.prompt_encoder.to(lm.dtype)
    # What the two add up in another order is all that float32 tells them apart by.
    tolerance = 1e-12 if lm.dtype == torch.float64 else 1e-5
    texts = task.test.texts[:3]
    ours = answer_logits(lm, soft.vectors[None], lm.encode_texts(task.template, texts))[0].cpu()
    for text, row in zip(texts, ours, strict=True):
        with torch.no_grad():
            ids = torch.tensor([lm.encode(text, leading_space=True)])
            theirs = model(input_ids=ids).logits[0, -1]
        torch.testing.assert_close(row, theirs, rtol=tolerance, atol=tolerance)
    assert torch.equal(Prompt.from_peft(where, lm).vectors, soft.vectors)


TOOLS: dict[str, Tool] = {
    **{f"tune {method}": tuner(method) for method in QUICK},
    "tune enumerate": enumerate_is_the_organisms,
    **{
        f"attribute {method} of {of}": attribution(method, of)
        for of in ("prompt", "text")
        for method in METHODS
    },
    **{f"read {method}": reading(method) for method in sl.reading_methods()["method"]},
    "nearest_tokens": view(lambda b: sl.nearest_tokens(b.lm, b.soft)),
    "nearest_by_metric": view(lambda b: sl.nearest_by_metric(b.lm, b.soft)),
    "nearest_path": view(lambda b: sl.nearest_path(b.lm, b.run)),
    "surprisal": view(lambda b: sl.surprisal(b.lm, b.soft, b.task)),
    "surprisal of a text": view(lambda b: sl.surprisal(b.lm, "overall it was")),
    "logit_lens": view(lambda b: sl.logit_lens(b.lm, b.soft, b.task)),
    "fade_in": view(lambda b: sl.fade_in(b.lm, b.task, b.soft, texts=2, steps=20, progress=False)),
    "compare_attributions": view(
        lambda b: sl.compare_attributions(
            b.lm, b.task, b.soft, ["leave_one_out"], texts=2, planted=0, progress=False
        )
    ),
    "controls": view(lambda b: sl.controls(b.lm, b.task, 3)),
    "evaluate": view(lambda b: sl.evaluate(b.lm, b.task, b.soft)),
}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bench]:
    """``benches("opt")``: a family, saved and loaded as a user would, and kept until the next."""
    kept: dict[str, Bench] = {}

    def of(name: str, task: Task) -> Bench:
        if name not in kept:
            kept.clear()
            family, _, dtype = name.partition(" in ")
            folder = save_family(family, tmp_path_factory.mktemp("hub") / f"tiny-{family}")
            small = replace(
                task.head(train=8, dev=4),
                label_words=("bad", "good"),
                class_names=("bad", "good"),
                readable=("it was",),
            )
            # Not every kind of device has float64.
            device = "cpu" if dtype == "float64" else None
            kept[name] = Bench(sl.load_lm(folder, dtype=dtype or "float32", device=device), small)
        return kept[name]

    return of


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", [*FAMILIES, NARROW, WIDE])
def test_a_tool_on_a_family(benches: Callable[..., Bench], toy_task: Task, name: str, tool: str):
    TOOLS[tool](benches(name, toy_task))


# PEFT asks transformers by a name that transformers is about to drop.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")
@pytest.mark.parametrize("name", [*FAMILIES, WIDE])
def test_peft_on_a_family(benches: Callable[..., Bench], toy_task: Task, tmp_path: Path, name: str):
    peft_and_back(benches(name, toy_task), tmp_path)


def test_no_tuner_is_left_out():
    assert {*QUICK, "enumerate"} == set(TUNERS)
