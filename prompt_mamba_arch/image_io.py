"""Photographs from files and back, with what belongs to them: alpha, EXIF, colour profile, bit depth."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from prompt_mamba_arch.errors import UserError, one_line, replace_on_success

__all__ = ["SUFFIXES", "Photo", "read_photo", "write_photo"]

# suffix -> Pillow's format
SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
}  # fmt: skip
_DEEP_FORMATS = ("PNG", "TIFF")  # can hold 16 bits a channel
_ALPHA_FORMATS = ("PNG", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # EXIF tag
_ICC_TAG = 34675  # TIFF tag
_MAX_PIXELS = 500_000_000  # more is taken for a decompression bomb


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
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    gray: bool = False
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = field(default=())

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """The same photograph with other pixels; alpha is enlarged with them if they are larger."""
        alpha = self.alpha
        if alpha is not None and alpha.shape != pixels.shape[:2]:
            alpha = cv2.resize(alpha, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_CUBIC)
        return replace(self, pixels=pixels, alpha=alpha)


def read_photo(path: str | os.PathLike) -> Photo:
    """Reads PNG, JPEG, WebP, TIFF or BMP, 8 or 16 bits, gray, colour or palette, with or without alpha.

    Raises:
        UserError: missing, empty, cut off, no image, an image of an unknown kind, or more than 500 megapixels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such file: {str(path)!r}")
    if path.stat().st_size == 0:
        raise UserError(f"{str(path)!r} is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours
            with Image.open(path) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise UserError(f"{str(path)!r} has {image.width} x {image.height} pixels, too many to be a photo")
                _require_whole_files()
                return _from_pillow(path, image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{str(path)!r} is not an image that can be read (PNG, JPEG, WebP, TIFF, BMP)") from None
    except Image.DecompressionBombError:
        raise UserError(f"{str(path)!r} has too many pixels to be a photo") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:  # by kind of damage
        raise UserError(f"{str(path)!r} is damaged: {one_line(error)}") from None


def _require_whole_files() -> None:
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library of the process may have set it


def _from_pillow(path: Path, image: Image.Image) -> Photo:
    exif = image.getexif()
    orientation = exif.get(_ORIENTATION, 1)
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"only the first of {image.n_frames} images in the file is read")
    if image.mode == "CMYK":
        notes.append("CMYK colours became RGB")
    icc = image.info.get("icc_profile") if image.mode != "CMYK" else None
    if exif:
        exif[_ORIENTATION] = 1
    meta = {
        "exif": exif.tobytes() if exif else None,
        "icc": icc,
        "dpi": image.info.get("dpi"),
        "notes": tuple(notes),
    }
    pixels = _deep_pixels(path, image)
    if pixels is None:
        pixels = _shallow_pixels(image)
    pixels = _upright(pixels, orientation)
    gray = pixels.shape[2] in (1, 2)
    alpha = np.ascontiguousarray(pixels[..., -1]) if pixels.shape[2] in (2, 4) else None
    rgb = np.repeat(pixels[..., :1], 3, axis=2) if gray else np.ascontiguousarray(pixels[..., :3])
    return Photo(rgb, alpha, gray, **meta)


def _deep_pixels(path: Path, image: Image.Image) -> np.ndarray | None:
    """(H, W, channels) uint16 if the file has more than 8 bits a channel: Pillow reads colour with 8. Else None."""
    deep = image.mode.startswith("I") or (image.format in _DEEP_FORMATS and image.mode in ("RGB", "RGBA", "LA"))
    if not deep:
        if image.mode == "F":
            raise UserError(f"{str(path)!r} holds floating-point numbers; 8 or 16 bits a channel can be read")
        return None
    image.load()  # Pillow tells of a damage that OpenCV passes over
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] in (3, 4):
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]  # BGR(A)
    if pixels.shape[2] == 4 and _is_gray_png(path):  # Pillow and OpenCV repeat the gray
        pixels = pixels[..., [0, 3]]
    return pixels


