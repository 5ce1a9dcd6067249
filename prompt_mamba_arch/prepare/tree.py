"""The files of a downloaded dataset, as they lie. Nothing here writes.

Images may also lie in a container: a LMDB of BasicSR's (`input.lmdb`), or one of SIDD's .mat files of blocks. A
container is listed as a folder of images: `val/gt_crops.lmdb/0001.png`, `ValidationGtBlocksSrgb.mat/0000_00.png`.
"""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from prompt_mamba_arch.data.image_source import EXTENSIONS, ImageSource
from prompt_mamba_arch.errors import UserError

__all__ = ["Stamp", "Tree"]

_LISTS = (".txt", ".json")
_BLOCKS = {"validationnoisyblockssrgb.mat", "validationgtblockssrgb.mat"}
_NOT_THE_DATASETS = {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir"}


class Stamp(NamedTuple):
    """Tells whether a file is still the same: bytes, and nanoseconds of its last change."""

    size: int
    changed: int


class Tree:
    """All images and lists below a folder.

    Args:
        root: the folder.
        leave_out: a folder below it that does not belong to it, as the prepared data would.

    Attributes:
        folders: folder below root ("" or ending with a slash) -> names of its images, sorted.
        lists: paths of .txt and .json files.
        above: the last two folders of root's own path, as the person may have named the inner folder of an archive.
    """

    def __init__(self, root: Path, leave_out: Path | None = None):
        if not root.is_dir():
            raise UserError(f"no such folder: {str(root)!r}")
        self.root = root
        self._prefix = os.path.join(root, "")
        self.above = "".join(f"{part}/" for part in root.absolute().parts[1:][-2:])
        self.folders: dict[str, list[str]] = {}
        self.lists: list[str] = []
        self._containers: dict[str, str] = {}  # folder -> lmdb or mat
        self._lock = threading.Lock()
        left_out = None if leave_out is None else os.path.realpath(leave_out)
        for folder, below, names in os.walk(root, followlinks=True):
            inside = os.path.relpath(folder, root).replace(os.sep, "/")
            inside = "" if inside == "." else inside + "/"
            below[:] = sorted(
                name
                for name in below
                if not name.startswith(".")
                and name not in _NOT_THE_DATASETS
                and (left_out is None or os.path.realpath(os.path.join(folder, name)) != left_out)
            )
            if "data.mdb" in names:
                self._list_lmdb(inside)
                continue
            images = []
            for name in names:
                ending = os.path.splitext(name)[1].lower()
                if name.startswith("."):
                    continue
                if ending in EXTENSIONS:
                    images.append(name)
                elif ending in _LISTS:
                    self.lists.append(inside + name)
                elif name.lower() in _BLOCKS:
                    self._list_blocks(inside + name + "/")
            if images:
                self.folders[inside] = sorted(images)
        self.lists.sort()

    def __len__(self) -> int:
        return sum(map(len, self.folders.values()))

    def _list_lmdb(self, folder: str) -> None:
        try:
            keys = ImageSource(self.root / folder, {"type": "lmdb"}, label="LMDB").keys
        except UserError:
            return  # not one of BasicSR's
        self._containers[folder] = "lmdb"
        self.folders[folder] = [f"{key}.png" for key in keys if "/" not in key]

    def _list_blocks(self, folder: str) -> None:
        shape = _block_shape(self.root / folder[:-1])
        self._containers[folder] = "mat"
        self.folders[folder] = [
            f"{image:04d}_{block:02d}.png" for image in range(shape[0]) for block in range(shape[1])
        ]

    def contained(self, path: str) -> bool:
        """True for an image that is no file of its own."""
        return path[: path.rfind("/") + 1] in self._containers

    def stamp(self, path: str) -> Stamp:
        folder = path[: path.rfind("/") + 1]
        kind = self._containers.get(folder)
        file = folder + "data.mdb" if kind == "lmdb" else folder[:-1] if kind == "mat" else path
        state = os.stat(self.path(file))
        return Stamp(state.st_size, state.st_mtime_ns)

    def read(self, path: str) -> bytes:
        """The image's file.

        Raises:
            UserError, OSError: it cannot be read.
        """
        folder, _, name = path.rpartition("/")
        kind = self._containers.get(folder + "/")
        if kind == "lmdb":
            with self._lock:  # one environment for a process
                data = ImageSource(self.root / folder, {"type": "lmdb"}, label="LMDB").read_entry(name[:-4])
            if data is None:
                raise UserError("is listed in the LMDB's meta_info.txt but not stored in it")
            return bytes(data)
        if kind == "mat":
            image, block = map(int, name[:-4].split("_"))
            with self._lock:
                blocks = _blocks(str(self.root / folder))
            done, data = cv2.imencode(".png", cv2.cvtColor(blocks[image, block], cv2.COLOR_RGB2BGR))
            if not done:
                raise UserError(f"block {image}, {block} cannot be written as PNG")
            return data.tobytes()
        with open(self.path(path), "rb") as file:
            return file.read()

    def path(self, path: str) -> str:
        """Of the whole file system."""
        return f"{self._prefix}{path}"

    def read_list(self, name: str) -> tuple[str, str] | None:
        """Path and text of the list of that name, wherever it lies; None if there is none."""
        for path in self.lists:
            if path.rpartition("/")[2].lower() == name.lower():
                try:
                    return path, (self.root / path).read_text(encoding="utf-8-sig")
                except UnicodeDecodeError:
                    raise UserError(f"{self.root / path} is not UTF-8 text") from None
        return None


def _block_shape(path: Path) -> tuple[int, ...]:
    import scipy.io

    try:
        (_, shape, _), *more = scipy.io.whosmat(path)
    except Exception as error:  # scipy raises a dozen types for a damaged file
        raise UserError(f"cannot read {path}: {error}") from None
    if more or len(shape) != 5 or shape[4] != 3:
        raise UserError(f"{path} should hold one array (images, blocks, height, width, 3), not {shape}")
    return shape


@functools.lru_cache(maxsize=2)
def _blocks(path: str) -> np.ndarray:
    """(images, blocks, H, W, 3) uint8 RGB: 252 MB for SIDD's."""
    import scipy.io

    return next(value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__"))
