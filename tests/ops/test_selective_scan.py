"""Every backend of the scan against the recurrence in float64: values, every gradient, types, extremes, memory."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from prompt_mamba_arch.ops import (
    DIRECTIONS,
    available_backends,
    scan_order,
    selective_scan,
    selective_scan_2d,
    torch_scan,
)
from prompt_mamba_arch.ops import order as orders

BACKENDS = [name for name in available_backends() if name not in ("reference", "mamba_ssm")]
PLACES = [pytest.param(name, "cpu", id=name) for name in BACKENDS]
if torch.cuda.is_available():
    usable = [name for name in ("torch", "mamba_ssm") if name in available_backends()]
    PLACES += [pytest.param(name, "cuda", id=f"{name}-cuda") for name in usable]
EXACT, SINGLE = 1e-10, 2e-5  # largest error, relative to the largest value
OPTIONS = ("D", "z", "delta_bias", "softplus", "last")


def sequence(batch=2, dim=4, length=37, states=3, groups=None, options=OPTIONS, seed=0):
    """float64 tensors for selective_scan, and its flags. No groups: B and C are 3-D."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    softplus = "softplus" in options
    per_state = (batch, states, length) if groups is None else (batch, groups, states, length)
    tensors = {
        "u": normal(batch, dim, length),
        "delta": normal(batch, dim, length) - 1 if softplus else F.softplus(normal(batch, dim, length) - 1),
        "A": -torch.exp(normal(dim, states)),
        "B": normal(*per_state),
        "C": normal(*per_state),
        "D": normal(dim) if "D" in options else None,
        "z": normal(batch, dim, length) if "z" in options else None,
        "delta_bias": normal(dim) * 0.3 if "delta_bias" in options else None,
    }
    if "delta_bias" in options and not softplus:
        tensors["delta_bias"] = tensors["delta_bias"].abs()  # without softplus delta must stay positive
    return tensors, {"delta_softplus": softplus, "return_last_state": "last" in options}


