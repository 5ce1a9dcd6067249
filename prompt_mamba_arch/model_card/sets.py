"""What is measured on which public test sets: one function a set, each a list of tasks with their pixels fixed.

Everything is rounded to 8 bits as a file is: what the network gets, and what it gives.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from prompt_mamba_arch.classical import gaussian_kernel, non_local_means, total_variation, wiener
from prompt_mamba_arch.data import ImageSource
from prompt_mamba_arch.data.degradations import resize
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.photographs import Photographs

__all__ = ["SETS", "Bar", "Missing", "Pair", "Task", "degrader", "enlarged", "made", "paired", "psnr", "read_image"]


class Missing(Exception):
    """A set is not there; the text is its folder."""


class Pair(NamedTuple):
    """(H, W, 3) uint8 RGB: what is given, and what should come out.

    Attributes:
        small: where `lq` was enlarged, what it was enlarged from: for methods that enlarge by themselves.
    """

    key: str
    lq: np.ndarray
    gt: np.ndarray
    small: np.ndarray | None = None


class Bar(NamedTuple):
    """What is to be reached.

    Attributes:
        psnr: of the prompted result, dB.
        gain: of the prompted result over the input, dB.
        blind: the result without a prompt may be so much worse, dB.
    """

    psnr: float | None = None
    gain: float | None = None
    blind: float | None = None


class Task(NamedTuple):
    """One line of the card.

    Attributes:
        name: what is done to which images.
        prompt: how the network is asked.
        pairs: makes the images anew, at most so many as asked for.
        bar: what is to be reached, if that is settled.
        luma: PSNR on the luma channel alone, as is usual for enlarging.
        border: pixels left out at each edge.
        references: name -> another way from `lq` to a result. Their parameters were chosen on three photographs of
            scikit-image, knowing what was done to them.
        id: a short name.
    """

    name: str
    prompt: str
    pairs: Callable[[int | None], Iterator[Pair]]
    bar: Bar | None = None
    luma: bool = False
    border: int = 0
    references: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {}
    id: str = ""


def psnr(a: np.ndarray, b: np.ndarray, *, luma: bool = False, border: int = 0) -> float:
    """dB between two (H, W, 3) uint8 RGB images, over all pixels and channels, at most 100.

    Args:
        luma: only the luma channel of ITU-R BT.601 (16 to 235), not rounded, as MATLAB's and BasicSR's benchmarks do.
        border: pixels left out at each edge.
    """
    if a.shape != b.shape:
        raise ValueError(f"images to compare must be of one size, not {a.shape} and {b.shape}")
    a, b = (image[border : image.shape[0] - border, border : image.shape[1] - border] for image in (a, b))
    difference = a.astype(np.float64) - b
    if luma:
        difference = difference @ np.array([65.481, 128.553, 24.966]) / 255
    mse = float(np.mean(difference**2))
    return 100.0 if mse <= 255**2 * 1e-10 else 10 * float(np.log10(255**2 / mse))


# -- the sets


def noise(root: Path) -> list[Task]:
    """Gaussian noise on CBSD68 as the all-in-one literature adds it: to 8-bit values, clipped, rounded."""
    return [
        Task(
            f"CBSD68, noise of sigma {sigma}",
            "remove the noise",
            made(_source(root, "CBSD68"), degrader(f"noise{sigma}")),
            Bar(psnr=bar, blind=0.15),
            id=f"noise{sigma}",
            references={
                "non-local means": functools.partial(non_local_means, h=0.7 * sigma),
                "total variation": functools.partial(total_variation, weight=0.8 * sigma / 255),
            },
        )
        for sigma, bar in ((15, 33.3), (25, 30.6), (50, 27.3))
    ]


def jpeg(root: Path) -> list[Task]:
    """LIVE1 in colour, compressed by OpenCV (libjpeg, chroma halved)."""
    return [
        Task(
            f"LIVE1, JPEG of quality {quality}",
            "remove the JPEG artifacts",
            made(_source(root, "LIVE1"), degrader(f"jpeg{quality}")),
            Bar(gain=bar),
            id=f"jpeg{quality}",
            references={"total variation": functools.partial(total_variation, weight=weight)},
        )
        for quality, bar, weight in ((10, 1.2, 0.03), (20, 1.2, 0.02), (40, 1.0, 0.01))
    ]


def blur(root: Path) -> list[Task]:
    """CBSD68 blurred by a Gaussian of sigma 1.6, then noise of sigma 2, clipped, rounded."""
    return [
        Task(
            "CBSD68, blur of sigma 1.6 and noise of sigma 2",
            "remove the blur and the noise",
            made(_source(root, "CBSD68"), degrader("blur")),
            Bar(gain=2.0),
            id="blur",
            references={"Wiener, kernel known": wiener},
        )
    ]


def enlarging(root: Path) -> list[Task]:
    """Set5 from MATLAB's bicubic reductions, enlarged by bicubic interpolation to the size it had."""
    return [
        Task(
            f"Set5, {scale} times reduced",
            "increase the resolution",
            _set5(root, scale),
            Bar(gain=bar),
            luma=True,
            border=scale,
            id=f"x{scale}",
        )
        for scale, bar in ((2, 2.0), (4, 1.2))
    ]


def rain(root: Path) -> list[Task]:
    """Pairs of Rain100L."""
    pairs = _paired(root, "Rain100L_sample", "input", "target")
    return [Task("Rain100L, sample", "remove the rain", pairs, Bar(gain=0.0), id="rain")]


