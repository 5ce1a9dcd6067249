"""DPDD: defocus blur of a wide aperture, the all-in-focus image of a narrow one, and the two dual-pixel views.

Link:      https://github.com/Abdullah-Abuolaim/defocus-deblurring-dual-pixel (dd_dp_dataset_canon.zip)
Size:      350 training, 74 validation and 76 test scenes, PNG with 16 bits
Licence:   MIT (the repository's)
Citation:  Abuolaim and Brown, "Defocus Deblurring Using Dual-Pixel Data", ECCV 2020

It unpacks as folders for the combined image (c), the left (l) and the right (r) view. The names of blurred and sharp
images have nothing in common; they are paired in the order of their names:

    dd_dp_dataset_canon/train_c/source/1P0A0892.png      train_c/target/1P0A0917.png
    dd_dp_dataset_canon/train_l/source/1P0A0892.png      train_r/source/1P0A0892.png
    dd_dp_dataset_canon/val_c/...      test_c/...

Recognised as it lies, too: as Restormer has it (train/DPDD/inputC, inputL, inputR and target).

Prepared: train (sub-images of 512 pixels, 256 apart), val and test (whole) with gt, lq, lq_left and lq_right; 16 bits
stay 16. Option files take the single image (dataroot_lq: .../lq) or both views as six channels (dataroot_lq:
.../lq_left, dataroot_lq_2: .../lq_right, network_g.in_chans: 6).

    python scripts/data_preparation/dpdd.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare dpdd`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "dpdd", *sys.argv[1:]]))
