"""The self-check at load: do the fast layouts agree with the plain forward on this LM?"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from softlens.errors import SoftlensError
from softlens.lm import transformer

log = logging.getLogger(__name__)

# Largest relative errors that pass: of a layout against the plain forward with the same attention,
# and of one attention against another. With 8 bits, two correct attentions differ by .3 in the
# gradient after 30 layers (so do transformers' own); a wrong mask or position differs by .9 or
# more.
TOLERANCE = {
    torch.float64: (1e-8, 1e-8),
    torch.float32: (1e-4, 1e-4),
    torch.bfloat16: (0.1, 0.5),
}


def differentiable(model: PreTrainedModel, bos_id: int) -> bool:
    """Whether a gradient passes every layer of the plain forward.

    A quantised layer without a backward pass raises no error: the residual stream goes around it,
    and the gradient that arrives is another one. So each layer is asked by itself.
    """
    stopped: list[torch.nn.Module] = []

    def ask(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        came = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        if not came or not isinstance(output, Tensor):
            return
        through = output.requires_grad and torch.autograd.grad(
            output.sum(), came, retain_graph=True, allow_unused=True
        )
        if not through or any(gradient is None for gradient in through):
            stopped.append(module)

    every = list(model.base_model.modules())
    small = [m for m in every if not any(any(child.children()) for child in m.children())]
    hooks = [module.register_forward_hook(ask) for module in small]
    rows, prompts, sizes = _inputs(model, bos_id)
    try:
        with warnings.catch_warnings():
            # torch warns where a kernel has no backward pass, which is what is found out here.
            warnings.simplefilter("ignore")
            transformer.plain(model, rows, prompts, sizes, [[], []])
    except RuntimeError:
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return not stopped


def choose_path(
    model: PreTrainedModel, bos_id: int, name: str, gradients: bool = True
) -> tuple[str, float]:
    """Try the fast layouts with grouped, then with the model's own attention; else stay plain.

    Returns:
        ``("fast", worst relative error of the layouts)`` or ``("plain", nan)``. The attention
        that was chosen is left in place on the model; a log line says so when the path is plain.

    Raises:
        SoftlensError: a model in a type that is not in `TOLERANCE`, such as float16.
    """
    if model.dtype not in TOLERANCE:
        known = ", ".join(str(dtype) for dtype in TOLERANCE)
        raise SoftlensError(
            f"{name!r} computes in {model.dtype}, wanted one of {known}. Turn it into one: "
            "model.float(), or model.to(torch.bfloat16)."
        )
    own = model.config._attn_implementation
    if transformer.masks_itself(model):
        log.info(
            "%s (%s) takes the plain path: its attention masks by places in the row, where the "
            "fast layouts put many prompts side by side.",
            name,
            model.config.model_type,
        )
        return "plain", float("nan")
    reference = _reference(model, bos_id, gradients)
    failures = []
    # The fused kernels of an accelerator beat our grouped matmuls; on a CPU it is the reverse.
    attentions = [transformer.GROUPED, own] if model.device.type == "cpu" else [own]
    for attention in attentions:
        try:
            if attention == transformer.GROUPED:
                transformer.use_grouped_attention(model)
            else:
                model.set_attn_implementation(attention)
            plain = _reference(model, bos_id, gradients)
            fast = _fast(model, bos_id, gradients)
            layout, exchange = _relative_error(fast, plain), _relative_error(plain, reference)
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as reason:
            failures.append(f"{attention}: {type(reason).__name__}: {str(reason)[:120]}")
            continue
        if layout <= TOLERANCE[model.dtype][0] and exchange <= TOLERANCE[model.dtype][1]:
            return "fast", layout
        failures.append(f"{attention}: relative errors {layout:.1e} and {exchange:.1e}")
    model.set_attn_implementation(own)
    log.info(
        "%s (%s) takes the plain path: the fast layouts do not agree with it (%s).",
        name,
        model.config.model_type,
        "; ".join(failures),
    )
    return "plain", float("nan")


def fast_length(model: PreTrainedModel) -> int:
    """Positions up to which a full mask equals the model's own: its smallest attention window."""
    config = model.config
    windows = [getattr(config, key, None) for key in ("sliding_window", "window_size")]
    return min([w for w in windows if isinstance(w, int)], default=1 << 30)


# Texts of unlike length and prompts of unlike length, so that every mask and offset is exercised.
_TEXTS = [[3, 5, 7, 2], [4, 6]]
_AFTERS = [[5, 3], [2, 7, 4]]
_SIZES = [3, 2]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _inputs(model: PreTrainedModel, bos_id: int) -> tuple[list[list[int]], Tensor, Tensor]:
    embed: Any = model.get_input_embeddings()
    weight = embed.weight.detach()
    rows = [[bos_id, *[t % len(weight) for t in text]] for text in _TEXTS]
    generator = torch.Generator().manual_seed(0)
    picked = torch.randint(len(weight), (2, 3), generator=generator).to(weight.device)
    prompts = weight[picked].to(_wide(model.dtype)).requires_grad_()
    return rows, prompts, torch.tensor(_SIZES, device=weight.device)


def _outcome(first: Tensor, second: Tensor, prompts: Tensor, gradients: bool) -> list[Tensor]:
    """Hidden states of both layouts and, if asked, the gradients of a fixed function of them."""
    results = []
    for states in (first, second):
        wide = states.to(_wide(states.dtype))
        results.append(wide.detach())
        if not gradients:
            continue
        weights = torch.linspace(-1, 1, states.numel(), device=states.device).view(states.shape)
        (gradient,) = torch.autograd.grad((wide * weights).sum(), prompts)
        results.append(gradient)
    return results


def _reference(model: PreTrainedModel, bos_id: int, gradients: bool) -> list[Tensor]:
    rows, prompts, sizes = _inputs(model, bos_id)
    _, first = transformer.plain(model, rows, prompts, sizes, [[], []])
    _, second = transformer.plain(model, [[bos_id], [bos_id]], prompts, sizes, _AFTERS)
    return _outcome(first, second, prompts, gradients)


def _fast(model: PreTrainedModel, bos_id: int, gradients: bool) -> list[Tensor]:
    rows, prompts, sizes = _inputs(model, bos_id)
    states = transformer.after_texts(model, transformer.prefill(model, rows), prompts)
    first = states[:, torch.arange(2), sizes - 1]
    second = transformer.packed(model, [bos_id], prompts, sizes, _AFTERS)
    return _outcome(first, second, prompts, gradients)


def _relative_error(got: list[Tensor], wanted: list[Tensor]) -> float:
    norm: Callable[[Tensor], Tensor] = torch.linalg.vector_norm
    errors = [norm(g - w) / norm(w).clamp(min=1e-12) for g, w in zip(got, wanted, strict=True)]
    return float(torch.stack(errors).max())
