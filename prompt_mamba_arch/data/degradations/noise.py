"""Noise: Gaussian, Poisson-Gaussian, a camera's (Bayer sensor, demosaicing, colour matrix) and film grain.

`sigma` always means the same: the standard deviation at mid-grey, in steps of 1/255 of display values.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.special import ndtr

from prompt_mamba_arch.data.degradations.light import to_display, to_linear
from prompt_mamba_arch.data.degradations.spec import Choice, Degradation, Number, position

__all__ = ["NOISE", "poisson_quantile"]


def poisson_quantile(mean: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Poisson counts of these means for standard normal draws z: the quantile of z's probability, float32.

    A rejection sampler would use up more or fewer random numbers as the image changes; here draw and pixel stay
    together, so the noise of one recipe is the same on the clean and on the blurred image. Below a mean of 3 by summing
    probabilities, above by the Cornish-Fisher expansion to third order, which is within 1 count of the exact quantile.
    """
    mean, z = np.asarray(mean, np.float32), np.asarray(z, np.float32)
    root = np.sqrt(np.maximum(mean, 1))
    count = np.round(mean + root * z + (z * z - 1) / 6 - (z * z * z - 7 * z) / (72 * root))
    few = mean < 3
    if few.any():
        share, m = ndtr(z[few]), mean[few]
        probability = np.exp(-m)
        below = probability.copy()
        exact = np.zeros_like(m)
        for n in range(1, 14):
            exact += share > below
            probability *= m / np.float32(n)
            below += probability
        count[few] = exact
    return np.maximum(count, 0)


def _apply(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    return {"gaussian": _gaussian, "poisson": _poisson, "camera": _camera, "film": _film}[p["model"]](image, p, rng)


def _gaussian(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    z = rng.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(p["sigma"] / 255) * z


def _poisson(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    variance = (p["sigma"] / 255) ** 2
    shot, read = rng.standard_normal((2, *image.shape), dtype=np.float32)
    peak = np.float32(0.5 / max((1 - p["read"]) * variance, 1e-8))  # photons of a white pixel
    return poisson_quantile(image * peak, shot) / peak + np.float32((p["read"] * variance) ** 0.5) * read


# bilinear demosaicing of a Bayer mosaic, as convolutions of the planes that are zero where the colour is not sampled
_GREEN = np.float32([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
_RED_BLUE = np.float32([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
# what demosaicing leaves of the variance, on average over the four sites of the pattern
_LEFT = np.array([0.5625, 0.625, 0.5625])


def _camera(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    h, w = image.shape[:2]
    z = rng.standard_normal((h, w), dtype=np.float32)
    light = to_linear(image)
    gains = np.array([p["red_gain"], 1.0, p["blue_gain"]])
    # The weaker a colour's filter passes light, the higher its gain: signal / gain photons, times gain afterwards.
    # Variance on the sensor's scale: share of read noise + share of shot noise proportional to the signal.
    mid = 0.2140  # linear light of display value 0.5
    sites = np.zeros((h, w), np.float32)
    planes = np.zeros((3, h, w), np.float32)  # 1 where the pattern samples that colour
    for c, y, x in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1)):
        planes[c, y::2, x::2] = 1
        sites[y::2, x::2] = light[y::2, x::2, c] / np.float32(gains[c])
    raw = z * np.sqrt(p["read"] + (1 - p["read"]) * sites / np.float32(mid))
    colours = [
        cv2.filter2D(raw * planes[c], -1, kernel, borderType=cv2.BORDER_REFLECT_101) * np.float32(gains[c])
        for c, kernel in enumerate((_RED_BLUE, _GREEN, _RED_BLUE))
    ]
    mix = p["mixing"]
    matrix = (1 + mix) * np.eye(3) - mix / 3  # sensor's colours -> sRGB: rows sum to 1
    noise = np.stack([sum(np.float32(m) * colour for m, colour in zip(row, colours)) for row in matrix], axis=-1)
    if p["blotch"] > 0:  # what the camera's own denoising leaves is coarse
        noise = cv2.GaussianBlur(noise, (0, 0), p["blotch"], borderType=cv2.BORDER_REFLECT_101)
    at_mid = (p["read"] + (1 - p["read"]) / gains) * gains**2 * _LEFT
    variance = float(np.mean(matrix**2 @ at_mid)) * _blur_leaves(p["blotch"])
    slope = 1.08  # of the sRGB curve at mid-grey
    return to_display(light + noise * np.float32(p["sigma"] / 255 / slope / variance**0.5))


def _film(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    """Grain of film: the same in all colours, clumped, strongest in the mid-tones."""
    z = rng.standard_normal(image.shape[:2], dtype=np.float32)
    z = cv2.GaussianBlur(z, (0, 0), p["clump"], borderType=cv2.BORDER_REFLECT_101)
    z *= np.float32(p["sigma"] / 255 / _film_leaves(p["clump"]) ** 0.5)
    # weighted by hand: in a matrix product the order of summation is the library's business
    luma = image[..., 0] * np.float32(0.299) + image[..., 1] * np.float32(0.587) + image[..., 2] * np.float32(0.114)
    strength = np.float32(0.3) + np.float32(2.8) * luma * (1 - luma)  # 0.3 at black and white, 1 at mid-grey
    return image + (z * strength)[..., None]


def _blur_leaves(sigma: float) -> float:
    """The share of variance that a Gaussian blur leaves of noise that bilinear demosaicing has already smoothed."""
    if sigma <= 0:
        return 1.0
    # a variance of about 0.5 px^2 per axis is the demosaicing's own
    return (0.5 + 0.08) / (sigma**2 + 0.5 + 0.08 / (1 + 4 * sigma**2))


def _film_leaves(sigma: float) -> float:
    """The share of variance that a Gaussian blur leaves of white noise."""
    radius = max(1, round(4 * sigma))
    x = np.arange(-radius, radius + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    return float(np.sum(kernel**2) ** 2)


def _severity(p: dict) -> float:
    # coarse noise strikes the eye more than fine noise of the same variance
    coarse = {"gaussian": 1.0, "poisson": 1.0, "camera": 1.1 + 0.4 * p["blotch"], "film": 1.1}[p["model"]]
    return position(p["sigma"] * coarse, 0, 50)


NOISE = Degradation(
    kind="noise",
    params={
        "model": Choice(("gaussian", "poisson", "camera", "film"), (3, 2, 4, 1), "gaussian"),
        "sigma": Number(0, 100, (5, 50), 25, log=True),
        # the share of the variance at mid-grey that does not depend on the signal
        "read": Number(0, 1, (0.05, 0.4), 0.2, only={"model": ("poisson", "camera")}),
        "red_gain": Number(1, 4, (1.2, 2.4), 1.8, only={"model": ("camera",)}),
        "blue_gain": Number(1, 4, (1.2, 2.4), 1.6, only={"model": ("camera",)}),
        "mixing": Number(0, 1.5, (0.2, 0.8), 0.5, only={"model": ("camera",)}),
        "blotch": Number(0, 3, (0, 1), 0, only={"model": ("camera",)}),  # px
        "clump": Number(0.3, 3, (0.5, 1.0), 0.7, only={"model": ("film",)}),  # px
    },
    apply=_apply,
    severity=_severity,
)
