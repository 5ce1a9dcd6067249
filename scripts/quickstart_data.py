"""Prepares the quickstart's data from the photographs that scikit-image ships.

Writes under OUT:
    train/            clean photographs, cut into 256 x 256 pieces; the training set degrades them on the fly
    requests.jsonl    sentences, each with what it asks to remove; training draws from them
    test/lq, test/gt  degraded copies of photographs that training never sees, once with everything removed as the
    test/prompts.jsonl  target ("all") and once with a sentence and its exact target
    photo.png         one whole degraded photograph, photo_gt.png its clean original, and photo_<kind>.png what is
                      left when only that kind of degradation is removed

With --photo-only nothing but the photograph, in the dark and noisy: for the starter model.

    python scripts/quickstart_data.py OUT [--photo-only]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from tqdm import tqdm

from prompt_mamba_arch.data import render, sample_recipe

KINDS = ("noise", "holes")
# as the option files of the quickstart have them
RANGES = {"noise": {"model": "gaussian", "sigma": [15, 40]}, "holes": {"shape": "scratches", "fill": "white"}}
DARK = [
    {"kind": "lowlight", "params": {"stops": 2.5, "photons": 0, "read": 0}, "seed": 1},
    {"kind": "noise", "params": {"model": "gaussian", "sigma": 20}, "seed": 2},
]
TRAIN = ("astronaut", "coffee", "rocket", "retina", "hubble_deep_field")  # what scikit-image ships; no download
TEST = ("chelsea", "motorcycle")
PIECE = 256  # pixels
SENTENCES = {"noise": "take the grain out", "holes": "remove the scratches"}
REQUESTS = {
    ("noise",): [
        "remove the noise", "take the grain out", "denoise", "get rid of the speckles", "it is too grainy",
        "clean up the noise but leave the scratches", "smooth out the grain, keep the scratches",
    ],
    ("holes",): [
        "remove the scratches", "repair the scratches", "take the white lines off", "my photo is full of scratches",
        "get rid of the white scratches", "remove the scratches but keep the grain", "only the scratches, please",
    ],
    KINDS: [
        "restore this photo", "fix everything", "remove the noise and the scratches", "make it look good again",
        "clean it up", "repair this picture", "erase the scratches and take the grain out",
    ],
    (): [
        "leave it as it is", "change nothing", "do not touch this photo", "keep the picture exactly like this",
        "it is fine, leave it alone",
    ],
}  # fmt: skip


def photograph(name: str) -> np.ndarray:
    """A photograph that scikit-image ships, `(H, W, 3)` uint8 RGB."""
    image = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    if max(image.shape[:2]) > 800:
        scale = 800 / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., :3])


def pieces(image: np.ndarray, step: int):
    height, width = image.shape[:2]
    for top in range(0, height - PIECE + 1, step):
        for left in range(0, width - PIECE + 1, step):
            yield image[top : top + PIECE, left : left + PIECE]


def write(path: Path, image: np.ndarray) -> None:
    """Writes `(H, W, 3)` RGB, uint8 or float in [0, 1]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.dtype != np.uint8:
        image = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def write_test_pairs(out: Path) -> None:
    lines = []
    for name in TEST:
        clean = photograph(name)[:PIECE, -PIECE:].astype(np.float32) / 255
        recipe = sample_recipe(seed=len(name), kinds=KINDS, count=2, ranges=RANGES)
        requests = [("all", "restore this photo", KINDS), *((k, SENTENCES[k], (k,)) for k in KINDS)]
        for target, sentence, remove in requests:
            key = f"{name}_{target}"
            write(out / "lq" / f"{key}.png", render(clean, recipe))
            write(out / "gt" / f"{key}.png", render(clean, recipe, without=remove))
            lines.append({"key": key, "prompts": [sentence], "remove": list(remove), "present": list(KINDS)})
    write_lines(out / "prompts.jsonl", lines)


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--photo-only", action="store_true", help="write the photo*.png, and nothing to train on")
    args = parser.parse_args()
    if not args.photo_only:
        write_training_data(args.out)
    write_photo(args.out, sample_recipe(seed=4, kinds=KINDS, count=2, ranges=RANGES) if not args.photo_only else DARK)


def write_training_data(out: Path) -> None:
    for name in tqdm(TRAIN, desc="photographs"):
        for index, piece in enumerate(pieces(photograph(name), step=128)):
            write(out / "train" / f"{name}_{index:03d}.png", piece)
    requests = [
        {"key": "+".join(kinds) or "nothing", "prompts": sentences, "remove": list(kinds)}
        for kinds, sentences in REQUESTS.items()
    ]
    write_lines(out / "requests.jsonl", requests)
    write_test_pairs(out / "test")


def write_photo(out: Path, recipe: list[dict]) -> None:
    photo = photograph(TEST[0]).astype(np.float32) / 255
    write(out / "photo.png", render(photo, recipe))
    write(out / "photo_gt.png", photo)
    for step in recipe:
        write(out / f"photo_{step['kind']}.png", render(photo, recipe, without=(step["kind"],)))


if __name__ == "__main__":
    main()
