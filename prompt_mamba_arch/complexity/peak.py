"""The most memory that a pass takes, measured in a process of its own, where no earlier pass has left any.

    python -m prompt_mamba_arch.complexity.peak NETWORK HEIGHT WIDTH THREADS DEVICE

prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from prompt_mamba_arch.errors import UserError, plain_line

__all__ = ["peak_memory"]

_FIRST = 32  # pixels a side of the pass that loads and sets up what is loaded once


def peak_memory(spec: str, height: int, width: int, threads: int = 1, device: str = "auto") -> int:
    """Bytes that a pass over a `height` x `width` image takes beyond the network: of the process, or of the GPU.

    Raises:
        UserError: the process failed, as when there is not enough memory.
    """
    command = [sys.executable, "-m", __name__, spec, str(height), str(width), str(threads), device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"memory for {width} x {height} pixels was not measured: {reason[:200]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["bytes"]


def _measure(spec: str, height: int, width: int, threads: int, device: str) -> int:
    import torch

    from prompt_mamba_arch.complexity.network import open_network
    from prompt_mamba_arch.complexity.timing import PeakMemory

    torch.set_num_threads(threads)
    restorer = open_network(spec, device, tell=lambda line: None)
    with torch.inference_mode():
        restorer.forward(torch.rand(1, 3, _FIRST, _FIRST, device=restorer.device))
        x = torch.rand(1, 3, height, width, device=restorer.device)
        if restorer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(restorer.device)
            before = torch.cuda.memory_allocated(restorer.device)
            restorer.forward(x)
            return torch.cuda.max_memory_allocated(restorer.device) - before
        memory = PeakMemory()
        restorer.forward(x)
        return memory.bytes()


def main(argv: Sequence[str]) -> int:
    spec, height, width, threads, device = argv
    try:
        print(json.dumps({"bytes": _measure(spec, int(height), int(width), int(threads), device)}))
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
