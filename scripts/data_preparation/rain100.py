"""Rain100L and Rain100H: streaks of light and of heavy rain.

Link:      https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html
Size:      200 + 100 pairs (L), 1800 + 100 pairs (H) of 481x321
Licence:   none is stated
Citation:  Yang et al., "Deep Joint Rain Detection and Removal from a Single Image", CVPR 2017

They unpack as

    rain_data_train_Light/rain/norain-1x2.png      rain_data_train_Light/norain/norain-1.png
    rain_data_test_Light/rain/X2/norain-1x2.png    rain_data_test_Light/norain/norain-1.png
    rain_data_train_Heavy/...                      rain_data_test_Heavy/...

Recognised as it lies, too: as PromptIR and AdaIR have it (Train/Derain/rainy/rain-1.png and gt/norain-1.png), the test
sets as MPRNet, Restormer and PromptIR have them (Rain100L/input/1.png and target/1.png), Rain100H as DA-CLIP has it
(train/rainy/LQ and GT).

Prepared: L/train, L/test, H/train and H/test, whole, with gt and lq.

    python scripts/data_preparation/rain100.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare rain100`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "rain100", *sys.argv[1:]]))
