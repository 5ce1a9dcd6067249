"""Methods beside each other: the same pixels, the same metrics, what each was told, and what each costs."""

from __future__ import annotations

from prompt_mamba_arch.compare.options import Plan, read_plan
from prompt_mamba_arch.compare.run import Comparison, compare
from prompt_mamba_arch.compare.write import write_comparison

__all__ = ["Comparison", "Plan", "compare", "read_plan", "write_comparison"]
