"""LOL: photographs in low light and with enough of it. Version 1; version 2, real and synthetic.

Links:     https://daooshee.github.io/BMVC2018website/ (v1), https://github.com/flyywh/CVPR-2020-Semi-Low-Light (v2)
Size:      485 + 15 pairs (v1), 689 + 100 (v2, real), 900 + 100 (v2, synthetic)
Licence:   none is stated; published for research
Citations: Wei et al., "Deep Retinex Decomposition for Low-Light Enhancement", BMVC 2018; Yang et al., "Sparse Gradient
           Regularized Deep Retinex Network for Robust Low-Light Image Enhancement", TIP 2021

They unpack as

    LOLdataset/our485/low/2.png                      our485/high/2.png      eval15/low/1.png      eval15/high/1.png
    LOL-v2/Real_captured/Train/Low/low00001.png      Train/Normal/normal00001.png      Test/...
    LOL-v2/Synthetic/Train/Low/r000da54ft.png        Train/Normal/r000da54ft.png       Test/...

Recognised as it lies, too: version 1 as AdaIR has it (Train/Enhance/low and gt, test/enhance/lol/input and target) and
as DA-CLIP has it (train/low-light/LQ and GT).

Prepared: v1/train, v1/test, v2_real/train, v2_real/test, v2_synthetic/train and v2_synthetic/test, whole, with gt
and lq.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset


def _subset(name: str, count: int, *layouts: Layout) -> Subset:
    return Subset(name, layouts, count, "lowlight", ("lowlight",), split=name.rpartition("/")[2])


DATASET = Dataset(
    "lol",
    "LOL",
    (
        _subset(
            "v1/train",
            485,
            Layout("as it unpacks", gt="our485/high/{name}", lq="our485/low/{name}"),
            Layout("AdaIR", gt="Train/Enhance/gt/{name}", lq="Train/Enhance/low/{name}"),
            Layout("DA-CLIP", gt="train/low-light/GT/{name}", lq="train/low-light/LQ/{name}"),
        ),
        _subset(
            "v1/test",
            15,
            Layout("as it unpacks", gt="eval15/high/{name}", lq="eval15/low/{name}"),
            Layout("AdaIR", gt="test/enhance/lol/target/{name}", lq="test/enhance/lol/input/{name}"),
            Layout("DA-CLIP", gt="val/low-light/GT/{name}", lq="val/low-light/LQ/{name}"),
        ),
        *(
            _subset(
                f"{name}/{part.lower()}",
                count,
                Layout(
                    "as it unpacks", gt=f"{folder}/{part}/Normal/{gt}{{name}}", lq=f"{folder}/{part}/Low/{lq}{{name}}"
                ),
            )
            for name, folder, part, count, gt, lq in (
                ("v2_real", "Real_captured", "Train", 689, "normal", "low"),
                ("v2_real", "Real_captured", "Test", 100, "normal", "low"),
                ("v2_synthetic", "Synthetic", "Train", 900, "", ""),
                ("v2_synthetic", "Synthetic", "Test", 100, "", ""),
            )
        ),
    ),
    __doc__,
)
