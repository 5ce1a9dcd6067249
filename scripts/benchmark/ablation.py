"""What each part of PromptMamba is worth, and each setting of its training: variants of `tiny`, trained on the same
images for the same processor time.

    python scripts/benchmark/ablation.py --train DIR --val DIR [--seconds 140] [--seeds 0 1 2] [--only NAME ...]

Patches of the training images are degraded once, and all runs see the same ones in the same order. The networks learn
to remove noise, which is what a few minutes suffice for; how other kinds are learned, alone and in a mixture, is among
the settings of the training. Processor time of the training steps counts, on one thread, and the learning rate follows
it, so a busy machine changes nothing. Quality is the gain in PSNR on crops of images that were not trained on. Results
are kept in --work as they come, and a second run goes on. It needs the extras `muon` and `compare`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measure import Report, machine, table
from tqdm import tqdm

import prompt_mamba_arch  # noqa: F401
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.checkpoint_files import build_network
from prompt_mamba_arch.compat.training import muon
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


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained. `time`: in parts of --seconds; `kind`: what is to be removed, or `mixture`, of one or
    two kinds, after noise alone for a share `kick` of the time (else hardly anything is learned, see PSNRLoss)."""

    optimizer: str = "AdamW"
    learning_rate: float = 2e-3
    patch: int = 64
    batch: int = 8
    time: float = 1.0
    kind: str = "noise"
    kick: float = 0.15

    @property
    def measured(self) -> tuple[str, ...]:
        return MEASURED if self.kind == "mixture" else (self.kind,)


# name -> of the network `tiny`
TRAININGS = {
    "half the time": Training(time=0.5),
    "twice the time": Training(time=2),
    "four times the time": Training(time=4),
    "learning rate 1e-3": Training(learning_rate=1e-3),
    "learning rate 4e-3": Training(learning_rate=4e-3),
    "batch of 4": Training(batch=4),
    "batch of 16": Training(batch=16),
    "20 patches of 40 pixels": Training(batch=20, patch=40),
    "32 patches of 32 pixels": Training(batch=32, patch=32),
    "Muon, 1e-3": Training(optimizer="Muon", learning_rate=1e-3),
    "Muon, 1e-3, 20 patches of 40 pixels": Training(optimizer="Muon", learning_rate=1e-3, batch=20, patch=40),
    **{f"{kind} in place of noise": Training(kind=kind) for kind in ("jpeg", "lowres", "defocus")},
    "all kinds": Training(kind="mixture"),
    "all kinds, four times the time": Training(kind="mixture", time=4),
}
MEASURED = ("noise", "jpeg", "lowres", "defocus")
# how often each kind is drawn
WEIGHTS = {
    **{"noise": 3, "jpeg": 1.5, "lowres": 1.5, "defocus": 1.2},
    **{"motion": 1, "rain": 1, "haze": 1, "lowlight": 1, "holes": 1},
}
PATCH, CROP = 64, 256
PATCHES, OF_A_KIND = 12000, 6000
WARM_UP, EMA = 50, 0.99


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


