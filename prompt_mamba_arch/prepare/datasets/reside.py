"""RESIDE: synthetic haze; many hazy images of one clear image. OTS and ITS for training, SOTS for testing.

Link:      https://sites.google.com/view/reside-dehaze-datasets (RESIDE-beta: OTS; RESIDE-standard: ITS and SOTS)
Size:      72 135 hazy images of 2061 clear ones (OTS), 13 990 of 1399 (ITS); SOTS: 500 outdoor, 500 indoor
Licence:   none is stated; published for research
Citation:  Li et al., "Benchmarking Single-Image Dehazing and Beyond", TIP 2019

It unpacks as folders for clear and hazy images; a hazy one is called after the clear one and its haze:

    OTS/clear/0025.jpg              OTS/haze/part1/0025_0.8_0.1.jpg ... part4/      (OTS_BETA will do, too)
    ITS/clear/1.png                 ITS/hazy/1_1_0.90179.png
    SOTS/outdoor/gt/0001.png        SOTS/outdoor/hazy/0001_0.8_0.2.jpg
    SOTS/indoor/gt/1400.png         SOTS/indoor/hazy/1400_1.png (in nyuhaze500/ in some archives)

Recognised as it lies, too: as PromptIR and AdaIR have it (Train/Dehaze/original and synthetic/part1 ...,
test/dehaze/target and input) and as DA-CLIP has it (train/hazy/LQ and GT).

Prepared: ots, its, sots/outdoor and sots/indoor, whole, with gt and lq; a clear image is linked once for each of its
hazy ones. SOTS's indoor images show the middle of the clear ones, which are cut to it.
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

HAZE = "{scene:[^_/]+}_{haze}"
DACLIP = "DA-CLIP"

DATASET = Dataset(
    "reside",
    "RESIDE",
    (
        Subset(
            "ots",
            (
                Layout(
                    "as it unpacks",
                    gt="{:OTS[^/]*}/clear/{scene}",
                    lq=f"{{:OTS[^/]*}}/haze/{{:part[0-9]+/|}}{HAZE}",
                    key="{scene}_{haze}",
                ),
                Layout(
                    "PromptIR, AdaIR",
                    gt="Dehaze/original/{scene}",
                    lq=f"Dehaze/synthetic/{{:part[0-9]+/|}}{HAZE}",
                    key="{scene}_{haze}",
                ),
                Layout(DACLIP, gt="train/hazy/GT/{name}", lq="train/hazy/LQ/{name}"),
            ),
            {"as it unpacks": 72_135, "PromptIR, AdaIR": 72_135},
            "dehaze",
            ("haze",),
        ),
        Subset(
            "its",
            (
                Layout(
                    "as it unpacks",
                    gt="{:ITS|ITS_v2}/clear/{scene}",
                    lq=f"{{:ITS|ITS_v2}}/hazy/{HAZE}",
                    key="{scene}_{haze}",
                ),
            ),
            13_990,
            "dehaze",
            ("haze",),
        ),
        Subset(
            "sots/outdoor",
            (
                Layout("as it unpacks", gt="outdoor/gt/{scene}", lq=f"outdoor/hazy/{HAZE}", key="{scene}_{haze}"),
                Layout("PromptIR, AdaIR", gt="dehaze/target/{scene}", lq=f"dehaze/input/{HAZE}", key="{scene}_{haze}"),
                Layout(DACLIP, gt="val/hazy/GT/{name}", lq="val/hazy/LQ/{name}"),
            ),
            {"as it unpacks": 500, "PromptIR, AdaIR": 500},
            "dehaze",
            ("haze",),
            split="test",
        ),
        Subset(
            "sots/indoor",
            (
                Layout(
                    "as it unpacks",
                    gt="indoor/{:nyuhaze500/|}gt/{scene}",
                    lq=f"indoor/{{:nyuhaze500/|}}hazy/{HAZE}",
                    key="{scene}_{haze}",
                ),
            ),
            500,
            "dehaze",
            ("haze",),
            split="test",
            centre=True,
        ),
    ),
    __doc__,
)
