"""Smooth random fields."""

from __future__ import annotations

import numpy as np

from prompt_mamba_arch.data.degradations.resample import resize

__all__ = ["smooth_field"]


def smooth_field(height: int, width: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W) float32, about standard normal, that changes over 1/cells of the picture; from the size alone."""
    knots = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    # a margin of knots is cut off after enlarging, so that nothing repeats at the border
    step_y, step_x = -(-height // cells), -(-width // cells)
    field = resize(knots[..., None], (cells + 2) * step_y, (cells + 2) * step_x, "bicubic")[..., 0]
    return np.ascontiguousarray(field[step_y : step_y + height, step_x : step_x + width])
