"""Prompts trained with PEFT, and prompts for PEFT: the same logits on both sides."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import softlens as sl
from softlens import DamagedFileError, Prompt, SoftlensError, Task
from softlens.lm import LM, answer_logits
from tests.conftest import CONFIGS, tiny_model
from tests.families import save_family

peft = pytest.importorskip("peft", reason="needs the extra `peft`: pip install 'softlens[peft]'")

# PEFT asks transformers by a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is:FutureWarning")

TEXTS = ["the film was good and bright", "a dull plot", "it was terrible"]


@pytest.fixture(params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest, tmp_path: Path, bpe_tokenizer: Any) -> Path:
    """A tiny LM in the hub's format, with a tied or an untied head."""
    folder = tmp_path / f"tiny-{request.param}"
    tiny_model(request.param).save_pretrained(folder)
    bpe_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def gpt2(hub_folder: Path) -> LM:
    return sl.load_lm(hub_folder, bos=False)


def config_of(kind: str, **more: Any) -> Any:
    if kind == "PROMPT_TUNING":
        return peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, **more)
    if kind == "P_TUNING":
        return peft.PromptEncoderConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=16, **more
        )
    return peft.CPTConfig(
        task_type="CAUSAL_LM", cpt_token_ids=[5, 9, 7, 6], cpt_tokens_type_mask=[1, 2, 2, 3], **more
    )


def trained(folder: Path, kind: str, **more: Any) -> Any:
    """A PEFT model a few real steps away from its start."""
    torch.manual_seed(1)
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder), config_of(kind, **more)
    )
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")["input_ids"]
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=0.05)
    for _ in range(3):
        optimiser.zero_grad()
        model(input_ids=ids, labels=ids.clone()).loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def peft_logits(model: Any, rows: list[list[int]]) -> torch.Tensor:
    """PEFT's own forward, row by row; its CPT wants labels, or at least to be told of none."""
    kinds = {str(config.peft_type.value) for config in model.peft_config.values()}
    more = {"labels": None} if kinds == {"CPT"} else {}
    found = [model(input_ids=torch.tensor([row]), **more).logits[0, -1] for row in rows]
    return torch.stack(found)


def our_logits(lm: LM, prompt: Prompt, template: str = "{prompt}{text}") -> torch.Tensor:
    texts = lm.encode_texts(template, TEXTS)
    return answer_logits(lm, prompt.vectors[None], texts)[0].cpu()


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING", "CPT"])
@pytest.mark.parametrize("live", [False, True])
def test_the_same_logits_as_in_peft(base: Path, tmp_path: Path, kind: str, live: bool):
    model = trained(base, kind)
    lm = sl.load_lm(base, bos=False)
    model.save_pretrained(tmp_path / "adapter")
    prompt = Prompt.from_peft(model if live else tmp_path / "adapter", lm)
    assert (prompt.length, prompt.template) == (4, "{prompt}{text}")
    assert prompt.start_ids == ((5, 9, 7, 6) if kind == "CPT" else None)
    rows = [lm.encode(text) for text in TEXTS]
    back = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter"
    )
    for theirs in (peft_logits(model, rows), peft_logits(back.eval(), rows)):
        torch.testing.assert_close(our_logits(lm, prompt), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "smollm3"])
def test_a_plain_tokenizer_call_is_the_template_that_is_named(
    tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture
):
    """In PEFT one writes tokenizer(text), and some tokenizers put a BOS of their own there."""
    base = save_family(family, tmp_path / family)
    model = trained(base, "PROMPT_TUNING")
    lm = sl.load_lm(base, bos=False)
    prompt = Prompt.from_peft(model, lm)
    tokenizer = AutoTokenizer.from_pretrained(base)
    theirs = peft_logits(model, [tokenizer(text)["input_ids"] for text in TEXTS])
    template = {
        "gpt2": "{prompt}{text}",
        "llama": "{prompt}<s> {text}",
        "smollm3": "{prompt}<|endoftext|>{text}",
    }[family]
    ours = our_logits(lm, prompt, template)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert prompt.template == "{prompt}{text}"
    bare = peft_logits(model, [lm.encode(text) for text in TEXTS])
    ours = our_logits(lm, prompt, prompt.template)
    torch.testing.assert_close(ours, bare, rtol=0, atol=1e-5)
    assert (f"ask it in '{template}'" in caplog.text) == (family != "gpt2")


