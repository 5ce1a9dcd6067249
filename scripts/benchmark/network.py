"""Time and memory of the whole network over the size of the image.

    python scripts/benchmark/network.py [-o report.md] [--size tiny] [--megapixels 0.25 1 4 16] [--threads 2]

Each image is restored in a process of its own, in one piece, so that the peak of memory is its own. The exponent p in
time ~ pixels^p is fitted by least squares to the logarithms: 1 is linear.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import torch
from measure import PeakMemory, Report, arguments, machine, table

DEFAULT = (0.25, 0.5, 1, 2, 4, 8, 16)  # megapixels, sides 4 : 3


def sides(megapixels: float) -> tuple[int, int]:
    height = math.sqrt(megapixels * 1e6 * 3 / 4)
    return round(height / 16) * 16, round(height * 4 / 3 / 16) * 16


def measure_one(size: str, megapixels: float, threads: int, rounds: int) -> dict:
    from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = PromptMamba.from_size(size).eval()
    height, width = sides(megapixels)
    with torch.no_grad():
        net(torch.rand(1, 3, 64, 64))  # what is loaded and allocated once
        x = torch.rand(1, 3, height, width)
        memory = PeakMemory()
        taken = []
        for _ in range(rounds):
            start = time.perf_counter()
            net(x)
            taken.append(time.perf_counter() - start)
    return {"pixels": height * width, "size": f"{width} x {height}", "seconds": min(taken), "bytes": memory.bytes()}


def exponent(found: list[dict], key: str) -> float:
    """NaN where fewer than two sizes have a figure: a small image may fit into memory that was there already."""
    points = [(math.log(f["pixels"]), math.log(f[key])) for f in found if f[key] > 0]
    if len({x for x, _ in points}) < 2:
        return math.nan
    x_mean, y_mean = (sum(values) / len(points) for values in zip(*points))
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.set_defaults(rounds=3)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--megapixels", type=float, nargs="+", default=DEFAULT)
    parser.add_argument("--one", action="store_true", help="measure the first size only, and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(options.size, options.megapixels[0], options.threads, options.rounds)))
        return
    report = Report(f"PromptMamba {options.size} over the size of the image")
    report.add(machine(options.threads))
    found = []
    for megapixels in options.megapixels:
        command = [sys.executable, __file__, "--one", "--size", options.size, "--megapixels", str(megapixels)]
        command += ["--threads", str(options.threads), "--rounds", str(options.rounds)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            report.add(
                f"{megapixels} megapixels: {(run.stderr.strip() or 'killed, out of memory?').splitlines()[-1]}\n"
            )
            continue
        found.append(json.loads(run.stdout))
    rows = [
        [
            f["size"],
            f"{f['pixels'] / 1e6:.2f}",
            f"{f['seconds']:.2f}",
            f"{f['seconds'] / f['pixels'] * 1e6:.2f}",
            f"{f['bytes'] / 2**20:.0f}",
            f"{f['bytes'] / f['pixels']:.0f}",
        ]
        for f in found
    ]
    header = ["image", "megapixels", "seconds", "seconds / megapixel", "peak memory, MB", "bytes / pixel"]
    report.add(f"## {options.threads} thread(s), best of {options.rounds}\n", table(header, rows))
    if len(found) > 1:
        report.add(f"time ~ pixels^{exponent(found, 'seconds'):.2f}, memory ~ pixels^{exponent(found, 'bytes'):.2f}\n")
    report.save(options.output)


if __name__ == "__main__":
    main()
