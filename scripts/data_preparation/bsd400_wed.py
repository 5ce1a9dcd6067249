"""BSD400 and WED: the clean images on which the all-in-one literature trains denoising, and its test sets.

Links:     https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html (BSDS500)
           https://ece.uwaterloo.ca/~k29ma/exploration/ (WED), https://r0k.us/graphics/kodak/ (Kodak24)
           https://github.com/va1shn9v/PromptIR/blob/main/INSTALL.md and https://github.com/c-yn/AdaIR (all of them)
Size:      400 + 4744 training images; 68 (CBSD68), 100 (Urban100) and 24 (Kodak24) for testing
Licence:   non-commercial research and education (BSD); academic research (WED); Kodak24 is free to use
Citations: Martin et al., "A Database of Human Segmented Natural Images", ICCV 2001; Ma et al., "Waterloo Exploration
           Database", TIP 2017; Huang et al., "Single Image Super-Resolution from Transformed Self-Exemplars", CVPR 2015

Recognised are the folders that their archives make, wherever they lie, BSD400 as a folder of that name or as the
training and test images of BSDS500, and all together as PromptIR and AdaIR have them:

    BSD400/100075.jpg      or BSDS500/data/images/train/100075.jpg and images/test/100007.jpg
    exploration_database_and_code/pristine_images/00001.bmp
    CBSD68/101085.png      Urban100/img_001.png      Kodak24/kodim01.png
    data/Train/Denoise/00001.bmp, 100075.jpg      data/test/denoise/bsd68/101085.jpg, urban100/..., kodak24/...

Prepared: train, cbsd68, urban100 and kodak24, whole, with gt alone: the noise is drawn in training and testing
(PromptDegradationDataset).

    python scripts/data_preparation/bsd400_wed.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare bsd400-wed`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "bsd400-wed", *sys.argv[1:]]))
