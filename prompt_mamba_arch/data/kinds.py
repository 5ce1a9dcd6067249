"""The kinds of degradation that the package knows. Their order is the order of the multi-hot vectors in a sample."""

from __future__ import annotations

__all__ = ["KINDS"]

KINDS: tuple[str, ...] = ("noise", "defocus", "motion", "jpeg", "lowres", "rain", "haze", "lowlight", "holes")
