"""Which scans a forward pass makes, without making them: what counts operations needs their sizes only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Scan", "recorded_scans"]


class Scan(NamedTuple):
    """One call: `images` sequences of `tokens` tokens, each scanned in so many `directions`.

    Attributes:
        channels, states: D and N of the scan.
        rank: of the low-rank delta that the call makes itself (`selective_scan_2d`); 0 where delta is given.
    """

    images: int
    tokens: int
    channels: int
    states: int
    directions: int = 1
    rank: int = 0


calls: list[Scan] | None = None  # a plain global: torch.compile guards it, and sees no context variable


@contextlib.contextmanager
def recorded_scans() -> Iterator[list[Scan]]:
    """Within the block, scans are added to the list and return zeros of the right shape and type."""
    global calls
    before, calls = calls, []
    try:
        yield calls
    finally:
        calls = before