def to_learn(kind: str, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """{"lq", "gt"}: patches of a kind, or of the mixture."""
    number, kinds, count = (PATCHES, WEIGHTS, (1, 2)) if kind == "mixture" else (OF_A_KIND, {kind: 1}, 1)

    def make() -> tuple[np.ndarray, ...]:
        source = ImageSource(options.train, {"type": "disk", "cache": True}, label="--train")
        return patches(source, number, PATCH, kinds, count, seed=[*KINDS, "mixture"].index(kind))

    return kept(Path(options.work) / f"train_{kind}.npz", make)


def to_measure(kind: str, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """{"lq", "gt"}: crops with one kind."""
    source = ImageSource(options.val, {"type": "disk", "cache": True}, label="--val")
    return kept(Path(options.work) / f"val_{kind}.npz", lambda: middles(source, kind))


def kept(file: Path, make: Callable[[], tuple[np.ndarray, ...]]) -> dict[str, np.ndarray]:
    if not file.exists():
        lq, gt = make()
        with replace_on_success(file) as temporary, open(temporary, "wb") as out:
            np.savez(out, lq=lq, gt=gt)
    return dict(np.load(file))


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous()  # (B, 3, H, W)


def train_one(
    arguments: dict, training: Training, data: dict[str, dict[str, np.ndarray]], seconds: float, seed: int
) -> tuple[torch.nn.Module, int]:
    """The network, and its steps; `data`: {"noise" or the training's kind: {"lq", "gt"}}."""
    torch.manual_seed(seed)
    net = build_network(arguments, "variant") if "type" in arguments else PromptMamba(size="tiny", **arguments)
    net.train()
    if training.optimizer == "Muon":
        optimizer = muon()(net.parameters(), lr=training.learning_rate, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(net.parameters(), lr=training.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    shares = [group["lr"] / training.learning_rate for group in optimizer.param_groups]
    criterion = PSNRLoss(loss_weight=0.023)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    rng = np.random.default_rng(seed)
    order, which, used, steps = np.empty(0, int), "", 0.0, 0
    seconds *= training.time
    while used < seconds:
        now = "noise" if training.kind == "mixture" and used < training.kick * seconds else training.kind
        if now != which or len(order) < training.batch:
            which, order = now, rng.permutation(len(data[now]["lq"]))
        batch, order = order[: training.batch], order[training.batch :]
        top, left = rng.integers(0, PATCH - training.patch + 1, 2)
        part = np.s_[:, top : top + training.patch, left : left + training.patch]
        lq, gt = (tensor(data[which][it][batch][part]) for it in ("lq", "gt"))
        start = time.process_time()
        rate = training.learning_rate * min(1, (steps + 1) / WARM_UP)
        rate = rate * 0.5 * (1 + math.cos(math.pi * used / seconds)) + 1e-6
        for group, share in zip(optimizer.param_groups, shares):
            group["lr"] = rate * share
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
def gains(net: torch.nn.Module, data: dict[str, dict[str, np.ndarray]]) -> tuple[dict[str, float], float]:
    """Mean gain in PSNR of each kind; milliseconds an image."""
    found, used, images = {}, 0.0, 0
    for kind, pair in data.items():
        lq, gt = tensor(pair["lq"]), tensor(pair["gt"])
        start = time.process_time()
        output = torch.cat([net(image[None]) for image in lq])
        used, images = used + time.process_time() - start, images + len(lq)
        output = (output.clamp(0, 1) * 255).round() / 255
        found[kind] = (psnr(output, gt) - psnr(lq, gt)).mean().item()
    return found, used / images * 1e3


def run_one(name: str, seed: int, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    arguments, training = VARIANTS.get(name, {}), TRAININGS.get(name, Training())
    kinds = ("noise", "mixture") if training.kind == "mixture" else (training.kind,)
    data = {kind: to_learn(kind, options) for kind in kinds}
    net, steps = train_one(arguments, training, data, options.seconds, seed)
    found, milliseconds = gains(net, {kind: to_measure(kind, options) for kind in training.measured})
    result = {
        "name": name, "seed": seed, "seconds": options.seconds, "steps": steps, "arguments": arguments,
        "parameters": sum(p.numel() for p in net.parameters()), "milliseconds": milliseconds, "gains": found,
    }  # fmt: skip
    with open(results_file(options), "a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def results_file(options: argparse.Namespace) -> Path:
    return Path(options.work) / "results.jsonl"


def results(options: argparse.Namespace) -> list[dict]:
    if not results_file(options).exists():
        return []
    lines = results_file(options).read_text(encoding="utf-8").splitlines()
    return [r for r in map(json.loads, lines) if r["seconds"] == options.seconds]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rows(found: list[dict], names: Sequence[str]) -> list[list[str]]:
    """One for each of these that was trained, the best first."""
    by_name: dict[str, list[dict]] = {}
    for result in found:
        if result["name"] in names:
            by_name.setdefault(result["name"], []).append(result)
    lines = []
    for name, runs in by_name.items():
        gained = {kind: [run["gains"][kind] for run in runs] for kind in MEASURED if kind in runs[0]["gains"]}
        spread = {kind: f" ± {np.std(values, ddof=1):.2f}" if len(runs) > 1 else "" for kind, values in gained.items()}
        line = [
            name,
            str(len(runs)),
            f"{runs[0]['parameters'] / 1e6:.2f} M",
            f"{mean([run['steps'] for run in runs]):.0f}",
            f"{mean([run['milliseconds'] for run in runs]):.0f}",
            *(f"{mean(gained[kind]):+.2f}{spread[kind]}" if kind in gained else "" for kind in MEASURED),
        ]
        lines.append((-mean(gained.get("noise", [-99])), line))
    return [line for _, line in sorted(lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", required=True, help="folder of clean images to train on")
    parser.add_argument("--val", required=True, help="folder of other clean images, at least 256 pixels a side")
    parser.add_argument("--work", default="ablation", help="folder for patches and results (default: ablation)")
    parser.add_argument("--seconds", type=float, default=140, help="processor time of each training (default: 140)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    names = [*VARIANTS, *TRAININGS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("-o", "--output", help="Markdown file for the table")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return run_one(options.one[0], int(options.one[1]), options)
    Path(options.work).mkdir(parents=True, exist_ok=True)
    wanted = [(name, seed) for seed in options.seeds for name in options.only or names]
    for name, seed in tqdm(wanted, unit="run"):
        if any(r["name"] == name and r["seed"] == seed for r in results(options)):
            continue
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", name, str(seed)], check=True)
    report = Report("What each part is worth")
    report.add(machine(1))
    header = ["seeds", "parameters", "steps", "ms at 256 x 256", *(f"{kind}, dB" for kind in MEASURED)]
    for title, these in (("network", VARIANTS), ("training", {"tiny": {}, **TRAININGS})):
        found = rows(results(options), list(these))
        report.add(f"## The {title}, {options.seconds:.0f} s on one thread\n", table([title, *header], found))
    report.save(options.output)


if __name__ == "__main__":
    main()
