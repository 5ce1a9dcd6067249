"""In which half-precision type a device computes faster than in float32."""

from __future__ import annotations

import torch

__all__ = ["crawls_in_bfloat16", "half_type"]


def half_type(device: torch.device) -> torch.dtype | None:
    """None where half precision gains nothing; processors without the instructions take many times as long."""
    if device.type == "cuda":  # tensor cores; of the two types, float16 is the more exact
        return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else None
    if device.type == "cpu":
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch gives no public names to these
        able = any(getattr(torch.cpu, name, bool)() for name in names)
        return torch.bfloat16 if able else None
    return None


def crawls_in_bfloat16(device: torch.device) -> bool:
    """Whether it is a processor without instructions for it, where torch multiplies bfloat16 in plain loops."""
    return device.type == "cpu" and half_type(device) is None
