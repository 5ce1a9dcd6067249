"""Low resolution: reduced, and brought back to size, so that the fine detail is gone."""

from __future__ import annotations

import numpy as np

from prompt_mamba_arch.data.degradations.resample import resize
from prompt_mamba_arch.data.degradations.spec import Choice, Degradation, Number, position

__all__ = ["LOWRES"]


def _apply(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    h, w = image.shape[:2]
    small = resize(image, max(1, round(h / p["scale"])), max(1, round(w / p["scale"])), p["down"])
    return resize(np.clip(small, 0, 1), h, w, p["up"])


LOWRES = Degradation(
    kind="lowres",
    params={
        "scale": Number(1.1, 8, (2, 4), 3),
        "down": Choice(("bicubic", "area", "lanczos", "bilinear", "nearest"), (3, 2, 2, 0, 0), "bicubic"),
        "up": Choice(("bicubic", "bilinear", "nearest", "lanczos"), (5, 2, 1, 0), "bicubic"),
    },
    apply=_apply,
    severity=lambda p: position(p["scale"], 1, 4.4),
)
