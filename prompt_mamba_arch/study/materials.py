"""What is compared: a folder of results, one folder in it for each method."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from prompt_mamba_arch.data.prompt_file import read_prompt_file
from prompt_mamba_arch.errors import UserError, did_you_mean, replace_on_success
from prompt_mamba_arch.image_io import SUFFIXES, read_photo, read_size

__all__ = ["INPUT", "Materials"]

INPUT = "inputs"
_TARGETS = "targets"  # may lie there, too, and are not shown: nobody should know how it ought to look
_PROMPTS = "prompts.jsonl"
_SPOILED = 12  # pixels of a spoiled picture that become one


class Materials:
    """Results to compare.

    The folder holds
        METHOD/NAME.png   for two methods at least; a result has the same name and size in each;
        inputs/NAME.png   what the methods were given (not needed); may be smaller, where they enlarge;
        prompts.jsonl     what they were asked for (not needed): `{"key": "NAME", "prompts": ["remove the noise"]}`.

    Names are compared without their suffix. Images that not every method has are passed over (`incomplete`).

    Args:
        folder: that one.
        methods: only these; default: every folder but `inputs`, `targets` and hidden ones.
        crop: pixels a side of what is shown of each image, at the same place in every method's; 0 for the whole.

    Raises:
        UserError: fewer than two methods, no image that all have, results of different sizes, no such method.
    """

    def __init__(self, folder: Path, methods: Collection[str] = (), crop: int = 512):
        if not folder.is_dir():
            raise UserError(f"no such folder: {str(folder)!r}")
        there = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        found = [name for name in there if name not in (INPUT, _TARGETS)]
        for name in methods:
            if name not in found:
                raise UserError(f"there is no folder {name!r} in {str(folder)!r}{did_you_mean(name, found)}")
        self.methods = tuple(name for name in found if not methods or name in methods)
        if len(self.methods) < 2:
            raise UserError(
                f"{str(folder)!r} must hold a folder of results for each of two methods or more, it has "
                f"{', '.join(self.methods) or 'none'}"
            )
        self.folder, self.crop = folder, crop
        self._files = {name: _images(folder / name) for name in self.methods}
        shared = set.intersection(*(set(files) for files in self._files.values()))
        every = set().union(*self._files.values())
        if not shared:
            raise UserError(
                f"no image is in the folders of all methods ({', '.join(self.methods)}); name methods that share some"
            )
        self.images = tuple(sorted(shared))
        self.incomplete = tuple(sorted(every - shared))
        self._files[INPUT] = _images(folder / INPUT) if (folder / INPUT).is_dir() else {}
        self._sizes = {image: self._size(image) for image in self.images}
        prompts = read_prompt_file(folder / _PROMPTS) if (folder / _PROMPTS).is_file() else {}
        by_stem = {Path(key).stem if Path(key).suffix.lower() in SUFFIXES else key: e for key, e in prompts.items()}
        self.prompts = {image: by_stem[image].prompts[0] for image in self.images if image in by_stem}

    def _size(self, image: str) -> tuple[int, int]:
        sizes = {name: read_size(self._files[name][image]) for name in self.methods}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {width} x {height}" for name, (height, width) in sizes.items())
            raise UserError(f"the results of {image!r} have different sizes: {listed}")
        return sizes[self.methods[0]]

    @property
    def fingerprint(self) -> str:
        """Changes with what participants would see."""
        parts = [str(self.crop), repr(sorted(self.prompts.items()))]
        for name in (*self.methods, INPUT):
            for image in self.images:
                if image in self._files[name]:
                    found = self._files[name][image].stat()
                    parts.append(f"{name}/{image} {found.st_size} {found.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

    def has_input(self, image: str) -> bool:
        return image in self._files[INPUT]

    def shown_size(self, image: str) -> tuple[int, int]:
        """Height and width of what is shown of it."""
        top, bottom, left, right = self._box(image)
        return bottom - top, right - left

    def _box(self, image: str) -> tuple[int, int, int, int]:
        """The same for every method and participant, and of the image's name alone."""
        height, width = self._sizes[image]
        if not self.crop:
            return 0, height, 0, width
        rng = np.random.default_rng(zlib.crc32(image.encode("utf-8", "surrogateescape")))
        high, wide = min(self.crop, height), min(self.crop, width)
        top, left = int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1))
        return top, top + high, left, left + wide

    def picture(self, image: str, method: str, spoiled: bool, cache: Path) -> Path:
        """A PNG file of what is shown; made when it is first asked for.

        Args:
            method: one of them, or `inputs`.
            spoiled: made worse beyond doubt, for an attention check.
            cache: the folder that keeps these files.
        """
        key = hashlib.sha256(f"{image}\n{method}\n{spoiled}\n{self.crop}".encode("utf-8", "surrogateescape"))
        path = cache / f"{key.hexdigest()[:32]}.png"
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            with replace_on_success(path) as temporary:
                Image.fromarray(self._pixels(image, method, spoiled)).save(temporary, compress_level=3)
        return path

    def _pixels(self, image: str, method: str, spoiled: bool) -> np.ndarray:
        """(h, w, 3) uint8."""
        pixels = read_photo(self._files[method][image]).pixels
        (height, width), box = self._sizes[image], self._box(image)
        high, wide = pixels.shape[:2]
        # an input may be smaller than its results
        top, bottom = (round(edge * high / height) for edge in box[:2])
        left, right = (round(edge * wide / width) for edge in box[2:])
        part = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
        if part.dtype == np.uint16:
            part = ((part.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if spoiled:
            side = [max(size // _SPOILED, 1) for size in (part.shape[1], part.shape[0])]
            small = cv2.resize(part, side, interpolation=cv2.INTER_AREA)
            part = cv2.resize(small, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_NEAREST)
        return np.ascontiguousarray(part)


def _images(folder: Path) -> dict[str, Path]:
    """Name without suffix -> file."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            if path.stem in found:
                raise UserError(f"{os.fspath(folder)!r} has two images that are called {path.stem!r}")
            found[path.stem] = path
    return found
