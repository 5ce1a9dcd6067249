"""A collection of bad and odd inputs: each is restored, or refused in one plain line, and nothing is left behind."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, run, save, listing, name):
    """Alone it is a mistake; in a folder it is passed over, and the photograph beside it is restored."""
    suffix, content, said = REFUSED[name]
    bad = tmp_path / "in" / f"bad{suffix}"
    save(tmp_path / "in" / "good.png")
    bad.write_bytes(content)
    _, err = run("restore", "-i", bad, "-o", tmp_path / "alone.png", code=2)
    assert len(err) == 1 and re.search(said, err[0]) and bad.name in err[0] and len(err[0]) < 500
    out, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert len(err) == 1 and re.search(said, err[0]) and "1 of 2 images restored" in out and "1 failed" in out
    assert listing(tmp_path) == sorted(["in/good.png", f"in/{bad.name}", "out/good.png"])
    assert bad.read_bytes() == content


@pytest.mark.parametrize("name", RESTORED)
def test_restored(tmp_path, run, listing, name):
    suffix, content, said = RESTORED[name]
    source, target = tmp_path / f"odd{suffix}", tmp_path / "out" / f"odd{suffix}"
    source.write_bytes(content)
    _, err = run("restore", "-i", source, "-o", target, code=0)
    assert len(err) <= (said is not None) and all(said in line for line in err)
    with Image.open(source) as before, Image.open(target) as after:
        after.load()
        assert before.size == after.size and after.format == Image.registered_extensions()[suffix]
    assert listing(tmp_path) == [source.name, f"out/{source.name}"]


@pytest.mark.parametrize(
    "name",
    ["..png", "...png", "..%2f..%2fescaped.png", "..\\..\\escaped.png", "-o.png", "a\nb.png", "$(touch x).png",
     "a;b.png", "%s{}.png", "ملف.png", "写真.png", "🌄.png", " .png", "con.png", "~.png", "a*[b]?.png",
     f"{'n' * 200}.png"],
)  # fmt: skip
def test_odd_names(tmp_path, run, save, listing, name):
    """No result leaves the output folder, and a line stays a line."""
    save(tmp_path / "in" / name, format="PNG")
    expected = [f"in/{name}"] + ([] if name.startswith(".") else [f"out/{name}"])  # those are hidden files
    run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=2 if name.startswith(".") else 0)
    assert listing(tmp_path) == expected
    out, err = run("restore", "-i", tmp_path / "in" / name, "-o", tmp_path / "one.png", code=0)
    assert len(out.splitlines()) == 1 and err == []
    (tmp_path / "in" / name).write_text("no image")
    _, err = run("restore", "-i", tmp_path / "in" / name, "-o", tmp_path / "two.png", code=2)
    assert len(err) == 1


def test_patterns_do_not_lead_out_of_the_output_folder(tmp_path, run, save, listing, monkeypatch):
    save(tmp_path / "home" / "a" / "1.png")
    save(tmp_path / "escaped" / "2.png")
    monkeypatch.chdir(tmp_path / "home")
    run("restore", "-i", "*/../../escaped/*.png", "-o", "out", code=0)
    assert listing(tmp_path) == ["escaped/2.png", "home/a/1.png", "home/out/2.png"]


def test_links_that_lead_nowhere(tmp_path, run, save, listing):
    source = save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "missing.png")
    (tmp_path / "in" / "self.png").symlink_to(tmp_path / "in" / "self.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "in")  # folders are not followed, or this had no end
    (tmp_path / "in" / "a folder.png").mkdir()
    _, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert len(err) == 2 and listing(tmp_path / "out") == ["good.png"] and source.exists()


_PROMPTS = {
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


@pytest.mark.parametrize("name", _PROMPTS)
def test_odd_prompts(tmp_path, run, save, name):
    """They are followed as well as may be; what was understood and the line at the end stay one line each."""
    prompt = _PROMPTS[name]
    out, err = run("restore", "-i", save(tmp_path / "in.png"), "-o", tmp_path / "out.png", f"--prompt={prompt}", code=0)
    assert len(out.splitlines()) == 1 + bool(prompt.strip()) and len(err) <= 1 and len(out) < 800
    assert all("longer than 256 tokens" in line for line in err)
    assert (tmp_path / "out.png").exists()
