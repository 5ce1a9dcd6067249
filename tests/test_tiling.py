"""Tiles cover the image and sum up to it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from prompt_mamba_arch.tiling import restore_in_tiles, tile_starts


@pytest.mark.parametrize("size", [1, 63, 64, 65, 100, 257])
@pytest.mark.parametrize(("tile", "overlap", "multiple"), [(64, 16, 8), (64, 0, 1), (65, 30, 4)])
def test_tiles_cover_every_pixel_and_overlap(size, tile, overlap, multiple):
    starts = tile_starts(size, tile, overlap, multiple)
    ends = [min(start + tile, size) for start in starts]
    assert starts[0] == 0 and ends[-1] == size and starts == sorted(starts)
    assert all(after <= end - overlap for after, end in zip(starts[1:], ends))
    assert all(start % multiple == 0 for start in starts[:-1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (150, 133)])
@pytest.mark.parametrize("upscale", [1, 2])
def test_tiles_of_a_local_operation_are_the_whole(shape, upscale):
    image = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)

    def blurred(part):
        part = cv2.blur(part, (5, 5), borderType=cv2.BORDER_REPLICATE).reshape(part.shape)
        return part.repeat(upscale, 0).repeat(upscale, 1)

    seen = []
    tiled = restore_in_tiles(
        image, lambda x: x.repeat(upscale, 0).repeat(upscale, 1), tile=64, overlap=16, upscale=upscale,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert np.allclose(tiled, image.repeat(upscale, 0).repeat(upscale, 1), atol=1e-6)
    assert seen == [(n, seen[-1][1]) for n in range(1, seen[-1][1] + 1)]
    # a blur's tiles are wrong at their edges, where their weight is smallest
    whole, tiled = blurred(image), restore_in_tiles(image, blurred, tile=64, overlap=16, upscale=upscale)
    assert np.abs(whole - tiled).max() < 0.05
