"""PromptIR (Potlapalli et al., NeurIPS 2023, arXiv:2306.13090): prompts for all-in-one blind restoration.

Written from the paper; keys of the state dict and hyper-parameters are those of the official release
(github.com/va1shn9v/PromptIR), so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch.archs.arguments import demand, given, whole
from prompt_mamba_arch.archs.residual_groups import mirror_to_multiple
from prompt_mamba_arch.archs.restormer_blocks import PromptBlock, TransformerBlock, resample, same_conv

__all__ = ["PromptIR", "check_restormer"]

# released with the weights, which belong to none of the paper's computations: name -> (inputs, outputs), of dim 48
_UNUSED = {
    "chnl_reduce1": (64, 64),
    "chnl_reduce2": (128, 128),
    "chnl_reduce3": (320, 256),
    "reduce_noise_channel_1": (112, 48),
    "reduce_noise_channel_2": (224, 96),
    "reduce_noise_channel_3": (448, 192),
}


@ARCH_REGISTRY.register()
class PromptIR(nn.Module):
    """A Restormer whose decoder looks at learned prompts that tell degradations apart. 36 M parameters.

    It reads no sentence: its prompts are pictures, learned, and mixed by what the image is like.

    Args:
        inp_channels, out_channels: channels of input and output, equal.
        dim: channels of the first level; each of the three further levels doubles them.
        num_blocks: blocks of the four levels. num_refinement_blocks: at the end.
        heads: attention heads of the four levels; each divides its level's channels and those of its prompt block.
        ffn_expansion_factor: inner channels of the feed-forward / channels.
        decoder: whether there are prompts; without, it is nearly a Restormer.
        extra_parameters: also hold those 0.26 M parameters that the official files have and nothing uses; None where
            `dim` is 48. They take no part in training (`requires_grad` is off), as distributed training waits for the
            gradient of each that does.

    Raises:
        UserError: an argument has a value it cannot have.
    """

    size_multiple = 8
    has_text = False
    upscale = 1

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
        decoder: bool = True,
        extra_parameters: bool | None = None,
    ):
        c = self.config = given(locals())
        super().__init__()
        check_restormer("PromptIR", c)
        d1, d2, d3, d4 = (dim * 2**n for n in range(4))
        p1, p2, p3 = (n * dim // 48 for n in (64, 128, 320))  # the prompts' channels
        # the blocks after the prompts have the third level's number of heads
        looking = (d2 + p1, d3 + p2, d4 + p3)
        what = f"four numbers of which the third ({heads[2]}) divides {', '.join(map(str, looking))}"
        demand(not decoder or not any(n % heads[2] for n in looking), "PromptIR", "heads", c["heads"], what)
        if extra_parameters is None:
            c["extra_parameters"] = dim == 48
        demand(not c["extra_parameters"] or dim == 48, "PromptIR", "extra_parameters", True, "false unless dim is 48")
        ratio, depths = ffn_expansion_factor, c["num_blocks"]
        self.floats_per_pixel = 56 * dim  # measured, for the choice of tiles

        def level(channels: int, n: int, depth: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(channels, heads[n], ratio) for _ in range(depth)))

        self.patch_embed = nn.ModuleDict({"proj": same_conv(inp_channels, d1, 3)})
        self.encoder_level1, self.down1_2 = level(d1, 0, depths[0]), resample(d1, 0.5)
        self.encoder_level2, self.down2_3 = level(d2, 1, depths[1]), resample(d2, 0.5)
        self.encoder_level3, self.down3_4 = level(d3, 2, depths[2]), resample(d3, 0.5)
        self.latent = level(d4, 3, depths[3])
        self.decoder = decoder
        if decoder:
            self.prompt1 = PromptBlock(p1, size=64, lin_dim=d2)
            self.prompt2 = PromptBlock(p2, size=32, lin_dim=d3)
            self.prompt3 = PromptBlock(p3, size=16, lin_dim=d4)
            self.noise_level1, self.reduce_noise_level1 = level_of(looking[0], d2, heads[2], ratio)
            self.noise_level2, self.reduce_noise_level2 = level_of(looking[1], d3, heads[2], ratio)
            self.noise_level3, self.reduce_noise_level3 = level_of(looking[2], d3, heads[2], ratio)
        self.up4_3 = resample(d3 if decoder else d4, 2)
        self.reduce_chan_level3 = same_conv((d2 if decoder else d3) + d3, d3)
        self.decoder_level3 = level(d3, 2, depths[2])
        self.up3_2, self.reduce_chan_level2, self.decoder_level2 = (
            resample(d3, 2),
            same_conv(2 * d2, d2),
            level(d2, 1, depths[1]),
        )
        self.up2_1, self.decoder_level1 = resample(d2, 2), level(d2, 0, depths[0])
        self.refinement = level(d2, 0, num_refinement_blocks)
        self.output = same_conv(d2, out_channels, 3)
        if c["extra_parameters"]:
            for name, (inputs, outputs) in _UNUSED.items():
                self.add_module(name, same_conv(inputs, outputs).requires_grad_(False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inp_channels, H, W) in [0, 1], any H and W from 1 -> the same, not clamped."""
        first = self.encoder_level1(self.patch_embed["proj"](mirror_to_multiple(x, self.size_multiple)))
        second = self.encoder_level2(self.down1_2["body"](first))
        third = self.encoder_level3(self.down2_3["body"](second))
        y = self.latent(self.down3_4["body"](third))
        y = self._prompted(y, 3)
        y = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3["body"](y), third], 1)))
        y = self._prompted(y, 2)
        y = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2["body"](y), second], 1)))
        y = self._prompted(y, 1)
        y = self.decoder_level1(torch.cat([self.up2_1["body"](y), first], 1))
        return self.output(self.refinement(y))[..., : x.shape[-2], : x.shape[-1]] + x

    def _prompted(self, y: torch.Tensor, n: int) -> torch.Tensor:
        """The features after a look at the prompt of level n."""
        if not self.decoder:
            return y
        prompt, block, reduce = (
            getattr(self, f"{name}{n}") for name in ("prompt", "noise_level", "reduce_noise_level")
        )
        return reduce(block(torch.cat([y, prompt(y)], 1)))


