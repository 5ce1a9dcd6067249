"""Haze by atmospheric scattering: image * t + airlight * (1 - t) with t = exp(-density * depth) (Koschmieder 1924).

A photograph comes without its depth. Most scenes are farther away at the top, in patches; so is this depth field.
"""

from __future__ import annotations

import numpy as np

from prompt_mamba_arch.data.degradations.fields import smooth_field
from prompt_mamba_arch.data.degradations.spec import Degradation, Number

__all__ = ["HAZE"]


def _apply(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    h, w = image.shape[:2]
    below = ((np.arange(h, dtype=np.float32) + np.float32(0.5)) / np.float32(h))[:, None]
    # from far to near between two heights, gently: the ground comes nearer faster than the sky
    depth = 1 - np.float32(p["slope"]) * below ** np.float32(1.3)
    depth = depth * np.exp(np.float32(p["patches"]) * smooth_field(h, w, 3, rng))
    clear = np.exp(-np.float32(p["density"]) * depth)[..., None]
    tint = np.float32(0.06 * p["tint"])
    light = np.clip(np.float32(p["light"]) * np.float32([1 + tint, 1, 1 - tint]), 0, 1)
    return image * clear + light * (1 - clear)


HAZE = Degradation(
    kind="haze",
    params={
        "density": Number(0.05, 5, (0.35, 2.2), 1.2),  # optical depth of the farthest
        "slope": Number(0, 1, (0.2, 0.85), 0.6),  # how much nearer the bottom is than the top
        "patches": Number(0, 0.8, (0.05, 0.3), 0.15),  # unevenness
        "light": Number(0.3, 1, (0.72, 0.97), 0.88),  # display value of the airlight
        "tint": Number(-1, 1, (-0.6, 0.6), 0),  # its colour: -1 bluish, 1 yellowish
    },
    apply=_apply,
    severity=lambda p: min(1.0, 1.15 * (1 - float(np.exp(-p["density"] * (1 - p["slope"] / 2.3))))),
)
