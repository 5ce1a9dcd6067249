"""Tiles that cover an image, and their seamless sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["restore_in_tiles", "tile_starts"]


def tile_starts(size: int, tile: int, overlap: int, multiple: int) -> list[int]:
    """Where tiles begin along one side so that they cover it; neighbours share at least `overlap` pixels.

    Starts lie on multiples of `multiple`, so that a network which works on a grid sees the same grid in every tile, and
    the last tile ends at the image's edge, a little shorter than the others if need be. Only where `multiple` does not
    fit into a tile is there no grid.
    """
    if tile >= size:
        return [0]
    step = max(tile - overlap, 1)
    if step < multiple:
        multiple = 1
    step = step // multiple * multiple
    last = -(-(size - tile) // multiple) * multiple
    return [*range(0, size - tile, step), last]


def _ramp(size: int, start: int, whole: int, overlap: int) -> np.ndarray:
    """(size,) weights: 1 inside; towards sides that are not the image's own edge they fall smoothly, to 0 for the outer
    quarter of the overlap, where the network saw little of what lies around."""
    weight = np.ones(size, np.float32)
    margin = overlap // 4
    feather = overlap - 2 * margin
    rise = np.sin(np.linspace(0, np.pi / 2, feather + 2, dtype=np.float32)[1:-1]) ** 2
    rise = np.concatenate([np.zeros(margin, np.float32), rise])
    if start > 0:
        weight[: len(rise)] *= rise[:size]
    if start + size < whole:
        weight[max(size - len(rise), 0) :] *= rise[:size][::-1]
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

    What `run` makes of a pixel may depend on pixels up to a quarter of the overlap away: then tiles change nothing.

    Args:
        image: (H, W, C) float32.
        run: (h, w, C) -> (h * upscale, w * upscale, C), for any h and w up to `tile`.
        tile, multiple: pixels; see `tile_starts`.
        overlap: pixels that neighbouring tiles share at least; at most half a tile.
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
        weight = 1
        for axis, side, whole in ((0, large[0], height), (1, large[1], width)):
            ramp = _ramp(side.stop - side.start, side.start, whole * upscale, overlap * upscale)
            weight = weight * np.expand_dims(ramp, (1 - axis, 2))  # (h, 1, 1) * (1, w, 1)
        total[large[0], large[1]] += result * weight
        weights[large[0], large[1]] += weight
        if progress is not None:
            progress(done, len(boxes))
    total /= weights
    return total
