"""Selective scans. Tensors in, tensors out; no layers here."""

from __future__ import annotations

from prompt_mamba_arch.ops.order import DIRECTIONS, scan_order
from prompt_mamba_arch.ops.selective_scan import available_backends, selective_scan, selective_scan_2d

__all__ = ["DIRECTIONS", "available_backends", "scan_order", "selective_scan", "selective_scan_2d"]
