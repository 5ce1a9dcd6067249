"""The prompt bank: enough phrasings, splits that share none, requests that say what their target shows."""

from __future__ import annotations

import random
import re

import pytest

from prompt_mamba_arch import prompts
from prompt_mamba_arch.data import KINDS, sample_recipe, severity
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prompts.bank import SPLITS
from prompt_mamba_arch.prompts.compose import photo_words, templates

LEAST = {"train": 180, "val": 30, "test": 75}


def normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


# "fix this photo" and "fix the old picture" are one phrasing
IMAGE = sorted({normalised(word) for split in SPLITS for word in photo_words(split)}, key=len, reverse=True)
IS_IMAGE = re.compile(rf"\b(?:{'|'.join(IMAGE)})\b")


def in_any_words(text: str) -> set[str]:
    """The phrasing, with whatever an image is called in any split."""
    open_text = IS_IMAGE.sub("{}", normalised(text.replace("{photo}", IMAGE[0])))
    return {open_text.replace("{}", word) for word in IMAGE}


@pytest.mark.parametrize("name", [*KINDS, "blur", "everything", "leave_alone", "unrelated"])
def test_there_are_many_phrasings_and_no_split_has_anothers(name):
    phrases = {split: {normalised(p) for p in prompts.phrasings(name, split)} for split in SPLITS}
    if name in KINDS:
        assert all(len(phrases[split]) >= least for split, least in LEAST.items())
    assert min(len(phrases["train"]) / 10, len(phrases["val"]), len(phrases["test"])) >= 14
    seen = {normalised(text.replace("{photo}", IMAGE[0])) for text in templates(name, "train")}
    for split in ("val", "test"):
        held_out = [in_any_words(text) for text in templates(name, split)]
        if not seen.isdisjoint(set().union(*held_out)):  # not shown: who writes for the train split shall not read it
            pytest.fail(f"a phrasing of {split} follows from another split")
        seen.update(*held_out)


@pytest.mark.parametrize("split", SPLITS)
def test_requests_follow_from_the_generator_alone(split):
    def draw():
        rng, texts = random.Random(5), []
        for number in range(200):
            recipe = sample_recipe(number)
            remove = [step["kind"] for step in recipe if rng.random() < 0.6]
            texts.append(prompts.from_parameters(recipe, remove, rng, split=split))
            texts += [prompts.unrelated(rng, split=split), prompts.leave_alone(rng, split=split)]
            complaint = prompts.complaint(rng, split=split)
            assert complaint.remove and complaint.asks == "restoration" and not complaint.keep
            texts.append(complaint.text)
        return texts

    texts = draw()
    assert texts == draw() and all(text.strip() for text in texts) and len(set(texts)) > 300


# words that only a request about this kind would use
WORDS = {
    "noise": r"(?<!mosquito )(?<!compression )nois|grain|speckl|specks|iso\b",
    "rain": r"rain|drizzl|downpour|drops",
    "haze": r"haz|fog|mist(?!ak)|smog",
}


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("split", SPLITS)
def test_what_is_not_there_is_never_mentioned(kind, split):
    rng = random.Random(1)
    others = [other for other in KINDS if other != kind]
    for number in range(300):
        recipe = sample_recipe(number, kinds=others)
        present = [step["kind"] for step in recipe]
        remove = rng.sample(present, rng.randint(1, len(present)))
        text = prompts.from_parameters(recipe, remove, rng, split=split)
        assert not re.search(rf"\b(?:{WORDS[kind]})", text.lower()), (present, remove, text)


def test_severity_words_agree():
    rng = random.Random(2)
    adjectives = ("heavy|extreme|severe", "slight|faint|mild")
    heavy, slight = (re.compile(rf"\b({words}) (noise|grain)") for words in adjectives)
    said = 0
    for number in range(1500):
        recipe = sample_recipe(number, kinds=("noise",), count=1)
        value = severity(recipe[0])
        text = prompts.from_parameters(recipe, ["noise"], rng, severity={"noise": value}).lower()
        said += bool(heavy.search(text) or slight.search(text))
        assert not (value < 1 / 3 and heavy.search(text)), (value, text)
        assert not (value > 2 / 3 and slight.search(text)), (value, text)
    assert said > 10


def test_a_wish_for_what_is_not_there_is_never_a_wish_for_everything(tmp_path, paired_folders):
    from prompt_mamba_arch.data.prompt_degradation_dataset import PromptDegradationDataset

    dataset = PromptDegradationDataset(
        {"name": "d", "type": "PromptDegradationDataset", "phase": "train", "dataroot_gt": str(paired_folders.gt),
         "gt_size": 32, "requests": {"absent": 1}, "prompt_dropout": 0}
    )  # fmt: skip
    everything = {normalised(text) for text in prompts.phrasings("everything", "train")}
    drawn = [dataset.request(seed) for seed in range(400)]
    assert not any(normalised(request.prompt) in everything for request in drawn)
    sample = dataset[0]
    assert sample["prompt"] and (sample["lq"] == sample["gt"]).all()


def test_mistakes_are_named():
    with pytest.raises(UserError, match="train"):
        prompts.unrelated(random.Random(0), split="trian")
    with pytest.raises(UserError, match="noise"):
        prompts.phrasings("niose", "train")
