"""Large tensors without a page fault for every 4 KB.

glibc takes blocks above 32 MB from the kernel and gives them back when they are freed. So each large result in between
is mapped anew and zeroed page by page on its first touch, which takes several times as long as computing it: ReLU of
64 MB, 33 ms instead of 4 ms. A network for images makes such tensors all the time, and always the same sizes.

Here glibc is asked to keep freed blocks of up to 1 GiB for the next tensor. Buffers that layers reuse would do the same
for inference only; torch's THP_MEM_ALLOC_ENABLE is read before this package is imported, and saves less. The price: up
to 1 GiB stays with the process until it ends.

A freed block is not always used again at once. glibc cuts an aligned block out of a larger one, and keeps the ends, of
up to 96 bytes, in its cache of small blocks; until that cache is full the next tensor of the same size does not fit
where the last one was, and goes behind it. So a process holds up to a few times its largest tensor, and its first
calls meet fresh memory. Only GLIBC_TUNABLES=glibc.malloc.tcache_count=0, which glibc reads before the process
begins, avoids it; the two thresholds must then be set in the same variable.

PROMPT_MAMBA_MALLOC=0 turns it off, and any setting of glibc's own (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_,
GLIBC_TUNABLES) is left alone.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_blocks"]

LIMIT = 1 << 30  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_blocks() -> bool:
    """Whether glibc will."""
    if not sys.platform.startswith("linux") or os.environ.get("PROMPT_MAMBA_MALLOC") == "0":
        return False
    if any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(_M_MMAP_THRESHOLD, LIMIT) == mallopt(_M_TRIM_THRESHOLD, LIMIT) == 1
