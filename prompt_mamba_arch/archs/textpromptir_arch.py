"""TextPromptIR (Yan et al. 2023, arXiv:2312.06162): a Restormer that a sentence's embedding conditions.

Written from the paper; keys of the state dict are those of the official release
(github.com/MoTong-AI-studio/TextPromptIR). That one also holds layers that its computation never reaches: each block
has the layers of all four levels, and there are remains of PromptIR. They are not built here, and passed over when a
checkpoint is loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch.archs.arguments import demand, given, whole
from prompt_mamba_arch.archs.promptir_arch import check_restormer
from prompt_mamba_arch.archs.residual_groups import mirror_to_multiple
from prompt_mamba_arch.archs.restormer_blocks import (
    BodyNorm,
    ChannelSelfAttention,
    GatedConvFeedForward,
    resample,
    same_conv,
)
from prompt_mamba_arch.archs.text_conditioned import TextConditioned

__all__ = ["TextPromptIR"]

TEXT_HIDDEN, TEXT_WIDTH = 576, 384
LEVEL_NAMES = ("1", "2", "3", "7")  # how the official keys call the four levels
_UNUSED = re.compile(
    r"(prompt\d_\d|noise_level\d(_\d)?|reduce_noise_level\d(_\d)?|reduce_noise_channel_\d|chnl_reduce\d)\."
    r"|.*\.(attn|ffn)\.linear\d(_\d)?\."
)


class TextModulation(nn.Module):
    """x * scale + shift, channel by channel, from the sentence as the image's features weigh it.

    The weights of the channels come from the features' means by efficient channel attention (ECA, Wang et al. 2020): a
    1-D convolution over neighbouring channels.

    Mixed into another module, as the official keys want it: x (B, C, H, W), text (B, TEXT_WIDTH) -> as x.
    """

    level: str

    def add_modulation(self, dim: int, level: int) -> None:
        self.level = LEVEL_NAMES[level]
        kernel = int((math.log2(dim) + 1) / 2)
        kernel += 1 - kernel % 2
        self.fusion = nn.ModuleDict({"conv": nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)})
        self.add_module(f"linear{self.level}", nn.Linear(TEXT_WIDTH, dim))
        for part in (1, 2):
            self.add_module(f"linear{self.level}_{part}", nn.Linear(dim, dim))

    def modulate(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        to_level, to_scale, to_shift = (getattr(self, f"linear{self.level}{part}") for part in ("", "_1", "_2"))
        weights = torch.sigmoid(self.fusion["conv"](x.mean((2, 3)).unsqueeze(1))[:, 0])  # (B, C)
        text = to_level(text) * weights
        return x * to_scale(text)[:, :, None, None] + to_shift(text)[:, :, None, None]


class TextAttention(ChannelSelfAttention, TextModulation):
    """Attention between the modulated features' channels."""

    def __init__(self, dim: int, heads: int, level: int):
        super().__init__(dim, heads)
        self.add_modulation(dim, level)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return super().forward(self.modulate(x, text))


class TextFeedForward(GatedConvFeedForward, TextModulation):
    """The gated feed-forward of the modulated features."""

    def __init__(self, dim: int, ratio: float, level: int):
        super().__init__(dim, ratio)
        self.add_modulation(dim, level)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return super().forward(self.modulate(x, text))


class TextBlock(nn.Module):
    """Restormer's block, both halves modulated by the sentence."""

    def __init__(self, dim: int, heads: int, ratio: float, level: int):
        super().__init__()
        self.norm1, self.norm2 = BodyNorm(dim), BodyNorm(dim)
        self.attn, self.ffn = TextAttention(dim, heads, level), TextFeedForward(dim, ratio, level)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), text)
        return x + self.ffn(self.norm2(x), text)


