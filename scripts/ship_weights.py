"""Makes of a training run the file that is shipped: weights in half precision, constructor arguments, training record.

    python scripts/ship_weights.py experiments/starter_phase0 experiments/starter_phase1 experiments/starter_phase2 \\
        --data "BSDS500 train and test (391 images), ..." --check DIR -o prompt_mamba_arch/weights/tiny.safetensors

Takes the averaged weights of the last folder's newest network. What half precision costs is measured on the images of
--check (with noise, without a prompt), and the file is not written if that is 0.01 dB or more. The record, JSON under
the key `training`, has the hours of each phase and the validation's curve from the runs' logs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

import prompt_mamba_arch
from prompt_mamba_arch.data.image_source import ImageSource
from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.restore import Restorer

_ITERATION = re.compile(r"^(\S+ \S+),\d+ INFO: \[.*iter:\s*([\d,]+)")
_METRIC = re.compile(r"# psnr: ([\d.]+)")
_PAUSE = 600  # seconds without a line: the run was interrupted
_COST = 0.01  # dB
_CROP = 256


def record_of(run: Path) -> dict:
    """Iterations, hours, and [hours, iteration, PSNR] of each validation of the first validation set."""
    logs = sorted(run.glob("train_*.log"))
    if not logs:
        raise UserError(f"{str(run)!r} holds no train_*.log; name the folders of finished runs")
    seconds, last, iteration, curve, read = 0.0, None, 0, [], 0
    for line in (line for log in logs for line in log.read_text(encoding="utf-8").splitlines()):
        found = _ITERATION.match(line)
        if found:
            now = datetime.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S")
            if last is not None and (now - last).total_seconds() < _PAUSE:
                seconds += (now - last).total_seconds()
            last, iteration = now, int(found[2].replace(",", ""))
        found = _METRIC.search(line)
        if found and iteration != read:  # one value each time, of the first set
            curve.append([round(seconds / 3600, 3), iteration, float(found[1])])
            read = iteration
    return {"name": run.name, "iterations": iteration, "hours": round(seconds / 3600, 2), "validation": curve}


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return re.search(r"model name\s*:\s*(.+)", text)[1].strip()
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2) + 1e-12))


def cost_of_half(full: Restorer, half: Restorer, folder: str) -> float:
    """Mean loss of PSNR in dB, on crops with noise of standard deviation 25 / 255."""
    costs = []
    images = ImageSource(folder, label="--check")
    for index, key in enumerate(tqdm(images.keys, desc="half precision")):
        gt = images.read(key)[:_CROP, :_CROP].astype(np.float32) / 255
        noise = np.random.default_rng(index).normal(0, 25 / 255, gt.shape)
        lq = (gt + noise).clip(0, 1).astype(np.float32)
        costs.append(psnr(full.restore(lq), gt) - psnr(half.restore(lq), gt))
    return float(np.mean(costs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of the runs, in their order")
    parser.add_argument("--data", required=True, help="what it was trained on, in a sentence, with licences")
    parser.add_argument("--check", required=True, help="folder of clean images that were not trained on")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the .safetensors file")
    args = parser.parse_args()

    newest = args.runs[-1] / "models" / "net_g_latest.pth"
    full = Restorer.from_pretrained(newest)
    loaded = torch.load(newest, map_location="cpu", weights_only=True)
    state = {name: t.half().contiguous() for name, t in loaded["params_ema"].items()}
    training = {
        "data": args.data,
        "phases": [record_of(run) for run in args.runs],
        "hardware": f"{processor()}, {platform.system()}, no GPU",
        "torch": torch.__version__,
        "version": prompt_mamba_arch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    metadata = {"network_g": json.dumps(loaded["network_g"]), "phase": loaded["phase"]}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(args.output) as temporary:
        save_file(state, temporary, {**metadata, "training": json.dumps(training)})
        temporary.chmod(0o644)  # safetensors makes a file for its owner alone
        cost = cost_of_half(full, Restorer.from_pretrained(temporary), args.check)
        if cost >= _COST:
            raise SystemExit(f"half precision costs {cost:.4f} dB, which is too much; nothing was written")
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.2f} MiB; half precision costs {cost:.4f} dB")
    for phase in training["phases"]:
        print(f"{phase['name']}: {phase['iterations']} iterations, {phase['hours']} h")


if __name__ == "__main__":
    main()
