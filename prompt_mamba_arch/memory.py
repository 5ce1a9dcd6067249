"""How much memory is free, and which errors say that there is too little."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["free_memory", "is_out_of_memory"]


def free_memory(device: torch.device) -> float:
    """Bytes; of the GPU or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 2 << 30  # not known: assume a small machine


def _free_of_container(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container's limit (cgroup v2) leaves; infinity where there is none."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(limit - used + int(stat.get("inactive_file", 0)), 0)  # the page cache gives way
    except (OSError, ValueError):  # no file, or "max"
        return float("inf")


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    # of CUDA and MPS; of the CPU's allocator on Linux and on Windows; of cuBLAS and cuDNN
    return any(said in text for said in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed"))
