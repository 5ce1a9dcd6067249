"""Tiles against the whole image: what they change, what memory and time they take.

    python scripts/benchmark/tiling.py [--model tiny] [-o report.md] [--tiles 128 256] [--megapixels 1 4 16]
    python scripts/benchmark/tiling.py --model tiny --tiles --large-difference 512 1024
    python scripts/benchmark/tiling.py --model random:stand-in --tiles --megapixels --files jpg tif

Difference: photographs that scikit-image ships are made noisy and restored in one piece and in tiles; both are compared
with the photograph (dB), and with each other; with --large-difference also photographs of 3 megapixels, which are these
repeated in mirror images, in tiles as large photographs get them. The seam metric looks at the tiled result less the
whole one: the mean step across the lines where a tile begins or ends to be seen, divided by the mean step across all
other lines. 1 means that the tiles' borders cannot be told from other places.

Half precision and ensemble: what they change on the same photographs, and the time they take on one thread.

Memory and time: larger images, each restored in a process of its own, so that the peak of memory is its own. The image
and its result (6 bytes a pixel) are left out of the peak: what is counted is what restoring takes beside them.

Files: the same from a file to a file, as `prompt-mamba restore` does it, and nothing is left out: what is counted is by
how much the process's memory, mapped files included, is larger at its peak than before with the network loaded.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Report, arguments, machine, table

from prompt_mamba_arch.image_io import Photo, read_size, write_photo
from prompt_mamba_arch.restore import _OVERLAP, Restorer
from prompt_mamba_arch.tiling import tile_spans

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SIGMA = 25  # of the noise, of 255


def load(model: str) -> Restorer:
    """A shipped network or a file; `random:SIZE` is one that has learned nothing, to try this program with, and
    `random:stand-in` a single convolution, to see what all else takes."""
    if not model.startswith("random:"):
        return Restorer.from_pretrained(model, "cpu")
    import torch

    from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba

    torch.manual_seed(0)
    size = model.partition(":")[2]
    if size == "stand-in":
        return Restorer(torch.nn.Conv2d(3, 3, 3, padding=1), name=model, device="cpu")
    net = PromptMamba(size=size)
    with torch.no_grad():
        net.outro.weight.mul_(20)  # or it would change nothing
    return Restorer(net, name=model, device="cpu")


def noisy(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, and with noise."""
    from skimage import data

    truth = getattr(data, name)()[..., :3]
    noise = np.random.default_rng(0).normal(0, SIGMA, truth.shape)
    return truth, (truth + noise).round().clip(0, 255).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def seam(whole: np.ndarray, tiled: np.ndarray, tile: int, multiple: int) -> float:
    """Mean step of (tiled - whole) across the lines where a tile begins or ends to be seen / across all other lines."""
    difference = tiled.astype(np.float64) - whole
    overlap = min(_OVERLAP, tile // 4)
    at_seams, elsewhere = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(difference, axis=axis)).mean(axis=(1 - axis, 2))  # one for each line
        spans = tile_spans(whole.shape[axis], tile, overlap, multiple)
        lines = {edge for start, stop in spans for edge in (start, start + overlap // 4, stop - overlap // 4, stop)}
        lines = {line - 1 for line in lines if 0 < line < whole.shape[axis]}
        at_seams += [steps[line] for line in lines]
        elsewhere += [step for line, step in enumerate(steps) if line not in lines]
    return float(np.mean(at_seams) / max(np.mean(elsewhere), 1e-12)) if at_seams else math.nan


def compare(restorer: Restorer, tiles: list[int], prompt: str | None, megapixels: float = 0) -> list[list[str]]:
    """`megapixels`: of the photographs, repeated; 0 for themselves."""
    rows = []
    for name in PHOTOGRAPHS if tiles else ():
        truth, image = (large(megapixels, one) if megapixels else one for one in noisy(name))
        whole = restorer.restore(image, prompt, tile="none")
        before, best = psnr(image, truth), psnr(whole, truth)
        for tile in tiles:
            tiled = restorer.restore(image, prompt, tile=tile)
            worse, alike = f"{psnr(tiled, truth) - best:+.3f}", f"{psnr(tiled, whole):.1f}"
            seams = f"{seam(whole, tiled, tile, restorer._multiple):.3f}"
            rows.append([name, tile, f"{before:.2f}", f"{best:.3f}", worse, alike, seams])
    return rows


def options(restorer: Restorer, prompt: str | None) -> list[list[str]]:
    """dB against the photograph, and processor time / that of float32, in half precision and of the ensemble."""
    half = Restorer(restorer.net, name=restorer.name, device="cpu", phase=restorer.phase, half=True)
    ways = {
        "float32": (restorer, False),
        str(half.half).replace("torch.", ""): (half, False),
        "ensemble": (restorer, True),
    }
    if half.half is None:
        del ways["None"]
    rows = []
    for name in PHOTOGRAPHS:
        truth, image = noisy(name)
        found = {}
        for way, (one, ensemble) in ways.items():
            start = time.process_time()
            restored = one.restore(image, prompt, tile="none", ensemble=ensemble)
            found[way] = psnr(restored, truth), time.process_time() - start
        best, taken = found.pop("float32")
        rows += [[name, way, f"{best:.3f}", f"{db - best:+.3f}", f"{t / taken:.2f}"] for way, (db, t) in found.items()]
    return rows


def large(megapixels: float, image: np.ndarray | None = None) -> np.ndarray:
    """A photograph, repeated in mirror images up to this size, sides 4 : 3; uint8."""
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    image = noisy("astronaut")[1] if image is None else image
    both = np.concatenate([image, image[:, ::-1]], axis=1)
    both = np.concatenate([both, both[::-1]])
    width = round(height * 4 / 3)
    times = (-(-height // both.shape[0]), -(-width // both.shape[1]), 1)
    return np.tile(both, times)[:height, :width]


def peak_memory() -> int:
    """Bytes, of this process. On Linux not getrusage's, which begins with the memory of the process that started it."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> int:
    """Begins a new peak where the system can (Linux), and returns what is in use; else the peak so far."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_memory()


def measure_one(model: str, megapixels: float, tile: str | int, threads: int, prompt: str | None) -> dict:
    import torch

    torch.set_num_threads(threads)
    restorer = load(model)
    image = large(megapixels)
    restorer.restore(image[:64, :64], prompt, tile="none")  # what is loaded and allocated once
    before = forget_peak()
    start = time.perf_counter()
    restorer.restore(image, prompt, tile=tile)
    taken = time.perf_counter() - start
    peak = peak_memory() - before
    height, width = image.shape[:2]
    peak -= image.nbytes * restorer.upscale**2  # the result
    return {"pixels": height * width, "size": f"{width} x {height}", "seconds": taken, "bytes": max(peak, 0)}


def measure_file(model: str, path: str, tile: str | int, threads: int, prompt: str | None) -> dict:
    import torch

    from prompt_mamba_arch import batch

    torch.set_num_threads(threads)
    restorer = load(model)
    source = Path(path)
    wish = batch.Wish(prompts=(prompt,) if prompt else (), tile=tile, overwrite=True)
    small = source.with_name(f"small{source.suffix}")
    write_photo(small, Photo(large(0.01)))
    target = source.with_name(f"result{source.suffix}")
    for one in (small, source):  # the first for what is loaded and allocated once
        before = forget_peak()
        start = time.perf_counter()
        batch.restore_file(restorer, (one, target, None), wish)
        taken = time.perf_counter() - start
    height, width = read_size(target)
    found = {"pixels": height * width, "size": f"{width} x {height}", "seconds": taken}
    return {**found, "bytes": peak_memory() - before}


def run_one(command: list[str]) -> dict | str:
    """What a process of its own has found, or why it has not."""
    run = subprocess.run([sys.executable, __file__, *command], capture_output=True, text=True, check=False)
    if run.returncode:
        return (run.stderr.strip() or "killed, out of memory?").splitlines()[-1]
    return json.loads(run.stdout)


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny", help="a network of the size random:tiny has learned nothing")
    parser.add_argument("--prompt", help="what to ask for (default: nothing)")
    parser.add_argument(
        "--tiles", type=int, nargs="*", default=[128, 256], help="sides to compare with the whole image"
    )
    parser.add_argument("--megapixels", type=float, nargs="*", default=[1, 4, 16, 64, 100])
    parser.add_argument("--large-tiles", nargs="+", default=["512", "1024"], help="sides for the large images, or none")
    parser.add_argument("--large-difference", type=int, nargs="*", default=[], metavar="TILE", help="what they change")
    parser.add_argument("--files", nargs="*", default=[], metavar="SUFFIX", help="formats to restore from file to file")
    parser.add_argument("--file-megapixels", type=float, nargs="*", default=[4, 16, 50, 100])
    parser.add_argument("--file-tile", type=int, default=512)
    parser.add_argument("--folder", help="for these files; not one that lies in memory (default: the system's)")
    parser.add_argument("--file", help="restore this one, and print JSON")
    parser.add_argument("--one", help="measure the first size with this tile only, and print JSON")
    args = parser.parse_args()
    if args.one:
        tile = args.one if args.one == "none" else int(args.one)
        print(json.dumps(measure_one(args.model, args.megapixels[0], tile, args.threads, args.prompt)))
        return
    if args.file:
        print(json.dumps(measure_file(args.model, args.file, args.file_tile, args.threads, args.prompt)))
        return
    report = Report(f"Tiles against the whole image, model {args.model}")
    report.add(machine(args.threads))
    header = ["photograph", "tile", "noisy, dB", "whole, dB", "tiled - whole, dB", "tiled against whole, dB", "seams"]
    restorer = load(args.model)
    about = "## What tiles change\n", "## What they change on photographs of 3 megapixels\n"
    for title, tiles, megapixels in zip(about, (args.tiles, args.large_difference), (0, 3)):
        if rows := compare(restorer, tiles, args.prompt, megapixels):
            report.add(title, table(header, rows))
            differences = [float(row[4]) for row in rows]
            report.add(f"mean difference {np.mean(differences):+.3f} dB, worst {min(differences):+.3f} dB\n")
    if args.tiles:
        header = ["photograph", "", "float32, dB", "difference, dB", "time / float32"]
        report.add("## Half precision and ensemble\n", table(header, options(restorer, args.prompt)))
    given = ["--threads", str(args.threads), "--model", args.model]
    given += ["--prompt", args.prompt] if args.prompt else []
    header = ["image", "megapixels", "peak memory, MB", "seconds", "seconds / megapixel"]

    def row(first: str, found: dict) -> list[str]:
        megapixels, seconds, peak = found["pixels"] / 1e6, found["seconds"], found["bytes"] / 2**20
        numbers = [f"{megapixels:.1f}", f"{peak:.0f}", f"{seconds:.1f}", f"{seconds / megapixels:.2f}"]
        return [first, found["size"], *numbers]

    rows = []
    for tile in args.large_tiles:
        for megapixels in args.megapixels:
            found = run_one(["--one", tile, "--megapixels", str(megapixels), *given])
            if isinstance(found, str):
                report.add(f"{megapixels} megapixels, tile {tile}: {found}\n")
            else:
                rows.append(row(tile, found))
    if rows:
        report.add(f"## Memory and time, {args.threads} thread(s)\n", table(["tile", *header], rows))
    rows = []
    for suffix in args.files:
        for megapixels in args.file_megapixels:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                path = Path(folder) / f"photo.{suffix}"
                write_photo(path, Photo(large(megapixels)))
                found = run_one(["--file", str(path), "--file-tile", str(args.file_tile), *given])
            if isinstance(found, str):
                report.add(f"{suffix}, {megapixels} megapixels: {found}\n")
            else:
                rows.append(row(suffix, found))
    if rows:
        title = f"## From file to file, tiles of {args.file_tile}, {args.threads} thread(s)\n"
        report.add(title, table(["format", *header], rows))
    report.save(args.output)


if __name__ == "__main__":
    main()
