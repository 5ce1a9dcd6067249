"""Tells from a photograph which kinds of degradation are in it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_mamba_arch.text.wish import WISHES

__all__ = ["SightNetwork", "as_input", "views"]

_PATCH = 64  # pixels a side, of a patch and of the reduced photograph
_GRID = 4  # patches a side


def views(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the network sees of a photograph: patches at full size, where noise, blocks and blur are, and the whole,
    reduced, where haze, darkness and holes are.

    Args:
        image: (H, W, 3) RGB, uint8, uint16, or float32 in [0, 1].

    Returns:
        (16, 64, 64, 3) patches that lie evenly, on a JPEG file's blocks; (64, 64, 3) the whole. uint8.
    """
    least = [max(0, _PATCH - side) for side in image.shape[:2]]
    if any(least):
        image = cv2.copyMakeBorder(image, 0, least[0], 0, least[1], cv2.BORDER_REFLECT_101)
    rows, columns = (
        [round((side - _PATCH) * i / (_GRID - 1)) // 8 * 8 for i in range(_GRID)] for side in image.shape[:2]
    )
    patches = np.stack([_bytes(image[y : y + _PATCH, x : x + _PATCH]) for y in rows for x in columns])
    return patches, _bytes(cv2.resize(image, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA))


def as_input(views: np.ndarray) -> Tensor:
    """(..., 3, 64, 64) float32 in [0, 1] of (..., 64, 64, 3) uint8."""
    return torch.from_numpy(views).movedim(-1, -3).float().div_(255).contiguous()


def _bytes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    scale = 255 / 65535 if pixels.dtype == np.uint16 else 255
    return np.rint(pixels * np.float32(scale)).clip(0, 255).astype(np.uint8)


def _convolutions(channels: int, width: int) -> nn.Sequential:
    """To an eighth of the size."""
    layers: list[nn.Module] = []
    widths = (channels, width // 4, width // 2, width, width)
    for before, after, kernel, stride in zip(widths, widths[1:], (5, 3, 3, 3), (2, 2, 2, 1)):
        layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class SightNetwork(nn.Module):
    """Two convolutional networks, one for patches and one for the whole, whose means and spreads are put together.

    Args:
        width: of the last convolution; the others are parts of it.
    """

    def __init__(self, *, width: int = 64):
        super().__init__()
        self.config = {"width": width}
        self.near = _convolutions(6, width)
        self.far = _convolutions(3, width)
        self.head = nn.Sequential(nn.Linear(6 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, len(WISHES)))

    def forward(self, patches: Tensor, whole: Tensor) -> Tensor:
        """Logits (B, 9), in the order of WISHES, of (B, P, 3, 64, 64) and (B, 3, 64, 64) in [0, 1]."""
        x = patches.flatten(0, 1)  # (BP, 3, 64, 64)
        # noise and edges are small beside the brightness
        detail = 8 * (x - F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1))
        near = self.near(torch.cat((x - 0.5, detail), 1))  # (BP, C, 8, 8)
        near = torch.cat((near.mean((2, 3)), near.std((2, 3))), 1).unflatten(0, patches.shape[:2])  # (B, P, 2C)
        far = self.far(whole - 0.5)  # (B, C, 8, 8)
        seen = (near.mean(1), near.amax(1), far.mean((2, 3)), far.std((2, 3)))
        return self.head(torch.cat(seen, 1))
