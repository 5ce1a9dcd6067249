"""Counts against ones made by hand, and against torch's own of the same network whose scans are plain PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.complexity import SCAN_OPERATIONS, count
from prompt_mamba_arch.ops import interface, recorded_scans, selective_scan, selective_scan_2d
from prompt_mamba_arch.ops.record import Scan

SMALL = {"dim": 16, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "unshuffle": 2, "text_width": 8}


def test_convolutions_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 1, groups=1), nn.Conv2d(4, 4, 3, 2))
    found = count(net, 20, 31)
    last = 9 * 15  # (20 - 3) // 2 + 1 by (31 - 3) // 2 + 1
    assert found.products == (3 * 5 * 9 + 5 * 4) * 20 * 31 + 4 * 4 * 9 * last
    assert found.activations == found.convolution_activations == (5 + 4) * 20 * 31 + 4 * last
    assert found.scans == 0 and found.macs == found.products and found.convolutions == 3
    assert found.parameters == found.active == 3 * 5 * 9 + 5 + 5 * 4 + 4 + 4 * 4 * 9 + 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(3, 3 * 8)

    def forward(self, x):
        query, key, value = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return nn.functional.scaled_dot_product_attention(query, key, value)


def test_attention_is_quadratic():
    for side in (4, 8):
        tokens = side * side
        found = count(Attention(), side, side)
        assert found.products == tokens * 3 * 24 + 2 * 2 * tokens * tokens * 4  # q k, and what it weighs, in two heads
        assert found.activations == tokens * 24 + tokens * 8 and found.convolution_activations == 0


@pytest.mark.parametrize("directions", [1, 2, 4])
def test_scans_by_hand(directions):
    """Every token of the coarser level, once for each direction."""
    states, inner, rank = 5, 32, 2
    net = PromptMamba(**SMALL, mixers=["dense", "scan"], d_state=states, directions=directions)
    tokens = (24 // 4) * (40 // 4)  # after the unshuffle and one level down
    found = count(net, 24, 40)
    assert found.scans == SCAN_OPERATIONS * tokens * directions * inner * states
    (call,) = _calls(net, 24, 40)
    assert call == Scan(1, tokens, inner, states, directions, rank) and rank == math.ceil(inner / 16)
    assert found.macs == found.products + found.scans


def _calls(net, height, width):
    with recorded_scans() as calls, torch.no_grad():
        net(torch.rand(1, 3, height, width))
    return calls


def test_products_are_those_of_plain_pytorch(monkeypatch):
    """Also of sizes that are padded; and nothing depends on how the scan is computed here."""
    net = PromptMamba(**SMALL, mixers=["conv", "scan"], text_attention=True).eval()
    found = count(net, 37, 50)
    monkeypatch.setattr(interface, "_automatic", lambda *arguments: "torch")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.rand(1, 3, 37, 50))
    attention = 2 * (40 // 4) * (52 // 4) * 32 * net.text_attention.tokens  # which torch does not count on CPUs
    assert found.products == counter.get_total_flops() / 2 + attention
    assert count(net, 37, 50) == found


def test_recorded_scans_are_not_made():
    u, A, B = torch.rand(2, 6, 10), -torch.rand(6, 3), torch.rand(2, 3, 10)
    with recorded_scans() as calls:
        y, last = selective_scan(u, u, A, B, B, return_last_state=True)
        with recorded_scans() as inner:
            selective_scan(u, u, A, B, B)
        order = torch.arange(10, dtype=torch.int32)[None]
        plane = selective_scan_2d(
            u.transpose(1, 2), torch.rand(2, 10, 1, 7), torch.rand(1, 6, 1), torch.rand(1, 6), A[None], A.T[:1], order
        )
        with pytest.raises(ValueError, match="delta must be"):
            selective_scan(u, u[:1], A, B, B)
    assert calls == [Scan(2, 10, 6, 3), Scan(2, 10, 6, 3, 1, 1)] and inner == [Scan(2, 10, 6, 3)]
    assert y.shape == u.shape and last.shape == (2, 6, 3) and plane.shape == (2, 10, 6)
    assert not y.any() and selective_scan(u, u, A, B, B).any()


def test_active_parameters():
    one = count(PromptMamba(**SMALL, mixers=["conv", "scan"]), 32, 32)
    three = count(PromptMamba(**SMALL, mixers=["conv", "scan"], num_experts=3), 32, 32)
    routes = 3 * (16 + 1) * 2 + 3 * (32 + 1) + 3 * 3 * 8  # linear layers of the image's mean and of the prompt
    assert three.active == one.active + routes < three.parameters
    assert one.active == one.parameters

    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))

        def forward(self, x):
            return self.experts[int(x.mean() > 2)](x)

    net = Chosen().requires_grad_(False)
    found = count(net, 32, 32)
    assert found.active * 4 == found.parameters and not any(p.requires_grad for p in net.parameters())

    class Detached(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).detach()

    assert count(Detached(3, 3, 1), 8, 8).active is None
