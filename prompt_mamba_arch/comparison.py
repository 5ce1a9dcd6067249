"""Before and after, in one picture."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["before_after"]

_LONGEST = 4096  # pixels of a side; larger photographs are made smaller
_WORDS = ("before", "after")


def before_after(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Both photographs with their names above, side by side, or one above the other if they are wider than high.

    Args:
        before, after: (H, W, 3) RGB, uint8 or uint16; `before` is enlarged to the size of `after`.

    Returns:
        uint8 RGB.
    """
    height, width = after.shape[:2]
    scale = min(1, _LONGEST / max(height, width))
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    pictures = [Image.fromarray(_eight_bits(_reduced(image, width, height))) for image in (before, after)]
    pictures = [p if p.size == (width, height) else p.resize((width, height), Image.Resampling.BICUBIC)
                for p in pictures]  # fmt: skip
    size = max(12, min(width, height) // 30)
    font, line, gap = ImageFont.load_default(size), round(1.5 * size), max(2, size // 4)
    beside = width <= height
    shift = (width + gap, 0) if beside else (0, height + line + gap)
    sheet = Image.new("RGB", (width + shift[0], height + line + shift[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, word) in enumerate(zip(pictures, _WORDS)):
        left, top = i * shift[0], i * shift[1]
        draw.text((left + size // 3, top + size // 8), word, fill="black", font=font)
        sheet.paste(picture, (left, top + line))
    return np.asarray(sheet)


def _reduced(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A much larger image at that size: Pillow would copy all of it."""
    much = image.shape[0] >= 2 * height and image.shape[1] >= 2 * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) if much else image


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
