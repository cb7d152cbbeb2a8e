"""Products of readable prompts: known weights come back, and the fit is the optimum."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import softlens as sl
from softlens import Prompt, SoftlensError, Task
from softlens.behaviour import kl, log_answers
from softlens.lm import LM
from softlens.readings import Asked
from softlens.readings.base import product_of
from softlens.readings.mixture import _Fit

TEXTS = ("overall it was", "in short it was", "the film was dull", "a bright story")


@pytest.fixture
def mixed(tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch) -> LM:
    """An LM under which every prompt answers as 1.2 x the first text - 0.4 x the third."""
    lm = tiny()

    def answers(self: Asked, texts: object) -> torch.Tensor:
        each = log_answers(lm, [lm.encode(TEXTS[i], True) for i in (0, 2)], texts)
        return product_of(each, torch.tensor([1.2, -0.4]))

    monkeypatch.setattr(Asked, "answers", answers)
    return lm


def test_known_weights_come_back(mixed: LM, toy_task: Task):
    prompt = Prompt.from_text(mixed, "it was")
    found = sl.read(mixed, prompt, "mixture", toy_task, dictionary=TEXTS, most=3)
    weights = {expert.text.strip(): expert.weight for expert in found.experts}
    assert weights[TEXTS[0]] == pytest.approx(1.2, abs=0.01)
    assert weights[TEXTS[2]] == pytest.approx(-0.4, abs=0.01)
    assert found.score == pytest.approx(1, abs=1e-3)
    assert found.experts[0].text.strip() == found.text.strip() == TEXTS[0]
    for expert in found.experts:
        assert expert.low <= expert.weight <= expert.high
    assert "+1.20 × (␣overall it was)" in repr(found)
    assert "-0.40" in found._repr_html_()
    found.plot()
    plt.close("all")


def test_its_answers_are_the_product(tiny: Callable[..., LM], mixed: LM, toy_task: Task):
    prompt = Prompt.from_text(mixed, "it was")
    found = sl.read(mixed, prompt, "mixture", toy_task, dictionary=TEXTS, most=3)
    texts = mixed.encode_texts(toy_task.template, toy_task.test.texts, reserve=8)
    asked = Asked(mixed, prompt, toy_task, 0, False)
    assert float(kl(asked.answers(texts), found.log_answers(mixed, texts)).mean()) < 1e-3
    answers = found.log_answers(mixed, texts)
    torch.testing.assert_close(answers.exp().sum(-1), torch.ones(len(texts)))


def test_the_fit_is_the_optimum():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(7), size=11)
    experts = np.log(rng.dirichlet(np.ones(7), size=(3, 11)))
    fit = _Fit(shares, experts)
    found = fit.solve([0, 2], np.zeros(2))
    wanted = minimize(lambda w: fit.loss([0, 2], w), np.zeros(2), tol=1e-10)
    np.testing.assert_allclose(found, wanted.x, atol=2e-3)
    low, high = fit.intervals([0, 2], found, seed=0)
    assert (low < found).all()
    assert (found < high).all()


def test_one_text_is_one_expert():
    organism, task = sl.load_lm(), sl.load_task("sentiment")
    prompt = Prompt.from_text(organism, "by the close it was")
    found = sl.read(organism, prompt, "mixture", task)
    assert len(found.experts) == 1
    assert sl.organism.asks_for(found.text) == "last"
    assert found.experts[0].weight == pytest.approx(1, abs=0.05)


def test_a_dictionary_has_words_that_the_lm_has():
    organism, sentiment = sl.load_lm(), sl.load_task("sentiment")
    prompt = Prompt.from_text(organism, "on the whole it was")
    with pytest.raises(SoftlensError, match="text of the dictionary 'Overall It was' has words"):
        sl.read(
            organism, prompt, "mixture", sentiment, dictionary=["on the whole", "Overall It was"]
        )


def test_a_dictionary_of_the_lms_own(tiny: Callable[..., LM], toy_task: Task):
    prompt = Prompt.from_text(tiny(), "it was great")
    found = sl.read(tiny(), prompt, "mixture", toy_task, most=2)
    assert 1 <= len(found.experts) <= 2
    assert found.frame["kept"].sum() == 1


def test_bad_dictionaries(tiny: Callable[..., LM], toy_task: Task):
    prompt = Prompt.from_text(tiny(), "it was great")
    with pytest.raises(SoftlensError, match="The dictionary is empty"):
        sl.read(tiny(), prompt, "mixture", toy_task, dictionary=[])
    with pytest.raises(SoftlensError, match="Got most=0 experts"):
        sl.read(tiny(), prompt, "mixture", toy_task, most=0)
    with pytest.raises(SoftlensError, match="there is room for 16 beside the texts"):
        sl.read(tiny(), prompt, "mixture", toy_task, dictionary=["it was great " * 10])
