"""Medians of interleaved runs, and the most memory that a process takes."""

from __future__ import annotations

import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

__all__ = ["PeakMemory", "medians", "processor"]


def medians(
    things: Mapping[str, Callable[[], object]],
    rounds: int,
    threads: int = 1,
    *,
    device: str | torch.device = "cpu",
    tick: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each thing. In every round each runs once, so that a disturbance hits all of them alike.

    On one thread of a CPU it is processor time, which a busy neighbour lengthens least; else the time on the clock.

    Args:
        device: what to wait for before the clock is read.
        tick: called after each run; there are rounds + 1 of each thing, the first of which warms up.
    """
    device = torch.device(device)
    on_cpu = device.type == "cpu"
    clock = time.process_time if threads == 1 and on_cpu else time.perf_counter

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    taken: dict[str, list[float]] = {name: [] for name in things}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + 1):
            for name, thing in things.items():
                start = now()
                thing()
                if turn:  # the first warms up
                    taken[name].append(now() - start)
                tick()
    finally:
        gc.enable()
        torch.set_num_threads(before)
    return {name: statistics.median(times) for name, times in taken.items()}


class PeakMemory:
    """The most memory that the process has held since this was made, beyond what it held then."""

    def __init__(self):
        self.linux = Path("/proc/self/clear_refs").exists()
        if self.linux:
            # ru_maxrss is no use there: it begins with the parent's, and never falls
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._of_status("VmRSS") if self.linux else self._maximum()

    def bytes(self) -> int:
        return (self._of_status("VmHWM") if self.linux else self._maximum()) - self.before

    @staticmethod
    def _of_status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

    @staticmethod
    def _maximum() -> int:
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
