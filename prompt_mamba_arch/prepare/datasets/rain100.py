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
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

COUNTS = {("Light", "train"): 200, ("Light", "test"): 100, ("Heavy", "train"): 1800, ("Heavy", "test"): 100}


def _subset(kind: str, part: str) -> Subset:
    folder = f"rain_data_{part}_{kind}"
    layouts = [
        Layout(
            "as it unpacks",
            gt=f"{folder}/norain/norain-{{name:[0-9]+}}",
            lq=f"{folder}/rain/{{:X2/|}}{{:no|}}rain-{{name:[0-9]+}}{{:x2|}}",
        )
    ]
    if part == "test":
        name = f"Rain100{kind[0]}"
        layouts.append(Layout("MPRNet, Restormer, PromptIR", gt=f"{name}/target/{{name}}", lq=f"{name}/input/{{name}}"))
    elif kind == "Light":
        layouts.append(
            Layout("PromptIR, AdaIR", gt="Derain/gt/norain-{name:[0-9]+}", lq="Derain/rainy/rain-{name:[0-9]+}")
        )
    if kind == "Heavy":
        part_there = {"train": "train", "test": "val"}[part]
        layouts.append(Layout("DA-CLIP", gt=f"{part_there}/rainy/GT/{{name}}", lq=f"{part_there}/rainy/LQ/{{name}}"))
    return Subset(f"{kind[0]}/{part}", tuple(layouts), COUNTS[kind, part], "derain", ("rain",), split=part)


DATASET = Dataset("rain100", "Rain100L and Rain100H", tuple(_subset(*one) for one in COUNTS), __doc__)
