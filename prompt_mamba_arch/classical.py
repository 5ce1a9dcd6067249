"""Restoration without learning, by OpenCV and scikit-image: (H, W, 3) uint8 RGB -> the same.

`CLASSICAL` is what `prompt-mamba compare` offers by name; model cards take their references from here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

__all__ = ["CLASSICAL", "bilateral", "gaussian_kernel", "non_local_means", "total_variation", "wavelet", "wiener"]


def non_local_means(image: np.ndarray, *, h: float = 15.0, patch: int = 7, window: int = 21) -> np.ndarray:
    """OpenCV's, in CIE Lab; `h` in grey levels, about 0.7 times the noise's sigma."""
    # alike in BGR and RGB but for rounding
    return cv2.fastNlMeansDenoisingColored(np.ascontiguousarray(image), None, h, h, patch, window)


def bilateral(image: np.ndarray, *, diameter: int = 7, sigma_color: float = 40.0, sigma_space: float = 3.0):
    """OpenCV's; sigma_color in grey levels, the others in pixels."""
    return cv2.bilateralFilter(np.ascontiguousarray(image), diameter, sigma_color, sigma_space)


def median(image: np.ndarray, *, size: int = 3) -> np.ndarray:
    """OpenCV's; an odd number of pixels."""
    return cv2.medianBlur(np.ascontiguousarray(image), size)


def patch_means(image: np.ndarray, *, sigma: float = 25.0, patch: int = 5, distance: int = 6) -> np.ndarray:
    """scikit-image's non-local means, fast mode; `sigma` of the noise in grey levels."""
    from skimage.restoration import denoise_nl_means

    return _to_uint8(
        255 * denoise_nl_means(
            image / 255, patch_size=patch, patch_distance=distance, h=0.6 * sigma / 255, sigma=sigma / 255,
            fast_mode=True, channel_axis=-1,
        )
    )  # fmt: skip


def total_variation(image: np.ndarray, *, weight: float = 0.08) -> np.ndarray:
    """scikit-image's (Chambolle 2004), of an image in [0, 1]."""
    from skimage.restoration import denoise_tv_chambolle

    return _to_uint8(255 * denoise_tv_chambolle(image / 255, weight=weight, channel_axis=-1))


def wavelet(image: np.ndarray, *, sigma: float = 25.0) -> np.ndarray:
    """scikit-image's BayesShrink in YCbCr; `sigma` of the noise in grey levels. Needs PyWavelets."""
    from skimage.restoration import denoise_wavelet

    return _to_uint8(
        255 * denoise_wavelet(
            image / 255, sigma=sigma / 255, convert2ycbcr=True, rescale_sigma=True, channel_axis=-1
        )
    )  # fmt: skip


def wiener(image: np.ndarray, *, blur: float = 1.6, balance: float = 0.003) -> np.ndarray:
    """scikit-image's Wiener filter against a Gaussian blur that is known."""
    from skimage.restoration import wiener as filtered

    margin = 24  # the filter is circular
    wide = np.pad(image / 255, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    channels = [filtered(wide[..., c], gaussian_kernel(blur), balance, clip=False) for c in range(3)]
    return _to_uint8(255 * np.stack(channels, axis=-1)[margin:-margin, margin:-margin])


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Square, of sum 1; four sigmas to each side."""
    line = cv2.getGaussianKernel(2 * round(4 * sigma - 0.4) + 1, sigma)
    return line @ line.T


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).round().astype(np.uint8)


# library -> name -> filter
CLASSICAL: Mapping[str, Mapping[str, Callable[..., np.ndarray]]] = {
    "opencv": {"non_local_means": non_local_means, "bilateral": bilateral, "median": median},
    "scikit-image": {
        "non_local_means": patch_means,
        "total_variation": total_variation,
        "wavelet": wavelet,
        "wiener": wiener,
    },
}
