"""GoPro: motion blur as the mean of frames of a fast camera, with the sharp middle frame.

Link:      https://seungjunnah.github.io/Datasets/gopro (GOPRO_Large.zip)
Size:      2103 training and 1111 test pairs of 1280x720, 8.9 GB
Licence:   CC BY 4.0
Citation:  Nah, Kim and Lee, "Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017

It unpacks as one folder for each film, whose frames have the same numbers in all of them:

    GOPRO_Large/train/GOPR0372_07_00/blur/000047.png      blur_gamma/000047.png      sharp/000047.png
    GOPRO_Large/test/GOPR0384_11_00/blur/000001.png       ...

Recognised as it lies, too: as MPRNet and Restormer (train/GoPro/input and target), NAFNet (train/input and target, or
train/blur_crops.lmdb and sharp_crops.lmdb, test/input.lmdb and target.lmdb), PromptIR and AdaIR (Train/Deblur/blur and
sharp, test/deblur/gopro/input and target) and DA-CLIP (train/motion-blurry/LQ and GT) have it.

Prepared: train (sub-images of 512 pixels, 256 apart, as NAFNet cuts them) and test (whole) with gt, lq and, where it is
there, lq_gamma, the blur in linear light. A frame is called GOPR0372_07_00-000047.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Crop, Dataset, Layout, Subset


def official(part: str) -> Layout:
    scene = f"{part}/{{scene:GOPR[^/]*}}"
    files = {
        "gt": f"{scene}/sharp/{{name}}",
        "lq": f"{scene}/blur/{{name}}",
        "lq_gamma": f"{scene}/blur_gamma/{{name}}",
    }
    return Layout("as it unpacks", files, optional=["lq_gamma"])


TRAIN = (
    official("train"),
    Layout("MPRNet, Restormer, NAFNet", gt="train/{:GoPro/|}target/{name}", lq="train/{:GoPro/|}input/{name}"),
    Layout("NAFNet's LMDBs", gt="train/sharp_crops.lmdb/{name}", lq="train/blur_crops.lmdb/{name}", cut=True),
    Layout("PromptIR, AdaIR", gt="Train/Deblur/sharp/{name}", lq="Train/Deblur/blur/{name}"),
    Layout("DA-CLIP", gt="train/motion-blurry/GT/{name}", lq="train/motion-blurry/LQ/{name}"),
)
TEST = (
    official("test"),
    Layout("MPRNet, Restormer", gt="test/{:GoPro/|}target/{name}", lq="test/{:GoPro/|}input/{name}"),
    Layout("NAFNet's LMDBs", gt="test/target.lmdb/{name}", lq="test/input.lmdb/{name}"),
    Layout("PromptIR, AdaIR", gt="test/deblur/gopro/target/{name}", lq="test/deblur/gopro/input/{name}"),
    Layout("DA-CLIP", gt="val/motion-blurry/GT/{name}", lq="val/motion-blurry/LQ/{name}"),
)

DATASET = Dataset(
    "gopro",
    "GoPro",
    (
        Subset(
            "train",
            TRAIN,
            {layout.name: 2103 for layout in TRAIN if not layout.cut},
            "deblur",
            ("motion",),
            crop=Crop(512, 256),
        ),
        Subset("test", TEST, 1111, "deblur", ("motion",), split="test"),
    ),
    __doc__,
)
