"""The logit lens against the model's own layers."""

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, OPTConfig

from softlens import Prompt, SoftlensError, logit_lens
from softlens.lm import LM, answer_logits
from softlens.tasks import Task

NORMS = {"gpt2": "ln_f", "llama": "norm", "qwen2": "norm", "gpt_neox": "final_layer_norm"}


def test_every_layer_through_the_last_norm_and_the_head(any_lm: LM):
    prompt = Prompt.soft(any_lm, torch.randn(3, any_lm.hidden_size))
    got = logit_lens(any_lm, prompt, k=2)
    row = torch.cat([any_lm.embed([any_lm.bos_id]), prompt.vectors])[None]
    model = any_lm.model
    norm = getattr(model.base_model, NORMS[model.config.model_type])
    with torch.no_grad():
        output = model(inputs_embeds=row, output_hidden_states=True)
        states = [norm(state) for state in output.hidden_states[:-1]]
        layers = [model.get_output_embeddings()(state) for state in states] + [output.logits]
    table = torch.stack(layers)[:, 0, 1:].double().softmax(dim=-1)
    assert got.layers == len(layers) - 1
    best = table.topk(2, dim=-1)
    rows = got.frame.sort_values(["layer", "position", "rank"])
    assert rows["token_id"].tolist() == best.indices.flatten().tolist()
    np.testing.assert_allclose(rows["probability"], best.values.flatten(), rtol=1e-3)
    entropy = -(table * table.log()).sum(dim=-1).flatten()
    firsts = rows[rows["rank"] == 1]["entropy_nats"]
    np.testing.assert_allclose(firsts, entropy, rtol=1e-3, atol=1e-5)


def test_the_last_layer_at_the_last_position_is_the_answer(any_lm: LM, toy_task: Task):
    got = logit_lens(any_lm, "overall it was", toy_task, k=1)
    texts = any_lm.encode_texts(toy_task.template, toy_task.test.texts[:1])
    ids = any_lm.encode("overall it was", leading_space=True)
    answer = answer_logits(any_lm, [ids], texts)[0, 0].softmax(dim=-1)
    last = got.frame.iloc[-1]
    assert (last["layer"], last["position"]) == (got.layers, len(ids) - 1)
    assert last["token_id"] == int(answer.argmax())
    assert last["probability"] == pytest.approx(float(answer.max()), rel=1e-3)
    assert (got.context, got.text) == ("text", toy_task.test.texts[0])


@pytest.mark.parametrize("norm", [True, False])
def test_layers_that_are_projected_before_the_head(bpe_tokenizer: Any, norm: bool):
    """As OPT-350m: wider than its embedding, and with its norms inside of the layers."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=320, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
        word_embed_proj_dim=16, do_layer_norm_before=norm, bos_token_id=0, eos_token_id=0,
        pad_token_id=0,
    )  # fmt: skip
    lm = LM(AutoModelForCausalLM.from_config(config), bpe_tokenizer, name="projected")
    prompt = Prompt.soft(lm, torch.randn(2, 16))
    got = logit_lens(lm, prompt, k=1)
    decoder, row = lm.model.model.decoder, torch.cat([lm.embed([0]), prompt.vectors])[None]
    with torch.no_grad():
        states = lm.model(inputs_embeds=row, output_hidden_states=True).hidden_states[:-1]
        normed = [decoder.final_layer_norm(h) for h in states] if norm else states
        logits = torch.stack([lm.model.lm_head(decoder.project_out(h)) for h in normed])
        last = lm.model(inputs_embeds=row).logits
    wanted = torch.cat([logits, last[None]])[:, 0, 1:].softmax(dim=-1).amax(dim=-1)
    assert got.layers == 2
    np.testing.assert_allclose(got.frame["probability"], wanted.flatten(), rtol=1e-4)


def test_it_shows_itself(tiny: Callable[..., LM], toy_task: Task):
    lm = tiny()
    got = logit_lens(lm, "a <b>", toy_task, text="it was $x$ dull")
    assert "<b>" not in got._repr_html_()
    assert "aria-label" in got._repr_html_()
    assert len(repr(got).splitlines()) == 2 + got.layers + 1
    assert "it was $x$ dull" in got.headline
    assert got.table["layer"].tolist() == ["3", "2", "1", "embedding"]
    axes = got.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "2", "1", "embedding"]
    assert axes.get_yticklabels()[-1].get_text() == "embedding"
    axes.figure.canvas.draw()
    plt.close(axes.figure)
    assert "after BOS" in logit_lens(lm, "a film").headline


def test_bad_input(tiny: Callable[..., LM], toy_task: Task, monkeypatch: pytest.MonkeyPatch):
    lm = tiny()
    with pytest.raises(SoftlensError, match="Got k=321, wanted a whole number from 1 to 320"):
        logit_lens(lm, "film", k=321)
    with pytest.raises(SoftlensError, match="pass task="):
        logit_lens(lm, "film", text="a film")
    with pytest.raises(SoftlensError, match="has no tokens"):
        logit_lens(lm, "")
    with pytest.raises(SoftlensError, match="empty prompt has no position"):
        logit_lens(lm, Prompt.soft(lm, torch.empty(0, 32)))
    with pytest.raises(SoftlensError, match="made for 'tiny-gpt2-1'"):
        logit_lens(lm, Prompt.from_text(tiny("gpt2", seed=1), "film"), toy_task)
    monkeypatch.setattr("softlens.lm.transformer.torch.equal", lambda *_: False)
    with pytest.raises(SoftlensError, match="cannot find what stands between the last layer"):
        logit_lens(lm, "film")
