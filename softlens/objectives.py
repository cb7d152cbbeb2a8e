"""What a prompt is worth: the task losses, RLPrompt's reward, and the objective that adds proxies.

One home for each formula. `softlens.proxies` holds the proxies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from softlens.lm import LM, EncodedTexts, answer_logits
from softlens.proposals import Proposals, Setting
from softlens.proxies import PROXIES

TaskLoss = Literal["labels", "vocabulary"]
"""Cross-entropy over the label words, or over the whole vocabulary.

The latter optimises label mass rather than accuracy: of its 12 to 17 nats on a real LM, only
log(classes) tell the classes apart.
"""
RIGHT, WRONG = 200.0, 180.0
"""RLPrompt's factors of a right and of a wrong answer's gap."""


def task_loss(
    lm: LM,
    prompts: Float[Tensor, "prompts length hidden"] | Sequence[Sequence[int]],
    texts: EncodedTexts,
    labels: Int[Tensor, " texts"],
    words: Int[Tensor, " classes"],
    over: TaskLoss = "labels",
    calibrated: bool = False,
) -> Float[Tensor, " prompts"]:
    """Mean cross-entropy of the right label word, nats; gradients reach soft prompts."""
    chosen = words if over == "labels" else None
    logits = answer_logits(lm, prompts, texts, chosen)
    target = labels if over == "labels" else words[labels]
    return cross_entropy(logits, target, calibrated).mean(dim=1)


def cross_entropy(
    logits: Float[Tensor, "prompts texts answers"],
    target: Int[Tensor, " texts"],
    calibrated: bool = False,
) -> Float[Tensor, "prompts texts"]:
    """Nats of the right answer on each text.

    `calibrated` first subtracts each answer's mean log-probability on these texts, as evaluations
    do with that on the training texts (compare Zhao et al. 2021, arXiv 2102.09690).
    """
    if calibrated:
        logits = logits - logits.log_softmax(dim=-1).mean(dim=1, keepdim=True)
    return logits.logsumexp(dim=-1) - logits[:, torch.arange(len(target)), target]


def reward(
    logits: Float[Tensor, "prompts texts classes"], labels: Int[Tensor, " texts"]
) -> Float[Tensor, " prompts"]:
    """RLPrompt's piecewise reward, about -180 to 200 (arXiv 2205.12548, section 3.3, and its code).

    The gap between the right label word's probability, among the label words, and the best other
    one's, times 200 where the answer is right and 180 where it is wrong; the mean over texts.
    """
    shares = logits.softmax(dim=-1)
    right = shares[:, torch.arange(len(labels)), labels]
    others = shares.clone()
    others[:, torch.arange(len(labels)), labels] = -1.0
    gap = right - others.amax(dim=-1)
    return torch.where(gap > 0, gap * RIGHT, gap * WRONG).mean(dim=-1)


@dataclass
class Objective:
    """Task loss plus weighted proxies, for many prompts at once; lower is better.

    It counts what it asks of the LM: `evaluations` is the number of prompt x text forward passes,
    a backward pass counted as two, surprisals as one for each text that they are taken after.

    Attributes:
        setting: LM, label words, real texts, judge and description.
        weights: of the proxies; those of weight 0 are computed for the history all the same.
        over: words of the cross-entropy.
        calibrated: whether the loss is.
        mass: weight of -log label mass in the task loss.
    """

    setting: Setting
    weights: dict[str, float]
    over: TaskLoss = "labels"
    calibrated: bool = False
    mass: float = 0.0
    evaluations: int = 0

    @property
    def of_prompts(self) -> "Objective":
        """The same without proxies of a policy, which a prompt by itself does not have."""
        own = {n: w for n, w in self.weights.items() if "policy" not in PROXIES[n].needs}
        return replace(self, weights=own, evaluations=0)

    @property
    def weighs(self) -> bool:
        """Whether any proxy has a say."""
        return any(self.weights.values())

    def terms(self, proposals: Proposals, labels: Int[Tensor, " texts"]) -> dict[str, Tensor]:
        """``task_loss`` and each proxy's score, shape (prompts,) each."""
        loss = self.loss(self.word_scores(proposals), labels)
        return {"task_loss": loss, **self.scores(proposals)}

    def scores(self, proposals: Proposals) -> dict[str, Tensor]:
        """Each proxy's score, as its unit says, shape (prompts,) each."""
        self.evaluations += len(proposals.ids) * self.contexts
        if "label_mass" in self.weights:
            self._count_texts(proposals)
        return {name: PROXIES[name].score(proposals) for name in self.weights}

    def total(self, terms: dict[str, Tensor]) -> Float[Tensor, " prompts"]:
        """The objective from its terms."""
        return terms["task_loss"] + self.penalty(terms)

    def penalty(self, terms: dict[str, Tensor]) -> Float[Tensor, " prompts"] | float:
        """What the proxies add; 0 without any."""
        parts = [self._signed(name) * terms[name] for name in self.weights]
        return torch.stack(parts).sum(dim=0) if parts else 0.0

    def gradients(
        self, proposals: Proposals, labels: Int[Tensor, " texts"], leaves: Sequence[Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """One prompt's terms, and each weighted term's gradient, summed over `leaves`.

        The leaves are what `proposals.vectors`, and `proposals.free` where a tuner has it, were
        made from. Proxies without a gradient have a term only. Terms have graphs of their own, so
        that taking them apart costs nothing; "label_mass" alone shares that of the task loss, which
        is then passed twice.

        Raises:
            SoftlensError: the LM gives no gradients.
        """
        self.setting.lm.need_gradients("this tuner")
        terms = self.terms(proposals, labels)
        passes = 2 if "label_mass" in self.weights else 1
        self.evaluations += 2 * (passes * len(proposals.texts or ()) + self.contexts)
        found = {}
        for name, value in terms.items():
            if name != "task_loss" and not PROXIES[name].gradient:
                continue
            found[name] = torch.zeros_like(leaves[0])
            if value.requires_grad:  # what no leaf reaches, as nats of a single token, has none
                parts = torch.autograd.grad(
                    value.sum(),
                    leaves,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                found[name] = self._signed(name) * torch.stack(parts).sum(dim=0)
        return {name: float(value.detach()) for name, value in terms.items()}, found

    def row(self, terms: dict[str, float], gradients: dict[str, Tensor]) -> dict[str, float]:
        """The history's columns of one step: the objective, its terms, and their gradients."""
        total = sum(self._signed(name) * value for name, value in terms.items())
        norms = {
            f"grad_norm_{'task' if name == 'task_loss' else name}": float(gradient.norm())
            for name, gradient in gradients.items()
        }
        return {"objective": total, **terms, **norms}

    def _signed(self, name: str) -> float:
        if name == "task_loss":
            return 1.0
        return self.weights[name] * (1 if PROXIES[name].better == "lower" else -1)

    def loss(
        self, scores: Float[Tensor, "prompts texts classes"], labels: Int[Tensor, " texts"]
    ) -> Float[Tensor, " prompts"]:
        """The task loss from the label words' scores: log-probabilities if `needs_mass`."""
        right = torch.arange(len(labels))
        if self.over == "vocabulary":
            loss = -scores[:, right, labels].mean(dim=1)
        else:
            loss = cross_entropy(scores, labels, self.calibrated).mean(dim=1)
        return loss - self.mass * scores.logsumexp(dim=-1).mean(dim=1) if self.mass else loss

    @property
    def needs_mass(self) -> bool:
        """Whether the loss takes the label words' probabilities among all tokens."""
        return self.over == "vocabulary" or self.mass > 0 or "label_mass" in self.weights

    def word_scores(self, proposals: Proposals) -> Float[Tensor, "prompts texts classes"]:
        """What `loss` takes, counted as evaluations."""
        self._count_texts(proposals)
        return proposals.word_log_probs if self.needs_mass else proposals.word_logits

    def _count_texts(self, proposals: Proposals) -> None:
        """Count the prompts on the texts, unless they have been asked about them already."""
        asked = "word_log_probs" if self.needs_mass else "word_logits"
        if asked not in vars(proposals):
            self.evaluations += len(proposals.ids) * len(proposals.texts or ())

    @property
    def contexts(self) -> int:
        """Texts that the proxies' surprisals are taken after: most share those after BOS."""
        own = {"relevance": len(self.setting.before or ()), "perplexity_target": 1}
        own |= {"judge_perplexity": 1}
        apart = {"perplexity_target", "judge_perplexity", "repetition", "embedding_distance"}
        apart |= {"label_mass", "description"}
        shared = any(name not in apart for name in self.weights)
        return int(shared) + sum(own.get(name, 0) for name in self.weights)