def test_an_adapter_that_is_asked_elsewhere_is_told_once(
    base: Path, tmp_path: Path, toy_task: Task, caplog: pytest.LogCaptureFixture
):
    lm = sl.load_lm(base, bos=False)
    prompt = Prompt.from_peft(trained(base, "PROMPT_TUNING"), lm)
    sl.evaluate(lm, toy_task.with_(template=prompt.template), prompt)
    sl.evaluate(lm, toy_task.with_(template="{prompt}{text} it was"), prompt)
    assert "was trained as" not in caplog.text
    for _ in range(2):
        sl.evaluate(lm, toy_task, prompt)
    assert caplog.text.count("was trained as '{prompt}{text}' stands") == 1
    assert "task.with_(template='{prompt}{text}')" in caplog.text
    sl.report(lm, toy_task, prompt, methods=["nearest"], progress=False)
    assert caplog.text.count("was trained as") == 1
    # A space before the text is another token in this tokenizer.
    sl.evaluate(lm, toy_task.with_(template="{prompt} {text}"), prompt)
    assert "asked as '{prompt} {text}' stands" in caplog.text


def test_a_space_that_is_no_token_is_not_told(
    tmp_path: Path, toy_task: Task, caplog: pytest.LogCaptureFixture
):
    lm = sl.load_lm(save_family("mpt", tmp_path / "whole words"))
    prompt = replace(Prompt.from_text(lm, "film"), template="{prompt}{text}")
    sl.evaluate(lm, toy_task.with_(template="{prompt} {text}"), prompt)
    assert "was trained as" not in caplog.text
    sl.evaluate(lm, toy_task, prompt)
    assert "was trained as" in caplog.text


@pytest.mark.parametrize("bos", [True, False])
def test_out_to_peft_and_in_again(base: Path, tmp_path: Path, bos: bool, toy_task: Task):
    lm = sl.load_lm(base, bos=bos)
    task = toy_task.with_(template="{prompt} {text}")
    run = sl.tune(lm, task, length=3, steps=2, progress=False)
    assert run.config.bos == bos
    folder = run.prompt.to_peft(tmp_path / "adapter", lm)
    assert load_file(folder / "adapter_model.safetensors")["prompt_embeddings"].shape[0] == 3 + bos
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    rows = [lm.encode(" " + text) for text in TEXTS]
    ours = our_logits(lm, run.prompt, "{prompt} {text}")
    torch.testing.assert_close(ours, peft_logits(model.eval(), rows), rtol=0, atol=1e-5)
    again = Prompt.from_peft(folder, lm)
    assert again.template == "{prompt} {text}"
    assert torch.equal(again.vectors, run.prompt.vectors)
    # Another reader of the same folder sees BOS as a vector among others, and the same logits.
    other = sl.load_lm(base, bos=not bos)
    if bos:
        whole = Prompt.from_peft(folder, other)
        assert whole.length == 4
        got = our_logits(other, whole, "{prompt} {text}")
        torch.testing.assert_close(got, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_out_in_one_type_and_in_again_in_another(
    hub_folder: Path, tmp_path: Path, dtypes: tuple[str, str]
):
    out, back = (sl.load_lm(hub_folder, dtype=dtype) for dtype in dtypes)
    prompt = Prompt.from_text(out, "the film")
    folder = prompt.to_peft(tmp_path / "adapter", out, "{prompt} {text}")
    assert torch.equal(Prompt.from_peft(folder, back).vectors, prompt.vectors)
    weights = folder / "adapter_model.safetensors"
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    vectors = load_file(weights)["prompt_embeddings"]
    vectors[0, 3] *= 1.02
    save_file({"prompt_embeddings": vectors}, weights, metadata)
    with pytest.raises(DamagedFileError, match="first vector is BOS, and it is not"):
        Prompt.from_peft(folder, back)


def test_a_prompt_remembers_where_it_stands(gpt2: LM, tmp_path: Path, toy_task: Task):
    run = sl.tune(gpt2, toy_task, "gcg", length=2, steps=1, progress=False)
    assert Prompt.load(run.prompt.save(tmp_path / "p.safetensors")).template == toy_task.template
    with pytest.raises(SoftlensError, match="something before it, and PEFT can only put a prompt"):
        run.prompt.to_peft(tmp_path / "adapter", gpt2)
    loose = Prompt.from_text(gpt2, "the film")
    with pytest.raises(SoftlensError, match=r"does not say where it stands.*template='\{prompt\}"):
        loose.to_peft(tmp_path / "adapter", gpt2)
    with pytest.raises(SoftlensError, match="template '' holds"):
        run.prompt.to_peft(tmp_path / "adapter", gpt2, template="")
    assert loose.to_peft(tmp_path / "adapter", gpt2, "{prompt} {text}").is_dir()


def test_bos_in_front_changes_what_an_adapter_does_and_is_said(
    hub_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model = trained(hub_folder, "PROMPT_TUNING")
    model.save_pretrained(tmp_path / "adapter")
    lm = sl.load_lm(hub_folder)
    prompt = Prompt.from_peft(tmp_path / "adapter", lm)
    assert "rows of 'hub-format' start with BOS" in caplog.text
    assert "bos=False" in caplog.text
    theirs = peft_logits(model, [lm.encode(text) for text in TEXTS])
    assert (our_logits(lm, prompt) - theirs).abs().max() > 1e-2


def test_what_was_checked_is_said(
    hub_folder: Path, tmp_path: Path, gpt2: LM, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "softlens")
    trained(hub_folder, "PROMPT_TUNING").save_pretrained(tmp_path / "adapter")
    Prompt.from_peft(tmp_path / "adapter", gpt2)
    assert "width, layers, attention_heads, base model, vocabulary agree" in caplog.text
    edit(tmp_path / "adapter", base_model_name_or_path="someone/hub-format")
    Prompt.from_peft(tmp_path / "adapter", gpt2)
    assert "the adapter does not say vocabulary" in caplog.text


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def other_base(tmp_path: Path, name: str, tokenizer: Any, **changes: Any) -> Path:
    """An LM like the tiny GPT-2 but for `changes`, saved."""
    torch.manual_seed(7)
    config = CONFIGS["gpt2"]()
    for key, value in changes.items():
        setattr(config, key, value)
    folder = tmp_path / name
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"n_embd": 64},
            r"holds vectors of shape \(4, 64\), and 'hub-format' takes \(length, 32\)",
        ),
        ({"n_layer": 2}, "num_layers=2, and 'hub-format' has 3: the width is the same"),
        ({"n_head": 2}, "num_attention_heads=2, and 'hub-format' has 4"),
        ({}, r"trained on '.*another', and this is 'hub-format'.*any_base=True"),
    ],
)
def test_an_adapter_for_another_base(
    tmp_path: Path, gpt2: LM, bpe_tokenizer: Any, changes: dict[str, Any], words: str
):
    folder = other_base(tmp_path, "another", bpe_tokenizer, **changes)
    model = trained(folder, "PROMPT_TUNING")
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(SoftlensError, match=words):
        Prompt.from_peft(tmp_path / "adapter", gpt2)
    if not changes:
        assert Prompt.from_peft(tmp_path / "adapter", gpt2, any_base=True).length == 4
        with pytest.raises(SoftlensError, match=r"embedding of shape \(320, 32\).*any_base=True"):
            Prompt.from_peft(model, gpt2)
    # PEFT itself puts all of them onto the wrong base without a word.
    assert peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(gpt2.model.name_or_path), tmp_path / "adapter"
    )