def _is_gray_png(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(26)
    return start.startswith(b"\x89PNG") and start[25] == 4  # the header's colour type: gray with alpha


def _shallow_pixels(image: Image.Image) -> np.ndarray:
    transparent = "transparency" in image.info
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    if mode not in ("L", "LA", "RGB", "RGBA") or transparent:
        if mode == "L":
            mode = "LA"
        else:
            mode = "RGBA" if transparent or mode in ("PA",) else "RGB"
    pixels = np.asarray(image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What the EXIF tag asks a viewer to do, done."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def write_photo(path: str | os.PathLike, photo: Photo) -> list[str]:
    """Writes in the format that the suffix names; JPEG and WebP with quality 95.

    The file appears when it is whole; whatever stops the writing, there is no half of one.

    Returns:
        What the format cannot hold, in plain words.

    Raises:
        UserError: an unknown suffix. OSError: the folder cannot be written to, the disk is full.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UserError(f"cannot write {path.name!r}: its suffix must be one of {', '.join(SUFFIXES)}")
    lost = []
    pixels, alpha = photo.pixels, photo.alpha
    if pixels.dtype == np.uint16 and kind not in _DEEP_FORMATS:
        lost.append(f"{kind} holds 8 bits a channel: 16 bits were reduced")
        pixels, alpha = _eight_bits(pixels), alpha if alpha is None else _eight_bits(alpha)
    if alpha is not None and kind not in _ALPHA_FORMATS:
        lost.append(f"{kind} has no transparency: the alpha channel was left out")
        alpha = None
    if photo.gray:
        # the mean of the channels, rounded; exact where they are equal
        pixels = ((pixels.astype(np.uint32).sum(axis=2, keepdims=True) + 1) // 3).astype(pixels.dtype)
    channels = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=2)
    with replace_on_success(path) as temporary:
        if channels.dtype == np.uint16:
            lost += _write_deep(temporary, channels, kind, photo)
        else:
            _write_shallow(temporary, channels, kind, photo)
    return lost


def _eight_bits(deep: np.ndarray) -> np.ndarray:
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _write_shallow(path: Path, channels: np.ndarray, kind: str, photo: Photo) -> None:
    options: dict = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95, "method": 4}}.get(kind, {})
    if photo.exif and kind != "BMP":
        options["exif"] = photo.exif
    if photo.icc and kind != "BMP":
        options["icc_profile"] = photo.icc
    if photo.dpi and kind != "WEBP":
        options["dpi"] = photo.dpi
    if kind == "TIFF":
        options["compression"] = "tiff_deflate"
    image = Image.fromarray(channels[..., 0] if channels.shape[2] == 1 else channels)
    if kind == "WEBP" and photo.gray:  # the format has no gray; converting back gives the same values
        image = image.convert("RGBA" if channels.shape[2] == 2 else "RGB")
    image.save(path, kind, **options)


def _write_deep(path: Path, channels: np.ndarray, kind: str, photo: Photo) -> list[str]:
    if kind == "TIFF":
        import tifffile  # comes with BasicSR's scikit-image

        if channels.shape[2] == 2:  # few programs read gray with alpha from TIFF
            channels = channels[..., [0, 0, 0, 1]]
        extra = [(_ICC_TAG, 7, len(photo.icc), photo.icc, True)] if photo.icc else []
        gray = channels.shape[2] == 1
        tifffile.imwrite(
            path,
            channels[..., 0] if gray else channels,
            photometric="minisblack" if gray else "rgb",
            planarconfig=None if gray else "contig",
            extrasamples=["unassalpha"] if channels.shape[2] == 4 else None,
            compression="zlib",
            extratags=extra,
            metadata=None,
        )
        return ["EXIF is not kept in 16-bit TIFF files"] if photo.exif else []
    path.write_bytes(_png16(channels, photo))
    return []


def _png16(channels: np.ndarray, photo: Photo) -> bytes:
    """A 16-bit PNG with colour profile, EXIF and resolution (PNG specification, third edition): Pillow writes 16 bits
    for gray only, OpenCV writes no metadata and no gray with alpha."""
    height, width, count = channels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    rows = channels.astype(">u2").reshape(height, -1).view(np.uint8)
    # filter "up": what differs from the row above compresses better than the values
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    filtered[1:, 1:] = rows[1:] - rows[:-1]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))]
    if photo.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.icc)))
    if photo.dpi:
        metre = [round(float(d) / 0.0254) for d in photo.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *metre, 1)))
    if photo.exif:
        chunks.append((b"eXIf", photo.exif[6:] if photo.exif.startswith(b"Exif\0\0") else photo.exif))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    return b"".join(parts)
