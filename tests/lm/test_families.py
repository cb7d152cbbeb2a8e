"""Every family from a folder in the hub's format; what does not fit, and what it says.

`tests/lm/test_every_tool.py` takes them through tuners, views and readings.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import softlens as sl
from softlens import LM, Prompt, SoftlensError, Task
from softlens.lm import answer_logits, token_surprisal, word_logits
from tests.families import FAMILIES, SHARDED, WINDOW, save_family
from tests.lm.test_every_tool import QUICK

TEXTS = ["the film was good and bright", "a dull plot", "it was terrible"]
PATHS = {name: "plain" if name in ("bloom", "gpt_neo", "mpt") else "fast" for name in FAMILIES}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LM]:
    """``family("opt")``: saved, and loaded as a user would."""

    @cache
    def load(name: str) -> LM:
        return sl.load_lm(save_family(name, tmp_path_factory.mktemp("hub") / f"tiny-{name}"))

    return load


@pytest.fixture
def small(toy_task: Task) -> Task:
    return replace(
        toy_task.head(train=8, dev=4),
        label_words=("bad", "good"),
        class_names=("bad", "good"),
        readable=("it was",),
    )


def tuned(lm: LM, task: Task, method: str) -> sl.Run:
    return sl.tune(lm, task, method, **({"length": 3, "progress": False} | QUICK[method]))


@torch.no_grad()
def by_hand(lm: LM, before: str, ids: list[int], after: str) -> torch.Tensor:
    """The next token's logits by transformers' own call on token ids, from the files."""
    model = AutoModelForCausalLM.from_pretrained(lm.model.name_or_path, dtype=torch.float32)
    tail = lm.encode(after, leading_space=True)
    row = [lm.bos_id, *lm.encode(before), *ids, *tail]
    return model(input_ids=torch.tensor([row])).logits[0].to(lm.device)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(family: Callable[[str], LM], name: str):
    lm = family(name)
    assert lm.path == PATHS[name], "MODELS.md says otherwise"
    assert lm.path == "plain" or lm.parity < 1e-5
    assert lm.differentiable
    assert lm.unused_ids
    ids = lm.encode("overall it was", leading_space=True)
    # Token ids, re-embedded here and by the model itself: the same logits on both sides of a text.
    for template in ("{text} {prompt}", "{prompt} {text}"):
        got = answer_logits(lm, [ids], lm.encode_texts(template, TEXTS))[0]
        text_first = template.startswith("{text}")
        for i, text in enumerate(TEXTS):
            wanted = by_hand(lm, *((text, ids, "") if text_first else ("", ids, text)))[-1]
            torch.testing.assert_close(got[i], wanted, rtol=1e-4, atol=1e-4)
    # Beyond a sliding window, too, where there is one.
    long = " ".join(["the film was"] * 9)
    assert len(lm.encode(long)) > WINDOW
    got = answer_logits(lm, [ids], lm.encode_texts("{text} {prompt}", [long]))[0, 0]
    torch.testing.assert_close(got, by_hand(lm, long, ids, "")[-1], rtol=1e-4, atol=1e-4)
    nats = token_surprisal(lm, [ids], "bos")[0, 0]
    log_probs = by_hand(lm, "", ids, "").log_softmax(dim=-1)
    exact = -log_probs[range(len(ids)), ids]
    torch.testing.assert_close(nats, exact, rtol=1e-4, atol=1e-4)
    # Rows of the embedding are what the tokens are nearest to, and read as the text they are.
    prompt = Prompt.from_ids(lm, ids)
    assert sl.nearest_tokens(lm, prompt, k=1).token_ids == tuple(ids)
    assert sl.read(lm, prompt).text.strip() == "overall it was"
    # Many prompts at once are what each of them is alone.
    several = [[row % lm.vocab_size for row in range(5 + i, 8 + i)] for i in range(40)]
    texts = lm.encode_texts("{text} {prompt}", TEXTS)
    together = answer_logits(lm, several, texts)
    for i in (0, 39):
        wanted = by_hand(lm, TEXTS[0], several[i], "")[-1]
        torch.testing.assert_close(together[i, 0], wanted, rtol=1e-4, atol=1e-4)


def test_shards_are_read_together(family: Callable[[str], LM]):
    folder = Path(family(SHARDED).model.name_or_path)
    assert len(list(folder.glob("*.safetensors"))) > 1


def test_the_table_in_the_docs_says_which_path(family: Callable[[str], LM]):
    text = (Path(__file__).parents[2] / "MODELS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (\w+) \| ([^|]+) \|", text, re.M)
    assert {row[0] for row in rows} == set(FAMILIES)
    for name, kind, path, parity in rows:
        assert kind == FAMILIES[name][1]
        assert path == family(name).path
        if path == "fast":
            # Of the machine that wrote the table; another one's last bits differ.
            assert family(name).parity < 10 * float(parity)


# -- what does not fit ----------------------------------------------------------------------------


def test_a_token_without_a_row(tiny: Callable[..., LM]):
    from tests.conftest import tiny_model, train_tokenizer

    tokenizer = train_tokenizer()
    tokenizer.add_tokens([f"<extra{i}>" for i in range(40)])
    lm = LM(tiny_model("gpt2"), tokenizer, name="too-small")
    assert lm.encode("the film")
    with pytest.raises(SoftlensError, match=r"token '<extra39>' .* ends at 319.*resize"):
        lm.encode("so <extra39>")


@pytest.mark.filterwarnings("ignore:.*(quanti|backend):UserWarning")
def test_a_quantised_lm_says_what_still_works(
    family: Callable[[str], LM], small: Task, tmp_path: Path
):
    """int8 weights by torch itself: without a backward pass, and without an error of its own."""
    exact = family("llama")
    model = AutoModelForCausalLM.from_pretrained(exact.model.name_or_path, dtype=torch.float32)
    with torch.no_grad():
        model.model = torch.ao.quantization.quantize_dynamic(model.model, {torch.nn.Linear})
    lm = LM(model, exact.tokenizer, name="int8")
    assert not lm.differentiable
    assert lm.path == "plain"
    for method in ("soft", "pez", "gcg", "fluentprompt"):
        with pytest.raises(SoftlensError, match=r"'int8' gives no gradients.*there are: sl\.tune"):
            tuned(lm, small, method)
    prompt = Prompt.soft(lm, exact.embedding[5:8] * 1.1)
    with pytest.raises(SoftlensError, match=r"'shapley' or 'leave_one_out'"):
        sl.attribute(lm, small, prompt, "integrated_gradients", texts=2)
    # What the message says that works, works.
    for method in ("rlprompt", "sample", "race", "beam", "tandem"):
        assert tuned(lm, small, method).prompt.is_hard
    for method in ("shapley", "leave_one_out"):
        assert len(sl.attribute(lm, small, prompt, method, texts=2).frame) == 3
    matched = sl.read(lm, prompt, "matched", small, progress=False, evaluations=2000, ban=())
    for reading in (sl.read(lm, prompt), matched):
        assert sl.faithfulness(lm, small, prompt, reading, other=TEXTS * 7).n == 20
    ids = lm.encode("overall it was")
    near = word_logits(lm, [ids], lm.encode_texts("{text} {prompt}", TEXTS), None)
    far = word_logits(exact, [ids], exact.encode_texts("{text} {prompt}", TEXTS), None)
    assert float((near - far).norm() / far.norm()) < 0.3
