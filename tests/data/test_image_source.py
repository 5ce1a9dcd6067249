"""Reading images by key: folders, LMDB, pixel formats, and the messages for what cannot be read."""

from __future__ import annotations

import os
import pickle

import cv2
import numpy as np
import pytest

from prompt_mamba_arch.data.image_source import ImageSource, decode, read_meta_info, to_float, to_tensor
from prompt_mamba_arch.errors import UserError


def encode(extension: str, rgb: np.ndarray) -> bytes:
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}
    bgr = rgb if rgb.ndim == 2 else rgb[..., order[rgb.shape[2]]]
    return cv2.imencode(extension, bgr)[1].tobytes()


def put(path, data: bytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def make_lmdb(folder, images: dict):
    from basicsr.utils.lmdb_util import LmdbMaker

    maker = LmdbMaker(str(folder), map_size=1 << 26)
    for key, image in images.items():
        maker.put(encode(".png", image), key, image.shape)
    maker.close()


@pytest.fixture
def photo(photos):
    return np.ascontiguousarray(photos["chelsea"][:48, :40])


def test_folder_keys_have_dots_and_sub_folders_and_are_sorted(tmp_path, photo):
    for name in ("b/0002.png", "a/0001.v2.png", "z.JPG", ".hidden.png", ".git/x.png", "notes.txt"):
        put(tmp_path / name, encode(".jpg" if name.endswith("JPG") else ".png", photo))
    source = ImageSource(tmp_path)
    assert source.keys == ("a/0001.v2", "b/0002", "z")
    assert source.path("a/0001.v2") == str(tmp_path / "a" / "0001.v2.png")
    assert np.array_equal(source.read("a/0001.v2"), photo)


def test_lmdb_gives_the_same_images_and_survives_pickling_and_a_fork(tmp_path, photo):
    images = {"a/0001.v2": photo, "b": photo[::-1]}
    make_lmdb(tmp_path / "gt.lmdb", images)
    options = {"type": "lmdb", "readahead": False}
    source = ImageSource(tmp_path / "gt.lmdb", options)
    assert options == {"type": "lmdb", "readahead": False}
    assert source.keys == ("a/0001.v2", "b")
    for copy in (source, pickle.loads(pickle.dumps(source))):
        assert all(np.array_equal(copy.read(key), image) for key, image in images.items())
    assert os.path.basename(source.path("a/0001.v2")) == "0001.v2.png"
    assert source.read_entry("b.prompt") is None
    if hasattr(os, "fork"):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(source.read("b"), photo[::-1]) else 1)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_cache_reads_each_image_once_and_is_not_pickled(tmp_path, photo):
    put(tmp_path / "images" / "a.png", encode(".png", photo))
    source = ImageSource(tmp_path / "images", {"type": "disk", "cache": True})
    first = source.read("a")
    copy = pickle.loads(pickle.dumps(source))
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert source.read("a") is first and np.array_equal(first, photo)
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0  # what one sample writes, another would see
    with pytest.raises(UserError):
        copy.read("a")


