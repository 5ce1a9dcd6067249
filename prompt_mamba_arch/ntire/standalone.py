"""What a file that stands alone has in the place of faster code: plain PyTorch, for any device and old versions.

The organisers' environments have torch 1.13.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from prompt_mamba_arch.ops import compose, torch_scan

__all__ = ["attention", "linear", "selective_scan_2d"]


def selective_scan_2d(
    x: torch.Tensor,
    dbc: torch.Tensor,
    dt_weight: torch.Tensor,
    dt_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    order: torch.Tensor,
    *,
    a_form: str = "general",
) -> torch.Tensor:
    """Scans an image's tokens along K orders and adds the results.

    Args:
        x: `(B, L, D)` tokens, pixels row by row.
        dbc: `(B, L, K, R + 2N)`, for each token and direction the low-rank delta, B and C.
        dt_weight: `(K, D, R)`, dt_bias `(K, D)`: delta = softplus(dt_weight @ low rank + dt_bias).
        A: `(K, D, N)`, negative; `(K, D, 1)` in the forms `tied` and `scalar`. D: `(K, D)` skip.
        order: `(K, L)`, each row a permutation of the tokens.

    Returns:
        `(B, L, D)`, in the order and the type of x; computed in float32 at least.
    """
    given, compute = x.dtype, torch.promote_types(x.dtype, torch.float32)
    tensors = (t.to(compute) for t in (x, dbc, dt_weight, dt_bias, A, D))
    with torch.autocast(x.device.type, enabled=False):
        return compose.image_scan(_sequence, *tensors, order, a_form).to(given)


def _sequence(*arguments) -> tuple[torch.Tensor, torch.Tensor]:
    return compose.sequence_scan(torch_scan.scan, *arguments)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`scaled_dot_product_attention`, which torch 2.0 brought: (..., L, C), (..., S, C), (..., S, V) -> (..., L, V)."""
    return (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1) @ value


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x `(..., in)` and weight `(out, in)` -> `(..., out)`."""
    return F.linear(x, weight)
