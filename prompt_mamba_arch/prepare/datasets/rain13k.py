"""Rain13K: the union of synthetic rain datasets on which MPRNet and Restormer train, and their five test sets.

Link:      https://github.com/swz30/MPRNet (Deraining) and https://github.com/swz30/Restormer (Deraining)
Size:      13 712 training pairs; 100 (Test100), 100 (Rain100H), 100 (Rain100L), 2800 (Test2800), 1200 (Test1200)
Licence:   none is stated; it is made of several datasets
Citation:  Zamir et al., "Multi-Stage Progressive Image Restoration", CVPR 2021, and the datasets that it names

It unpacks as folders of equal names:

    train/Rain13K/input/1.jpg       train/Rain13K/target/1.jpg
    test/Rain100H/input/1.png       test/Rain100H/target/1.png      Rain100L, Test100, Test1200, Test2800 alike

Prepared: train, test100, rain100h, rain100l, test2800 and test1200, whole, with gt and lq.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

TESTS = {"Test100": 100, "Rain100H": 100, "Rain100L": 100, "Test2800": 2800, "Test1200": 1200}


def _layout(folder: str) -> Layout:
    return Layout("MPRNet, Restormer", gt=f"{folder}/target/{{name}}", lq=f"{folder}/input/{{name}}")


DATASET = Dataset(
    "rain13k",
    "Rain13K",
    (
        Subset("train", (_layout("Rain13K"), _layout("train")), 13_712, "derain", ("rain",)),
        *(
            Subset(name.lower(), (_layout(name),), count, "derain", ("rain",), split="test")
            for name, count in TESTS.items()
        ),
    ),
    __doc__,
)
