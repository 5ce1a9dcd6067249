"""The scan around a backend's bare recurrence, in plain PyTorch: what `reference`, `torch` and `mamba_ssm` share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

__all__ = ["expand_rates", "image_scan", "sequence_scan"]

# (u, delta, A, B, C) -> (y, last state), as reference.scan
Recurrence = Callable[..., tuple[torch.Tensor, torch.Tensor]]
# as sequence_scan after its first argument
SequenceScan = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def expand_rates(A: torch.Tensor, states: int, a_form: str) -> torch.Tensor:
    """A with one number for each state, from any form: `(..., N or 1)` -> `(..., N)`."""
    if a_form == "tied":
        return A * torch.arange(1, states + 1, dtype=A.dtype, device=A.device)
    return A.expand(*A.shape[:-1], states)


def sequence_scan(recurrence: Recurrence, u, delta, A, B, C, D, z, delta_bias, delta_softplus, a_form):
    """`selective_scan` for tensors of one type, B and C `(B, G, N, L)`. Returns y and the last state."""
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    y, last = recurrence(u, delta, expand_rates(A, B.shape[2], a_form), B, C)
    if D is not None:
        y = y + u * D[:, None]
    if z is not None:
        y = y * F.silu(z)
    return y, last


def image_scan(sequence: SequenceScan, x, dbc, dt_weight, dt_bias, A, D, order, a_form):
    """`selective_scan_2d` for tensors of one type: gathers all directions as groups of channels of one scan."""
    batch, length, dim = x.shape
    directions, _, rank = dt_weight.shape
    states = (dbc.shape[-1] - rank) // 2
    index = order.long()
    u = torch.stack([x[:, i] for i in index], dim=1)  # (B, K, L, D)
    dbc = torch.stack([dbc[:, i, k] for k, i in enumerate(index)], dim=1)  # (B, K, L, R + 2N)
    low, B, C = dbc.split([rank, states, states], dim=-1)
    delta = low @ dt_weight.transpose(1, 2)  # (B, K, L, D)
    y, _ = sequence(
        u.transpose(2, 3).reshape(batch, directions * dim, length),
        delta.transpose(2, 3).reshape(batch, directions * dim, length),
        A.reshape(directions * dim, -1),
        B.transpose(2, 3),
        C.transpose(2, 3),
        D.reshape(-1),
        None,
        dt_bias.reshape(-1),
        True,
        a_form,
    )
    # scatter: back to the order of x
    y = y.view(batch, directions, dim, length).transpose(2, 3)
    back = torch.argsort(index, dim=1)
    return sum(y[:, k, i] for k, i in enumerate(back))
