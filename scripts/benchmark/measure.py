"""What the speed benchmarks share: interleaved medians, what the machine can do at most, Markdown tables."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from prompt_mamba_arch.complexity.timing import PeakMemory, medians, processor
from prompt_mamba_arch.errors import replace_on_success
from prompt_mamba_arch.ops import library

__all__ = [
    "PeakMemory",
    "Report",
    "arguments",
    "machine",
    "medians",
    "memory_rate",
    "multiply_add_rate",
    "processor",
    "table",
]


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-o", "--output", type=Path, help="write the report to this file, too")
    parser.add_argument("--rounds", type=int, default=15, help="how often each thing is run (default: 15)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="for what is run on several")
    return parser


def multiply_add_rate() -> float | None:
    """Multiply-adds of float32 a second on one thread, in the widest vectors in use; None without the C++ kernels."""
    if library.kernels is None:
        return None
    best = 0.0
    for _ in range(9):
        start = time.process_time()
        done = library.kernels.pm_scan_multiply_adds(5_000_000)
        best = max(best, done / (time.process_time() - start))
    return best


def memory_rate(threads: int) -> float:
    """Bytes a second of a = b + 3 c on arrays of 128 MB, counting a, b and c once."""
    b, c = torch.ones(32_000_000), torch.ones(32_000_000)
    a = torch.empty_like(b)
    return 3 * a.numel() * 4 / medians({"triad": lambda: torch.add(b, c, alpha=3, out=a)}, 9, threads)["triad"]


def machine(threads: int) -> str:
    kernels = library.kernels
    rate = multiply_add_rate()
    speed = "" if rate is None else f", {rate / 1e9:.0f} billion multiply-adds of float32 a second on one thread"
    memory = " and ".join(f"{memory_rate(n) / 1e9:.1f} GB/s on {n}" for n in sorted({1, threads}))
    instructions = "no C++ kernels" if kernels is None else f"kernels for {kernels.pm_scan_instruction_set().decode()}"
    return (
        f"{processor()}, {os.cpu_count()} cores, {platform.system()}; torch {torch.__version__}, {instructions}"
        f"{speed}; memory {memory} thread(s).\n"
    )


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [header := list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


class Report:
    """Prints parts as they come; `save` writes all of them."""

    def __init__(self, title: str):
        self.parts = []
        self.add(f"# {title}\n")

    def add(self, *parts: str) -> None:
        for part in parts:
            print(part, flush=True)
            self.parts.append(part)

    def save(self, path: Path | None) -> None:
        if path is not None:
            with replace_on_success(path) as temporary:
                Path(temporary).write_text("\n".join(self.parts), encoding="utf-8")