@ARCH_REGISTRY.register()
class TextPromptIR(TextConditioned):
    """A Restormer whose every block is modulated by the sentence. 40 M parameters, 13.5 M of them in the text path.

    Args:
        inp_channels, out_channels: channels of input and output, equal.
        dim: channels of the first level; each of the three further levels doubles them.
        num_blocks: blocks of the four levels. num_refinement_blocks: at the end.
        heads: attention heads of the four levels.
        ffn_expansion_factor: inner channels of the feed-forward / channels.
        text_dim: length of the sentence embedding; 768 in the official release, whose encoder is a fine-tuned BERT.

    Raises:
        UserError: an argument has a value it cannot have.
    """

    size_multiple = 8
    upscale = 1
    text_modules = ("linear", "fusion")

    def __init__(
        self,
        *,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        text_dim: int = 384,
    ):
        c = self.config = given(locals())
        super().__init__()
        check_restormer("TextPromptIR", c)
        demand(whole(text_dim), "TextPromptIR", "text_dim", text_dim, "a whole number from 1")
        self.text_dim, self.floats_per_pixel = text_dim, 56 * dim

        def blocks(level: int, count: int, head_level: int | None = None) -> nn.ModuleList:
            head_count = heads[level if head_level is None else head_level]
            width, ratio = dim * 2**level, ffn_expansion_factor
            return nn.ModuleList(TextBlock(width, head_count, ratio, level) for _ in range(count))

        d1, d2, d3, d4 = (dim * 2**n for n in range(4))
        n1, n2, n3, n4 = c["num_blocks"]
        self.linear1, self.linear2 = nn.Linear(text_dim, TEXT_HIDDEN), nn.Linear(TEXT_HIDDEN, TEXT_WIDTH)
        self.patch_embed = nn.ModuleDict({"proj": same_conv(inp_channels, d1, 3)})
        self.encoder_level1, self.down1_2 = blocks(0, n1), resample(d1, 0.5)
        self.encoder_level2, self.down2_3 = blocks(1, n2), resample(d2, 0.5)
        self.encoder_level3, self.down3_4 = blocks(2, n3), resample(d3, 0.5)
        self.latent = blocks(3, n4)
        self.up4_3, self.reduce_chan_level3 = resample(d4, 2), same_conv(d4, d3)
        self.decoder_level3 = blocks(2, n3, 1)
        self.up3_2, self.reduce_chan_level2 = resample(d3, 2), same_conv(d3, d2)
        self.decoder_level2, self.up2_1 = blocks(1, n2), resample(d2, 2)
        self.decoder_level1 = blocks(1, n1, 0)
        self.refinement = blocks(1, num_refinement_blocks, 0)
        self.output = same_conv(d2, out_channels, 3)

    def forward(self, x: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, channels, H, W) in [0, 1], any H and W from 1, prompt (B, text_dim) or None -> as x, not clamped."""
        text = F.leaky_relu(self.linear1(self.prompt_or_blind(x, prompt)), 0.2)
        text = F.leaky_relu(self.linear2(text), 0.2)

        def run(blocks: nn.ModuleList, y: torch.Tensor) -> torch.Tensor:
            for block in blocks:
                y = block(y, text)
            return y

        first = run(self.encoder_level1, self.patch_embed["proj"](mirror_to_multiple(x, self.size_multiple)))
        second = run(self.encoder_level2, self.down1_2["body"](first))
        third = run(self.encoder_level3, self.down2_3["body"](second))
        y = run(self.latent, self.down3_4["body"](third))
        y = self.reduce_chan_level3(torch.cat([self.up4_3["body"](y), third], 1))
        y = self.up3_2["body"](run(self.decoder_level3, y))
        y = self.reduce_chan_level2(torch.cat([y, second], 1))
        y = self.up2_1["body"](run(self.decoder_level2, y))
        y = run(self.decoder_level1, torch.cat([y, first], 1))
        return self.output(run(self.refinement, y))[..., : x.shape[-2], : x.shape[-1]] + x

    def _load_from_state_dict(self, state_dict, prefix, *others) -> None:
        ours = {prefix + name for name in self.state_dict()}
        for name in [name for name in state_dict if name.startswith(prefix) and name not in ours]:
            if _UNUSED.match(name[len(prefix) :]):
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *others)
