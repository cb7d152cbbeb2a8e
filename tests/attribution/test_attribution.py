"""Attributions against definitions, against captum, and as they show themselves."""

import itertools
import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    ShapleyValues,
)

from softlens import Prompt, SoftlensError, attribute, attribution
from softlens.attribution import METHODS, TARGETS, make_game
from softlens.lm import LM
from softlens.tasks import Split, Task
from tests.attribution.oracles import log_prob, logits_of

PROMPT = "overall it was"
TEXTS = 3


def soft(lm: LM, length: int = 4, seed: int = 0) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(20, 300, (length,), generator=generator)
    noise = torch.randn(length, lm.hidden_size, generator=generator)
    return Prompt.soft(lm, lm.embed(ids.tolist()) + 0.2 * noise)


def coalitions(length: int) -> np.ndarray:
    return np.array(list(itertools.product([False, True], repeat=length)))


def mean_row(lm: LM) -> torch.Tensor:
    return lm.embedding[lm.ordinary_ids].mean(dim=0)


@pytest.mark.parametrize("template", ["{text} {prompt}", "{prompt} {text} it was"])
@pytest.mark.parametrize("absent", ["removed", "mean_embedding", "zero"])
def test_coalitions_are_worth_what_the_forward_says(
    any_lm: LM, toy_task: Task, template: str, absent: str
):
    task, prompt = toy_task.with_(template=template), soft(any_lm)
    game = make_game(any_lm, task, prompt, "log_prob", absent, TEXTS, "test", 0)
    present = coalitions(4)
    got = game.values(present)
    stand = mean_row(any_lm) if absent == "mean_embedding" else torch.zeros(any_lm.hidden_size)
    for row, values in zip(present, got, strict=True):
        there = torch.tensor(row)
        if absent == "removed":
            vectors = prompt.vectors[there]
        else:
            vectors = torch.where(there[:, None], prompt.vectors, stand)
        with torch.no_grad():
            wanted = [float(log_prob(any_lm, task, t)(vectors)) for t in range(TEXTS)]
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)


def test_every_target_is_what_it_says(any_lm: LM, toy_task: Task):
    prompt = soft(any_lm)
    present = coalitions(4)[[0, 5, 15]]
    words = toy_task.answer_ids(any_lm)
    for target in TARGETS:
        game = make_game(any_lm, toy_task, prompt, target, "removed", TEXTS, "test", 0)
        got = game.values(present)
        for t in range(TEXTS):
            text, label = toy_task.test.texts[t], toy_task.test.labels[t]
            with torch.no_grad():
                rows = [
                    logits_of(any_lm, toy_task.template, text, prompt.vectors[torch.tensor(row)])
                    for row in present
                ]
            whole = rows[-1].log_softmax(-1)
            for logits, value in zip(rows, got[:, t], strict=True):
                right, other = logits[words[label]], logits[words[1 - label]]
                wanted = {
                    "log_prob": logits[words].log_softmax(-1)[label],
                    "log_prob_vocab": logits.log_softmax(-1)[words[label]],
                    "contrast": right - other,
                    "accuracy": float(right > other),
                    "kl": -(whole.exp() * (whole - logits.log_softmax(-1))).sum(),
                }[target]
                assert value == pytest.approx(float(wanted), rel=1e-4, abs=1e-4)


