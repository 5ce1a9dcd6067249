"""Flickr2K: 2650 photographs of 2K resolution, with low-resolution versions.

Link:      https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar
Size:      2650 images, 20 GB with the LR versions
Licence:   none is stated; the photographs are from Flickr, under their authors' terms
Citation:  Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017;
           Timofte et al., "NTIRE 2017 Challenge on Single Image Super-Resolution: Methods and Results", CVPRW 2017

It unpacks as

    Flickr2K/Flickr2K_HR/000001.png ... 002650.png
    Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png      X3/000001x3.png      X4/000001x4.png
    Flickr2K/Flickr2K_LR_unknown/X2/000001x2.png      ...

Prepared: train (sub-images of 480 pixels, 240 apart) with gt, lq_x2, lq_x3, lq_x4, lq_unknown_x2 ... as DIV2K.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.datasets.div2k import SCALES, low_resolution
from prompt_mamba_arch.prepare.spec import Crop, Dataset, Layout, Subset

DATASET = Dataset(
    "flickr2k",
    "Flickr2K",
    (
        Subset(
            "train",
            (
                Layout(
                    "as it unpacks",
                    {"gt": "Flickr2K_HR/{name}", **low_resolution("Flickr2K_LR_")},
                    optional=SCALES,
                ),
            ),
            2650,
            "sr",
            ("lowres",),
            scales=SCALES,
            crop=Crop(480, 240),
        ),
    ),
    __doc__,
)