def test_an_adapter_for_another_vocabulary(
    hub_folder: Path, tmp_path: Path, gpt2: LM, bpe_tokenizer: Any
):
    trained(hub_folder, "PROMPT_TUNING").save_pretrained(tmp_path / "adapter")
    other = AutoTokenizer.from_pretrained(hub_folder)
    other.add_tokens(["zounds"])
    other.save_pretrained(tmp_path / "adapter")
    with pytest.raises(SoftlensError, match=r"tokenizer of 3\d\d tokens.*'zounds'.*not those of"):
        Prompt.from_peft(tmp_path / "adapter", gpt2)
    trained(hub_folder, "CPT").save_pretrained(tmp_path / "cpt")
    edit(tmp_path / "cpt", cpt_token_ids=[5, 9, 7, 4000])
    with pytest.raises(SoftlensError, match="began as token 4000, and the vocabulary"):
        Prompt.from_peft(tmp_path / "cpt", gpt2)


def test_other_weights_of_the_same_name(hub_folder: Path, tmp_path: Path, gpt2: LM):
    folder = Prompt.from_text(gpt2, "film").to_peft(tmp_path / "a", gpt2, "{prompt} {text}")
    tiny_model("gpt2", seed=3).save_pretrained(hub_folder)
    tuned = sl.load_lm(hub_folder, bos=False)
    with pytest.raises(
        SoftlensError, match=r"checksum [0-9a-f]{16}, and 'hub-format' has [0-9a-f]"
    ):
        Prompt.from_peft(folder, tuned)
    prompt = Prompt.from_peft(folder, tuned, any_base=True)
    prompt.check(tuned)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("PREFIX_TUNING", "PREFIX_TUNING: keys and values for every layer"),
        ("LORA", r"LORA: a change of the LM's weights.*merge_and_unload"),
    ],
)
def test_adapters_that_are_no_input_vectors(
    hub_folder: Path, tmp_path: Path, gpt2: LM, kind: str, words: str
):
    config = (
        peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
        if kind == "PREFIX_TUNING"
        else peft.LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True)
    )
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(hub_folder), config)
    model.save_pretrained(tmp_path / "adapter")
    for source in (tmp_path / "adapter", model):
        with pytest.raises(SoftlensError, match=words):
            Prompt.from_peft(source, gpt2)


