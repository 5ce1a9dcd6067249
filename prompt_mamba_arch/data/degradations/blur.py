"""Blur: out of focus (disc or Gaussian), and motion (a shaking camera's path, or a straight line).

Light adds up, display values do not: with `linear` the blur is done in linear light, where a blurred lamp stays as
bright as a camera shows it; without, on display values as most published benchmarks do.
"""

from __future__ import annotations

import cv2
import numpy as np

from prompt_mamba_arch.data.degradations.light import to_display, to_linear
from prompt_mamba_arch.data.degradations.spec import Choice, Degradation, Number, position

__all__ = ["DEFOCUS", "MOTION", "disc_kernel", "motion_kernel"]


def _convolve(image: np.ndarray, kernel: np.ndarray, linear: bool) -> np.ndarray:
    source = to_linear(image) if linear else image
    blurred = cv2.filter2D(source, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return to_display(blurred) if linear else blurred


def disc_kernel(radius: float) -> np.ndarray:
    """A disc of that radius in px with an edge one px soft, (2r + 3, 2r + 3) float32, sum 1."""
    n = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def _defocus(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    if p["shape"] == "disc":
        return _convolve(image, disc_kernel(p["radius"]), p["linear"])
    # a disc of radius r spreads light as a Gaussian of r / 2 does: the same variance
    reach = int(np.ceil(2 * p["radius"]))
    x = np.arange(-reach, reach + 1)
    line = np.exp(-(x**2) / (2 * (p["radius"] / 2) ** 2))
    line = (line / line.sum()).astype(np.float32)
    source = to_linear(image) if p["linear"] else image
    blurred = cv2.sepFilter2D(source, -1, line, line, borderType=cv2.BORDER_REFLECT_101)
    return to_display(blurred) if p["linear"] else blurred


def motion_kernel(p: dict, rng: np.random.Generator) -> np.ndarray:
    """The path of a point of light during the exposure, (k, k) float32, sum 1, its centroid in the middle.

    A line, or a random walk whose direction drifts and jerks (after Boracchi & Foi 2012, "Modeling the performance of
    image restoration from motion blur"), scaled so that it reaches `length` px from end to end of its longer side.
    """
    steps = 200
    turns, jerks, speeds = rng.standard_normal((3, steps))
    at = rng.random(steps)
    if p["path"] == "line":
        along = np.linspace(-0.5, 0.5, steps)
        path = np.stack([np.zeros(steps), along], axis=1)
    else:
        turning = 0.25 * p["shake"] * turns + np.where(at < 0.02, 1.5 * p["shake"] * jerks, 0)
        heading = np.cumsum(turning)
        pace = np.exp(0.3 * np.cumsum(speeds) / np.sqrt(steps) * 2)
        path = np.cumsum(pace[:, None] * np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
    sin, cos = np.sin(np.deg2rad(p["angle"])), np.cos(np.deg2rad(p["angle"]))
    y, x = path.T
    path = np.stack([y * cos - x * sin, y * sin + x * cos], axis=1)  # 0 degrees is horizontal
    reach = np.hypot(*(path.max(axis=0) - path.min(axis=0)))
    path = path * (max(p["length"] - 1, 0) / max(reach, 1e-9))
    path = path - path.mean(axis=0)  # no shift of the picture as a whole
    n = int(np.ceil(np.abs(path).max())) + 2
    kernel = np.zeros((2 * n + 1, 2 * n + 1))
    corner = np.floor(path).astype(int)
    rest = path - corner
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dy - rest[:, 0]) * np.abs(1 - dx - rest[:, 1])
            np.add.at(kernel, (corner[:, 0] + dy + n, corner[:, 1] + dx + n), weight)
    return (kernel / kernel.sum()).astype(np.float32)


def _motion(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    return _convolve(image, motion_kernel(p, rng), p["linear"])


DEFOCUS = Degradation(
    kind="defocus",
    params={
        "shape": Choice(("disc", "gaussian"), (3, 2), "disc"),
        "radius": Number(0.3, 20, (1.2, 6), 3, log=True),  # px; the Gaussian's sigma is half of it
        "linear": Choice((True, False), (3, 1), True),
    },
    apply=_defocus,
    severity=lambda p: position(p["radius"] - 0.3, 0, 6) ** 0.7,
)

MOTION = Degradation(
    kind="motion",
    params={
        "path": Choice(("shake", "line"), (3, 2), "shake"),
        "length": Number(1, 80, (5, 31), 15),  # px, from one end of the path to the other
        "angle": Number(-180, 180, (-180, 180), 0),  # degrees
        "shake": Number(0.1, 3, (0.3, 1.2), 0.7, only={"path": ("shake",)}),  # 0: nearly straight; 1: loops and hooks
        "linear": Choice((True, False), (3, 1), True),
    },
    apply=_motion,
    severity=lambda p: position(p["length"] - 1, 0, 30) ** 0.8,
)
