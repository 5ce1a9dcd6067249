"""In which half-precision type a device computes faster than in float32."""

from __future__ import annotations

import torch

__all__ = ["half_type"]


def half_type(device: torch.device) -> torch.dtype | None:
    """None where half precision gains nothing; processors without the instructions take many times as long."""
    if device.type == "cuda":  # tensor cores; of the two types, float16 is the more exact
        return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else None
    if device.type == "cpu":
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch gives no public names to these
        able = any(getattr(torch.cpu, name, bool)() for name in names)
        return torch.bfloat16 if able else None
    return None
