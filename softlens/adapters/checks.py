"""Whether an adapter is for this LM: everything that PEFT leaves unchecked."""

from pathlib import Path

import torch

from softlens.adapters.arrays import check_width
from softlens.adapters.reading import Adapter
from softlens.errors import SoftlensError
from softlens.lm import LM
from softlens.lm.sources import tokenizer_of


def check(found: Adapter, lm: LM, any_base: bool) -> tuple[list[str], list[str]]:
    """What agrees with `lm`, and what the adapter does not say; raises for what does not agree."""
    called = f"{found.where} (for {found.base_name!r})" if found.base_name else found.where
    check_width(found.vectors, lm, called)
    checked: list[str] = ["width"]
    unknown: list[str] = []
    shape = {"num_layers": "num_hidden_layers", "num_attention_heads": "num_attention_heads"}
    for key, ours in shape.items():
        got, wanted = found.config.get(key), getattr(lm.model.config, ours, None)
        if got is None or wanted is None:
            continue
        if got != wanted:
            raise SoftlensError(
                f"{called} was trained on an LM with {key}={got}, and {lm.name!r} has {wanted}: "
                "the width is the same, the LM is another. Load the LM it was trained on."
            )
        checked.append(key.removeprefix("num_"))
    ids = found.config.get("cpt_token_ids") or []
    if found.kind == "CPT" and max(ids, default=0) >= lm.vocab_size:
        raise SoftlensError(
            f"{called} began as token {max(ids)}, and the vocabulary of {lm.name!r} ends at "
            f"{lm.vocab_size - 1}. Load the LM it was trained on."
        )
    same = _same_weights(found, lm, called, any_base)
    if same is not None:
        checked.append(same)
        return checked, unknown
    (checked if _check_name(found, lm, any_base) else unknown).append("base model")
    (checked if _check_vocabulary(found, lm, called) else unknown).append("vocabulary")
    return checked, unknown


def _same_weights(found: Adapter, lm: LM, called: str, any_base: bool) -> str | None:
    """The strongest evidence where there is some: a checksum, or the base model itself."""
    if "checksum" in found.metadata:
        if found.metadata["checksum"] == lm.checksum:
            return "checksum"
        if not any_base:
            raise SoftlensError(
                f"{called} was made for an LM of the checksum {found.metadata['checksum']}, and "
                f"{lm.name!r} has {lm.checksum}: its weights or its vocabulary are others. Load "
                "the LM it was made for, or pass any_base=True to see what it does on this one."
            )
    if found.base is not None:
        theirs = found.base.get_input_embeddings().weight.detach().float().cpu()
        ours = lm.model.get_input_embeddings().weight.detach().float().cpu()
        # A base in bfloat16 is the same LM to its precision.
        if theirs.shape == ours.shape and torch.allclose(theirs, ours, rtol=2**-7, atol=1e-6):
            return "embedding"
        if theirs.shape != ours.shape or not any_base:
            raise SoftlensError(
                f"{called} sits on an LM with an embedding of shape {tuple(theirs.shape)}, and it "
                f"is not that of {lm.name!r}, {tuple(ours.shape)}. Load the LM it was trained on"
                + ("." if theirs.shape != ours.shape else ", or pass any_base=True.")
            )
    return None


def _check_name(found: Adapter, lm: LM, any_base: bool) -> bool:
    if found.base_name is None:
        return False
    names = {_last(lm.name), _last(lm.model.name_or_path or lm.name)}
    if _last(found.base_name) not in names and not any_base:
        raise SoftlensError(
            f"{found.where} was trained on {found.base_name!r}, and this is {lm.name!r}. Load that "
            "LM; if it is the same one under another name, pass any_base=True."
        )
    return _last(found.base_name) in names


def _last(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()


def _check_vocabulary(found: Adapter, lm: LM, called: str) -> bool:
    """Against tokenizers that lie beside the adapter, or in the local folder of its base."""
    base = Path(found.base_name).expanduser() if found.base_name else None
    seen = False
    for folder in (found.folder, base):
        if folder is None or (tokenizer := tokenizer_of(folder)) is None:
            continue
        theirs, ours = tokenizer.get_vocab(), lm.tokenizer.get_vocab()
        if other := sorted(t for t in theirs if ours.get(t) != theirs[t]):
            raise SoftlensError(
                f"{called} comes with a tokenizer of {len(theirs)} tokens, of which {len(other)} "
                f"(such as {other[0]!r}) are not those of {lm.name!r}: the text behind the prompt "
                "would be others' tokens. Load the LM with that tokenizer."
            )
        seen = True
    return seen
