"""Tiles cover the image, and blending them changes nothing that the network does not."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from prompt_mamba_arch.tiling import _windows, restore_in_blocks, tile_spans


def _noise(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def _restore(image, run, *, tile, overlap, **how):
    """The blocks put together, after a look at whether they cover every pixel once."""
    blocks = list(restore_in_blocks(image, run, tile=tile, overlap=overlap, **how))
    height, width = (max(at[i] + at[2].shape[i] for at in blocks) for i in (0, 1))
    result, times = np.empty((height, width, blocks[0][2].shape[2]), np.float32), np.zeros((height, width), int)
    for top, left, block in blocks:
        place = slice(top, top + block.shape[0]), slice(left, left + block.shape[1])
        result[place] = block
        times[place] += 1
    assert (times == 1).all()
    return result


@pytest.mark.parametrize("multiple", [1, 4, 8, 32])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (100, 25), (65, 0), (70, 34)])
def test_tiles_cover_every_size_with_the_overlap(tile, overlap, multiple):
    for size in [*range(1, 300), 1001]:
        spans = tile_spans(size, tile, overlap, multiple)
        assert spans[0][0] == 0 and spans[-1][1] == size
        assert all(0 < stop - start <= tile and start % multiple == 0 for start, stop in spans)
        for (_, stop), (start, end) in zip(spans, spans[1:]):
            assert start < end and (stop < end or stop == end == size)
            assert stop - start == min(overlap, size - start)


def test_no_tile_is_added_and_tiles_are_alike():
    """Of 1000 pixels three tiles of 512 would compute 1536; balanced ones compute little more than the image."""
    lengths = [stop - start for start, stop in tile_spans(1000, 512, 48, 8)]
    assert lengths == [368, 368, 360]
    for size in range(513, 5000, 7):
        spans = tile_spans(size, 512, 48, 8)
        step = (512 - 48) // 8 * 8
        assert len(spans) == -(-(size - 48) // step)  # as few as there can be
        assert len({stop - start for start, stop in spans[:-1]}) == 1


def test_a_multiple_that_fits_into_no_tile_leaves_no_gap():
    image = _noise(200, 150, 3)
    np.testing.assert_allclose(_restore(image, lambda part: part, tile=64, overlap=16, multiple=128), image, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 97), (97, 1), (31, 33), (64, 64), (65, 127), (130, 201)])
@pytest.mark.parametrize(("tile", "overlap", "multiple"), [(64, 16, 8), (33, 8, 1), (20, 7, 3), (16, 0, 1), (9, 1, 1)])
def test_identity_and_constants_survive_every_size(size, tile, overlap, multiple):
    image = _noise(*size, 3)
    how = {"tile": tile, "overlap": overlap, "multiple": multiple}
    np.testing.assert_allclose(_restore(image, lambda part: part, **how), image, atol=1e-6)
    # as 16-bit numbers, constants are exact
    constant = _restore(image, lambda part: np.full_like(part, 54321 / 65535), **how)
    assert (np.rint(constant * 65535) == 54321).all()


def test_a_local_network_gives_the_same_in_tiles_and_whole():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 5, padding=2))

    def run(part):
        with torch.no_grad():
            return net(torch.from_numpy(part.transpose(2, 0, 1).copy())[None])[0].permute(1, 2, 0).numpy()

    image = _noise(150, 171, 3)  # the network reaches 4 pixels far: a quarter of the overlap
    np.testing.assert_allclose(_restore(image, run, tile=64, overlap=16, multiple=8), run(image), atol=1e-6)
    with pytest.raises(AssertionError):  # and with a smaller overlap this test would notice
        np.testing.assert_allclose(_restore(image, run, tile=64, overlap=4, multiple=8), run(image), atol=1e-6)


@pytest.mark.parametrize("upscale", [2, 3])
def test_enlarging(upscale):
    image = _noise(75, 91, 3)

    def run(part):
        return part.repeat(upscale, axis=0).repeat(upscale, axis=1)

    result = _restore(image, run, tile=32, overlap=8, multiple=4, upscale=upscale)
    np.testing.assert_allclose(result, run(image), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_seams_fade(axis):
    """Tiles that disagree by 1 leave no step: over an overlap of 32 pixels no neighbours differ by more than 0.1."""
    levels = iter([0.0, 1.0, 0.0, 1.0])
    image = _noise(*((200, 10) if axis == 0 else (10, 200)), 1)
    result = _restore(image, lambda part: np.full_like(part, next(levels)), tile=80, overlap=32)
    assert abs(np.diff(result, axis=axis)).max() < 0.1
    assert result.min() == 0 and result.max() == 1


def test_a_tile_as_large_as_the_image_is_the_image_itself():
    image, seen = _noise(40, 64, 3), []

    def run(part):
        seen.append(part.shape)
        return part * np.float32(0.7)

    np.testing.assert_array_equal(_restore(image, run, tile=64, overlap=16), image * np.float32(0.7))
    assert seen == [(40, 64, 3)]


def test_progress_counts_to_the_end():
    seen = []
    _restore(_noise(100, 70, 3), lambda part: part, tile=64, overlap=16, progress=lambda *at: seen.append(at))
    assert seen == [(done, 4) for done in range(1, 5)]


def test_blending_adds_in_the_order_of_the_tiles():
    """To the last bit what the sum over all tiles in float32 is, row by row of them."""
    image, levels = _noise(150, 171, 3), np.random.default_rng(1).random(1000, dtype=np.float32)

    def run(part):
        return part * levels[part.shape[0] * part.shape[1] % 1000] + levels[int(1e6 * part[0, 0, 0]) % 1000]

    for tile, overlap in ((64, 16), (50, 25), (171, 20), (32, 0)):
        rows, columns = (tile_spans(side, tile, overlap, 8) for side in image.shape[:2])
        windows = [_windows(side, spans, overlap) for side, spans in zip(image.shape, (rows, columns))]
        expected = np.zeros_like(image)
        for (top, bottom), down in zip(rows, windows[0]):
            strip = np.zeros((bottom - top, *image.shape[1:]), np.float32)
            for (left, right), across in zip(columns, windows[1]):
                strip[:, left:right] += run(image[top:bottom, left:right]) * (down[:, None, None] * across[:, None])
            expected[top:bottom] += strip
        np.testing.assert_array_equal(_restore(image, run, tile=tile, overlap=overlap, multiple=8), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_memory_does_not_grow_with_the_image(axis):
    """The peak of what numpy holds, while an image of 16 times the size is restored and its blocks thrown away.

    Beside the weights along a side, 16 bytes a pixel of it at most, it grows with the width by what two rows of tiles
    share: 2 * 16 rows of float32 in three channels.
    """

    def peak(size):
        image = np.zeros((*((size, 256) if axis == 0 else (256, size)), 3), np.uint8)
        tracemalloc.start()
        try:
            for _ in restore_in_blocks(image, lambda part: part.astype(np.float32), tile=64, overlap=16):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    more = 8192 - 512
    assert peak(8192) < 1.1 * peak(512) + 16 * more + (2 * 16 * 12 * more if axis == 1 else 0)
