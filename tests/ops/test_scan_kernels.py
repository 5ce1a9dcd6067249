"""The C++ kernels: every instruction set, thread count, layout and odd size; torch's checks of custom operators."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck

from prompt_mamba_arch.ops import A_FORMS, scan_order, selective_scan, selective_scan_2d

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request, kernels) -> str:
    if not kernels.pm_scan_use_instruction_set(request.param.encode()):
        pytest.skip(f"this processor has no {request.param}")
    return request.param


@pytest.mark.parametrize("a_form", A_FORMS)
def test_every_instruction_set(scan_tools, instruction_set, kernels, a_form):
    assert kernels.pm_scan_instruction_set().decode() == instruction_set
    scan_tools.compare(scan_tools.sequence(2, 42, 97, 11, 2, a_form=a_form), "cpu")
    scan_tools.compare(scan_tools.sequence(1, 40, 70, 3, a_form=a_form, layout="BLD", dtype=torch.float64), "cpu")
    scan_tools.compare(scan_tools.image(2, 67, 50, 5, 3, 2, a_form=a_form), "cpu")


def test_best_instruction_set_is_the_default(kernels):
    usable = [name for name in INSTRUCTION_SETS if kernels.pm_scan_use_instruction_set(name.encode())]
    kernels.pm_scan_use_instruction_set(b"")
    assert kernels.pm_scan_instruction_set().decode() == usable[-1]
    assert not kernels.pm_scan_use_instruction_set(b"mmx")


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 16, 31, 33])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 64])
def test_odd_sizes(scan_tools, kernels, dim, length):
    scan_tools.compare(scan_tools.sequence(1, dim, length, 1 + dim % 5, gate=dim % 2 == 0, layout="BLD"), "cpu")


@pytest.mark.parametrize("states", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("a_form", A_FORMS)
def test_odd_numbers_of_states(scan_tools, kernels, states, a_form):
    scan_tools.compare(scan_tools.sequence(1, 9, 40, states, a_form=a_form), "cpu")


def strided(t: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers, otherwise in memory."""
    if layout == "every second":
        return torch.stack([t, t], dim=-1)[..., 0]
    if layout == "turned":
        return t.permute(*reversed(range(t.dim()))).contiguous().permute(*reversed(range(t.dim())))
    if layout == "a part":
        return torch.nn.functional.pad(t, (3, 2, 1, 1))[..., 1:-1, 3:-2]
    return t[..., :1].expand_as(t)  # "expanded": all the same along the last dimension


@pytest.mark.parametrize("layout", ["every second", "turned", "a part", "expanded"])
@pytest.mark.parametrize("function", ["sequence", "image"])
def test_layouts(scan_tools, kernels, layout, function):
    if function == "sequence":
        names, arguments = ("u", "delta", "z", "B", "C"), scan_tools.sequence(2, 18, 37, 5, 1)
    else:
        names, arguments = ("x", "dbc"), scan_tools.image(2, 37, 18, 5, 2, 2)
    for name in names:  # one at a time, then all: mixtures take other paths
        scan_tools.compare({**arguments, name: strided(arguments[name], layout)}, "cpu")
    scan_tools.compare({**arguments, **{name: strided(arguments[name], layout) for name in names}}, "cpu")


def test_threads_change_no_bit(scan_tools, instruction_set):
    def run(arguments, threads):
        arguments = scan_tools.leaves(arguments)
        tensors = [v for v in arguments.values() if isinstance(v, torch.Tensor) and v.requires_grad]
        torch.set_num_threads(threads)
        try:
            y = selective_scan(**arguments)[0] if "u" in arguments else selective_scan_2d(**arguments)
            return [y, *torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), tensors)]
        finally:
            torch.set_num_threads(1)

    for arguments in (
        scan_tools.sequence(1, 136, 70, 4, 1),
        scan_tools.sequence(3, 24, 50, 3, 2, layout="BLD", gate=False),
        scan_tools.image(1, 75, 100, 4, 2, 3),
        scan_tools.image(2, 75, 48, 8, 2, 2, a_form="tied"),
    ):
        one = run(arguments, 1)
        for threads in (2, 3, 5):
            assert all(torch.equal(a, b) for a, b in zip(one, run(arguments, threads)))


