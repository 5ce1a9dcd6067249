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
"""

from __future__ import annotations

from prompt_mamba_arch.prepare.spec import Dataset, Layout, Subset

COMBINATIONS = (
    *("low", "haze", "rain", "snow", "low_haze", "low_rain", "low_snow", "haze_rain", "haze_snow"),
    *("low_haze_rain", "low_haze_snow"),
)
KINDS = {"low": "lowlight", "haze": "haze", "rain": "rain"}
WORDS = {"low": "darkness", "haze": "haze", "rain": "rain", "snow": "snow"}
PARTS = {"train": 1183, "test": 200}


def sentences(words: list[str]) -> tuple[str, ...]:
    """What people write who want all of these removed."""
    them = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return (
        f"remove the {them}",
        f"take the {them} out of this picture",
        f"get rid of the {them}, please",
        f"this photo is full of {them}, clean it up",
        f"I would like it without the {them}",
        f"clear away the {them}",
        f"no {' and no '.join(words)}, please",
    )


def _subset(combination: str, part: str) -> Subset:
    names = combination.split("_")
    folder = f"{{:CDD-11_{part}|CDD11_{part}|{part}}}"
    layout = Layout("as it unpacks", gt=f"{folder}/clear/{{name}}", lq=f"{folder}/{combination}/{{name}}")
    snow = "snow" in names
    return Subset(
        f"{part}/{combination}",
        (layout,),
        PARTS[part],
        combination,
        () if snow else tuple(KINDS[name] for name in names),
        say=sentences([WORDS[name] for name in names]) if snow else (),
        split=part,
    )


DATASET = Dataset("cdd11", "CDD-11", tuple(_subset(one, part) for part in PARTS for one in COMBINATIONS), __doc__)
