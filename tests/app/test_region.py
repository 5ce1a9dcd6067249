"""Brushed regions."""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from prompt_mamba_arch.app.region import blend, box_around, read_mask, soften
from prompt_mamba_arch.errors import UserError


def drawn(painted):
    """As a canvas exports it."""
    picture = np.zeros((*painted.shape, 4), np.uint8)
    picture[painted] = (255, 77, 0, 255)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_masks_are_enlarged_to_the_image():
    painted = np.zeros((20, 30), bool)
    painted[5:10, 10:20] = True
    mask = read_mask(drawn(painted), (40, 60))
    assert mask.shape == (40, 60) and mask[12:18, 22:38].all()
    mask[10:20, 20:40] = False
    assert not mask.any()
    assert read_mask("", (40, 60)) is None and read_mask(drawn(np.zeros((4, 4), bool)), (40, 60)) is None


@pytest.mark.parametrize("text", ["nonsense", "data:image/png;base64,", "data:image/png;base64,####",
                                  "data:image/jpeg;base64,AAAA", "data:image/png;base64,iVBORw0KGgo=",
                                  "data:image/png;base64," + "A" * (9 << 20)])  # fmt: skip
def test_masks_that_are_none(text):
    with pytest.raises(UserError, match="brush it again"):
        read_mask(text, (10, 10))


def test_a_huge_mask_is_refused_before_it_is_unpacked():
    file = io.BytesIO()
    Image.new("1", (5000, 40)).save(file, "PNG")
    data = bytearray(file.getvalue())
    for side in (5000, 2**31 - 1):
        data[16:20] = data[20:24] = side.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        with pytest.raises(UserError, match="brush it again"):
            read_mask("data:image/png;base64," + base64.b64encode(bytes(data)).decode(), (10, 10))


def test_edges_are_soft_and_nothing_leaks_out():
    mask = np.zeros((60, 80), bool)
    mask[:30, 20:70] = True
    weight = soften(mask, 8)
    assert weight.dtype == np.float32 and not weight[~mask].any() and (weight[mask] > 0).all()
    assert weight[0, 45] == 1 and weight[15, 45] == 1  # full inside, and at the image's own edge
    across = weight[15, 20:45]
    assert (np.diff(across) >= 0).all() and 0 < across[0] < 0.1 and np.abs(np.diff(across)).max() < 0.25
    thin = np.zeros((60, 80), bool)
    thin[30:33, 10:70] = True
    assert soften(thin, 20).max() == 1
    assert (soften(np.ones((5, 5), bool), 3) == 1).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_blending_is_exact_at_both_ends(kind):
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, np.iinfo(kind).max, (2, 30, 40, 3), dtype=kind)
    weight = np.zeros((30, 40), np.float32)
    weight[:, 20:] = 1
    weight[:, 19] = 0.5
    mixed = blend(before, after, weight)
    assert np.array_equal(mixed[:, :19], before[:, :19]) and np.array_equal(mixed[:, 20:], after[:, 20:])
    mean = (before[:, 19].astype(float) + after[:, 19]) / 2
    assert np.abs(mixed[:, 19] - mean).max() <= 0.5


def test_the_network_sees_what_lies_around():
    mask = np.zeros((1000, 2000), bool)
    mask[500:700, 100:110] = True
    assert box_around(mask) == (400, 800, 36, 174)
    mask[0, 0] = mask[-1, -1] = True
    assert box_around(mask) == (0, 1000, 0, 2000)
