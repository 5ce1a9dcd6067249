"""The frame of SwinIR (Liang et al. 2021), in which MambaIR and MambaIRv2 stand: residual groups of blocks between a
convolution and a tail that enlarges. Attributes have the names of the official releases, so that their checkpoints fit.

Features are `(B, H, W, C)` throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from prompt_mamba_arch.archs.arguments import demand, whole

__all__ = ["ResidualGroupNet", "check_frame", "conv_nhwc", "mirror_to_multiple", "mirror_to_size"]

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K's training images
TAIL_CHANNELS = 64
UPSAMPLERS = ("", "pixelshuffle", "pixelshuffledirect", "nearest+conv")


def conv_nhwc(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A module of NCHW features on NHWC ones, which it sees as they lie: (B, H, W, C) -> (B, H, W, out)."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def mirror_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pads right and bottom, as `mirror_to_size`, so that height and width divide by `multiple`."""
    height, width = (-(-size // multiple) * multiple for size in x.shape[-2:])
    return mirror_to_size(x, height, width)


def mirror_to_size(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pads right and bottom by mirroring with the border repeated, as often as it takes. (B, C, H, W), any H and W from
    1 -> (B, C, height, width), neither of which is less."""
    for dim, wanted in ((-2, height), (-1, width)):
        size = x.shape[dim]
        if size != wanted:
            index = torch.arange(wanted, device=x.device) % (2 * size)
            x = x.index_select(dim, torch.minimum(index, 2 * size - 1 - index))
    return x


def _connection(kind: str, dim: int) -> nn.Module:
    """The convolution that ends a group: one, or three narrow ones with fewer parameters."""
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(dim, dim // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(dim // 4, dim, 3, padding=1),
    )


class ResidualGroup(nn.Module):
    """x + convolution(blocks(x)). `name`: how the official release calls the list of blocks."""

    def __init__(self, dim: int, blocks: Sequence[nn.Module], *, name: str, connection: str):
        super().__init__()
        self.residual_group = nn.ModuleDict({name: nn.ModuleList(blocks)})
        self.conv = _connection(connection, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for blocks in self.residual_group.values():
            for block in blocks:
                y = block(y)
        return x + conv_nhwc(self.conv, y)


class ResidualGroupNet(nn.Module):
    """Convolution -> groups -> LayerNorm -> convolution, + what went in -> tail.

    Args:
        in_chans: channels of input and output.
        groups: the blocks of each group, each (B, H, W, dim) -> the same.
        name: how the official release calls a group's list of blocks.
        upsampler: "" adds to the image (upscale 1), `pixelshuffle` (classical super-resolution), `pixelshuffledirect`
            (one convolution, lightweight), `nearest+conv` (x4, for real photographs).
        img_range: pixel values are multiplied by it inside.
    """

    size_multiple = 1
    has_text = False
    floats_per_pixel: float
    """Numbers that a pass holds at its peak for each pixel of the input, measured: what tiles are chosen by."""

    def __init__(
        self,
        *,
        in_chans: int,
        dim: int,
        groups: Sequence[Sequence[nn.Module]],
        name: str,
        upscale: int,
        upsampler: str,
        connection: str,
        img_range: float,
    ):
        super().__init__()
        self.upscale, self.upsampler, self.img_range = upscale, upsampler, img_range
        mean = RGB_MEAN if in_chans == 3 else (0.0,) * in_chans
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(in_chans, dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList(ResidualGroup(dim, blocks, name=name, connection=connection) for blocks in groups)
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = _connection(connection, dim)
        self._build_tail(dim, in_chans)
        self.apply(_initialise)

    def _build_tail(self, dim: int, out_chans: int) -> None:
        if self.upsampler == "pixelshuffledirect":
            conv = nn.Conv2d(dim, out_chans * self.upscale**2, 3, padding=1)
            self.upsample = nn.Sequential(conv, nn.PixelShuffle(self.upscale))
            return
        self.conv_last = nn.Conv2d(TAIL_CHANNELS if self.upsampler else dim, out_chans, 3, padding=1)
        if self.upsampler:
            before = nn.Conv2d(dim, TAIL_CHANNELS, 3, padding=1)
            self.conv_before_upsample = nn.Sequential(before, nn.LeakyReLU())
        if self.upsampler == "pixelshuffle":
            steps = [3] if self.upscale == 3 else [2] * (self.upscale.bit_length() - 1)
            widen = [nn.Conv2d(TAIL_CHANNELS, TAIL_CHANNELS * step**2, 3, padding=1) for step in steps]
            shuffle = [nn.PixelShuffle(step) for step in steps]
            self.upsample = nn.Sequential(*(part for pair in zip(widen, shuffle) for part in pair))
        elif self.upsampler == "nearest+conv":
            for part in ("conv_up1", "conv_up2", "conv_hr"):
                self.add_module(part, nn.Conv2d(TAIL_CHANNELS, TAIL_CHANNELS, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_chans, H, W) in [0, 1], any H and W from 1 -> (B, in_chans, H * upscale, W * upscale), unclamped."""
        height, width = x.shape[-2] * self.upscale, x.shape[-1] * self.upscale
        x = (mirror_to_multiple(x, self.size_multiple) - self.mean) * self.img_range
        first = self.conv_first(x)
        y = self.patch_embed["norm"](first.permute(0, 2, 3, 1))
        for group in self.layers:
            y = group(y)
        y = self._enlarge(self.conv_after_body(self.norm(y).permute(0, 3, 1, 2)) + first)
        if not self.upsampler:
            y = x + y
        return (y / self.img_range + self.mean)[..., :height, :width]

    def _enlarge(self, y: torch.Tensor) -> torch.Tensor:
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(y)
        if self.upsampler == "pixelshuffle":
            y = self.upsample(self.conv_before_upsample(y))
        elif self.upsampler == "nearest+conv":
            y = self.conv_before_upsample(y)
            for conv in (self.conv_up1, self.conv_up2):
                y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
            y = F.leaky_relu(self.conv_hr(y), 0.2)
        return self.conv_last(y)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_frame(net: str, config: dict) -> None:
    """Raises UserError for values of the frame's arguments that cannot be."""
    for name in ("in_chans", "embed_dim", "d_state"):
        demand(whole(config[name]), net, name, config[name], "a whole number from 1")
    depths, ratio, upscale, upsampler = (config[name] for name in ("depths", "mlp_ratio", "upscale", "upsampler"))
    listed = isinstance(depths, list) and depths and all(map(whole, depths))
    demand(bool(listed), net, "depths", depths, "a list of whole numbers from 1, the blocks of each group")
    positive = type(ratio) in (int, float) and config["embed_dim"] * ratio >= 2
    demand(positive, net, "mlp_ratio", ratio, "a number that leaves channels")
    demand(upscale in (1, 2, 3, 4, 8), net, "upscale", upscale, "1, 2, 3, 4 or 8")
    demand(upsampler in UPSAMPLERS, net, "upsampler", upsampler, f"one of {', '.join(map(repr, UPSAMPLERS))}")
    demand(upscale == 4 or upsampler != "nearest+conv", net, "upsampler", upsampler, "another unless upscale is 4")
    demand(upscale == 1 or upsampler != "", net, "upsampler", upsampler, "one that enlarges, as upscale is above 1")
    kind = config["resi_connection"]
    demand(kind in ("1conv", "3conv"), net, "resi_connection", kind, "1conv or 3conv")
    enough = kind == "1conv" or config["embed_dim"] >= 4
    demand(enough, net, "embed_dim", config["embed_dim"], "at least 4 for 3conv, which has a quarter of them inside")
    number = config["img_range"]
    demand(type(number) in (int, float) and number > 0, net, "img_range", number, "a number above 0")
