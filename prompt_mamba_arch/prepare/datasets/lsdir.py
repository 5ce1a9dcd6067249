"""LSDIR: a large-scale dataset for image restoration, with low-resolution versions.

Link:      https://ofsoundof.github.io/lsdir-data/ and https://huggingface.co/ofsoundof/LSDIR
Size:      84 991 training images in 17 shards, numbered folders of 1000
Licence:   academic research only; the images belong to their photographers
Citation:  Li et al., "LSDIR: A Large Scale Dataset for Image Restoration", CVPRW 2023

The shards unpack into numbered folders, HR and LR in trees of their own (any names above the numbered folders will do):

    HR/train/0001000/0000001.png ... 0000999.png      HR/train/0002000/...
    X4/train/0001000/0000001x4.png                    X2 and X3 alike, if they were downloaded
    train_X4.json      [{"path_gt": "HR/train/0001000/0000001.png", "path_lq": "X4/train/0001000/0000001x4.png"}, ...]
    val1/HR/val/0000001.png      val1/X4/val/0000001x4.png

Where train_X4.json is there, what it lists is used and what it lists without being there is told; else all images are.

Prepared: train and val, whole, with gt and lq_x2, lq_x3, lq_x4. `--crop 480:240` cuts sub-images for training.
"""

from __future__ import annotations

import json

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

SCALES = {f"lq_x{scale}": scale for scale in (2, 3, 4)}


def read_json(text: str) -> list[str]:
    return [pair["path_gt"] for pair in json.loads(text)]


def _files(folder: str, *, low: str = "") -> dict[str, str]:
    """Role -> pattern; numbers alone are HR, so what is above the numbered folders does not matter."""
    gt = f"{low and 'HR/'}{folder}/{{name:[0-9]+}}"
    return {"gt": gt, **{role: f"{low and f'X{s}/'}{folder}/{{name:[0-9]+}}x{s}" for role, s in SCALES.items()}}


DATASET = Dataset(
    "lsdir",
    "LSDIR",
    (
        Subset(
            "train",
            (
                Layout(
                    "as it unpacks",
                    _files("{folder:[0-9]+}"),
                    optional=SCALES,
                    key="{name}",
                    listed_in="train_X4.json",
                    read_list=read_json,
                    list_needed=False,
                ),
            ),
            84_991,
            "sr",
            ("lowres",),
            scales=SCALES,
        ),
        Subset(
            "val",
            (Layout("as it unpacks", _files("val", low="yes"), optional=SCALES),),
            None,
            "sr",
            ("lowres",),
            split="val",
            scales=SCALES,
        ),
    ),
    __doc__,
)
