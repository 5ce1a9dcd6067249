"""The prompt bank: enough phrasings, splits that share none, requests that say what their target shows."""

from __future__ import annotations

import random
import re

import pytest

from prompt_mamba_arch import prompts
from prompt_mamba_arch.data import KINDS, sample_recipe, severity
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prompts.bank import SPLITS

LEAST = {"train": 180, "val": 30, "test": 75}


def normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_many_phrasings_and_no_split_has_anothers(kind):
    phrases = {split: [normalised(p) for p in prompts.phrasings(kind, split)] for split in SPLITS}
    for split, texts in phrases.items():
        assert len(set(texts)) >= LEAST[split], (split, len(set(texts)))
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not set(phrases[one]) & set(phrases[other])


@pytest.mark.parametrize("name", ["blur", "everything", "leave_alone", "unrelated"])
def test_no_split_has_anothers_requests_of_other_sorts(name):
    train, val, test = ({normalised(p) for p in prompts.phrasings(name, split)} for split in SPLITS)
    assert min(len(train) / 10, len(val), len(test)) >= 14
    assert not train & val and not train & test and not val & test


@pytest.mark.parametrize("split", SPLITS)
def test_requests_follow_from_the_generator_alone(split):
    def draw():
        rng, texts = random.Random(5), []
        for number in range(200):
            recipe = sample_recipe(number)
            remove = [step["kind"] for step in recipe if rng.random() < 0.6]
            texts.append(prompts.from_parameters(recipe, remove, rng, split=split))
            texts += [prompts.unrelated(rng, split=split), prompts.leave_alone(rng, split=split)]
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
