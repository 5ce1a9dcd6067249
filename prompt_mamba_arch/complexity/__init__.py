"""What a network costs: parameters, operations with those of its scans, activations, memory, time."""

from __future__ import annotations

from prompt_mamba_arch.complexity.count import SCAN_OPERATIONS, Counts, count
from prompt_mamba_arch.complexity.network import open_network
from prompt_mamba_arch.complexity.profile import Profile, profile, to_markdown

__all__ = ["SCAN_OPERATIONS", "Counts", "Profile", "count", "open_network", "profile", "to_markdown"]
