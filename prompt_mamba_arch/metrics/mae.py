"""Mean absolute error, as the benchmarks of defocus deblurring report it beside PSNR and SSIM."""

from __future__ import annotations

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from prompt_mamba_arch.errors import UserError, check_keys

__all__ = ["calculate_mae"]


@METRIC_REGISTRY.register()
def calculate_mae(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, **other: object) -> float:
    """Mean absolute difference of two images of one size, in [0, 1] for values from 0 to 255; lower is better. In an
    option file:

        mae: {type: calculate_mae, crop_border: 0, better: lower}

    Args:
        img, img2: `(H, W, 3)`.
        crop_border: pixels to leave out at each edge.
        other: `better`, which BasicSR reads; anything else is refused.

    Raises:
        UserError: an unknown option, or images of different sizes, or a border that leaves none of them.
    """
    check_keys(other, ("crop_border", "better"), "metric calculate_mae")
    if img.shape != img2.shape:
        raise UserError(f"metric calculate_mae: images of different sizes, {img.shape} and {img2.shape}")
    height, width = img.shape[:2]
    if not 0 <= 2 * crop_border < min(height, width):
        raise UserError(f"metric calculate_mae: crop_border {crop_border} does not fit {width}x{height} pixels")
    inner = slice(crop_border, -crop_border or None)
    difference = img[inner, inner].astype(np.float64) - img2[inner, inner]
    return float(np.abs(difference).mean() / 255)
