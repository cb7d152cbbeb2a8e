"""The organism, a short task, and one short run to inspect."""

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
