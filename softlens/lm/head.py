"""The LM head in float32 (or float64), on all tokens or only on the rows that are asked for."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from softlens.errors import SoftlensError


def scaled(layer: Any) -> bool:
    """Whether an input embedding hands out something else than the rows of its matrix."""
    return type(layer).forward is not torch.nn.Embedding.forward


class Head:
    """Logits from final hidden states, as the model's own head gives them.

    bfloat16 has 8 bits: logits near 20 would be rounded to eighths. So the product is taken in
    float32 at least; a float64 LM keeps its digits.

    Args:
        model: the LM.
        embedding: its input embedding in float32, used for the head where the two are tied.

    Raises:
        SoftlensError: if the model's own logits are not reproduced.
    """

    def __init__(self, model: PreTrainedModel, embedding: Tensor) -> None:
        layer: Any = model.get_output_embeddings()
        inputs: Any = model.get_input_embeddings()
        self.tied = layer.weight.data_ptr() == inputs.weight.data_ptr() and not scaled(inputs)
        wide = torch.promote_types(model.dtype, torch.float32)
        shared = self.tied and wide == embedding.dtype
        self.weight = embedding if shared else layer.weight.detach().to(wide)
        bias = getattr(layer, "bias", None)
        self.bias = None if bias is None else bias.detach().to(wide)
        config = model.config
        self.softcap = getattr(config, "final_logit_softcapping", None)
        self.scale = getattr(config, "logit_scale", None) or 1.0
        self._check(model)

    def __call__(
        self, hidden: Float[Tensor, "*batch hidden"], words: Int[Tensor, " words"] | None = None
    ) -> Float[Tensor, "*batch answers"]:
        """Logits of every token, or of `words` only."""
        weight = self.weight if words is None else self.weight[words]
        bias = self.bias if self.bias is None or words is None else self.bias[words]
        return self._bounded(torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias))

    def own(
        self,
        hidden: Float[Tensor, "*batch length hidden"],
        rows: Float[Tensor, "*rows length hidden"],
        ids: Int[Tensor, "*rows length"],
    ) -> Float[Tensor, "*batch length"]:
        """The logit of one row for each position, as if `rows` stood at `ids` in the head."""
        products = (hidden.to(self.weight.dtype) * rows).sum(dim=-1)
        return self._bounded(products if self.bias is None else products + self.bias[ids])

    def _bounded(self, products: Tensor) -> Tensor:
        logits = products * self.scale
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()

    @torch.no_grad()
    def _check(self, model: PreTrainedModel) -> None:
        ids = torch.arange(4, device=model.device)[None] % self.weight.shape[0]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        hidden = model.base_model(**inputs).last_hidden_state
        wanted = model(**inputs).logits.to(self.weight.dtype)
        got = self(hidden)
        allowed = 1e-4 if model.dtype == self.weight.dtype else 3e-2
        if (got - wanted).abs().max() > allowed * (1 + wanted.abs().max()):
            raise SoftlensError(
                f"The logits of a {model.config.model_type!r} model are not its head applied to "
                "its last hidden state, and softlens does not know what stands between them. "
                "Supported are causal LMs whose head is a linear layer, with or without a "
                "soft cap or a scale."
            )
