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
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.datasets.cdd11 import sentences
from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

# folder -> task, and the kind to remove or the word for it
KINDS = {
    "motion-blurry": ("deblur", "motion"), "hazy": ("dehaze", "haze"), "jpeg-compressed": ("dejpeg", "jpeg"),
    "low-light": ("lowlight", "lowlight"), "noisy": ("denoise", "noise"), "rainy": ("derain", "rain"),
    "uncompleted": ("inpaint", "holes"),
}  # fmt: skip
OTHERS = {"raindrop": "raindrops", "shadowed": "shadows", "snowy": "snow"}


def _subset(folder: str, part: str) -> Subset:
    layout = Layout("DA-CLIP", gt=f"{part}/{folder}/GT/{{name}}", lq=f"{part}/{folder}/LQ/{{name}}")
    if folder in OTHERS:
        return Subset(f"{part}/{folder}", (layout,), None, folder, say=sentences([OTHERS[folder]]), split=part)
    task, kind = KINDS[folder]
    return Subset(f"{part}/{folder}", (layout,), None, task, (kind,), split=part)


DATASET = Dataset(
    "universal",
    "DA-CLIP's universal dataset",
    tuple(_subset(folder, part) for part in ("train", "val") for folder in (*KINDS, *OTHERS)),
    __doc__,
)
