"""Miniature trees of the datasets, as their official archives unpack: their folders, names and list files, filled with
small crops of photographs.

`TREES[name]` has, for each subset, pairs of the files that belong together; `build` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

SIDE = 48  # pixels; a multiple of 12, so that every scale fits


class Tree(NamedTuple):
    """Attributes: subsets, name -> {key: {role: path}}; lists, path -> text; scales, role -> scale; bits."""

    subsets: Mapping[str, Mapping[str, Mapping[str, str]]]
    lists: Mapping[str, str] = {}
    scales: Mapping[str, int] = {}
    bits: int = 8


def images(photos: Mapping[str, np.ndarray], bits: int = 8) -> Iterator[np.ndarray]:
    """Different crops (SIDE, SIDE, 3), RGB."""
    number = 0
    while True:
        for photo in photos.values():
            top, left = (number * 29) % (192 - SIDE), (number * 53) % (192 - SIDE)
            crop = photo[top : top + SIDE, left : left + SIDE]
            number += 1
            yield crop if bits == 8 else (crop.astype(np.uint16) * 256 + number).astype(np.uint16)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    assert done
    path.write_bytes(data.tobytes())


def degraded(image: np.ndarray, scale: int, seed: int) -> np.ndarray:
    noisy = image.astype(np.int32)[::scale, ::scale] + np.random.default_rng(seed).integers(-20, 21)
    return noisy.clip(0, np.iinfo(image.dtype).max).astype(image.dtype)


def build(tree: Tree, root: Path, photos: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Writes the tree; path -> pixels (H, W, 3) RGB as they were written (JPEG will lose some)."""
    written: dict[str, np.ndarray] = {}
    source = images(photos, tree.bits)
    for pairs in tree.subsets.values():
        for files in pairs.values():
            clean = next(source)
            for number, (role, path) in enumerate(files.items()):
                if path in written:
                    clean = written[path]  # several degraded images of one clean one
                    continue
                image = clean if role == "gt" else degraded(clean, tree.scales.get(role, 1), number)
                written[path] = image
    blocks: dict[str, dict[str, np.ndarray]] = {}
    for path, image in written.items():
        if ".mat/" in path:
            file, name = path.split("/")
            blocks.setdefault(file, {})[name] = image
        else:
            write(root / path, image)
    for file, found in blocks.items():
        write_blocks(root / file, list(found.values()))
    for path, text in tree.lists.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return written


def write_blocks(path: Path, found: list[np.ndarray]) -> None:
    """As SIDD's validation sets: (images, blocks, H, W, 3), here one image."""
    import scipy.io

    scipy.io.savemat(path, {path.stem: np.stack(found)[None]})


def pair(gt: str, lq: str, **more: str) -> dict[str, str]:
    return {"gt": gt, "lq": lq, **more}


