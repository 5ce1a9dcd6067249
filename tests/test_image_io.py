"""Photographs come back from files with what belongs to them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.image_io import Photo, read_photo, write_photo


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg", ".webp"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_eight_bits_come_back(tmp_path, photo, mode, suffix):
    image = Image.fromarray(photo)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(photo[..., 0]))
    image.convert(mode).save(tmp_path / "a.png")
    first = read_photo(tmp_path / "a.png")
    lost = write_photo(tmp_path / f"b{suffix}", first)
    second = read_photo(tmp_path / f"b{suffix}")
    assert second.pixels.shape == first.pixels.shape and second.pixels.dtype == np.uint8
    holds_alpha = suffix in (".png", ".tif", ".webp")
    assert (second.alpha is not None) == (first.alpha is not None and holds_alpha) and bool(lost) == (
        first.alpha is not None and not holds_alpha
    )
    if suffix in (".png", ".tif", ".bmp"):
        assert np.array_equal(second.pixels, first.pixels)
        assert second.alpha is None or np.array_equal(second.alpha, first.alpha)
    else:
        assert np.abs(second.pixels.astype(int) - first.pixels).mean() < 16  # dithered palettes are hard to compress


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_come_back(tmp_path, suffix, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 4), dtype=np.uint16)
    gray = channels < 3
    pixels = np.repeat(deep[..., :1], 3, axis=2) if gray else deep[..., :3]
    icc, exif = b"profile" * 30, Image.Exif()
    exif[0x010E] = "a description"
    first = Photo(pixels, deep[..., 3] if channels in (2, 4) else None, gray, exif.tobytes(), icc)
    write_photo(tmp_path / f"a{suffix}", first)
    second = read_photo(tmp_path / f"a{suffix}")
    assert second.pixels.dtype == np.uint16 and np.array_equal(second.pixels, pixels)
    assert second.gray == (gray and (channels, suffix) != (2, ".tiff"))  # gray with alpha is colour in TIFF files
    assert (second.alpha is None) == (first.alpha is None)
    assert second.alpha is None or np.array_equal(second.alpha, first.alpha)
    assert second.icc == icc
    if suffix == ".png":
        with Image.open(tmp_path / "a.png") as image:
            assert image.getexif()[0x010E] == "a description"
    if channels == 3:
        assert np.array_equal(cv2.imread(str(tmp_path / f"a{suffix}"), cv2.IMREAD_UNCHANGED)[..., ::-1], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright_and_keep_their_exif(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = orientation, "a camera"
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif, icc_profile=b"icc" * 50, dpi=(300, 300))
    read = read_photo(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(read.pixels, np.asarray(ImageOps.exif_transpose(image)))
    write_photo(tmp_path / "b.jpg", read)
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif().get(0x0112, 1) == 1 and image.getexif()[0x0110] == "a camera"
        assert image.info["icc_profile"] == b"icc" * 50 and round(image.info["dpi"][0]) == 300
        assert image.size == (read.pixels.shape[1], read.pixels.shape[0])


def test_what_is_no_photograph_is_refused_by_name(tmp_path, photo):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    Image.fromarray(photo).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    for name, reason in {"empty": "is empty", "text": "not an image", "cut": "damaged", "gone": "no such file"}.items():
        path = next(iter(tmp_path.glob(f"{name}.*")), tmp_path / "gone.png")
        with pytest.raises(UserError, match=f"{path.name}.*{reason}|{reason}.*{path.name}"):
            read_photo(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, photo, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(photo).save(path)
    before = path.read_bytes()
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_photo(path, read_photo(path))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]
