"""The orders in which a scan visits the pixels of an image."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

__all__ = ["DIRECTIONS", "scan_order", "sort_order"]

DIRECTIONS = ("rows", "rows_reversed", "columns", "columns_reversed", "snake", "snake_reversed")


def scan_order(height: int, width: int, directions: Sequence[str], device: torch.device | str = "cpu") -> torch.Tensor:
    """For each direction, the index of the pixel (row by row) that is visited at each step.

    Args:
        directions: names out of `DIRECTIONS`; `snake` goes along every second row backwards.

    Returns:
        `(K, height * width)` int32, cached: do not change it in place.

    Raises:
        ValueError: unknown direction.
    """
    key = (height, width, tuple(directions), torch.device(device))
    table = _tables.get(key)
    if table is None:
        table = _table(*key)
        # else a stand-in, while torch.export or the like follows the program: worthless afterwards
        if type(table) is torch.Tensor:
            _keep(key, table)
    return table


def sort_order(order: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
    """Orders that visit the pixels category by category, and within a category as before.

    Args:
        order: `(K, L)` as from `scan_order`.
        category: `(B, L)` whole numbers, one for each pixel.

    Returns:
        `(B, K, L)` of the type of `order`.
    """
    visited = category[:, order.long()]  # (B, K, L): the category met at each step
    steps = torch.argsort(visited, dim=-1, stable=True)
    return order.expand(len(category), -1, -1).gather(-1, steps)


_tables: dict[tuple, torch.Tensor] = {}
_lock = threading.Lock()
_MOST = 1 << 23  # numbers in all tables; photographs come in many sizes, and one of 16 megapixels has as many


def _keep(key: tuple, table: torch.Tensor) -> None:
    """For the next time; the oldest make room."""
    with _lock:
        _tables[key] = table
        while sum(one.numel() for one in _tables.values()) > _MOST:
            del _tables[next(iter(_tables))]


@torch.inference_mode(False)  # a table first used in validation must serve training too
def _table(height: int, width: int, directions: tuple[str, ...], device: torch.device) -> torch.Tensor:
    pixels = torch.arange(height * width, dtype=torch.int32, device="cpu").view(height, width)
    orders = []
    for direction in directions:
        if direction not in DIRECTIONS:
            raise ValueError(f"unknown scan direction {direction!r}; there are {', '.join(DIRECTIONS)}")
        if direction.startswith("columns"):
            order = pixels.t()
        elif direction.startswith("snake"):
            order = pixels.clone()
            order[1::2] = pixels[1::2].flip(1)
        else:
            order = pixels
        order = order.reshape(-1)
        orders.append(order.flip(0) if direction.endswith("_reversed") else order)
    return torch.stack(orders).to(device)