def test_gray_alpha_and_sixteen_bits(photo):
    wide = photo.astype(np.uint16) * 257 - 3
    alpha = np.dstack([photo, photo[..., :1]])
    assert np.array_equal(decode(encode(".png", alpha)), photo)
    gray = decode(encode(".png", photo[..., 0]))
    assert gray.shape == photo.shape and all(np.array_equal(gray[..., c], photo[..., 0]) for c in range(3))
    for extension in (".png", ".tiff"):
        decoded = decode(encode(extension, wide))
        assert decoded.dtype == np.uint16 and np.array_equal(decoded, wide)
    tensor = to_tensor(decoded)
    assert tensor.shape == (3, *photo.shape[:2])
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), wide.astype(np.float32) / 65535)
    assert to_float(np.array([0, 255], np.uint8)).tolist() == [0, 1]


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp", ".tiff", ".bmp"])
def test_a_cut_off_image_is_reported_with_key_and_path(tmp_path, photo, extension):
    data = encode(extension, photo)
    put(tmp_path / f"x{extension}", data[: len(data) * 9 // 10])
    with pytest.raises(UserError, match=rf"'x' \(.*x\{extension}\) is damaged or not an image"):
        ImageSource(tmp_path).read("x")


def test_a_jpeg_with_a_thumbnail_is_read_whole_and_refused_when_cut_off(photo):
    thumbnail = encode(".jpg", photo[:8, :8])
    data = encode(".jpg", photo)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert decode(whole).shape == photo.shape
    assert decode(whole + b"\0" * 100).shape == photo.shape
    with pytest.raises(UserError, match="damaged"):
        decode(whole[:-20])


def test_other_messages(tmp_path, photo):
    with pytest.raises(UserError, match=r"dataroot_gt: no such folder: .*nowhere"):
        ImageSource(tmp_path / "nowhere", label="dataroot_gt")
    with pytest.raises(UserError, match="no images in"):
        ImageSource(tmp_path)
    put(tmp_path / "d" / "photo_1.png", encode(".png", photo))
    with pytest.raises(UserError, match=r"no image 'd/photo_2' in .*did you mean 'd/photo_1'"):
        ImageSource(tmp_path, keys=["d/photo_2"])
    with pytest.raises(UserError, match=r"memcached.*use disk or lmdb"):
        ImageSource(tmp_path, {"type": "memcached"})
    with pytest.raises(UserError, match="unknown key 'db_path'"):
        ImageSource(tmp_path, {"type": "disk", "db_path": "x"})
    with pytest.raises(UserError, match="is not a LMDB folder"):
        ImageSource(tmp_path, {"type": "lmdb"})
    put(tmp_path / "d" / "photo_1.jpg", encode(".jpg", photo))
    with pytest.raises(UserError, match=r"d/photo_1\.jpg and d/photo_1\.png .* same key 'd/photo_1'"):
        ImageSource(tmp_path)
    with pytest.raises(UserError, match="the file is empty"):
        decode(b"")
    with pytest.raises(UserError, match="float32 samples"):
        decode(encode(".tiff", photo.astype(np.float32) / 255))


@pytest.mark.parametrize(
    ("backend", "said"),
    [("lmdb", r"must be a section such as \{type: lmdb\}, not 'lmdb'"), ({"cach": True}, "'cach' .*it has none to be")],
)
def test_a_backend_that_is_none_is_one_line(tmp_path, photo, backend, said):
    put(tmp_path / "a.png", encode(".png", photo))
    with pytest.raises(UserError, match=said):
        ImageSource(tmp_path, backend)


def test_lmdb_messages(tmp_path, photo):
    make_lmdb(tmp_path / "gt.lmdb", {"a": photo})
    with pytest.raises(UserError, match=r"is a LMDB; set io_backend: \{type: lmdb\}"):
        ImageSource(tmp_path / "gt.lmdb")
    with open(tmp_path / "gt.lmdb" / "meta_info.txt", "a", encoding="utf-8") as file:
        file.write("b.png (4,4,3) 1\n")
    with pytest.raises(UserError, match=r"image 'b' is listed in .* but not stored"):
        ImageSource(tmp_path / "gt.lmdb", {"type": "lmdb"}).read("b")
    (tmp_path / "gt.lmdb" / "meta_info.txt").unlink()
    with pytest.raises(UserError, match=r"has no meta_info\.txt"):
        ImageSource(tmp_path / "gt.lmdb", {"type": "lmdb"})


def test_meta_info_names(tmp_path):
    path = tmp_path / "meta.txt"
    path.write_text("b.v2.png (4,5,3) 1\n\nmy photo (1).png (4,5)\nc.png 480\nplain\n", encoding="utf-8")
    assert read_meta_info(path) == ["b.v2.png", "my photo (1).png", "c.png", "plain"]
    path.write_text("a.png\na.png (4,5,3)\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2: 'a\.png' is listed already in line 1"):
        read_meta_info(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="lists no image"):
        read_meta_info(path)
    with pytest.raises(UserError, match="cannot read the meta_info file"):
        read_meta_info(tmp_path / "none.txt")