@pytest.mark.parametrize("a_form", A_FORMS)
def test_a_million_tokens(scan_tools, kernels, a_form):
    """Errors do not pile up along the sequence; slow and fast decays."""
    arguments = scan_tools.sequence(1, 8, 1_000_000, 2, a_form=a_form, gate=False)
    arguments["A"] = -torch.logspace(-3, 1, arguments["A"].numel()).view_as(arguments["A"])
    y, last = selective_scan(**arguments, backend="cpu")
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    truth, truth_last = selective_scan(**exact, backend="cpu")
    assert scan_tools.relative_error(y, truth) < 1e-5 and scan_tools.relative_error(last, truth_last) < 1e-5
    assert scan_tools.relative_error(y[..., -1000:], truth[..., -1000:]) < 1e-5


@pytest.mark.parametrize("a_form", A_FORMS)
@pytest.mark.parametrize("size", [1e-30, 1e-3, 30.0, 1e4])
def test_extreme_numbers_stay_finite(scan_tools, instruction_set, a_form, size):
    arguments = scan_tools.sequence(1, 20, 70, 5, a_form=a_form)
    arguments["A"] = arguments["A"] * size
    arguments["delta"] = arguments["delta"] * size
    arguments = scan_tools.leaves(arguments)
    y, last = selective_scan(**arguments, backend="cpu")
    tensors = [v for v in arguments.values() if isinstance(v, torch.Tensor)]
    for t in (y, last, *torch.autograd.grad(y.mean() + last.mean(), tensors)):
        assert torch.isfinite(t).all()


def test_a_nan_stays_in_its_channel(scan_tools, instruction_set):
    arguments = scan_tools.sequence(1, 20, 70, 5)
    arguments["u"][0, 3, 40] = float("nan")
    y, _ = selective_scan(**arguments, backend="cpu")
    assert y[0, 3, 40:].isnan().all()
    y[0, 3, 40:] = 0
    assert torch.isfinite(y).all()


def test_denormals_are_as_before(scan_tools, kernels):
    """The kernels take denormal numbers for zero while they run, and put the thread's setting back."""
    selective_scan(**scan_tools.sequence(1, 8, 8, 2), backend="cpu")
    assert (torch.tensor(1e-38) * 0.1).item() != 0


@pytest.mark.parametrize("wrong", [-1, 12])
def test_an_order_that_points_elsewhere_is_refused(scan_tools, kernels, wrong):
    arguments = scan_tools.image(1, 12, 4, 2, 1, 2)
    arguments["order"][1, 5] = wrong
    with pytest.raises(RuntimeError, match="order must hold numbers of tokens"):
        selective_scan_2d(**arguments, backend="cpu")


def test_training_memory(scan_tools, kernels):
    """Forward keeps its arguments, and N / 32 numbers for each number of u; not N."""
    arguments = scan_tools.leaves(scan_tools.sequence(1, 16, 1024, 8))
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        selective_scan(**arguments, backend="cpu")
    given = sum(t.numel() for t in arguments.values() if isinstance(t, torch.Tensor))
    assert sum(kept.values()) == given + 16 * 1024 * 8 // 32


@pytest.mark.parametrize("a_form", A_FORMS)
@pytest.mark.parametrize("function", ["sequence", "image"])
def test_second_derivatives(scan_tools, kernels, function, a_form):
    """A penalty on a gradient, as critics have it."""
    make = {"sequence": (2, 6, 40, 3, 2), "image": (2, 40, 6, 3, 2, 2)}[function]
    arguments = getattr(scan_tools, function)(*make, a_form=a_form, dtype=torch.float64)
    found = []
    for backend in ("cpu", "reference"):
        given = scan_tools.leaves(arguments)
        if function == "sequence":
            y, last = selective_scan(**given, backend=backend)
            loss = y.square().sum() + last.square().sum()
        else:
            loss = selective_scan_2d(**given, backend=backend).square().sum()
        tensors = [v for v in given.values() if isinstance(v, torch.Tensor) and v.requires_grad]
        first = torch.autograd.grad(loss, tensors[:2], create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), tensors)])
    for a, b in zip(*found):
        assert scan_tools.relative_error(a, b) < 1e-10


