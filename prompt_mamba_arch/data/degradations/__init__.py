"""Degradations whose draw and application are separate, so that one draw can be rendered with any part left out."""

from __future__ import annotations

from prompt_mamba_arch.data.degradations.recipe import (
    DEGRADATIONS,
    PHYSICAL_ORDER,
    check_kinds,
    check_ranges,
    check_recipe,
    kinds_of,
    sample_recipe,
    sample_step,
    severity,
    severity_word,
)
from prompt_mamba_arch.data.degradations.render import every_target, render, render_pair
from prompt_mamba_arch.data.degradations.resample import matlab_downscale, resize

__all__ = [
    "DEGRADATIONS",
    "PHYSICAL_ORDER",
    "check_kinds",
    "check_ranges",
    "check_recipe",
    "every_target",
    "kinds_of",
    "matlab_downscale",
    "render",
    "render_pair",
    "resize",
    "sample_recipe",
    "sample_step",
    "severity",
    "severity_word",
]
