"""The linear layer by oneDNN is torch's, to rounding, and steps aside where it should."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from prompt_mamba_arch.ops import linear as linear_of_ops
from prompt_mamba_arch.ops.linear_map import _ONEDNN, _suits_onednn, linear

SHAPES = [(4096, 24), (3, 700, 24), (2, 32, 33, 24)]


@pytest.fixture
def onednn():
    if _ONEDNN is None:
        pytest.skip("this torch has no oneDNN")


def operands(*shape, turned=False):
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(40, shape[-1])
    if turned:
        x, weight = x.transpose(0, -1).contiguous().transpose(0, -1), weight.t().contiguous().t()
    return x.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_values_and_gradients(onednn, shape, turned):
    assert linear_of_ops is linear
    x, weight = operands(*shape, turned=turned)
    assert _suits_onednn(x, weight)
    y = linear(x, weight)
    with torch.no_grad():
        assert torch.equal(linear(x, weight), y)
    dy = torch.randn_like(y)
    exact_x, exact_weight = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    exact = F.linear(exact_x, exact_weight)
    found = [y, *torch.autograd.grad(y, (x, weight), dy)]
    truth = [exact, *torch.autograd.grad(exact, (exact_x, exact_weight), dy.double())]
    for a, b in zip(found, truth):
        assert a.shape == b.shape and a.dtype == torch.float32
        assert ((a - b).norm() / b.norm()).item() < 1e-6


def test_only_what_is_needed_is_computed(onednn):
    x, weight = operands(4096, 24)
    (dx,) = torch.autograd.grad(linear(x, weight.detach()).sum(), x)
    (dweight,) = torch.autograd.grad(linear(x.detach(), weight).sum(), weight)
    torch.testing.assert_close(dx, weight.detach().sum(0).expand_as(x))
    torch.testing.assert_close(dweight, x.detach().sum(0).expand_as(weight), rtol=1e-4, atol=1e-3)


def test_second_derivatives(onednn):
    found = []
    for function in (linear, F.linear):
        x, weight = operands(4096, 24)
        first = torch.autograd.grad(function(x, weight).square().mean(), (x, weight), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight)))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)


def test_steps_aside(onednn):
    x, weight = operands(4096, 24)
    assert not _suits_onednn(x[:16], weight)  # too little to do
    assert not _suits_onednn(x.double(), weight.double())
    assert not _suits_onednn(x[0], weight)
    assert not _suits_onednn(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not _suits_onednn(x, weight)
        assert linear(x, weight).dtype == torch.bfloat16
    with FlopCounterMode(display=False) as counter:
        linear(x, weight)
    assert counter.get_total_flops() == 2 * 4096 * 24 * 40


def test_graphs_hold_the_common_operator(onednn):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(40, 24))

        def forward(self, x):
            return linear(x, self.weight)

    graph = torch.export.export(Layer(), (torch.randn(4096, 24),)).graph
    assert [str(node.target) for node in graph.nodes if node.op == "call_function"] == ["aten.linear.default"]
