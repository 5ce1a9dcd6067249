"""Self-attention in shifted windows (Swin, Liu et al. 2021) with a bias for relative positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["WindowAttention", "relative_positions"]

BLOCKED = -100.0  # added where pixels are neighbours only because the shift wraps around; as in Swin


def relative_positions(window: int) -> torch.Tensor:
    """For each two pixels of a window the index of their distance in the table of biases: (window^2, window^2)."""
    place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
    down, right = place[:, :, None] - place[:, None, :] + window - 1
    return down * (2 * window - 1) + right


class WindowAttention(nn.Module):
    """Attention among the pixels of each window; height and width must be multiples of the window.

    Args:
        shift: how far the windows are moved to the right and down from the corner; 0 or half a window.
        positions: from `relative_positions`; one tensor for all layers.
    """

    def __init__(self, dim: int, *, heads: int, window: int, shift: int, positions: torch.Tensor):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("positions", positions, persistent=False)
        # which of the two parts, before and after the wrap, a row or column of the last window belongs to
        part = torch.arange(window) >= window - shift
        rows, columns = part.repeat_interleave(window), part.repeat(window)
        apart = torch.stack([rows[:, None] != rows, columns[:, None] != columns])
        self.register_buffer("apart", apart, persistent=False)  # (2, window^2, window^2)

    def forward(self, qkv: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3C) -> (B, H, W, C)."""
        batch, height, width, channels = qkv.shape
        w, s, channels = self.window, self.shift, channels // 3
        qkv = qkv.roll((-s, -s), (1, 2)) if s else qkv
        qkv = qkv.view(batch, height // w, w, width // w, w, 3, self.heads, -1)
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6)  # (3, B, rows, columns, heads, w * w, C / heads)
        bias = self.relative_position_bias_table[self.positions].permute(2, 0, 1)  # (heads, w * w, w * w)
        y = self._by_border(qkv, bias.to(qkv.dtype)) if s else self._attend(qkv, bias.to(qkv.dtype))
        y = y.unflatten(-2, (w, w)).permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, channels)
        y = self.proj(y)
        return y.roll((s, s), (1, 2)) if s else y

    def _by_border(self, qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Only windows of the last row and the last column wrap around; the four kinds of windows have a mask each, so
        that no mask of the size of the image is needed."""
        bottom, right = (apart * BLOCKED for apart in self.apart.to(bias.dtype))
        inner = self._attend(qkv[:, :, :-1, :-1], bias)
        side = self._attend(qkv[:, :, :-1, -1:], bias + right)
        below = self._attend(qkv[:, :, -1:, :-1], bias + bottom)
        corner = self._attend(qkv[:, :, -1:, -1:], bias + self.apart.any(0).to(bias.dtype) * BLOCKED)
        return torch.cat([torch.cat([inner, side], 2), torch.cat([below, corner], 2)], 1)

    def _attend(self, qkv: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(3, B, rows, columns, heads, w * w, C / heads) -> the same without the 3."""
        if not qkv.numel():
            return qkv[0]
        shape = qkv.shape[1:]
        q, k, v = qkv.flatten(1, 3).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).view(shape)
