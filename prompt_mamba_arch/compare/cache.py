"""What has been restored and measured, on disk, by content: an interrupted run goes on, and another method, image or
metric costs only itself."""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prompt_mamba_arch import __version__
from prompt_mamba_arch.errors import UserError, replace_on_success

__all__ = ["Cache", "code_digest", "pixels_digest"]

_VERSION = 2  # another one where what is kept has another form


def pixels_digest(image: np.ndarray) -> str:
    """Of an image's shape and values."""
    return hashlib.sha256(repr((image.shape, image.dtype.str)).encode() + image.tobytes()).hexdigest()


def code_digest(thing: Callable | type) -> str:
    """Of the source file that a function or class is written in, so that what was computed by other code is not taken
    for its result; the files that it calls are covered by their package's version alone. Empty where there is none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(thing))
    except TypeError:  # built in, or compiled
        return ""
    return "" if file is None else _file_digest(file)


@functools.lru_cache(maxsize=None)  # noqa: UP033
def _file_digest(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # in an archive, or typed in
        return ""


class Cache:
    """Files below `folder`: for each output a PNG, and a JSON file of its numbers."""

    def __init__(self, folder: Path):
        self.folder = folder

    def output(self, method: str, prompt: str, given: np.ndarray, run: Callable[[], np.ndarray]) -> Output:
        """The method's result on `given`, or how to get it: `run` is called when the pixels are asked for."""
        identity = json.dumps([_VERSION, __version__, method, prompt, pixels_digest(given)])
        name = hashlib.sha256(identity.encode()).hexdigest()
        return Output(self.folder / name[:2] / name, run)

    def timing(self, identity: Mapping[str, Any], measure: Callable[[], float] | None = None) -> float | None:
        """Seconds that are known; else what `measure` says, which is kept."""
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        path = self.folder / "times" / f"{name}.json"
        known = _read(path)
        if "seconds" in known or measure is None:
            return known.get("seconds")
        value = measure()
        _write(path, {**identity, "seconds": value})
        return value


class Output:
    """One result: its pixels and its scores, each made once."""

    def __init__(self, place: Path, run: Callable[[], np.ndarray]):
        self._image, self._json, self._run = place.with_suffix(".png"), place.with_suffix(".json"), run
        self._scores = _read(self._json)
        self._pixels: np.ndarray | None = None
        self._failure: tuple[type[Exception], tuple] | None = None  # not the error: its frames would stay in memory

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8. What fails is not tried a second time."""
        if self._failure is not None:
            error, told = self._failure
            raise error(*told)
        if self._pixels is None:
            try:
                self._pixels = self._load()
            except (UserError, MemoryError) as error:
                self._failure = type(error), error.args
                raise
        return self._pixels

    def file(self) -> Path:
        """The PNG file of its pixels, which stays in the cache."""
        if not self._image.is_file():
            self.pixels()
        return self._image

    def _load(self) -> np.ndarray:
        try:
            with Image.open(self._image) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError):  # not there, or damaged: it is made anew
            pass
        result = self._run()
        data = io.BytesIO()
        Image.fromarray(result).save(data, "PNG", compress_level=1)
        self._image.parent.mkdir(parents=True, exist_ok=True)
        with replace_on_success(self._image) as path:
            path.write_bytes(data.getvalue())
        return result

    def score(self, metric: Mapping[str, Any], target: str, measure: Callable[[np.ndarray], Any]) -> Any:
        """What `measure(pixels)` says; kept by what `metric` holds, options and code, and the target's digest."""
        name = json.dumps([metric, target], sort_keys=True)
        if name not in self._scores:
            value = measure(self.pixels())
            # what another process has added meanwhile is kept
            self._scores = {**_read(self._json), name: value}
            _write(self._json, self._scores)
        return self._scores[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(path) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")