def test_half_adapters_and_more_than_adapters(hub_folder: Path, tmp_path: Path, gpt2: LM):
    model = trained(hub_folder, "PROMPT_TUNING")
    good = tmp_path / "good"
    model.save_pretrained(good)

    def broken(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name))

    with pytest.raises(SoftlensError, match=r"No folder at .*`hf download NAME"):
        Prompt.from_peft("org/adapter", gpt2)
    with pytest.raises(SoftlensError, match=r"is no PEFT adapter: it has no adapter_config\.json"):
        Prompt.from_peft(hub_folder, gpt2)
    (broken("a") / "adapter_model.safetensors").unlink()
    with pytest.raises(DamagedFileError, match="half of the adapter is missing"):
        Prompt.from_peft(tmp_path / "a", gpt2)
    weights = broken("b") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(DamagedFileError, match="truncated or damaged"):
        Prompt.from_peft(tmp_path / "b", gpt2)
    save_file(
        {"prompt_embeddings": torch.zeros(4, 32), "score.weight": torch.zeros(2, 32)},
        broken("c") / "adapter_model.safetensors",
    )
    with pytest.raises(
        SoftlensError, match=r"'score\.weight': \(2, 32\).*'prompt_embeddings' alone"
    ):
        Prompt.from_peft(tmp_path / "c", gpt2)
    edit(broken("d"), num_virtual_tokens=9)
    with pytest.raises(DamagedFileError, match="says that it has 9 virtual tokens, and holds 4"):
        Prompt.from_peft(tmp_path / "d", gpt2)
    edit(broken("e"), task_type="SEQ_CLS")
    with pytest.raises(SoftlensError, match="trained for SEQ_CLS"):
        Prompt.from_peft(tmp_path / "e", gpt2)
    edit(broken("h"), num_virtual_tokens=None)
    with pytest.raises(DamagedFileError, match=r"num_virtual_tokens is None, .*holds 4 vectors"):
        Prompt.from_peft(tmp_path / "h", gpt2)
    edit(broken("i"), peft_type=None)
    with pytest.raises(DamagedFileError, match="does not say what kind of adapter it is"):
        Prompt.from_peft(tmp_path / "i", gpt2)
    (broken("j") / "adapter_config.json").write_text("[1, 2]")
    with pytest.raises(DamagedFileError, match=r"adapter_config\.json holds a list, wanted"):
        Prompt.from_peft(tmp_path / "j", gpt2)
    (broken("f") / "adapter_config.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"adapter_config\.json is damaged"):
        Prompt.from_peft(tmp_path / "f", gpt2)
    save_file(
        {"prompt_embeddings": torch.full((4, 32), torch.nan)},
        broken("g") / "adapter_model.safetensors",
    )
    with pytest.raises(SoftlensError, match="NaN or infinity at position 0"):
        Prompt.from_peft(tmp_path / "g", gpt2)
    with pytest.raises(SoftlensError, match="Got a dict, wanted the folder of a PEFT adapter"):
        Prompt.from_peft({}, gpt2)
    with pytest.raises(SoftlensError, match=r"No adapter 'x' in the model; it has \['default'\]"):
        Prompt.from_peft(model, gpt2, adapter="x")


def test_start_tokens_of_a_text(hub_folder: Path, tmp_path: Path, gpt2: LM):
    more = {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "the film",
        "tokenizer_name_or_path": str(hub_folder),
    }
    trained(hub_folder, "PROMPT_TUNING", **more).save_pretrained(tmp_path / "adapter")
    ids = gpt2.encode("the film")
    assert Prompt.from_peft(tmp_path / "adapter", gpt2).start_ids == tuple((ids * 4)[:4])


# -- rows without BOS -----------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["{prompt} {text}", "{prompt}{text}", "{text} {prompt} so"])
def test_rows_without_bos(tiny: Callable[..., LM], template: str):
    lm = tiny("gpt2", bos=False)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    for texts in (TEXTS, TEXTS[:1]):  # one text alone stands on no side by itself
        got = answer_logits(lm, [vectors, vectors[:0]], lm.encode_texts(template, texts))
        for i, text in enumerate(texts):
            space = "" if template == "{prompt}{text}" else " "
            before, after = (text, " so") if "so" in template else ("", space + text)
            for j, own in enumerate((vectors, vectors[:0])):
                row = torch.cat([lm.embed(lm.encode(before)), own, lm.embed(lm.encode(after))])
                with torch.no_grad():
                    wanted = lm.model(inputs_embeds=row[None]).logits[0, -1]
                torch.testing.assert_close(got[j, i], wanted, rtol=1e-4, atol=1e-5)
    assert "rows without BOS" in repr(lm)
    assert "rows without BOS" not in repr(tiny("gpt2"))


def test_a_start_token_in_the_template_takes_no_space(tiny: Callable[..., LM]):
    lm = tiny("gpt2", bos=False)
    texts = lm.encode_texts("{prompt} <|endoftext|>{text}", ["the film"])
    assert texts.afters[0] == (lm.bos_id, *lm.encode("the film"))


# -- plain arrays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
def test_vectors_from_other_programs(tiny: Callable[..., LM], tmp_path: Path, suffix: str):
    lm, vectors = tiny(), torch.randn(4, 32)
    path = tmp_path / f"vectors{suffix}"
    if suffix == ".npy":
        np.save(path, vectors.numpy()[None])
    elif suffix == ".npz":
        np.savez(path, soft=vectors.numpy(), steps=np.arange(3.0))
    elif suffix == ".pt":
        torch.save({"prompt": {"soft": torch.nn.Parameter(vectors)}, "epoch": 3}, path)
    else:
        save_file({"soft": vectors}, path)
    prompt = Prompt.from_file(path, lm, "soft" if suffix == ".npz" else None)
    assert torch.equal(prompt.vectors, vectors)
    prompt.check(lm)


def test_bad_arrays(tiny: Callable[..., LM], tmp_path: Path):
    lm = tiny()
    with pytest.raises(SoftlensError, match="No file at"):
        Prompt.from_file(tmp_path / "no.npy", lm)
    (tmp_path / "x.pkl").write_bytes(b"")
    with pytest.raises(SoftlensError, match=r"ends in '\.pkl'; vectors are read from \.npy"):
        Prompt.from_file(tmp_path / "x.pkl", lm)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(SoftlensError, match="holds Python objects, and reading them could run"):
        Prompt.from_file(tmp_path / "o.npy", lm)
    torch.save(Path("x"), tmp_path / "o.pt")
    with pytest.raises(SoftlensError, match="holds more than tensors, and reading it could run"):
        Prompt.from_file(tmp_path / "o.pt", lm)
    np.save(tmp_path / "h.npy", np.zeros((40, 32)))
    torch.save(torch.zeros(40, 32), tmp_path / "h.pt")
    for name in ("h.npy", "h.pt"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DamagedFileError, match="is truncated or no file of"):
            Prompt.from_file(tmp_path / name, lm)
    (tmp_path / "h.safetensors").write_bytes(b"12345")
    with pytest.raises(DamagedFileError, match="truncated or damaged"):
        Prompt.from_file(tmp_path / "h.safetensors", lm)
    np.save(tmp_path / "turned.npy", np.zeros((32, 4)))
    with pytest.raises(SoftlensError, match=r"shape \(32, 4\).*Transpose them"):
        Prompt.from_file(tmp_path / "turned.npy", lm)
    np.save(tmp_path / "wide.npy", np.zeros((4, 768)))
    with pytest.raises(
        SoftlensError, match=r"shape \(4, 768\), and 'tiny-gpt2-0' takes \(length, 32"
    ):
        Prompt.from_file(tmp_path / "wide.npy", lm)
    np.save(tmp_path / "ids.npy", np.arange(4))
    with pytest.raises(SoftlensError, match=r"holds int64.*Prompt\.from_ids"):
        Prompt.from_file(tmp_path / "ids.npy", lm)
    save_file({"a": torch.zeros(2, 32), "b": torch.zeros(2, 32)}, tmp_path / "two.safetensors")
    with pytest.raises(SoftlensError, match=r"2 tensors, .*say which with key="):
        Prompt.from_file(tmp_path / "two.safetensors", lm)
    with pytest.raises(SoftlensError, match="has no 'c'"):
        Prompt.from_file(tmp_path / "two.safetensors", lm, "c")
    np.save(tmp_path / "nan.npy", np.full((2, 32), np.nan))
    with pytest.raises(SoftlensError, match="NaN or infinity"):
        Prompt.from_file(tmp_path / "nan.npy", lm)
