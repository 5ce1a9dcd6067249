"""Photographs read and written a strip at a time, so that large ones need little memory."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from prompt_mamba_arch.scratch import Empty, release

__all__ = ["Channels", "read_strips", "write_jpeg", "write_png"]

STRIP = 1 << 20  # pixels

# TIFF tags
_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 284, 338, 339
# Pillow's
_MODES = {
    "JPEG": ("L", "RGB"), "PNG": ("L", "LA", "RGB", "RGBA", "I;16"), "TIFF": ("L", "RGB", "RGBA", "I;16", "I;16B"),
}  # fmt: skip
_RELEASE_EVERY = 1 << 20  # bytes written


class Channels:
    """What a file holds of a photograph, made in strips: one channel if it is gray, with alpha as the last.

    Attributes:
        shape: (H, W, channels).
        dtype: uint8 or uint16.
    """

    def __init__(self, pixels: np.ndarray, alpha: np.ndarray | None, gray: bool):
        self._pixels, self._alpha, self._gray = pixels, alpha, gray
        self.shape = (*pixels.shape[:2], (1 if gray else 3) + (alpha is not None))
        self.dtype = pixels.dtype

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, W, channels)"""
        channels = self._pixels[top:bottom]
        if self._gray:
            # the mean of the channels, rounded; exact where they are equal
            channels = ((channels.astype(np.uint32).sum(axis=2, keepdims=True) + 1) // 3).astype(self.dtype)
        if self._alpha is not None:
            channels = np.concatenate([channels, self._alpha[top:bottom, :, None]], axis=2)
        return channels

    def strips(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """(its first row, the strip) of so many rows each, from the top to the bottom."""
        for top in range(0, self.shape[0], rows):
            yield top, self.rows(top, top + rows)
            release(self._pixels, self._alpha)


def read_strips(path: Path, image: Image.Image, empty: Empty) -> np.ndarray | None:
    """The stored pixels as they lie, (H, W, channels) uint8 or uint16; None if this cannot read them in strips.

    It needs libvips (the extra `large`), and takes JPEG, PNG and TIFF of common kinds. What is damaged is left to
    others to complain about.

    Args:
        image: the same file, of which Pillow has read the header.
        empty: makes the array.
    """
    if not _is_common(path, image):
        return None
    try:
        import pyvips
    except (ImportError, OSError):  # OSError: it is there, and libvips is not
        return None
    log = logging.getLogger("pyvips")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it would say what is damaged, in its own words
    try:
        source = pyvips.Source.new_from_file(os.fspath(path))
        stored = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error")
        dtype = {"uchar": np.uint8, "ushort": np.uint16}.get(stored.format)
        if dtype is None or (8 * np.dtype(dtype).itemsize, stored.bands) != _kind(path, image):
            return None
        if stored.width * stored.height != image.width * image.height:
            return None
        region = pyvips.Region.new(stored)
        width, height = stored.width, stored.height
        pixels = empty((height, width, stored.bands), dtype)
        rows = max(1, STRIP // width)
        for top in range(0, height, rows):
            count = min(rows, height - top)
            strip = np.frombuffer(region.fetch(0, top, width, count), dtype)
            pixels[top : top + count] = strip.reshape(count, width, -1)
            release(pixels)
        return pixels
    except pyvips.Error:
        return None
    finally:
        log.setLevel(level)


def _kind(path: Path, image: Image.Image) -> tuple[int, int]:
    """Bits of a channel, and channels; for 16 bits Pillow's modes do not say it."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS, (1,))), image.tag_v2.get(_SAMPLES, 1)
    if image.format == "PNG":
        with open(path, "rb") as file:
            bits, colour = file.read(26)[24:]  # of the header
        return bits, {0: 1, 2: 3, 4: 2, 6: 4}.get(colour, 0)
    return 8, len(image.getbands())


def _is_common(path: Path, image: Image.Image) -> bool:
    """Whether it is stored in a way that all readers understand alike."""
    if image.mode not in _MODES.get(image.format, ()) or "transparency" in image.info:
        return False
    if image.format == "JPEG":
        return True
    if _kind(path, image)[0] not in (8, 16):
        return False
    if image.format == "PNG":
        return not image.info.get("interlace") and not _has_late_metadata(path)
    tags = image.tag_v2
    colours = {1: 1, 2: 3}.get(tags.get(_PHOTOMETRIC), 0)  # black is 0; RGB
    alpha = tags.get(_EXTRA_SAMPLES, ()) == (2,)  # not multiplied into the colours
    return (
        tags.get(_SAMPLES, 1) == colours + alpha
        and tags.get(_PLANAR, 1) == 1
        and set(tags.get(_SAMPLE_FORMAT, (1,))) == {1}
        and len(set(tags.get(_BITS))) == 1
    )


def _has_late_metadata(path: Path) -> bool:
    """Whether a PNG file's EXIF data may stand after its pixels, where only who reads them finds it."""
    seen = False
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            seen |= kind == b"IDAT"
            if seen and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(length + 4, os.SEEK_CUR)
    return False


def write_png(path: Path, channels: Channels, *, before: list[tuple[bytes, bytes]]) -> None:
    """A PNG file (PNG specification, third edition), 8 or 16 bits.

    Args:
        before: chunks that stand before the pixels, (kind, data).
    """
    height, width, count = channels.shape
    size = channels.dtype.itemsize
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    header = struct.pack(">IIBBBBB", width, height, 8 * size, colour, 0, 0, 0)
    with open(path, "wb") as file:

        def put(kind: bytes, data: bytes) -> None:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in [(b"IHDR", header), *before]:
            put(kind, data)
        compressor, above = zlib.compressobj(6), np.zeros((1, width, count * size), np.uint8)
        for _, strip in channels.strips(max(1, STRIP // width)):
            stored = strip.astype(f">u{size}").reshape(len(strip), width, count).view(np.uint8)
            data = compressor.compress(_filtered(stored, above))
            above = stored[-1:]
            if data:
                put(b"IDAT", data)
        put(b"IDAT", compressor.flush())
        put(b"IEND", b"")


def _filtered(rows: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Each row less what its neighbours foretell, by the filter that leaves least, as the specification advises.

    Args:
        rows: (n, W, bytes of a pixel) uint8; above: (1, W, bytes of a pixel), the row before them.

    Returns:
        (n, 1 + W * bytes of a pixel) uint8, the filter's number before each row.
    """
    up = np.concatenate([above, rows[:-1]])
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, 1:], corner[:, 1:] = rows[:, :-1], up[:, :-1]
    a, b, c = (one.astype(np.int16) for one in (left, up, corner))
    # Paeth: the neighbour that is nearest to left + up - corner, in this order where two are
    to_left, to_up, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where(to_up <= to_corner, up, corner)
    nearest = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)
    foretold = {1: left, 2: up, 3: ((a + b) >> 1).astype(np.uint8), 4: nearest}
    filtered = np.empty((len(rows), 1 + rows[0].size), np.uint8)
    least = np.full(len(rows), np.iinfo(np.int64).max)
    for number, guess in foretold.items():
        rest = (rows - guess).reshape(len(rows), -1)  # modulo 256, as the reader adds
        cost = np.minimum(rest, -rest).sum(axis=1, dtype=np.int64)  # as signed numbers, their magnitudes
        better = cost < least
        least[better] = cost[better]
        filtered[better, 0] = number
        filtered[better, 1:] = rest[better]
    return filtered


def write_jpeg(path: Path, channels: Channels, empty: Empty, **options) -> None:
    """A JPEG file of 8 bits, the same to the last byte as Pillow writes of an image in memory.

    Pillow keeps RGB in four bytes; an array that has them as well is not copied.

    Args:
        empty: makes that array.
        options: of Pillow's `Image.save`.
    """
    height, width, count = channels.shape
    shape = (height, width) if count == 1 else (height, width, 4)
    pixels = empty(shape, np.uint8)
    for top, strip in channels.strips(max(1, STRIP // width)):
        if count == 1:
            pixels[top : top + len(strip)] = strip[..., 0]
        else:
            pixels[top : top + len(strip), :, :3] = strip
            pixels[top : top + len(strip), :, 3] = 255
        release(pixels)
    mode = "L" if count == 1 else "RGBX"
    image = Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
    with open(path, "wb") as file:
        image.save(_Releasing(file, pixels), "JPEG", **options)


class _Releasing:
    """A file that is written to; now and then it releases the array that what is written comes from."""

    def __init__(self, file: BinaryIO, array: np.ndarray):
        self._file, self._array, self._written = file, array, 0

    def write(self, data: bytes) -> int:
        self._written += len(data)
        if self._written > _RELEASE_EVERY:
            self._written = 0
            release(self._array)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
