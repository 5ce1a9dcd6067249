"""What one participant sees, and in which order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.study.materials import Materials

__all__ = ["CHECK", "PAIR", "RATING", "SIDES", "Design", "Trial", "draw"]

PAIR, CHECK, RATING = "pair", "check", "rating"
SIDES = ("left", "right")


@dataclass(frozen=True)
class Design:
    """How much one participant is asked.

    Attributes:
        comparisons: of two methods' results of one image.
        shared: so many of these are the same for all, so that their agreement can be told.
        ratings: of how well one result does what was asked; only where there are prompts.
        checks: comparisons of a result with itself spoiled beyond doubt, among the others.
        participants: who may begin; more are turned away.
    """

    comparisons: int = 30
    shared: int = 6
    ratings: int = 10
    checks: int = 3
    participants: int = 1000

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            least = 1 if field.name in ("comparisons", "participants") else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{field.name} must be a whole number from {least} on, not {value!r}")


class Trial(NamedTuple):
    """One question.

    Attributes:
        kind: PAIR, CHECK or RATING.
        left, right: methods; of a rating only `left`; of a check both are the same.
        spoiled: which side of a check is, "" of others.
    """

    kind: str
    image: str
    left: str
    right: str = ""
    spoiled: str = ""


def draw(
    materials: Materials,
    design: Design,
    asked: Mapping[tuple[str, str, str], int],
    rng: random.Random,
) -> list[Trial]:
    """A participant's questions: those that all are asked, and of the rest what was asked least so far, so that all of
    it is asked equally often; then order and sides are random. Ratings come after the comparisons.

    Args:
        asked: (image, method, method in alphabetical order, or "" for ratings) -> how often that was asked of others.
    """

    def least(all_of_them: Sequence[tuple[str, str, str]], count: int) -> list[tuple[str, str, str]]:
        shuffled = rng.sample(all_of_them, len(all_of_them))
        return sorted(shuffled, key=lambda one: asked.get(one, 0))[:count]

    pairs = list(itertools.combinations(materials.methods, 2))  # alphabetical, as the methods are
    possible = [(image, a, b) for image in materials.images for a, b in pairs]
    # the same in every process
    shared = random.Random(0).sample(possible, min(design.shared, design.comparisons, len(possible)))
    others = [one for one in possible if one not in shared]
    compared = shared + least(others, design.comparisons - len(shared))
    trials = []
    for image, *two in compared:
        left, right = rng.sample(two, 2)
        trials.append(Trial(PAIR, image, left, right))
    rng.shuffle(trials)
    images = itertools.cycle(rng.sample(materials.images, len(materials.images)))
    for image in itertools.islice(images, design.checks):
        method = rng.choice(materials.methods)
        check = Trial(CHECK, image, method, method, rng.choice(SIDES))
        trials.insert(rng.randint(min(1, len(trials)), len(trials)), check)  # never the first
    rated = least([(i, m, "") for i in materials.images if i in materials.prompts for m in materials.methods],
                  design.ratings)  # fmt: skip
    rng.shuffle(rated)
    return trials + [Trial(RATING, image, method) for image, method, _ in rated]