def test_random_rows_are_the_mean_of_draws_and_of_the_seed(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    one, same, other = (
        attribute(lm, toy_task, PROMPT, absent="random_row", texts=TEXTS, seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.by_text, same.by_text)
    assert not np.allclose(one.by_text, other.by_text)
    assert abs(one.gap) < 1e-6


@pytest.mark.parametrize("absent", ["removed", "mean_embedding"])
def test_shapley_is_the_mean_over_all_orders(any_lm: LM, toy_task: Task, absent: str):
    prompt = soft(any_lm)
    got = attribute(any_lm, toy_task, prompt, absent=absent, texts=TEXTS)
    game = make_game(any_lm, toy_task, prompt, "log_prob", absent, TEXTS, "test", 0)
    game.values(coalitions(4))  # all at once, as `attribute` asks: float32 sees the batch
    gains = np.zeros((TEXTS, 4))
    for order in itertools.permutations(range(4)):
        present = np.zeros(4, dtype=bool)
        for position in order:
            before = game.values(present[None])[0]
            present = present.copy()
            present[position] = True
            gains[:, position] += game.values(present[None])[0] - before
    np.testing.assert_allclose(got.by_text, gains / math.factorial(4), atol=1e-9)
    # Completeness, to the last digit that float64 sums keep.
    assert abs(got.gap) < 1e-9
    assert got.note == "exact: all 16 coalitions"
    np.testing.assert_allclose(got.frame["attribution"], got.by_text.mean(axis=0))
    spread = got.by_text.std(axis=0, ddof=1) / np.sqrt(TEXTS)
    np.testing.assert_allclose(got.frame["standard_error"], spread)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_equal_to_captum(tiny: Callable[..., LM], toy_task: Task, family: str):
    lm, length = tiny(family), 4
    prompt = soft(lm)
    stand = mean_row(lm).expand(1, length, -1)
    mask = torch.arange(length)[None, :, None].expand(1, length, lm.hidden_size).contiguous()
    ours = {
        method: attribute(
            lm, toy_task, prompt, method, absent="mean_embedding", texts=2, steps=20
        ).by_text
        for method in ("shapley", "leave_one_out", "integrated_gradients")
    }
    ours["gradient_x_input"] = attribute(lm, toy_task, prompt, "gradient_x_input", texts=2).by_text
    for t in range(2):
        one = log_prob(lm, toy_task, t)

        def value(rows: torch.Tensor, one=one) -> torch.Tensor:
            return torch.stack([one(row) for row in rows])

        given = prompt.vectors[None].clone()
        shapley = ShapleyValues(value).attribute(given, baselines=stand, feature_mask=mask)
        ablation = FeatureAblation(value).attribute(given, baselines=stand, feature_mask=mask)
        gradients = IntegratedGradients(value).attribute(
            given, baselines=stand, n_steps=20, method="gausslegendre"
        )
        times = InputXGradient(value).attribute(given.requires_grad_())
        # captum writes a feature's attribution to each of its numbers.
        np.testing.assert_allclose(ours["shapley"][t], shapley[0, :, 0].detach(), atol=1e-4)
        np.testing.assert_allclose(ours["leave_one_out"][t], ablation[0, :, 0].detach(), atol=1e-4)
        np.testing.assert_allclose(
            ours["integrated_gradients"][t], gradients[0].sum(dim=-1).detach(), atol=1e-4
        )
        np.testing.assert_allclose(
            ours["gradient_x_input"][t], times[0].sum(dim=-1).detach(), atol=1e-4
        )


def test_a_position_that_does_nothing_gets_nothing(any_lm: LM, toy_task: Task):
    vectors = soft(any_lm).vectors.clone()
    vectors[2] = mean_row(any_lm)
    prompt = Prompt.soft(any_lm, vectors)
    for method in ("shapley", "leave_one_out", "integrated_gradients", "gradient_x_input"):
        got = attribute(any_lm, toy_task, prompt, method, absent="mean_embedding", texts=TEXTS)
        np.testing.assert_allclose(got.by_text[:, 2], 0, atol=1e-5)
        assert np.abs(got.by_text).max() > 1e-3


@pytest.mark.parametrize("template", ["{text} {prompt}", "{prompt} {text} it was"])
def test_integrated_gradients_are_complete_with_enough_steps(
    any_lm: LM, toy_task: Task, template: str
):
    task = toy_task.with_(template=template)
    gaps = [
        abs(attribute(any_lm, task, soft(any_lm), "integrated_gradients", texts=2, steps=s).gap)
        for s in (2, 64)
    ]
    assert gaps[1] < 1e-3
    assert gaps[1] <= gaps[0] + 1e-5


def test_sampled_shapley_is_near_the_exact_one_and_says_how_near(
    tiny: Callable[..., LM], toy_task: Task
):
    lm, prompt = tiny(), soft(tiny(), 8)
    exact = attribute(lm, toy_task, prompt, texts=TEXTS).frame["attribution"]
    scores = []
    for seed in range(12):
        got = attribute(lm, toy_task, prompt, texts=TEXTS, samples=24, seed=seed)
        assert abs(got.gap) < 1e-9
        assert got.note == "sampled: 24 permutations"
        error = got.frame["sampling_error"]
        scores += ((got.frame["attribution"] - exact) / error).tolist()
    # Twelve pairs leave a t distribution of 11 degrees of freedom.
    assert np.mean(np.abs(scores) < 2.2) > 0.88
    assert 0.6 < np.std(scores) < 1.6
    again = attribute(lm, toy_task, prompt, texts=TEXTS, samples=24, seed=11)
    np.testing.assert_array_equal(again.by_text, got.by_text)
    with pytest.raises(SoftlensError, match="Got samples=3, wanted at least 4 permutations"):
        attribute(lm, toy_task, prompt, samples=3)


def test_long_prompts_are_sampled_and_say_so(tiny: Callable[..., LM], toy_task: Task):
    got = attribute(tiny(), toy_task, soft(tiny(), 13), texts=2)
    assert "sampled: 64 permutations, as there are more than 12" in got.headline
    assert (got.frame["sampling_error"] > 0).all()


def test_all_coalitions_where_they_are_no_more_than_the_samples(
    tiny: Callable[..., LM], toy_task: Task
):
    lm, prompt = tiny(), soft(tiny(), 4)
    exact = attribute(lm, toy_task, prompt, texts=2)
    # 14 coalitions between nothing and all; five permutations would ask for at most 12.
    enough = attribute(lm, toy_task, prompt, texts=2, samples=6)
    assert (exact.note, enough.note) == ("exact: all 16 coalitions",) * 2
    np.testing.assert_array_equal(exact.by_text, enough.by_text)
    assert attribute(lm, toy_task, prompt, texts=2, samples=4).note == "sampled: 4 permutations"


def test_a_large_lm_samples_what_it_can_afford(
    tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch
):
    lm = tiny()
    monkeypatch.setitem(lm.__dict__, "parameters", 134_000_000)
    for length, texts, wanted in (
        (5, 4, "exact: all 32 coalitions"),
        (6, 4, "exact: all 64 coalitions"),
        (9, 1, "sampled: 24 permutations, which take seconds on an LM of this size"),
        (10, 4, "sampled: 8 permutations, which take seconds on an LM of this size"),
    ):
        note = attribute(lm, toy_task, soft(lm, length), texts=texts, progress=False).note
        assert note.startswith(wanted)
    assert attribute(lm, toy_task, soft(lm, 5)).n == 4


def test_texts_are_a_number_or_places(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    first = attribute(lm, toy_task, PROMPT, texts=4)
    chosen = attribute(lm, toy_task, PROMPT, texts=[3, 1])
    np.testing.assert_allclose(chosen.by_text, first.by_text[[3, 1]], atol=1e-6)
    same = attribute(lm, toy_task, PROMPT, texts=np.array([3, 1]))
    np.testing.assert_array_equal(same.by_text, chosen.by_text)
    with pytest.raises(SoftlensError, match=r"Got texts=\[99\], wanted places"):
        attribute(lm, toy_task, PROMPT, texts=np.array([99]))
    with pytest.raises(SoftlensError, match=r"Got texts=\[1, 99\], wanted places.*99 is none"):
        attribute(lm, toy_task, PROMPT, texts=[1, 99])
    with pytest.raises(SoftlensError, match=r"Got texts=\[\], wanted places"):
        attribute(lm, toy_task, PROMPT, texts=[])


@pytest.mark.parametrize("template", ["{text} {prompt}", "{prompt} {text} it was"])
def test_rollout_is_the_product_of_layers(any_lm: LM, toy_task: Task, template: str):
    task, prompt = toy_task.with_(template=template), soft(any_lm)
    usual = any_lm.model.config._attn_implementation
    got = attribute(any_lm, task, prompt, "attention_rollout", texts=1)
    assert any_lm.model.config._attn_implementation == usual
    texts = any_lm.encode_texts(template, task.test.texts[:1])
    before, after = texts.befores[0], texts.afters[0]
    row = torch.cat([any_lm.embed(before), prompt.vectors, any_lm.embed(after)])
    any_lm.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            layers = any_lm.model(inputs_embeds=row[None], output_attentions=True).attentions
    finally:
        any_lm.model.set_attn_implementation(usual)
    shares = np.zeros(len(row))
    shares[-1] = 1
    for layer in reversed(layers):
        shares = shares @ (0.5 * layer[0].mean(dim=0).double().numpy() + 0.5 * np.eye(len(row)))
    wanted = shares[len(before) : len(before) + 4]
    np.testing.assert_allclose(got.by_text[0], wanted, atol=1e-6)
    assert got.unit == "share of attention"
    assert math.isnan(got.value_absent)


def three_classes(task: Task) -> Task:
    splits = {
        name: Split(
            getattr(task, name).texts, tuple(i % 3 for i in range(len(getattr(task, name))))
        )
        for name in ("train", "dev", "test")
    }
    return Task("three", ("terrible", "great", "dull"), "{text} {prompt}", **splits)


def test_a_contrast_of_two_labels_among_more(tiny: Callable[..., LM], toy_task: Task):
    lm, task = tiny(), three_classes(toy_task)
    got = attribute(lm, task, PROMPT, target=("dull", "terrible"), texts=4)
    assert (got.target, got.unit, got.n) == ("contrast", "nats", 4)
    kept = [i for i, label in enumerate(task.test.labels) if label != 1][:4]
    words = dict(zip((0, 2), (lm.encode(w, True)[0] for w in ("terrible", "dull")), strict=True))
    ids = lm.encode(PROMPT, leading_space=True)
    values = []
    for i in kept:
        with torch.no_grad():
            logits = logits_of(lm, task.template, task.test.texts[i], lm.embed(ids))
        label = task.test.labels[i]
        values.append(float(logits[words[label]] - logits[words[2 - label]]))
    assert got.value == pytest.approx(np.mean(values), rel=1e-4, abs=1e-4)


def test_bad_input(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    for kind, match in (
        ({"method": "shaply"}, r"Unknown method 'shaply'.*mean 'shapley'"),
        ({"target": "logprob"}, r"Got target 'logprob'.*mean 'log_prob'"),
        ({"absent": "gone"}, r"Got absent='gone', wanted one of"),
        ({"split": "validation"}, "Got split 'validation'"),
        ({"texts": 0}, "Got texts=0, wanted at least 1"),
        ({"of": "texts"}, r"Got of='texts', wanted one of .*mean 'text'"),
        ({"method": "integrated_gradients", "steps": 0}, "Got steps=0"),
        ({"method": "integrated_gradients", "absent": "removed"}, "there is none to one that is"),
        ({"method": "integrated_gradients", "target": "accuracy"}, "'accuracy' has no gradient"),
        ({"method": "gradient_x_input", "target": "kl"}, "at its minimum there"),
        ({"method": "attention_rollout", "absent": "zero"}, "leave absent= out"),
        ({"target": ("great", "fine")}, r"Got target=\('great', 'fine'\), wanted two different"),
        ({"target": ("great", "great")}, "wanted two different label words"),
    ):
        with pytest.raises(SoftlensError, match=match):
            attribute(lm, toy_task, PROMPT, **kind)
    with pytest.raises(SoftlensError, match="empty prompt has no positions"):
        attribute(lm, toy_task, None)
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-1'"):
        attribute(lm, toy_task, Prompt.from_text(tiny("gpt2", seed=1), "film"))
    with pytest.raises(SoftlensError, match="A contrast is between two labels, and 'three' has 3"):
        attribute(lm, three_classes(toy_task), PROMPT, target="contrast")
    with pytest.raises(SoftlensError, match="wanted one of"):
        attribute(lm, toy_task, PROMPT, texts=2).plot(kind="pie")


def test_every_method_shows_itself(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    for method in METHODS:
        for prompt in ("it <b>\n é", soft(lm, 1)):
            got = attribute(lm, toy_task, prompt, method, texts=2)
            html = got._repr_html_()
            assert "<b>" not in html
            assert f'aria-label="{method} attribution of each position: ' in html
            assert len(repr(got).splitlines()) == 2 + len(got.frame)
            columns = ["position", "token", "attribution", "standard_error", "sampling_error"]
            assert list(got.frame) == columns
            for kind in ("bars", "tokens"):
                figure, axes = plt.subplots()
                assert got.plot(axes, kind=kind) is axes
                figure.canvas.draw()
                plt.close(figure)
    assert "named by their nearest tokens" in got.headline
    assert attribution.attribute is attribute


def test_a_zero_vector_has_attributions_too(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    got = attribute(lm, toy_task, Prompt.soft(lm, torch.zeros(2, 32)), texts=2)
    assert len(got.frame) == 2
