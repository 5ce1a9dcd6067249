"""Images as BasicSR hands them to metrics."""

from __future__ import annotations

import numpy as np
import torch

from prompt_mamba_arch.errors import UserError

__all__ = ["check_pair", "device_name", "to_rgb"]


def to_rgb(image: np.ndarray, crop_border: int, input_order: str, metric: str) -> torch.Tensor:
    """`(1, 3, H, W)` float32 RGB, 0 to 255.

    Args:
        image: `(H, W, 3)` BGR, or gray `(H, W)` or `(H, W, 1)`; values from 0 to 255.
        crop_border: pixels to cut off at each edge.
        input_order: HWC or CHW.
        metric: its name, for messages.
    """
    if input_order not in ("HWC", "CHW"):
        raise UserError(f"metric {metric}: input_order must be HWC or CHW, not {input_order!r}")
    if image.ndim == 2:
        image = image[..., None]
    elif input_order == "CHW":
        image = image.transpose(1, 2, 0)
    if crop_border:
        image = image[crop_border:-crop_border, crop_border:-crop_border]
    if image.shape[2] == 1:
        image = image.repeat(3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1), dtype=np.float32))[None]


def check_pair(a: torch.Tensor, b: torch.Tensor, metric: str) -> None:
    if a.shape != b.shape:
        sizes = " and ".join(f"{image.shape[3]}x{image.shape[2]}" for image in (a, b))
        raise UserError(f"metric {metric}: the images differ in size, {sizes}")


def device_name(device: str) -> str:
    """`auto` is the GPU if there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
