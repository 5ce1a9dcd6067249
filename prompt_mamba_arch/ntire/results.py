"""The archive of results that Codabench scores: pictures named like the inputs, and readme.txt."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from basicsr.metrics import calculate_psnr

from prompt_mamba_arch.data.image_source import ImageSource
from prompt_mamba_arch.errors import UserError, one_line, replace_on_success
from prompt_mamba_arch.ntire.perceptual import PerceptualScore
from prompt_mamba_arch.restore import Restorer

__all__ = ["Results", "write_results"]

_BORDER = 4  # pixels that the organisers leave out of PSNR at each side, in all tracks

_README = """runtime per image [s] : {seconds:.4f}
CPU[1] / GPU[0] : {cpu}
Extra Data [1] / No Extra Data [0] : {extra}
Other description : {description}
"""


class Results(NamedTuple):
    """Attributes: seconds for an image; the mean PSNR in dB, if there was something to compare with."""

    seconds: float
    psnr: float | None


def write_results(
    path: str | os.PathLike,
    restorer: Restorer,
    images: ImageSource,
    *,
    prompt: str | None = None,
    extra_data: bool = False,
    description: str = "",
    targets: ImageSource | None = None,
    luma: bool = False,
    perceptual: PerceptualScore | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Results:
    """Restores all images into a zip archive, in its root, as PNG under the inputs' names.

    The time is that of the restoration alone, without reading and writing; the first image is restored twice, as the
    first time takes longer.

    Args:
        extra_data: whether the training had more than the challenge's data.
        description: one line for readme.txt.
        targets: the images as they should be, 0901 for 0901x4; PSNR is then computed as the organisers do.
        luma: PSNR of the Y channel (track sr_x4), else of RGB.
        perceptual: receives the images and their targets; needs `targets`.

    Raises:
        UserError: two images have the same name, one has other than 8 bits, or there is no target for one.
    """
    names = [f"{key.rpartition('/')[2]}.png" for key in images]
    if len(set(names)) != len(names):
        raise UserError(f"two images in {images.root} have the same name, and an archive of results has no folders")
    wanted = {} if targets is None else {key: _target_of(key, targets) for key in images}
    seconds, psnr = 0.0, 0.0
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
            if targets is not None:
                pair = _pair(restored, targets.read(wanted[key]), key)
                psnr += float(calculate_psnr(*pair, crop_border=_BORDER, test_y_channel=luma)) / len(names)
                if perceptual is not None:
                    perceptual.add(*pair)
            ok, data = cv2.imencode(".png", cv2.cvtColor(restored, cv2.COLOR_RGB2BGR))
            if not ok:
                raise UserError(f"image '{key}' cannot be encoded as PNG")
            archive.writestr(name, data.tobytes())
        told = {"cpu": int(restorer.device.type == "cpu"), "extra": int(extra_data)}
        archive.writestr(
            "readme.txt", _README.format(seconds=seconds / len(names), description=one_line(description), **told)
        )
    progress(len(names), len(names))
    return Results(seconds / len(names), None if targets is None else psnr)


def _target_of(key: str, targets: ImageSource) -> str:
    for suffix in ("", "x4", "noise50"):
        if key.endswith(suffix) and key[: len(key) - len(suffix)] in targets:
            return key[: len(key) - len(suffix)]
    raise UserError(f"no image in {targets.root} to compare '{key}' with")


def _pair(restored: np.ndarray, target: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray]:
    """What the organisers compare, in BGR: the target is cut to multiples of 4."""
    height, width = (side - side % 4 for side in target.shape[:2])
    target, restored = target[:height, :width, ::-1], restored[:height, :width, ::-1]  # BGR
    if target.shape != restored.shape or target.dtype != np.uint8:
        raise UserError(
            f"image '{key}' cannot be compared: {restored.shape[1]} x {restored.shape[0]} pixels, and the target has "
            f"{width} x {height} of type {target.dtype}"
        )
    return restored, target


def _wait(restorer: Restorer) -> None:
    if restorer.device.type == "cuda":
        torch.cuda.synchronize(restorer.device)
