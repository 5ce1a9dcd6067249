"""The selective scan (Gu and Dao 2023, "Mamba"): one function for sequences, one for images, several backends."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import torch

from prompt_mamba_arch.ops import compose, cpu, cuda, record, reference, torch_scan

__all__ = ["A_FORMS", "BACKENDS", "available_backends", "selective_scan", "selective_scan_2d"]

A_FORMS = ("general", "tied", "scalar")


class Backend(NamedTuple):
    """How to scan tensors of one floating type, float32 or float64, whose shapes have been checked. That type is kept
    under autocast, too."""

    sequence: Callable
    image: Callable
    why_not: Callable[[], str | None] = lambda: None
    """Why it cannot be used here, or None."""


def _composed(sequence: Callable, *why_not: Callable) -> Backend:
    def without_autocast(scan: Callable) -> Callable:
        def run(x: torch.Tensor, *others):
            with torch.autocast(x.device.type, enabled=False):
                return scan(x, *others)

        return run

    image = functools.partial(compose.image_scan, sequence)
    return Backend(without_autocast(sequence), without_autocast(image), *why_not)


BACKENDS: dict[str, Backend] = {
    "reference": _composed(functools.partial(compose.sequence_scan, reference.scan)),
    "torch": _composed(functools.partial(compose.sequence_scan, torch_scan.scan)),
    "cpu": Backend(cpu.scan, cpu.scan_2d, lambda: cpu.why_not),
    "mamba_ssm": _composed(cuda.scan, cuda.why_not),
}


_DEVICES = {"cpu": "cpu", "mamba_ssm": "cuda"}  # the others run anywhere


def available_backends() -> tuple[str, ...]:
    """The backends that can be used here, for some device."""
    return tuple(name for name, backend in BACKENDS.items() if backend.why_not() is None)


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
    *,
    a_form: str = "general",
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Shapes and meaning of `mamba_ssm.ops.selective_scan_interface.selective_scan_fn`, for real A.

        h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t;  y_t = (C_t h_t + D u_t) * silu(z_t)

    Half-precision inputs are scanned in float32, float64 in float64; y has the type of u, the last state the type of
    the computation.

    Args:
        u, delta: `(B, D, L)`; with `delta_bias` `(D,)` added and, if `delta_softplus`, softplus applied to delta.
        A: `(D, N)`. B, C: `(B, N, L)` or `(B, G, N, L)`, group g for channels g D/G .. (g + 1) D/G - 1.
        D: `(D,)` skip. z: `(B, D, L)` gate.
        return_last_state: also return h_L, `(B, D, N)`.
        backend: `auto`, or one of `available_backends()`.
        a_form: `general`; or A is `(D, 1)`, one number a for each channel, and means `tied`: A_n = n a, n = 1 .. N, or
            `scalar`: A_n = a, as in Mamba-2. Backend `cpu` takes one exponential instead of N for these.

    Returns:
        y `(B, D, L)`, or (y, last state).

    Raises:
        ValueError: shapes that do not fit, an unknown backend or form. RuntimeError: the backend cannot run here.
    """
    B, C = (t.unsqueeze(1) if t.dim() == 3 else t for t in (B, C))
    _check(u, delta, A, B, C, D, z, delta_bias, a_form)
    if record.calls is not None:
        record.calls.append(record.Scan(u.shape[0], u.shape[2], u.shape[1], B.shape[2]))
        y = torch.zeros_like(u)
        return (y, y.new_zeros(u.shape[0], u.shape[1], B.shape[2])) if return_last_state else y
    given, compute = u.dtype, _compute_type(u)
    chosen = _choose(backend, u, B.shape[2], differentiable_last=return_last_state)
    u, delta, A, B, C, D, z, delta_bias = (
        t if t is None else t.to(compute) for t in (u, delta, A, B, C, D, z, delta_bias)
    )
    y, last = chosen.sequence(u, delta, A, B, C, D, z, delta_bias, delta_softplus, a_form)
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
    *,
    a_form: str = "general",
) -> torch.Tensor:
    """Scans an image's tokens along K orders and adds the results.

    Args:
        x: `(B, L, D)` tokens, pixels row by row.
        dbc: `(B, L, K, R + 2N)`, for each token and direction the low-rank delta, B and C.
        dt_weight: `(K, D, R)`, dt_bias `(K, D)`: delta = softplus(dt_weight @ low rank + dt_bias).
        A: `(K, D, N)`, negative; `(K, D, 1)` in the forms `tied` and `scalar`. D: `(K, D)` skip.
        order: `(K, L)` int32, each row a permutation of the tokens (see `scan_order`).
        backend, a_form: as in `selective_scan`.

    Returns:
        `(B, L, D)`, in the order and the type of x.

    Raises:
        ValueError: shapes that do not fit, an unknown backend or form. RuntimeError: the backend cannot run here.
    """
    _check_2d(x, dbc, dt_weight, dt_bias, A, D, order, a_form)
    (directions, _, rank), states = dt_weight.shape, (dbc.shape[-1] - dt_weight.shape[-1]) // 2
    if record.calls is not None:
        record.calls.append(record.Scan(*x.shape, states, directions, rank))
        return torch.zeros_like(x)
    given, compute = x.dtype, _compute_type(x)
    chosen = _choose(backend, x, states)
    x, dbc, dt_weight, dt_bias, A, D = (t.to(compute) for t in (x, dbc, dt_weight, dt_bias, A, D))
    return chosen.image(x, dbc, dt_weight, dt_bias, A, D, order, a_form).to(given)


