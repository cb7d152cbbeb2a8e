"""The organism, a short task, and one short run to inspect."""

from dataclasses import dataclass

import pandas as pd
import pytest

import softlens as sl


@pytest.fixture(scope="session")
def lm():
    return sl.load_lm()


@pytest.fixture(scope="session")
def task():
    return sl.load_task("sentiment").head(train=64, dev=64, test=80)


@pytest.fixture(scope="session")
def run(lm, task):
    return sl.tune(lm, task, "pez", length=4, steps=12, proxies={"perplexity": 0.1}, progress=False)


@pytest.fixture(scope="session")
def soft_run(lm, task):
    return sl.tune(lm, task, "soft", length=3, steps=5, progress=False)


def sweep_row(run, lm):
    """A run as a sweep's table has it; the columns that are looked at here."""
    m = run.metrics
    ids = run.prompt.token_ids
    proxies = {name: weight for name, weight in run.config.proxies.items() if weight}
    return {
        "cell": f"{run.config.method}-{run.config.seed}",
        "lm": lm.name, "lm_checksum": lm.checksum, "task": run.config.task,
        "method": run.config.method, "length": run.config.length, "seed": run.config.seed,
        "proxy": "+".join(proxies) or "none",
        "weight": next(iter(proxies.values()), 0.0) if len(proxies) < 2 else float("nan"),
        "text": run.text, "accuracy": m["accuracy"], "label_mass": m["label_mass"],
        "nats_per_token": m["nats_per_token"], "repetition": float("nan"),
        "empty_accuracy": m["empty_accuracy"], "random_accuracy": m["random_accuracy"],
        "readable_accuracy": m["readable_accuracy"],
        "token_ids": "" if ids is None else " ".join(map(str, ids)),
    }  # fmt: skip


@pytest.fixture(scope="session")
def table(lm, run, soft_run):
    return pd.DataFrame([sweep_row(run, lm), sweep_row(soft_run, lm)])


@dataclass
class Runs:
    """A sweep as the inspector knows it: a table, and runs by their cell."""

    frame: pd.DataFrame
    runs: dict

    def run(self, cell):
        return self.runs[cell]


@pytest.fixture
def runs(table, run, soft_run):
    return Runs(table, {"pez-0": run, "soft-0": soft_run})
