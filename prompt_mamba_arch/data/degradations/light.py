"""Between display values (sRGB) and linear light, where exposure, optics and sensors do their work."""

from __future__ import annotations

import numpy as np

__all__ = ["to_display", "to_linear"]


def to_linear(image: np.ndarray) -> np.ndarray:
    """sRGB-coded float32 in [0, 1] -> linear light, by IEC 61966-2-1."""
    image = image.astype(np.float32, copy=False)
    curve = ((image + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(image <= np.float32(0.04045), image / np.float32(12.92), curve)


def to_display(light: np.ndarray) -> np.ndarray:
    """Linear light, clipped to [0, 1] -> sRGB-coded float32, by IEC 61966-2-1."""
    light = np.clip(light, 0, 1).astype(np.float32, copy=False)
    curve = np.float32(1.055) * light ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(light <= np.float32(0.0031308), light * np.float32(12.92), curve)