def _compute_type(x: torch.Tensor) -> torch.dtype:
    if not x.is_floating_point():
        raise ValueError(f"selective scans need floating-point tensors, not {x.dtype}")
    return torch.float64 if x.dtype == torch.float64 else torch.float32


# ---- shapes --------------------------------------------------------------------------------------------------------


def _check(u, delta, A, B, C, D, z, delta_bias, a_form: str) -> None:
    if u.dim() != 3 or A.dim() != 2 or B.dim() != 4:
        raise ValueError(
            f"selective_scan: u must be (B, D, L), A (D, N), B and C (B, N, L) or (B, G, N, L), not {tuple(u.shape)}, "
            f"{tuple(A.shape)}, {tuple(B.shape)}"
        )
    batch, dim, length = u.shape
    groups, states = B.shape[1:3]
    if groups == 0 or dim % groups:
        raise ValueError(f"selective_scan: {dim} channels cannot be shared by {groups} groups of B and C")
    expected = {
        "delta": (delta, (batch, dim, length)),
        "A": (A, (dim, _rates(states, a_form))),
        "B": (B, (batch, groups, states, length)),
        "C": (C, (batch, groups, states, length)),
        "D": (D, (dim,)),
        "z": (z, (batch, dim, length)),
        "delta_bias": (delta_bias, (dim,)),
    }
    _check_shapes("selective_scan", expected)


def _check_2d(x, dbc, dt_weight, dt_bias, A, D, order, a_form: str) -> None:
    if x.dim() != 3 or dbc.dim() != 4 or dt_weight.dim() != 3:
        raise ValueError(
            "selective_scan_2d: x must be (B, L, D), dbc (B, L, K, R + 2N), dt_weight (K, D, R), not "
            f"{tuple(x.shape)}, {tuple(dbc.shape)}, {tuple(dt_weight.shape)}"
        )
    (batch, length, dim), (directions, _, rank) = x.shape, dt_weight.shape
    states, odd = (dbc.shape[-1] - rank) // 2, (dbc.shape[-1] - rank) % 2
    if rank < 1 or states < 1 or odd:
        raise ValueError(f"selective_scan_2d: dbc's last dimension must be R + 2N; it is {dbc.shape[-1]}, R is {rank}")
    expected = {
        "dbc": (dbc, (batch, length, directions, rank + 2 * states)),
        "dt_weight": (dt_weight, (directions, dim, rank)),
        "dt_bias": (dt_bias, (directions, dim)),
        "A": (A, (directions, dim, _rates(states, a_form))),
        "D": (D, (directions, dim)),
        "order": (order, (directions, length)),
    }
    _check_shapes("selective_scan_2d", expected)
    if order.dtype != torch.int32:
        raise ValueError(f"selective_scan_2d: order must be int32, not {order.dtype}")


def _rates(states: int, a_form: str) -> int:
    if a_form not in A_FORMS:
        raise ValueError(f"unknown form of A {a_form!r}; there are {', '.join(A_FORMS)}")
    return states if a_form == "general" else 1


def _check_shapes(function: str, expected: dict[str, tuple[torch.Tensor | None, tuple[int, ...]]]) -> None:
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{function}: {name} must be {shape}, not {tuple(tensor.shape)}")


# ---- backends ------------------------------------------------------------------------------------------------------


def _choose(name: str, x: torch.Tensor, states: int, *, differentiable_last: bool = False) -> Backend:
    if not x.numel():
        return BACKENDS["reference"]  # so that no other has to think of it
    if name == "auto":
        return BACKENDS[_automatic(x, states, differentiable_last)]
    if name not in BACKENDS:
        raise ValueError(f"unknown scan backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    backend = BACKENDS[name]
    if backend.why_not() is not None:
        raise RuntimeError(f"scan backend {name!r}: {backend.why_not()}")
    device = _DEVICES.get(name, x.device.type)
    if x.device.type != device:
        raise RuntimeError(f"scan backend {name!r} is for {device} tensors; these are on {x.device}")
    return backend


def _automatic(x: torch.Tensor, states: int, differentiable_last: bool) -> str:
    if x.device.type == "cpu":
        best = "cpu"
    elif x.is_cuda and cuda.can_do(x.dtype, states) and not (differentiable_last and torch.is_grad_enabled()):
        best = "mamba_ssm"
    else:
        return "torch"
    why_not = BACKENDS[best].why_not()
    if why_not is None:
        return best
    _say_once(f"the scan runs in plain PyTorch, slowly: {why_not}")
    return "torch"


@functools.lru_cache(maxsize=None)  # noqa: UP033
def _say_once(text: str) -> None:
    logging.getLogger("prompt_mamba_arch").warning(text)
