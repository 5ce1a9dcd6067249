"""Photographs from files and back, with what belongs to them: alpha, EXIF, colour profile, bit depth."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from prompt_mamba_arch import image_strips
from prompt_mamba_arch.errors import UserError, one_line, replace_on_success
from prompt_mamba_arch.image_strips import Channels
from prompt_mamba_arch.scratch import Empty, arrays_in, copied, release

__all__ = ["SUFFIXES", "Photo", "read_photo", "read_size", "write_photo"]

# suffix -> Pillow's format
SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
}  # fmt: skip
_DEEP_FORMATS = ("PNG", "TIFF")  # can hold 16 bits a channel
_ALPHA_FORMATS = ("PNG", "TIFF", "WEBP")
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
_MAX_PIXELS = 500_000_000  # more is taken for a decompression bomb
_MAX_JPEG_EXIF = 65533  # bytes
_LARGE = 32_000_000  # pixels; from here on, photographs are read and written in strips

# TIFF and EXIF tags
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS = 256, 257, 258, 259, 262, 273
_ORIENTATION, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _X_DPI, _Y_DPI = 274, 277, 278, 279, 282, 283
_PLANAR, _DPI_UNIT, _PREDICTOR, _EXTRA_SAMPLES, _ICC = 284, 296, 317, 338, 34675
_XMP, _EXIF_IFD, _EXIF_WIDTH, _EXIF_HEIGHT = 700, 34665, 40962, 40963
# Tags that say how a TIFF file stores its pixels (TIFF 6.0, its technical notes, and XMP and the profile, which have
# places of their own). Pillow counts them as EXIF; in another file they would be wrong.
_STORAGE_TAGS = (
    *(*range(254, 260), *range(262, 270), 273, *range(277, 282), 284, *range(288, 294), 297, 301, *range(317, 348)),
    *(*range(512, 522), *range(529, 533), 700, 34377, _ICC, 37724),
)


@dataclass(frozen=True)
class Photo:
    """A photograph, upright.

    Attributes:
        pixels: (H, W, 3) uint8 or uint16 RGB; three equal channels if `gray`.
        alpha: (H, W) of the same type, or None.
        gray: the file holds one channel, and gets one when it is written.
        exif: EXIF block (its orientation is 1, as `pixels` are upright), or None.
        icc: colour profile, or None.
        dpi: resolution, or None.
        notes: what the file held and this does not, in plain words.
        lossless: it is from a WebP file that keeps every pixel, and is written as one.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=())
    lossless: bool = False

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """The same photograph with other pixels; alpha is enlarged with them if they are larger."""
        alpha = self.alpha
        if alpha is not None and alpha.shape != pixels.shape[:2]:
            alpha = cv2.resize(alpha, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_CUBIC)
        return replace(self, pixels=pixels, alpha=alpha)


