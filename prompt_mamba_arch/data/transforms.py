"""Cropping and flipping of images `(H, W, C)`. They return views: nothing is copied and no source image is changed."""

from __future__ import annotations

import random

import numpy as np

__all__ = ["augment", "random_corner"]


def random_corner(height: int, width: int, size: int) -> tuple[int, int]:
    """Top and left of a square of `size` pixels inside the image, drawn from Python's `random` as BasicSR does."""
    return random.randint(0, height - size), random.randint(0, width - size)


def augment(images: list[np.ndarray], hflip: bool, rotation: bool) -> list[np.ndarray]:
    """Flips and transposes all images alike, each with probability 1/2: BasicSR's eight orientations.

    The draws come in BasicSR's order, so equal seeds give equal patches.
    """
    mirror = hflip and random.random() < 0.5
    flip = rotation and random.random() < 0.5
    transpose = rotation and random.random() < 0.5
    if mirror:
        images = [image[:, ::-1] for image in images]
    if flip:
        images = [image[::-1] for image in images]
    if transpose:
        images = [image.transpose(1, 0, 2) for image in images]
    return images
