"""What a PEFT adapter says of itself: read from its folder, or from a live model."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from softlens.adapters.arrays import torch_tensors
from softlens.errors import DamagedFileError, SoftlensError

CONFIG, WEIGHTS, OLD_WEIGHTS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
TENSOR = "prompt_embeddings"
READ = ("PROMPT_TUNING", "P_TUNING", "CPT")
"""Kinds of adapter that are vectors in the place of token embeddings."""
REFUSED = {
    "PREFIX_TUNING": "keys and values for every layer, so that no vector of it stands where a "
    "token would",
    "CARTRIDGE": "keys and values for every layer, so that no vector of it stands where a token "
    "would",
    "ADAPTION_PROMPT": "vectors inside of the upper layers, which no token could take the place of",
    "MULTITASK_PROMPT_TUNING": "one prompt for each of several tasks, a shared one times a factor",
}
OTHERS = (
    "a change of the LM's weights, not a prompt. Merge it into its LM "
    "(model.merge_and_unload().save_pretrained(folder)), and load that with sl.load_lm(folder)"
)


@dataclass(frozen=True)
class Adapter:
    """What an adapter says of itself."""

    where: str
    config: Mapping[str, Any]
    vectors: Tensor
    metadata: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    base: Any = None

    @property
    def kind(self) -> str:
        """PROMPT_TUNING, P_TUNING or CPT."""
        return _kind(self.config)

    @property
    def base_name(self) -> str | None:
        """The name or path of the LM it was trained on, if it says."""
        return self.config.get("base_model_name_or_path") or None


def of_folder(folder: Path) -> Adapter:
    """The adapter that `peft_model.save_pretrained` wrote into `folder`."""
    if not folder.is_dir():
        raise SoftlensError(
            f"No folder at {folder}. A PEFT adapter is a folder with {CONFIG} and {WEIGHTS}; one "
            "of the hub is fetched with `hf download NAME --local-dir folder`."
        )
    if not (folder / CONFIG).is_file():
        raise SoftlensError(
            f"{folder} is no PEFT adapter: it has no {CONFIG}. Wanted a folder as "
            "`peft_model.save_pretrained(folder)` writes it; vectors in a file of their own are "
            "read with sl.Prompt.from_file(path, lm)."
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as reason:
        raise DamagedFileError(f"{folder / CONFIG} is damaged: {reason}.") from reason
    if not isinstance(config, dict):
        raise DamagedFileError(
            f"{folder / CONFIG} holds a {type(config).__name__}, wanted an object of settings as "
            "`peft_model.save_pretrained(folder)` writes it. Save the adapter again."
        )
    _check_kind(config, str(folder))
    tensors, metadata = _tensors(folder)
    if set(tensors) != {TENSOR}:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise SoftlensError(
            f"{folder} holds the tensors {shapes}, wanted {TENSOR!r} alone. More than the prompt "
            "was trained with it, and without the rest it would do something else."
        )
    return Adapter(str(folder), config, tensors[TENSOR], metadata, folder)


def _tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if (folder / WEIGHTS).is_file():
        try:
            with safe_open(str(folder / WEIGHTS), "pt") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except SafetensorError as reason:
            raise DamagedFileError(
                f"{folder / WEIGHTS} is truncated or damaged ({reason}). Save the adapter again."
            ) from reason
    if (folder / OLD_WEIGHTS).is_file():
        return torch_tensors(folder / OLD_WEIGHTS), {}
    raise DamagedFileError(
        f"{folder} has {CONFIG} and no {WEIGHTS}: half of the adapter is missing. Copy or save it "
        "again."
    )


def of_model(model: Any, name: str | None) -> Adapter:
    """An adapter of a live ``PeftModel``, as PEFT itself would save it."""
    peft = sys.modules.get("peft")
    if peft is None or not isinstance(model, peft.PeftModel):
        raise SoftlensError(
            f"Got a {type(model).__name__}, wanted the folder of a PEFT adapter or a PeftModel. "
            "Vectors become a prompt with sl.Prompt.soft(lm, vectors)."
        )
    name = name or model.active_adapter
    if name not in model.peft_config:
        raise SoftlensError(f"No adapter {name!r} in the model; it has {list(model.peft_config)}.")
    config = model.peft_config[name].to_dict()
    where = f"the PeftModel's adapter {name!r}"
    _check_kind(config, where)
    vectors = peft.get_peft_model_state_dict(model, adapter_name=name)[TENSOR]
    base = model.get_base_model()
    return Adapter(where, config, vectors.detach().cpu(), base=base)


def _kind(config: Mapping[str, Any]) -> str:
    kind = config.get("peft_type")
    return str(getattr(kind, "value", kind))


def _check_kind(config: Mapping[str, Any], where: str) -> None:
    if config.get("peft_type") is None:
        raise DamagedFileError(
            f"{where} does not say what kind of adapter it is: its {CONFIG} has no peft_type. "
            f"Save the adapter again; prompts that can be read are {', '.join(READ)}."
        )
    kind = _kind(config)
    if kind not in READ:
        raise SoftlensError(
            f"{where} is an adapter of the kind {kind}: {REFUSED.get(kind, OTHERS)}. Prompts that "
            f"are input vectors can be read: {', '.join(READ)}."
        )
    task = config.get("task_type")
    task = getattr(task, "value", task)
    if task not in (None, "CAUSAL_LM") or config.get("num_transformer_submodules") == 2:
        raise SoftlensError(
            f"{where} was trained for {task}: its answers are not the next word of a causal LM. "
            "Only adapters of the task type CAUSAL_LM can be read here."
        )
