"""Photographs that scikit-image ships, which anyone may have and show."""

from __future__ import annotations

import importlib

import numpy as np

from prompt_mamba_arch.errors import UserError, did_you_mean

__all__ = ["Photographs"]


class Photographs:
    """They stand for an `ImageSource`: keys, and images (H, W, 3) uint8 RGB.

    Raises:
        UserError: scikit-image is not installed.
    """

    keys = ("astronaut", "chelsea", "coffee", "rocket")

    def __init__(self):
        try:
            self._data = importlib.import_module("skimage.data")
        except ImportError:
            raise UserError("scikit-image is not installed, whose photographs the pictures are of") from None

    def read(self, key: str) -> np.ndarray:
        return np.ascontiguousarray(getattr(self._data, self.path(key))()[..., :3])

    def path(self, key: str) -> str:
        if key not in self.keys:
            raise UserError(f"scikit-image's photographs are {', '.join(self.keys)}{did_you_mean(key, self.keys)}")
        return key