def read_photo(path: str | os.PathLike, *, empty: Empty = np.empty) -> Photo:
    """Reads PNG, JPEG, WebP, TIFF or BMP, 8 or 16 bits, gray, colour or palette, with or without alpha.

    Args:
        empty: makes the arrays, of their shape and type; that of `scratch.arrays_in` lays large ones on the disk.

    Raises:
        UserError: missing, empty, cut off, no image, an image of an unknown kind, or more than 500 megapixels.
        OSError: the file may not be read.
    """
    path = Path(path)
    with _opened(path) as image:
        # Pillow turns TIFF files upright when it loads them, but not what is said of their sides
        tag = image.tag_v2.get(_ORIENTATION, 1) if image.format == "TIFF" else 1
        stored = image_strips.read_strips(path, image, empty) if image.width * image.height >= _LARGE else None
        if stored is None:
            image.load()  # tells of damage that OpenCV passes over
        return _from_pillow(path, image, stored, tag, empty)


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of the upright photograph, of which only the header is read. Errors as `read_photo`."""
    with _opened(Path(path)) as image:
        try:
            turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception:  # Pillow raises nearly everything here
            turned = False
        return (image.width, image.height) if turned else (image.height, image.width)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise UserError(f"no such file: {str(path)!r}")
    if path.stat().st_size == 0:
        raise UserError(f"{str(path)!r} is empty")
    try:
        # as a file: of a path, Pillow maps TIFF files that are not compressed, and those lying on their side wrongly
        with _our_limits(), open(path, "rb") as file, Image.open(file, formats=list(set(SUFFIXES.values()))) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise UserError(f"{str(path)!r} has {image.width} x {image.height} pixels, too many to be a photo")
            yield image
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UserError(f"{str(path)!r} is not an image that can be read (PNG, JPEG, WebP, TIFF, BMP)") from None
    except Exception as error:  # Pillow's readers raise nearly everything, by kind of damage
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{str(path)!r} is damaged: {one_line(error) or type(error).__name__}") from None


@contextlib.contextmanager
def _our_limits() -> Iterator[None]:
    """Pillow's settings belong to the process, and others may have changed them."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; what matters raises
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def _from_pillow(path: Path, image: Image.Image, stored: np.ndarray | None, tag: int, empty: Empty) -> Photo:
    """`stored`: its pixels if they have been read in strips; then Pillow has read the header alone. `tag`: how a TIFF
    file says that its pixels lie."""
    notes = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # phones put depth maps and previews into them
        notes.append(f"only the first of {image.n_frames} images in the file is read")
    icc = image.info.get("icc_profile") or None
    if image.mode in ("CMYK", "LAB"):
        notes.append(f"{image.mode} colours became RGB")
        icc = None  # it is for colours of that kind
    if any(key in image.info for key in ("xmp", "XML:com.adobe.xmp")) or _XMP in getattr(image, "tag_v2", ()):
        notes.append("its XMP data (captions, edits of photo programs) are not kept")
    exif, orientation = None, 1
    try:
        # Pillow would read all of a PNG file to look for it
        exif, orientation = _exif(image, image.getexif() if stored is None else Image.Image.getexif(image))
    except Exception:  # the photograph is whole; Pillow raises nearly everything here, too
        notes.append("its EXIF data are damaged and were left out")
    if stored is None:
        pixels, turned = _deep_pixels(path, image) or (_shallow_pixels(path, image, empty), None)
        orientation = orientation if turned is None else turned
    else:
        pixels = stored
    pixels = _contiguous(_upright(pixels, orientation), empty)
    dpi = _dpi(image.info.get("dpi"))
    if dpi and (orientation in (5, 6, 7, 8) or tag in (5, 6, 7, 8)):
        dpi = dpi[::-1]
    gray = pixels.shape[2] in (1, 2)
    alpha = _contiguous(pixels[..., -1], empty) if pixels.shape[2] in (2, 4) else None
    rgb = np.broadcast_to(pixels[..., :1], (*pixels.shape[:2], 3)) if gray else pixels[..., :3]
    rgb = _contiguous(rgb, empty)
    return Photo(rgb, alpha, gray, exif, icc, dpi, tuple(notes), image.format == "WEBP" and _is_lossless_webp(path))


