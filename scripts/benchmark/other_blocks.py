"""Blocks of other restoration networks, written after their papers for comparison of speed; no weights fit them.

All read and return features `(B, H, W, C)`, except where the name says NCHW.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from prompt_mamba_arch.ops import scan_order, selective_scan, selective_scan_2d

__all__ = ["MambaIRBlock", "NAFBlockNCHW", "RestormerBlockNCHW", "SwinBlock"]

ALL_WAYS = ("rows", "columns", "rows_reversed", "columns_reversed")


class LayerNormNCHW(nn.LayerNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NAFBlockNCHW(nn.Module):
    """NAFNet (Chen et al. 2022, figure 3c), with torch's LayerNorm, which is faster than the published one."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.ffn_norm = LayerNormNCHW(channels), LayerNormNCHW(channels)
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention, self.contract = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.ffn_expand, self.ffn_contract = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, channels, 1)
        self.beta, self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1)), nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.depthwise(self.expand(self.norm(x))).chunk(2, 1)
        y = a * b
        y = self.contract(y * self.attention(y.mean((2, 3), keepdim=True)))
        x = x + y * self.beta
        a, b = self.ffn_expand(self.ffn_norm(x)).chunk(2, 1)
        return x + self.ffn_contract(a * b) * self.gamma


class SwinBlock(nn.Module):
    """SwinIR's layer (Liang et al. 2021): 8 x 8 windows, shifted, without the mask, and torch's fused attention."""

    def __init__(self, channels: int, head_channels: int = 16, window: int = 8, ratio: float = 2.0):
        super().__init__()
        self.window, self.heads = window, channels // head_channels
        self.norm, self.mlp_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.bias = nn.Parameter(torch.zeros(1, self.heads, window**2, window**2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        w, shift = self.window, self.window // 2
        y = self.norm(x).roll((-shift, -shift), (1, 2))
        y = y.view(batch, height // w, w, width // w, w, channels).transpose(2, 3).reshape(-1, w * w, channels)
        q, k, v = self.qkv(y).view(-1, w * w, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias).transpose(1, 2).flatten(2)
        y = self.proj(y).view(batch, height // w, width // w, w, w, channels).transpose(2, 3).reshape(x.shape)
        x = x + y.roll((shift, shift), (1, 2))
        return x + self.mlp(self.mlp_norm(x))


class RestormerBlockNCHW(nn.Module):
    """Restormer (Zamir et al. 2022): attention between channels, gated depthwise feed-forward."""

    def __init__(self, channels: int, heads: int = 2, ratio: float = 2.66):
        super().__init__()
        self.heads, hidden = heads, int(channels * ratio)
        self.norm, self.ffn_norm = LayerNormNCHW(channels), LayerNormNCHW(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.depthwise = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.proj = nn.Conv2d(channels, channels, 1, bias=False)
        self.ffn_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.ffn_depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.ffn_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        q, k, v = (
            t.reshape(batch, self.heads, channels // self.heads, height * width)
            for t in self.depthwise(self.qkv(self.norm(x))).chunk(3, 1)
        )
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        x = x + self.proj((attention.softmax(-1) @ v).reshape(x.shape))
        a, b = self.ffn_depthwise(self.ffn_in(self.ffn_norm(x))).chunk(2, 1)
        return x + self.ffn_out(F.gelu(a) * b)


class MambaIRBlock(nn.Module):
    """MambaIR (Guo et al. 2024): a four-way scan with 16 states and twice the channels, then convolution with channel
    attention.

    Args:
        fused: the 2-D scan in one operator; else features are copied for each direction, as published.
    """

    def __init__(self, channels: int, *, fused: bool, states: int = 16, expand: int = 2):
        super().__init__()
        inner, rank = channels * expand, -(-channels // 16)
        self.fused, self.states, self.rank = fused, states, rank
        self.norm, self.conv_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.scales = nn.Parameter(torch.ones(2, channels))
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.projection = nn.Parameter(torch.randn(4, rank + 2 * states, inner) * inner**-0.5)
        self.dt_weight = nn.Parameter(torch.randn(4, inner, rank) * 0.5)
        self.dt_bias = nn.Parameter(torch.full((4, inner), -4.0))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, states + 1)).repeat(4, inner, 1))
        self.D = nn.Parameter(torch.ones(4, inner))
        self.out_norm, self.out_proj = nn.LayerNorm(inner), nn.Linear(inner, channels, bias=False)
        self.squeeze, self.widen = (
            nn.Conv2d(channels, channels // 3, 3, padding=1),
            nn.Conv2d(channels // 3, channels, 3, padding=1),
        )
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, max(1, channels // 30), 1),
            nn.ReLU(),
            nn.Conv2d(max(1, channels // 30), channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, z = self.in_proj(self.norm(x)).chunk(2, -1)
        u = u.permute(0, 3, 1, 2)
        u = F.silu(self.depthwise(u if self.fused else u.contiguous()))
        y = (self._fused if self.fused else self._copied)(u)  # (B, H, W, inner)
        x = x * self.scales[0] + self.out_proj(self.out_norm(y) * F.silu(z))
        y = self.widen(F.gelu(self.squeeze(self.conv_norm(x).permute(0, 3, 1, 2))))
        return x * self.scales[1] + (y * self.attention(y)).permute(0, 2, 3, 1)

    def _fused(self, u: torch.Tensor) -> torch.Tensor:
        batch, inner, height, width = u.shape
        tokens = u.permute(0, 2, 3, 1).reshape(batch, height * width, inner)
        dbc = F.linear(tokens, self.projection.flatten(0, 1)).view(batch, height * width, 4, -1)
        order = scan_order(height, width, ALL_WAYS, u.device)
        A = -torch.exp(self.A_log)
        y = selective_scan_2d(tokens, dbc, self.dt_weight, self.dt_bias, A, self.D, order)
        return y.view(batch, height, width, inner)

    def _copied(self, u: torch.Tensor) -> torch.Tensor:
        batch, inner, height, width = u.shape
        two = torch.stack([u.flatten(2), u.transpose(2, 3).flatten(2)], 1)
        four = torch.cat([two, two.flip(-1)], 1)  # (B, K, inner, L)
        dbc = torch.einsum("bkdl,kcd->bkcl", four, self.projection)
        low, B, C = dbc.split([self.rank, self.states, self.states], 2)
        delta = torch.einsum("bkrl,kdr->bkdl", low, self.dt_weight)
        y = selective_scan(
            four.flatten(1, 2), delta.flatten(1, 2), -torch.exp(self.A_log).flatten(0, 1), B, C, self.D.flatten(),
            delta_bias=self.dt_bias.flatten(), delta_softplus=True,
        ).view(four.shape)  # fmt: skip
        rows, columns = (y[:, :2] + y[:, 2:].flip(-1)).unbind(1)
        y = rows + columns.view(batch, inner, width, height).transpose(2, 3).flatten(2)
        return y.transpose(1, 2).reshape(batch, height, width, inner)
