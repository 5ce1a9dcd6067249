"""A photograph taken with too little light: less exposure, a colour cast, and the few photons' noise."""

from __future__ import annotations

import numpy as np

from prompt_mamba_arch.data.degradations.light import to_display, to_linear
from prompt_mamba_arch.data.degradations.noise import poisson_quantile
from prompt_mamba_arch.data.degradations.spec import Degradation, Number, position

__all__ = ["LOWLIGHT"]


def _apply(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    shot, read = rng.standard_normal((2, *image.shape), dtype=np.float32)
    warm = 0.2 * p["tint"]
    gain = 2.0 ** (np.array([warm, 0, -warm]) - p["stops"])
    light = to_linear(image) * gain.astype(np.float32)
    if p["photons"] > 0:
        peak = np.float32(p["photons"])
        light = (poisson_quantile(light * peak, shot) + np.float32(p["read"]) * read) / peak
    return to_display(light)


def _severity(p: dict) -> float:
    grain = position(-np.log10(p["photons"]), -5, -2) if p["photons"] > 0 else 0.0
    return position(p["stops"] + 0.2 * abs(p["tint"]), 0, 5) * 0.93 + 0.07 * grain


LOWLIGHT = Degradation(
    kind="lowlight",
    params={
        "stops": Number(0.2, 8, (1, 4.5), 3),  # of exposure missing
        "tint": Number(-1, 1, (-0.8, 0.8), 0),  # white balance: -1 bluish, 1 orange
        # electrons that a white pixel of a right exposure would give; 0: no noise of its own
        "photons": Number(0, 1_000_000, (2_000, 30_000), 8_000, log=True),
        "read": Number(0, 50, (1, 5), 2),  # electrons
    },
    apply=_apply,
    severity=_severity,
)
