"""Photographs keep their pixels and what belongs to them, in every format that can hold it."""

from __future__ import annotations

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.image_io import SUFFIXES, Photo, read_photo, write_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TO_LAB = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
GRAY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def _pixels(shape=(13, 17), channels=3, dtype=np.uint8):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(1).integers(0, top, (*shape, channels), dtype=dtype, endpoint=True)
    pixels[0, :2] = [[0] * channels, [top] * channels]
    return pixels


def _exif(orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A maker of cameras"
    exif[0x013B] = "A photographer"
    exif.get_ifd(0x8769)[0x829A] = 0.005  # exposure time
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0a comment"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (52.0, 30.0, 12.5)
    return exif


def _check_exif(exif):
    assert exif[0x0112] == 1
    assert exif[0x010F].rstrip("\0") == "A maker of cameras" and exif[0x013B] == "A photographer"
    details, place = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert float(details[0x829A]) == pytest.approx(0.005) and details[0x9286].endswith(b"a comment")
    assert place[1] == "N" and [float(v) for v in place[2]] == [52.0, 30.0, 12.5]


def _photo(channels=3, dtype=np.uint8, **rest):
    pixels = _pixels(channels=channels, dtype=dtype)
    gray = channels < 3
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return Photo(np.repeat(pixels[..., :1], 3, axis=2) if gray else pixels[..., :3], alpha, gray, **rest)


def _same(a, b):
    np.testing.assert_array_equal(a.pixels, b.pixels)
    assert a.pixels.dtype == b.pixels.dtype and a.gray == b.gray
    assert (a.alpha is None) == (b.alpha is None)
    if a.alpha is not None:
        np.testing.assert_array_equal(a.alpha, b.alpha)
        assert a.alpha.dtype == b.alpha.dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_lossless_formats_keep_everything(tmp_path, suffix, channels, dtype):
    path = tmp_path / f"photo{suffix}"
    photo = _photo(channels, dtype, exif=_exif().tobytes(), icc=GRAY_PROFILE if channels < 3 else SRGB, dpi=(300, 240))
    lost = write_photo(path, photo)
    again = read_photo(path)
    if channels == 2 and dtype == np.uint16 and suffix != ".png":  # what no reader knows becomes RGBA
        assert lost == ["TIFF cannot hold the colour profile: it was left out"] and not again.gray
        np.testing.assert_array_equal(again.pixels, photo.pixels)
        np.testing.assert_array_equal(again.alpha, photo.alpha)
        return
    assert lost == []
    _same(photo, again)
    assert again.icc == photo.icc
    assert again.dpi == pytest.approx((300, 240), abs=0.05)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == photo.icc
        _check_exif(image.getexif())
    # a second generation changes nothing
    write_photo(tmp_path / f"again{suffix}", again)
    _same(photo, read_photo(tmp_path / f"again{suffix}"))
    with Image.open(tmp_path / f"again{suffix}") as image:
        _check_exif(image.getexif())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_opencv_and_pillow_read_what_is_written(tmp_path, suffix, channels, dtype):
    photo = _photo(channels, dtype, exif=_exif().tobytes(), icc=SRGB)
    path = tmp_path / f"photo{suffix}"
    write_photo(path, photo)
    seen = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    # OpenCV drops the alpha channel of gray 8-bit TIFF files, and multiplies the colours with that of others
    if not (suffix == ".tif" and channels in (2, 4) and dtype == np.uint8):
        seen = np.atleast_3d(seen)
        assert seen.dtype == dtype
        bgr = photo.pixels[..., ::-1]
        np.testing.assert_array_equal(np.broadcast_to(seen[..., :3], bgr.shape), bgr)
        if channels in (2, 4):
            np.testing.assert_array_equal(seen[..., -1], photo.alpha)
    with Image.open(path) as image:
        image.load()
        if dtype == np.uint8 or channels == 1:
            seen = np.atleast_3d(np.asarray(image))
            np.testing.assert_array_equal(seen[..., 0], photo.pixels[..., 0])
        else:  # Pillow keeps the high bytes
            seen = np.asarray(image)
            assert abs(seen[..., 0].astype(int) - (photo.pixels[..., 0] >> 8)).max() <= 1


def test_large_files_of_several_strips(tmp_path, monkeypatch):
    photo = Photo(_pixels((1100, 900), 3, np.uint16))
    monkeypatch.setattr("prompt_mamba_arch.image_strips.STRIP", 100_000)  # of PNG files, and of what is read
    for suffix in (".tif", ".png"):
        write_photo(tmp_path / f"a{suffix}", photo)
        _same(photo, read_photo(tmp_path / f"a{suffix}"))
    shallow = Photo(_pixels((1100, 900)))
    write_photo(tmp_path / "b.png", shallow)
    _same(shallow, read_photo(tmp_path / "b.png"))
    with Image.open(tmp_path / "a.tif") as image:
        assert len(image.tag_v2[273]) > 1


@pytest.mark.parametrize("order, mark", [("<", b"II"), (">", b"MM")])
def test_exif_of_either_byte_order_in_tiff(tmp_path, order, mark):
    exif = _exif()
    exif.endian = order
    block = exif.tobytes()
    assert block[6:8] == mark
    for dtype in (np.uint8, np.uint16):
        photo = _photo(3, dtype, exif=block)
        write_photo(tmp_path / "a.tif", photo)
        _same(photo, read_photo(tmp_path / "a.tif"))
        with Image.open(tmp_path / "a.tif") as image:
            _check_exif(image.getexif())


# what a viewer does with the tag, in Pillow's words, undone
_LAID = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
def test_photographs_lying_on_their_side_come_out_upright(tmp_path, suffix, orientation):
    upright = Image.fromarray(cv2.resize(_pixels((5, 7)), (56, 40), interpolation=cv2.INTER_NEAREST))
    lying = upright.transpose(_LAID[orientation]) if orientation > 1 else upright
    source, target = tmp_path / f"source{suffix}", tmp_path / f"target{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {"quality": 100} if suffix == ".jpg" else {}
    lying.save(source, exif=_exif(orientation).tobytes(), **options)
    with Image.open(source) as image:  # the test itself: a viewer shows it upright
        seen = np.asarray(ImageOps.exif_transpose(image))
        assert seen.shape == (40, 56, 3) and abs(seen.astype(int) - np.asarray(upright)).mean() < 15
    photo = read_photo(source)
    np.testing.assert_array_equal(photo.pixels, seen)
    write_photo(target, photo)
    with Image.open(target) as image:
        assert image.getexif().get(0x0112) == 1
        _check_exif(image.getexif())
        assert abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 15
    assert cv2.imread(str(target)).shape == (40, 56, 3)  # OpenCV heeds the tag


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_lying_on_their_side(tmp_path, suffix, orientation):
    upright = _pixels((5, 7), 3, np.uint16)
    turn = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    lying = np.ascontiguousarray(turn[orientation](upright))
    path = tmp_path / f"source{suffix}"
    write_photo(path, Photo(lying, exif=_exif(1).tobytes()))
    data = bytearray(path.read_bytes())
    if suffix == ".tif":  # the tag's value, in the directory at the end
        assert data[:2] == b"MM"
        (start,) = struct.unpack_from(">I", data, 4)
        entries = range(start + 2, len(data) - 4, 12)
        place = next(p for p in entries if struct.unpack_from(">H", data, p)[0] == 0x0112)
        data[place + 9] = orientation
    else:
        chunk = b"eXIf" + _exif(1).tobytes()[6:]
        turned = b"eXIf" + _exif(orientation).tobytes()[6:]
        place = data.index(chunk)
        data[place : place + len(chunk) + 4] = turned + struct.pack(">I", zlib.crc32(turned))
    path.write_bytes(data)
    with Image.open(path) as image:
        assert ImageOps.exif_transpose(image).size == (7, 5)
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, upright)
    write_photo(path, photo)
    with Image.open(path) as image:
        assert image.getexif()[0x0112] == 1 and image.size == (7, 5)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("gray", [False, True])
