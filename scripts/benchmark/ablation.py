"""What each part of PromptMamba is worth: variants of `tiny`, trained on the same images for the same processor time.

    python scripts/benchmark/ablation.py --train DIR --val DIR [--seconds 140] [--seeds 0 1 2] [--only NAME ...]

Patches of the training images are degraded once, and all runs see the same ones in the same order: noise alone for the
first 15 % of the time (a mixture is hardly learned from scratch, see PSNRLoss), then one or two of all kinds.
Processor time of the training steps counts, on one thread, and the learning rate follows it, so a busy machine changes
nothing. Quality is the mean gain in PSNR over the kinds, each alone, on crops of images that were not trained on.
Results are kept in --work as they come, and a second run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure import Report, machine, table
from tqdm import tqdm

import prompt_mamba_arch  # noqa: F401
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.checkpoint_files import build_network
from prompt_mamba_arch.data import KINDS, render, sample_recipe
from prompt_mamba_arch.data.image_source import ImageSource, to_float
from prompt_mamba_arch.errors import replace_on_success
from prompt_mamba_arch.losses.psnr_loss import PSNRLoss

# name -> arguments beside `size: tiny`, or another network with its `type`
VARIANTS: dict[str, dict] = {
    "tiny": {},
    # Chen et al. 2022, of the same latency: scripts/equal_budget.py chose the width
    "NAFNet": {
        **{"type": "SpandrelArch", "arch": "NAFNet", "width": 14},
        **{"enc_blk_nums": [1, 1, 1, 4], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 1, 1]},
    },
    "convolution at every level": {"mixers": ["conv", "conv", "conv"]},
    "scan at every level": {"mixers": ["scan", "scan", "scan"]},
    "conv, scan, scan": {"mixers": ["conv", "scan", "scan"]},
    "conv, conv, scan": {"mixers": ["conv", "conv", "scan"]},
    "dense, scan, scan": {"mixers": ["dense", "scan", "scan"]},
    "dense, dense, scan": {"mixers": ["dense", "dense", "scan"]},
    "dense at every level": {"mixers": ["dense", "dense", "dense"]},
    "1 direction": {"directions": 1},
    "4 directions": {"directions": 4},
    "4 states": {"d_state": 4},
    "16 states": {"d_state": 16},
    "tied A": {"a_form": "tied"},
    "scalar A": {"a_form": "scalar"},
    "no depthwise convolution": {"local_conv": False},
    "no gate": {"gate": False},
    "no norm of the scan": {"scan_norm": False},
    "expand 1.5": {"expand": 1.5},
    "feed-forward 1.5": {"ffn_ratio": 1.5},
    "feed-forward 3": {"ffn_ratio": 3.0},
    "wider, shallower": {"dim": 48, "enc_blocks": [1, 1], "middle_blocks": 2, "dec_blocks": [1, 1]},
    "narrower, deeper": {"dim": 24, "enc_blocks": [3, 4], "middle_blocks": 6, "dec_blocks": [4, 3]},
    "one level more": {
        "enc_blocks": [2, 2, 2],
        "middle_blocks": 2,
        "dec_blocks": [2, 2, 2],
        "mixers": ["dense", "scan", "scan", "scan"],
    },
    "no unshuffle": {
        "unshuffle": 1,
        "dim": 16,
        "enc_blocks": [1, 2, 2],
        "dec_blocks": [2, 2, 1],
        "mixers": ["dense", "dense", "scan", "scan"],
    },
}
# how often each kind is drawn
WEIGHTS = {
    **{"noise": 3, "jpeg": 1.5, "lowres": 1.5, "defocus": 1.2},
    **{"motion": 1, "rain": 1, "haze": 1, "lowlight": 1, "holes": 1},
}
PATCH, BATCH, CROP = 64, 8, 256
PATCHES, NOISY = 12000, 6000
KICK = 0.15  # share of the time for noise alone
LEARNING_RATE, WARM_UP, EMA = 2e-3, 50, 0.99


def patches(images: ImageSource, number: int, size: int, kinds: dict, count, seed: int) -> tuple[np.ndarray, ...]:
    """(lq, gt), each (number, size, size, 3) uint8."""
    rng = random.Random(seed)
    gt = np.empty((number, size, size, 3), np.uint8)
    lq = np.empty_like(gt)
    for index in tqdm(range(number), desc="patches", leave=False):
        image = images.read(images.keys[rng.randrange(len(images))])
        top, left = (rng.randint(0, side - size) for side in image.shape[:2])
        patch = image[top : top + size, left : left + size]
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        if rng.random() < 0.5:
            patch = patch.transpose(1, 0, 2)
        gt[index] = patch
        recipe = sample_recipe(rng.getrandbits(48), kinds, count)
        lq[index] = np.rint(render(to_float(np.ascontiguousarray(patch)), recipe).clip(0, 1) * 255)
    return lq, gt


def middles(images: ImageSource, kind: str) -> tuple[np.ndarray, ...]:
    """The middle of each image, with one degradation that follows from its number."""
    gt, lq = [], []
    for index, key in enumerate(images.keys):
        image = images.read(key)
        top, left = ((side - CROP) // 2 for side in image.shape[:2])
        gt.append(image[top : top + CROP, left : left + CROP])
        recipe = sample_recipe(KINDS.index(kind) * 10007 + index, [kind], 1)
        lq.append(np.rint(render(to_float(np.ascontiguousarray(gt[-1])), recipe).clip(0, 1) * 255).astype(np.uint8))
    return np.stack(lq), np.stack(gt)


def prepare(train: str, val: str, file: Path) -> None:
    arrays = {}
    source = ImageSource(train, {"type": "disk", "cache": True}, label="--train")
    arrays["mixed_lq"], arrays["mixed_gt"] = patches(source, PATCHES, PATCH, WEIGHTS, (1, 2), seed=0)
    arrays["noisy_lq"], arrays["noisy_gt"] = patches(source, NOISY, PATCH, {"noise": 1}, 1, seed=1)
    source = ImageSource(val, {"type": "disk", "cache": True}, label="--val")
    for kind in KINDS:
        arrays[f"{kind}_lq"], arrays[f"{kind}_gt"] = middles(source, kind)
    with replace_on_success(file) as temporary, open(temporary, "wb") as out:
        np.savez(out, **arrays)


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous()  # (B, 3, H, W)


def train_one(arguments: dict, data: dict[str, np.ndarray], seconds: float, seed: int) -> tuple[torch.nn.Module, int]:
    torch.manual_seed(seed)
    net = build_network(arguments, "variant") if "type" in arguments else PromptMamba(size="tiny", **arguments)
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0)
    criterion = PSNRLoss(loss_weight=0.023)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    rng = np.random.default_rng(seed)
    order, which, used, steps = np.empty(0, int), "", 0.0, 0
    while used < seconds:
        now = "noisy" if used < KICK * seconds else "mixed"
        if now != which or len(order) < BATCH:
            which, order = now, rng.permutation(len(data[f"{now}_lq"]))
        batch, order = order[:BATCH], order[BATCH:]
        lq, gt = tensor(data[f"{which}_lq"][batch]), tensor(data[f"{which}_gt"][batch])
        start = time.process_time()
        rate = LEARNING_RATE * min(1, (steps + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * used / seconds)) + 1e-6
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        criterion(net(lq), gt).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            weight = 1 - min(EMA, (1 + steps) / (10 + steps))
            torch._foreach_lerp_(list(average.values()), list(net.state_dict().values()), weight)
        used += time.process_time() - start
        steps += 1
    net.load_state_dict(average)
    return net.eval(), steps


def psnr(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(B,), as of 8-bit images."""
    return -10 * (((a - b) ** 2).mean(dim=(1, 2, 3)) + 1e-10).log10()


