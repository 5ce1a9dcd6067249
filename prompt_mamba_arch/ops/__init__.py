"""Selective scans, and a fast linear map. Tensors in, tensors out; no layers here."""

from __future__ import annotations

from prompt_mamba_arch.ops import allocator
from prompt_mamba_arch.ops.interface import A_FORMS, available_backends, selective_scan, selective_scan_2d
from prompt_mamba_arch.ops.linear_map import linear
from prompt_mamba_arch.ops.order import DIRECTIONS, scan_order, sort_order
from prompt_mamba_arch.ops.record import recorded_scans

__all__ = [
    "A_FORMS",
    "DIRECTIONS",
    "available_backends",
    "linear",
    "recorded_scans",
    "scan_order",
    "selective_scan",
    "selective_scan_2d",
    "sort_order",
]

allocator.keep_freed_blocks()
