"""A small real dataset from photographs that scikit-image ships: for the quickstart, and to try things on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from prompt_mamba_arch.data.degradations import render, sample_recipe
from prompt_mamba_arch.data.prompt_file import PromptEntry
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prepare.engine import write_if_new
from prompt_mamba_arch.prepare.images import Shape, encode
from prompt_mamba_arch.prepare.lmdb_writer import Entry, write_lmdb

__all__ = ["ABOUT", "make_demo"]

ABOUT = """Demo: photographs that scikit-image ships, with noise and scratches; nothing is downloaded.

    OUT/train/gt, lq, prompts.jsonl, meta_info.txt   pieces of 256 pixels; lq has noise, scratches or both
    OUT/requests.jsonl                               sentences, each with what it asks to remove, for training that
                                                     degrades gt on the fly
    OUT/test/gt, lq, prompts.jsonl, meta_info.txt    of other photographs: once with everything removed as the target,
                                                     and once for a sentence and its exact target
    OUT/photo.png, photo_gt.png, photo_<kind>.png    one whole degraded photograph, its clean original, and what is left
                                                     when only that kind is removed

With --photo-only nothing but the photograph, in the dark and noisy: for the starter model."""

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


def make_demo(
    out: str | os.PathLike,
    *,
    photo_only: bool = False,
    lmdb: bool = False,
    progress: Callable[[int], None] = lambda files: None,
) -> int:
    """Writes the set (see `ABOUT`); what is there already as it should be is left alone.

    Args:
        photo_only: only photo*.png, with other damage.
        lmdb: also LMDBs of train.
        progress: receives the number of files that were looked at.

    Returns:
        The number of files that were written.

    Raises:
        UserError: scikit-image is not installed.
    """
    out = Path(out).expanduser()
    written = 0

    def put(path: Path, data: bytes) -> None:
        nonlocal written
        written += write_if_new(path, data)
        progress(1)

    recipe = DARK if photo_only else sample_recipe(seed=4, kinds=KINDS, count=2, ranges=RANGES)
    photo = photograph(TEST[0]).astype(np.float32) / 255
    put(out / "photo.png", _png(render(photo, recipe)))
    put(out / "photo_gt.png", _png(photo))
    for step in recipe:
        put(out / f"photo_{step['kind']}.png", _png(render(photo, recipe, without=(step["kind"],))))
    if photo_only:
        return written
    for part, pairs in (("train", _train()), ("test", _test())):
        lines, names, entries = [], [], {"gt": [], "lq": []}
        for entry, gt, lq in pairs:
            for role, image in (("gt", gt), ("lq", lq)):
                file = out / part / role / f"{entry.key}.png"
                put(file, _png(image))
                state = file.stat()
                entries[role].append(Entry(entry.key, file, Shape(*gt.shape), (state.st_size, state.st_mtime_ns)))
            lines.append(entry.to_json())
            names.append(f"{entry.key}.png ({gt.shape[0]},{gt.shape[1]},3)")
        put(out / part / "prompts.jsonl", _lines(lines))
        put(out / part / "meta_info.txt", _lines(names))
        for role in ("gt", "lq") if lmdb and part == "train" else ():
            beside = dict(zip((one.key for one in entries["lq"]), lines)) if role == "lq" else {}
            written += write_lmdb(out / part / f"{role}.lmdb", entries[role], beside, workers=1)
    requests = [
        json.dumps({"key": "+".join(kinds) or "nothing", "prompts": sentences, "remove": list(kinds)})
        for kinds, sentences in REQUESTS.items()
    ]
    put(out / "requests.jsonl", _lines(requests))
    return written


def photograph(name: str) -> np.ndarray:
    """A photograph that scikit-image ships, `(H, W, 3)` uint8 RGB.

    Raises:
        UserError: scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError:
        raise UserError("the photographs come with scikit-image: pip install scikit-image") from None
    image = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    if max(image.shape[:2]) > 800:
        scale = 800 / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., :3])


def _train() -> Iterator[tuple[PromptEntry, np.ndarray, np.ndarray]]:
    """Prompts, clean and degraded pieces (H, W, 3)."""
    number = 0
    for name in TRAIN:
        image = photograph(name)
        height, width = image.shape[:2]
        corners = [(y, x) for y in range(0, height - PIECE + 1, 128) for x in range(0, width - PIECE + 1, 128)]
        for index, (top, left) in enumerate(corners):
            clean = image[top : top + PIECE, left : left + PIECE].astype(np.float32) / 255
            number += 1
            recipe = sample_recipe(seed=number, kinds=KINDS, count=(1, 2), ranges=RANGES)
            present = tuple(kind for kind in KINDS if any(step["kind"] == kind for step in recipe))
            prompts = tuple(REQUESTS[present][(number + turn) % len(REQUESTS[present])] for turn in range(4))
            entry = PromptEntry(f"{name}_{index:03d}", prompts, None, present, present)
            yield entry, clean, render(clean, recipe)


def _test() -> Iterator[tuple[PromptEntry, np.ndarray, np.ndarray]]:
    for name in TEST:
        clean = photograph(name)[:PIECE, -PIECE:].astype(np.float32) / 255
        recipe = sample_recipe(seed=len(name), kinds=KINDS, count=2, ranges=RANGES)
        requests = [("all", "restore this photo", KINDS), *((k, SENTENCES[k], (k,)) for k in KINDS)]
        for target, sentence, remove in requests:
            entry = PromptEntry(f"{name}_{target}", (sentence,), None, remove, KINDS)
            yield entry, render(clean, recipe, without=remove), render(clean, recipe)


def _png(image: np.ndarray) -> bytes:
    """(H, W, 3) RGB in [0, 1]."""
    return encode(np.rint(image.clip(0, 1) * 255).astype(np.uint8))


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8")
