"""Pairs: a folder of your own, with clean and degraded images of equal names, or with clean ones alone.

Link, size, licence, citation: yours

It lies as two folders, with any folders inside, equal ones in both. The clean images' folder may be called gt, hq, hr,
target, sharp, clean, clear, high, normal or groundtruth; the degraded images' lq, lr, input, blur, blurry, noisy, hazy,
rainy, low, degraded or source:

    mine/gt/holiday/0001.png      mine/lq/holiday/0001.JPG

Prepared: train, whole, with gt and lq (or gt alone). `--task denoise` (deblur, dejpeg, sr, derain, dehaze, lowlight,
inpaint) writes the prompt file; `--crop 480:240` cuts sub-images. What lies in folders of equal names inside is kept
apart: holiday-0001.

    python scripts/data_preparation/pairs.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare pairs`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "pairs", *sys.argv[1:]]))
