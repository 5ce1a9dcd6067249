"""Time and memory that a network takes for images of a size, each measured in a process of its own, so that the peak of
memory is its own and nothing is warm that would not be.

    python -m prompt_mamba_arch.model_card.speed NAME_OR_PATH MEGAPIXELS ROUNDS DEVICE

prints one line of JSON.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_mamba_arch.errors import UserError

__all__ = ["MEGAPIXELS", "measure_speed"]

MEGAPIXELS = (0.25, 1.0, 4.0, 16.0)


def measure_speed(model: str, megapixels: float, rounds: int = 3, device: str = "auto") -> dict[str, Any]:
    """`{"megapixels", "width", "height", "seconds", "bytes", "threads", "device"}`: the best of `rounds` restorations,
    and the peak of the whole process's memory (None where the system does not tell).

    Raises:
        UserError: the process failed.
    """
    command = [sys.executable, "-m", __name__, str(model), str(megapixels), str(rounds), device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"speed at {megapixels:g} megapixels was not measured: {reason[:200]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measure(model: str, megapixels: float, rounds: int, device: str) -> dict[str, Any]:
    import torch

    from prompt_mamba_arch.restore import Restorer

    restorer = Restorer.from_pretrained(model, device)
    height, width = _sides(megapixels)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    restorer.restore(image[:64, :64])  # what is loaded and allocated once
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        restorer.restore(image)
        taken.append(time.perf_counter() - start)
    pixels = height * width / 1e6
    return {
        **{"megapixels": pixels, "width": width, "height": height, "seconds": min(taken), "bytes": _peak()},
        **{"threads": torch.get_num_threads(), "device": str(restorer.device)},
    }


def _sides(megapixels: float) -> tuple[int, int]:
    """Height and width, 3 : 4, multiples of 16."""
    height = math.sqrt(megapixels * 1e6 * 3 / 4)
    return max(round(height / 16), 1) * 16, max(round(height * 4 / 3 / 16), 1) * 16


def _peak() -> int | None:
    """The most memory that this process has had, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            told = dict(line.split(":", 1) for line in file)
        return int(told["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    # Linux counts into it what the parent had, as the child begins as its copy; hence the file above
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(argv: Sequence[str]) -> int:
    model, megapixels, rounds, device = argv
    try:
        print(json.dumps(_measure(model, float(megapixels), int(rounds), device)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
