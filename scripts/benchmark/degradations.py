#!/usr/bin/env python
"""Prints how many samples one core renders in a second: each kind, recipes of several, and PromptDegradationDataset.

    python scripts/benchmark/degradations.py
    python scripts/benchmark/degradations.py --size 256 --seconds 5 --images photos/ --workers 2

Without --images the photographs are scikit-image's, stored as PNG in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler

from prompt_mamba_arch.data import KINDS, ImageSource, render, sample_recipe, to_float
from prompt_mamba_arch.data.degradations import sample_step
from prompt_mamba_arch.data.prompt_degradation_dataset import PromptDegradationDataset
from prompt_mamba_arch.errors import UserError, plain_line


def milliseconds(work: Callable[[int], object], seconds: float) -> list[float]:
    """Durations of work(0), work(1), …, for about that long; the first three are not counted."""
    for i in range(3):
        work(i)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        work(len(times) + 3)
        times.append(1000 * (time.perf_counter() - start))
    return times


def report(name: str, times: list[float]) -> None:
    ordered = sorted(times)
    print(
        f"{name:<28}{statistics.mean(times):8.2f} ms mean{statistics.median(times):8.2f} ms median"
        f"{ordered[int(0.95 * len(ordered))]:8.2f} ms 95 %{1000 / statistics.mean(times):9.0f} /s"
    )


def write_shipped_photos(folder: str) -> None:
    try:
        from skimage import data
    except ImportError:
        raise UserError("scikit-image is not installed; install it or name a folder with --images") from None
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        cv2.imwrite(os.path.join(folder, f"{name}.png"), np.ascontiguousarray(getattr(data, name)()[..., 2::-1]))


def run(args: argparse.Namespace, folder: str) -> None:
    source = ImageSource(folder, label="--images")
    crops = []
    for key in source.keys[:8]:
        image = to_float(source.read(key))
        if min(image.shape[:2]) < args.size:
            raise UserError(f"{source.path(key)} is smaller than --size {args.size}")
        top, left = (image.shape[0] - args.size) // 2, (image.shape[1] - args.size) // 2
        crops.append(np.ascontiguousarray(image[top : top + args.size, left : left + args.size]))
    print(f"{args.size}x{args.size} crops, one core")
    for kind in KINDS:
        steps = [[sample_step(kind, seed)] for seed in range(200)]
        report(kind, milliseconds(lambda i, s=steps: render(crops[i % len(crops)], s[i % 200]), args.seconds))
    recipes = [sample_recipe(seed) for seed in range(500)]
    report("recipe of 1 to 3", milliseconds(lambda i: render(crops[i % len(crops)], recipes[i % 500]), args.seconds))
    report("drawing a recipe", milliseconds(sample_recipe, args.seconds))
    options = {"name": "benchmark", "dataroot_gt": folder, "gt_size": args.size, "use_hflip": True, "use_rot": True}
    data = PromptDegradationDataset({**options, "phase": "train", "prompts": args.prompts})
    report("dataset sample, 1 process", milliseconds(lambda i: data[i % len(data)], args.seconds))
    if args.workers:
        count = max(64, int(100 * args.seconds) * args.workers)
        sampler = RandomSampler(data, replacement=True, num_samples=count)
        loader = DataLoader(data, batch_size=8, sampler=sampler, num_workers=args.workers)
        done, start = 0, None
        for batch in loader:
            if start is None:  # the workers have started
                start = time.perf_counter()
            else:
                done += len(batch["key"])
        print(f"{f'dataset, {args.workers} workers':<28}{done / (time.perf_counter() - start):57.0f} /s")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=128, help="side of a crop in px")
    parser.add_argument("--seconds", type=float, default=2, help="for each line")
    parser.add_argument("--images", help="folder of clean photographs")
    parser.add_argument("--prompts", default="bank", help="bank, none or a .jsonl file")
    parser.add_argument("--workers", type=int, default=0, help="also measure a DataLoader with so many")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            if not args.images:
                write_shipped_photos(folder)
            run(args, args.images or folder)
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(f"degradations: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
