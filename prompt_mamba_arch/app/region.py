"""The region that a person has brushed: read, softened at its edge, and used to blend two images."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
from PIL import Image

from prompt_mamba_arch.errors import UserError

__all__ = ["blend", "box_around", "read_mask", "soften"]

_START = "data:image/png;base64,"
_LONGEST_TEXT = 8 << 20  # characters
_MAX_SIDE = 4096  # pixels; a page draws at most 1024
_CONTEXT = 64  # pixels around the region that the network sees, at least
_STRIP = 1 << 20  # pixels


def read_mask(text: str, size: tuple[int, int]) -> np.ndarray | None:
    """A canvas as a browser exports it -> where it was painted.

    Args:
        text: `data:image/png;base64,...`; opaque pixels are painted, "" means that nothing is.
        size: height and width of the image that was painted on.

    Returns:
        (H, W) bool, or None where nothing was painted.

    Raises:
        UserError: it is no such picture.
    """
    if not text.strip():
        return None
    try:
        if not text.startswith(_START) or len(text) > _LONGEST_TEXT:
            raise ValueError("no picture")
        data = base64.b64decode(text[len(_START) :], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if max(image.size) > _MAX_SIDE:
                raise ValueError("too large")
            painted = np.asarray(image.convert("RGBA"))[..., 3]
    except Exception:  # Pillow raises nearly everything, by kind of damage
        raise UserError("the brushed region was lost on its way; brush it again") from None
    mask = cv2.resize(painted, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) >= 128
    return mask if mask.any() else None


def soften(mask: np.ndarray, width: float) -> np.ndarray:
    """Weights that rise from the region's edge to its inside: outside they are 0, so that nothing there can change.

    Args:
        mask: (H, W) bool.
        width: of the edge in pixels; less where the whole region is narrower, so that a thin stroke counts, too.

    Returns:
        (H, W) float32 in [0, 1].
    """
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)  # the image's edge is no edge
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    if mask.all():
        return np.ones(mask.shape, np.float32)
    part = np.clip(distance / max(min(width, float(distance.max())), 1.0), 0, 1)
    return part * part * (3 - 2 * part)  # smoothstep


def box_around(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the region with as much around it as a network needs to see: half its size, and
    64 pixels at least."""
    spans = []
    for axis, size in ((1, mask.shape[0]), (0, mask.shape[1])):
        painted = np.flatnonzero(mask.any(axis=axis))
        start, stop = int(painted[0]), int(painted[-1]) + 1
        around = max(_CONTEXT, (stop - start) // 2)
        spans += [max(start - around, 0), min(stop + around, size)]
    return tuple(spans)


def blend(before: np.ndarray, after: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`after` where the weight is 1, `before` where it is 0; exactly.

    Args:
        before, after: (H, W, 3), uint8 or uint16.
        weight: (H, W) float32 in [0, 1].
    """
    result = np.empty_like(before)
    rows = max(1, _STRIP // before.shape[1])  # in strips: floats take four times the room
    for top in range(0, len(before), rows):
        part = slice(top, top + rows)
        old = before[part].astype(np.float32)
        result[part] = np.rint(old + (after[part] - old) * weight[part, :, None])
    return result
