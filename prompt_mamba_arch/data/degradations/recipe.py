"""Recipes: what was done to an image, as plain JSON.

A recipe is an ordered list of steps `{"kind": …, "params": {…}, "seed": …}`. The step's parameters say what is done,
its seed fixes what is random about it (where the drops fall). Neither depends on the other steps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prompt_mamba_arch.data.degradations.blur import DEFOCUS, MOTION
from prompt_mamba_arch.data.degradations.compression import JPEG
from prompt_mamba_arch.data.degradations.haze import HAZE
from prompt_mamba_arch.data.degradations.holes import HOLES
from prompt_mamba_arch.data.degradations.lowlight import LOWLIGHT
from prompt_mamba_arch.data.degradations.lowres import LOWRES
from prompt_mamba_arch.data.degradations.noise import NOISE
from prompt_mamba_arch.data.degradations.rain import RAIN
from prompt_mamba_arch.data.degradations.spec import Degradation, weighted
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean

__all__ = [
    "DEGRADATIONS",
    "PHYSICAL_ORDER",
    "check_kinds",
    "check_ranges",
    "check_recipe",
    "kinds_of",
    "sample_recipe",
    "sample_step",
    "severity",
    "severity_word",
]

DEGRADATIONS: dict[str, Degradation] = {
    d.kind: d for d in (NOISE, DEFOCUS, MOTION, JPEG, LOWRES, RAIN, HAZE, LOWLIGHT, HOLES)
}
assert tuple(DEGRADATIONS) == KINDS

# The way of the light: the air, what falls through it, the lens, the pixel grid, the sensor, the file, the print.
# The pixel grid comes before the sensor's noise on purpose: what is kept can then be kept. Noise that was reduced with
# the picture could not be told any more, and "make it sharper but keep the grain" would have a target nobody can reach.
PHYSICAL_ORDER: tuple[str, ...] = (
    "haze", "rain", "defocus", "motion", "lowres", "lowlight", "noise", "jpeg", "holes",
)  # fmt: skip


def sample_recipe(
    seed: int,
    kinds: Iterable[str] | Mapping[str, float] | None = None,
    count: tuple[int, int] | int = (1, 3),
    *,
    ranges: Mapping[str, Mapping[str, Any]] | None = None,
    order: str = "physical",
) -> list[dict]:
    """Draws a recipe.

    Args:
        seed: the same seed and arguments give the same recipe, everywhere.
        kinds: what to draw from, each equally often, or {kind: weight}; default all. "none" stands for the image as
            it is: when it is drawn, the recipe is empty.
        count: how many different kinds, (least, most) both included, or a number; never more than there are kinds.
        ranges: {kind: {parameter: value, [low, high] or list of values}} instead of the default draws.
        order: "physical" (see PHYSICAL_ORDER) or "random".

    Returns:
        list of `{"kind", "params", "seed"}`.

    Raises:
        UserError: an unknown kind, parameter or order, or a value beyond its limits.
    """
    weights = check_kinds(kinds)
    overrides = check_ranges(ranges or {})
    least, most = (count, count) if isinstance(count, int) else count
    if isinstance(least, bool) or not 0 <= least <= most:
        raise UserError(f"count must be (least, most) with 0 <= least <= most, not {count!r}")
    if order not in ("physical", "random"):
        raise UserError(f"order must be physical or random, not {order!r}{did_you_mean(order, ('physical', 'random'))}")
    rng = random.Random(seed)
    wanted = least + int(rng.random() * (most - least + 1))
    left = {kind: weight for kind, weight in weights.items() if weight > 0}
    drawn: list[str] = []
    while left and len(drawn) < wanted:
        kind = weighted(rng.random(), tuple(left), tuple(left.values()))
        if kind == "none":
            return []
        drawn.append(kind)
        del left[kind]
        left.pop("none", None)  # only the first draw may say "as it is"
    if order == "physical":
        drawn.sort(key=PHYSICAL_ORDER.index)
    recipe = [sample_step(kind, rng.getrandbits(48), overrides.get(kind)) for kind in drawn]
    if "noise" in drawn and "photons" not in overrides.get("lowlight", {}):
        for step in recipe:  # one noise is enough: "remove the noise" must mean all of it
            if step["kind"] == "lowlight":
                step["params"]["photons"] = 0
    return recipe


def sample_step(kind: str, seed: int, overrides: Mapping[str, Any] | None = None) -> dict:
    """One step of a recipe; parameters and the step's own seed come from `seed` alone."""
    rng = random.Random(seed)
    return {"kind": kind, "params": DEGRADATIONS[kind].sample(rng, overrides), "seed": rng.getrandbits(48)}


