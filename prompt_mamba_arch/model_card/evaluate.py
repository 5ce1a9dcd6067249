"""Runs networks and other methods on the tasks of `sets`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from prompt_mamba_arch.model_card.sets import Task, psnr

__all__ = ["Ask", "evaluate", "references"]

Ask = Callable[[np.ndarray, str], np.ndarray]  # (H, W, 3) uint8 and a prompt -> the same, restored


def evaluate(task: Task, ask: Ask, limit: int | None = None, tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Means over the images, dB: `{"images", "input", "prompted", "blind"}`.

    Args:
        limit: only the first so many images.
        tick: called after each image.
    """
    values = []
    for pair in task.pairs(limit):
        results = (pair.lq, ask(pair.lq, task.prompt), ask(pair.lq, ""))
        values.append([psnr(result, pair.gt, luma=task.luma, border=task.border) for result in results])
        tick()
    before, prompted, blind = np.mean(values, axis=0).tolist()
    return {"images": len(values), "input": before, "prompted": prompted, "blind": blind}


def references(
    task: Task, limit: int | None = None, tick: Callable[[], None] = lambda: None
) -> dict[str, float | None]:
    """Name -> mean PSNR in dB of each of the task's references; None for one whose package is not installed."""
    values: dict[str, list[float]] = {name: [] for name in task.references}
    absent = set()
    for pair in task.pairs(limit) if task.references else ():
        for name, method in task.references.items():
            try:
                values[name].append(psnr(method(pair.lq), pair.gt, luma=task.luma, border=task.border))
            except ImportError:
                absent.add(name)
        tick()
    return {name: None if name in absent else float(np.mean(values[name])) for name in values}
