"""read_intent on sentences that are in no data file here: what goes, what stays, and what is no restoration."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import prompt_mamba_cli
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import describe, read_intent, read_intents
from prompt_mamba_arch.text import intent as intent_module

NAMED = {
    "my pictures from the concert came out so grainy, please get rid of that": {"noise"},
    "I'd love to have the fog taken out of this valley": {"haze"},
    "would you brighten this up, it was taken in the middle of the night": {"lowlight"},
    "upscale this tiny thing to 4k": {"lowres"},
    "remove the raindrops please": {"rain"},
    "remove the blocky JPEG compression artifacts": {"jpeg"},
    "the camera shook, remove the motion blur": {"motion"},
    "fill in the missing parts of the picture": {"holes"},
    "remove the noise and the haze": {"noise", "haze"},
}
STAYING = {
    "take the noise out but keep the haze": ("noise", "haze"),
    "keep the grain, remove the rain": ("rain", "noise"),
    "fix the lighting, but don't touch the film grain": ("lowlight", "noise"),
}
UNRELATED = ["what is the capital of France?", "make the sky purple", "add a dog next to the car", "write me a poem"]


@pytest.mark.parametrize("prompt", NAMED)
def test_what_is_named_goes_and_nothing_else(prompt):
    intent = read_intent(prompt)
    assert {kind for kind, chance in intent.remove.items() if chance > 0.5} == NAMED[prompt], describe(intent)
    assert intent.is_restoration > 0.5 and intent.everything < 0.5


@pytest.mark.parametrize("prompt", STAYING)
def test_what_shall_stay_is_told_from_what_shall_go(prompt):
    going, staying = STAYING[prompt]
    intent = read_intent(prompt)
    assert intent.remove[going] > 0.5 > intent.keep[going]
    assert intent.keep[staying] > 0.5 > intent.remove[staying]
    assert "keep" in describe(intent)


@pytest.mark.parametrize("prompt", UNRELATED)
def test_what_is_no_restoration_is_said_to_be_none(prompt):
    intent = read_intent(prompt)
    assert intent.is_restoration < 0.5 and max(intent.remove.values()) < 0.5
    assert describe(intent).startswith("this does not ask for restoration (")


def test_requests_for_everything_and_for_nothing():
    everything, blind, nothing = read_intents(["fix this photo", "  ", "leave this photo exactly as it is"])
    for intent in (everything, blind):
        assert min(intent.remove.values()) > 0.5 and intent.is_restoration > 0.5
        assert describe(intent).startswith("remove whatever is wrong")
    assert max(nothing.remove.values()) < 0.5 and nothing.asks["nothing"] > 0.5
    assert describe(nothing).startswith("leave the photograph as it is")


def test_numbers_are_probabilities_of_the_kinds_and_repeat():
    prompts = ["remove the noise", "hello there", "", "remove the noise", "fix   my\nold photo " * 3]
    intents = read_intents(prompts)
    assert [intent.prompt for intent in intents] == prompts
    for intent in intents:
        assert tuple(intent.remove) == tuple(intent.keep) == KINDS  # the shipped file agrees with the data's kinds
        values = [*intent.remove.values(), *intent.keep.values(), intent.everything, *intent.asks.values()]
        assert all(0 <= value <= 1 for value in values) and sum(intent.asks.values()) == pytest.approx(1)
    alone = read_intent(prompts[0])
    assert intents[0] == intents[3]
    assert list(alone.remove.values()) == pytest.approx(list(intents[0].remove.values()), abs=1e-4)
    with pytest.raises(TypeError, match="read_intents"):
        read_intent(prompts)


def test_padding_and_company_change_nothing():
    head = intent_module.load_head()
    rows = [torch.randn(length, 384, generator=torch.Generator().manual_seed(length)) for length in (2, 5, 30)]
    together = head.probabilities(rows)
    assert together.shape == (3, 2 * len(KINDS) + 4)
    assert torch.allclose(together, torch.cat([head.probabilities([row]) for row in rows]), atol=1e-5)


def test_the_shipped_file_is_small_and_says_how_it_was_trained():
    assert intent_module._FILE.stat().st_size <= 1_000_000
    record = intent_module.load_head().training_record
    assert record["requests"] > 10_000 and 0.75 < record["val_macro_f1"] <= 1 and "train_intent.py" in record["command"]


def test_a_missing_or_damaged_file_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"gone\.safetensors is missing; install"):
        intent_module.load_head(tmp_path / "gone.safetensors")
    damaged = tmp_path / "cut.safetensors"
    damaged.write_bytes(intent_module._FILE.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.safetensors is damaged"):
        intent_module.load_head(damaged)


def test_command(capsys, monkeypatch):
    assert prompt_mamba_cli.main(["intent", "take the grain out"]) == 0
    assert capsys.readouterr().out.startswith("remove noise (")
    monkeypatch.setattr(sys, "stdin", iter(["remove the rain\n", "\n", "what time is it?\n"]))
    assert prompt_mamba_cli.main(["intent", "-", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["remove"]["rain"] > 0.5 > first["remove"]["noise"] and second["is_restoration"] < 0.5
    assert tuple(first["remove"]) == KINDS and second["sentence"] == describe(read_intent("what time is it?"))
    monkeypatch.setattr(sys, "stdin", iter([]))
    assert prompt_mamba_cli.main(["intent", "-"]) == 2
    assert capsys.readouterr().err == "prompt-mamba: there is no request on standard input\n"
