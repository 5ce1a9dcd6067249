"""The backend of CUDA kernels, with a stand-in for mamba-ssm: what it is asked, when, and what is said without it."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from mamba_ssm_stand_in import install, pretended_cuda

from prompt_mamba_arch.ops import available_backends, cuda, interface, selective_scan, selective_scan_2d

REINSTALL = (
    "mamba-ssm was built without its Mamba-1 CUDA extension; reinstall it with MAMBA_KEEP_CUDA_BUILD=TRUE pip install "
    "--no-cache-dir --no-build-isolation --force-reinstall --no-deps mamba-ssm"
)


def forget():
    """What was found out about mamba-ssm, and what was said."""
    cuda.find_kernel.cache_clear()
    interface._say_once.cache_clear()


@pytest.fixture(autouse=True)
def forget_afterwards():
    yield
    forget()


@pytest.fixture
def kernel(monkeypatch):
    installed = install(monkeypatch)
    forget()
    return installed


@pytest.fixture
def on_cpu(monkeypatch):
    """The kernels' stand-in takes tensors of the CPU."""
    monkeypatch.setitem(interface._DEVICES, "mamba_ssm", "cpu")


def sequence(device="cpu", dtype=torch.float32, states=3, groups=2, length=20, **fixed):
    g = None if device != "cpu" else torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=g, device=device, dtype=dtype)

    tensors = {
        "u": normal(2, length, 4).transpose(1, 2),  # channels last, as networks have them
        "delta": normal(2, length, 4).transpose(1, 2),
        "A": -normal(states, 4).exp().t(),
        "B": normal(2, groups, length, states).transpose(2, 3),
        "C": normal(2, groups, length, states).transpose(2, 3),
        "D": normal(4, 2)[:, 0],
        "z": normal(2, length, 4).transpose(1, 2),
        "delta_bias": normal(4, 2)[:, 0],
    }
    return {**tensors, **fixed}


def image(device="cpu", dtype=torch.float32):
    g = None if device != "cpu" else torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=g, device=device, dtype=dtype)

    return {
        "x": normal(2, 12, 4),
        "dbc": normal(2, 12, 2, 2 + 6),
        "dt_weight": normal(2, 4, 2),
        "dt_bias": normal(2, 4),
        "A": -normal(2, 4, 3).exp(),
        "D": normal(2, 4),
        "order": torch.stack([torch.arange(12, device=device), torch.arange(12, device=device).flip(0)]).int(),
    }


def gradients(function, tensors, **flags):
    leaves = {k: t.detach().clone().requires_grad_() if t.is_floating_point() else t for k, t in tensors.items()}
    y = function(**leaves, **flags)
    (y * torch.arange(y.numel()).view(y.shape).cos()).sum().backward()
    return [y.detach(), *(t.grad for t in leaves.values() if t.requires_grad)]


# ---- what the kernels are given -------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("softplus", [False, True])
def test_values_and_gradients_pass_through_the_kernels(kernel, on_cpu, groups, softplus):
    tensors = sequence(groups=groups)
    if not softplus:
        tensors["delta"] = tensors["delta"].abs()
        tensors["delta_bias"] = tensors["delta_bias"].abs()
    expected = gradients(selective_scan, tensors, delta_softplus=softplus, backend="reference")
    found = gradients(selective_scan, tensors, delta_softplus=softplus, backend="mamba_ssm")
    for got, want in zip(found, expected):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert len(kernel.calls) == 1


def test_images_are_one_call(kernel, on_cpu):
    expected = gradients(selective_scan_2d, image(), backend="reference")
    for got, want in zip(gradients(selective_scan_2d, image(), backend="mamba_ssm"), expected):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert [call["u"].shape for call in kernel.calls] == [(2, 8, 12)]


def test_the_kernels_do_bias_softplus_skip_and_gate_themselves(kernel, on_cpu):
    """Outside, each would be a pass over memory, and a tensor kept for backward."""
    tensors = sequence()
    selective_scan(**tensors, delta_softplus=True, backend="mamba_ssm")
    (call,) = kernel.calls
    assert call["softplus"] is True
    for name in ("delta", "D", "z", "delta_bias"):
        assert torch.equal(call[name], tensors[name])


