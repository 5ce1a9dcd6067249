"""Backend `mamba_ssm`: the CUDA kernels of the mamba-ssm package, where they are."""

from __future__ import annotations

import functools

import torch

from prompt_mamba_arch.ops import compose

__all__ = ["can_do", "scan", "why_not"]

_NO_EXTENSION = (
    "mamba-ssm was built without its Mamba-1 CUDA extension; reinstall it with MAMBA_KEEP_CUDA_BUILD=TRUE pip install "
    "--no-cache-dir --no-build-isolation --force-reinstall --no-deps mamba-ssm"
)


@functools.lru_cache(maxsize=1)
def _kernel():
    """(selective_scan_fn, None), or (None, why there is none)."""
    try:
        # any error: undefined symbols of another torch, a drifted dependency, no Triton
        from mamba_ssm.ops import selective_scan_interface
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "mamba_ssm":
            return None, "mamba-ssm is not installed (pip install --no-build-isolation 'prompt-mamba-arch[cuda]')"
        if "selective_scan_cuda" in str(error):
            return None, _NO_EXTENSION
        return None, f"mamba-ssm cannot be imported ({type(error).__name__}: {error})"
    # the function can be imported without the extension, and fails when it is called
    if getattr(selective_scan_interface, "selective_scan_cuda", None) is None:
        return None, _NO_EXTENSION
    return selective_scan_interface.selective_scan_fn, None


def why_not() -> str | None:
    """Why this backend cannot be used, or None if it can."""
    return _kernel()[1]


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
    kernel, problem = _kernel()
    if kernel is None:
        raise RuntimeError(problem)
    states = B.shape[2]
    if not can_do(u.dtype, states):
        raise ValueError(f"mamba-ssm scans float32 and up to 256 states, not {u.dtype} and {states}")
    # the kernels read along L, which must lie densely
    u, delta, B, C, z = (t if t is None or t.stride(-1) == 1 else t.contiguous() for t in (u, delta, B, C, z))
    A = compose.expand_rates(A, states, a_form)
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
