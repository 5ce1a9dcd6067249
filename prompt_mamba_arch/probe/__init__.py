"""How well networks do what they are asked: a benchmark of requests over a folder of clean images.

`cases` says what is asked of an image, `measure` does it and measures, `report` writes tables, `sheet` pictures.
"""

from __future__ import annotations

from prompt_mamba_arch.probe.measure import Probe, probe
from prompt_mamba_arch.probe.report import summary, write_report
from prompt_mamba_arch.probe.sheet import draw_sheets

__all__ = ["Probe", "draw_sheets", "probe", "summary", "write_report"]
