"""Datasets, and what they are made of. The modules named `*_dataset.py` register with BasicSR."""

from __future__ import annotations

from prompt_mamba_arch.data.degradations import (
    check_recipe,
    every_target,
    render,
    sample_recipe,
    severity,
    severity_word,
)
from prompt_mamba_arch.data.image_source import ImageSource, decode, to_float, to_tensor
from prompt_mamba_arch.data.kinds import KINDS

__all__ = [
    "KINDS",
    "ImageSource",
    "check_recipe",
    "decode",
    "every_target",
    "render",
    "sample_recipe",
    "severity",
    "severity_word",
    "to_float",
    "to_tensor",
]
