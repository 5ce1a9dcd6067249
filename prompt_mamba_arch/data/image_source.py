"""Images by key, from a folder or from a LMDB that BasicSR's tools made.

A key is the path below the root, without its extension and with forward slashes: `a/0001.v2` is the file
`<root>/a/0001.v2.png`, or the LMDB entry of that name. Every dataset of this package reads its images here, so a
missing or broken image is reported the same way everywhere: one line with the key and the path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch

from prompt_mamba_arch.compat.data import lmdb_environment
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean

__all__ = ["EXTENSIONS", "ImageSource", "decode", "is_cut_off", "key_of", "read_meta_info", "to_float", "to_tensor"]

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm", ".jp2"})

# "0001.png (480,320,3) 1", as BasicSR's tools write it; the shape and what follows are optional
_META_LINE = re.compile(r"^(?P<name>.*?)(?:\s+\(\d+,\s*\d+(?:,\s*\d+)?\)(?:\s.*)?)?$")


class ImageSource:
    """The images below one root, in sorted order of their keys.

    Args:
        root: a folder of images (searched with its sub-folders; hidden files are skipped) or a LMDB folder.
        io_backend: BasicSR's option, `{"type": "disk"}` (default) or `{"type": "lmdb"}`, the latter also with
            `readahead`. Both take `cache: true`: every decoded image stays in memory, once in each process that reads;
            for training on few images with few workers. It is copied, never changed.
        keys: the keys to keep, in the order to keep them in; default all, sorted.
        label: the option that named the root, for messages ("dataroot_gt").

    Raises:
        UserError: the root or a wanted key does not exist, or two files share a key.

    A source holds no open file, so it can be pickled and survives a fork at any time.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        io_backend: Mapping[str, Any] | None = None,
        *,
        keys: Iterable[str] | None = None,
        label: str = "image folder",
    ):
        self.root = os.path.expanduser(os.fspath(root))
        self.label = label
        if io_backend is not None and not isinstance(io_backend, Mapping):
            raise UserError(f"io_backend must be a section such as {{type: lmdb}}, not {io_backend!r}")
        backend = dict(io_backend or {"type": "disk"})
        self.backend = backend.pop("type", "disk")
        self._cache: dict[str, np.ndarray] | None = {} if backend.pop("cache", False) else None
        if self.backend == "disk":
            check_keys(backend, (), "io_backend (type: disk)")
            self._paths = _scan_folder(self.root, label)
        elif self.backend == "lmdb":
            check_keys(backend, ("readahead",), "io_backend (type: lmdb)")
            self._paths = _scan_lmdb(self.root, label)
        else:
            raise UserError(f"io_backend type '{self.backend}' is not known; use disk or lmdb")
        self._readahead = bool(backend.get("readahead", False))
        if keys is None:
            self.keys = tuple(sorted(self._paths))
        else:
            self.keys = tuple(keys)
            for key in self.keys:
                self.path(key)  # raises when it is missing
        if not self.keys:
            raise UserError(f"{label}: no images in {self.root}")

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys)

    def __contains__(self, key: str) -> bool:
        return key in self._paths

    def path(self, key: str) -> str:
        """The file of `key`. In a LMDB: the root, the key and ".png", as its meta_info.txt names the image."""
        try:
            return os.path.join(self.root, *self._paths[key].split("/"))
        except KeyError:
            hint = did_you_mean(key, self._paths)
            raise UserError(f"{self.label}: no image '{key}' in {self.root}{hint}") from None

    def read_bytes(self, key: str) -> bytes:
        """The encoded image as it is stored.

        Raises:
            UserError: it is missing or cannot be read.
        """
        path = self.path(key)
        if self.backend == "lmdb":
            data = self.read_entry(key)
            if data is None:
                raise UserError(f"image '{key}' is listed in {self.root}/meta_info.txt but not stored in the LMDB")
            return data
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UserError(f"cannot read image '{key}' ({path}): {error.strerror or error}") from None

    def read_entry(self, key: str) -> bytes | None:
        """The bytes that a LMDB stores under `key`, which need not be an image; None if there are none."""
        with lmdb_environment(self.root, readahead=self._readahead).begin() as transaction:
            return transaction.get(key.encode("utf-8"))

    def read(self, key: str) -> np.ndarray:
        """The image of `key` as `(H, W, 3)` RGB, uint8 or uint16; see `decode`. Not to be written into."""
        if self._cache is None:
            return decode(self.read_bytes(key), f"'{key}' ({self.path(key)})")
        image = self._cache.get(key)
        if image is None:
            image = self._cache[key] = decode(self.read_bytes(key), f"'{key}' ({self.path(key)})")
            image.setflags(write=False)  # the next reader gets the same array
        return image

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: each process reads its own."""
        return {**self.__dict__, "_cache": None if self._cache is None else {}}


def decode(data: bytes, name: str = "from memory") -> np.ndarray:
    """Decodes an image file to `(H, W, 3)` RGB, uint8 or, where the file has 16 bits, uint16.

    Gray becomes three equal channels, an alpha channel is dropped, EXIF orientation is applied.

    Args:
        data: the file's bytes.
        name: how to name the image in a message.

    Raises:
        UserError: not an image, cut off, damaged, or of another sample type (floating point TIFF).
    """
    image = None
    if data and not is_cut_off(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        except cv2.error:  # more pixels than OpenCV's limit, or a header that lies
            image = None
    if image is None:
        size = "the file is empty" if not data else f"{len(data)} bytes that are no complete image"
        raise UserError(f"image {name} is damaged or not an image ({size}); replace or remove it")
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"image {name} has {image.dtype} samples; save it with 8 or 16 bits per channel")
    # IMREAD_COLOR_RGB would save this step, but OpenCV 5.0 ignores it for TIFF
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 of any shape -> float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """`(H, W, C)` uint8, uint16 or float32 -> `(C, H, W)` float32 tensor, integers scaled to [0, 1]."""
    if image.dtype != np.float32:
        image = to_float(image)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def read_meta_info(path: str | os.PathLike) -> list[str]:
    """Image names (with extension) of a BasicSR meta_info file, in its order; the shapes after them are ignored.

    Raises:
        UserError: the file cannot be read, is empty, or lists a name twice.
    """
    path = os.path.expanduser(os.fspath(path))
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the meta_info file {path}: {getattr(error, 'strerror', None) or error}") from None
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        name = _META_LINE.match(line).group("name")
        if not _has_image_extension(name):
            name = name.split(" ")[0]  # "0001.png 480": BasicSR takes the first word
        name = name.replace("\\", "/")
        if name in names:
            raise UserError(f"{path}, line {number}: '{name}' is listed already in line {names[name]}")
        names[name] = number
    if not names:
        raise UserError(f"the meta_info file {path} lists no image")
    return list(names)


def key_of(name: str) -> str:
    """Key of a relative file name: "a/0001.v2.png" -> "a/0001.v2"; a name without image extension is a key already."""
    return os.path.splitext(name)[0] if _has_image_extension(name) else name


def _has_image_extension(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _scan_folder(root: str, label: str) -> dict[str, str]:
    """Key -> path below the root, with forward slashes."""
    if not os.path.isdir(root):
        raise UserError(f"{label}: no such folder: {root}")
    if os.path.isfile(os.path.join(root, "data.mdb")):
        raise UserError(f"{label}: {root} is a LMDB; set io_backend: {{type: lmdb}}")
    paths: dict[str, str] = {}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if below == "." else below + "/"
        for name in sorted(files):
            if name.startswith(".") or not _has_image_extension(name):
                continue
            key = key_of(prefix + name)
            if key in paths:
                raise UserError(f"{label}: {paths[key]} and {prefix + name} in {root} have the same key '{key}'")
            paths[key] = prefix + name
    return paths


def _scan_lmdb(root: str, label: str) -> dict[str, str]:
    if not os.path.isfile(os.path.join(root, "data.mdb")):
        raise UserError(f"{label}: {root} is not a LMDB folder (it has no data.mdb)")
    meta_info = os.path.join(root, "meta_info.txt")
    if not os.path.isfile(meta_info):
        raise UserError(f"{label}: {root} has no meta_info.txt; make the LMDB with BasicSR's create_lmdb.py")
    return {key_of(name): key_of(name) + ".png" for name in read_meta_info(meta_info)}


def is_cut_off(data: bytes) -> bool:
    """True for a PNG or JPEG without its end: older OpenCV decodes those to an image with a gray or black rest."""
    if data.startswith(b"\x89PNG"):
        return data.rfind(b"IEND") < 0
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:  # step over the headers, a thumbnail among them
        if data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        if data[position + 1] == 0xDA:  # start of scan: in coded data FF D9 means the end and nothing else
            return data.find(b"\xff\xd9", position) < 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True