# ---- torch's own checks --------------------------------------------------------------------------------------------


def tensors_of(arguments: dict, names: str) -> list:
    return [arguments[name] for name in names.split()]


def operator_arguments(scan_tools):
    a = scan_tools.leaves(scan_tools.sequence(2, 10, 40, 3, 2))
    yield torch.ops.prompt_mamba.scan, (*tensors_of(a, "u delta A B C D z delta_bias"), True, "general", True)
    a = scan_tools.leaves(scan_tools.sequence(2, 10, 40, 3, 2, gate=False, skip=False, bias=False, layout="BLD"))
    yield torch.ops.prompt_mamba.scan, (*tensors_of(a, "u delta A B C D z delta_bias"), True, "general", True)
    a = scan_tools.leaves(scan_tools.image(2, 40, 10, 3, 2, 2, a_form="tied"))
    yield torch.ops.prompt_mamba.scan_2d, (*tensors_of(a, "x dbc dt_weight dt_bias A D order"), "tied", True)


def test_opcheck(scan_tools, kernels):
    for operator, arguments in operator_arguments(scan_tools):
        assert set(opcheck(operator.default, arguments).values()) == {"SUCCESS"}


def test_opcheck_of_backward(scan_tools, kernels):
    for operator, (*arguments, form, _) in operator_arguments(scan_tools):
        *_, starts = outputs = operator(*arguments, form, True)
        tensors = [t.detach() if isinstance(t, torch.Tensor) else t for t in (*arguments, starts)]
        dy = torch.randn_like(outputs[0])
        if operator is torch.ops.prompt_mamba.scan:
            *tensors, softplus, starts = tensors
            arguments = (dy, torch.randn_like(outputs[1]), *tensors, starts.detach(), softplus, form)
            operator = torch.ops.prompt_mamba.scan_backward
        else:
            arguments, operator = (dy, *tensors, form), torch.ops.prompt_mamba.scan_2d_backward
        assert set(opcheck(operator.default, arguments).values()) == {"SUCCESS"}


class Scans(torch.nn.Module):
    def __init__(self, arguments: dict):
        super().__init__()
        self.A, self.D = torch.nn.Parameter(arguments["A"]), torch.nn.Parameter(arguments["D"])
        self.register_buffer("order", arguments["order"])

    def forward(self, x, dbc, dt_weight, dt_bias):
        y = selective_scan_2d(x, dbc, dt_weight, dt_bias, self.A, self.D, self.order)
        u = y.transpose(1, 2)
        B, C = (t.transpose(1, 2) for t in dbc[:, :, 0].chunk(2, dim=-1))
        return selective_scan(u, u, self.A[0][:, :1], B, C, delta_softplus=True, a_form="scalar")


def scans_and_inputs(scan_tools):
    arguments = scan_tools.leaves(scan_tools.image(1, 30, 6, 3, 2, 2))
    arguments["order"] = scan_order(5, 6, ("rows", "columns"))
    return Scans(arguments), tensors_of(arguments, "x dbc dt_weight dt_bias")


def test_compile(scan_tools, kernels):
    scans, inputs = scans_and_inputs(scan_tools)
    compiled = torch.compile(scans, backend="aot_eager", fullgraph=True)
    found, expected = compiled(*inputs), scans(*inputs)
    assert torch.equal(found, expected)
    wanted = [*inputs, scans.A, scans.D]
    for a, b in zip(torch.autograd.grad(found.sum(), wanted), torch.autograd.grad(expected.sum(), wanted)):
        assert torch.equal(a, b)


def test_export(scan_tools, kernels):
    scans, inputs = scans_and_inputs(scan_tools)
    with torch.no_grad():
        exported = torch.export.export(scans, tuple(inputs))
        assert torch.equal(exported.module()(*inputs), scans(*inputs))
    names = [node.name for node in exported.graph.nodes if "prompt_mamba" in str(node.target)]
    assert len(names) == 2
