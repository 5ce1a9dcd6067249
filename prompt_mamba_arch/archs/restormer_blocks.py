"""Blocks of Restormer (Zamir et al., CVPR 2022), on which PromptIR and TextPromptIR build, with the official names.

Features are (B, C, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["ChannelSelfAttention", "GatedConvFeedForward", "PromptBlock", "TransformerBlock", "resample", "same_conv"]


def same_conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


class BodyNorm(nn.Module):
    """LayerNorm of the channels."""

    def __init__(self, dim: int):
        super().__init__()
        self.body = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelSelfAttention(nn.Module):
    """Attention between the channels of each head, over all pixels: linear in their number."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = same_conv(dim, 3 * dim)
        self.qkv_dwconv = same_conv(3 * dim, 3 * dim, 3, groups=3 * dim)
        self.project_out = same_conv(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = len(self.temperature)
        qkv = self.qkv_dwconv(self.qkv(x)).chunk(3, 1)
        q, k, v = (t.reshape(len(x), heads, x.shape[1] // heads, -1) for t in qkv)  # (B, heads, C / heads, L)
        attention = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.project_out((attention.softmax(-1) @ v).reshape(x.shape))


class GatedConvFeedForward(nn.Module):
    """1x1, depthwise 3x3, GELU gate, 1x1; 2.66 times as many channels inside."""

    def __init__(self, dim: int, ratio: float):
        super().__init__()
        hidden = int(dim * ratio)
        self.project_in = same_conv(dim, 2 * hidden)
        self.dwconv = same_conv(2 * hidden, 2 * hidden, 3, groups=2 * hidden)
        self.project_out = same_conv(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.dwconv(self.project_in(x)).chunk(2, 1)
        return self.project_out(F.gelu(a) * b)


class TransformerBlock(nn.Module):
    """x + attention(LayerNorm(x)), then x + feed-forward(LayerNorm(x))."""

    def __init__(self, dim: int, heads: int, ratio: float):
        super().__init__()
        self.norm1, self.norm2 = BodyNorm(dim), BodyNorm(dim)
        self.attn, self.ffn = ChannelSelfAttention(dim, heads), GatedConvFeedForward(dim, ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class PromptBlock(nn.Module):
    """PromptIR's prompt generation: learned pictures, mixed by what the features are like, at the features' size.

    (B, lin_dim, H, W) -> (B, dim, H, W).
    """

    def __init__(self, dim: int, *, size: int, lin_dim: int, count: int = 5):
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, count, dim, size, size))
        self.linear_layer = nn.Linear(lin_dim, count)
        self.conv3x3 = same_conv(dim, dim, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = self.linear_layer(x.mean((-2, -1))).softmax(1)  # (B, count)
        prompt = torch.einsum("bn,ncij->bcij", shares, self.prompt_param[0].to(shares.dtype))
        return self.conv3x3(F.interpolate(prompt, x.shape[-2:], mode="bilinear", align_corners=False))


def resample(dim: int, factor: float) -> nn.ModuleDict:
    """A 3x3 convolution and a pixel shuffle: `factor` 0.5 halves height and width and doubles the channels, 2 does the
    opposite; key `body`."""
    out, shuffle = (dim // 2, nn.PixelUnshuffle(2)) if factor < 1 else (2 * dim, nn.PixelShuffle(2))
    return nn.ModuleDict({"body": nn.Sequential(same_conv(dim, out, 3), shuffle)})
