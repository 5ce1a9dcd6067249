"""What a file that stands alone has in the place of faster code: plain PyTorch, for any device and old versions.

The organisers' environments have torch 1.13. Where the package mamba-ssm happens to be installed with its CUDA kernels,
they scan the tensors of a GPU; it is looked for when the first of them comes, and nothing depends on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from prompt_mamba_arch.ops import compose, cuda, torch_scan

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
    sequence = _sequence_scan(x.is_cuda, compute, (dbc.shape[-1] - dt_weight.shape[-1]) // 2)
    with torch.autocast(x.device.type, enabled=False):
        return compose.image_scan(sequence, *tensors, order, a_form).to(given)


def _sequence_scan(on_cuda: bool, dtype: torch.dtype, states: int) -> Callable:
    """The best scan of sequences that there is for such tensors."""
    # what counts operations in a trace, as the organisers do, sees through PyTorch's own alone
    if on_cuda and cuda.can_do(dtype, states) and not torch.jit.is_tracing():
        kernel, _ = cuda.find_kernel()
        if kernel is not None:
            return functools.partial(cuda.call, kernel)
    return functools.partial(compose.sequence_scan, torch_scan.scan)


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`scaled_dot_product_attention`, which torch 2.0 brought: (..., L, C), (..., S, C), (..., S, V) -> (..., L, V)."""
    return (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1) @ value


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x `(..., in)` and weight `(out, in)` -> `(..., out)`."""
    return F.linear(x, weight)