def sr(hr: str, low: str, number: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """HR and all its LR versions, as DIV2K and Flickr2K name them."""
    files = {"gt": f"{hr}/{number}.png"}
    for kind in kinds:
        role = "lq_" if kind == "bicubic" else "lq_unknown_"
        files.update({f"{role}x{s}": f"{low}{kind}/X{s}/{number}x{s}.png" for s in (2, 3, 4)})
    return files


SR = {f"lq_{kind}x{s}": s for kind in ("", "unknown_") for s in (2, 3, 4)}
KINDS = ("bicubic", "unknown")
GOPRO = "GOPRO_Large"
REAL = {
    "J": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
    "R": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
}
SIDD = "SIDD_Medium_Srgb/Data"
COMBINATIONS = "low haze rain snow low_haze low_rain low_snow haze_rain haze_snow low_haze_rain low_haze_snow".split()
UNIVERSAL = (
    "motion-blurry hazy jpeg-compressed low-light noisy raindrop rainy shadowed snowy uncompleted"
).split()  # fmt: skip


def gopro(part: str, scenes: tuple[str, ...], numbers: tuple[str, ...]) -> dict:
    """Scenes whose frames have equal names."""
    return {
        f"{scene}-{number}": pair(
            f"{GOPRO}/{part}/{scene}/sharp/{number}.png",
            f"{GOPRO}/{part}/{scene}/blur/{number}.png",
            lq_gamma=f"{GOPRO}/{part}/{scene}/blur_gamma/{number}.png",
        )
        for scene in scenes
        for number in numbers
    }


def realblur(kind: str, scenes: tuple[str, ...]) -> dict:
    return {
        f"{scene}-{n}": pair(f"{REAL[kind]}/{scene}/gt/gt_{n}.png", f"{REAL[kind]}/{scene}/blur/blur_{n}.png")
        for scene in scenes
        for n in (1, 2)
    }


def realblur_list(pairs: dict) -> str:
    return "".join(f"{files['gt']} {files['lq']}\n" for files in pairs.values())


def dpdd(part: str, names: tuple[tuple[str, str], ...]) -> dict:
    """(blurred, sharp): different numbers of the same scene."""
    top = "dd_dp_dataset_canon"
    return {
        blurred: pair(
            f"{top}/{part}_c/target/{sharp}.png",
            f"{top}/{part}_c/source/{blurred}.png",
            lq_left=f"{top}/{part}_l/source/{blurred}.png",
            lq_right=f"{top}/{part}_r/source/{blurred}.png",
        )
        for blurred, sharp in names
    }


def lsdir() -> tuple[dict, str]:
    pairs = {
        f"{n:07d}": {
            "gt": f"LSDIR/HR/train/{folder}/{n:07d}.png",
            "lq_x4": f"LSDIR/X4/train/{folder}/{n:07d}x4.png",
        }
        for folder, n in (("0001000", 1), ("0001000", 2), ("0002000", 1001), ("0002000", 1002))
    }
    cut = len("LSDIR/")
    listed = [{"path_gt": files["gt"][cut:], "path_lq": files["lq_x4"][cut:]} for files in pairs.values()]
    return pairs, json.dumps(listed)


_REALBLUR = {
    (kind, part): realblur(kind, scenes)
    for kind in REAL
    for part, scenes in (("train", ("scene001", "scene003")), ("test", ("scene002", "scene244_reflect")))
}
_LSDIR, _LSDIR_JSON = lsdir()

TREES: dict[str, Tree] = {
    "div2k": Tree(
        {
            "train": {n: sr("DIV2K_train_HR", "DIV2K_train_LR_", n, KINDS) for n in ("0001", "0002", "0800")},
            "valid": {n: sr("DIV2K_valid_HR", "DIV2K_valid_LR_", n, KINDS) for n in ("0801", "0900")},
        },
        scales=SR,
    ),
    "flickr2k": Tree(
        {"train": {n: sr("Flickr2K/Flickr2K_HR", "Flickr2K/Flickr2K_LR_", n, KINDS)
                   for n in ("000001", "000002", "002650")}},
        scales=SR,
    ),
    "lsdir": Tree(
        {
            "train": _LSDIR,
            "val": {n: {"gt": f"LSDIR/val1/HR/val/{n}.png", "lq_x4": f"LSDIR/val1/X4/val/{n}x4.png"}
                    for n in ("0000001", "0000002")},
        },
        lists={"LSDIR/train_X4.json": _LSDIR_JSON},
        scales=SR,
    ),
    "gopro": Tree(
        {
            "train": gopro("train", ("GOPR0372_07_00", "GOPR0374_11_00"), ("000047", "000048")),
            "test": gopro("test", ("GOPR0384_11_00", "GOPR0385_11_01"), ("000001", "000002")),
        }
    ),
    "hide": Tree(
        {
            "train": {n: pair(f"HIDE_dataset/GT/{n}.png", f"HIDE_dataset/train/{n}.png")
                      for n in ("1fromGOPR0950", "2fromGOPR0950", "3fromGOPR0951")},
            "test": {n: pair(f"HIDE_dataset/GT/{n}.png", f"HIDE_dataset/test/{shot}/{n}.png")
                     for n, shot in (("6fromGOPR1089", "test-close-ups"), ("7fromGOPR1089", "test-long-shot"))},
        }
    ),
    "realblur": Tree(
        {f"{kind}/{part}": pairs for (kind, part), pairs in _REALBLUR.items()},
        lists={f"RealBlur_{kind}_{part}_list.txt": realblur_list(pairs) for (kind, part), pairs in _REALBLUR.items()},
    ),
    "dpdd": Tree(
        {
            "train": dpdd("train", (("1P0A0892", "1P0A0917"), ("1P0A0895", "1P0A0920"), ("1P0A1001", "1P0A1026"))),
            "val": dpdd("val", (("1P0A1100", "1P0A1125"),)),
            "test": dpdd("test", (("1P0A1500", "1P0A1525"), ("1P0A1503", "1P0A1528"))),
        },
        bits=16,
    ),
    "sidd": Tree(
        {
            "train": {
                f"{scene[:4]}_SRGB_{n}": pair(f"{SIDD}/{scene}/{scene[:4]}_GT_SRGB_{n}.PNG",
                                              f"{SIDD}/{scene}/{scene[:4]}_NOISY_SRGB_{n}.PNG")
                for scene in ("0001_001_S6_00100_00060_3200_L", "0200_010_GP_01600_03200_5500_N")
                for n in ("010", "011")
            },
            "val": {f"0000_{n:02d}": pair(f"ValidationGtBlocksSrgb.mat/0000_{n:02d}.png",
                                          f"ValidationNoisyBlocksSrgb.mat/0000_{n:02d}.png") for n in range(3)},
        }
    ),
    "bsd400-wed": Tree(
        {
            "train": {
                **{n: {"gt": f"BSDS500/data/images/train/{n}.jpg"} for n in ("100075", "8049")},
                **{n: {"gt": f"BSDS500/data/images/test/{n}.jpg"} for n in ("100007",)},
                **{n: {"gt": f"exploration_database_and_code/pristine_images/{n}.bmp"} for n in ("00001", "04744")},
            },
            "cbsd68": {n: {"gt": f"CBSD68/original_png/{n}.png"} for n in ("101085", "101087")},
            "urban100": {n: {"gt": f"Urban100/{n}.png"} for n in ("img_001", "img_002")},
            "kodak24": {n: {"gt": f"Kodak24/{n}.png"} for n in ("kodim01", "kodim24")},
        }
    ),
    "rain100": Tree(
        {
            f"{kind[0]}/{part}": {
                str(n): pair(f"rain_data_{part}_{kind}/norain/norain-{n}.png",
                             f"rain_data_{part}_{kind}/rain/{'X2/' if part == 'test' else ''}norain-{n}x2.png")
                for n in (1, 2, 10)
            }
            for kind in ("Light", "Heavy") for part in ("train", "test")
        }
    ),
    "rain13k": Tree(
        {
            "train": {str(n): pair(f"train/Rain13K/target/{n}.jpg", f"train/Rain13K/input/{n}.jpg") for n in (1, 2, 3)},
            **{name.lower(): {str(n): pair(f"test/{name}/target/{n}.png", f"test/{name}/input/{n}.png") for n in (1, 2)}
               for name in ("Test100", "Rain100H", "Rain100L", "Test2800", "Test1200")},
        }
    ),
    "reside": Tree(
        {
            "ots": {
                f"{scene}_{haze.replace('.', '_')}": pair(f"OTS_BETA/clear/{scene}.jpg",
                                                          f"OTS_BETA/haze/{part}/{scene}_{haze}.jpg")
                for scene, part in (("0025", "part1"), ("3068", "part2")) for haze in ("0.8_0.1", "1_0.2")
            },
            "its": {f"{n}_1_0_90179": pair(f"ITS/clear/{n}.png", f"ITS/hazy/{n}_1_0.90179.png") for n in (1, 2)},
            "sots/outdoor": {f"{n}_0_8_0_2": pair(f"SOTS/outdoor/gt/{n}.png", f"SOTS/outdoor/hazy/{n}_0.8_0.2.jpg")
                             for n in ("0001", "0002")},
            "sots/indoor": {f"1400_{n}": pair("SOTS/indoor/nyuhaze500/gt/1400.png",
                                              f"SOTS/indoor/nyuhaze500/hazy/1400_{n}.png") for n in (1, 2)},
        }
    ),
    "lol": Tree(
        {
            "v1/train": {n: pair(f"LOLdataset/our485/high/{n}.png", f"LOLdataset/our485/low/{n}.png")
                         for n in ("2", "5", "771")},
            "v1/test": {n: pair(f"LOLdataset/eval15/high/{n}.png", f"LOLdataset/eval15/low/{n}.png")
                        for n in ("1", "22")},
            **{
                f"v2_real/{part.lower()}": {
                    n: pair(f"LOL-v2/Real_captured/{part}/Normal/normal{n}.png",
                            f"LOL-v2/Real_captured/{part}/Low/low{n}.png") for n in numbers
                }
                for part, numbers in (("Train", ("00001", "00002")), ("Test", ("00690", "00691")))
            },
            **{
                f"v2_synthetic/{part.lower()}": {
                    n: pair(f"LOL-v2/Synthetic/{part}/Normal/{n}.png", f"LOL-v2/Synthetic/{part}/Low/{n}.png")
                    for n in names
                }
                for part, names in (("Train", ("r000da54ft", "r00281593t")), ("Test", ("r02a1c7c7t", "r0a0e6e9at")))
            },
        }
    ),
    "cdd11": Tree(
        {
            f"{part}/{one}": {n: pair(f"CDD-11_{part}/clear/{n}.png", f"CDD-11_{part}/{one}/{n}.png")
                              for n in ("00001", "00002", "00003")}
            for part in ("train", "test") for one in COMBINATIONS
        }
    ),
    "universal": Tree(
        {
            f"{part}/{kind}": {n: pair(f"universal/{part}/{kind}/GT/{n}.png", f"universal/{part}/{kind}/LQ/{n}.png")
                               for n in ("a1", "b2", "c3")}
            for part in ("train", "val") for kind in UNIVERSAL
        }
    ),
    "sr-benchmarks": Tree(
        {
            "set5": {n: {"gt": f"benchmark/Set5/HR/{n}.png"} for n in ("baby", "bird")},
            "set14": {n: {"gt": f"benchmark/Set14/HR/{n}.png"} for n in ("baboon",)},
            "bsd100": {n: {"gt": f"benchmark/B100/HR/{n}.png"} for n in ("101085",)},
            "urban100": {n: {"gt": f"benchmark/Urban100/HR/{n}.png"} for n in ("img001",)},
            "manga109": {n: {"gt": f"benchmark/Manga109/HR/{n}.png"} for n in ("AisazuNihaIrarenai",)},
        }
    ),
    "photographs": Tree(
        {
            "train": {
                f"{folder}-{n}": {"gt": f"{folder}/{n}.png"}
                for folder in ("holiday", "garden") for n in ("0001", "0002")
            }
        }
    ),
    "pairs": Tree(
        {
            "train": {
                f"{folder}-{n}": pair(f"mine/gt/{folder}/{n}.png", f"mine/lq/{folder}/{n}.JPG")
                for folder in ("holiday", "garden") for n in ("0001", "0002")
            }
        }
    ),
}  # fmt: skip
