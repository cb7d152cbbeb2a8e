"""Prompts as data: what they check, and the files they live in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softlens import DamagedFileError, Prompt, SoftlensError
from softlens.lm import LM


def test_a_text_becomes_rows_of_the_embedding(any_lm: LM):
    prompt = Prompt.from_text(any_lm, "the film was")
    assert prompt.token_ids == tuple(any_lm.encode("the film was", leading_space=True))
    assert torch.equal(prompt.vectors, any_lm.embedding[list(prompt.token_ids)])
    assert prompt.text == any_lm.decode(prompt.token_ids) == " the film was"
    assert prompt.is_hard
    assert prompt.length == len(prompt.token_ids)


def test_a_prompt_is_not_changed_by_the_tensor_it_was_made_of(tiny: Callable[..., LM]):
    vectors = torch.zeros(2, 32, requires_grad=True)
    prompt = Prompt.soft(tiny(), vectors)
    with torch.no_grad():
        vectors += 1
    assert torch.equal(prompt.vectors, torch.zeros(2, 32))
    assert not prompt.vectors.requires_grad


def test_saved_and_loaded_whole(any_lm: LM, tmp_path: Path):
    soft = Prompt.soft(any_lm, torch.randn(4, any_lm.hidden_size), start_ids=[5, 6, 7, 8])
    for prompt in (soft, Prompt.from_text(any_lm, "in short")):
        back = Prompt.load(prompt.save(tmp_path / "prompt.safetensors"))
        assert torch.equal(back.vectors, prompt.vectors)
        assert (back.lm, back.token_ids, back.text) == (prompt.lm, prompt.token_ids, prompt.text)
        assert back.start_ids == prompt.start_ids
        back.check(any_lm)


def test_a_prompt_of_another_lm_is_refused(tiny: Callable[..., LM]):
    prompt = Prompt.from_text(tiny("gpt2"), "film")
    with pytest.raises(SoftlensError, match=r"made for 'tiny-gpt2-0' \(checksum [0-9a-f]{16}\)"):
        prompt.check(tiny("gpt2", seed=1))
    wide = Prompt(torch.zeros(2, 7), prompt.lm)
    with pytest.raises(SoftlensError, match=r"shape \(2, 7\), but 'tiny-gpt2-0' takes .* width 32"):
        wide.check(tiny("gpt2"))
    with pytest.raises(SoftlensError, match="takes vectors of width 32"):
        Prompt.soft(tiny("gpt2"), torch.zeros(2, 7))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_vectors_that_are_no_numbers(tiny: Callable[..., LM], bad: float):
    vectors = torch.zeros(3, 32)
    vectors[1, 4] = bad
    with pytest.raises(SoftlensError, match="NaN or infinity at position 1"):
        Prompt.soft(tiny(), vectors)


def test_shapes_and_ids_that_are_no_prompt(tiny: Callable[..., LM]):
    lm = tiny()
    with pytest.raises(SoftlensError, match="has no tokens"):
        Prompt.from_text(lm, "")
    with pytest.raises(SoftlensError, match=r"token ids \[320\], wanted 0 to 319"):
        Prompt.from_ids(lm, [3, 320])


def test_files_that_are_damaged_or_missing(tiny: Callable[..., LM], tmp_path: Path):
    with pytest.raises(SoftlensError, match="No prompt at"):
        Prompt.load(tmp_path / "absent.safetensors")
    path = Prompt.from_text(tiny(), "film").save(tmp_path / "p.safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedFileError, match="is damaged, or no prompt of softlens"):
        Prompt.load(path)


def test_a_failed_write_keeps_the_old_file(
    tiny: Callable[..., LM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = Prompt.from_text(tiny(), "film").save(tmp_path / "p.safetensors")
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("softlens.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        Prompt.from_text(tiny(), "a bad story").save(path)
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["p.safetensors"]


def test_a_file_is_as_readable_as_any_other(
    tiny: Callable[..., LM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # It is the process's own, and another thread may write a file at that instant.
    monkeypatch.setattr("os.umask", lambda *_: pytest.fail("the mask was set"))
    (tmp_path / "other").touch()
    path = Prompt.from_text(tiny(), "film").save(tmp_path / "p.safetensors")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