def test_lossy_formats_keep_what_belongs_to_the_photograph(tmp_path, suffix, gray):
    smooth = cv2.resize(_pixels((3, 4), 3), (80, 60), interpolation=cv2.INTER_CUBIC)
    if gray:
        smooth = np.repeat(smooth[..., :1], 3, axis=2)
    photo = Photo(smooth, gray=gray, exif=_exif().tobytes(), icc=SRGB, dpi=(300, 300))
    path = tmp_path / f"a{suffix}"
    write_photo(path, photo)
    again = read_photo(path)
    assert abs(again.pixels.astype(int) - smooth).mean() < 4
    assert again.gray == (gray and suffix == ".jpg")
    assert again.icc == SRGB
    if suffix == ".jpg":
        assert again.dpi == (300, 300)
    with Image.open(path) as image:
        _check_exif(image.getexif())


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_webp_loses_pixels_only_where_it_did_before(tmp_path, lossless, alpha):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 4 if alpha else 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.webp", lossless=lossless, exact=True, exif=Image.Exif())
    photo = read_photo(tmp_path / "in.webp")
    assert photo.lossless == lossless
    write_photo(tmp_path / "out.webp", photo)
    same = np.array_equal(read_photo(tmp_path / "out.webp").pixels, photo.pixels)
    assert same == lossless and (not lossless or np.array_equal(photo.pixels, pixels[..., :3]))


