"""Vectors in files of other programs: numpy, torch and safetensors, read without running code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from softlens.errors import DamagedFileError, SoftlensError, near
from softlens.lm import LM

NUMPY, TORCH, SAFE = (".npy", ".npz"), (".pt", ".pth", ".bin"), (".safetensors",)
SUFFIXES = (*NUMPY, *TORCH, *SAFE)


def matrix_of(path: Path, lm: LM, key: str | None = None) -> Tensor:
    """The one matrix (length, hidden) in a file: what `softlens.Prompt.from_file` reads."""
    if not path.is_file():
        raise SoftlensError(f"No file at {path}. Check the path.")
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise SoftlensError(
            f"{path.name} ends in {kind!r}; vectors are read from {', '.join(SUFFIXES)}."
        )
    if kind in NUMPY:
        tensors = _numpy(path)
    elif kind in TORCH:
        tensors = torch_tensors(path)
    else:
        try:
            tensors = load_file(str(path))
        except SafetensorError as reason:
            raise DamagedFileError(
                f"{path.name} is truncated or damaged ({reason}). Write it again."
            ) from reason
    vectors = _chosen(tensors, path.name, key)
    if vectors.ndim == 3 and vectors.shape[0] == 1:
        vectors = vectors[0]
    check_width(vectors, lm, path.name)
    return vectors.float()


def check_width(vectors: Tensor, lm: LM, where: str) -> None:
    """Raise `SoftlensError` unless `vectors` could be a prompt of `lm`."""
    if not vectors.is_floating_point():
        raise SoftlensError(
            f"{where} holds {str(vectors.dtype).removeprefix('torch.')}, wanted floating-point "
            "vectors. Token ids become a prompt with sl.Prompt.from_ids(lm, ids)."
        )
    if vectors.ndim == 2 and vectors.shape[0] and vectors.shape[1] == lm.hidden_size:
        return
    turned = vectors.ndim == 2 and vectors.shape[0] == lm.hidden_size
    raise SoftlensError(
        f"{where} holds vectors of shape {tuple(vectors.shape)}, and {lm.name!r} takes (length, "
        f"{lm.hidden_size}). "
        + ("Transpose them." if turned else "They were trained on another LM: load that one.")
    )


def torch_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch, by name; one that would run code is refused."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as reason:
        if type(reason).__name__ != "UnpicklingError":
            raise DamagedFileError(
                f"{path.name} is truncated or no file of torch ({str(reason)[:120]}). Write it "
                "again."
            ) from reason
        raise SoftlensError(
            f"{path.name} holds more than tensors, and reading it could run what somebody put "
            "there. Save the vectors alone: torch.save(vectors, path), or as .safetensors."
        ) from reason
    return dict(_named(loaded))


def _numpy(path: Path) -> dict[str, Tensor]:
    try:
        loaded = np.load(path, allow_pickle=False)
        found = dict(loaded) if path.suffix.lower() == ".npz" else {"": loaded}
    except Exception as reason:  # numpy and zipfile raise half a dozen kinds
        if "allow_pickle" in str(reason) or "pickled" in str(reason):
            raise SoftlensError(
                f"{path.name} holds Python objects, and reading them could run what somebody put "
                "there. Save the vectors as numbers: np.save(path, vectors.astype('float32'))."
            ) from reason
        raise DamagedFileError(
            f"{path.name} is truncated or no file of numpy ({reason}). Write it again."
        ) from reason
    # torch knows no unsigned, text or record arrays; nothing of those is a prompt.
    return {
        name: torch.from_numpy(np.asarray(a, dtype="float64" if a.dtype.kind == "f" else "int64"))
        for name, a in found.items()
        if a.dtype.kind in "fiu"
    }


def _named(loaded: Any, name: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(loaded, Tensor):
        return [(name, loaded.detach())]
    if isinstance(loaded, Mapping):
        below = [_named(v, f"{name}.{k}" if name else str(k)) for k, v in loaded.items()]
        return [one for some in below for one in some]
    return []


def _chosen(tensors: Mapping[str, Tensor], where: str, key: str | None) -> Tensor:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if key is not None:
        if key not in tensors:
            raise SoftlensError(f"{where} has no {key!r}.{near(key, tensors)} It holds {shapes}.")
        return tensors[key]
    if len(tensors) != 1:
        raise SoftlensError(
            f"{where} holds {len(tensors)} tensors, {shapes}, and a prompt is one: say which with "
            "key=."
        )
    return next(iter(tensors.values()))
