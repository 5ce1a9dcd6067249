"""`torch.nn.functional.linear` without bias, by oneDNN where that is faster.

On CPUs torch multiplies float32 matrices with Intel's MKL, which keeps to AVX2 on AMD's processors and is slow where
there are few columns. oneDNN, which torch brings along for convolutions, takes 40 % of the time on an AMD processor
with AVX-512 (16384 x 48 by 48 x 48: 0.40 ms instead of 0.98 ms), and is 5 to 25 % faster on one with AVX2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = ["linear"]

# numbers in the result; below, starting oneDNN (10 us) takes longer than it saves
SMALLEST = 1 << 15
# torch's compiler uses the operator, so it stays; it has no name that torch would promise to keep
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x `(..., in)` and weight `(out, in)` -> `(..., out)`. Differentiable any number of times."""
    if not _suits_onednn(x, weight):
        return F.linear(x, weight)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Linear.apply(x, weight)
    return _onednn(x, weight)


def _suits_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        # compiled and exported graphs should hold nothing that other backends do not know
        not torch.compiler.is_compiling()
        and _ONEDNN is not None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.dim() > 1
        and x.numel() // x.shape[-1] * weight.shape[0] >= SMALLEST
        and not torch.is_autocast_cpu_enabled()
        # counters of operations and tracers know linear and matrix products
        and _get_current_dispatch_mode() is None
    )


def _onednn(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return _ONEDNN(x, weight, None, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight)

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        multiply = F.linear if torch.is_grad_enabled() else _onednn  # create_graph: what autograd can differentiate
        dx = multiply(dy, weight.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None
        # not by oneDNN: it copies matrices that lie turned, which takes longer than their product
        return dx, dy.flatten(0, -2).t() @ x.flatten(0, -2)
