"""How well a request was followed: what should go is gone, what should stay is as it was.

Images are arrays (H, W, 3) in [0, 1], floating point, all of one shape. Decibels are peak signal-to-noise ratios with
peak 1, over all pixels and channels, and at most `MAX_DB`, which stands for "no difference": so tables and means hold
no infinity.

Terms: an image with the degradations `present`; a request to remove some of them; `target`, the exact result: the same
degradations rendered without the removed ones; `clean`, without any.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

__all__ = ["MAX_DB", "Adherence", "adherence", "kept_error", "kept_share", "no_harm", "psnr", "removed_error"]

MAX_DB = 100.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB between two images in [0, 1], at most MAX_DB."""
    a, b = _same_shape(a, b)
    return _decibel(float(np.mean((a - b) ** 2)))


def removed_error(output: np.ndarray, target: np.ndarray) -> float:
    """PSNR in dB of the output to the exact target: how much is left of what should go, and all other error with it."""
    return psnr(output, target)


def kept_error(output: np.ndarray, target: np.ndarray, clean: np.ndarray, block: int = 32) -> float:
    """How much the kept degradations were changed, in dB.

    What should stay is the component `target - clean`. In each block of pixels the output's error `output - target` is
    projected on it, that is, the error is reduced to "so much more or less of what should stay"; the PSNR is taken of
    that part alone. An output that leaves noise which should go is not blamed here, one that also removes the blur is.

    Args:
        block: side of the blocks in pixels; a removal may be local.

    Returns:
        dB, at most MAX_DB; nan where nothing was to be kept (target equals clean): average with `numpy.nanmean`.
    """
    energy = along = 0.0
    size = 0
    for kept, error in _blocks(output, target, clean, block):
        size += kept.size
        power = float(np.sum(kept**2))
        energy += power
        if power > 0:
            along += float(np.sum(kept * error)) ** 2 / power
    return _decibel(along / size) if energy > 0 else math.nan


def kept_share(output: np.ndarray, target: np.ndarray, clean: np.ndarray, block: int = 32) -> float:
    """Which share of the kept degradations is still there: 1 untouched, 0 removed, above 1 made stronger.

    The mean over blocks of the projection used in `kept_error`, weighted by the component's energy; nan where nothing
    was to be kept.
    """
    energy = along = 0.0
    for kept, error in _blocks(output, target, clean, block):
        energy += float(np.sum(kept**2))
        along += float(np.sum(kept * error))
    return 1 + along / energy if energy > 0 else math.nan


class Adherence(NamedTuple):
    """Which request the output looks like.

    Attributes:
        followed: the output is nearer to the asked target than to each of the others.
        margin: PSNR in dB to the asked target, less that to the nearest other one (within +-MAX_DB). 0 where there is
            no other.
        nearest: the removed kinds of the target that is nearest to the output (the asked one in a tie).
        chance: the share that a blind choice among the different targets would get right.
    """

    followed: bool
    margin: float
    nearest: frozenset[str]
    chance: float


def adherence(output: np.ndarray, targets: Mapping[frozenset[str], np.ndarray], asked: Collection[str]) -> Adherence:
    """Is the output nearer to the asked target than to the targets of the other subsets?

    Args:
        targets: {removed kinds: target} for every subset, as `prompt_mamba_arch.data.every_target` gives them. Targets
            equal to the asked one (a step that changed nothing in this image) do not count as others.
        asked: the kinds that the prompt asked to remove; one of the keys of `targets`.
    """
    asked = frozenset(asked)
    if asked not in targets:
        raise ValueError(f"no target for {sorted(asked)} among those of {[sorted(key) for key in targets]}")
    wanted = psnr(output, targets[asked])
    others = {
        removed: psnr(output, target)
        for removed, target in targets.items()
        if removed != asked and not np.array_equal(target, targets[asked])
    }
    if not others:
        return Adherence(True, 0.0, asked, 1.0)
    best = max(others, key=others.get)
    margin = wanted - others[best]
    distinct = 1 + len({np.ascontiguousarray(targets[removed]).tobytes() for removed in others})
    return Adherence(margin > 0, margin, asked if margin >= 0 else best, 1 / distinct)


def no_harm(output: np.ndarray, image: np.ndarray) -> float:
    """PSNR in dB of the output to the input, for requests to leave it as it is: MAX_DB is untouched."""
    return psnr(output, image)


def _decibel(mse: float) -> float:
    if math.isnan(mse):
        return math.nan
    return MAX_DB if mse <= 10 ** (-MAX_DB / 10) else -10 * math.log10(mse)


def _same_shape(*images: np.ndarray) -> tuple[np.ndarray, ...]:
    shapes = {np.shape(image) for image in images}
    if len(shapes) > 1 or not np.size(images[0]):
        raise ValueError(f"images to compare must have pixels and one shape, not {sorted(shapes)}")
    if any(np.issubdtype(np.asarray(image).dtype, np.integer) for image in images):
        raise ValueError("images to compare must be floating point in [0, 1]; divide integers by their maximum")
    return tuple(np.asarray(image, dtype=np.float64) for image in images)


def _blocks(output: np.ndarray, target: np.ndarray, clean: np.ndarray, block: int):
    """(kept component, error) of each block."""
    output, target, clean = _same_shape(output, target, clean)
    kept, error = target - clean, output - target
    for top in range(0, kept.shape[0], block):
        for left in range(0, kept.shape[1], block):
            window = np.s_[top : top + block, left : left + block]
            yield kept[window], error[window]
