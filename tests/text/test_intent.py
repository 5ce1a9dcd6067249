"""read_intent on sentences as people write them (the short ones are in the bank's train split, too): what goes, what
stays, and what is no restoration."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import prompt_mamba_cli
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import TextEncoder, describe, read_intent, read_intents
from prompt_mamba_arch.text import intent as intent_module

NAMED = {
    "reduce the noise in the night sky": {"noise"},
    "remove the scratches from grandma's old photo": {"holes"},
    "my pictures from the concert came out so grainy, please get rid of that": {"noise"},
    "could you denoise this for me": {"noise"},
    "get rid of the coloured speckles": {"noise"},
    "I'd love to have the fog taken out of this valley": {"haze"},
    "can you clear up the haze over the mountains?": {"haze"},
    "dehaze the skyline please": {"haze"},
    "it was a misty morning, I want to see the hills": {"haze"},
    "would you brighten this up, it was taken in the middle of the night": {"lowlight"},
    "way too dark, make it brighter": {"lowlight"},
    "I can hardly see anyone, the room was so dark": {"lowlight"},
    "fix the underexposure": {"lowlight"},
    "upscale this tiny thing to 4k": {"lowres"},
    "this logo is pixelated, I need a larger version": {"lowres"},
    "super-resolution please": {"lowres"},
    "remove the raindrops please": {"rain"},
    "it rained during the wedding, remove the rain streaks": {"rain"},
    "derain this image": {"rain"},
    "remove the blocky JPEG compression artifacts": {"jpeg"},
    "whatsapp compressed my photo, clean up the artifacts": {"jpeg"},
    "get rid of the compression artifacts around the text": {"jpeg"},
    "the camera shook, remove the motion blur": {"motion"},
    "my hands were shaking when I took the picture, fix the camera shake": {"motion"},
    "remove the motion blur from the running dog": {"motion"},
    "the face is out of focus, please correct the focus": {"defocus"},
    "remove the out of focus blur": {"defocus"},
    "the autofocus missed the bird": {"defocus"},
    "sharpen this blurry photo": {"defocus", "motion"},
    "deblur": {"defocus", "motion"},
    "the picture is blurry, can you make it sharp?": {"defocus", "motion"},
    "fill in the missing parts of the picture": {"holes"},
    "remove the watermark": {"holes"},
    "inpaint the masked areas": {"holes"},
    "remove the noise and the haze": {"noise", "haze"},
    "denoise and brighten": {"noise", "lowlight"},
    "remove the rain and fix the JPEG artifacts": {"rain", "jpeg"},
    "only remove the noise, leave everything else as it is": {"noise"},
    "just brighten it, nothing else": {"lowlight"},
    "don't touch anything but the rain": {"rain"},
}
PLAIN = {  # how most people ask
    "increase the resolution": {"lowres"},
    "increase resolution": {"lowres"},
    "double the resolution": {"lowres"},
    "increase the resolution four times": {"lowres"},
    "upscale it": {"lowres"},
    "make it sharper": {"defocus", "motion"},
    "remove the blur": {"defocus", "motion"},
    "increase the brightness": {"lowlight"},
    "brighten it up": {"lowlight"},
    "reduce the noise": {"noise"},
    "remove the noise": {"noise"},
    "remove the rain": {"rain"},
    "remove the haze": {"haze"},
    "remove the JPEG artifacts": {"jpeg"},
    "remove the scratches": {"holes"},
    "there's a lot of grain in the black areas of this one": {"noise"},
    "it's too dark": {"lowlight"},
    "It is too dark": {"lowlight"},
    "this photo is too dark": {"lowlight"},
    "my picture is way too dark": {"lowlight"},
    "why is it so dark?": {"lowlight"},
    "can't see anything": {"lowlight"},
    "It's too noisy": {"noise"},
    "it's too grainy": {"noise"},
    "it's too small": {"lowres"},
    "it's too blurry": {"defocus", "motion"},
    "this came out too hazy": {"haze"},
    "it's too blocky": {"jpeg"},
}
STAYING = {
    "take the noise out but keep the haze": ("noise", "haze"),
    "keep the grain, remove the rain": ("rain", "noise"),
    "fix the lighting, but don't touch the film grain": ("lowlight", "noise"),
    "remove the fog without touching the noise": ("haze", "noise"),
    "sharpen it but keep the film grain": ("defocus", "noise"),
    "get rid of the scratches, but leave the rain": ("holes", "rain"),
    "I like the mist, just take the noise out": ("noise", "haze"),
    "remove the compression artifacts, not the grain": ("jpeg", "noise"),
    "upscale it, but leave the motion blur as it is": ("lowres", "motion"),
    "brighten the photo, the rain can stay": ("lowlight", "rain"),
}
EVERYTHING = [
    "fix this photo",
    "restore this old picture",
    "make it look better",
    "improve the quality of my photo",
    "enhance this image",
    "clean up this picture please",
    "please repair everything that is wrong with it",
    "make this photo look as good as possible",
]
NOTHING = [
    "leave this photo exactly as it is",
    "don't change anything",
    "do not touch this picture",
    "leave it alone",
    "keep everything as it is",
    "no changes please",
    "I like it the way it is, do nothing",
    "it's perfect already, please leave it unchanged",
    "do nothing",
    "just return the original image",
]
UNRELATED = [
    "what is the capital of France?",
    "make the sky purple",
    "add a dog next to the car",
    "write me a poem",
    "what's the weather going to be tomorrow?",
    "turn this into a cartoon",
    "add some film grain to the photo",
    "blur the background",
    "make it darker",
    "remove the man in the red shirt",
    "who painted this?",
    "hello, how are you?",
    "crop it to a square",
    "add rain to the scene",
    "overexposed",
    "reduce the brightness",
    "lower the brightness",
    "it's too bright",
    "too bright, make it darker",
    "more blur",
]


@pytest.mark.parametrize("prompt", NAMED)
def test_what_is_named_goes_and_nothing_else(prompt):
    intent = read_intent(prompt)
    assert {kind for kind, chance in intent.remove.items() if chance > 0.5} == NAMED[prompt], describe(intent)
    assert intent.is_restoration > 0.5 and intent.everything < 0.5


@pytest.mark.parametrize("prompt", PLAIN)
def test_plain_requests_are_not_taken_for_something_else(prompt):
    """They were, in an earlier file: for conversation."""
    intent = read_intent(prompt)
    assert intent.meant == "restoration" and max(intent.remove, key=intent.remove.get) in PLAIN[prompt], describe(
        intent
    )


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


@pytest.mark.parametrize("prompt", ["  ", *EVERYTHING])
def test_requests_for_everything(prompt):
    intent = read_intent(prompt)
    assert min(intent.remove.values()) > 0.5 and intent.is_restoration > 0.5
    assert describe(intent).startswith("remove whatever is wrong")


@pytest.mark.parametrize("prompt", NOTHING)
def test_requests_for_nothing(prompt):
    intent = read_intent(prompt)
    assert max(intent.remove.values()) < 0.5 < intent.asks["nothing"], describe(intent)
    assert describe(intent).startswith("leave the photograph as it is")


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
    network, encoder = intent_module.load_network(), TextEncoder()
    prompts = ["denoise", "remove the rain, please", "take the haze out of my photo of the valley, but keep the grain"]
    together = network.probabilities(*encoder.tokens(prompts))
    assert together.shape == (3, 2 * len(KINDS) + 4)
    alone = torch.cat([network.probabilities(*encoder.tokens([prompt])) for prompt in prompts])
    assert torch.allclose(together, alone, atol=1e-4)


def test_prompts_are_remembered_and_the_callers_changes_are_not():
    first = read_intent("clear away the fog of yesterday")
    first.remove["haze"] = -1
    again = read_intent("clear away the fog of yesterday")
    assert again.remove["haze"] > 0.5 and again.keep == first.keep


def test_many_prompts_are_read_together():
    prompts = [f"remove the {thing} from picture {n}" for thing in ("noise", "rain") for n in range(70)]
    intents = read_intents(prompts)
    assert [intent.prompt for intent in intents] == prompts
    surest = [max(intent.remove, key=intent.remove.get) for intent in intents]
    assert surest == ["noise"] * 70 + ["rain"] * 70
    with pytest.raises(TypeError, match="read_intent takes"):
        read_intents("remove the noise")


def test_the_shipped_file_is_small_and_says_how_it_was_trained():
    assert intent_module._FILE.stat().st_size <= 3_000_000
    record = intent_module.load_network().training_record
    assert 0.85 < record["val_macro_f1"] <= 1 and "train_intent.py" in record["command"]
    assert sum(run.get("requests", 0) for run in (*record["before"], record)) > 10_000


def test_a_missing_or_damaged_file_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"gone\.safetensors is missing; install"):
        intent_module.load_network(tmp_path / "gone.safetensors")
    damaged = tmp_path / "cut.safetensors"
    damaged.write_bytes(intent_module._FILE.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cut\.safetensors is damaged"):
        intent_module.load_network(damaged)


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
