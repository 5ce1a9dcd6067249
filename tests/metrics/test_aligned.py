"""Metrics after alignment, against the published computation and against plain PSNR."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from basicsr.metrics import calculate_metric

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.metrics.aligned import _ssim_map, calculate_psnr_aligned, calculate_ssim_aligned
from prompt_mamba_arch.metrics.mae import calculate_mae


@pytest.fixture(scope="module")
def shifted(photos) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, and the same two thirds of a pixel away and darker, BGR."""
    photo = np.ascontiguousarray(photos["astronaut"][..., ::-1])
    move = np.float32([[1, 0, 0.66], [0, 1, -0.4]])
    moved = cv2.warpAffine(photo, move, photo.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return photo, np.rint(moved * 0.9).astype(np.uint8)


def test_alignment_undoes_shift_and_brightness(shifted):
    photo, moved = shifted
    plain = calculate_metric({"img": moved, "img2": photo}, {"type": "calculate_psnr", "crop_border": 0})
    aligned = calculate_metric({"img": moved, "img2": photo}, {"type": "calculate_psnr_aligned"})
    assert plain < 25 and aligned > plain + 8
    assert calculate_ssim_aligned(moved, photo) > 0.98


def test_it_is_the_published_computation(shifted):
    """The same steps, with scikit-image's SSIM as the authors' script has it."""
    from skimage.metrics import structural_similarity

    photo, moved = shifted
    truth, result = (image[..., ::-1].astype(np.float32) / 255 for image in (photo, moved))
    result = (np.sum(truth * result) / np.sum(result * result)) * result
    gray = [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (truth, result)]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0)
    start = np.eye(3, dtype=np.float32)
    _, warp = cv2.findTransformECC(*gray, start, cv2.MOTION_HOMOGRAPHY, criteria, inputMask=None, gaussFiltSize=5)
    size, flags = truth.shape[1::-1], cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(result, warp, size, flags=flags + cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    mask = cv2.warpPerspective(np.ones_like(result), warp, size, flags=flags + cv2.INTER_NEAREST)
    warped, truth = warped * mask, truth * mask
    psnr = 10 * np.log10(1 / (np.sum((truth - warped) ** 2, dtype=np.float64) / np.sum(mask)))
    assert calculate_psnr_aligned(moved, photo) == pytest.approx(psnr, abs=0.01)
    options = {"channel_axis": 2, "gaussian_weights": True, "use_sample_covariance": False, "data_range": 1.0}
    _, expected = structural_similarity(truth.astype(np.float64), warped.astype(np.float64), full=True, **options)
    assert np.allclose(_ssim_map(truth, warped), expected, atol=1e-5)
    part = (expected * mask)[5:-5, 5:-5].sum((0, 1)) / mask[5:-5, 5:-5].sum((0, 1))
    assert calculate_ssim_aligned(moved, photo) == pytest.approx(part.mean(), abs=1e-4)


def test_an_alignment_that_leads_out_of_the_image_is_none(shifted, monkeypatch):
    photo, moved = shifted
    away = np.float32([[1, 0, 5000], [0, 1, 0], [0, 0, 1]])
    monkeypatch.setattr(cv2, "findTransformECC", lambda *arguments, **more: (0.1, away))
    assert 15 < calculate_psnr_aligned(moved, photo) < 40  # no pixel would have counted: infinitely good
    assert 0.3 < calculate_ssim_aligned(moved, photo) < 1


def test_too_few_pixels_are_said():
    small = np.full((10, 40, 3), 100, np.uint8)
    with pytest.raises(UserError, match=r"calculate_ssim_aligned: 40x10 pixels are too few.*11 a side"):
        calculate_ssim_aligned(small, small)
    for border in (5, -1):
        with pytest.raises(UserError, match=f"calculate_mae: crop_border {border} does not fit 40x10 pixels"):
            calculate_mae(small, small, crop_border=border)


def test_equal_and_flat_images():
    flat = np.full((32, 40, 3), 100, np.uint8)
    assert calculate_psnr_aligned(flat, flat) > 100
    assert calculate_ssim_aligned(flat, flat) == pytest.approx(1)
    assert calculate_psnr_aligned(np.zeros_like(flat), flat) < 20


def test_wrong_use_is_said(shifted):
    photo, _ = shifted
    with pytest.raises(UserError, match="whole images"):
        calculate_psnr_aligned(photo, photo, crop_border=4)
    with pytest.raises(UserError, match="one size"):
        calculate_psnr_aligned(photo, photo[1:])
    with pytest.raises(UserError, match="unknown key 'crop_bordr'"):
        calculate_ssim_aligned(photo, photo, crop_bordr=0)


def test_mean_absolute_error():
    a = np.zeros((8, 8, 3), np.uint8)
    b = a.copy()
    b[0] = 255  # one row of eight
    assert calculate_mae(a, b) == pytest.approx(1 / 8)
    assert calculate_mae(a, b, crop_border=1) == 0
    with pytest.raises(UserError, match="different sizes"):
        calculate_mae(a, b[1:])
