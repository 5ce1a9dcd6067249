"""CDD-11: eleven combinations of low light, haze, rain and snow.

Link:      https://github.com/gy65896/OneRestore
Size:      1183 training and 200 test scenes of 1080x720, each clear and in eleven ways
Licence:   none is stated for the images
Citation:  Guo et al., "OneRestore: A Universal Restoration Framework for Composite Degradation", ECCV 2024

It unpacks as one folder for each combination, with equal names:

    CDD-11_train/clear/00001.png      low/      haze/      rain/      snow/      low_haze/      low_rain/      low_snow/
                 haze_rain/           haze_snow/           low_haze_rain/        low_haze_snow/
    CDD-11_test/...                   (also as train/ and test/)

Prepared: train/<combination> and test/<combination>, whole, with gt and lq. The prompts ask to remove everything.
Snow is none of the kinds that the bank of phrases knows; its prompts are sentences of this file.

    python scripts/data_preparation/cdd11.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare cdd11`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "cdd11", *sys.argv[1:]]))
