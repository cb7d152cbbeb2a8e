"""What a prompt does, against scipy and the plain forward."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from softlens import SoftlensError, Task
from softlens.behaviour import Probes, closed, kl, kl_from, log_answers
from softlens.lm import LM
from softlens.tasks import Split


def test_kl_is_scipys(any_lm: LM, toy_task: Task):
    texts = any_lm.encode_texts(toy_task.template, toy_task.test.texts[:6], reserve=8)
    rows = [any_lm.encode(" overall it was"), any_lm.encode(" dull"), []]
    vectors = torch.randn(3, any_lm.hidden_size, generator=torch.Generator().manual_seed(1))
    target = log_answers(any_lm, vectors[None], texts)[0]
    got = kl_from(any_lm, target, rows, texts)
    others = log_answers(any_lm, rows, texts)
    assert got.shape == (3, 6)
    wanted = entropy(target.exp().double().numpy()[None], others.exp().double().numpy(), axis=-1)
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(kl(target, others), got, rtol=1e-4, atol=1e-5)
    assert float(kl(target, target).abs().max()) < 1e-5


def test_answers_are_those_of_the_plain_forward(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    text, row = toy_task.test.texts[0], lm.encode(" it was")
    encoded = lm.encode_texts(toy_task.template, [text], reserve=4)
    ids = torch.tensor([[lm.bos_id, *lm.encode(text), *row]])
    wanted = lm.model(input_ids=ids).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(log_answers(lm, [row], encoded)[0, 0], wanted, atol=1e-4, rtol=1e-4)


def test_closed():
    assert closed(0.0, 2.0) == 1
    assert closed(2.0, 2.0) == 0
    assert closed(3.0, 2.0) == -0.5
    assert np.isnan(closed(0.0, 0.0))


def test_probes_look_at_unlabelled_texts_first_and_never_at_test(
    tiny: Callable[..., LM], toy_task: Task
):
    lm = tiny()
    labelled = Probes.of(lm, toy_task, 4)
    seen = {*labelled.search.sources, *labelled.choose.sources}
    assert seen <= {*toy_task.train.texts, *toy_task.dev.texts}
    assert not set(labelled.search.sources) & set(labelled.choose.sources)
    texts = tuple(f"the film was {word} and dull" for word in ("a", "the", "it", "in") * 3)
    texts = tuple(f"{text} {'it ' * i}" for i, text in enumerate(texts))
    own = Probes.of(lm, replace(toy_task, unlabelled=texts), 4)
    assert {*own.search.sources, *own.choose.sources} == set(texts)
    assert own.before is not None
    assert not any(own.before.afters)
    behind = Probes.of(lm, toy_task.with_(template="{prompt} {text}"), 4)
    assert behind.before is None


def test_too_few_texts(tiny: Callable[..., LM], toy_task: Task):
    few = replace(toy_task, train=Split(("a", "b"), (0, 1)), dev=Split(("a",), (0,)))
    with pytest.raises(SoftlensError, match="Got 2 texts in 'toy' .* wanted at least 4"):
        Probes.of(tiny(), few, 4)