def level_of(inputs: int, outputs: int, heads: int, ratio: float) -> tuple[nn.Module, nn.Module]:
    """A block over features and prompt together, and the convolution back to the features' channels."""
    return TransformerBlock(inputs, heads, ratio), same_conv(inputs, outputs)


def check_restormer(net: str, c: dict) -> None:
    """Raises UserError for values that Restormer's arguments cannot have."""
    for name in ("inp_channels", "out_channels", "dim"):
        demand(whole(c[name]), net, name, c[name], "a whole number from 1")
    demand(c["dim"] % 2 == 0, net, "dim", c["dim"], "an even number")
    ratio = c["ffn_expansion_factor"]
    positive = type(ratio) in (int, float) and c["dim"] * ratio >= 1
    demand(positive, net, "ffn_expansion_factor", ratio, "a number that leaves channels")
    equal = c["inp_channels"] == c["out_channels"]
    demand(equal, net, "out_channels", c["out_channels"], f"inp_channels ({c['inp_channels']}), as the image is added")
    demand(whole(c["num_refinement_blocks"], 0), net, "num_refinement_blocks", c["num_refinement_blocks"], "from 0 on")
    blocks, heads = c["num_blocks"], c["heads"]
    fits = isinstance(blocks, list) and len(blocks) == 4 and all(whole(n, 0) for n in blocks)
    demand(fits, net, "num_blocks", blocks, "a list of four whole numbers, one for each level")
    fits = isinstance(heads, list) and len(heads) == 4 and all(map(whole, heads))
    fits = fits and all(c["dim"] * 2**level % n == 0 for level, n in enumerate(heads))
    demand(fits, net, "heads", heads, "a list of four numbers that divide dim, 2 dim, 4 dim and 8 dim")
