"""LMs in .gguf files: turned into the hub's format once, and kept in the user's cache."""

import importlib.metadata
import importlib.util
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from softlens import files
from softlens.errors import DamagedFileError, MissingExtraError, SoftlensError
from softlens.lm.quiet import quiet

log = logging.getLogger(__name__)


def installed(package: str) -> Path | None:
    """The .gguf file that an installed package carries, None where there is none."""
    try:
        listed = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    # Found without importing the package, whose import needs llama-cpp-python.
    found = [Path(str(file.locate())) for file in listed if file.name.endswith(".gguf")]
    return next((path for path in found if path.is_file()), None)


def converted(path: Path, name: str) -> Path:
    """The folder of a .gguf in the hub's format, made once in the user's cache, by its checksum.

    Args:
        path: of the file.
        name: that the folder begins with.

    Raises:
        SoftlensError: there is no such file.
        MissingExtraError: the packages that read it are not installed.
        DamagedFileError: it cannot be read.
    """
    if not path.is_file():
        raise SoftlensError(f"No file at {path}. Check the path of the .gguf file.")
    if not has_reader():
        raise MissingExtraError(
            "Reading a .gguf file needs the packages gguf and accelerate: "
            "pip install 'softlens[real]'"
        )
    key = files.sha256(path)
    folder = files.cache_dir() / f"{name}-{key[:16]}"
    if _intact(folder):
        return folder
    log.info("Converting %s to safetensors in %s (once; about 20 s).", path.name, folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "made"
        try:
            with quiet():
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
        sums = {file.name: files.sha256(file) for file in sorted(made.iterdir())}
        files.write_json(made / "checksums.json", sums)
        try:
            made.rename(folder)
        except OSError:
            # Another process was first, and what it made is the same.
            if not _intact(folder):
                raise
    return folder


def _intact(folder: Path) -> bool:
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        damaged = [name for name, wanted in sums.items() if files.sha256(folder / name) != wanted]
    except (OSError, ValueError):
        return False
    if damaged:
        log.warning("Rebuilding %s: %s is damaged.", folder, ", ".join(damaged))
    return not damaged


def has_reader() -> bool:
    """Whether the packages that read a .gguf are installed."""
    return all(importlib.util.find_spec(package) for package in ("gguf", "accelerate"))
