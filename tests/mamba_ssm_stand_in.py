"""A module in mamba-ssm's place, for tests without a GPU: it makes the kernels' demands and records what it is given.

The kernels' demands and habits are those of mamba-ssm 2.3 (selective_scan_interface.py and selective_scan.cpp).
"""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from prompt_mamba_arch.ops import reference


def pretended_cuda():
    """Tensors without values, on any device."""
    try:
        with FakeTensorMode():
            _ = torch.empty(4, 2, device="cuda")[:, 0]
    except RuntimeError:  # torch 2.8 does
        pytest.skip("this version of torch asks the driver about CUDA tensors without values")
    return FakeTensorMode()


class KernelScan(torch.autograd.Function):
    """Like mamba-ssm's, backward leaves out the gradient of the last state."""

    @staticmethod
    def forward(ctx, softplus, *tensors):
        with torch.enable_grad():
            ctx.inputs = [None if t is None else t.detach().requires_grad_() for t in tensors]
            u, delta, A, B, C, D, z, delta_bias = ctx.inputs
            delta = delta if delta_bias is None else delta + delta_bias[:, None]
            y, last = reference.scan(u, torch.nn.functional.softplus(delta) if softplus else delta, A, B, C)
            y = y if D is None else y + u * D[:, None]
            ctx.y = y if z is None else y * torch.nn.functional.silu(z)
        return ctx.y.detach(), last.detach()

    @staticmethod
    def backward(ctx, dy, dlast):
        given = [t for t in ctx.inputs if t is not None]
        found = iter(torch.autograd.grad(ctx.y, given, dy, retain_graph=True))
        return None, *(None if t is None else next(found) for t in ctx.inputs)


def install(monkeypatch) -> types.SimpleNamespace:
    """Installs the module; `.calls` are the tensors of each call, `.module` is what was installed."""
    module = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    calls = []

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
    ):
        for name, t in {"u": u, "delta": delta, "B": B, "C": C, "z": z}.items():
            assert t is None or (t.stride(-1) == 1 and t.dtype == torch.float32), name
        for name, t in {"A": A, "D": D, "delta_bias": delta_bias}.items():
            assert t is None or (t.is_contiguous() and t.dtype == torch.float32), name
        assert B.dim() == C.dim() == 4 and A.shape[1] <= 256 and u.numel()
        calls.append({"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias})
        calls[-1]["softplus"] = delta_softplus
        if u.is_cuda:  # without values
            y, last = torch.empty_like(u), u.new_empty(*u.shape[:2], A.shape[1])
        else:
            y, last = KernelScan.apply(delta_softplus, u, delta, A, B, C, D, z, delta_bias)
        return (y, last) if return_last_state else y

    module.selective_scan_fn, module.selective_scan_cuda = selective_scan_fn, object()
    package, inner = types.ModuleType("mamba_ssm"), types.ModuleType("mamba_ssm.ops")
    package.__path__, inner.__path__ = [], []
    package.ops, inner.selective_scan_interface = inner, module
    for name, value in {"mamba_ssm": package, "mamba_ssm.ops": inner, module.__name__: module}.items():
        monkeypatch.setitem(sys.modules, name, value)
    return types.SimpleNamespace(module=module, calls=calls)