def test_webp_keeps_alpha(tmp_path):
    photo = _photo(4)
    assert write_photo(tmp_path / "a.webp", photo) == []
    np.testing.assert_array_equal(read_photo(tmp_path / "a.webp").alpha, photo.alpha)


def test_formats_say_what_they_cannot_hold(tmp_path):
    photo = _photo(4, np.uint16, exif=_exif().tobytes(), icc=SRGB, dpi=(96, 96))
    assert [line.split(":")[0] for line in write_photo(tmp_path / "a.jpg", photo)] == [
        "JPEG holds 8 bits a channel",
        "JPEG has no transparency",
    ]
    assert [line.split(":")[0] for line in write_photo(tmp_path / "a.bmp", photo)] == [
        "BMP holds 8 bits a channel",
        "BMP has no transparency",
        "BMP cannot hold the colour profile",
        "BMP cannot hold the EXIF data",
    ]
    exact = ((photo.pixels.astype(np.float64)) / 257).round().astype(np.uint8)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.bmp").pixels, exact)
    large = Image.Exif()
    large[0x010E] = "x" * 70000
    lost = write_photo(tmp_path / "b.jpg", Photo(_pixels(), exif=large.tobytes()))
    assert lost == ["JPEG cannot hold the EXIF data: they were left out"]
    gray = Photo(_pixels(), icc=GRAY_PROFILE)
    assert write_photo(tmp_path / "c.png", gray) == ["PNG cannot hold the colour profile: it was left out"]


def test_other_kinds_of_pixels(tmp_path):
    rgb = Image.fromarray(_pixels())
    palette = rgb.quantize(16)
    palette.save(tmp_path / "palette.png")
    photo = read_photo(tmp_path / "palette.png")
    np.testing.assert_array_equal(photo.pixels, np.asarray(palette.convert("RGB")))
    assert photo.alpha is None and not photo.gray

    palette.save(tmp_path / "transparent.png", transparency=3)
    photo = read_photo(tmp_path / "transparent.png")
    np.testing.assert_array_equal(photo.pixels, np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(photo.alpha, np.where(np.asarray(palette) == 3, 0, 255))

    bits = Image.fromarray(_pixels()[..., 0] > 127)
    for suffix in (".png", ".tif", ".bmp"):
        bits.save(tmp_path / f"bits{suffix}")
        photo = read_photo(tmp_path / f"bits{suffix}")
        np.testing.assert_array_equal(photo.pixels[..., 0], np.asarray(bits) * 255)
        assert photo.gray or suffix == ".bmp"

    gray = Image.fromarray(_pixels()[..., 0])
    gray.save(tmp_path / "key.png", transparency=255)
    photo = read_photo(tmp_path / "key.png")
    assert photo.gray
    np.testing.assert_array_equal(photo.alpha, np.where(np.asarray(gray) == 255, 0, 255))

    smooth = Image.fromarray(cv2.resize(_pixels((3, 4), 3), (32, 24)))
    for mode, suffix in (("CMYK", ".jpg"), ("LAB", ".tif")):
        other = ImageCms.applyTransform(smooth, TO_LAB) if mode == "LAB" else smooth.convert(mode)
        other.save(tmp_path / f"print{suffix}", quality=95, icc_profile=SRGB)
        photo = read_photo(tmp_path / f"print{suffix}")
        assert photo.notes == (f"{mode} colours became RGB",) and photo.icc is None
        assert abs(photo.pixels.astype(int) - np.asarray(smooth if mode == "LAB" else other.convert("RGB"))).mean() < 10

    Image.fromarray(_pixels()).save(tmp_path / "pages.tif", save_all=True, append_images=[rgb, rgb])
    assert read_photo(tmp_path / "pages.tif").notes == ("only the first of 3 images in the file is read",)


@pytest.mark.parametrize("colour", [0, 2])
def test_sixteen_bit_png_with_a_transparent_colour(tmp_path, colour):
    channels = 3 if colour == 2 else 1
    photo = _photo(channels, np.uint16)
    path = tmp_path / "key.png"
    write_photo(path, photo)
    key = photo.pixels[3, 4][:channels]
    chunk = b"tRNS" + key.astype(">u2").tobytes()
    data = path.read_bytes()
    place = data.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data[:place] + chunk + data[place:])
    again = read_photo(path)
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    assert again.gray == photo.gray
    np.testing.assert_array_equal(again.alpha, np.where((photo.pixels == photo.pixels[3, 4]).all(axis=2), 0, 65535))


