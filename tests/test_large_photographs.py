"""Large photographs lie on the disk, are read and written in strips, and come out as small ones do."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from prompt_mamba_arch import batch, image_io, image_strips, scratch
from prompt_mamba_arch.comparison import before_after
from prompt_mamba_arch.image_io import Photo, read_photo, write_photo
from prompt_mamba_arch.restore import Restorer


@pytest.fixture
def small_is_large(monkeypatch):
    """Every photograph is a large one, in strips of few rows. Returns what undoes it."""

    def begin():
        monkeypatch.setattr(image_io, "_LARGE", 1)
        monkeypatch.setattr(scratch, "_LARGE", 1)
        monkeypatch.setattr(image_strips, "STRIP", 2000)
        monkeypatch.setattr(scratch, "_STRIP", 5000)

    begin.undo = monkeypatch.undo
    return begin


def _on_disk(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(getattr(array, "obj", array), mmap.mmap)


def _picture(channels=3, dtype=np.uint8, shape=(97, 131)):
    """Smooth and noisy parts, so that every filter of PNG files has a row where it is the best."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]] / 40
    smooth = [np.sin(x + k) * np.cos(y * (k + 1)) for k in range(channels)]
    values = np.stack(smooth, axis=2) * 0.4 + 0.5 + rng.normal(0, 0.1, (*shape, 1)) * (x > 2)[..., None]
    values[10:20] = values[10:11]
    values[30:40] = values[30:40, :1]
    top = np.iinfo(dtype).max
    return np.rint(values.clip(0, 1) * top).astype(dtype)


def test_arrays_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_LARGE", 1000)
    empty = scratch.arrays_in(tmp_path / "new")
    assert not _on_disk(empty((10, 33, 3), np.uint8)) and not (tmp_path / "new").exists()
    array = empty((50, 30, 3), np.uint16)
    assert array.shape == (50, 30, 3) and array.dtype == np.uint16 and _on_disk(array)
    assert os.listdir(tmp_path / "new") == []  # nothing is left behind, however the process ends
    values = np.random.default_rng(0).integers(0, 65536, array.shape, dtype=np.uint16)
    array[:] = values
    scratch.release(array, array[3:5].transpose(1, 0, 2), None)
    np.testing.assert_array_equal(array, values)
    turned = scratch.copied(array.transpose(1, 0, 2)[::-1], empty)
    assert _on_disk(turned)
    np.testing.assert_array_equal(turned, values.transpose(1, 0, 2)[::-1])

    for number, on_disk in ((errno.EOPNOTSUPP, True), (errno.ENOSPC, False)):

        def fail(*_, number=number):
            raise OSError(number, "what the system says")

        monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
        array = empty((50, 30, 3), np.uint16)
        assert array.shape == (50, 30, 3) and _on_disk(array) == on_disk
        array[:] = values


def test_maps_of_others_keep_their_changes(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10_000))
    theirs = np.memmap(tmp_path / "a", np.uint8, mode="c")
    theirs[:] = 7
    scratch.release(theirs)
    assert (theirs == 7).all()


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A maker of cameras"
    return exif


def _save(path, channels, deep, orientation, **options):
    """By Pillow, or where it cannot by what other tests look at."""
    pixels = _picture(channels, np.uint16 if deep else np.uint8)
    if deep and channels > 1:
        rgb = np.repeat(pixels[..., :1], 3, axis=2) if channels == 2 else pixels[..., :3]
        alpha = pixels[..., -1] if channels in (2, 4) else None
        write_photo(path, Photo(rgb, alpha, channels == 2, _exif(1).tobytes(), dpi=(300, 240)))
        return
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    options |= {"dpi": (300, 240)} | ({"exif": _exif(orientation)} if orientation else {})
    image.save(path, **options)


