"""MambaIR (Guo et al., ECCV 2024, arXiv:2402.15648): a simple baseline for restoration with state spaces.

Written from the paper; keys of the state dict and hyper-parameters are those of the official release
(github.com/csguoh/MambaIR), so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch.archs.arguments import demand, fill_in, given
from prompt_mamba_arch.archs.residual_groups import ResidualGroupNet, check_frame, conv_nhwc
from prompt_mamba_arch.archs.scan_parameters import decay_rates, delta_bias
from prompt_mamba_arch.ops import scan_order, selective_scan_2d

__all__ = ["MambaIR"]

SIZES = {
    "light": {"embed_dim": 60, "d_state": 10, "depths": [6] * 4, "mlp_ratio": 1.2},
    "base": {"embed_dim": 180, "d_state": 16, "depths": [6] * 6, "mlp_ratio": 2.0},
}
FOUR_WAYS = ("rows", "columns", "rows_reversed", "columns_reversed")  # in the order of the official weights


class FourWayScan(nn.Module):
    """Linear, depthwise convolution, SiLU; a selective scan in each of four directions, added; LayerNorm, gate, linear.

    (B, H, W, C) -> the same.
    """

    def __init__(self, dim: int, *, d_state: int, ratio: float):
        super().__init__()
        inner, rank, ways = int(dim * ratio), -(-dim // 16), len(FOUR_WAYS)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        start = nn.init.kaiming_uniform_(torch.empty(ways * (rank + 2 * d_state), inner), a=5**0.5)
        self.x_proj_weight = nn.Parameter(start.view(ways, -1, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(ways, inner, rank).uniform_(-(rank**-0.5), rank**-0.5))
        self.dt_projs_bias = nn.Parameter(delta_bias(ways, inner))
        self.A_logs = nn.Parameter(decay_rates(ways * inner, d_state))
        self.Ds = nn.Parameter(torch.ones(ways * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[1:3]
        u, gate = self.in_proj(x).chunk(2, -1)
        u = F.silu(conv_nhwc(self.conv2d, u)).flatten(1, 2)  # (B, L, D)
        dbc = F.linear(u, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (len(FOUR_WAYS), -1))
        A = -torch.exp(self.A_logs.float()).unflatten(0, (len(FOUR_WAYS), -1))
        D = self.Ds.unflatten(0, (len(FOUR_WAYS), -1))
        order = scan_order(height, width, FOUR_WAYS, x.device)
        y = selective_scan_2d(u, dbc, self.dt_projs_weight, self.dt_projs_bias, A, D, order)
        return self.out_proj(self.out_norm(y).unflatten(1, (height, width)) * F.silu(gate))


class ChannelAttention(nn.Module):
    """x times a factor for each channel, from the image's mean: (B, C, H, W) -> the same."""

    def __init__(self, dim: int, squeeze: int):
        super().__init__()
        narrow, widen = nn.Conv2d(dim, dim // squeeze, 1), nn.Conv2d(dim // squeeze, dim, 1)
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), narrow, nn.ReLU(), widen, nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.attention(x)


def local_mixing(dim: int, light: bool) -> nn.Sequential:
    """Two convolutions with fewer channels between, and channel attention: (B, C, H, W) -> the same.

    The lightweight family has them as 1x1 and depthwise ones, of which the last is dilated.
    """
    middle = dim // 2 if light else dim // 3
    if light:
        narrow = (nn.Conv2d(dim, middle, 1), nn.Conv2d(middle, middle, 3, padding=1, groups=middle))
        widen = (nn.Conv2d(middle, dim, 1), nn.Conv2d(dim, dim, 3, padding=2, dilation=2, groups=dim))
    else:
        narrow, widen = (nn.Conv2d(dim, middle, 3, padding=1),), (nn.Conv2d(middle, dim, 3, padding=1),)
    return nn.Sequential(*narrow, nn.GELU(), *widen, ChannelAttention(dim, min(30, dim)))


class ResidualStateSpaceBlock(nn.Module):
    """The scan, then convolution with channel attention, each beside a scaled identity: (B, H, W, C) -> the same."""

    def __init__(self, dim: int, *, d_state: int, ratio: float, light: bool, drop: float):
        super().__init__()
        self.drop = drop
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.self_attention = FourWayScan(dim, d_state=d_state, ratio=ratio)
        self.skip_scale, self.skip_scale2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))
        self.conv_blk = nn.ModuleDict({"cab": local_mixing(dim, light)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.self_attention(self.ln_1(x))
        if self.training and self.drop:  # stochastic depth (Huang et al. 2016)
            y = y * torch.empty(len(y), 1, 1, 1, device=y.device).bernoulli_(1 - self.drop).div_(1 - self.drop)
        x = x * self.skip_scale + y
        return x * self.skip_scale2 + conv_nhwc(self.conv_blk["cab"], self.ln_2(x))


@ARCH_REGISTRY.register()
class MambaIR(ResidualGroupNet):
    """MambaIR, both size families: `light` (0.9 M parameters) and `base` (20 M, classical super-resolution).

    Args:
        in_chans, upscale, upsampler, img_range, resi_connection: as in `ResidualGroupNet`; upsampler None is the
            size's own, or "" where upscale is 1.
        size: fills in the arguments that are None in the signature.
        embed_dim: channels. depths: blocks of each group.
        d_state: numbers that a channel of the scan remembers.
        mlp_ratio: inner channels of the scan / channels.
        drop_path_rate: in training, blocks are left out so often in the last place, less before.

    Raises:
        UserError: an argument has a value it cannot have.
    """

    def __init__(
        self,
        *,
        in_chans: int = 3,
        upscale: int = 4,
        size: str = "light",
        embed_dim: int | None = None,
        d_state: int | None = None,
        depths: Sequence[int] | None = None,
        mlp_ratio: float | None = None,
        drop_path_rate: float = 0.1,
        upsampler: str | None = None,
        img_range: float = 1.0,
        resi_connection: str = "1conv",
    ):
        c = fill_in("MambaIR", given(locals()), SIZES)
        if c["upsampler"] is None:
            c["upsampler"] = "" if upscale == 1 else "pixelshuffledirect" if size == "light" else "pixelshuffle"
        check_frame("MambaIR", c)
        drops_some = type(drop_path_rate) in (int, float) and 0 <= drop_path_rate < 1
        demand(drops_some, "MambaIR", "drop_path_rate", drop_path_rate, "a number from 0 to below 1")
        dim, light = c["embed_dim"], c["upsampler"] == "pixelshuffledirect"
        demand(dim >= 3, "MambaIR", "embed_dim", dim, "at least 3")
        count = sum(c["depths"])
        drops = (drop_path_rate * place / max(1, count - 1) for place in range(count))
        block = {"d_state": c["d_state"], "ratio": c["mlp_ratio"], "light": light}
        groups = [
            [ResidualStateSpaceBlock(dim, **block, drop=next(drops)) for _ in range(depth)] for depth in c["depths"]
        ]
        frame = {"in_chans": in_chans, "upscale": upscale, "upsampler": c["upsampler"], "img_range": img_range}
        super().__init__(dim=dim, groups=groups, name="blocks", connection=resi_connection, **frame)
        self.config, self.floats_per_pixel = c, 25 * dim * max(1, c["mlp_ratio"] / 2)