def _is_lossless_webp(path: Path) -> bool:
    """Whether its pixels are in a chunk VP8L (the WebP container: RIFF chunks of name, size and padded data)."""
    with open(path, "rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name in (b"VP8L", b"VP8 "):
                return name == b"VP8L"
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


def _contiguous(array: np.ndarray, empty: Empty) -> np.ndarray:
    return array if array.flags.c_contiguous and array.flags.writeable else copied(array, empty)


def _exif(image: Image.Image, exif: Image.Exif) -> tuple[bytes | None, int]:
    """The EXIF block for the upright photograph, and how its pixels lie.

    If they were loaded by Pillow, `exif` is to be read after that: it turns TIFF files upright and forgets their tag.
    """
    orientation = exif.get(_ORIENTATION, 1)
    if image.format == "TIFF":
        for tag in _STORAGE_TAGS:
            if tag in exif:
                del exif[tag]
    if not exif:
        return None, 1
    exif[_ORIENTATION] = 1
    return exif.tobytes(), orientation if orientation in range(1, 9) else 1


def _with_size(exif: bytes, width: int, height: int) -> bytes:
    """The block with the size that it states, if it does: turning and enlarging have changed it."""
    block = Image.Exif()
    try:
        block.load(exif)
        inner = block.get_ifd(_EXIF_IFD)
        true = {tag: size for tag, size in ((_EXIF_WIDTH, width), (_EXIF_HEIGHT, height)) if tag in inner}
        if all(inner[tag] == size for tag, size in true.items()):
            return exif
        inner.update(true)
        return block.tobytes()
    except Exception:  # an odd block, as it was; Pillow raises nearly everything
        return exif


def _dpi(dpi: object) -> tuple[float, float] | None:
    try:
        horizontal, vertical = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    sane = all(math.isfinite(value) and 0 < value < 1e6 for value in (horizontal, vertical))
    return (horizontal, vertical) if sane else None


def _deep_pixels(path: Path, image: Image.Image) -> tuple[np.ndarray, int | None] | None:
    """(H, W, channels) uint16 if the file has 16 bits a channel, of which Pillow reads 8 in colour; else None.

    The second value is how they lie, or None: as the EXIF block says.
    """
    if image.format not in _DEEP_FORMATS:
        return None
    data, orientation, tags = np.fromfile(path, np.uint8), None, {}
    if image.format == "PNG":
        bits, colour_type = data[24:26].tolist()  # of the header
        if bits != 16:
            return None
        gray = colour_type in (0, 4)
    else:
        tags = image.tag_v2
        bits = max(tags.get(_BITS, (1,)))
        if bits <= 8:
            return None
        if bits != 16 or tags.get(_PHOTOMETRIC) not in (0, 1, 2) or tags.get(_PLANAR, 1) != 1:
            raise UserError(
                f"{str(path)!r} is a TIFF of an unusual kind; save it as gray or RGB, interleaved, with 8 or 16 bits a "
                "channel"
            )
        gray = tags[_PHOTOMETRIC] != 2
        orientation = _lay_flat(data)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[0] * pixels.shape[1] != image.width * image.height:
        raise UserError(f"{str(path)!r} has 16 bits a channel in a form that cannot be read")
    pixels = np.atleast_3d(pixels)
    if pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]  # BGR(A)
        if gray:  # OpenCV repeats it
            pixels = pixels[..., [0, *range(3, pixels.shape[2])]]
    if tags:
        pixels = _tiff_meaning(pixels, tags)
    elif "transparency" in image.info:  # one colour is transparent
        colour = pixels[..., : 1 if gray else 3]
        seen = (colour != np.asarray(image.info["transparency"])).any(axis=2, keepdims=True)
        pixels = np.concatenate([colour, seen.astype(np.uint16) * np.uint16(65535)], axis=2)
    return pixels, orientation


def _tiff_meaning(pixels: np.ndarray, tags: Mapping[int, Any]) -> np.ndarray:
    """Stored 16-bit numbers -> black at 0, and alpha only where it is one, not multiplied into the colours."""
    if tags.get(_PHOTOMETRIC) == 0:  # white is 0
        pixels = 65535 - pixels
    colours = 3 if tags.get(_PHOTOMETRIC) == 2 else 1
    extra = tags.get(_EXTRA_SAMPLES, (0,))[0]  # 1: alpha, multiplied in; 2: alpha; 0: something else
    if pixels.shape[2] == colours + 1 and extra == 1:
        alpha = pixels[..., -1:]
        colour = pixels[..., :-1] * (65535 / np.maximum(alpha, 1).astype(np.float64))
        return np.concatenate([np.rint(colour.clip(0, 65535)).astype(np.uint16), alpha], axis=2)
    return pixels[..., : colours + (extra == 2)]


def _lay_flat(data: np.ndarray) -> int:
    """Sets a TIFF file's orientation to 1, which versions of OpenCV heed differently. Returns what it was.

    Not in BigTIFF, where OpenCV's way is taken.
    """
    order, start, entries = _first_directory(data.tobytes())
    for index, (tag, entry) in enumerate(entries):
        if tag == _ORIENTATION:
            place = start + 2 + 12 * index + 8
            data[place : place + 2] = np.frombuffer(struct.pack(order + "H", 1), np.uint8)
            found = struct.unpack_from(order + "H", entry, 8)[0]
            return found if found in range(1, 9) else 1
    return 1


def _first_directory(block: bytes) -> tuple[str, int, list[tuple[int, bytes]]]:
    """Byte order, place, and (tag, 12 bytes as they are) of the first directory of a TIFF file or EXIF block."""
    order = {b"II": "<", b"MM": ">"}[block[:2]]
    version, start = struct.unpack_from(order + "HI", block, 2)
    if version != 42:  # BigTIFF
        return order, 0, []
    (count,) = struct.unpack_from(order + "H", block, start)
    places = range(start + 2, start + 2 + 12 * count, 12)
    return order, start, [(struct.unpack_from(order + "H", block, p)[0], block[p : p + 12]) for p in places]


