"""Photographs of your own, reduced for training super-resolution.

Link, size, licence, citation: yours

It lies as a folder of clean images, with any folders inside:

    photos/0001.png      photos/holiday/0001.JPG

Prepared: train, with gt, cut to a multiple of 12 pixels, and lq_x2, lq_x3 and lq_x4, made from it by MATLAB's bicubic,
as the benchmarks of super-resolution are. What lies in folders inside is kept apart: holiday-0001.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

DATASET = Dataset(
    "photographs",
    "photographs",
    (Subset("train", (Layout("a folder", gt="{name:**}"),), None, "sr", ("lowres",), reduce=(2, 3, 4)),),
    __doc__,
)
