"""Backend `mamba_ssm`: the CUDA kernels of the mamba-ssm package, where they are."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import torch

from prompt_mamba_arch.ops import compose

__all__ = ["call", "can_do", "find_kernel", "scan", "why_not"]

_NO_EXTENSION = (
    "mamba-ssm was built without its Mamba-1 CUDA extension; reinstall it with MAMBA_KEEP_CUDA_BUILD=TRUE pip install "
    "--no-cache-dir --no-build-isolation --force-reinstall --no-deps mamba-ssm"
)


@functools.lru_cache(maxsize=1)
def find_kernel() -> tuple[Callable | None, Exception | None]:
    """mamba-ssm's `selective_scan_fn`; or None, and why it cannot be used."""
    try:
        # any error: undefined symbols of another torch, a drifted dependency, no Triton
        found = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
        # the function can be imported without the extension, and fails when it is called
        if getattr(found, "selective_scan_cuda", None) is None:
            raise ImportError("selective_scan_cuda is missing")
        return found.selective_scan_fn, None
    except Exception as error:
        return None, error


def why_not() -> str | None:
    """Why this backend cannot be used, or None if it can."""
    error = find_kernel()[1]
    if error is None:
        return None
    if isinstance(error, ModuleNotFoundError) and error.name == "mamba_ssm":
        return "mamba-ssm is not installed (pip install --no-build-isolation 'prompt-mamba-arch[cuda]')"
    if "selective_scan_cuda" in str(error):
        return _NO_EXTENSION
    return f"mamba-ssm cannot be imported ({type(error).__name__}: {error})"


def can_do(dtype: torch.dtype, states: int) -> bool:
    """Whether the kernels know that many states, and compute as precisely as inputs of this type deserve."""
    return dtype != torch.float64 and states <= 256


def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, a_form):
    """`selective_scan` for float32 tensors on a CUDA device, B and C `(B, G, N, L)`. Returns y and the last state.

    The kernels add the bias, apply softplus, skip and gate themselves: no pass over memory and nothing kept for that.

    Raises:
        RuntimeError: mamba-ssm or its extension is missing; in backward, for a gradient of the last state.
        ValueError: float64, or more than 256 states.
    """
    kernel, _ = find_kernel()
    if kernel is None:
        raise RuntimeError(why_not())
    states = B.shape[2]
    if not can_do(u.dtype, states):
        raise ValueError(f"mamba-ssm scans float32 and up to 256 states, not {u.dtype} and {states}")
    return call(kernel, u, delta, A, B, C, D, z, delta_bias, delta_softplus, a_form)


def call(kernel: Callable, u, delta, A, B, C, D, z, delta_bias, delta_softplus, a_form):
    """`scan` by a kernel that has been found, for what it can do."""
    # the kernels read along L, which must lie densely
    u, delta, B, C, z = (t if t is None or t.stride(-1) == 1 else t.contiguous() for t in (u, delta, B, C, z))
    A = compose.expand_rates(A, B.shape[2], a_form)
    A, D, delta_bias = (t if t is None else t.contiguous() for t in (A, D, delta_bias))
    y, last = kernel(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state=True)
    return y, _WithoutGradient.apply(last)


class _WithoutGradient(torch.autograd.Function):
    """The kernels' backward pass leaves the last state's gradient out without a word."""

    @staticmethod
    def forward(ctx, last):
        return last.view_as(last)

    @staticmethod
    def backward(ctx, dlast):
        raise RuntimeError("mamba-ssm's kernels have no gradient for the last state; use backend='torch'")
