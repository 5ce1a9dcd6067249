"""Tiles that cover an image, and their seamless sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["restore_in_blocks", "tile_spans"]


def tile_spans(size: int, tile: int, overlap: int, multiple: int) -> list[tuple[int, int]]:
    """(start, stop) of the tiles along one side: as few as cover it, of equal length, at most `tile`.

    Neighbours share `overlap` pixels; only the last tile may be shorter. Starts lie on multiples of `multiple`, so that
    a network which works on a grid sees the same grid in every tile. Only where `multiple` does not fit into a tile is
    there no grid.
    """
    if tile >= size:
        return [(0, size)]
    step = max(tile - overlap, 1)  # at most
    if step < multiple:
        multiple = 1
    step = step // multiple * multiple
    count = -(-(size - overlap) // step)
    # so many tiles with less between them: full ones would only overlap more
    step = -(-(size - overlap) // (count * multiple)) * multiple
    return [(start, min(start + step + overlap, size)) for start in range(0, count * step, step)]


def _windows(size: int, spans: list[tuple[int, int]], overlap: int) -> list[np.ndarray]:
    """(stop - start,) weights of each tile, which sum to one at every pixel of the side.

    They are 1 inside; towards sides that are not the image's own edge they fall smoothly, to 0 for the outer quarter of
    the overlap, where the network saw little of what lies around.
    """
    margin = overlap // 4
    feather = overlap - 2 * margin
    rise = np.sin(np.linspace(0, np.pi / 2, feather + 2, dtype=np.float32)[1:-1]) ** 2
    rise = np.concatenate([np.zeros(margin, np.float32), rise])
    windows, total = [], np.zeros(size, np.float32)
    for start, stop in spans:
        window = np.ones(stop - start, np.float32)
        if start > 0:
            window[: len(rise)] *= rise[: len(window)]
        if stop < size:
            window[max(len(window) - len(rise), 0) :] *= rise[: len(window)][::-1]
        windows.append(window)
        total[start:stop] += window
    return [window / total[start:stop] for window, (start, stop) in zip(windows, spans)]


def restore_in_blocks(
    image: np.ndarray,
    run: Callable[[np.ndarray], np.ndarray],
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
    upscale: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Runs `run` on overlapping tiles, blends them, and gives pixels away as soon as they are finished.

    So no more is held at a time than one tile and what a row of tiles shares with the next, however large the image is.
    What `run` makes of a pixel may depend on pixels up to a quarter of the overlap away: then tiles change nothing.

    Args:
        image: (H, W, C) of any type.
        run: (h, w, C) of that type -> (h * upscale, w * upscale, channels) float32, for any h and w up to `tile`.
        tile, multiple: pixels; see `tile_spans`.
        overlap: pixels that neighbouring tiles share; at most half a tile.
        progress: called with (tiles done, tiles in all).

    Yields:
        Row and column of the result at which the block begins, and the block, (rows, columns, channels) float32; row of
        tiles by row of tiles, each from the left to the right. Together they cover every pixel once.
    """
    height, width = image.shape[:2]
    rows, columns = (tile_spans(side, tile, overlap, multiple) for side in (height, width))
    tiles = len(rows) * len(columns)
    down, across = (
        _windows(side * upscale, [(a * upscale, b * upscale) for a, b in spans], overlap * upscale)
        for side, spans in ((height, rows), (width, columns))
    )
    above = None  # (rows, W * upscale, channels): what the rows of tiles so far gave to the rows of the next one
    for i, (top, bottom) in enumerate(rows):
        finished = ((rows[i + 1][0] if i + 1 < len(rows) else height) - top) * upscale
        below, before = None, None  # before: what the tiles so far of this row gave to the columns of the next one
        for j, (left, right) in enumerate(columns):
            block = run(image[top:bottom, left:right])
            if tiles > 1:
                block = block * (down[i][:, None, None] * across[j][None, :, None])
            if before is not None:
                block[:, : before.shape[1]] += before
            done = ((columns[j + 1][0] if j + 1 < len(columns) else width) - left) * upscale
            before = block[:, done:].copy()
            block = block[:, :done]
            place = slice(left * upscale, left * upscale + done)
            if above is not None:
                block[: len(above)] += above[:, place]
            if len(block) > finished:
                if below is None:
                    below = np.empty((len(block) - finished, width * upscale, block.shape[2]), np.float32)
                below[:, place] = block[finished:]
            if progress is not None:
                progress(i * len(columns) + j + 1, tiles)
            yield top * upscale, place.start, block[:finished]
        above = below