def test_sixteen_bit_tiff_of_other_programs(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    rgb = _pixels((20, 30), 3, np.uint16)
    for order in "<>":
        for predictor in (None, 2):
            compression = "zlib" if predictor else None
            tifffile.imwrite(
                path, rgb, photometric="rgb", byteorder=order, compression=compression, predictor=bool(predictor)
            )
            np.testing.assert_array_equal(read_photo(path).pixels, rgb)
    tifffile.imwrite(path, rgb, photometric="rgb", tile=(16, 16))
    np.testing.assert_array_equal(read_photo(path).pixels, rgb)
    tifffile.imwrite(path, rgb[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(read_photo(path).pixels[..., 0], 65535 - rgb[..., 0])
    tifffile.imwrite(path, rgb[..., 0], byteorder=">")
    assert read_photo(path).gray
    np.testing.assert_array_equal(read_photo(path).pixels[..., 0], rgb[..., 0])
    # alpha that was multiplied in
    alpha = np.full((20, 30, 1), 32768, np.uint16)
    multiplied = np.rint(rgb * (32768 / 65535)).astype(np.uint16)
    tifffile.imwrite(path, np.concatenate([multiplied, alpha], axis=2), photometric="rgb", extrasamples=["assocalpha"])
    assert abs(read_photo(path).pixels.astype(int) - rgb).max() <= 1
    for odd in (
        {"data": rgb.transpose(2, 0, 1), "photometric": "rgb", "planarconfig": "separate"},
        {"data": rgb[..., 0].astype(np.float32)},
        {"data": rgb[..., 0].astype(np.uint32)},
        {"data": rgb[..., 0].astype(np.int16)},
        {"data": rgb[..., :2], "photometric": "minisblack", "planarconfig": "contig"},
    ):
        tifffile.imwrite(path, **odd)
        with pytest.raises(UserError, match=r"a\.tif"):
            read_photo(path)


def test_a_tiff_file_forgets_how_its_pixels_were_stored(tmp_path):
    """Pillow counts the TIFF tags as EXIF; strips, planes or predictors of one file would be wrong in another."""
    tifffile = pytest.importorskip("tifffile")
    source = tmp_path / "a.tif"
    rgb = _pixels((20, 30))
    tags = {"software": "A program", "description": "A view", "metadata": None}
    tifffile.imwrite(source, rgb, photometric="rgb", tile=(16, 16), **tags)
    photo = read_photo(source)
    for suffix in (".tif", ".png", ".jpg"):
        write_photo(tmp_path / f"b{suffix}", photo)
        with Image.open(tmp_path / f"b{suffix}") as image:
            exif = image.getexif()
            assert exif[0x0131] == "A program" and exif[0x010E] == "A view"
            assert 322 not in exif and (suffix == ".tif" or 256 not in exif)
    _same(photo, read_photo(tmp_path / "b.tif"))


@pytest.mark.parametrize("suffix", [*SUFFIXES])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_damaged_files_are_said_in_one_line(tmp_path, suffix, dtype):
    """Cut off or with bytes changed, a file is refused with its name, or readable; nothing else happens."""
    path = tmp_path / f"photo{suffix}"
    write_photo(path, _photo(3, dtype, exif=_exif().tobytes(), icc=SRGB))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in {1, 10, 60, len(whole) // 2, len(whole) - 40}:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=path.name):
            read_photo(path)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(4, len(data), 4):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            photo = read_photo(path)
        except UserError as error:
            assert path.name in str(error) and "\n" not in str(error)
        else:
            assert photo.pixels.ndim == 3
            if photo.pixels.size < 10_000:
                write_photo(tmp_path / f"again{suffix}", photo)


def test_what_is_no_photograph(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image at all, but some sentences")
    (tmp_path / "page.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")  # Pillow would run it
    for name, said in {"empty.png": "empty", "text.png": "not an image", "page.jpg": "not an image"}.items():
        with pytest.raises(UserError, match=f"{name}.*{said}"):
            read_photo(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        read_photo(tmp_path / "missing.png")
    with pytest.raises(UserError, match="no such file"):
        read_photo(tmp_path)


def test_damaged_exif_costs_no_photograph(tmp_path):
    Image.fromarray(_pixels()).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\0\0garbage")
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, _pixels())
    Image.fromarray(_pixels()).save(tmp_path / "b.png", exif=b"Exif\0\0nothing that is EXIF")
    photo = read_photo(tmp_path / "b.png")
    assert photo.exif is None and photo.notes == ("its EXIF data are damaged and were left out",)


@pytest.mark.parametrize("megapixels, refused", [(200, False), (600, True)])
def test_large_photographs_are_no_bombs(tmp_path, monkeypatch, megapixels, refused):
    """Cameras have more megapixels than Pillow believes; the size is read from the header, before any pixel."""
    header = struct.pack(">IIBBBBB", megapixels * 1000, 1000, 8, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    start += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    idat = b"IDAT" + zlib.compress(b"\0")
    path.write_bytes(start + struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: None)
    monkeypatch.setattr("prompt_mamba_arch.image_io._from_pillow", lambda path, image, *others: image.size)
    limit = Image.MAX_IMAGE_PIXELS
    if refused:
        with pytest.raises(UserError, match="too many"):
            read_photo(path)
    else:
        assert read_photo(path) == (megapixels * 1000, 1000)
    assert Image.MAX_IMAGE_PIXELS == limit


@pytest.mark.parametrize("suffix", [*SUFFIXES])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_failing_to_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix, dtype):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"what was there")
    photo = _photo(3, dtype)

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    for name in ("compress", "compressobj"):
        monkeypatch.setattr(f"prompt_mamba_arch.image_io.zlib.{name}", fail)
    with pytest.raises(OSError, match="No space"):
        write_photo(path, photo)
    assert path.read_bytes() == b"what was there" and os.listdir(tmp_path) == [path.name]


def test_what_a_format_cannot_hold_at_all(tmp_path):
    with pytest.raises(UserError, match=r"suffix must be one of \.png"):
        write_photo(tmp_path / "a.xyz", _photo())
    wide = Photo(np.zeros((1, 70000, 3), np.uint8))
    for suffix in (".jpg", ".webp"):
        with pytest.raises(UserError, match="70000 x 1"):
            write_photo(tmp_path / f"a{suffix}", wide)
    assert os.listdir(tmp_path) == []
    write_photo(tmp_path / "a.png", wide)
    _same(wide, read_photo(tmp_path / "a.png"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_the_smallest_images(tmp_path, shape, dtype, suffix):
    if suffix == ".bmp" and dtype == np.uint16:
        dtype = np.uint8
    photo = Photo(np.full((*shape, 3), 77, dtype))
    write_photo(tmp_path / f"a{suffix}", photo)
    _same(photo, read_photo(tmp_path / f"a{suffix}"))


def test_enlarged_pixels_take_alpha_with_them():
    photo = _photo(4)
    large = photo.with_pixels(np.zeros((26, 34, 3), np.uint8))
    assert large.alpha.shape == (26, 34) and large.alpha.dtype == np.uint8
    assert photo.with_pixels(photo.pixels[:]).alpha is photo.alpha


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_the_size_in_exif_is_that_of_the_picture(tmp_path, suffix, order):
    exif = Image.Exif()
    exif.endian, exif.head = ("<", b"II*\0\x08\0\0\0") if order == b"II" else (">", b"MM\0*\0\0\0\x08")
    exif[0x0112], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8769).update({40962: 60, 40963: 40, 34855: 400})
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "in.jpg", exif=exif.tobytes())
    photo = read_photo(tmp_path / "in.jpg")
    enlarged = photo.with_pixels(photo.pixels.repeat(2, axis=0).repeat(2, axis=1))
    for number, (written, size) in enumerate(((photo, (40, 60)), (enlarged, (80, 120)))):
        path = tmp_path / f"{number}{suffix}"
        assert write_photo(path, written) == []
        with Image.open(path) as image:
            found = image.getexif()
            inner = found.get_ifd(0x8769)
            assert image.size == size == (inner[40962], inner[40963])
            assert found.get(0x010F) == "Maker" and inner[34855] == 400


def test_a_size_that_exif_does_not_state_is_not_added(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "in.jpg", exif=exif)
    photo = read_photo(tmp_path / "in.jpg")
    write_photo(tmp_path / "out.jpg", photo)
    assert read_photo(tmp_path / "out.jpg").exif == photo.exif
    with Image.open(tmp_path / "out.jpg") as image:
        assert 40962 not in image.getexif().get_ifd(0x8769)


def test_xmp_is_not_left_out_silently(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>")
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    image.save(tmp_path / "in.png", pnginfo=info)
    image.save(tmp_path / "in.tif", tiffinfo={700: b"<x:xmpmeta/>"})
    image.save(tmp_path / "in.webp", xmp=b"<x:xmpmeta/>")
    for path in tmp_path.iterdir():
        assert [note for note in read_photo(path).notes if "XMP" in note], path
    image.save(tmp_path / "plain.png")
    assert read_photo(tmp_path / "plain.png").notes == ()
