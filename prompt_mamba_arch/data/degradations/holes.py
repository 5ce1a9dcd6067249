"""Holes: parts of the picture covered by brush strokes, scratches, text or blocks. Restoring them is inpainting."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prompt_mamba_arch.data.degradations.spec import Choice, Degradation, Number

__all__ = ["HOLES"]

# share of the picture covered at amount 0 and at amount 1
_COVER = {"brush": (0.01, 0.35), "blocks": (0.01, 0.35), "text": (0.01, 0.13), "scratches": (0.004, 0.07)}
# thin holes strike the eye more than their area says
_SEEN = {"brush": 1.0, "blocks": 1.0, "text": 1.6, "scratches": 2.0}
# what cameras and people write on photographs: dates, names of files, captions
_WORDS = (
    "12.08.1997", "23:41", "2004-05-17", "07/14 '99", "PM 6:32", "IMG_2041", "DSC_0386", "P1010023", "No. 7",
    "Summer 98", "Hello!", "our garden", "Grandma, 1962", "at the lake", "happy birthday", "second day", "Aunt Mary",
    "Lorem ipsum dolor", "sit amet", "to be continued",
)  # fmt: skip
_FILLS = {"white": (1, 1, 1), "black": (0, 0, 0), "gray": (0.5, 0.5, 0.5)}


def _cover(p: dict) -> float:
    low, high = _COVER[p["shape"]]
    return low + (high - low) * p["amount"]


def _brush(h: int, w: int, cover: float, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((h, w), np.uint8)
    side = min(h, w)
    for _ in range(400):
        thickness = max(1, round(side * (0.02 + 0.07 * rng.random())))
        heading = 2 * np.pi * rng.random() + np.cumsum(0.45 * rng.standard_normal(12))
        ways = side * 0.06 * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        points = rng.random(2) * (w, h) + np.cumsum(ways[: 4 + int(9 * rng.random())], axis=0)
        cv2.polylines(mask, [np.round(points).astype(np.int32)], False, 255, thickness)
        if mask.mean() / 255 >= cover:
            break
    return mask


def _blocks(h: int, w: int, cover: float, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((h, w), np.uint8)
    for _ in range(400):
        y, x, height, width = rng.random(4)
        height, width = max(1, round(h * (0.05 + 0.15 * height))), max(1, round(w * (0.05 + 0.15 * width)))
        top, left = int(y * h) - height // 2, int(x * w) - width // 2
        mask[max(top, 0) : top + height, max(left, 0) : left + width] = 255
        if mask.mean() / 255 >= cover:
            break
    return mask


def _scratches(h: int, w: int, cover: float, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((h, w), np.uint8)
    upright = rng.random() < 0.5  # a film's run along it, a print's in any direction
    for _ in range(600):
        heading = np.pi / 2 + 0.03 * rng.standard_normal() if upright else rng.random() * np.pi
        steps = 12
        length = (0.15 + 0.85 * rng.random() ** 2) * (h if upright else 0.7 * max(h, w)) / steps
        bends = np.cumsum(rng.standard_normal(steps) * (0.01 if upright else 0.06))
        start = rng.random(2) * (w, h)
        ways = length * np.stack([np.cos(heading + bends), np.sin(heading + bends)], axis=1)
        path = start + np.cumsum(np.vstack([np.zeros((1, 2)), ways]), axis=0) - ways.sum(axis=0) / 2
        thickness = 1 + int(rng.random() ** 2 * (1.2 + min(h, w) / 400))
        value = 150 + int(106 * rng.random())
        cv2.polylines(mask, [np.round(path * 16).astype(np.int32)], False, value, thickness, cv2.LINE_AA, 4)
        if mask.mean() / 255 >= cover:
            break
    return mask


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(h: int, w: int, cover: float, rng: np.random.Generator) -> np.ndarray:
    side = min(h, w)
    tilt = 0.0 if rng.random() < 0.6 else 30 * (2 * rng.random() - 1)
    # written on a canvas that still covers the picture when turned
    reach = int(np.ceil(np.hypot(h, w))) + 2
    turn = cv2.getRotationMatrix2D((reach / 2, reach / 2), tilt, 1)
    turn[:, 2] -= ((reach - w) / 2, (reach - h) / 2)
    canvas = Image.new("L", (reach, reach))
    pen = ImageDraw.Draw(canvas)
    mask = np.zeros((h, w), np.uint8)
    taken: list[tuple] = []
    for attempt in range(150):
        smaller = 1 - attempt / 200  # as the gaps that are left
        size = max(6, round(side * smaller * (0.06 + 0.1 * rng.random())))
        text = _WORDS[int(rng.random() * len(_WORDS))]
        y, x = rng.random(2)
        spot = ((reach - w) / 2 + w * (x * 1.1 - 0.3), (reach - h) / 2 + h * (y * 1.1 - 0.1))
        box = pen.textbbox(spot, text, font=_font(size))
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue  # people do not write over their own words
        taken.append(box)
        pen.text(spot, text, fill=255, font=_font(size))
        mask = np.asarray(canvas)
        if tilt == 0:
            top, left = (reach - h) // 2, (reach - w) // 2
            mask = mask[top : top + h, left : left + w]
        else:
            mask = cv2.warpAffine(mask, turn, (w, h), flags=cv2.INTER_LINEAR)
        if mask.mean() / 255 >= cover:
            break
    return mask


_SHAPES = {"brush": _brush, "blocks": _blocks, "scratches": _scratches, "text": _text}


def _apply(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    h, w = image.shape[:2]
    colour = rng.random(3).astype(np.float32)
    mask = _SHAPES[p["shape"]](h, w, _cover(p), rng)[..., None].astype(np.float32) / np.float32(255)
    if p["fill"] == "noise":
        paint = rng.random(image.shape, dtype=np.float32)
    elif p["fill"] == "colour":
        paint = colour
    else:
        paint = np.float32(_FILLS[p["fill"]])
    return image * (1 - mask) + paint * mask


HOLES = Degradation(
    kind="holes",
    params={
        "shape": Choice(("brush", "scratches", "text", "blocks"), (4, 3, 3, 1), "brush"),
        "amount": Number(0, 1, (0.05, 0.9), 0.4),
        "fill": Choice(("white", "black", "gray", "noise", "colour"), (5, 4, 1, 1, 2), "white"),
    },
    apply=_apply,
    severity=lambda p: min(1.0, (_cover(p) * _SEEN[p["shape"]] / 0.36) ** 0.55),
)
