"""The score of the perceptual track of image super-resolution x4: six metrics, blended.

1 - LPIPS + 1 - DISTS + CLIP-IQA + MANIQA + MUSIQ / 100 + max(0, (10 - NIQE) / 10), each the mean over the images
(README of NTIRE2026_ImageSR_x4). The organisers take pyiqa's networks, as it does without further options; so does
this.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.metrics import iqa
from prompt_mamba_arch.metrics.lpips import calculate_lpips

__all__ = ["METRICS", "PerceptualScore"]


def _niqe(image: np.ndarray, device: str) -> float:
    return iqa.calculate_pyiqa_blind(image, metric="niqe", device=device)


# name -> what computes it of (H, W, 3) uint8 BGR images, and whether it compares with the truth
METRICS: dict[str, tuple[Callable[..., float], bool]] = {
    "LPIPS": (calculate_lpips, True),
    "DISTS": (iqa.calculate_dists, True),
    "CLIP-IQA": (iqa.calculate_clipiqa, False),
    "MANIQA": (iqa.calculate_maniqa, False),
    "MUSIQ": (iqa.calculate_musiq, False),
    "NIQE": (_niqe, False),
}


class PerceptualScore:
    """Collects the metrics of images, one by one.

    Attributes:
        missing: metric -> why it cannot be computed here. Metrics need trained weights, which pyiqa fetches once.
    """

    def __init__(self, device: str = "auto"):
        self._device = device
        self._sums = dict.fromkeys(METRICS, 0.0)
        self._images = 0
        self.missing: dict[str, str] = {}

    def add(self, restored: np.ndarray, target: np.ndarray) -> None:
        """Both (H, W, 3) uint8 BGR, of one size."""
        self._images += 1
        for name, (compute, compares) in METRICS.items():
            if name in self.missing:
                continue
            try:
                images = (restored, target) if compares else (restored,)
                self._sums[name] += compute(*images, device=self._device)
            except UserError as error:
                self.missing[name] = str(error)

    def means(self) -> dict[str, float]:
        """Of the metrics that could be computed of all images."""
        return {name: total / self._images for name, total in self._sums.items() if name not in self.missing}

    def score(self) -> float | None:
        """Higher is better; None where a metric is missing."""
        if self.missing or not self._images:
            return None
        m = self.means()
        return (
            (1 - m["LPIPS"])
            + (1 - m["DISTS"])
            + m["CLIP-IQA"]
            + m["MANIQA"]
            + m["MUSIQ"] / 100
            + max(0.0, (10 - m["NIQE"]) / 10)
        )