def results(function, tensors, flags, backend, dtype=torch.float64, device="cpu"):
    """Outputs and gradients of a random combination of them, by name."""
    leaves = {
        name: t if t is None or not t.is_floating_point() else t.to(device, dtype).detach().requires_grad_()
        for name, t in tensors.items()
    }
    if "order" in leaves:
        leaves["order"] = leaves["order"].to(device)
    outputs = function(**leaves, **flags, backend=backend)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=g, dtype=torch.float64).to(out) for out in outputs]
    sum((out * weight).sum() for out, weight in zip(outputs, weights)).backward()
    found = {name: out.detach() for name, out in zip(("y", "last"), outputs)}
    for name, leaf in leaves.items():
        if leaf is not None and leaf.is_floating_point():
            assert leaf.grad is not None or outputs[0].numel() == 0, f"no gradient for {name}"
            found[f"d{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return found


def assert_close(found, expected, tolerance, atol=1e-30):
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        got = found[name].cpu().double()
        assert got.shape == want.shape, name
        if want.numel():
            error = (got - want.double()).abs().max() / want.double().abs().max().clamp_min(atol)
            assert error <= tolerance, f"{name}: {error:.1e}"  # false for NaN too


def check_sequence(backend, device, dtype, tensors, flags, tolerance=None):
    if backend == "mamba_ssm":
        if dtype == torch.float64:
            pytest.skip("the CUDA kernels know no float64")
        flags = {**flags, "return_last_state": False}  # they have no gradient for it
    rounded = {name: None if t is None else t.to(dtype).double() for name, t in tensors.items()}
    expected = results(selective_scan, rounded, flags, "reference")
    found = results(selective_scan, tensors, flags, backend, dtype, device)
    assert_close(found, expected, tolerance or (EXACT if dtype == torch.float64 else SINGLE))


# ---- the reference itself -------------------------------------------------------------------------------------------


def test_reference_is_the_recurrence_of_the_paper():
    tensors, flags = sequence(groups=2)
    y, last = selective_scan(**tensors, **flags, backend="reference")
    n = {name: t.numpy() for name, t in tensors.items()}
    for b in range(2):
        for d in range(4):
            h, group = np.zeros(3), d // 2
            for t in range(37):
                delta = np.log1p(np.exp(n["delta"][b, d, t] + n["delta_bias"][d]))
                h = np.exp(delta * n["A"][d]) * h + delta * n["u"][b, d, t] * n["B"][b, group, :, t]
                gate = n["z"][b, d, t] / (1 + np.exp(-n["z"][b, d, t]))
                expected = (h @ n["C"][b, group, :, t] + n["D"][d] * n["u"][b, d, t]) * gate
                assert abs(y[b, d, t].item() - expected) < 1e-12
            assert np.abs(last[b, d].numpy() - h).max() < 1e-12


# ---- parity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("length", [0, 1, 2, 31, 32, 33, 255, 257, 1023, 1025, 2049])
def test_parity_for_any_length(backend, device, dtype, length):
    check_sequence(backend, device, dtype, *sequence(length=length, groups=2))


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("groups", [None, 1, 2, 6])
@pytest.mark.parametrize("options", [(), *((option,) for option in OPTIONS), ("z", "last"), OPTIONS], ids="-".join)
def test_parity_for_all_options(backend, device, groups, options):
    check_sequence(backend, device, torch.float64, *sequence(dim=6, groups=groups, options=options))


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("states", [1, 3, 16, 17])
@pytest.mark.parametrize("dim", [1, 5, 33])
def test_parity_for_any_size(backend, device, dim, states):
    check_sequence(backend, device, torch.float32, *sequence(batch=1, dim=dim, states=states, length=70))
    check_sequence(backend, device, torch.float64, *sequence(batch=3, dim=2 * dim, states=states, groups=2, length=35))


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("layout", ["channels last", "every second", "expanded"])
def test_parity_for_tensors_that_are_not_contiguous(backend, device, layout):
    tensors, flags = sequence(groups=2, length=65)
    if layout == "expanded":
        tensors = {k: t[..., :1].expand_as(t) for k, t in tensors.items()}
        tensors["delta"] = tensors["delta"][:1].expand_as(tensors["delta"])
    elif layout == "every second":
        tensors = {k: torch.stack([t, t * float("nan")], dim=-1).flatten(-2)[..., ::2] for k, t in tensors.items()}
    else:
        tensors = {k: t.mT.contiguous().mT if t.dim() > 1 else t for k, t in tensors.items()}
    dtype = torch.float32 if backend == "mamba_ssm" else torch.float64
    expected = selective_scan(**tensors, **flags, backend="reference")
    moved = {k: t.to(device, dtype, copy=True) if device == "cuda" else t for k, t in tensors.items()}
    for got, want in zip(selective_scan(**moved, **flags, backend=backend), expected):
        assert_close({"y": got}, {"y": want}, EXACT if dtype == torch.float64 else SINGLE)
    if dtype == torch.float64:
        # the gradient arrives in that layout too
        check_sequence(backend, device, dtype, tensors, flags)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_arrives_expanded_or_transposed(backend):
    """What sum() and permute() hand to a backward pass is not contiguous."""
    tensors, flags = sequence(groups=2, length=40)
    grads = []
    for name in ("reference", backend):
        leaves = {k: t.clone().requires_grad_() for k, t in tensors.items()}
        y, last = selective_scan(**leaves, **flags, backend=name)
        (y.sum() + (y.permute(2, 0, 1) * torch.arange(4.0)).sum() + last.sum()).backward()
        grads.append({k: t.grad for k, t in leaves.items()})
    assert_close(grads[1], grads[0], EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("used", ["y", "last"])
def test_gradient_of_one_output_alone(backend, used):
    tensors, flags = sequence(groups=2, length=40)
    grads = []
    for name in ("reference", backend):
        leaves = {k: t.clone().requires_grad_() for k, t in tensors.items()}
        outputs = dict(zip(("y", "last"), selective_scan(**leaves, **flags, backend=name)))
        outputs[used].square().sum().backward()
        grads.append({k: torch.zeros_like(t) if t.grad is None else t.grad for k, t in leaves.items()})
    assert_close(grads[1], grads[0], EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_gradient_of_one_input_alone(backend, name):
    tensors, flags = sequence(groups=2, length=40)
    grads = []
    for which in ("reference", backend):
        inputs = {**tensors, name: tensors[name].clone().requires_grad_()}
        y, last = selective_scan(**inputs, **flags, backend=which)
        (y.square().sum() + last.square().sum()).backward()
        grads.append({name: inputs[name].grad})
    assert_close(grads[1], grads[0], EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_values_with_and_without_gradients(backend):
    tensors, flags = sequence(groups=2, length=1500)
    y, last = selective_scan(**tensors, **flags, backend=backend)
    leaves = {k: t.clone().requires_grad_() for k, t in tensors.items()}
    y2, last2 = selective_scan(**leaves, **flags, backend=backend)
    assert not y.requires_grad and y2.requires_grad and last2.requires_grad
    assert torch.equal(y, y2) and torch.equal(last, last2)
    with torch.inference_mode():
        assert torch.equal(selective_scan(**leaves, **flags, backend=backend)[0], y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_left_as_they_were(backend):
    tensors, flags = sequence(groups=2, length=300)
    before = {k: t.clone() for k, t in tensors.items()}
    results(selective_scan, tensors, flags, backend)
    selective_scan(**tensors, **flags, backend=backend)
    assert all(torch.equal(tensors[k], before[k]) for k in before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_input_gives_the_same_bits(backend):
    tensors, flags = sequence(dim=24, states=8, length=700)
    first, second = (results(selective_scan, tensors, flags, backend, torch.float32) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_torch_backend_passes_gradcheck_twice():
    tensors, flags = sequence(batch=1, dim=2, length=5, states=2, groups=2)
    names = list(tensors)
    leaves = [tensors[name].requires_grad_() for name in names]

    def function(*values):
        return selective_scan(**dict(zip(names, values)), **flags, backend="torch")

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_torch_backend_differentiates_twice_over_many_segments():
    """A gradient penalty: the square of the gradient is differentiated."""
    tensors, flags = sequence(dim=4, groups=2, length=1100)
    found = []
    for backend in ("reference", "torch"):
        leaves = {k: t.clone().requires_grad_() for k, t in tensors.items()}
        y, last = selective_scan(**leaves, **flags, backend=backend)
        first = torch.autograd.grad(y.square().sum() + last.sum(), list(leaves.values()), create_graph=True)
        sum(g.square().sum() for g in first).backward()
        found.append({k: t.grad for k, t in leaves.items()})
    assert_close(found[1], found[0], EXACT)


def test_torch_backend_tells_equal_arguments_apart():
    x = sequence(dim=3, states=3, length=40, options=())[0]["u"]
    A = -torch.ones(3, 3, dtype=x.dtype)
    for create_graph in (False, True):
        grads = []
        for backend in ("reference", "torch"):
            leaf = x.abs().requires_grad_()
            y = selective_scan(leaf, leaf, A, leaf, leaf, backend=backend).square().sum()
            grads.append({"x": torch.autograd.grad(y, leaf, create_graph=create_graph)[0].detach()})
        assert_close(grads[1], grads[0], EXACT)


@pytest.mark.parametrize("length", [1, 2, 3, 100, 1050])
def test_torch_backend_in_chunks(monkeypatch, length):
    """As it scans on CUDA, and over segments of a few tokens."""
    for most, segment in ((1, 1), (32, 2**20), (32, 1), (7, 1)):
        monkeypatch.setattr(torch_scan, "_chunks", lambda x, most=most: min(most, math.isqrt(2 * len(x))))
        monkeypatch.setitem(torch_scan.SEGMENT, "cpu", segment)
        check_sequence("torch", "cpu", torch.float64, *sequence(groups=2, length=length))


# ---- images ---------------------------------------------------------------------------------------------------------


def image(height=5, width=7, batch=2, dim=4, directions=2, states=3, rank=2, seed=0, random_order=False):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    length = height * width
    if random_order:
        order = torch.stack([torch.randperm(length, generator=g) for _ in range(directions)]).int()
    else:
        order = scan_order(height, width, DIRECTIONS[:directions])
    return {
        "x": normal(batch, length, dim),
        "dbc": normal(batch, length, directions, rank + 2 * states),
        "dt_weight": normal(directions, dim, rank) * 0.5,
        "dt_bias": normal(directions, dim) - 1,
        "A": -torch.exp(normal(directions, dim, states)),
        "D": normal(directions, dim),
        "order": order,
    }


def plain_image_scan(x, dbc, dt_weight, dt_bias, A, D, order, backend):
    """The directions one after the other, each by `selective_scan`."""
    rank, states = dt_weight.shape[-1], A.shape[-1]
    total = torch.zeros_like(x)
    for k in range(len(order)):
        steps = order[k].long()
        low, B, C = dbc[:, steps, k].transpose(1, 2).split([rank, states, states], dim=1)
        y = selective_scan(
            x[:, steps].transpose(1, 2), dt_weight[k] @ low, A[k], B, C, D[k], None, dt_bias[k], True, backend=backend
        )
        total = total.index_add(1, steps, y.transpose(1, 2))
    return total


def check_image(backend, device, dtype, tensors, tolerance=None):
    if backend == "mamba_ssm" and dtype == torch.float64:
        pytest.skip("the CUDA kernels know no float64")
    rounded = {name: t.to(dtype).double() if t.is_floating_point() else t for name, t in tensors.items()}
    expected = results(plain_image_scan, rounded, {}, "reference")
    found = results(selective_scan_2d, tensors, {}, backend, dtype, device)
    assert_close(found, expected, tolerance or (EXACT if dtype == torch.float64 else SINGLE))


@pytest.mark.parametrize("directions", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (5, 7), (24, 17)])
@pytest.mark.parametrize(("backend", "device"), [*PLACES, pytest.param("reference", "cpu", id="reference")])
def test_image_parity(backend, device, height, width, directions):
    tensors = image(height, width, directions=directions)
    check_image(backend, device, torch.float32, tensors)
    check_image(backend, device, torch.float64, tensors)


@pytest.mark.parametrize("directions", [1, 3, 6])
@pytest.mark.parametrize(("backend", "device"), PLACES)
def test_image_parity_for_random_orders(backend, device, directions):
    check_image(backend, device, torch.float64, image(8, 9, directions=directions, random_order=True))


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("states", [1, 3, 16])
@pytest.mark.parametrize("rank", [1, 6])
def test_image_parity_for_any_size(backend, device, states, rank):
    check_image(backend, device, torch.float32, image(6, 11, batch=1, dim=19, states=states, rank=rank))


@pytest.mark.parametrize("backend", BACKENDS)
def test_image_parity_for_tensors_that_are_not_contiguous(backend):
    tensors = image(6, 8)
    tensors["x"] = tensors["x"].transpose(1, 2).contiguous().transpose(1, 2)
    tensors["dbc"] = torch.cat([tensors["dbc"], tensors["dbc"]], dim=-1)[..., : tensors["dbc"].shape[-1]]
    tensors["dt_weight"] = tensors["dt_weight"].transpose(1, 2).contiguous().transpose(1, 2)
    tensors["order"] = tensors["order"].t().contiguous().t()
    check_image(backend, "cpu", torch.float64, tensors)


# ---- types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_half_precision_is_scanned_in_float32(backend, device, half, autocast):
    """The only rounding is that of the inputs and of the result: half an ulp of the type."""
    tensors, flags = sequence(dim=8, states=8, length=600, groups=2)
    # parameters stay float32, as in a network under autocast
    given = {k: t.to(device, torch.float32 if k in ("A", "D", "delta_bias") else half) for k, t in tensors.items()}
    leaves = {k: t.clone().requires_grad_() for k, t in given.items()}
    context = torch.autocast(device, half) if autocast else contextlib.nullcontext()
    with context:
        y, last = selective_scan(**leaves, **flags, backend=backend)
    exact = {k: t.float().clone().requires_grad_() for k, t in given.items()}
    y32, last32 = selective_scan(**exact, **flags, backend=backend)
    assert y.dtype == half and last.dtype == torch.float32
    ulp = torch.finfo(half).eps
    assert ((y.float() - y32).abs() <= ulp * y32.abs() + ulp * 1e-3).all()
    if backend != "mamba_ssm":
        assert torch.equal(last, last32)
    y.float().sum().backward()
    y32.sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad.dtype == leaf.dtype
        assert_close({name: leaf.grad}, {name: exact[name].grad.cpu()}, 2 * ulp)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_half_precision_images_are_scanned_in_float32(backend, autocast):
    """delta too: its matrix product is not rounded to eight bits, nor is the sum over the directions."""
    tensors = image(12, 13, dim=8, directions=4, rank=4)
    half = torch.bfloat16
    given = {k: t.to(half) if k in ("x", "dbc") else t.float() if k != "order" else t for k, t in tensors.items()}
    with torch.autocast("cpu", half) if autocast else contextlib.nullcontext():
        y = selective_scan_2d(**given, backend=backend)
    y32 = selective_scan_2d(**{k: t.float() if k in ("x", "dbc") else t for k, t in given.items()}, backend=backend)
    assert y.dtype == half and torch.equal(y, y32.to(half))


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_is_scanned_in_float64_with_float32_parameters(backend):
    tensors, flags = sequence(groups=2)
    mixed = {k: t.float() if k in ("A", "D", "delta_bias") else t for k, t in tensors.items()}
    expected = selective_scan(**{k: t.double() for k, t in mixed.items()}, **flags, backend="reference")
    for got, want in zip(selective_scan(**mixed, **flags, backend=backend), expected):
        assert got.dtype == torch.float64
        assert_close({"y": got}, {"y": want}, EXACT)


@pytest.mark.parametrize(("backend", "device"), PLACES)
def test_precision_is_not_what_matrix_products_are_allowed(backend, device):
    """TF32, or bfloat16 on some CPUs, is for networks' layers; a scan would add up its errors."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        check_sequence(backend, device, torch.float32, *sequence(dim=32, states=16, length=300, groups=2))
    finally:
        torch.set_float32_matmul_precision(before)


# ---- extremes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("softplus", [False, True], ids=["delta", "softplus"])
@pytest.mark.parametrize(
    ("delta", "rate"),
    [(1e4, -1e4), (1e4, -1e-4), (0.0, -1.0), (1e-30, -1.0), (1e-6, -1e4), (50.0, -1e4), (1e-3, -0.0), (-1e4, -1e-3)],
)
def test_extremes_stay_finite_and_right(backend, device, delta, rate, softplus):
    if delta < 0 and not softplus:
        pytest.skip("a negative delta is no step size")
    tensors, _ = sequence(dim=4, length=300, groups=2)
    tensors["delta"] = torch.full_like(tensors["delta"], delta)
    tensors["delta"][..., ::7] *= 0.5
    tensors["A"] = torch.full_like(tensors["A"], rate)
    flags = {"delta_softplus": softplus, "return_last_state": backend != "mamba_ssm"}
    tensors["delta_bias"] = None
    found = results(selective_scan, tensors, flags, backend, torch.float32, device)
    assert all(torch.isfinite(t).all() for t in found.values())
    rounded = {name: None if t is None else t.float().double() for name, t in tensors.items()}
    # a float32 delta of 1e-30 gives gradients that are too small to compare
    assert_close(found, results(selective_scan, rounded, flags, "reference"), 1e-4, atol=1e-20)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sudden_and_slow_steps_in_turn(backend):
    """A token that wipes the state out, between tokens that keep it: cumulative products underflow here."""
    tensors, flags = sequence(dim=4, length=1200, groups=2, options=("last",))
    tensors["delta"] = tensors["delta"] * 1e-3
    tensors["delta"][..., ::50] = 100.0
    check_sequence(backend, "cpu", torch.float32, tensors, flags)


@pytest.mark.parametrize(("backend", "device"), PLACES)
@pytest.mark.parametrize("where", ["u", "z", "delta"])
def test_nan_stays_in_its_channel_and_its_image(backend, device, where):
    tensors, _ = sequence(batch=2, dim=6, length=200, groups=2)
    clean = {k: t.to(device, torch.float32) for k, t in tensors.items()}
    dirty = {**clean, where: clean[where].clone()}
    dirty[where][1, 2, 77] = float("nan")
    y, y_clean = (selective_scan(**t, delta_softplus=True, backend=backend) for t in (dirty, clean))
    assert torch.isnan(y[1, 2, 77])
    assert torch.equal(y[1, 2, :77], y_clean[1, 2, :77])
    if where != "z":
        assert torch.isnan(y[1, 2, 77:]).all()
    y[1, 2] = y_clean[1, 2]
    assert torch.equal(y, y_clean)


@pytest.mark.parametrize(("backend", "device"), PLACES)
def test_a_hundred_thousand_tokens(backend, device):
    tensors, _ = sequence(batch=1, dim=2, states=2, length=100_000, options=("softplus",))
    tensors["delta"] = tensors["delta"] - 5  # a memory of thousands of tokens
    flags = {"delta_softplus": True, "return_last_state": backend != "mamba_ssm"}
    single = {k: None if t is None else t.to(device, torch.float32) for k, t in tensors.items()}
    found = selective_scan(**single, **flags, backend=backend)
    exact = {k: None if t is None else t.double() for k, t in single.items()}
    # numpy does in a moment what the reference needs minutes of Python for
    n = {k: t.cpu().numpy() for k, t in exact.items() if t is not None}
    delta = np.log1p(np.exp(n["delta"]))[0]
    decay = np.exp(delta[:, None] * n["A"][:, :, None])
    add = (delta * n["u"][0])[:, None] * n["B"][0]
    h, states = np.zeros((2, 2)), []
    for t in range(100_000):
        h = decay[..., t] * h + add[..., t]
        states.append(h)
    y = (np.stack(states, axis=-1) * n["C"][0]).sum(1)[None]
    found = found if isinstance(found, tuple) else (found,)
    for got, want in zip(found, (torch.from_numpy(y), torch.from_numpy(h)[None])):
        assert_close({"": got}, {"": want}, 1e-5)


# ---- memory ---------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operators made and that are still alive; keeps the peak."""

    def __init__(self):
        super().__init__()
        self.storages, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor) and t.untyped_storage()._cdata not in self.storages:
                storage = t.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                if self.now + storage.nbytes() > self.peak:
                    self.count()
        return out

    def count(self):
        self.storages = {k: v for k, v in self.storages.items() if not v[0].expired()}
        self.now = sum(size for _, size in self.storages.values())
        self.peak = max(self.peak, self.now)
        return self.now


def scan_memory(backend, states, dim=64, length=4096):
    """Bytes that forward leaves for backward, and the most that are alive at a time."""
    tensors, flags = sequence(batch=1, dim=dim, states=states, length=length, options=("D", "softplus"))
    leaves = {k: None if t is None else t.float().requires_grad_() for k, t in tensors.items()}
    with LiveBytes() as live:
        y = selective_scan(**leaves, **flags, backend=backend)
        kept = live.count()
        y.sum().backward()
    assert kept >= y.numel() * 4, "the counter works"
    return kept, live.peak


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_with_gradients_does_not_grow_with_the_states(backend):
    dim, length = 64, 4096
    (few, _), (many, peak) = (scan_memory(backend, states, dim, length) for states in (8, 64))
    per_token = length * 4  # bytes of one float32 for each token
    assert many - few < 2 * 56 * per_token + 2 * dim * per_token  # B and C themselves, and at most two more (L, D)
    assert many < 12 * dim * per_token
    assert peak < 64 * dim * per_token  # one tensor (L, D, N) would be more


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_without_gradients_does_not_grow_with_the_states(backend):
    tensors, flags = sequence(batch=1, dim=64, states=64, length=4096, options=())
    tensors = {k: None if t is None else t.float() for k, t in tensors.items()}
    with LiveBytes() as live:
        selective_scan(**tensors, **flags, backend=backend)
    assert 0 < live.peak < 64 * 64 * 4096 * 4 / 2


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [selective_scan, selective_scan_2d])
def test_unknown_backend_is_refused_with_the_known_ones(function):
    tensors = sequence()[0] if function is selective_scan else image()
    with pytest.raises(ValueError, match="unknown scan backend 'tensorflow'; there are auto, reference, torch, "):
        function(**tensors, backend="tensorflow")


def test_available_backends_can_all_be_used():
    assert {"reference", "torch"} <= set(available_backends())
    tensors, flags = sequence()
    for backend in {"auto", *available_backends()} - {"mamba_ssm"}:
        assert selective_scan(**tensors, **flags, backend=backend)[0].shape == tensors["u"].shape


# ---- orders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1), (4, 7), (7, 4)])
def test_orders_visit_every_pixel_once(height, width):
    order = scan_order(height, width, DIRECTIONS)
    assert order.dtype == torch.int32 and order.shape == (len(DIRECTIONS), height * width)
    assert (order.sort(dim=1).values == torch.arange(height * width)).all()
    rows = {name: row.tolist() for name, row in zip(DIRECTIONS, order)}
    for name in DIRECTIONS:
        if name.endswith("_reversed"):
            assert rows[name] == rows[name[: -len("_reversed")]][::-1]


def test_snake_only_ever_steps_to_a_neighbour():
    y, x = np.divmod(scan_order(5, 8, ("snake",))[0].numpy(), 8)
    assert (np.abs(np.diff(y)) + np.abs(np.diff(x)) == 1).all()


def test_orders_of_many_sizes_do_not_fill_the_memory():
    """Whoever restores photographs of a thousand sizes has at most so many numbers kept."""
    for size in range(1, 30):
        latest = scan_order(97 * size, 1013, ("rows", "columns"))
    assert sum(one.numel() for one in orders._tables.values()) <= orders._MOST
    assert scan_order(97 * 29, 1013, ("rows", "columns")) is latest
    huge = scan_order(2100, 2000, ("rows", "columns"))
    assert huge.shape == (2, 4_200_000) and scan_order(2100, 2000, ("rows", "columns")) is not huge


def test_orders_are_cached_and_unknown_ones_refused():
    assert scan_order(6, 5, ("rows", "columns")) is scan_order(6, 5, ["rows", "columns"], "cpu")
    with pytest.raises(ValueError, match="unknown scan direction 'diagonal'; there are rows, rows_reversed, columns"):
        scan_order(4, 4, ("rows", "diagonal"))
