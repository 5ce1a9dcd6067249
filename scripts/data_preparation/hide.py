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

    python scripts/data_preparation/hide.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare hide`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "hide", *sys.argv[1:]]))
