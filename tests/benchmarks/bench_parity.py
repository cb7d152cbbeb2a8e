"""Worst relative error of loss and gradient of both fast layouts against the plain forward.

``make bench`` prints it for SmolLM2-135M and for tiny models of four families. The plain forward
is one unpadded row at a time through the model's own call and its own attention.
"""

import argparse
from collections.abc import Iterator

import torch

from softlens import load_lm
from softlens.lm import LM, answer_logits

TEXTS = ["The film was good.", "A bad story and a dull plot, all things considered.", "Bright!"]
LAYOUTS = {"text first": "{text} {prompt}", "prompt first": "{prompt} {text} It was"}


def losses(lm: LM, prompts: torch.Tensor, template: str, words: list[int]) -> torch.Tensor:
    """Mean cross-entropy over the label words, by the fast layout."""
    logits = answer_logits(lm, prompts, lm.encode_texts(template, TEXTS), torch.tensor(words))
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor([0, 1, 0]))


def losses_by_hand(lm: LM, prompts: torch.Tensor, template: str, words: list[int]) -> torch.Tensor:
    """The same, row by row."""
    before, after = (part.strip() for part in template.split("{prompt}"))
    embed, rows = lm.model.get_input_embeddings(), []
    for text in TEXTS:
        head = [lm.bos_id, *(lm.encode(before.format(text=text)) if before else [])]
        tail = lm.encode(after.format(text=text), leading_space=True) if after else []
        parts = [embed(torch.tensor(head)), prompts[0], embed(torch.tensor(tail).long())]
        rows.append(lm.model(inputs_embeds=torch.cat(parts)[None]).logits[0, -1, words])
    return torch.nn.functional.cross_entropy(torch.stack(rows), torch.tensor([0, 1, 0]))


def tiny_lms() -> Iterator[LM]:
    """Random models of four families, as the tests build them."""
    from tests.conftest import CONFIGS, tiny_model, train_tokenizer

    tokenizer = train_tokenizer()
    for family in CONFIGS:
        yield LM(tiny_model(family), tokenizer, name=f"tiny {family}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lms", nargs="*", default=["smollm2-135m"])
    chosen = parser.parse_args()
    for lm in (*tiny_lms(), *(load_lm(name) for name in chosen.lms)):
        own = "eager" if lm.name.startswith("tiny") else "sdpa"
        fast_attention = lm.model.config._attn_implementation
        for layout, template in LAYOUTS.items():
            prompts = lm.embed(range(40, 45))[None].clone().requires_grad_()
            words = [50, 60]
            fast = losses(lm, prompts, template, words)
            (slope,) = torch.autograd.grad(fast, prompts)
            lm.model.set_attn_implementation(own)
            plain = losses_by_hand(lm, prompts, template, words)
            (reference,) = torch.autograd.grad(plain, prompts)
            lm.model.set_attn_implementation(fast_attention)
            loss_error = float(((fast - plain).abs() / plain).detach())
            slope_error = float((slope - reference).norm() / reference.norm())
            print(f"{lm.name:14s} {layout:13s} loss {loss_error:.1e}  gradient {slope_error:.1e}")


if __name__ == "__main__":
    main()
