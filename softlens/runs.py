"""A run: one tuning with its prompt, config, history and measures, and its folder."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from softlens import files
from softlens.display import Result, number
from softlens.errors import DamagedFileError, SoftlensError
from softlens.evaluation import MEASURES
from softlens.lm import LM
from softlens.prompts import Prompt
from softlens.tasks import Task, digest

VERSION = 1
PROMPT = "prompt.safetensors"


def loaded_as(lm: LM) -> dict[str, Any]:
    """What a config says of how `lm` was loaded: ``dtype, bos, bos_id``."""
    return {
        "dtype": str(lm.dtype).removeprefix("torch."),
        "bos": bool(lm.start),
        "bos_id": None if lm.start_id == lm.own_start else lm.start_id,
    }


class RunConfig(BaseModel):
    """Everything that decides a run's result; equal configs on one machine give equal bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lm: str = Field(description="name of the LM")
    lm_checksum: str = Field(description="its checksum")
    dtype: str = Field(description="what the LM computes in")
    task: str = Field(description="name of the task")
    template: str = Field(description="where text and prompt stand")
    label_words: tuple[str, ...] = Field(description="the word that answers for each class")
    texts: tuple[int, int, int] = Field(description="texts in train, dev and test")
    method: str = Field(description="name of the tuner")
    length: int = Field(description="positions of the prompt")
    proxies: dict[str, float] = Field(description="weight of each proxy of interpretability")
    judge: str | None = Field(default=None, description="name and checksum of the judge LM")
    description: str | None = Field(default=None, description="the user's, of the task")
    bos: bool = Field(default=True, description="whether rows start with BOS")
    bos_id: int | None = Field(default=None, description="BOS, where it is not the tokenizer's own")
    steps: int = Field(description="update steps, or rounds of a search, at most")
    seed: int = Field(description="of the start and of the order of texts")
    options: dict[str, Any] = Field(description="the method's own options, all of them")
    version: int = Field(default=VERSION, description="of the meaning of these fields")