def check_kinds(kinds: Iterable[str] | Mapping[str, float] | None) -> dict[str, float]:
    """{kind: weight}, in the order of KINDS.

    Raises:
        UserError: an unknown kind, or a weight that is not a number >= 0, or no kind at all.
    """
    if kinds is None:
        return dict.fromkeys(KINDS, 1.0)
    if isinstance(kinds, str):
        kinds = (kinds,)
    given = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds, 1.0)
    check_keys(given, (*KINDS, "none"), "kinds")
    for kind, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise UserError(f"the weight of {kind} in kinds must be a number from 0 on, not {weight!r}")
    if not any(given.values()):
        raise UserError("kinds: none is given, or all have weight 0")
    return {kind: float(given[kind]) for kind in (*KINDS, "none") if kind in given}


def check_ranges(ranges: Mapping[str, Mapping[str, Any]]) -> dict[str, dict]:
    """Checks what replaces default draws: {kind: {parameter: value, [low, high] or list of values}}."""
    check_keys(ranges, KINDS, "ranges")
    return {kind: DEGRADATIONS[kind].check_overrides(given, f"ranges.{kind}") for kind, given in ranges.items()}


def check_recipe(recipe: str | Sequence[Mapping[str, Any]]) -> list[dict]:
    """A recipe (or its JSON text) with every parameter there: those left out get their defaults, a missing seed is 0.

    Raises:
        UserError: not a list of steps, an unknown kind, key or parameter, or a value beyond its limits.
    """
    if isinstance(recipe, str):
        try:
            recipe = json.loads(recipe)
        except ValueError as error:
            raise UserError(f"the recipe is not JSON: {error}") from None
    if isinstance(recipe, Mapping) or not isinstance(recipe, Sequence):
        raise UserError(f"a recipe is a list of steps, not {recipe!r}")
    return [_check_step(step, f"recipe step {number}") for number, step in enumerate(recipe, start=1)]


def _check_step(step: Mapping[str, Any], where: str = "step") -> dict:
    check_keys(step, ("kind", "params", "seed"), where)
    kind = step.get("kind")
    if kind not in DEGRADATIONS and kind != "none":
        hint = did_you_mean(kind, KINDS) or f"; kinds are {', '.join(KINDS)}"
        raise UserError(f"unknown kind {kind!r} in {where}{hint}")
    seed = step.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UserError(f"the seed of {where} must be a whole number from 0 on, not {seed!r}")
    params = step.get("params", {})
    if kind == "none":
        check_keys(params, (), f"{where} (none)")
        return {"kind": kind, "params": {}, "seed": seed}
    return {"kind": kind, "params": DEGRADATIONS[kind].complete(params, f"{where} ({kind})"), "seed": seed}


def kinds_of(recipe: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """The kinds in a recipe, each once, in the order of KINDS; "none" is no degradation."""
    present = {step["kind"] for step in recipe}
    return tuple(kind for kind in KINDS if kind in present)


def severity(step: Mapping[str, Any]) -> float:
    """How visible the damage of one step is, from its parameters: 0 (none) to 1."""
    step = _check_step(step)
    return 0.0 if step["kind"] == "none" else float(DEGRADATIONS[step["kind"]].severity(step["params"]))


def severity_word(step: Mapping[str, Any]) -> str:
    """ "slight" (severity below 1/3), "moderate" or "heavy" (2/3 and more)."""
    value = severity(step)
    return "slight" if value < 1 / 3 else "moderate" if value < 2 / 3 else "heavy"
