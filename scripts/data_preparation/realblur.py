"""RealBlur: real blur of a moving camera, two cameras behind one lens, aligned; from JPEG (J) and from raw (R).

Link:      https://github.com/rimchang/RealBlur (RealBlur.tar.gz)
Size:      3758 training and 980 test pairs, each for J and for R, of about 680x773
Licence:   CC BY 4.0
Citation:  Rim et al., "Real-World Blur Dataset for Learning and Benchmarking Deblurring Algorithms", ECCV 2020

It unpacks as one folder for each scene and four lists, which say what is for training; a line is the sharp image's path
and the blurred one's:

    RealBlur-J_ECC_IMCORR_centroid_itensity_ref/scene001/blur/blur_1.png      scene001/gt/gt_1.png
    RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref/scene001/...
    RealBlur_J_train_list.txt      RealBlur_J_test_list.txt      RealBlur_R_train_list.txt      RealBlur_R_test_list.txt

Recognised as it lies, too: the test sets as MPRNet and Restormer have them (test/RealBlur_J/input and target).

Prepared: J/train, J/test, R/train and R/test, whole, with gt and lq. An image is called scene001-1.

    python scripts/data_preparation/realblur.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare realblur`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "realblur", *sys.argv[1:]]))
