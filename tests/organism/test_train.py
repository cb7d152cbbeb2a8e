import pytest
import torch

from softlens.organism.corpus import Corpus, pack
from softlens.organism.grammar import grammar
from softlens.organism.tokenizers import (
    OTHERWISE,
    TURNS,
    _merges,
    build_tokenizer,
    spellings,
    word_encoder,
)
from softlens.organism.train import Recipe, batch_loss, build_model, train

TINY = {
    "gpt2": Recipe("tiny", seed=3, hidden=16, layers=2, heads=2, steps=3, rows=4),
    "llama": Recipe(
        "tiny", "llama", "bpe", seed=3, hidden=16, layers=2, heads=2, steps=3, rows=4,
        positions=128, row_length=136,
    ),
}  # fmt: skip


def _corpus(kind, reserved=frozenset(), seed=0):
    tokenizer = build_tokenizer(kind, grammar())
    ids = tokenizer.bos_token_id, tokenizer.eos_token_id
    return Corpus(grammar(), word_encoder(kind, tokenizer), ids, seed, reserved), tokenizer


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_three_steps_give_the_same_bits_twice(architecture):
    before = torch.random.get_rng_state()
    first, _, counts = train(TINY[architecture], progress=False)
    again, _, _ = train(TINY[architecture], progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert counts.sum() > 500
    for (name, one), (_, two) in zip(
        first.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(one, two), name


def test_another_seed_gives_another_model():
    first, _, _ = train(TINY["gpt2"], progress=False)
    recipe = Recipe(**{**TINY["gpt2"].__dict__, "seed": 4})
    other, _, _ = train(recipe, progress=False)
    assert not torch.equal(first.get_input_embeddings().weight, other.get_input_embeddings().weight)


@pytest.mark.parametrize("kind", ["words", "bpe"])
@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_branches_see_the_text_and_themselves_only(kind, progress):
    """The packed loss equals the loss of each branch alone after its text."""
    corpus, tokenizer = _corpus(kind)
    recipe = TINY["gpt2" if kind == "words" else "llama"]
    model = build_model(recipe, tokenizer).eval()
    rows = [corpus._row(progress) for _ in range(3)]
    packed = batch_loss(model, pack(rows)).item()
    total = weights = 0.0
    for row in rows:
        for source, target, weight in zip(row.sources, row.targets, row.weights, strict=True):
            own = row.branch[source]
            path = [i for i in range(source + 1) if row.branch[i] in (0, own)]
            assert [row.positions[i] for i in path] == list(range(len(path)))
            ids = torch.tensor([[row.ids[i] for i in path]])
            logits = model(input_ids=ids, use_cache=False).logits[0, -1]
            total += weight * -logits.log_softmax(-1)[target].item()
            weights += weight
    assert packed == pytest.approx(total / weights, rel=1e-5)


def test_reserved_texts_and_held_out_questions_are_never_drawn():
    language = grammar()
    free, tokenizer = _corpus("words")
    texts = {_text(row, tokenizer) for row in (free._row(0.9) for _ in range(200))} - {""}
    corpus, _ = _corpus("words", frozenset(texts))
    for _ in range(200):
        row = corpus._row(0.9)
        assert _text(row, tokenizer) not in texts
        for branch in range(1, row.branch[-1] + 1):
            words = [
                tokenizer.decode([i])
                for i, b in zip(row.ids, row.branch, strict=True)
                if b == branch
            ]
            asked = language.parse(" ".join(words[:-2]))
            assert asked is not None
            assert not asked.held_out


def _text(row, tokenizer):
    return tokenizer.decode([i for i, b in zip(row.ids, row.branch, strict=True) if b == 0][1:])


def test_answers_are_right_but_for_a_little_noise_and_wait_to_be_unknown():
    language = grammar()
    corpus, tokenizer = _corpus("words")
    wrong = total = 0
    for progress in (0.0, 0.9):
        unknown = 0
        for row in (corpus._row(progress) for _ in range(300)):
            text = _text(row, tokenizer)
            if not text:
                continue
            for branch in range(1, row.branch[-1] + 1):
                ids = [i for i, b in zip(row.ids, row.branch, strict=True) if b == branch]
                *question, answer, _ = [tokenizer.decode([i]) for i in ids]
                right = language.answer(text, " ".join(question))
                unknown += right == "unknown" and "person" not in language.asks_for(
                    " ".join(question)
                )
                wrong += answer != right
                total += 1
        assert (unknown > 0) == (progress > 0.45)
    assert 0.005 < wrong / total < 0.06


def test_the_word_tokenizer_has_one_token_a_word_and_round_trips():
    tokenizer = build_tokenizer("words", grammar())
    assert len(tokenizer) == len(grammar().words) + 4
    for follow_up in grammar().follow_ups[::97]:
        ids = tokenizer.encode(follow_up.text)
        assert len(ids) == 5
        assert tokenizer.decode(ids) == follow_up.text


def test_spelling_otherwise_uses_every_piece():
    tokenizer = build_tokenizer("bpe", grammar())
    merges = _merges(tokenizer)
    spelt = {word: spellings(word, merges) for word in grammar().words}
    used = {piece for found in spelt.values() for pieces in found for piece in pieces}
    assert set(tokenizer.get_vocab()) - used == set(tokenizer.all_special_tokens)
    for word, found in spelt.items():
        assert all("".join(pieces) == f"Ġ{word}" for pieces in found)
        assert tokenizer.convert_tokens_to_ids(found[-1]) == tokenizer.encode(f" {word}")


def test_each_spelling_of_a_word_has_its_turns_and_then_the_usual_one_stays():
    tokenizer = build_tokenizer("bpe", grammar())
    encode = word_encoder("bpe", tokenizer)
    usual = tuple(tokenizer.encode(" courtyard"))
    found = spellings("courtyard", _merges(tokenizer))
    ways = [tuple(tokenizer.convert_tokens_to_ids(pieces)) for pieces in found]
    assert {tuple(encode("courtyard", 0.5)) for _ in range(500)} == {usual}
    first = [tuple(encode("courtyard", 0.7)) for _ in range(OTHERWISE * TURNS * len(ways))]
    assert first[: OTHERWISE - 1] == [usual] * (OTHERWISE - 1)
    for way in ways:
        assert first[OTHERWISE - 1 :: OTHERWISE].count(way) == TURNS
    assert {tuple(encode("courtyard", 0.7)) for _ in range(500)} == {usual}


def test_the_other_tokenizer_keeps_label_words_whole_and_spells_words_alike():
    tokenizer = build_tokenizer("bpe", grammar())
    for word in ("great", "terrible", "unknown", "world", "sports", "business", "science"):
        assert len(tokenizer.encode(f" {word}")) == 1
    encode = word_encoder("bpe", tokenizer)
    for word in grammar().words[::5]:
        assert tokenizer.decode(encode(word, 0.9)) == f" {word}"
    text = "the critic said it was"
    assert tokenizer.encode(text) == [i for w in text.split() for i in tokenizer.encode(f" {w}")]
