#!/usr/bin/env python
"""Trains the network that sees what is wrong with a photograph (prompt_mamba_arch/sight), on one thread.

    python scripts/train_sight.py --train CLEAN_IMAGES --val OTHER_CLEAN_IMAGES -o sight.safetensors
    python scripts/train_sight.py --evaluate prompt_mamba_arch/sight/sight.safetensors --val OTHER_CLEAN_IMAGES

Crops of clean photographs are degraded by none to three kinds, all once; the network is trained on what it would see of
each. `--evaluate` also says what `tiny` makes of the same crops where it is told what was seen, what is really there,
and neither.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm

from prompt_mamba_arch.data import render, sample_recipe
from prompt_mamba_arch.data.image_source import ImageSource, to_float
from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.sight.look import load_network
from prompt_mamba_arch.sight.network import SightNetwork, as_input, views
from prompt_mamba_arch.text.wish import WISHES, Wish

CROP = 256
COUNTS = {0: 2, 1: 4, 2: 3, 3: 1}  # number of kinds -> how often
BATCH, PATCHES, RATE, WARM_UP = 24, 4, 2e-3, 100


def degraded(images: ImageSource, number: int, seed: int):
    """Yields (degraded crop, clean crop, kinds in it)."""
    rng = random.Random(seed)
    for _ in tqdm(range(number), desc="photographs", disable=None, leave=False):
        image = images.read(images.keys[rng.randrange(len(images))])
        side = min(CROP, *image.shape[:2])
        top, left = (rng.randint(0, length - side) for length in image.shape[:2])
        clean = np.ascontiguousarray(image[top : top + side, left : left + side])
        if rng.random() < 0.5:
            clean = np.ascontiguousarray(clean[:, ::-1])
        count = rng.choices(list(COUNTS), list(COUNTS.values()))[0]
        recipe = sample_recipe(rng.getrandbits(48), WISHES, count) if count else []
        lq = np.rint(render(to_float(clean), recipe).clip(0, 1) * 255).astype(np.uint8) if recipe else clean
        yield lq, clean, {step["kind"] for step in recipe}


def seen_of(images: ImageSource, number: int, seed: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """(N, 16, 64, 64, 3) and (N, 64, 64, 3) uint8; (N, 9) what is there."""
    patches = np.empty((number, 16, 64, 64, 3), np.uint8)
    whole = np.empty((number, 64, 64, 3), np.uint8)
    there = torch.zeros(number, len(WISHES))
    for index, (lq, _, kinds) in enumerate(degraded(images, number, seed)):
        patches[index], whole[index] = views(lq)
        there[index] = torch.tensor([float(kind in kinds) for kind in WISHES])
    return patches, whole, there


def logits_of(network: SightNetwork, patches: np.ndarray, whole: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        parts = range(0, len(whole), 50)
        return torch.cat([network(as_input(patches[i : i + 50]), as_input(whole[i : i + 50])) for i in parts])


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    patches, whole, there = seen_of(_source(options.train, "--train"), options.samples, options.seed + 1)
    val = seen_of(_source(options.val, "--val"), options.val_count, 7)
    network = SightNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    order = np.empty(0, int)
    start = time.monotonic()
    for step in tqdm(range(options.steps), desc="training", disable=None):
        if len(order) < BATCH:
            order = rng.permutation(len(there))
        batch, order = order[:BATCH], order[BATCH:]
        near, far = as_input(patches[batch][:, rng.permutation(16)[:PATCHES]]), as_input(whole[batch])
        if rng.random() < 0.5:
            near, far = near.flip(-1), far.flip(-1)
        if rng.random() < 0.5:
            near, far = near.transpose(-1, -2).contiguous(), far.transpose(-1, -2).contiguous()
        rate = RATE * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / options.steps)) + 1e-6
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = F.binary_cross_entropy_with_logits(network(near, far), there[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    minutes = (time.monotonic() - start) / 60
    network.eval()
    macro = float(scores(logits_of(network, *val[:2]), val[2]).mean())
    record = {
        "command": "python scripts/train_sight.py", "samples": options.samples, "steps": options.steps,
        "minutes": round(minutes, 1), "val_macro_f1": round(macro, 4),
    }  # fmt: skip
    with replace_on_success(options.output) as temporary:
        metadata = {"config": json.dumps(network.config), "training": json.dumps(record)}
        save_file({name: value.half() for name, value in network.state_dict().items()}, temporary, metadata)
    print(json.dumps(record))


def scores(logits: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """(9,) F1 of each kind at one half."""
    told = (logits >= 0).float()
    return 2 * (told * there).sum(0) / (told.sum(0) + there.sum(0)).clamp(min=1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-2)))  # at most 68 dB


def evaluate(options: argparse.Namespace) -> None:
    network = load_network(options.evaluate)
    source = _source(options.val, "--val")
    patches, whole, there = seen_of(source, max(options.val_count, options.restored), 7)
    logits = logits_of(network, patches, whole)
    print("| kind | F1 |\n|---|---|")
    for kind, value in zip(WISHES, scores(logits, there).tolist()):
        print(f"| {kind} | {value:.2f} |")
    nothing = there.sum(1) == 0
    print(f"| all nine right | {((logits >= 0) == (there > 0)).all(1).float().mean():.2f} |")
    print(f"| nothing seen where nothing is | {(logits[nothing] < 0).all(1).float().mean():.2f} |")

    restorer, found = Restorer.from_pretrained("tiny"), {}
    for index, (lq, clean, kinds) in enumerate(degraded(source, options.restored, 7)):
        seen = frozenset(kind for kind, value in zip(WISHES, logits[index].tolist()) if value >= 0)
        results = [lq, *(restorer.restore(lq, wish) for wish in (Wish(), Wish(seen or None), Wish(kinds)))]
        for group in (*kinds, {0: "nothing", 1: "one kind"}.get(len(kinds), "several kinds"), "all"):
            found.setdefault(group, []).append([psnr(result, clean) for result in results])
    columns = ("PSNR, dB", "images", "input", "told nothing", "told what was seen", "told what is there")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for group in (*WISHES, "nothing", "one kind", "several kinds", "all"):
        if group in found:
            means = " | ".join(f"{value:.2f}" for value in np.mean(found[group], 0))
            print(f"| {group} | {len(found[group])} | {means} |")


def _source(folder: str, label: str) -> ImageSource:
    return ImageSource(folder, {"type": "disk", "cache": True}, label=label)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="folder of clean images to train on")
    parser.add_argument("--val", required=True, help="folder of other clean images")
    parser.add_argument("-o", "--output", help="where the trained network goes")
    parser.add_argument("--evaluate", metavar="FILE", help="measure this one instead")
    parser.add_argument("--samples", type=int, default=20000, help="degraded crops (default: 20000, 4 GB of memory)")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--val-count", type=int, default=1200)
    parser.add_argument("--restored", type=int, default=300, help="crops that --evaluate restores (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if options.evaluate:
            evaluate(options)
        elif options.train and options.output:
            train(options)
        else:
            parser.error("--train and -o are needed, or --evaluate")
    except UserError as error:
        print(f"train_sight: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
