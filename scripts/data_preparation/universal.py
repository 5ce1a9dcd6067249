"""Universal: the ten degradations that DA-CLIP gathers, as its authors arrange them.

Link:      https://github.com/Algolzw/daclip-uir
Size:      as gathered; its README names the sources of each kind
Licence:   those of the datasets that it is made of
Citation:  Luo et al., "Controlling Vision-Language Models for Multi-Task Image Restoration", ICLR 2024

It lies as

    universal/train/motion-blurry/LQ/*.png      universal/train/motion-blurry/GT/*.png
                    hazy, jpeg-compressed, low-light, noisy, raindrop, rainy, shadowed, snowy and uncompleted alike
    universal/val/...

Prepared: train/<kind> and val/<kind>, whole, with gt and lq. Raindrops, shadows and snow are none of the kinds that the
bank of phrases knows; their prompts are sentences of this file.

    python scripts/data_preparation/universal.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare universal`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "universal", *sys.argv[1:]]))
