"""DIV2K: 1000 photographs of 2K resolution, with low-resolution versions.

Link:      https://data.vision.ee.ethz.ch/cvl/DIV2K/
Size:      800 training and 100 validation images; HR 3.3 + 0.4 GB, each LR archive 0.2 to 1.4 GB
Licence:   academic research only; the images belong to their photographers
Citation:  Agustsson and Timofte, "NTIRE 2017 Challenge on Single Image Super-Resolution: Dataset and Study", CVPRW 2017

The archives unpack side by side; those for LR are optional, each by itself:

    DIV2K_train_HR/0001.png ... 0800.png
    DIV2K_train_LR_bicubic/X2/0001x2.png      X3/0001x3.png      X4/0001x4.png
    DIV2K_train_LR_unknown/X2/0001x2.png      ...
    DIV2K_valid_HR/0801.png ... 0900.png
    DIV2K_valid_LR_bicubic/X2/0801x2.png      ...

Prepared: train (sub-images of 480 pixels, 240 apart, as BasicSR cuts them) and valid (whole), each with gt, lq_x2,
lq_x3, lq_x4, lq_unknown_x2, lq_unknown_x3 and lq_unknown_x4; all of one image have one name.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Crop, Dataset, Layout, Subset

SCALES = {f"lq_{kind}x{scale}": scale for kind in ("", "unknown_") for scale in (2, 3, 4)}


def low_resolution(folder: str) -> dict[str, str]:
    """Role -> pattern of the LR archives of DIV2K and Flickr2K; `folder` ends before the kind."""
    kinds = {"": "bicubic", "unknown_": "unknown"}
    return {f"lq_{kind}x{s}": f"{folder}{kinds[kind]}/X{s}/{{name}}x{s}" for kind in kinds for s in (2, 3, 4)}


def _subset(part: str, count: int, **more) -> Subset:
    files = {"gt": f"DIV2K_{part}_HR/{{name}}", **low_resolution(f"DIV2K_{part}_LR_")}
    layout = Layout("as it unpacks", files, optional=SCALES)
    return Subset(part, (layout,), count, "sr", ("lowres",), scales=SCALES, **more)


DATASET = Dataset(
    "div2k",
    "DIV2K",
    (_subset("train", 800, crop=Crop(480, 240)), _subset("valid", 100, split="val")),
    __doc__,
)
