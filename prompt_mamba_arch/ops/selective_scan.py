"""The selective scan (Gu and Dao 2023, "Mamba"): one function for sequences, one for images, several backends."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F

from prompt_mamba_arch.ops import cuda, reference, torch_scan

__all__ = ["BACKENDS", "available_backends", "selective_scan", "selective_scan_2d"]

# name -> scan(u, delta, A, B, C), as reference.scan
BACKENDS: dict[str, Callable] = {"reference": reference.scan, "torch": torch_scan.scan, "mamba_ssm": cuda.scan}


def available_backends() -> tuple[str, ...]:
    """The backends that can be used here, for some device."""
    return tuple(name for name in BACKENDS if name != "mamba_ssm" or cuda.why_not() is None)


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Shapes and meaning of `mamba_ssm.ops.selective_scan_interface.selective_scan_fn`, for real A.

        h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t;  y_t = (C_t h_t + D u_t) * silu(z_t)

    Half-precision inputs are scanned in float32, float64 in float64; y has the type of u.

    Args:
        u, delta: `(B, D, L)`; with `delta_bias` `(D,)` added and, if `delta_softplus`, softplus applied to delta.
        A: `(D, N)`. B, C: `(B, N, L)` or `(B, G, N, L)`, group g for channels g D/G .. (g + 1) D/G - 1.
        D: `(D,)` skip. z: `(B, D, L)` gate.
        return_last_state: also return h_L, `(B, D, N)`.
        backend: `auto`, or one of `available_backends()`.

    Returns:
        y `(B, D, L)`, or (y, last state).

    Raises:
        ValueError: shapes that do not fit, an unknown backend. RuntimeError: the backend cannot run here.
    """
    B, C = (t.unsqueeze(1) if t.dim() == 3 else t for t in (B, C))
    _check(u, delta, A, B, C, D, z, delta_bias)
    compute = torch.float64 if u.dtype == torch.float64 else torch.float32
    given = u.dtype
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C = (t.to(compute) for t in (u, delta, A, B, C))
        if delta_bias is not None:
            delta = delta + delta_bias.to(compute)[:, None]
        if delta_softplus:
            delta = F.softplus(delta)
        y, last = _backend(backend, u)(u, delta, A, B, C)
        if D is not None:
            y = y + u * D.to(compute)[:, None]
        if z is not None:
            y = y * F.silu(z.to(compute))
    y = y.to(given)
    return (y, last) if return_last_state else y


def selective_scan_2d(
    x: torch.Tensor,
    dbc: torch.Tensor,
    dt_weight: torch.Tensor,
    dt_bias: torch.Tensor,
    A: torch.Tensor,
    D: torch.Tensor,
    order: torch.Tensor,
    backend: str = "auto",
) -> torch.Tensor:
    """Scans an image's tokens along K orders and adds the results.

    Args:
        x: `(B, L, D)` tokens, pixels row by row.
        dbc: `(B, L, K, R + 2N)`, for each token and direction the low-rank delta, B and C.
        dt_weight: `(K, D, R)`, dt_bias `(K, D)`: delta = softplus(dt_weight @ low rank + dt_bias).
        A: `(K, D, N)`, negative. D: `(K, D)` skip.
        order: `(K, L)` int32, each row a permutation of the tokens (see `scan_order`).

    Returns:
        `(B, L, D)`, in the order of x.

    Raises:
        ValueError: shapes that do not fit, an unknown backend. RuntimeError: the backend cannot run here.
    """
    (batch, length, dim), (directions, _, states) = x.shape, A.shape
    rank = dt_weight.shape[-1]
    expected = {
        "dbc": (dbc, (batch, length, directions, rank + 2 * states)),
        "dt_weight": (dt_weight, (directions, dim, rank)),
        "dt_bias": (dt_bias, (directions, dim)),
        "A": (A, (directions, dim, states)),
        "D": (D, (directions, dim)),
        "order": (order, (directions, length)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"selective_scan_2d: {name} must be {shape}, not {tuple(tensor.shape)}")
    with torch.autocast(x.device.type, enabled=False):
        # gather: all directions as groups of channels of one scan
        index = order.long()
        u = torch.stack([x[:, i] for i in index], dim=1)  # (B, K, L, D)
        dbc = torch.stack([dbc[:, i, k] for k, i in enumerate(index)], dim=1)  # (B, K, L, R + 2N)
        low, B, C = dbc.split([rank, states, states], dim=-1)
        delta = low @ dt_weight.to(low).transpose(1, 2)  # (B, K, L, D)
        y = selective_scan(
            u.transpose(2, 3).reshape(batch, -1, length),
            delta.transpose(2, 3).reshape(batch, -1, length),
            A.reshape(-1, states),
            B.transpose(2, 3),
            C.transpose(2, 3),
            D.reshape(-1),
            delta_bias=dt_bias.reshape(-1),
            delta_softplus=True,
            backend=backend,
        )
        # scatter: back to the order of x
        y = y.view(batch, directions, dim, length).transpose(2, 3)
        back = torch.argsort(index, dim=1)
        return sum(y[:, k, i] for k, i in enumerate(back))


def _check(u, delta, A, B, C, D, z, delta_bias) -> None:
    if u.dim() != 3 or A.dim() != 2 or B.dim() != 4:
        raise ValueError(
            f"selective_scan: u must be (B, D, L), A (D, N), B and C (B, N, L) or (B, G, N, L), not {tuple(u.shape)}, "
            f"{tuple(A.shape)}, {tuple(B.shape)}"
        )
    batch, dim, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    if dim % groups:
        raise ValueError(f"selective_scan: {dim} channels cannot be shared by {groups} groups of B and C")
    expected = {
        "delta": (delta, (batch, dim, length)),
        "A": (A, (dim, states)),
        "B": (B, (batch, groups, states, length)),
        "C": (C, (batch, groups, states, length)),
        "D": (D, (dim,)),
        "z": (z, (batch, dim, length)),
        "delta_bias": (delta_bias, (dim,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"selective_scan: {name} must be {shape}, not {tuple(tensor.shape)}")


def _backend(name: str, u: torch.Tensor) -> Callable:
    if name == "auto":
        if u.is_cuda and u.dtype == torch.float32:
            if cuda.why_not() is None:
                return cuda.scan
            _say_once(f"the scan runs in plain PyTorch: {cuda.why_not()}")
        return torch_scan.scan
    if name not in BACKENDS:
        raise ValueError(f"unknown scan backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


@functools.cache
def _say_once(text: str) -> None:
    logging.getLogger("prompt_mamba_arch").warning(text)
