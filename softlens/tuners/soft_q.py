"""The formulas of reinforcement learning that `softlens.tuners.rlprompt` is made of."""

import torch
from jaxtyping import Float
from torch import Tensor


def z_scores(points: Float[Tensor, " prompts"]) -> Float[Tensor, " prompts"]:
    """Rewards of a step's prompts, less their mean, over their spread; 0 if they are all equal."""
    return (points - points.mean()) / (points.std(correction=0) + 1e-4)


def soft_q_loss(
    advantage: Float[Tensor, "prompts length"],
    target_v: Float[Tensor, "prompts length"],
    final: Float[Tensor, " prompts"],
) -> Float[Tensor, ""]:
    """The mean of single-step and multi-step path consistency, summed over a prompt's tokens.

    Guo et al. (2021), arXiv 2106.07704, section 3.2; "v2" and "v3" in RLPrompt's code. Where its
    default says "v2_v2r_v3_v3r", the reversed halves are left out for want of a coefficient, so
    that this is all of it.

    Args:
        advantage: Q of each token less V of the state it was chosen in; gradients go through it.
        target_v: V of these states under the target network.
        final: the reward of each prompt, which comes after its last token.
    """
    onwards = torch.cat([target_v[:, 1:], final[:, None]], dim=1)
    single = (advantage - (onwards - target_v)) ** 2
    to_the_end = advantage.flip(1).cumsum(dim=1).flip(1)
    multi = (to_the_end - (final[:, None] - target_v)) ** 2
    return ((single + multi) / 2).sum(dim=1).mean()


def reinforce_loss(
    log_probs: Float[Tensor, "prompts length"], final: Float[Tensor, " prompts"]
) -> Float[Tensor, ""]:
    """REINFORCE (Williams 1992), the mean reward of a step's prompts as the baseline."""
    return -(final[:, None] * log_probs).sum(dim=1).mean()


def sparsemax(z: Float[Tensor, "rows values"]) -> Float[Tensor, "rows values"]:
    """The probabilities nearest to `z`, many of them exactly 0.

    Martins and Astudillo (2016), arXiv 1602.02068, algorithm 1: the policy that is best under
    Tsallis entropy (Lee et al. 2018, arXiv 1709.06293).
    """
    return (z - _threshold(z)).clamp(min=0)


def sparse_maximum(z: Float[Tensor, "rows values"]) -> Float[Tensor, " rows"]:
    """What the sparsemax policy is worth with its Tsallis entropy (Lee et al. 2018, section 3)."""
    threshold = _threshold(z)
    kept = torch.maximum(z, threshold)
    return 0.5 * (1 + (kept**2 - threshold**2).sum(dim=-1))


def _threshold(z: Float[Tensor, "rows values"]) -> Float[Tensor, "rows 1"]:
    ordered = z.sort(dim=-1, descending=True).values
    rank = torch.arange(1, z.shape[-1] + 1, device=z.device)
    inside = 1 + rank * ordered > ordered.cumsum(dim=-1)
    total = torch.where(inside, ordered, 0.0).sum(dim=-1, keepdim=True)
    return (total - 1) / inside.sum(dim=-1, keepdim=True)
