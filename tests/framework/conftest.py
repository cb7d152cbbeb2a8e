import pytest

import softlens as sl
from softlens import Task
from softlens.lm import LM


@pytest.fixture(scope="package")
def organism() -> LM:
    return sl.load_lm()


@pytest.fixture(scope="package")
def sentiment() -> Task:
    return sl.load_task("sentiment").head(test=128)