def test_dense_tensors_are_not_copied(kernel, on_cpu):
    tensors = {name: t.contiguous() for name, t in sequence().items()}
    selective_scan(**tensors, delta_softplus=True, backend="mamba_ssm")
    for name, t in tensors.items():
        assert kernel.calls[0][name].data_ptr() == t.data_ptr(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_reaches_the_kernels_as_float32(kernel, on_cpu, dtype):
    tensors = sequence(dtype=dtype)
    y, last = selective_scan(**tensors, delta_softplus=True, return_last_state=True, backend="mamba_ssm")
    expected = selective_scan(**tensors, delta_softplus=True, backend="reference")
    assert y.dtype == dtype and last.dtype == torch.float32 and len(kernel.calls) == 1
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("a_form", ["tied", "scalar"])
def test_forms_of_a_are_written_out_for_the_kernels(kernel, on_cpu, a_form):
    tensors = sequence(A=-torch.rand(4, 1))
    expected = gradients(selective_scan, tensors, delta_softplus=True, a_form=a_form, backend="reference")
    found = gradients(selective_scan, tensors, delta_softplus=True, a_form=a_form, backend="mamba_ssm")
    for got, want in zip(found, expected):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert kernel.calls[0]["A"].shape == (4, 3)


def test_a_gradient_that_the_kernels_would_drop_is_refused(kernel, on_cpu):
    leaves = {k: t.clone().requires_grad_() for k, t in sequence().items()}
    y, last = selective_scan(**leaves, delta_softplus=True, return_last_state=True, backend="mamba_ssm")
    assert torch.autograd.grad(y.sum(), leaves["u"], retain_graph=True)[0].any()  # the last state was only looked at
    with pytest.raises(RuntimeError, match="mamba-ssm's kernels have no gradient for the last state"):
        (y.sum() + last.sum()).backward()


# ---- when they are chosen -------------------------------------------------------------------------------------------


def test_cuda_tensors_choose_the_kernels_and_others_do_not(kernel, caplog):
    with pretended_cuda():
        assert selective_scan(**sequence("cuda")).device.type == "cuda"
        assert selective_scan_2d(**image("cuda")).shape == (2, 12, 4)
        assert selective_scan(**sequence("cuda", torch.bfloat16)).dtype == torch.bfloat16
        with torch.no_grad():
            selective_scan(**sequence("cuda"), return_last_state=True)
    assert len(kernel.calls) == 4 and all(call["u"].is_cuda for call in kernel.calls)
    assert not caplog.records
    selective_scan(**sequence())  # without the C++ kernels this may say so
    assert len(kernel.calls) == 4


def test_what_the_kernels_cannot_do_runs_in_pytorch_on_cuda(kernel):
    with pretended_cuda():
        assert selective_scan(**sequence("cuda", torch.float64)).dtype == torch.float64
        y = selective_scan(**sequence("cuda", states=257))
        assert y.device.type == "cuda" and y.shape == (2, 4, 20)
        selective_scan(**sequence("cuda", length=0))
        tensors = sequence("cuda")
        tensors["u"].requires_grad_()
        selective_scan(**tensors, return_last_state=True)  # for its gradient
    assert not kernel.calls


def test_asking_for_what_the_kernels_cannot_do_is_an_error(kernel, on_cpu):
    with pytest.raises(ValueError, match=r"float64"):
        selective_scan(**sequence(dtype=torch.float64), backend="mamba_ssm")
    with pytest.raises(ValueError, match=r"256 states, not .*257"):
        selective_scan(**sequence(states=257), backend="mamba_ssm")
    assert not kernel.calls


def test_tensors_of_the_cpu_are_refused(kernel):
    with pytest.raises(RuntimeError, match="scan backend 'mamba_ssm' is for cuda tensors; these are on cpu"):
        selective_scan(**sequence(), backend="mamba_ssm")


# ---- without them ---------------------------------------------------------------------------------------------------


def check_unusable(caplog, message):
    assert "mamba_ssm" not in available_backends()
    with pytest.raises(RuntimeError) as caught:
        selective_scan(**sequence(), backend="mamba_ssm")
    assert str(caught.value) == f"scan backend 'mamba_ssm': {message}"
    with caplog.at_level(logging.WARNING, logger="prompt_mamba_arch"), pretended_cuda():
        for _ in range(3):
            assert selective_scan(**sequence("cuda")).device.type == "cuda"
            assert selective_scan_2d(**image("cuda")).device.type == "cuda"
    assert [record.getMessage() for record in caplog.records] == [
        f"the scan runs in plain PyTorch, slowly: {message}"
    ]  # once


def test_extension_left_out_of_the_build(kernel, caplog):
    kernel.module.selective_scan_cuda = None
    check_unusable(caplog, REINSTALL)


class BrokenImport:
    """An importer that fails for mamba_ssm as a real import would."""

    def __init__(self, error):
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name == "mamba_ssm":
            raise self.error
        return None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'mamba_ssm'", name="mamba_ssm"),
            "mamba-ssm is not installed (pip install --no-build-isolation 'prompt-mamba-arch[cuda]')",
        ),
        (ModuleNotFoundError("No module named 'selective_scan_cuda'", name="selective_scan_cuda"), REINSTALL),
        (ImportError("selective_scan_cuda.so: undefined symbol: _ZN2at4_ops5zeros4callE"), REINSTALL),
        (
            ModuleNotFoundError("No module named 'einops'", name="einops"),
            "mamba-ssm cannot be imported (ModuleNotFoundError: No module named 'einops')",
        ),
        (
            RuntimeError("0 active drivers ([]). There should only be one."),
            "mamba-ssm cannot be imported (RuntimeError: 0 active drivers ([]). There should only be one.)",
        ),
    ],
    ids=["no package", "no extension", "another torch's extension", "a dependency", "no driver"],
)
def test_import_that_fails(monkeypatch, caplog, error, message):
    for name in [name for name in sys.modules if name.split(".")[0] == "mamba_ssm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [BrokenImport(error), *sys.meta_path])
    forget()
    check_unusable(caplog, message)
