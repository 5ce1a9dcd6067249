"""LOL: photographs in low light and with enough of it. Version 1; version 2, real and synthetic.

Links:     https://daooshee.github.io/BMVC2018website/ (v1), https://github.com/flyywh/CVPR-2020-Semi-Low-Light (v2)
Size:      485 + 15 pairs (v1), 689 + 100 (v2, real), 900 + 100 (v2, synthetic)
Licence:   none is stated; published for research
Citations: Wei et al., "Deep Retinex Decomposition for Low-Light Enhancement", BMVC 2018; Yang et al., "Sparse Gradient
           Regularized Deep Retinex Network for Robust Low-Light Image Enhancement", TIP 2021

They unpack as

    LOLdataset/our485/low/2.png                      our485/high/2.png      eval15/low/1.png      eval15/high/1.png
    LOL-v2/Real_captured/Train/Low/low00001.png      Train/Normal/normal00001.png      Test/...
    LOL-v2/Synthetic/Train/Low/r000da54ft.png        Train/Normal/r000da54ft.png       Test/...

Recognised as it lies, too: version 1 as AdaIR has it (Train/Enhance/low and gt, test/enhance/lol/input and target) and
as DA-CLIP has it (train/low-light/LQ and GT).

Prepared: v1/train, v1/test, v2_real/train, v2_real/test, v2_synthetic/train and v2_synthetic/test, whole, with gt
and lq.

    python scripts/data_preparation/lol.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare lol`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "lol", *sys.argv[1:]]))
