"""PSNR and SSIM after alignment: the protocol of RealBlur (Rim et al., ECCV 2020; evaluation_RealBlur_ecc.py at
https://github.com/rimchang/RealBlur). A network may restore a blurred photograph exactly and be a fraction of a pixel
away from the sharp one, as the two were taken by two cameras. So the result's brightness is fitted, it is warped by the
homography that maximises the correlation (ECC), and only pixels that the warped image covers count.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from prompt_mamba_arch.errors import UserError, check_keys

__all__ = ["calculate_psnr_aligned", "calculate_ssim_aligned"]

_ITERATIONS = 100  # of ECC; it ends after them, whatever is gained
_OPTIONS = ("crop_border", "input_order", "better")
_RADIUS = 5  # of SSIM's Gaussian window: standard deviation 1.5, cut at 3.5 of them


@METRIC_REGISTRY.register()
def calculate_psnr_aligned(img: np.ndarray, img2: np.ndarray, **options: object) -> float:
    """PSNR in dB of the aligned result over the pixels that it covers. In an option file:

        psnr: {type: calculate_psnr_aligned}

    Args:
        img: the result, `(H, W, 3)` BGR, from 0 to 255.
        img2: the truth, alike.
        options: crop_border 0 and input_order HWC, as this protocol knows no others; `better`, which BasicSR reads.

    Raises:
        UserError: an unknown option, or images of different sizes.
    """
    result, truth, covered = _align(img, img2, options)
    error = float(np.sum((result - truth) ** 2, dtype=np.float64) / max(np.sum(covered, dtype=np.float64), 1.0))
    return 10 * math.log10(1 / error) if error else float("inf")


@METRIC_REGISTRY.register()
def calculate_ssim_aligned(img: np.ndarray, img2: np.ndarray, **options: object) -> float:
    """SSIM (Gaussian window of 1.5 pixels, mean over the colour channels) of the aligned result over the pixels that it
    covers; arguments as `calculate_psnr_aligned`."""
    if min(img.shape[:2]) <= 2 * _RADIUS:
        height, width = img.shape[:2]
        raise UserError(
            f"metric calculate_ssim_aligned: {width}x{height} pixels are too few, it needs {2 * _RADIUS + 1} a side"
        )
    result, truth, covered = _align(img, img2, options)
    inner = (slice(_RADIUS, -_RADIUS),) * 2
    weight = covered[inner].sum(axis=(0, 1), dtype=np.float64)
    total = (_ssim_map(truth, result) * covered)[inner].sum(axis=(0, 1), dtype=np.float64)
    return float(np.mean(total / np.maximum(weight, 1.0)))


def _align(img: np.ndarray, img2: np.ndarray, options: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The warped result, the truth and the mask of the pixels that count, all (H, W, 3) float32 in [0, 1]; the images
    are zero where the mask is."""
    check_keys(options, _OPTIONS, "metric calculate_psnr_aligned")
    if options.get("crop_border", 0) != 0 or options.get("input_order", "HWC") != "HWC":
        raise UserError("the aligned metrics compare whole images: leave crop_border at 0 and input_order at HWC")
    if img.shape != img2.shape or img.ndim != 3 or img.shape[2] != 3:
        raise UserError(f"the aligned metrics need two colour images of one size, not {img.shape} and {img2.shape}")
    result, truth = (np.ascontiguousarray(image, np.float32) / 255 for image in (img, img2))
    energy = float(np.sum(result * result, dtype=np.float64))
    if energy:
        result = result * np.float32(np.sum(truth * result, dtype=np.float64) / energy)
    warp = _homography(truth, result)
    size = (truth.shape[1], truth.shape[0])
    flags = cv2.WARP_INVERSE_MAP
    covered = cv2.warpPerspective(np.ones_like(result), warp, size, flags=flags | cv2.INTER_NEAREST)
    if not covered.any():  # it has lost its way, and nothing would count
        warp, covered = np.eye(3, dtype=np.float32), np.ones_like(result)
    warped = cv2.warpPerspective(result, warp, size, flags=flags | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return warped * covered, truth * covered, covered


def _homography(truth: np.ndarray, result: np.ndarray) -> np.ndarray:
    """(3, 3) float32; the identity where there is nothing to align by, such as a flat image."""
    gray = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (truth, result)]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, 0)
    start = np.eye(3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(*gray, start, cv2.MOTION_HOMOGRAPHY, criteria, inputMask=None, gaussFiltSize=5)
    except cv2.error:
        return np.eye(3, dtype=np.float32)
    return warp if np.all(np.isfinite(warp)) else np.eye(3, dtype=np.float32)


def _ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1] -> the index of each pixel and channel (Wang et al., TIP 2004)."""

    def mean(image: np.ndarray) -> np.ndarray:
        window = (2 * _RADIUS + 1,) * 2
        return cv2.GaussianBlur(image.astype(np.float64), window, 1.5, borderType=cv2.BORDER_REFLECT)

    mean_a, mean_b = mean(a), mean(b)
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    var_a, var_b = mean(a64 * a64) - mean_a**2, mean(b64 * b64) - mean_b**2
    covariance = mean(a64 * b64) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
