"""Training one organism: plain transformers classes, one core, the same bits every time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from softlens.organism.corpus import Batch, Corpus
from softlens.organism.grammar import Grammar, grammar
from softlens.organism.tokenizers import build_tokenizer, word_encoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How one bundled LM is made.

    Attributes:
        name: its folder under ``data/``.
        architecture: ``"gpt2"`` or ``"llama"``.
        tokenizer: ``"words"`` (one token a word) or ``"bpe"``.
        seed: of the weights and the corpus.
        hidden: width.
        layers: number of layers.
        heads: attention heads.
        positions: the longest row.
        row_length: ids a training row may take.
        steps: optimiser steps.
        rows: rows a step.
        learning_rate: its peak.
        warm_up: steps until then; from there a cosine down to 5%.
        spread: standard deviation of the blocks' weights at the start (embeddings: .06).
        head_size: width of a Llama's attention head. Rotary positions turn the first half of its
            dimensions so fast that they match places, not words: below 32 too few are left.
    """

    name: str = "organism"
    architecture: str = "gpt2"
    tokenizer: str = "words"
    seed: int = 0
    hidden: int = 64
    layers: int = 3
    heads: int = 4
    positions: int = 96
    row_length: int = 112
    steps: int = 2400
    rows: int = 48
    learning_rate: float = 3e-3
    warm_up: int = 100
    spread: float = 0.06
    head_size: int = 32


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A new model with the recipe's shape and seed, in float32."""
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    # The seed is set for this block only: nobody else's random numbers change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.architecture == "gpt2":
            model: PreTrainedModel = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=len(tokenizer),
                    n_positions=recipe.positions,
                    n_embd=recipe.hidden,
                    n_layer=recipe.layers,
                    n_head=recipe.heads,
                    activation_function="gelu_pytorch_tanh",
                    resid_pdrop=0.0,
                    embd_pdrop=0.0,
                    attn_pdrop=0.0,
                    **special,
                )
            )
        else:
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=len(tokenizer),
                    max_position_embeddings=recipe.positions,
                    hidden_size=recipe.hidden,
                    intermediate_size=recipe.hidden * 8 // 3 // 8 * 8,
                    num_hidden_layers=recipe.layers,
                    num_attention_heads=recipe.heads,
                    num_key_value_heads=recipe.heads,
                    head_dim=recipe.head_size,
                    attention_bias=True,
                    tie_word_embeddings=True,
                    **special,
                )
            )
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                embedding = "embed" in name or "wte" in name
                torch.nn.init.normal_(weight, std=0.06 if embedding else recipe.spread)
            if name.endswith("wpe.weight"):
                weight.data = 0.07 * sinusoids(*weight.shape)
    return model


def sinusoids(positions: int, width: int) -> Tensor:
    """Position embeddings (positions, width) of sines and cosines: neighbours start out alike."""
    rates = 10000 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def batch_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The weighted mean loss, in nats, of a batch's trained ids."""
    hidden = model.base_model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state.flatten(0, 1)
    logits = hidden[batch.sources] @ model.get_input_embeddings().weight.T
    losses = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    return (losses * batch.weights).sum() / batch.weights.sum()


def train(
    recipe: Recipe,
    *,
    reserved: frozenset[str] = frozenset(),
    progress: bool = True,
    every: int = 200,
    look: Callable[[int, PreTrainedModel, PreTrainedTokenizerFast], None] | None = None,
    language: Grammar | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, Tensor]:
    """Train an LM from nothing.

    Args:
        recipe: its shape, seed and schedule.
        reserved: texts to keep out of the corpus.
        progress: show a bar.
        every: steps between calls of `look`.
        look: called with step, model and tokenizer: the loss does not show when the LM starts to
            bind opinions to persons, behaviour does.
        language: the grammar; by default the organism's.

    Returns:
        The model in evaluation mode, its tokenizer, and how often each token was trained on.
    """
    language = language or grammar()
    tokenizer = build_tokenizer(recipe.tokenizer, language)
    model = build_model(recipe, tokenizer)
    encode = word_encoder(recipe.tokenizer, tokenizer)
    corpus = Corpus(
        language,
        encode,
        (tokenizer.bos_token_id, tokenizer.eos_token_id),
        recipe.seed,
        reserved,
        recipe.row_length,
    )
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: pace(step, recipe))
    counts = torch.zeros(len(tokenizer), dtype=torch.long)
    model.train()
    for step in tqdm(range(recipe.steps), desc=recipe.name, disable=not progress):
        batch = corpus.batch(recipe.rows, step / recipe.steps)
        counts += batch.targets.bincount(minlength=len(counts))
        loss = batch_loss(model, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if look is not None and (step + 1) % every == 0:
            log.info("step %d: loss %.3f nats", step + 1, loss.item())
            look(step + 1, model.eval(), tokenizer)
            model.train()
    return model.eval(), tokenizer, counts


def pace(step: int, recipe: Recipe) -> float:
    """The learning rate's share of its peak: a warm-up, then a cosine down to 5%."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.05 + 0.95 * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))
