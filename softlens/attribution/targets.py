"""What a coalition is worth on a text: the targets that attributions share out.

To add one, write its value from logits and name it in `TARGETS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from softlens.errors import SoftlensError, near
from softlens.tasks import Task

Value = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From logits (..., texts, answers), labels (texts) and the whole prompt's log-probabilities."""


@dataclass(frozen=True)
class Target:
    """What a coalition is worth on a text."""

    name: str
    says: str
    unit: str
    value: Value = field(repr=False)
    vocabulary: bool = False
    """Whether the logits of all tokens are needed, not only those of the label words."""
    gradient: bool = True


def _of_label(scores: Tensor, labels: Tensor) -> Tensor:
    return scores.gather(-1, labels.expand(scores.shape[:-1])[..., None]).squeeze(-1)


def _contrast(logits: Tensor, labels: Tensor, _: Tensor | None) -> Tensor:
    right = _of_label(logits, labels)
    return 2 * right - logits.sum(dim=-1)


def _kl(logits: Tensor, labels: Tensor, whole: Tensor | None) -> Tensor:
    assert whole is not None
    return -(whole.exp() * (whole - logits.log_softmax(dim=-1))).sum(dim=-1)


TARGETS = {
    target.name: target
    for target in (
        Target(
            "log_prob",
            "log-probability of the right label word among the label words",
            "nats",
            lambda logits, labels, _: _of_label(logits.log_softmax(dim=-1), labels),
        ),
        Target(
            "log_prob_vocab",
            "log-probability of the right label word among all tokens",
            "nats",
            lambda logits, labels, _: _of_label(logits.log_softmax(dim=-1), labels),
            vocabulary=True,
        ),
        Target(
            "contrast",
            "logit of the right label word minus that of the other (Yin & Neubig 2022)",
            "nats",
            _contrast,
        ),
        Target(
            "accuracy",
            "accuracy among the label words",
            "accuracy",
            lambda logits, labels, _: (logits.argmax(dim=-1) == labels).to(logits.dtype),
            gradient=False,
        ),
        Target(
            "kl",
            "minus the KL divergence of the next token from what it is with the whole prompt",
            "nats",
            _kl,
            vocabulary=True,
        ),
    )
}


def chosen(task: Task, target: str | tuple[str, str]) -> tuple[Target, list[int]]:
    """The target that is asked for, and the classes it is between.

    Raises:
        SoftlensError: an unknown target; a contrast that does not say between which labels.
    """
    if target == "contrast" or isinstance(target, tuple):
        return TARGETS["contrast"], _pair(task, target)
    if target not in TARGETS:
        raise SoftlensError(
            f"Got target {target!r}, wanted one of {[*TARGETS]} or two label words."
            f"{near(target, TARGETS)}"
        )
    return TARGETS[target], list(range(len(task.label_words)))


def _pair(task: Task, target: str | tuple[str, str]) -> list[int]:
    if target == "contrast":
        if len(task.label_words) != 2:
            raise SoftlensError(
                f"A contrast is between two labels, and {task.name!r} has "
                f"{len(task.label_words)}: name two, as target={task.label_words[:2]}."
            )
        return [0, 1]
    unknown = [word for word in target if word not in task.label_words]
    if unknown or len(set(target)) != 2:
        raise SoftlensError(
            f"Got target={tuple(target)}, wanted two different label words of {task.name!r}: "
            f"{task.label_words}."
        )
    return [task.label_words.index(word) for word in target]
