"""How fast a training sample is read: BasicSR's PairedImageDataset against PromptPairedImageDataset, same files; from a
folder, from a LMDB of BasicSR's tool (PNG at level 1) and from one of `prompt-mamba prepare` (the files as they are).

    python scripts/benchmark/dataset.py [-o report.md]

Makes 24 pairs of 480x320 PNGs (crops of scikit-image's photographs; lq with noise of sigma 25/255), lets a process for
each dataset read them in turns, checks that the samples are bit-identical, and prints a Markdown table of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import prompt_mamba_arch  # noqa: F401  isort: skip  (BasicSR can be imported only after it)
import cv2
import numpy as np
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

from prompt_mamba_arch.data.prompt_paired_image_dataset import PromptPairedImageDataset
from prompt_mamba_arch.errors import replace_on_success
from prompt_mamba_arch.prepare.images import Shape
from prompt_mamba_arch.prepare.lmdb_writer import Entry, write_lmdb

WIDTH, HEIGHT, PAIRS = 480, 320, 24


def make_pairs(root: Path) -> None:
    from skimage import data

    rng = np.random.default_rng(0)
    photos = [data.astronaut(), data.coffee(), data.rocket()]
    for folder in ("gt", "lq"):
        (root / folder).mkdir()
    for index in range(PAIRS):
        photo = photos[index % len(photos)][..., ::-1]
        top, left = rng.integers(photo.shape[0] - HEIGHT + 1), rng.integers(photo.shape[1] - WIDTH + 1)
        gt = np.ascontiguousarray(photo[top : top + HEIGHT, left : left + WIDTH])
        lq = np.clip(gt + rng.normal(0, 25, gt.shape), 0, 255).round().astype(np.uint8)
        cv2.imwrite(str(root / "gt" / f"{index:04d}.png"), gt)
        cv2.imwrite(str(root / "lq" / f"{index:04d}.png"), lq)


# storage -> end of the folders' names
STORED = {"disk": "", "lmdb (BasicSR's tool)": ".lmdb", "lmdb (prepare)": "_prepared.lmdb"}


def options(root: Path, storage: str) -> dict:
    suffix = STORED[storage]
    return {
        "name": "benchmark", "type": "", "phase": "train", "scale": 1,
        "io_backend": {"type": "lmdb" if suffix else "disk"},
        "dataroot_gt": f"{root / 'gt'}{suffix}", "dataroot_lq": f"{root / 'lq'}{suffix}",
        "gt_size": 128, "use_hflip": True, "use_rot": True,
    }  # fmt: skip


def serve(opt: dict, ours: bool, workers: int, pipe) -> None:
    """A trainer with its loader: for each message reads all samples once and answers with the seconds that
    took. The first answer is a checksum of the samples instead.

    Each dataset has processes of its own, and batches go as soon as they have come, as in training: a heap that the
    other dataset, or kept batches, have grown would hide what large temporary arrays cost.
    """
    torch.set_num_threads(1)
    start_worker(0)
    if ours:
        dataset = PromptPairedImageDataset({**opt, "prompts": "remove the noise"})
    else:
        dataset = PairedImageDataset(copy.deepcopy(opt))
        dataset.paths.sort(key=lambda pair: pair["gt_path"])  # a folder's come in no order
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=workers, persistent_workers=workers > 0, worker_init_fn=start_worker
    )
    checksum = hashlib.sha256()
    for batch in loader:
        checksum.update(batch["lq"].numpy().tobytes() + batch["gt"].numpy().tobytes())
    pipe.send(checksum.hexdigest())
    while pipe.recv():
        start = time.perf_counter()
        for _ in loader:
            pass
        pipe.send(time.perf_counter() - start)


def start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    random.seed(0)


def compare(opt: dict, workers: int, rounds: int) -> tuple[float, float]:
    """Median milliseconds of a sample: BasicSR's, ours. Turns alternate, so both meet the same load of the machine."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for ours in (False, True):
        here, there = context.Pipe()
        processes.append(context.Process(target=serve, args=(opt, ours, workers, there)))
        processes[-1].start()
        pipes.append(here)
    same = pipes[0].recv() == pipes[1].recv()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds if same else 0):
        for which in (0, 1) if turn % 2 else (1, 0):
            pipes[which].send(True)
            times[which].append(1000 * pipes[which].recv() / PAIRS)
    for pipe, process in zip(pipes, processes):
        pipe.send(False)
        process.join()
    if not same:
        raise SystemExit("the samples differ: the comparison is void")
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", help="also write the table to this file")
    parser.add_argument("--rounds", type=int, default=10, help="how often every pair is read (default 10)")
    args = parser.parse_args()
    lines = [
        f"Training samples, 128x128 patches of {WIDTH}x{HEIGHT} PNG pairs, one thread, warm page cache: median of "
        f"{args.rounds} interleaved rounds of {PAIRS} samples. The samples are bit-identical.",
        "",
        "| storage | loader workers | PairedImageDataset (BasicSR) | PromptPairedImageDataset | speed-up | samples/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pairs(root)
        for kind in ("gt", "lq"):
            names = sorted(path.name for path in (root / kind).iterdir())
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                make_lmdb_from_imgs(str(root / kind), str(root / f"{kind}.lmdb"), names, [n[:-4] for n in names])
            entries = [Entry(n[:-4], root / kind / n, Shape(HEIGHT, WIDTH, 3), ()) for n in names]
            write_lmdb(root / f"{kind}_prepared.lmdb", entries, {}, workers=1)
        for storage in STORED:
            for workers in (0, 1):
                theirs, ours = compare(options(root, storage), workers, args.rounds)
                figures = f"{theirs:.2f} ms | {ours:.2f} ms | {theirs / ours:.2f}x | {1000 / ours:.0f}"
                lines.append(f"| {storage} | {workers} | {figures} |")
    report = "\n".join(lines) + "\n"
    print(report, end="")
    if args.output:
        with replace_on_success(args.output) as temporary:
            temporary.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
