"""DIV2K: 1000 photographs of 2K resolution, with low-resolution versions.

Link:      https://data.vision.ee.ethz.ch/cvl/DIV2K/
Size:      800 training and 100 validation images; HR 3.3 + 0.4 GB, each LR archive 0.2 to 1.4 GB
Licence:   academic research only; the images belong to their photographers
Citation:  Agustsson and Timofte, "NTIRE 2017 Challenge on Single Image Super-Resolution: Dataset and Study", CVPRW 2017

The archives unpack side by side; those for LR are optional, each by itself:

    DIV2K_train_HR/0001.png ... 0800.png
    DIV2K_train_LR_bicubic/X2/0001x2.png      X3/0001x3.png      X4/0001x4.png
    DIV2K_train_LR_unknown/X2/0001x2.png      ...
    DIV2K_valid_HR/0801.png ... 0900.png
    DIV2K_valid_LR_bicubic/X2/0801x2.png      ...

Prepared: train (sub-images of 480 pixels, 240 apart, as BasicSR cuts them) and valid (whole), each with gt, lq_x2,
lq_x3, lq_x4, lq_unknown_x2, lq_unknown_x3 and lq_unknown_x4; all of one image have one name.

    python scripts/data_preparation/div2k.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare div2k`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "div2k", *sys.argv[1:]]))
