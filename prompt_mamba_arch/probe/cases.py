"""What the probe asks of one image. Everything follows from the image's key and a seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

from prompt_mamba_arch import prompts
from prompt_mamba_arch.data import KINDS, sample_recipe, severity
from prompt_mamba_arch.data.degradations import kinds_of, sample_step
from prompt_mamba_arch.prompts.bank import load

__all__ = ["COUNTS", "PHRASINGS", "REQUESTS", "Case", "cases_of", "identity"]

SPLIT = "test"  # phrasings that no training has seen
COUNTS = (1, 2, 3)  # degradations of an image
PHRASINGS = 4  # of the same request

# request -> what it is, for tables and captions
REQUESTS = {
    "right": "everything that is wrong is named",
    "empty": "no prompt",
    "subset": "some of it is named",
    "paraphrased": f"the same in {PHRASINGS} phrasings",
    "wrong": "something that is not there is named",
    "leave_alone": "leave it as it is",
    "unrelated": "nothing to do with restoration",
    "clean": "no prompt, and nothing is wrong",
    "contradictory": "remove it and keep it",
    "kind": "one kind alone, named",
    "kind_empty": "one kind alone, no prompt",
}

# {gone} and {kept} are two names of one thing, from the bank
_CONTRADICTIONS = (
    "remove {gone} but keep {kept}",
    "get rid of {gone} and don't touch {kept}",
    "{gone} out, and leave {kept} where you found it",
    "I want {gone} gone and {kept} in the picture",
)


class Case(NamedTuple):
    """One request for one image.

    Attributes:
        request: a key of `REQUESTS`.
        recipe: what is done to the clean image.
        remove: the kinds that the target lacks.
        prompts: what is typed, "" without a prompt; several where the results are compared with one another.
    """

    request: str
    recipe: list[dict]
    remove: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        return kinds_of(self.recipe)


def cases_of(key: str, kinds: Sequence[str] = KINDS, seed: int = 0, *, per_kind: bool = False) -> list[Case]:
    """All cases of the image `key`.

    The image is degraded three times, by 1, 2 and 3 of `kinds` (as many as there are). Each draw has a generator of
    its own, so that one more kind of request changes no other.
    """

    def rng(purpose: str) -> random.Random:
        return random.Random(hashlib.sha256(f"{seed}:{key}:{purpose}".encode()).digest())

    cases = []
    for count in COUNTS[: len(kinds)]:
        recipe = sample_recipe(rng(f"recipe {count}").getrandbits(48), kinds, count)
        present = kinds_of(recipe)
        remove, text = present, _ask(recipe, present, rng(f"right {count}"))
        cases += [Case("right", recipe, present, (text,)), Case("empty", recipe, present, ("",))]
        if count > 1:
            draw = rng(f"subset {count}")
            remove = tuple(sorted(draw.sample(present, draw.randint(1, count - 1)), key=KINDS.index))
            text = _ask(recipe, remove, draw)
            cases.append(Case("subset", recipe, remove, (text,)))
        if count == min(2, len(kinds)):  # of one of the three: each phrasing is a run of the network
            texts = _phrasings(text, recipe, remove, rng("paraphrased"))
            cases.append(Case("paraphrased", recipe, remove, texts))
        if count < 3:
            cases += _wrong(recipe, kinds, rng(f"wrong {count}"))
        if count == 1:
            text = _contradiction(present[0], recipe, rng("contradictory"))
            cases.append(Case("contradictory", recipe, present, (text,)))
        if count == min(2, len(kinds)):
            cases.append(Case("leave_alone", recipe, (), (prompts.leave_alone(rng("leave alone"), SPLIT, present),)))
        if count == min(3, len(kinds)):
            cases.append(Case("unrelated", recipe, (), (prompts.unrelated(rng("unrelated"), SPLIT),)))
    cases.append(Case("clean", [], (), ("",)))
    for kind in kinds if per_kind else ():
        draw = rng(f"kind {kind}")
        recipe = [sample_step(kind, draw.getrandbits(48))]
        text = prompts.from_parameters(recipe, (kind,), draw, SPLIT, severity=_severities(recipe), generic=False)
        cases.append(Case("kind", recipe, (kind,), (text,)))
        cases.append(Case("kind_empty", recipe, (kind,), ("",)))
    return cases


def identity(case: Case, *others: str) -> str:
    """A name for the case as it is asked of the image, crop and network that `others` stand for."""
    return hashlib.sha256(json.dumps([*case, *others]).encode()).hexdigest()[:24]


def _ask(recipe: list[dict], remove: Collection[str], rng: random.Random) -> str:
    return prompts.from_parameters(recipe, remove, rng, SPLIT, severity=_severities(recipe))


def _severities(recipe: list[dict]) -> dict[str, float]:
    return {step["kind"]: severity(step) for step in recipe}


def _phrasings(first: str, recipe: list[dict], remove: Collection[str], rng: random.Random) -> tuple[str, ...]:
    """`first` and other texts of the same request."""
    texts = {first.casefold(): first}
    for _ in range(20 * PHRASINGS):  # a bank of few phrases may not have as many
        if len(texts) == PHRASINGS:
            break
        text = _ask(recipe, remove, rng)
        texts.setdefault(text.casefold(), text)
    return tuple(texts.values())


def _wrong(recipe: list[dict], kinds: Sequence[str], rng: random.Random) -> list[Case]:
    """A request for what is not there; none where everything is there."""
    present = kinds_of(recipe)
    absent = [kind for kind in kinds if kind not in present] or [kind for kind in KINDS if kind not in present]
    # a dark picture's own noise is noise to whoever looks at it
    if any(step["kind"] == "lowlight" and step["params"]["photons"] for step in recipe):
        absent = [kind for kind in absent if kind != "noise"]
    if not absent:
        return []
    kind = rng.choice(absent)
    # the writer is told of what is there, too: a wish for everything would have another target
    told = [*recipe, sample_step(kind, rng.getrandbits(48))]
    text = prompts.from_parameters(told, (kind,), rng, SPLIT, severity=_severities(told), generic=False)
    return [Case("wrong", recipe, (), (text,))]


def _contradiction(kind: str, recipe: list[dict], rng: random.Random) -> str:
    bank = load()[SPLIT]
    params = next(step["params"] for step in recipe if step["kind"] == kind)
    names = bank[kind].phrases(params)["name"]
    gone, kept = (rng.choice(names).draw(rng) for _ in range(2))
    text = rng.choice(_CONTRADICTIONS).format(gone=gone, kept=kept)
    return text.replace("{photo}", rng.choice(bank["frames"].phrases()["photo"]).draw(rng))