def haze(root: Path) -> list[Task]:
    """Pairs of SOTS outdoor."""
    pairs = _paired(root, "SOTS_outdoor_sample", "hazy", "clear")
    return [Task("SOTS outdoor, sample", "remove the haze", pairs, Bar(gain=0.0), id="haze")]


def real_noise(root: Path) -> list[Task]:
    """Photographs of cameras, and the mean of many exposures."""
    pairs = _paired(root, "CC15_part", "noisy", "clean")
    return [Task("CC15, real noise", "remove the noise", pairs, id="real_noise")]


def real_noise_jpeg(root: Path) -> list[Task]:
    """The same, after the camera's compression."""
    pairs = _paired(root, "PolyU_part", "noisy", "clean")
    return [Task("PolyU, real noise", "remove the noise", pairs, id="real_noise_jpeg")]


SETS: dict[str, Callable[[Path], list[Task]]] = {
    "noise": noise,
    "jpeg": jpeg,
    "blur": blur,
    "enlarging": enlarging,
    "rain": rain,
    "haze": haze,
    "real_noise": real_noise,
    "real_noise_jpeg": real_noise_jpeg,
}


# -- pixels


def degrader(name: str) -> Callable[[np.ndarray, int], np.ndarray]:
    """What is done to the images of a task: (clean image, its number in sorted order) -> degraded image.

    Args:
        name: `noise25` adds Gaussian noise of that sigma, `jpeg10` compresses at that quality, `blur` is a Gaussian of
            sigma 1.6 with noise of sigma 2.

    Raises:
        UserError: none of these.
    """
    number = re.fullmatch(r"(noise|jpeg)([0-9]{1,3})", name)
    if name == "blur":
        return _blurred
    if number is None or int(number[2]) < 1 or (number[1] == "jpeg" and int(number[2]) > 100):
        raise UserError(f"no such degradation: {name!r}; write noise25 (1 to 999), jpeg10 (1 to 100) or blur")
    if number[1] == "noise":
        return functools.partial(_noisy, sigma=int(number[2]))
    return functools.partial(_compressed, quality=int(number[2]))


def _noisy(image: np.ndarray, index: int, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(index).normal(0, sigma, image.shape)
    return _to_uint8(image + noise)


def _compressed(image: np.ndarray, index: int, quality: int) -> np.ndarray:
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def _blurred(image: np.ndarray, index: int) -> np.ndarray:
    soft = cv2.filter2D(image.astype(np.float64), -1, gaussian_kernel(1.6), borderType=cv2.BORDER_REFLECT)
    return _to_uint8(soft + np.random.default_rng(index).normal(0, 2, image.shape))


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).round().astype(np.uint8)


def _source(root: Path, name: str) -> ImageSource:
    folder = root / name
    if not folder.is_dir():
        raise Missing(name)
    return ImageSource(folder, label=name)


def read_image(source: ImageSource | Photographs, key: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Raises:
        UserError: it cannot be read, or has more than 8 bits.
    """
    image = source.read(key)
    if image.dtype != np.uint8:
        raise UserError(f"image '{key}' ({source.path(key)}) must have 8 bits per channel")
    return image


def made(source: ImageSource | Photographs, degrade: Callable[[np.ndarray, int], np.ndarray]):
    """Pairs of clean images and what `degrade(image, index in sorted order)` makes of them."""

    def pairs(limit: int | None = None) -> Iterator[Pair]:
        for index, key in enumerate(source.keys[:limit]):
            image = read_image(source, key)
            yield Pair(key, degrade(image, index), image)

    return pairs


def _paired(root: Path, name: str, degraded: str, clean: str):
    return paired(_source(root, os.path.join(name, degraded)), _source(root, os.path.join(name, clean)))


def paired(lq: ImageSource, gt: ImageSource, scale: int = 1):
    """Pairs of files; the degraded one's name may say more, after an underscore. With a scale, the degraded one is so
    many times smaller, and its name may end in x and the scale."""

    def pairs(limit: int | None = None) -> Iterator[Pair]:
        for key in lq.keys[:limit]:
            bare = key[: -len(f"x{scale}")] if scale > 1 and key.endswith(f"x{scale}") else key.split("_")[0]
            other = key if key in gt else bare
            small, image = read_image(lq, key), read_image(gt, other)
            if scale > 1:
                yield enlarged(other, small, image, scale)
                continue
            if small.shape != image.shape:
                raise UserError(f"{lq.path(key)} and {gt.path(other)} differ in size")
            yield Pair(key, small, image)

    return pairs


def enlarged(key: str, small: np.ndarray, image: np.ndarray, scale: int) -> Pair:
    """The pair of a reduced image, enlarged by bicubic interpolation, and the image that it is of."""
    height, width = (side * scale for side in small.shape[:2])
    lq = _to_uint8(resize(small.astype(np.float64), height, width, "bicubic"))
    # benchmarks cut the original to a multiple of the scale before it is reduced
    gt = np.ascontiguousarray(image[:height, :width])
    if gt.shape != lq.shape:
        raise UserError(f"image {key!r} is smaller than {scale} times its reduced one, {width} x {height}")
    return Pair(key, lq, gt, small)


def _set5(root: Path, scale: int):
    large = _source(root, os.path.join("Set5", "HR"))
    return paired(_source(root, os.path.join("Set5", "LR_bicubic", f"X{scale}")), large, scale)
