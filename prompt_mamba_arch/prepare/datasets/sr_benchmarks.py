"""Set5, Set14, BSD100, Urban100 and Manga109: the benchmarks of super-resolution.

Link:      https://github.com/XPixelGroup/BasicSR/blob/master/docs/DatasetPreparation.md (all of them)
Size:      5, 14, 100, 100 and 109 images
Licence:   those of their sources; Manga109 needs its authors' consent
Citations: Bevilacqua et al., BMVC 2012; Zeyde et al., "On Single Image Scale-Up Using Sparse-Representations", 2010;
           Martin et al., ICCV 2001; Huang et al., CVPR 2015; Fujimoto et al., "Manga109 Dataset and Creation of
           Metadata", MANPU 2016

Recognised are the clean images, as EDSR (Set5/HR), BasicSR (Set5/original or GTmod12) or the benchmarks' own archives
(Set5/) have them:

    Set5/HR/baby.png      or Set5/original/baby.png, Set5/GTmod12/baby.png, Set5/baby.png
    Set14/      B100/ or BSD100/ or BSDS100/      Urban100/      Manga109/

Prepared: set5, set14, bsd100, urban100 and manga109, each with gt, cut to a multiple of 12 pixels, and lq_x2, lq_x3 and
lq_x4, made from it by MATLAB's bicubic, as the published results are.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

SETS = {
    "set5": ("Set5", 5),
    "set14": ("Set14", 14),
    "bsd100": ("{:B100|BSD100|BSDS100}", 100),
    "urban100": ("Urban100", 100),
    "manga109": ("Manga109", 109),
}


def _subset(name: str, folder: str, count: int) -> Subset:
    layouts = tuple(
        Layout(whose, gt=f"{folder}/{inside}{{name}}")
        for whose, inside in (("EDSR", "HR/"), ("BasicSR", "{:original|GTmod12}/"), ("as it unpacks", ""))
    )
    return Subset(name, layouts, count, "sr", ("lowres",), split="test", reduce=(2, 3, 4))


DATASET = Dataset(
    "sr-benchmarks", "the benchmarks of super-resolution", tuple(_subset(n, *v) for n, v in SETS.items()), __doc__
)