@torch.no_grad()
def gains(net: torch.nn.Module, data: dict[str, np.ndarray]) -> tuple[dict[str, float], float]:
    """Mean gain in PSNR of each kind; milliseconds an image."""
    found, used, images = {}, 0.0, 0
    for kind in KINDS:
        lq, gt = tensor(data[f"{kind}_lq"]), tensor(data[f"{kind}_gt"])
        start = time.process_time()
        output = torch.cat([net(image[None]) for image in lq])
        used, images = used + time.process_time() - start, images + len(lq)
        output = (output.clamp(0, 1) * 255).round() / 255
        found[kind] = (psnr(output, gt) - psnr(lq, gt)).mean().item()
    return found, used / images * 1e3


def run_one(name: str, seed: int, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    data = dict(np.load(data_file(options)))
    arguments = VARIANTS[name]
    net, steps = train_one(arguments, data, options.seconds, seed)
    found, milliseconds = gains(net, data)
    result = {
        "name": name, "seed": seed, "seconds": options.seconds, "steps": steps, "arguments": arguments,
        "parameters": sum(p.numel() for p in net.parameters()), "milliseconds": milliseconds, "gains": found,
    }  # fmt: skip
    with open(results_file(options), "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def data_file(options: argparse.Namespace) -> Path:
    return Path(options.work) / "patches.npz"


def results_file(options: argparse.Namespace) -> Path:
    return Path(options.work) / "results.jsonl"


def results(options: argparse.Namespace) -> list[dict]:
    if not results_file(options).exists():
        return []
    lines = results_file(options).read_text(encoding="utf-8").splitlines()
    return [r for r in map(json.loads, lines) if r["seconds"] == options.seconds and r["name"] in VARIANTS]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rows(found: list[dict]) -> list[list[str]]:
    """One for each variant, the best first."""
    by_name: dict[str, list[dict]] = {}
    for result in found:
        by_name.setdefault(result["name"], []).append(result)
    lines = []
    for name, runs in by_name.items():
        overall = [mean(list(run["gains"].values())) for run in runs]
        spread = f" ± {np.std(overall, ddof=1):.2f}" if len(runs) > 1 else ""
        lines.append(
            (
                -mean(overall),
                [
                    name,
                    str(len(runs)),
                    f"{runs[0]['parameters'] / 1e6:.2f} M",
                    f"{mean([run['steps'] for run in runs]):.0f}",
                    f"{mean([run['milliseconds'] for run in runs]):.0f}",
                    f"{mean(overall):+.2f}{spread}",
                    f"{mean([run['gains']['noise'] for run in runs]):+.2f}",
                ],
            )
        )
    return [line for _, line in sorted(lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", required=True, help="folder of clean images to train on")
    parser.add_argument("--val", required=True, help="folder of other clean images, at least 256 pixels a side")
    parser.add_argument("--work", default="ablation", help="folder for patches and results (default: ablation)")
    parser.add_argument("--seconds", type=float, default=140, help="processor time of each training (default: 140)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("-o", "--output", help="Markdown file for the table")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_one(options.one[0], int(options.one[1]), options)
    Path(options.work).mkdir(parents=True, exist_ok=True)
    if not data_file(options).exists():
        prepare(options.train, options.val, data_file(options))
    wanted = [(name, seed) for seed in options.seeds for name in options.only or VARIANTS]
    for name, seed in tqdm(wanted, unit="run"):
        if any(r["name"] == name and r["seed"] == seed for r in results(options)):
            continue
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", name, str(seed)], check=True)
    report = Report("What each part is worth")
    report.add(machine(1))
    header = ["variant", "seeds", "parameters", "steps", "ms at 256 x 256", "gain, dB", "of noise, dB"]
    report.add(f"## {options.seconds:.0f} s of training on one thread\n", table(header, rows(results(options))))
    report.save(options.output)


if __name__ == "__main__":
    main()
