"""How sure a difference between two methods is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Difference", "paired_difference"]

_AT_ONCE = 1 << 22  # numbers drawn at a time


class Difference(NamedTuple):
    """The mean over images of (one method less the other), and its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """The interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float], *, samples: int = 10000, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """Percentile interval of the mean difference; images are drawn with repetition, both methods' values together
    (Efron and Tibshirani 1993, ch. 13).

    Args:
        ours, theirs: values of the same images in the same order.

    Raises:
        ValueError: not as many, or none.
    """
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    if difference.ndim != 1 or not difference.size or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values make no pairs")
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, samples, step := max(1, _AT_ONCE // difference.size)):
        rows = min(step, samples - start)
        means.append(difference[rng.integers(0, difference.size, (rows, difference.size))].mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return Difference(float(difference.mean()), float(low), float(high))
