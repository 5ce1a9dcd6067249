"""Flickr2K: 2650 photographs of 2K resolution, with low-resolution versions.

Link:      https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar
Size:      2650 images, 20 GB with the LR versions
Licence:   none is stated; the photographs are from Flickr, under their authors' terms
Citation:  Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017;
           Timofte et al., "NTIRE 2017 Challenge on Single Image Super-Resolution: Methods and Results", CVPRW 2017

It unpacks as

    Flickr2K/Flickr2K_HR/000001.png ... 002650.png
    Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png      X3/000001x3.png      X4/000001x4.png
    Flickr2K/Flickr2K_LR_unknown/X2/000001x2.png      ...

Prepared: train (sub-images of 480 pixels, 240 apart) with gt, lq_x2, lq_x3, lq_x4, lq_unknown_x2 ... as DIV2K.

    python scripts/data_preparation/flickr2k.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare flickr2k`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "flickr2k", *sys.argv[1:]]))
