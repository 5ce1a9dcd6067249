"""Pairs: a folder of your own, with clean and degraded images of equal names, or with clean ones alone.

Link, size, licence, citation: yours

It lies as two folders, with any folders inside, equal ones in both. The clean images' folder may be called gt, hq, hr,
target, sharp, clean, clear, high, normal or groundtruth; the degraded images' lq, lr, input, blur, blurry, noisy, hazy,
rainy, low, degraded or source:

    mine/gt/holiday/0001.png      mine/lq/holiday/0001.JPG

Prepared: train, whole, with gt and lq (or gt alone). `--task denoise` (deblur, dejpeg, sr, derain, dehaze, lowlight,
inpaint) writes the prompt file; `--crop 480:240` cuts sub-images. What lies in folders of equal names inside is kept
apart: holiday-0001.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

CLEAN = "{:gt|hq|hr|target|sharp|clean|clear|high|normal|groundtruth}"
DEGRADED = "{:lq|lr|input|blur|blurry|noisy|hazy|rainy|low|degraded|source}"

DATASET = Dataset(
    "pairs",
    "pairs",
    (
        Subset(
            "train",
            (Layout("two folders", gt=f"{CLEAN}/{{name:**}}", lq=f"{DEGRADED}/{{name:**}}", optional=["lq"]),),
        ),
    ),
    __doc__,
)
