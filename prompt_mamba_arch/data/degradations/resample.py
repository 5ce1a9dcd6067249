"""Resizing with the kernel widened for reduction and half-sample symmetric borders: MATLAB's imresize.

OpenCV's own reductions (except INTER_AREA) do not widen the kernel, and so alias; published super-resolution
benchmarks are made with MATLAB's. Written as a few shifted multiply-adds in a fixed order, so that the result does not
depend on threads or on a matrix library.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np

__all__ = ["METHODS", "matlab_downscale", "resize"]


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -0.5 (Keys 1981, "Cubic convolution interpolation", eq. 15)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0.0)


def _box(x: np.ndarray) -> np.ndarray:
    return np.where((x >= -0.5) & (x < 0.5), 1.0, 0.0)


# name -> (kernel, its width)
METHODS = {"bicubic": (_cubic, 4), "bilinear": (_triangle, 2), "lanczos": (_lanczos, 6), "area": (_box, 1)}


@functools.lru_cache(maxsize=256)
def _taps(size: int, out_size: int, scale: Fraction, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Source indices and weights of each output sample, both (taps, out_size)."""
    if method == "nearest":
        index = np.floor((np.arange(out_size) + 0.5) / float(scale)).astype(np.int64)
        return np.clip(index, 0, size - 1)[None], np.ones((1, out_size), np.float64)
    kernel, width = METHODS[method]
    shrink = min(float(scale), 1.0)
    centre = (np.arange(out_size) + 0.5) / float(scale) - 0.5
    if method == "area":  # the exact share of each source sample that an output sample covers
        half = 0.5 / shrink
        first = np.floor(centre - half + 0.5).astype(np.int64)
        count = math.ceil(1 / shrink) + 1
        index = first[None] + np.arange(count)[:, None]
        weight = np.minimum(index + 0.5, centre + half) - np.maximum(index - 0.5, centre - half)
        weight = np.maximum(weight, 0.0)
        index = np.clip(index, 0, size - 1)
    else:
        first = np.floor(centre - width / shrink / 2).astype(np.int64)
        count = math.ceil(width / shrink) + 2
        index = first[None] + np.arange(count)[:, None]
        weight = kernel((centre[None] - index) * shrink)
        index = np.mod(index, 2 * size)  # mirror, the border sample repeated, as often as needed
        index = np.where(index < size, index, 2 * size - 1 - index)
    used = np.any(weight != 0, axis=1)
    index, weight = index[used], weight[used]
    return index, weight / weight.sum(axis=0)


def _along_rows(image: np.ndarray, out_size: int, scale: Fraction, method: str) -> np.ndarray:
    """Resizes axis 0 of (H, ...)."""
    index, weight = _taps(image.shape[0], out_size, scale, method)
    weight = weight.astype(image.dtype).reshape(*weight.shape, *[1] * (image.ndim - 1))
    out = image[index[0]] * weight[0]
    for i, w in zip(index[1:], weight[1:]):
        out += image[i] * w
    return out


def resize(image: np.ndarray, height: int, width: int, method: str = "bicubic") -> np.ndarray:
    """(H, W, C) floating point -> (height, width, C), of the same type; overshoot is not clipped.

    Args:
        method: bicubic (MATLAB's), bilinear, lanczos (3 lobes), area (averages) or nearest.
    """
    h, w = image.shape[:2]
    if (h, w) == (height, width):
        return image.copy()
    image = _along_rows(image, height, Fraction(height, h), method)
    return np.ascontiguousarray(_along_rows(image.swapaxes(0, 1), width, Fraction(width, w), method).swapaxes(0, 1))


def matlab_downscale(image: np.ndarray, scale: int) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (ceil(H/scale), ceil(W/scale), C): MATLAB's `imresize(image, 1/scale)`, bit by bit.

    MATLAB resizes one axis after the other and rounds uint8 images after each; benchmarks such as Set5 are made so,
    from images whose sides were first cropped to multiples of the scale.
    """
    for axis in (0, 1):
        out_size = math.ceil(image.shape[axis] / scale)
        moved = _along_rows(image.astype(np.float64).swapaxes(0, axis), out_size, Fraction(1, scale), "bicubic")
        image = np.clip(np.floor(moved + 0.5), 0, 255).astype(np.uint8).swapaxes(0, axis)
    return np.ascontiguousarray(image)
