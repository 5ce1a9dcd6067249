"""Looks at encoded images without decoding them, and cuts sub-images."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from prompt_mamba_arch.data.degradations.resample import matlab_downscale
from prompt_mamba_arch.data.image_source import decode, is_cut_off
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prepare.spec import Crop

__all__ = ["Piece", "Shape", "encode", "grid", "reduced", "shape_of"]

_MULTIPLE = 12  # benchmarks' clean images are cut to it, so that x2, x3 and x4 fit
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # as OpenCV reads them unchanged


class Shape(NamedTuple):
    """Pixels, and channels in the file."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Piece(NamedTuple):
    """A sub-image: the end of its name, and where it lies in the clean image, in pixels."""

    suffix: str
    top: int
    left: int
    height: int
    width: int


def shape_of(data: bytes) -> Shape:
    """The size of an encoded image, after a look at whether it is whole.

    A PNG's check sums are all compared, which finds every damage at the speed of reading; a JPEG must have its end;
    other formats are decoded.

    Raises:
        UserError: it is damaged, cut off, or no image; the text is what is wrong with it.
    """
    if not data:
        raise UserError("the file is empty")
    if data.startswith(_PNG):
        return _png_shape(data)
    if data.startswith(b"\xff\xd8"):
        if is_cut_off(data):
            raise UserError("the JPEG ends too early")
        try:
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                channels = 1 if image.mode == "L" else 3
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f"not a JPEG that can be read ({error})") from None
        return Shape(width, height, channels) if turned else Shape(height, width, channels)
    try:
        height, width = decode(data).shape[:2]
    except UserError:
        raise UserError("not an image that can be read") from None
    return Shape(height, width, 3)


def _png_shape(data: bytes) -> Shape:
    view, position, shape = memoryview(data), len(_PNG), None
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = bytes(view[position + 4 : position + 8]), position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise UserError(f"the PNG is damaged at byte {position}")
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack_from(">IIBB", data, position + 8)
            shape = Shape(height, width, _PNG_CHANNELS.get(colour, 3))
        if kind == b"IEND" and shape is not None:
            return shape
        position = end + 4
    raise UserError("the PNG ends too early")


def grid(shape: Shape, crop: Crop, scales: Mapping[str, int]) -> list[Piece]:
    """Where the sub-images of a clean image lie: `step` apart, the last ones at its right and bottom edge.

    All corners and sizes are multiples of every scale, so the degraded sub-images show the same. An image that is
    smaller than a sub-image is one by itself.
    """
    unit = math.lcm(*scales.values(), 1)
    tops = _starts(shape.height, crop, unit)
    lefts = _starts(shape.width, crop, unit)
    height, width = (min(crop.size, side) // unit * unit for side in shape[:2])
    places = [(top, left) for top in tops for left in lefts]
    return [Piece(f"_s{number:03d}", *place, height, width) for number, place in enumerate(places, start=1)]


def _starts(side: int, crop: Crop, unit: int) -> list[int]:
    last = max(side - crop.size, 0) // unit * unit
    step = max(crop.step // unit, 1) * unit
    return [*range(0, last, step), last]


def reduced(image: np.ndarray, scale: int) -> np.ndarray:
    """uint8 (H, W, 3) -> the clean image cut to a multiple of 12 and made `scale` times smaller by MATLAB's bicubic;
    1 only cuts."""
    height, width = (side // _MULTIPLE * _MULTIPLE for side in image.shape[:2])
    if not height or not width:
        raise UserError(f"it is smaller than {_MULTIPLE} pixels")
    image = image[:height, :width]
    if scale == 1:
        return image
    if image.dtype != np.uint8:
        raise UserError("it has 16 bits; the benchmarks' images have 8")
    return matlab_downscale(image, scale)


def encode(image: np.ndarray, level: int = 3) -> bytes:
    """(H, W, 3) RGB, uint8 or uint16 -> PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, level])
    if not done:
        raise UserError("it cannot be written as PNG")
    return data.tobytes()