@dataclass(frozen=True, repr=False)
class Run(Result):
    """One tuning. It opens without the LM."""

    prompt: Prompt
    """The best iterate on the dev split."""
    text: str
    """The prompt's text; of a soft prompt, its nearest tokens."""
    config: RunConfig
    history: pd.DataFrame = field(repr=False, compare=False)
    """One row a step: ``step, objective, task_loss, <each proxy>, grad_norm_task, ...,
    tokens_changed, token_ids, accuracy_dev, loss_dev, evaluations``; losses in nats, the ids of the
    (nearest) tokens with a space between."""
    metrics: dict[str, float | str]
    """Test accuracies with their controls, label mass, loss, seconds, and how it ended; NaN where
    Ctrl-C came before they were measured."""
    kept_steps: tuple[int, ...] = field(default=(), repr=False, compare=False)
    """Steps whose vectors were kept, as the option ``keep_vectors`` of "soft" and "pez" asks; the
    last step is the last of them."""
    kept_vectors: Float[Tensor, "steps length hidden"] | None = field(
        default=None, repr=False, compare=False
    )
    """The vectors after these steps, float32: of "soft" the prompt, of "pez" its continuous copy;
    None where none were kept."""
    task_digest: str = field(default="", repr=False)
    """`softlens.tasks.digest` of the task it was tuned on; "" in files that do not say it."""

    @property
    def frame(self) -> pd.DataFrame:
        """The metrics as a table."""
        return pd.DataFrame({"value": self.metrics}).rename_axis("metric").reset_index()

    @property
    def table(self) -> pd.DataFrame:
        """The prompt beside its controls; `frame` has every metric."""
        rows = [{"scored": f"this prompt ({self.metrics['scored']})", "prefix": ""}]
        if "readable_text" in self.metrics:
            name = f"best readable: {self.metrics['readable_text']}"
            rows.append({"scored": name, "prefix": "readable_"})
        rows.append({"scored": "random prompts (mean of 5)", "prefix": "random_"})
        rows.append({"scored": "empty prompt", "prefix": "empty_"})
        return pd.DataFrame(
            [
                {"scored": row["scored"]}
                | {key: number(float(self.metrics[row["prefix"] + key])) for key in MEASURES}
                for row in rows
            ]
        )

    @property
    def headline(self) -> str:
        """One line for a terminal."""
        c, m = self.config, self.metrics
        readable = f", best readable {m['readable_accuracy']:.3f}" if "readable_text" in m else ""
        return (
            f"{c.method} prompt of {c.length} for {c.task!r} on {c.lm!r}, seed {c.seed}: "
            f"test accuracy {m['accuracy']:.3f} (empty {m['empty_accuracy']:.3f}, "
            f"random {m['random_accuracy']:.3f}{readable}), {m['ended']} after "
            f"{m['steps']} steps and {m['seconds']:.0f} s; reads {self.text!r}"
        )

    def plot(self, ax: Any = None) -> Any:
        """Task loss, accuracy on dev, tokens changed, and each proxy, over the steps."""
        from softlens.plots import plot_history
        from softlens.proxies import PROXIES

        proxies = {name: PROXIES[name].unit for name in self.config.proxies}
        return plot_history(self.history, self.config.length, proxies, ax)

    def as_prompt(self, lm: LM) -> Prompt:
        """The prompt that it found, after checking that it is of `lm`."""
        self.prompt.check(lm)
        return self.prompt

    def has_controls_of(self, lm: LM, task: Task) -> bool:
        """Whether the controls in its metrics are those of `task` on `lm`, as it is loaded."""
        loaded = {name: getattr(self.config, name) for name in loaded_as(lm)}
        known = [self.metrics.get(f"{name}_accuracy", math.nan) for name in ("empty", "random")]
        return (
            self.config.lm_checksum == lm.checksum
            and loaded == loaded_as(lm)
            and self.task_digest == digest(task)
            and all(math.isfinite(float(accuracy)) for accuracy in known)
        )

    def save(self, folder: str | Path) -> Path:
        """Write the run into `folder`; `run.json` comes last, so that a half-written run has none.

        A run that was there before stays whole until all of this one is on the disk.

        Raises:
            SoftlensError: if the folder cannot be written; the run in memory is unharmed.
        """
        folder = Path(folder)
        record = {
            "config": self.config.model_dump(mode="json"),
            "text": self.text,
            # JSON has no NaN.
            "metrics": {k: None if v != v else v for k, v in self.metrics.items()},
            "task_digest": self.task_digest,
        }
        try:
            # They get their names from the last to the first.
            with (
                files.replacing(folder / "run.json") as last,
                files.replacing(folder / "history.parquet") as history,
                files.replacing(folder / PROMPT) as prompt,
            ):
                self.prompt.save(prompt, beside=_kept(self))
                self.history.to_parquet(history, index=False)
                files.write_json(last, record)
                (folder / "run.json").unlink(missing_ok=True)
        except OSError as reason:
            raise SoftlensError(
                f"Cannot save the run into {folder}: {reason.strerror or reason}. The run is still "
                "in memory; free some space or save it into a folder you may write to."
            ) from reason
        return folder


def _kept(run: Run) -> dict[str, Tensor]:
    if run.kept_vectors is None:
        return {}
    return {"kept_steps": torch.tensor(run.kept_steps), "kept_vectors": run.kept_vectors}


def load_run(folder: str | Path) -> Run:
    """Read a run that `Run.save` wrote; no LM is needed.

    Raises:
        SoftlensError: if there is no complete run in `folder`.
        DamagedFileError: if a file of it is damaged.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise SoftlensError(f"No run in {folder}: it has no run.json. Check the path.")
    try:
        record = json.loads((folder / "run.json").read_text())
        prompt = Prompt.load(folder / PROMPT)
        tensors = load_file(folder / PROMPT)
        return Run(
            prompt=prompt,
            text=record["text"],
            config=RunConfig(**record["config"]),
            history=pd.read_parquet(folder / "history.parquet"),
            metrics={k: math.nan if v is None else v for k, v in record["metrics"].items()},
            kept_steps=tuple(tensors["kept_steps"].tolist()) if "kept_steps" in tensors else (),
            kept_vectors=tensors.get("kept_vectors"),
            task_digest=record.get("task_digest", ""),
        )
    except (ValueError, KeyError, OSError, ValidationError) as reason:
        if isinstance(reason, DamagedFileError):
            raise
        raise DamagedFileError(
            f"The run in {folder} is damaged: {type(reason).__name__}: {str(reason)[:200]}. "
            "Tune it again from its config, if run.json still has it."
        ) from reason
