"""A dry run of `prompt-mamba prepare lsdir` at LSDIR's size: is it linear in the number of images, and how much memory
does it take?

    python scripts/benchmark/prepare.py [-o report.md] [--images 84991] [--folder DIR]

Makes a tree as LSDIR unpacks (numbered folders of 1000, HR and X4, train_X4.json) from hard links of a few small crops
of photographs, prepares it with LMDBs, prepares it again, and starts the dataset from the folder and from the LMDB: for
a quarter, for half and for all of the images, each in a process of its own. Times are of the clock and of the
processor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

from measure import PeakMemory, Report, processor, table

STAGES = ("tree", "images", "prompts", "lmdbs", "again", "start folder", "start LMDB")
SIDE = 64  # pixels of an HR crop


def make_tree(root: Path, count: int) -> None:
    import cv2
    import skimage.data

    photo = skimage.data.astronaut()
    crops = root / "crops"
    crops.mkdir(parents=True)
    for number in range(64):
        top, left = 37 * number % 400, 91 * number % 400
        hr = photo[top : top + SIDE, left : left + SIDE, ::-1]
        cv2.imwrite(str(crops / f"hr{number}.png"), hr)
        cv2.imwrite(
            str(crops / f"lr{number}.png"), cv2.resize(hr, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        )
    pairs = []
    for number in range(1, count + 1):
        folder = f"{(number // 1000 + 1) * 1000:07d}"
        pair = {"path_gt": f"HR/train/{folder}/{number:07d}.png", "path_lq": f"X4/train/{folder}/{number:07d}x4.png"}
        for path, crop in zip(pair.values(), ("hr", "lr")):
            target = root / "LSDIR" / path
            if number % 1000 in (0, 1):
                target.parent.mkdir(parents=True, exist_ok=True)
            os.link(crops / f"{crop}{number % 64}.png", target)
        pairs.append(pair)
    (root / "LSDIR/train_X4.json").write_text(json.dumps(pairs))


class Stages:
    """Time and memory of one stage after another.

    Attributes:
        taken: stage -> (seconds on the clock, of the processor, MiB at most beyond what was held at the beginning).
    """

    def __init__(self):
        self.taken: dict[str, tuple[float, float, float]] = {}
        self._stage = ""

    def begin(self, stage: str) -> None:
        if stage == self._stage:
            return
        self.end()
        self._stage, self._clock, self._cpu, self._peak = stage, time.perf_counter(), time.process_time(), PeakMemory()

    def end(self) -> None:
        if self._stage:
            spent = time.perf_counter() - self._clock, time.process_time() - self._cpu, self._peak.bytes() / 2**20
            before = self.taken.get(self._stage, (0, 0, 0))
            self.taken[self._stage] = (before[0] + spent[0], before[1] + spent[1], max(before[2], spent[2]))
        self._stage = ""


def measure(folder: str, count: int, workers: int, answer) -> None:
    from prompt_mamba_arch.data.prompt_paired_image_dataset import PromptPairedImageDataset
    from prompt_mamba_arch.prepare import dataset, prepare

    root, stages = Path(folder), Stages()
    whole = PeakMemory()
    stages.begin("tree")
    make_tree(root, count)
    names = {"images": "images", "prompts": "prompts", "gt.lmdb": "lmdbs", "lq_x4.lmdb": "lmdbs"}
    stages.begin("images")
    made = prepare(
        dataset("lsdir"), root / "LSDIR", root / "out", only=["train"], lmdb=True, partial=True, workers=workers,
        progress=lambda what, done, total: stages.begin(names[what.split(": ")[1]]),
    )  # fmt: skip
    stages.begin("again")
    again = prepare(
        dataset("lsdir"), root / "LSDIR", root / "out", only=["train"], lmdb=True, partial=True, workers=workers
    )
    if made[0].images != count or made[0].problems or again[0].written:
        raise SystemExit(
            f"not as it should be: {made[0].images} of {count}, {made[0].problems[:3]}, {again[0].written}"
        )
    out = root / "out/train"
    base = {"name": "LSDIR", "phase": "train", "scale": 4, "gt_size": SIDE}
    stages.begin("start folder")
    disk = PromptPairedImageDataset(
        {
            **base,
            "dataroot_gt": str(out / "gt"),
            "dataroot_lq": str(out / "lq_x4"),
            "prompts": str(out / "prompts.jsonl"),
        }
    )
    stages.begin("start LMDB")
    lmdb = PromptPairedImageDataset(
        {**base, "dataroot_gt": str(out / "gt.lmdb"), "dataroot_lq": str(out / "lq_x4.lmdb"), "prompts": "lmdb",
         "io_backend": {"type": "lmdb"}}
    )  # fmt: skip
    stages.end()
    if len(disk) != count or len(lmdb) != count or (disk[count - 1]["gt"] != lmdb[count - 1]["gt"]).any():
        raise SystemExit("the datasets differ")
    size = sum(file.stat().st_size for name in ("gt.lmdb", "lq_x4.lmdb") for file in (out / name).glob("data.mdb"))
    answer.put((stages.taken, whole.bytes() / 2**20, size / 2**20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the report to this file, too")
    parser.add_argument("--images", type=int, default=84_991, help="of the largest run (default: LSDIR's 84991)")
    parser.add_argument("--workers", type=int, default=2, help="images at a time (default: 2)")
    parser.add_argument("--folder", type=Path, help="for the data, 2 GB at LSDIR's size (default: a temporary one)")
    args = parser.parse_args()
    report = Report("prompt-mamba prepare lsdir, dry run")
    report.add(f"{processor()}, {args.workers} workers; HR {SIDE} x {SIDE} pixels, hard links of 64 crops.\n")
    rows, totals = [], []
    for count in (args.images // 4, args.images // 2, args.images):
        with tempfile.TemporaryDirectory(dir=args.folder, prefix="prepare-", ignore_cleanup_errors=False) as folder:
            context = multiprocessing.get_context("spawn")
            answer = context.Queue()
            process = context.Process(target=measure, args=(folder, count, args.workers, answer))
            process.start()
            while process.is_alive() and answer.empty():
                time.sleep(0.2)
            if answer.empty():
                raise SystemExit("the run failed")
            taken, peak, size = answer.get()
            process.join()
            shutil.rmtree(Path(folder) / "out", ignore_errors=True)
        for stage in STAGES:
            clock, cpu, memory = taken[stage]
            each = f"{1e6 * cpu / count:.0f}"
            rows.append([count, stage, f"{clock / 60:.2f}", f"{cpu / 60:.2f}", each, f"{memory:.0f}"])
        work = [taken[stage] for stage in ("images", "prompts", "lmdbs")]
        totals.append(
            [count, *(f"{sum(one[i] for one in work) / 60:.2f}" for i in (0, 1)), f"{peak:.0f}", f"{size:.0f}"]
        )
    report.add(table(["images", "stage", "minutes", "of the processor", "µs an image", "MiB at most"], rows))
    report.add(table(["images", "minutes in all", "of the processor", "MiB at most", "MiB of LMDBs"], totals))
    report.save(args.output)


if __name__ == "__main__":
    main()
