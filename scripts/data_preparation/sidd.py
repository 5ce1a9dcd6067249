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

    python scripts/data_preparation/sidd.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare sidd`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "sidd", *sys.argv[1:]]))
