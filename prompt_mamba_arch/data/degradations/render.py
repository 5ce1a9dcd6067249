"""From a recipe and a clean image to the degraded image, with any kinds left out."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_mamba_arch.data.degradations.recipe import DEGRADATIONS, check_recipe, kinds_of
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import check_keys

__all__ = ["every_target", "render", "render_pair"]


def render(image: np.ndarray, recipe: str | Sequence[Mapping[str, Any]], without: Collection[str] = ()) -> np.ndarray:
    """Applies the steps of a recipe in their order, except those of the kinds in `without`.

    A pure function of its arguments: bit-identical in any process, however many threads there are. Each step draws
    from a generator of its own, seeded by the step's seed, and only as the image's size asks; leaving a step out
    changes no other's draw. After each step values are clipped to [0, 1], as a sensor and a file do; at the end they
    are rounded to 8 bits, as a file is. So degraded image and target can be stored and read back without a difference.
    Where no step is left, the image itself is returned, bit by bit (a copy; a 16-bit image keeps its 16 bits).

    Args:
        image: (H, W, 3) float32 RGB in [0, 1].
        recipe: list of steps or its JSON text; missing parameters have their defaults.
        without: kinds to leave out. Kinds that are not in the recipe do no harm.

    Returns:
        (H, W, 3) float32 RGB in [0, 1].

    Raises:
        UserError: the recipe, or a kind in `without`, is not valid.
        ValueError: the image is not as described.
    """
    return _render(_checked(image), _steps(recipe, without), {})


def render_pair(
    image: np.ndarray, recipe: str | Sequence[Mapping[str, Any]], without: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """`(render(image, recipe), render(image, recipe, without))`; what both have in common at the start is done once."""
    image, memory = _checked(image), {}
    return _render(image, _steps(recipe, ()), memory), _render(image, _steps(recipe, without), memory)


def every_target(image: np.ndarray, recipe: str | Sequence[Mapping[str, Any]]) -> dict[frozenset[str], np.ndarray]:
    """{kinds removed: render(image, recipe, without=kinds removed)} for every subset of the recipe's kinds, the empty
    one (the degraded image) first and all kinds (the clean image) last. 2**n images, steps in common rendered once."""
    image = _checked(image)
    memory: dict = {}
    return {s: _render(image, _steps(recipe, s), memory) for s in _subsets(kinds_of(check_recipe(recipe)))}


def _subsets(kinds: Sequence[str]) -> Iterator[frozenset[str]]:
    for size in range(len(kinds) + 1):
        yield from map(frozenset, itertools.combinations(kinds, size))


def _checked(image: np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.float32 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"an image must be an (H, W, 3) float32 array, not {found}")
    if image.size == 0 or not (image.min() >= 0 and image.max() <= 1):  # also refuses NaN
        raise ValueError("an image must have pixels, all in [0, 1]")
    return np.ascontiguousarray(image)


def _steps(recipe: str | Sequence[Mapping[str, Any]], without: Collection[str]) -> list[dict]:
    without = (without,) if isinstance(without, str) else tuple(without)
    check_keys(dict.fromkeys(without), (*KINDS, "none"), "without")
    return [step for step in check_recipe(recipe) if step["kind"] not in ("none", *without)]


def _render(image: np.ndarray, steps: list[dict], memory: dict) -> np.ndarray:
    """`memory` keeps the result of each sequence of steps, for the caller who renders several of one image."""
    if not steps:
        return image.copy()
    done: tuple = ()
    for step in steps:
        done = (*done, repr(step))
        if done not in memory:
            rng = np.random.Generator(np.random.PCG64(step["seed"]))
            out = DEGRADATIONS[step["kind"]].apply(image, step["params"], rng)
            memory[done] = np.clip(out, 0, 1).astype(np.float32, copy=False)
        image = memory[done]
    return np.round(image * np.float32(255)) / np.float32(255)
