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

    python scripts/data_preparation/gopro.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare gopro`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "gopro", *sys.argv[1:]]))
