"""What is measured on which public test sets: one function a set, each a list of tasks with their pixels fixed.

Everything is rounded to 8 bits as a file is: what the network gets, and what it gives.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from prompt_mamba_arch.data import ImageSource
from prompt_mamba_arch.data.degradations import resize
from prompt_mamba_arch.errors import UserError

__all__ = ["SETS", "Bar", "Missing", "Pair", "Task", "psnr"]


class Missing(Exception):
    """A set is not there; the text is its folder."""


class Pair(NamedTuple):
    """(H, W, 3) uint8 RGB both: what is given, and what should come out."""

    key: str
    lq: np.ndarray
    gt: np.ndarray


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
        references: name -> another way from `lq` to a result.
    """

    name: str
    prompt: str
    pairs: Callable[[int | None], Iterator[Pair]]
    bar: Bar | None = None
    luma: bool = False
    border: int = 0
    references: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {}


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
            _made(root, "CBSD68", functools.partial(_noisy, sigma=sigma)),
            Bar(psnr=bar, blind=0.15),
            references={
                "non-local means": functools.partial(_non_local_means, h=0.7 * sigma),
                "total variation": functools.partial(_total_variation, weight=0.8 * sigma / 255),
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
            _made(root, "LIVE1", functools.partial(_compressed, quality=quality)),
            Bar(gain=bar),
            references={"total variation": functools.partial(_total_variation, weight=weight)},
        )
        for quality, bar, weight in ((10, 1.2, 0.03), (20, 1.2, 0.02), (40, 1.0, 0.01))
    ]


def blur(root: Path) -> list[Task]:
    """CBSD68 blurred by a Gaussian of sigma 1.6, then noise of sigma 2, clipped, rounded."""
    return [
        Task(
            "CBSD68, blur of sigma 1.6 and noise of sigma 2",
            "remove the blur and the noise",
            _made(root, "CBSD68", _blurred),
            Bar(gain=2.0),
            references={"Wiener, kernel known": _wiener},
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
        )
        for scale, bar in ((2, 2.0), (4, 1.2))
    ]


def rain(root: Path) -> list[Task]:
    """Pairs of Rain100L."""
    pairs = _paired(root, "Rain100L_sample", "input", "target")
    return [Task("Rain100L, sample", "remove the rain", pairs, Bar(gain=0.0))]


def haze(root: Path) -> list[Task]:
    """Pairs of SOTS outdoor."""
    pairs = _paired(root, "SOTS_outdoor_sample", "hazy", "clear")
    return [Task("SOTS outdoor, sample", "remove the haze", pairs, Bar(gain=0.0))]


def real_noise(root: Path) -> list[Task]:
    """Photographs of cameras, and the mean of many exposures."""
    return [Task("CC15, real noise", "remove the noise", _paired(root, "CC15_part", "noisy", "clean"))]


def real_noise_jpeg(root: Path) -> list[Task]:
    """The same, after the camera's compression."""
    return [Task("PolyU, real noise", "remove the noise", _paired(root, "PolyU_part", "noisy", "clean"))]


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


def _noisy(image: np.ndarray, index: int, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(index).normal(0, sigma, image.shape)
    return _to_uint8(image + noise)


def _compressed(image: np.ndarray, index: int, quality: int) -> np.ndarray:
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def _blurred(image: np.ndarray, index: int) -> np.ndarray:
    soft = cv2.filter2D(image.astype(np.float64), -1, _kernel(), borderType=cv2.BORDER_REFLECT)
    return _to_uint8(soft + np.random.default_rng(index).normal(0, 2, image.shape))


def _kernel() -> np.ndarray:
    """(13, 13) Gaussian of sigma 1.6; four sigmas to each side."""
    line = cv2.getGaussianKernel(13, 1.6)
    return line @ line.T


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 255).round().astype(np.uint8)


def _source(root: Path, name: str) -> ImageSource:
    folder = root / name
    if not folder.is_dir():
        raise Missing(name)
    return ImageSource(folder, label=name)


def _read(source: ImageSource, key: str) -> np.ndarray:
    image = source.read(key)
    if image.dtype != np.uint8:
        raise UserError(f"image '{key}' ({source.path(key)}) must have 8 bits per channel")
    return image


def _made(root: Path, name: str, degrade: Callable[[np.ndarray, int], np.ndarray]):
    """Pairs of clean images and what `degrade(image, index in sorted order)` makes of them."""
    source = _source(root, name)

    def pairs(limit: int | None = None) -> Iterator[Pair]:
        for index, key in enumerate(source.keys[:limit]):
            image = _read(source, key)
            yield Pair(key, degrade(image, index), image)

    return pairs


def _paired(root: Path, name: str, degraded: str, clean: str):
    """Pairs of files; the degraded one's name may say more, after an underscore."""
    lq, gt = _source(root, os.path.join(name, degraded)), _source(root, os.path.join(name, clean))

    def pairs(limit: int | None = None) -> Iterator[Pair]:
        for key in lq.keys[:limit]:
            other = key if key in gt else key.split("_")[0]
            pair = Pair(key, _read(lq, key), _read(gt, other))
            if pair.lq.shape != pair.gt.shape:
                raise UserError(f"{lq.path(key)} and {gt.path(other)} differ in size")
            yield pair

    return pairs


def _set5(root: Path, scale: int):
    large = _source(root, os.path.join("Set5", "HR"))
    small = _source(root, os.path.join("Set5", "LR_bicubic", f"X{scale}"))

    def pairs(limit: int | None = None) -> Iterator[Pair]:
        for key in large.keys[:limit]:
            reduced = _read(small, f"{key}x{scale}")
            height, width = (side * scale for side in reduced.shape[:2])
            enlarged = resize(reduced.astype(np.float64), height, width, "bicubic")
            # benchmarks cut the original to a multiple of the scale before it is reduced
            yield Pair(key, _to_uint8(enlarged), np.ascontiguousarray(_read(large, key)[:height, :width]))

    return pairs


# -- other ways. Their parameters were chosen on three photographs of scikit-image, knowing what was done to them.


def _non_local_means(image: np.ndarray, h: float) -> np.ndarray:
    return cv2.fastNlMeansDenoisingColored(image, None, h, h, 7, 21)  # alike in BGR and RGB but for rounding


def _total_variation(image: np.ndarray, weight: float) -> np.ndarray:
    from skimage.restoration import denoise_tv_chambolle

    return _to_uint8(255 * denoise_tv_chambolle(image / 255, weight=weight, channel_axis=-1))


def _wiener(image: np.ndarray) -> np.ndarray:
    from skimage.restoration import wiener

    margin = 24  # the filter is circular
    wide = np.pad(image / 255, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    channels = [wiener(wide[..., c], _kernel(), 0.003, clip=False) for c in range(3)]
    return _to_uint8(255 * np.stack(channels, axis=-1)[margin:-margin, margin:-margin])
