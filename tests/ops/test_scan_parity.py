"""Every backend computes what the float64 reference computes: values, last state and every gradient."""

from __future__ import annotations

import pytest
import torch

from prompt_mamba_arch.ops import A_FORMS, DIRECTIONS, scan_order, selective_scan, selective_scan_2d

# batch, channels, length, states, groups (None: B and C have no such dimension)
SIZES = [
    (2, 8, 33, 4, 2),
    (1, 20, 64, 1, 1),
    (2, 36, 65, 16, 3),
    (1, 24, 130, 13, None),
    (1, 7, 1, 3, None),
    (3, 1, 63, 2, None),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("a_form", A_FORMS)
def test_everything_given(scan_tools, backend, size, a_form):
    scan_tools.compare(scan_tools.sequence(*size, a_form=a_form), backend)


@pytest.mark.parametrize(
    "options",
    [
        {"gate": False},
        {"skip": False},
        {"softplus": False},
        {"bias": False},
        {"gate": False, "skip": False, "softplus": False, "bias": False},
        {"layout": "BLD"},
        {"layout": "BLD", "gate": False, "a_form": "tied"},
        {"dtype": torch.float64},
        {"dtype": torch.bfloat16},
        {"dtype": torch.float16},
    ],
    ids=str,
)
def test_options(scan_tools, backend, options):
    scan_tools.compare(scan_tools.sequence(2, 18, 70, 6, 2, **options), backend)


def test_long_sequence_crosses_segments_and_chunks(scan_tools, backend):
    scan_tools.compare(scan_tools.sequence(1, 3, 1100, 2), backend)


def test_growing_states(scan_tools, backend):
    """Neither a positive A nor a negative delta is forbidden."""
    arguments = scan_tools.sequence(1, 8, 40, 4, softplus=False)
    arguments["A"] = arguments["A"].abs() * 0.1
    arguments["delta"][:, ::2] *= -1
    scan_tools.compare(arguments, backend)


def test_last_state_only(scan_tools, backend):
    arguments = scan_tools.leaves(scan_tools.sequence(2, 9, 37, 3))
    _, last = selective_scan(**arguments, backend=backend)
    (found,) = torch.autograd.grad(last.sum(), arguments["u"])
    arguments = scan_tools.leaves(arguments, torch.float64)
    _, last = selective_scan(**arguments, backend="reference")
    (truth,) = torch.autograd.grad(last.sum(), arguments["u"])
    assert scan_tools.relative_error(found, truth) < 2e-5


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 4, 0)], ids=str)
def test_empty(backend, shape):
    batch, dim, length = shape
    u = torch.randn(shape, requires_grad=True)
    rates = torch.randn(batch, 3, length)
    y, last = selective_scan(u, u, -torch.rand(dim, 3), rates, rates, return_last_state=True, backend=backend)
    y.sum().backward()
    assert y.shape == u.grad.shape == shape and last.shape == (batch, dim, 3) and not last.any()


# batch, tokens, channels, states, rank, directions
IMAGES = [(2, 63, 12, 4, 2, 4), (1, 128, 17, 8, 3, 2), (2, 65, 24, 1, 1, 1), (1, 1, 5, 16, 4, 2)]


@pytest.mark.parametrize("size", IMAGES, ids=str)
@pytest.mark.parametrize("a_form", A_FORMS)
def test_image(scan_tools, backend, size, a_form):
    scan_tools.compare(scan_tools.image(*size, a_form=a_form), backend)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_image_types(scan_tools, backend, dtype):
    scan_tools.compare(scan_tools.image(2, 40, 16, 3, 2, 2, dtype=dtype), backend)


def test_image_orders(scan_tools, backend):
    arguments = scan_tools.image(1, 6 * 7, 8, 4, 2, len(DIRECTIONS))
    arguments["order"] = scan_order(6, 7, DIRECTIONS)
    scan_tools.compare(arguments, backend)


def test_image_is_the_sum_of_sequences(scan_tools, backend):
    """Along rows, one direction of the image is the sequence of its pixels."""
    a = scan_tools.image(2, 35, 6, 3, 2, 2)
    a["order"] = scan_order(5, 7, ("rows", "rows_reversed"))
    y = selective_scan_2d(**a, backend=backend)
    expected = 0
    for k, flip in enumerate((False, True)):
        x, dbc = (t.flip(1) if flip else t for t in (a["x"], a["dbc"][:, :, k]))
        low, B, C = dbc.split([2, 3, 3], dim=-1)
        one = selective_scan(
            x.transpose(1, 2),
            (low @ a["dt_weight"][k].T).transpose(1, 2),
            a["A"][k],
            B.transpose(1, 2),
            C.transpose(1, 2),
            a["D"][k],
            delta_bias=a["dt_bias"][k],
            delta_softplus=True,
            backend=backend,
        ).transpose(1, 2)
        expected = expected + (one.flip(1) if flip else one)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_is_scanned_in_float32(scan_tools, backend):
    """Only inputs and outputs are rounded, under autocast, too."""
    arguments = scan_tools.sequence(1, 8, 500, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, last = selective_scan(**arguments, backend=backend)
    exact, _ = selective_scan(**scan_tools.leaves(arguments, torch.float64), backend="reference")
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    assert torch.equal(y, exact.to(torch.bfloat16)) or scan_tools.relative_error(y, exact) < 2**-8


def test_gradcheck(scan_tools, backend):
    arguments = scan_tools.leaves(scan_tools.sequence(1, 5, 35, 3, dtype=torch.float64))
    names = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]

    def scan(*tensors):
        return selective_scan(**{**arguments, **dict(zip(names, tensors))}, backend=backend)

    assert torch.autograd.gradcheck(scan, [arguments[name] for name in names], atol=1e-6, fast_mode=True)


def test_image_gradcheck(scan_tools, backend):
    arguments = scan_tools.leaves(scan_tools.image(1, 35, 3, 2, 2, 2, dtype=torch.float64))
    names = [n for n, v in arguments.items() if isinstance(v, torch.Tensor) and v.requires_grad]

    def scan(*tensors):
        return selective_scan_2d(**{**arguments, **dict(zip(names, tensors))}, backend=backend)

    assert torch.autograd.gradcheck(scan, [arguments[name] for name in names], atol=1e-6, fast_mode=True)
