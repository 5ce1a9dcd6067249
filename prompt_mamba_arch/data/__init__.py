"""Datasets, and what they are made of. The modules named `*_dataset.py` register with BasicSR."""

from __future__ import annotations

from prompt_mamba_arch.data.image_source import ImageSource, decode, to_float, to_tensor

__all__ = ["ImageSource", "decode", "to_float", "to_tensor"]
