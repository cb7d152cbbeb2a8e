"""Prompts that were trained elsewhere, and prompts for elsewhere: PEFT adapters, plain arrays.

PEFT loads an adapter onto any base whose forward pass does not crash. Everything that it leaves
unchecked is checked here, and what cannot be checked is said in a log line.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from softlens import files
from softlens.adapters.arrays import matrix_of
from softlens.adapters.checks import check
from softlens.adapters.reading import CONFIG, TENSOR, WEIGHTS, Adapter, of_folder, of_model
from softlens.errors import DamagedFileError, SoftlensError
from softlens.lm import LM
from softlens.prompts import Prompt
from softlens.templates import template_parts

__all__ = ["from_peft", "matrix_of", "to_peft"]

log = logging.getLogger(__name__)

TEMPLATE = "{prompt}{text}"
"""Where PEFT puts a prompt: right before what the tokenizer makes of the text."""
PROBE = "a text"


def from_peft(
    source: str | Path | Any, lm: LM, *, any_base: bool = False, adapter: str | None = None
) -> Prompt:
    """The prompt of a PEFT adapter: what `softlens.Prompt.from_peft` does, and documents."""
    found = of_folder(Path(source)) if isinstance(source, str | Path) else of_model(source, adapter)
    said = found.config.get("num_virtual_tokens", len(found.vectors))
    if not isinstance(said, int):
        raise DamagedFileError(
            f"{found.where} says that num_virtual_tokens is {said!r}, wanted a whole number: it "
            f"holds {len(found.vectors)} vectors. Save the adapter again."
        )
    if len(found.vectors) != said:
        raise DamagedFileError(
            f"{found.where} says that it has {said} virtual tokens, "
            f"and holds {len(found.vectors)} vectors. Save the adapter again."
        )
    checked, unknown = check(found, lm, any_base)
    log.info(
        "%s: %s agree with %r%s.",
        found.where,
        ", ".join(checked),
        lm.name,
        f"; the adapter does not say {', '.join(unknown)}" if unknown else "",
    )
    vectors = found.vectors.float()
    starts = _start_ids(found, lm)
    if found.metadata.get("start") == "bos" and lm.start:
        bos = lm.embedding[lm.bos_id].cpu()
        # An LM in bfloat16 is the same LM to its precision.
        if not torch.allclose(vectors[0], bos, rtol=2**-7, atol=1e-6):
            raise DamagedFileError(
                f"{found.where} says that its first vector is BOS, and it is not {lm.name!r}'s."
            )
        vectors = vectors[1:]
    elif lm.start:
        log.warning(
            "PEFT fed this prompt first in the row, and rows of %r start with BOS. For the logits "
            "that it had in PEFT, load the LM with sl.load_lm(..., bos=False); evaluate both.",
            lm.name,
        )
    if "start" not in found.metadata and (between := _behind_its_own_start(lm)):
        log.warning(
            "The tokenizer of %r starts a text with %r, so that tokenizer(text) behind this prompt "
            "was [prompt, %s, text] in PEFT. If it was trained so, and not with "
            "add_special_tokens=False, load the LM with bos=False and ask it in %r.",
            lm.name,
            lm.tokenizer.bos_token,
            lm.tokenizer.bos_token,
            between,
        )
    template = found.metadata.get("template", TEMPLATE)
    return replace(Prompt.soft(lm, vectors, starts), template=template)


def _behind_its_own_start(lm: LM) -> str | None:
    """The template of rows ``[prompt, BOS, text]``, where the tokenizer itself puts a BOS."""
    fed = lm.tokenizer(PROBE)["input_ids"]
    if not fed or fed[0] != lm.tokenizer.bos_token_id or fed == lm.encode(PROBE):
        return None
    start = lm.tokenizer.bos_token
    spaces = (space for space in ("", " ") if lm.encode(start + space + PROBE) == fed)
    return next((f"{{prompt}}{start}{space}{{text}}" for space in spaces), None)


def to_peft(prompt: Prompt, folder: str | Path, lm: LM, template: str | None = None) -> Path:
    """Write a prompt as a PEFT adapter: what `softlens.Prompt.to_peft` does, and documents."""
    prompt.check(lm)
    where = prompt.template if template is None else template
    if where is None:
        raise SoftlensError(
            "PEFT puts a prompt before everything else, and this one does not say where it "
            "stands. Pass the template it is for, as template='{prompt} {text}'."
        )
    if template_parts(where)[0]:
        raise SoftlensError(
            f"This prompt stands as {where!r} says, with something before it, and PEFT can only "
            "put a prompt first: there it would do something else. Tune one for "
            "task.with_(template='{prompt} {text}')."
        )
    config = lm.model.config
    vectors = torch.cat([lm.embed(lm.start).cpu(), prompt.vectors])
    settings = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": lm.model.name_or_path or lm.name,
        "inference_mode": True,
        "num_virtual_tokens": len(vectors),
        "token_dim": lm.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_transformer_submodules": 1,
        "prompt_tuning_init": "RANDOM",
    }
    metadata = {
        "format": "pt",
        "lm": lm.name,
        "checksum": lm.checksum,
        "start": "bos" if lm.start else "",
        "template": where,
    }
    folder = Path(folder)
    files.write_atomic(folder / WEIGHTS, save({TENSOR: vectors.contiguous()}, metadata))
    files.write_json(folder / CONFIG, settings)
    return folder


def _start_ids(found: Adapter, lm: LM) -> list[int] | None:
    """The tokens the vectors started from, where the adapter says so."""
    length = len(found.vectors)
    ids = list(found.config.get("cpt_token_ids") or []) if found.kind == "CPT" else []
    init = found.config.get("prompt_tuning_init")
    text = found.config.get("prompt_tuning_init_text")
    if getattr(init, "value", init) == "TEXT" and text:
        known = lm.tokenizer(text)["input_ids"]
        ids = (list(known) * (length // max(1, len(known)) + 1))[:length]
    return ids if len(ids) == length else None