def _shallow_pixels(path: Path, image: Image.Image, empty: Empty) -> np.ndarray:
    """(H, W, 1 to 4) uint8."""
    transparent = "transparency" in image.info
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, image.mode)
    if transparent and mode == "L":
        mode = "LA"
    elif transparent or mode not in ("L", "LA", "RGB", "RGBA"):
        mode = "RGBA" if transparent or mode == "RGBA" else "RGB"
    pixels = empty((image.height, image.width, len(mode)), np.uint8)
    # converted in strips: Pillow's copies of a large photograph are larger
    rows = max(1, image_strips.STRIP // image.width)
    try:
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            pixels[top : top + rows] = np.atleast_3d(np.asarray(strip.convert(mode)))
            release(pixels)
    except ValueError:
        raise UserError(f"{str(path)!r} holds {image.mode} colours; save it as RGB") from None
    return pixels


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What the EXIF tag asks a viewer to do, done; a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def write_photo(path: str | os.PathLike, photo: Photo) -> list[str]:
    """Writes in the format that the suffix names; JPEG and WebP with quality 95, WebP without loss if it was read so.

    The file appears when it is whole; whatever stops the writing, there is no half of one.

    Returns:
        What the format cannot hold, in plain words.

    Raises:
        UserError: an unknown suffix, or more pixels than the format can hold. OSError: the folder cannot be written
        to, the disk is full.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"cannot write {path.name!r}: its suffix must be one of {', '.join(SUFFIXES)}")
    if max(photo.pixels.shape[:2]) > _LONGEST_SIDE.get(kind, 2**31 - 1):
        height, width = photo.pixels.shape[:2]
        raise UserError(f"cannot write {path.name!r}: {kind} cannot hold {width} x {height} pixels; write PNG or TIFF")
    photo, lost = _for_format(photo, kind)
    channels = Channels(photo.pixels, photo.alpha, photo.gray)
    large = channels.shape[0] * channels.shape[1] >= _LARGE
    with replace_on_success(path) as temporary:
        try:
            if kind == "TIFF":
                _write_tiff(temporary, channels, photo)
            elif kind == "PNG" and (large or channels.dtype == np.uint16):
                image_strips.write_png(temporary, channels, before=_png_chunks(photo))
            else:
                _write_shallow(temporary, channels, kind, photo, large)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the encoder's
                raise
            raise UserError(f"cannot write {path.name!r}: {one_line(error)}") from error
    return lost


def _for_format(photo: Photo, kind: str) -> tuple[Photo, list[str]]:
    """What of the photograph the format can hold, and what it cannot."""
    lost = []
    pixels, alpha, gray, exif, icc = photo.pixels, photo.alpha, photo.gray, photo.exif, photo.icc
    if pixels.dtype == np.uint16 and kind not in _DEEP_FORMATS:
        lost.append(f"{kind} holds 8 bits a channel: 16 bits were reduced")
        pixels, alpha = (
            a if a is None else ((a.astype(np.uint32) + 128) // 257).astype(np.uint8) for a in (pixels, alpha)
        )
    if alpha is not None and kind not in _ALPHA_FORMATS:
        lost.append(f"{kind} has no transparency: the alpha channel was left out")
        alpha = None
    # WebP has no gray; Pillow and OpenCV cannot read a TIFF file of 16-bit gray with alpha
    if kind == "WEBP" or (kind == "TIFF" and pixels.dtype == np.uint16 and alpha is not None):
        gray = False
    if icc and (kind == "BMP" or (not gray and icc[16:20] == b"GRAY")):
        lost.append(f"{kind} cannot hold the colour profile: it was left out")
        icc = None
    if exif and (kind == "BMP" or (kind == "JPEG" and len(exif) > _MAX_JPEG_EXIF)):
        lost.append(f"{kind} cannot hold the EXIF data: they were left out")
        exif = None
    if exif:
        exif = _with_size(exif, pixels.shape[1], pixels.shape[0])
    return replace(photo, pixels=pixels, alpha=alpha, gray=gray, exif=exif, icc=icc), lost


def _write_shallow(path: Path, channels: Channels, kind: str, photo: Photo, large: bool) -> None:
    options: dict = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95, "method": 4}}.get(kind, {})
    if kind == "WEBP" and photo.lossless:
        options = {"lossless": True, "exact": True}
    if photo.exif:
        options["exif"] = photo.exif
    if photo.icc:
        options["icc_profile"] = photo.icc
    if photo.dpi and kind != "WEBP":
        options["dpi"] = photo.dpi
    if large and kind == "JPEG":
        image_strips.write_jpeg(path, channels, arrays_in(path.parent), **options)
        return
    stored = channels.rows(0, channels.shape[0])
    image = Image.fromarray(stored[..., 0] if stored.shape[2] == 1 else stored)
    image.save(path, kind, **options)


def _write_tiff(path: Path, channels: Channels, photo: Photo) -> None:
    """TIFF 6.0, deflated with the horizontal predictor. Pillow writes 16 bits for gray only; OpenCV no metadata.

    An EXIF block is the start of a TIFF file: header, directory, values at places counted from its start. The file is
    that block, the pixels after it, and at the end a new directory, which takes the block's entries as they are.
    """
    height, width, count = channels.shape
    block = bytearray(photo.exif[photo.exif.startswith(b"Exif\0\0") * 6 :] if photo.exif else b"II*\0\0\0\0\0")
    order, _, old = _first_directory(bytes(block)) if photo.exif else ("<", 0, [])
    bits = 8 * channels.dtype.itemsize
    with open(path, "wb") as file:
        file.write(block)

        def put(data: bytes) -> int:
            """Returns the data's place; places are even."""
            file.write(b"\0" * (file.tell() % 2))
            place = file.tell()
            if place + len(data) > 2**32 - 2**20:
                raise UserError("cannot write TIFF files of more than 4 GB; write PNG")
            file.write(data)
            return place

        rows = max(1, 2**20 // (width * count * channels.dtype.itemsize))
        offsets, lengths = [], []
        for _, stored in channels.strips(rows):
            strip = stored.copy()
            strip[:, 1:] -= stored[:, :-1]  # modulo 2^bits, as the reader adds
            data = zlib.compress(strip.astype(f"{order}u{bits // 8}").tobytes(), 6)
            offsets.append(put(data))
            lengths.append(len(data))

        entries = {tag: entry for tag, entry in old if tag not in _STORAGE_TAGS}

        def add(tag: int, code: str, *values: int) -> None:
            kind = {"H": 3, "I": 4}[code]
            data = struct.pack(f"{order}{len(values)}{code}", *values)
            add_bytes(tag, kind, len(values), data)

        def add_bytes(tag: int, kind: int, number: int, data: bytes) -> None:
            value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", put(data))
            entries[tag] = struct.pack(order + "HHI", tag, kind, number) + value

        add(_WIDTH, "I", width)
        add(_HEIGHT, "I", height)
        add(_BITS, "H", *[bits] * count)
        add(_COMPRESSION, "H", 8)
        add(_PHOTOMETRIC, "H", 2 if count >= 3 else 1)
        add(_STRIP_OFFSETS, "I", *offsets)
        add(_ORIENTATION, "H", 1)
        add(_SAMPLES, "H", count)
        add(_STRIP_ROWS, "I", rows)
        add(_STRIP_BYTES, "I", *lengths)
        add(_PLANAR, "H", 1)
        add(_PREDICTOR, "H", 2)
        if count in (2, 4):
            add(_EXTRA_SAMPLES, "H", 2)  # alpha, not multiplied into the colours
        if photo.dpi:
            for tag, dpi in zip((_X_DPI, _Y_DPI), photo.dpi):
                add_bytes(tag, 5, 1, struct.pack(order + "II", round(dpi * 1000), 1000))
            add(_DPI_UNIT, "H", 2)
        if photo.icc:
            add_bytes(_ICC, 7, len(photo.icc), photo.icc)
        table = struct.pack(order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + b"\0" * 4
        directory = put(table)
        file.seek(4)
        file.write(struct.pack(order + "I", directory))


def _png_chunks(photo: Photo) -> list[tuple[bytes, bytes]]:
    """Colour profile, resolution and EXIF as (kind, data): Pillow writes 16 bits for gray only, and all at once; OpenCV
    writes no metadata and no gray with alpha."""
    chunks = []
    if photo.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.icc)))
    if photo.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in photo.dpi), 1)))
    if photo.exif:
        chunks.append((b"eXIf", photo.exif[6:] if photo.exif.startswith(b"Exif\0\0") else photo.exif))
    return chunks
