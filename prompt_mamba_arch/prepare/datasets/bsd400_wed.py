"""BSD400 and WED: the clean images on which the all-in-one literature trains denoising, and its test sets.

Links:     https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html (BSDS500)
           https://ece.uwaterloo.ca/~k29ma/exploration/ (WED), https://r0k.us/graphics/kodak/ (Kodak24)
           https://github.com/va1shn9v/PromptIR/blob/main/INSTALL.md and https://github.com/c-yn/AdaIR (all of them)
Size:      400 + 4744 training images; 68 (CBSD68), 100 (Urban100) and 24 (Kodak24) for testing
Licence:   non-commercial research and education (BSD); academic research (WED); Kodak24 is free to use
Citations: Martin et al., "A Database of Human Segmented Natural Images", ICCV 2001; Ma et al., "Waterloo Exploration
           Database", TIP 2017; Huang et al., "Single Image Super-Resolution from Transformed Self-Exemplars", CVPR 2015

Recognised are the folders that their archives make, wherever they lie, BSD400 as a folder of that name or as the
training and test images of BSDS500, and all together as PromptIR and AdaIR have them:

    BSD400/100075.jpg      or BSDS500/data/images/train/100075.jpg and images/test/100007.jpg
    exploration_database_and_code/pristine_images/00001.bmp
    CBSD68/101085.png      Urban100/img_001.png      Kodak24/kodim01.png
    data/Train/Denoise/00001.bmp, 100075.jpg      data/test/denoise/bsd68/101085.jpg, urban100/..., kodak24/...

Prepared: train, cbsd68, urban100 and kodak24, whole, with gt alone: the noise is drawn in training and testing
(PromptDegradationDataset).
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset


def _test(name: str, count: int, folder: str) -> Subset:
    layouts = (
        Layout("as it unpacks", gt=f"{folder}/{{:original_png/|HR/|original/|}}{{name}}"),
        Layout("PromptIR, AdaIR", gt=f"test/denoise/{name.removeprefix('c')}/{{name}}"),
    )
    return Subset(name, layouts, count, "denoise", ("noise",), split="test")


DATASET = Dataset(
    "bsd400-wed",
    "BSD400 and WED",
    (
        Subset(
            "train",
            (
                Layout(
                    "as they unpack",
                    gt="{set:BSD400|images/train|images/test|pristine_images}/{name}",
                    key="{name}",
                    merge=True,
                ),
                Layout("PromptIR, AdaIR", gt="Train/Denoise/{name}"),
            ),
            5144,
            "denoise",
            ("noise",),
        ),
        _test("cbsd68", 68, "CBSD68"),
        _test("urban100", 100, "Urban100"),
        _test("kodak24", 24, "Kodak24"),
    ),
    __doc__,
)
