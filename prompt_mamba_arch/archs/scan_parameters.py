"""How the parameters of a selective scan begin (Gu and Dao 2023)."""

from __future__ import annotations

import math

import torch

__all__ = ["decay_rates", "delta_bias"]


def delta_bias(*shape: int, least: float = 1e-3, greatest: float = 0.1) -> torch.Tensor:
    """So that softplus(bias) is spread between the two, evenly in the logarithm."""
    delta = torch.exp(torch.rand(shape) * (math.log(greatest) - math.log(least)) + math.log(least))
    return delta + torch.log(-torch.expm1(-delta))  # softplus backwards


def decay_rates(channels: int, states: int) -> torch.Tensor:
    """log(-A) of each channel, (channels, states): A_n = -n."""
    return torch.log(torch.arange(1.0, states + 1)).repeat(channels, 1)
