"""SIDD-Medium: real noise of smartphones, with clean images from many exposures.

Link:      https://www.eecs.yorku.ca/~kamel/sidd/dataset.php (SIDD_Medium_Srgb.zip)
           https://www.eecs.yorku.ca/~kamel/sidd/benchmark.php (the validation blocks, two .mat files)
Size:      320 training pairs of 12 to 16 megapixels, 12 GB; 1280 validation blocks of 256x256
Licence:   MIT, as its page says
Citation:  Abdelhamed, Lin and Brown, "A High-Quality Denoising Dataset for Smartphone Cameras", CVPR 2018

It unpacks as one folder for each scene; the blocks of the validation set are arrays (40, 32, 256, 256, 3):

    SIDD_Medium_Srgb/Data/0001_001_S6_00100_00060_3200_L/0001_NOISY_SRGB_010.PNG      0001_GT_SRGB_010.PNG
    ValidationNoisyBlocksSrgb.mat      ValidationGtBlocksSrgb.mat

Recognised as it lies, too: as NAFNet has it (train/input_crops.lmdb and gt_crops.lmdb, val/input_crops.lmdb and
gt_crops.lmdb).

Prepared: train (sub-images of 512 pixels, 384 apart, as NAFNet cuts them) and val (blocks) with gt and lq.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Crop, Dataset, Layout, Subset

DATASET = Dataset(
    "sidd",
    "SIDD-Medium",
    (
        Subset(
            "train",
            (
                Layout(
                    "as it unpacks",
                    gt="Data/{scene}/{shot}_GT_SRGB_{number}",
                    lq="Data/{scene}/{shot}_NOISY_SRGB_{number}",
                    key="{shot}_SRGB_{number}",
                ),
                Layout("NAFNet's LMDBs", gt="train/gt_crops.lmdb/{name}", lq="train/input_crops.lmdb/{name}", cut=True),
            ),
            {"as it unpacks": 320},
            "denoise",
            ("noise",),
            crop=Crop(512, 384),
        ),
        Subset(
            "val",
            (
                Layout(
                    "as it unpacks", gt="ValidationGtBlocksSrgb.mat/{name}", lq="ValidationNoisyBlocksSrgb.mat/{name}"
                ),
                Layout("NAFNet's LMDBs", gt="val/gt_crops.lmdb/{name}", lq="val/input_crops.lmdb/{name}"),
            ),
            1280,
            "denoise",
            ("noise",),
            split="val",
        ),
    ),
    __doc__,
)
