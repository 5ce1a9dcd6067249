"""FID, the distance between two sets of images (Heusel et al. 2017), with pyiqa's network and clean-fid's resizing.

    fid: {type: calculate_fid, better: lower}

A metric of a whole set: `calculate_fid` gives what is kept of one pair, `calculate_fid.of_set` the number of all of
them. Validation and `prompt-mamba compare` know such metrics by their `of_set`. Below some thousand images it says
little, as the features have 2048 numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY
from PIL import Image
from scipy import linalg

from prompt_mamba_arch.errors import check_keys
from prompt_mamba_arch.metrics import iqa
from prompt_mamba_arch.metrics.image import device_name, to_rgb

__all__ = ["calculate_fid", "frechet_distance"]

_SIDE = 299  # pixels, what Inception v3 was trained on


@METRIC_REGISTRY.register()
def calculate_fid(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int = 0,
    input_order: str = "HWC",
    device: str = "auto",
    **other: object,
) -> np.ndarray:
    """(2, features): Inception's features of a result and of the truth.

    Raises:
        UserError: an unknown option, or no weights to be had.
    """
    check_keys(other, ("crop_border", "input_order", "device", "better"), "metric calculate_fid")
    device = device_name(device)
    both = torch.cat([_resized(to_rgb(image, crop_border, input_order, "calculate_fid")) for image in (img, img2)])
    return _features(both.to(device), device)


def of_set(pairs: Sequence[np.ndarray]) -> float:
    """The distance of all results to all truths; nan for less than two."""
    if len(pairs) < 2:
        return float("nan")
    results, truths = (np.asarray([pair[side] for pair in pairs], np.float64) for side in (0, 1))
    return frechet_distance(results, truths)


calculate_fid.of_set = of_set


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between the Gaussians of two sets of features, (images, features) both."""
    means, covariances = zip(*((x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (a, b)))
    # the trace of the root of a product of two symmetric matrices is that of its eigenvalues' roots
    eigenvalues = linalg.eigvals(covariances[0] @ covariances[1])
    root = np.sqrt(np.maximum(eigenvalues.real, 0)).sum()
    distance = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root
    return float(max(distance, 0.0))


def _features(images: torch.Tensor, device: str) -> np.ndarray:
    """(B, 3, 299, 299) RGB, 0 to 255 -> (B, 2048)."""
    network = iqa.pyiqa_network("fid", device).net.model
    with torch.no_grad():
        return network((images - 128) / 128, False, False)[0].flatten(1).cpu().numpy()


def _resized(image: torch.Tensor) -> torch.Tensor:
    """(1, 3, H, W) -> (1, 3, 299, 299); bicubic with antialiasing, not rounded (Parmar et al. 2022)."""
    planes = [Image.fromarray(plane).resize((_SIDE, _SIDE), Image.BICUBIC) for plane in image[0].numpy()]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]).clip(0, 255))[None]
