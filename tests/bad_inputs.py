"""A collection of bad and odd inputs: photographs that are none, names, prompts. Used by whatever takes them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

__all__ = ["NAMES", "PROMPTS", "REFUSED", "RESTORED"]

_PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def _encoded(kind, image=None, **options):
    file = io.BytesIO()
    (image or Image.fromarray(_PIXELS)).save(file, kind, **options)
    return file.getvalue()


def _png(*chunks):
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _png_header(width, height, bits=8):
    return b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)


def _animation(kind):
    frames = [Image.fromarray(np.roll(_PIXELS, i, axis=1)) for i in range(3)]
    return _encoded(kind, frames[0], save_all=True, append_images=frames[1:])


def _tiff_cycle():
    """Two directories, each of which names the other as the next."""
    data = bytearray(_encoded("TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    return bytes(data)


# name -> (suffix, content, what is said; None: it is restored without a word)
REFUSED = {
    "zero bytes": (".png", b"", "is empty"),
    "one byte": (".jpg", b"\xff", "is not an image"),
    "truncated PNG": (".png", _encoded("PNG")[:-300], "is damaged"),
    "truncated JPEG": (".jpg", _encoded("JPEG")[:-300], "is damaged"),
    "truncated WebP": (".webp", _encoded("WEBP")[:-300], "is damaged|is not an image"),
    "truncated TIFF": (".tif", _encoded("TIFF", compression="tiff_deflate")[:200], "is damaged|is not an image"),
    "truncated BMP": (".bmp", _encoded("BMP")[:-300], "is damaged"),
    "header alone": (".png", _png(_png_header(40, 50)), "is damaged|is not an image"),
    "huge header": (".png", _png(_png_header(2**31 - 1, 2**31 - 1), b"IDAT" + zlib.compress(b"\0")), "too many"),
    "huge BMP": (".bmp", _encoded("BMP")[:18] + struct.pack("<ii", 60000, 60000) + _encoded("BMP")[26:], "too many"),
    "no pixels": (".png", _png(_png_header(0, 10), b"IDAT" + zlib.compress(b""), b"IEND"), "is damaged|not an image"),
    "wrong checksum": (".png", _encoded("PNG").replace(b"IDAT", b"IDAU", 1), "is damaged|is not an image"),
    "HTML page": (".jpg", b"<!doctype html><title>404</title>", "is not an image"),
    "script": (".png", b"#!/bin/sh\nrm -rf /\n", "is not an image"),
    "PostScript": (".tif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "is not an image"),
    "SVG": (".png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
    "GIF": (".png", _animation("GIF"), "is not an image"),
    "archive": (".png", b"PK\x03\x04" + bytes(100), "is not an image"),
    "float TIFF": (".tif", _encoded("TIFF", Image.fromarray(_PIXELS[..., 0].astype(np.float32))), "unusual kind"),
}  # fmt: skip
RESTORED = {
    "JPEG called PNG": (".png", _encoded("JPEG"), None),
    "PNG called JPEG": (".jpg", _encoded("PNG"), None),
    "WebP called TIFF": (".tif", _encoded("WEBP"), None),
    "CMYK": (".jpg", _encoded("JPEG", Image.fromarray(_PIXELS).convert("CMYK")), "CMYK colours became RGB"),
    "YCCK with profile": (".tif", _encoded("TIFF", Image.fromarray(_PIXELS).convert("CMYK")), "CMYK"),
    "16 bits": (".png", _encoded("PNG", Image.fromarray(_PIXELS[..., 0].astype(np.uint16) * 257)), None),
    "16 bits as JPEG": (".tif", _encoded("PNG", Image.fromarray(_PIXELS[..., 0].astype(np.uint16) * 257)), None),
    "one bit": (".png", _encoded("PNG", Image.fromarray(_PIXELS[..., 0]).convert("1")), None),
    "palette with transparency": (".png", _encoded("PNG", Image.fromarray(_PIXELS).quantize(9), transparency=2), None),
    "animated PNG": (".png", _animation("PNG"), "only the first of 3 images"),
    "animated WebP": (".webp", _animation("WEBP"), "only the first of 3 images"),
    "pages": (".tif", _animation("TIFF"), "only the first of 3 images"),
    "one pixel": (".bmp", _encoded("BMP", Image.new("RGB", (1, 1))), None),
    "broken EXIF": (".jpg", _encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), ""),
    "broken profile": (".png", _encoded("PNG", icc_profile=b"no profile"), None),
    "something behind the end": (".png", _encoded("PNG") + b"<?php system('ls') ?>" * 9, None),
    "directories in a circle": (".tif", _tiff_cycle(), ""),
}  # fmt: skip

NAMES = [
    "..png", "...png", "..%2f..%2fescaped.png", "..\\..\\escaped.png", "-o.png", "a\nb.png", "$(touch x).png",
    "a;b.png", "%s{}.png", "ملف.png", "写真.png", "🌄.png", " .png", "con.png", "~.png", "a*[b]?.png",
    f"{'n' * 200}.png",
]  # fmt: skip

PROMPTS = {
    "10,000 characters": "remove the noise and " * 500,
    "one word of 10,000 characters": "n" * 10_000,
    "Arabic": "أزل الضوضاء من هذه الصورة",
    "Chinese": "去除这张照片的噪点",
    "Hindi": "इस तस्वीर से शोर हटाओ",
    "emoji": "🌧️❌ 🙏",
    "accents in pieces": "enle\u0301ve le bruit, s\u2019il te plai\u0302t",
    "right to left marks": "\u202eremove the noise\u202c",
    "control characters": "remove\x00 the\x1b[31m noise\r\n",
    "lone surrogate": "remove \ud800 noise",
    "quotes": "\"'`; rm -rf / #",
    "a dash": "-- remove it",
    "nothing but blanks": " \t\n",
    "nothing": "",
}
