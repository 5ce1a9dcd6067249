"""HIDE: motion blur with people, close and far.

Link:      https://github.com/joanshen0508/HA_deblur (HIDE_dataset.zip)
Size:      6397 training and 2025 test pairs of 1280x720
Licence:   none is stated
Citation:  Shen et al., "Human-Aware Motion Deblurring", ICCV 2019

It unpacks as blurred images in three folders and all sharp ones in one:

    HIDE_dataset/train/1fromGOPR0950.png
    HIDE_dataset/test/test-close-ups/6fromGOPR1089.png      test/test-long-shot/1fromGOPR1089.png
    HIDE_dataset/GT/1fromGOPR0950.png

Recognised as it lies, too: the test set as MPRNet and Restormer have it (test/HIDE/input and target).

Prepared: train (sub-images of 512 pixels, 256 apart) and test (whole) with gt and lq.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Crop, Dataset, Layout, Subset

DATASET = Dataset(
    "hide",
    "HIDE",
    (
        Subset(
            "train",
            (Layout("as it unpacks", gt="GT/{name}", lq="train/{name}", spare_gt=True),),
            6397,
            "deblur",
            ("motion",),
            crop=Crop(512, 256),
        ),
        Subset(
            "test",
            (
                Layout(
                    "as it unpacks",
                    gt="GT/{name}",
                    lq="test/{shot:test-close-ups|test-long-shot}/{name}",
                    key="{name}",
                    spare_gt=True,
                ),
                Layout("MPRNet, Restormer", gt="test/HIDE/target/{name}", lq="test/HIDE/input/{name}"),
            ),
            2025,
            "deblur",
            ("motion",),
            split="test",
        ),
    ),
    __doc__,
)
