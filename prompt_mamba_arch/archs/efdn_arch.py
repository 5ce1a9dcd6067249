"""EFDN (Wang, CVPRW 2022, arXiv:2204.08759), the baseline of NTIRE's challenges on efficient super-resolution.

Written from the paper; keys of the state dict are those of the official release (github.com/icandle/EFDN) and of the
challenge's file `team00_EFDN.pth`, so that they load.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch.archs.arguments import demand, given, whole
from prompt_mamba_arch.archs.residual_groups import mirror_to_size

__all__ = ["EFDN"]

STAGES = 4
SMALLEST = 15  # pixels a side: half of them, one lost at the border, must fill the attention's window of 7


class Activated(nn.Module):
    """A convolution, named as in the release, and a PReLU: (B, C, H, W) -> the same.

    The paper trains the 3x3 ones as sums of parallel branches, of which some start as edge filters (Sobel, Laplace).
    They are linear, so that the release has them added up to one convolution; so has this network.
    """

    def __init__(self, name: str, channels: int, side: int):
        super().__init__()
        self._name = name
        self.add_module(name, nn.Conv2d(channels, channels, side, padding=side // 2))
        self.act = nn.PReLU(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(getattr(self, self._name)(x))


class SpatialAttention(nn.Module):
    """Enhanced spatial attention (RFANet, Liu et al. 2020): weights in (0, 1) from a wide, coarse view of few channels.

    (B, C, H, W), H and W from `SMALLEST` -> the same.
    """

    def __init__(self, channels: int):
        super().__init__()
        few = channels // 4
        self.conv1 = nn.Conv2d(channels, few, 1)
        self.conv_f = nn.Conv2d(few, few, 1)
        self.conv2 = nn.Conv2d(few, few, 3, stride=2)
        self.conv_max, self.conv3, self.conv3_ = (nn.Conv2d(few, few, 3, padding=1) for _ in range(3))
        self.conv4 = nn.Conv2d(few, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.conv1(x)
        coarse = F.max_pool2d(self.conv2(fine), 7, stride=3)
        coarse = self.conv3_(F.relu(self.conv3(F.relu(self.conv_max(coarse)))))
        coarse = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(coarse + self.conv_f(fine)))


class DistillationBlock(nn.Module):
    """Three convolutions in a row; half the channels of what goes in and of each step are kept and mixed, then weighed
    by the attention and added. (B, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = Activated("conv1x1", channels, 1)
        self.conv2 = Activated("rep_conv", channels, 3)
        self.conv3 = Activated("rep_conv", channels, 3)
        self.branch = nn.ModuleList(nn.Conv2d(channels, channels // 2, 1) for _ in range(4))
        self.fuse = nn.Conv2d(4 * (channels // 2), channels, 1)
        self.att = SpatialAttention(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, kept = x, [self.branch[0](x)]
        for step, keep in zip((self.conv1, self.conv2, self.conv3), self.branch[1:]):
            y = step(y)
            kept.append(keep(y))
        return x + self.att(self.fuse(torch.cat(kept, dim=1)))


@ARCH_REGISTRY.register()
class EFDN(nn.Module):
    """Edge-enhanced Feature Distillation Network, with its branches added up. 0.276 M parameters at x4.

    Args:
        in_chans: channels of input and output.
        upscale: how much larger the output is.
        n_feats: channels inside, an even number from 4.

    Raises:
        UserError: an argument has a value it cannot have.
    """

    has_text = False
    size_multiple = 1

    def __init__(self, *, in_chans: int = 3, upscale: int = 4, n_feats: int = 48):
        self.config = c = given(locals())
        super().__init__()
        for name in ("in_chans", "upscale"):
            demand(whole(c[name]), "EFDN", name, c[name], "a whole number from 1")
        demand(whole(n_feats, 4) and n_feats % 2 == 0, "EFDN", "n_feats", n_feats, "an even number from 4")
        self.upscale, self.floats_per_pixel = upscale, 11 * n_feats
        self.head = nn.Conv2d(in_chans, n_feats, 3, padding=1)
        self.cells = nn.ModuleList(DistillationBlock(n_feats) for _ in range(STAGES))
        self.local_fuse = nn.ModuleList(nn.Conv2d(2 * n_feats, n_feats, 1) for _ in range(STAGES - 1))
        self.tail = nn.Sequential(
            nn.Conv2d(n_feats, in_chans * upscale**2, 3, padding=1), nn.PixelShuffle(upscale)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_chans, H, W) in [0, 1], any H and W from 1 -> (B, in_chans, H * upscale, W * upscale), unclamped."""
        height, width = x.shape[-2:]
        first = self.head(mirror_to_size(x, max(height, SMALLEST), max(width, SMALLEST)))
        one = self.cells[0](first)
        two = self.cells[1](one)
        y = self.local_fuse[0](torch.cat([one, two], dim=1))
        three = self.cells[2](y)
        y = self.local_fuse[1](torch.cat([two, three], dim=1))
        # the second block's output once more: the release's last mixture has it, and not the third's
        y = self.local_fuse[2](torch.cat([two, self.cells[3](y)], dim=1))
        return self.tail(y + first)[..., : height * self.upscale, : width * self.upscale]
