"""What is no number is refused in words, by `tune` and by what a sweep plans with."""

import subprocess
import sys
from typing import Any

import pytest

from softlens import SoftlensError
from softlens.tuners.arguments import check_weights, check_whole

SCRIPT = """
import softlens as sl
from softlens.tuners import run_config

lm, task = sl.load_lm(), sl.load_task("topic")
for wrong in (
    {"steps": 2.5}, {"steps": "3"}, {"length": 2.5}, {"seed": "a"}, {"proxies": "perplexity"},
    {"proxies": ["perplexity"]}, {"proxies": {"perplexity": "a"}},
    {"proxies": {"perplexity": None}}, {"proxies": {1: 0.1}}, {"seed": 2**64}, {"method": ["pez"]},
    {"task": "topic"}, {"judge": "organism-judge"}, {"description": 5},
):
    for call in (sl.tune, run_config):
        try:
            call(lm, **({"task": task, "method": "pez"} | wrong))
        except sl.SoftlensError as reason:
            print(reason)
"""


def test_every_call_says_what_was_wrong():
    """In a process of its own, for in these tests types are checked before."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[::2] == said[1::2]
    for line, words in zip(
        said[::2],
        (
            "Got steps=2.5, wanted a whole number",
            "Got steps='3', wanted a whole number",
            "Got length=2.5, wanted a whole number, as length=5",
            "Got seed='a', wanted a whole number",
            "Got proxies='perplexity', wanted a weight for each name: proxies={'perplexity': 0.1}",
            "Got proxies=['perplexity'], wanted a weight for each name",
            "Got weight 'a' for the proxy 'perplexity', wanted a number of at least 0",
            "Got weight None for the proxy 'perplexity', wanted a number",
            "Got 1 as the name of a proxy, wanted a word",
            "Got seed=18446744073709551616, wanted a number of at most 64 bits: seed=0",
            "Got method=['pez'], wanted one name of ['soft', ",
            "Got task='topic', wanted a task: sl.load_task(",
            "Got judge='organism-judge', wanted an LM: sl.load_lm(",
            "Got description=5, wanted words",
        ),
        strict=True,
    ):
        assert line.startswith(words)


@pytest.mark.parametrize("value", [True, 1.0, None, [1]])
def test_what_is_not_whole(value: Any):
    with pytest.raises(SoftlensError, match=r"Got steps=.*, wanted a whole number, as steps=3\."):
        check_whole("steps", value, "steps=3")


def test_weights_that_are():
    assert check_weights(None) == check_weights({}) == {}
    assert check_weights({"perplexity": 1, "relevance": 0.5}) == {"perplexity": 1, "relevance": 0.5}
    with pytest.raises(SoftlensError, match=r"Got proxies=3, wanted a weight for each name"):
        check_weights(3)
    with pytest.raises(SoftlensError, match=r"Got weight True for the proxy 'perplexity'"):
        check_weights({"perplexity": True})
