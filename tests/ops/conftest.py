"""Inputs for scans, and the comparison of a backend's values and gradients with the float64 reference's."""

from __future__ import annotations

import types

import pytest
import torch

from prompt_mamba_arch.ops import available_backends, selective_scan, selective_scan_2d
from prompt_mamba_arch.ops import library as kernels_library

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(params=["torch", "cpu"])
def backend(request) -> str:
    """Every backend that runs here; the C++ kernels are skipped where they are not."""
    if request.param not in available_backends():
        pytest.skip(kernels_library.why_not)
    return request.param


@pytest.fixture
def kernels():
    """The library of C++ kernels; the instruction set is put back afterwards."""
    if kernels_library.kernels is None:
        pytest.skip(kernels_library.why_not)
    yield kernels_library.kernels
    kernels_library.kernels.pm_scan_use_instruction_set(b"")


@pytest.fixture
def scan_tools() -> types.SimpleNamespace:
    return types.SimpleNamespace(
        sequence=sequence, image=image, compare=compare, relative_error=relative_error, leaves=leaves
    )


def sequence(
    batch, dim, length, states, groups=None, *, a_form="general", gate=True, skip=True, softplus=True, bias=True,
    layout="BDL", dtype=torch.float32, seed=0,
) -> dict:  # fmt: skip
    """Arguments of selective_scan. groups None: B and C without the dimension. layout BLD: channels lie densely."""
    torch.manual_seed(seed)

    def per_channel():
        t = torch.randn(batch, length, dim, dtype=dtype).transpose(1, 2)
        return t if layout == "BLD" else t.contiguous()

    per_state = (batch, states, length) if groups is None else (batch, groups, states, length)
    delta = per_channel()
    return {
        "u": per_channel(),
        "delta": delta if softplus else delta.abs() * 0.1,
        "A": -torch.exp(0.5 * torch.randn(dim, states if a_form == "general" else 1)).to(dtype),
        "B": torch.randn(per_state, dtype=dtype),
        "C": torch.randn(per_state, dtype=dtype),
        "D": torch.randn(dim, dtype=dtype) if skip else None,
        "z": per_channel() if gate else None,
        # without softplus delta must not become negative, or the states grow
        "delta_bias": (torch.randn(dim) * 0.5 if softplus else torch.rand(dim)).to(dtype) if bias else None,
        "delta_softplus": softplus,
        "a_form": a_form,
        "return_last_state": True,
    }


def image(batch, length, dim, states, rank, directions, *, a_form="general", dtype=torch.float32, seed=0) -> dict:
    """Arguments of selective_scan_2d, with a random permutation for each direction."""
    torch.manual_seed(seed)
    return {
        "x": torch.randn(batch, length, dim, dtype=dtype),
        "dbc": torch.randn(batch, length, directions, rank + 2 * states, dtype=dtype),
        "dt_weight": torch.randn(directions, dim, rank, dtype=dtype),
        "dt_bias": torch.randn(directions, dim, dtype=dtype) - 2,
        "A": -torch.exp(0.5 * torch.randn(directions, dim, states if a_form == "general" else 1)).to(dtype),
        "D": torch.randn(directions, dim, dtype=dtype),
        "order": torch.stack([torch.randperm(length) for _ in range(directions)]).int(),
        "a_form": a_form,
    }


def leaves(arguments: dict, dtype: torch.dtype | None = None) -> dict:
    """The same arguments, of the same strides, with floating tensors as leaves that want gradients."""

    def leaf(value):
        if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
            return value
        return value.detach().to(dtype or value.dtype).requires_grad_()

    return {name: leaf(value) for name, value in arguments.items()}


def _results(arguments: dict, backend: str) -> dict[str, torch.Tensor]:
    """Outputs and gradients of a fixed random weighing of them, by name."""
    function = selective_scan if "u" in arguments else selective_scan_2d
    outputs = function(**arguments, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    loss = 0
    for output in outputs:
        weights = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        loss = loss + (output * weights.to(output.dtype)).sum()
    tensors = {k: v for k, v in arguments.items() if isinstance(v, torch.Tensor) and v.requires_grad}
    gradients = torch.autograd.grad(loss, list(tensors.values()))
    found = dict(zip(("y", "last state"), outputs))
    for (name, tensor), gradient in zip(tensors.items(), gradients):
        assert gradient.shape == tensor.shape and gradient.dtype == tensor.dtype
        found[f"gradient of {name}"] = gradient
    return found


def relative_error(value: torch.Tensor, truth: torch.Tensor) -> float:
    value, truth = value.detach().double(), truth.detach().double()
    return ((value - truth).norm() / truth.norm().clamp(min=1e-300)).item() if truth.numel() else 0.0


def compare(arguments: dict, backend: str, tolerance: float | None = None) -> None:
    """Asserts that the backend's values and every gradient are the float64 reference's."""
    found = _results(leaves(arguments), backend)
    truth = _results(leaves(arguments, torch.float64), "reference")
    first = next(iter(arguments.values()))
    limit = tolerance or TOLERANCE[first.dtype]
    errors = {name: relative_error(found[name], truth[name]) for name in truth}
    assert max(errors.values()) < limit, errors
