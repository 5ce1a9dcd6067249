"""What the organisers measure of a network, and the score of efficient super-resolution.

Operations are multiplications with an addition, as the organisers' tools count.
"""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from prompt_mamba_arch.complexity.count import count

__all__ = ["ESR_BASELINES", "Baseline", "Measures", "Score", "esr_score", "load_network_file", "measure"]

_SMALL = (32, 64)  # pixels a side, for fvcore, which is slow: its count grows with the number of pixels


class Measures(NamedTuple):
    """Of a network, for an RGB image of `size` x `size` pixels.

    Attributes:
        products: multiplications of convolutions and matrix products.
        scans: operations of the selective scans, 9 for each token, channel, state and direction (VMamba, Liu et al.
            2024), which the organisers' tool does not see.
        fvcore: operations as fvcore counts them, which is the organisers' tool; None where it is not installed.
        activations: numbers that Conv2d layers give; convolutions: how many of those there are.
        seconds: mean time of a pass. memory: most bytes of a CUDA device in use, else None.
    """

    size: int
    parameters: int
    products: float
    scans: float
    fvcore: float | None
    activations: float
    convolutions: int
    seconds: float
    memory: int | None


class Baseline(NamedTuple):
    """A year's baseline, and how much each measure weighs in the score."""

    name: str
    milliseconds: float
    gflops: float
    mparameters: float
    weights: tuple[float, float, float]


# from the organisers' READMEs; the runtime is that of a NVIDIA RTX A6000
ESR_BASELINES = {
    2025: Baseline("EFDN", 16.69, 16.70, 0.276, (0.7, 0.15, 0.15)),
    2026: Baseline("SPAN", 5.59, 9.83, 0.151, (0.8, 0.1, 0.1)),
}


class Score(NamedTuple):
    """Lower is better; a network like the baseline has e^2 = 7.3891 in each."""

    runtime: float
    flops: float
    parameters: float
    final: float


def esr_score(year: int, milliseconds: float, gflops: float, mparameters: float) -> Score:
    """exp(2 x / baseline) for each measure, and their weighted sum."""
    base = ESR_BASELINES[year]
    ratios = (milliseconds / base.milliseconds, gflops / base.gflops, mparameters / base.mparameters)
    parts = [math.exp(2 * ratio) if ratio < 300 else math.inf for ratio in ratios]
    return Score(*parts, sum(weight * part for weight, part in zip(base.weights, parts)))


def measure(
    net: nn.Module,
    size: int = 256,
    runs: int = 5,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measures:
    """Counts and times a network, as the organisers do: whole images, the mean of five passes after one that does not
    count."""
    device = torch.device(device)
    net = net.to(device).eval().requires_grad_(False)
    counts = count(net, size, size)
    x = torch.rand(1, 3, size, size, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    with torch.no_grad():
        for number in range(runs + 1):
            progress(number, runs + 1)
            _wait(device)
            start = time.perf_counter()
            net(x)
            _wait(device)
            seconds.append(time.perf_counter() - start)
    progress(runs + 1, runs + 1)
    return Measures(
        size=size,
        parameters=counts.parameters,
        products=counts.products,
        scans=counts.scans,
        fvcore=_fvcore(net, size, device),
        activations=counts.convolution_activations,
        convolutions=counts.convolutions,
        seconds=sum(seconds[1:]) / runs,
        memory=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def load_network_file(path: Path) -> nn.Module:
    """The network of a file that `network_file` wrote, its class being the last one; without its weights."""
    spec = importlib.util.spec_from_file_location(f"{__name__}.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == spec.name]
    return classes[-1]()


def _fvcore(net: nn.Module, size: int, device: torch.device) -> float | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses what newer versions of torch advise against
            from fvcore.nn import FlopCountAnalysis
    except ImportError:
        return None
    found = []
    for side in _SMALL:
        analysis = FlopCountAnalysis(net, torch.rand(1, 3, side, side, device=device))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        found.append(analysis.total())
    return _at(size, *found)


def _at(size: int, first: float, second: float) -> float:
    """What numbers for both small images mean for one of `size`, being linear in the number of pixels."""
    pixels = [side * side for side in _SMALL]
    slope = (second - first) / (pixels[1] - pixels[0])
    return first + slope * (size * size - pixels[0])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
