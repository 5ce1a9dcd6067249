"""The archive of results that Codabench scores: pictures named like the inputs, and readme.txt."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from prompt_mamba_arch.data.image_source import ImageSource
from prompt_mamba_arch.errors import UserError, one_line, replace_on_success
from prompt_mamba_arch.restore import Restorer

__all__ = ["write_results"]

_README = """runtime per image [s] : {seconds:.4f}
CPU[1] / GPU[0] : {cpu}
Extra Data [1] / No Extra Data [0] : {extra}
Other description : {description}
"""


def write_results(
    path: str | os.PathLike,
    restorer: Restorer,
    images: ImageSource,
    *,
    prompt: str | None = None,
    extra_data: bool = False,
    description: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """Restores all images into a zip archive, in its root, as PNG under the inputs' names.

    The time is that of the restoration alone, without reading and writing; the first image is restored twice, as the
    first time takes longer.

    Args:
        extra_data: whether the training had more than the challenge's data.
        description: one line for readme.txt.

    Returns:
        Seconds for an image.

    Raises:
        UserError: two images have the same name, or one has other than 8 bits.
    """
    names = [f"{key.rpartition('/')[2]}.png" for key in images]
    if len(set(names)) != len(names):
        raise UserError(f"two images in {images.root} have the same name, and an archive of results has no folders")
    seconds = 0.0
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for number, (key, name) in enumerate(zip(images, names)):
            progress(number, len(names))
            image = images.read(key)
            if image.dtype != np.uint8:
                raise UserError(f"image '{key}' in {images.root} has {image.dtype} samples; the challenges use 8 bits")
            if number == 0:
                restorer.restore(image, prompt)
            _wait(restorer)
            start = time.perf_counter()
            restored = restorer.restore(image, prompt)
            _wait(restorer)
            seconds += time.perf_counter() - start
            ok, data = cv2.imencode(".png", cv2.cvtColor(restored, cv2.COLOR_RGB2BGR))
            if not ok:
                raise UserError(f"image '{key}' cannot be encoded as PNG")
            archive.writestr(name, data.tobytes())
        told = {"cpu": int(restorer.device.type == "cpu"), "extra": int(extra_data)}
        archive.writestr(
            "readme.txt", _README.format(seconds=seconds / len(names), description=one_line(description), **told)
        )
    progress(len(names), len(names))
    return seconds / len(names)


def _wait(restorer: Restorer) -> None:
    if restorer.device.type == "cuda":
        torch.cuda.synchronize(restorer.device)
