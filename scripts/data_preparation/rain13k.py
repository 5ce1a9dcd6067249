"""Rain13K: the union of synthetic rain datasets on which MPRNet and Restormer train, and their five test sets.

Link:      https://github.com/swz30/MPRNet (Deraining) and https://github.com/swz30/Restormer (Deraining)
Size:      13 712 training pairs; 100 (Test100), 100 (Rain100H), 100 (Rain100L), 2800 (Test2800), 1200 (Test1200)
Licence:   none is stated; it is made of several datasets
Citation:  Zamir et al., "Multi-Stage Progressive Image Restoration", CVPR 2021, and the datasets that it names

It unpacks as folders of equal names:

    train/Rain13K/input/1.jpg       train/Rain13K/target/1.jpg
    test/Rain100H/input/1.png       test/Rain100H/target/1.png      Rain100L, Test100, Test1200, Test2800 alike

Prepared: train, test100, rain100h, rain100l, test2800 and test1200, whole, with gt and lq.

    python scripts/data_preparation/rain13k.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare rain13k`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "rain13k", *sys.argv[1:]]))