FILES = [
    *((".jpg", 3, False, {"quality": 90, "subsampling": s}) for s in (0, 2)),
    *((".jpg", 1, False, {}), (".jpg", 3, False, {"progressive": True})),
    *((".png", channels, deep, {}) for channels in (1, 2, 3, 4) for deep in (False, True)),
    *((".tif", channels, deep, {}) for channels in (1, 3, 4) for deep in (False, True)),
    *((".tif", 3, False, {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate")),
]


@pytest.mark.parametrize("orientation", [None, 1, 3, 6])
@pytest.mark.parametrize("suffix, channels, deep, options", FILES)
def test_read_in_strips_as_in_memory(
    tmp_path, monkeypatch, small_is_large, suffix, channels, deep, options, orientation
):
    pytest.importorskip("pyvips", reason="large photographs are read in strips with: pip install 'pyvips[binary]'")
    path = tmp_path / f"a{suffix}"
    _save(path, channels, deep, orientation, **options)
    expected = read_photo(path)
    assert expected.pixels.shape == ((131, 97, 3) if orientation == 6 and not (deep and channels > 1) else (97, 131, 3))
    small_is_large()

    def never(self):
        raise AssertionError("Pillow reads all pixels")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    for kind in ("Tiff", "Png", "Jpeg"):
        module = f"PIL.{kind}ImagePlugin.{kind}ImageFile"
        monkeypatch.setattr(f"{module}.load", never)
    found = read_photo(path, empty=scratch.arrays_in(tmp_path))
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.pixels.dtype == expected.pixels.dtype and _on_disk(found.pixels)
    assert (found.alpha is None) == (expected.alpha is None)
    if found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, expected.alpha)
    for what in ("gray", "exif", "icc", "dpi", "notes"):
        assert getattr(found, what) == getattr(expected, what), what


def test_what_cannot_be_read_in_strips_is_read_whole(tmp_path, small_is_large):
    """Palettes, CMYK, EXIF data after the pixels, pixels of few bits, other formats; and without libvips everything."""
    image = Image.fromarray(_picture())
    image.quantize(16).save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("1").save(tmp_path / "bits.png")
    image.save(tmp_path / "a.webp", lossless=True)
    image.save(tmp_path / "a.bmp")
    image.save(tmp_path / "late.png")
    chunk = b"eXIf" + _exif(6).tobytes()[6:]
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = (tmp_path / "late.png").read_bytes()
    (tmp_path / "late.png").write_bytes(data[:-12] + chunk + data[-12:])  # before IEND
    expected = {path.name: read_photo(path) for path in sorted(tmp_path.iterdir())}
    assert expected["late.png"].pixels.shape == (131, 97, 3)
    small_is_large()
    for name, photo in expected.items():
        found = read_photo(tmp_path / name, empty=scratch.arrays_in(tmp_path))
        np.testing.assert_array_equal(found.pixels, photo.pixels)
        assert _on_disk(found.pixels) and (found.exif, found.notes) == (photo.exif, photo.notes)


def test_damage_is_said_as_of_small_ones(tmp_path, small_is_large, capfd):
    small_is_large()
    for suffix in (".jpg", ".png", ".tif"):
        path = tmp_path / f"a{suffix}"
        write_photo(path, Photo(_picture()))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(image_io.UserError, match=r"damaged|not an image"):
            read_photo(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "suffix, dtype", [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint16), (".jpg", np.uint8)]
)
def test_written_in_strips_as_in_memory(tmp_path, small_is_large, suffix, dtype, channels):
    pixels = _picture(channels, dtype)
    rgb = np.repeat(pixels[..., :1], 3, axis=2) if channels < 3 else np.ascontiguousarray(pixels[..., :3])
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None
    photo = Photo(rgb, alpha, channels < 3, _exif(1).tobytes(), dpi=(300, 240))
    lost = write_photo(tmp_path / f"whole{suffix}", photo)
    expected = read_photo(tmp_path / f"whole{suffix}")
    small_is_large()
    assert write_photo(tmp_path / f"strips{suffix}", photo) == lost
    small_is_large.undo()
    found = read_photo(tmp_path / f"strips{suffix}")
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert (found.alpha is None) == (expected.alpha is None) == (alpha is None or suffix == ".jpg")
    if found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, expected.alpha)
    assert (found.gray, found.exif, found.notes) == (expected.gray, expected.exif, expected.notes)
    assert found.dpi == pytest.approx(expected.dpi, abs=0.05)
    if suffix == ".jpg":
        assert (tmp_path / "strips.jpg").read_bytes() == (tmp_path / "whole.jpg").read_bytes()


