"""Backend `reference`: the recurrence as the paper writes it, one token at a time. Slow; any dtype; for tests."""

from __future__ import annotations

import torch

__all__ = ["scan"]


def scan(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t, y_t = C_t h_t (Gu and Dao 2023, equation 2).

    Args:
        u, delta: `(B, D, L)`; A: `(D, N)`; B, C: `(B, G, N, L)`.

    Returns:
        y `(B, D, L)` and the last state `(B, D, N)`.
    """
    repeat = u.shape[1] // B.shape[1]
    B, C = (t.repeat_interleave(repeat, dim=1).unbind(-1) for t in (B, C))  # L x (B, D, N)
    h, ys = u.new_zeros(u.shape[0], *A.shape), []
    for u_t, delta_t, B_t, C_t in zip(u.unbind(-1), delta.unbind(-1), B, C):
        h = torch.exp(delta_t[..., None] * A) * h + (delta_t * u_t)[..., None] * B_t
        ys.append((h * C_t).sum(-1))
    return (torch.stack(ys, dim=-1) if ys else u * 0), h
