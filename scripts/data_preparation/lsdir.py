"""LSDIR: a large-scale dataset for image restoration, with low-resolution versions.

Link:      https://ofsoundof.github.io/lsdir-data/ and https://huggingface.co/ofsoundof/LSDIR
Size:      84 991 training images in 17 shards, numbered folders of 1000
Licence:   academic research only; the images belong to their photographers
Citation:  Li et al., "LSDIR: A Large Scale Dataset for Image Restoration", CVPRW 2023

The shards unpack into numbered folders, HR and LR in trees of their own (any names above the numbered folders will do):

    HR/train/0001000/0000001.png ... 0000999.png      HR/train/0002000/...
    X4/train/0001000/0000001x4.png                    X2 and X3 alike, if they were downloaded
    train_X4.json      [{"path_gt": "HR/train/0001000/0000001.png", "path_lq": "X4/train/0001000/0000001x4.png"}, ...]
    val1/HR/val/0000001.png      val1/X4/val/0000001x4.png

Where train_X4.json is there, what it lists is used and what it lists without being there is told; else all images are.

Prepared: train and val, whole, with gt and lq_x2, lq_x3, lq_x4. `--crop 480:240` cuts sub-images for training.

    python scripts/data_preparation/lsdir.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare lsdir`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "lsdir", *sys.argv[1:]]))