def test_png_filters_undo():
    """All four are used, and the file is no larger than one of a single filter."""
    rows = _picture().reshape(97, 131, 3)
    filtered = image_strips._filtered(rows, np.zeros((1, 131, 3), np.uint8))
    assert set(filtered[:, 0]) == {1, 2, 3, 4}
    costs = np.minimum(filtered[:, 1:], -filtered[:, 1:]).sum(axis=1, dtype=int)
    up = rows - np.concatenate([np.zeros((1, 131, 3), np.uint8), rows[:-1]])
    assert (costs <= np.minimum(up, -up).reshape(97, -1).sum(axis=1, dtype=int)).all()


class _Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return x + 0.2 * self.conv(x)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "deep.tif"])
@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_restored_as_small_ones(tmp_path, small_is_large, name, strength):
    torch.manual_seed(0)
    restorer = Restorer(_Net(), device="cpu")
    dtype = np.uint16 if name.startswith("deep") else np.uint8
    write_photo(tmp_path / name, Photo(_picture(dtype=dtype, shape=(150, 200)), exif=_exif(1).tobytes()))
    wish = batch.Wish(tile=64, strength=strength, overwrite=True)
    results = [tmp_path / "whole" / name, tmp_path / "strips" / name]
    for target in results:
        if target is results[1]:
            small_is_large()
        batch.restore_file(restorer, (tmp_path / name, target, None), wish)
    small_is_large.undo()
    whole, strips = map(read_photo, results)
    np.testing.assert_array_equal(strips.pixels, whole.pixels)
    assert strips.exif == whole.exif and strips.pixels.dtype == dtype
    assert (whole.pixels != read_photo(tmp_path / name).pixels).any() == (strength > 0)
    assert os.listdir(tmp_path / "strips") == [name]


def test_before_and_after_of_large_photographs_are_made_smaller():
    image = np.repeat(np.repeat(_picture(shape=(90, 60))[:, :20], 100, axis=0), 20, axis=1)  # 9000 x 400
    sheet = before_after(image, 255 - image)
    assert sheet.dtype == np.uint8 and sheet.shape[0] > 4096
    half = sheet.shape[1] // 2
    for part, whole in ((sheet[-4096:, : half - 4], image), (sheet[-4096:, half + 4 :], 255 - image)):
        assert np.abs(part.mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 3


def _growth(do):
    """Bytes by which the memory of this process, mapped files and all, grows at most while `do` runs (Linux)."""

    def kilobytes(what):
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(what))

    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # a new peak begins
        before = kilobytes("VmRSS")
    except OSError:
        pytest.skip("this system does not tell the peak of a process's memory")
    do()
    return (kilobytes("VmHWM") - before) * 1024


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_memory_is_much_less_than_the_photograph(tmp_path, small_is_large, suffix):
    pytest.importorskip("pyvips", reason="large photographs are read in strips with: pip install 'pyvips[binary]'")
    path = tmp_path / f"a{suffix}"
    write_photo(path, Photo(np.tile(_picture(), (41, 31, 1))))  # 16 megapixels, 48 MB
    small_is_large()
    image_strips.STRIP = 1 << 18
    scratch._STRIP = 1 << 20
    empty = scratch.arrays_in(tmp_path)

    def through():
        write_photo(tmp_path / f"b{suffix}", read_photo(path, empty=empty))

    through()  # what is loaded once
    assert _growth(through) < 20e6
