"""Tiles that cover an image, and their seamless sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["restore_in_tiles", "tile_starts"]


def tile_starts(size: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Where tiles begin along one side so that they cover it: evenly spread, neighbours share at least `overlap`.

    All but the last start lie on multiples of `multiple`, so that a network which works on a grid sees the same grid in
    every tile; the last one ends at the image's edge if it can (`tile` >= size: one tile from 0).
    """
    if tile >= size:
        return [0]
    step = max(tile - overlap, 1) // multiple * multiple or multiple
    starts = list(range(0, size - tile, step))
    return [*starts, size - tile]


def _ramp(size: int, start: int, whole: int, feather: int) -> np.ndarray:
    """(size,) weights: 1 inside, falling smoothly towards sides that are not the image's own edge; never 0."""
    weight = np.ones(size, np.float32)
    feather = min(feather, size)
    rise = np.sin(np.linspace(0, np.pi / 2, feather + 2, dtype=np.float32)[1:-1]) ** 2
    if start > 0:
        weight[:feather] *= rise
    if start + size < whole:
        weight[size - feather :] *= rise[::-1]
    return weight


def _boxes(height: int, width: int, tile: int, overlap: int, multiple: int) -> Iterator[tuple[slice, slice]]:
    for top in tile_starts(height, tile, overlap, multiple):
        for left in tile_starts(width, tile, overlap, multiple):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def restore_in_tiles(
    image: np.ndarray,
    run: Callable[[np.ndarray], np.ndarray],
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
    upscale: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Runs `run` on overlapping tiles and blends them, each weighted by how far its edge is.

    Args:
        image: (H, W, C) float32.
        run: (h, w, C) -> (h * upscale, w * upscale, C), for any h and w up to `tile`.
        tile, overlap, multiple: pixels; see `tile_starts`.
        progress: called with (tiles done, tiles in all).

    Returns:
        (H * upscale, W * upscale, C) float32.
    """
    height, width = image.shape[:2]
    total = np.zeros((height * upscale, width * upscale, image.shape[2]), np.float32)
    weights = np.zeros((height * upscale, width * upscale, 1), np.float32)
    boxes = list(_boxes(height, width, tile, overlap, multiple))
    for done, (rows, columns) in enumerate(boxes, start=1):
        result = run(image[rows, columns])
        large = [slice(s.start * upscale, s.stop * upscale) for s in (rows, columns)]
        feather = overlap * upscale
        weight = _ramp(large[0].stop - large[0].start, large[0].start, height * upscale, feather)[:, None, None]
        weight = weight * _ramp(large[1].stop - large[1].start, large[1].start, width * upscale, feather)[None, :, None]
        total[large[0], large[1]] += result * weight
        weights[large[0], large[1]] += weight
        if progress is not None:
            progress(done, len(boxes))
    total /= weights
    return total
