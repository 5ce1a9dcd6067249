"""InstructIR (Conde, Geigle and Timofte, ECCV 2024, arXiv:2401.16468): restoration that follows instructions.

Written from the paper; keys of the state dict and hyper-parameters are those of the official release
(github.com/mv-lab/InstructIR), so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch.archs.arguments import demand, given, whole
from prompt_mamba_arch.archs.text_conditioned import TextConditioned, pad_zeros

__all__ = ["RELEASED_ENCODER", "InstructIR"]

RELEASED_ENCODER = "TaylorAI/bge-micro-v2"  # whose embeddings the released language head reads


class ChannelNorm(nn.LayerNorm):
    """LayerNorm of the channels of (B, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def simple_gate(x: torch.Tensor) -> torch.Tensor:
    """The product of the two halves of the channels: (B, 2C, H, W) -> (B, C, H, W)."""
    a, b = x.chunk(2, 1)
    return a * b


class NAFBlock(nn.Module):
    """NAFNet's block (Chen et al. 2022): depthwise convolution and channel attention, feed-forward; simple gates."""

    def __init__(self, channels: int):
        super().__init__()
        wide = 2 * channels
        self.norm1, self.norm2 = ChannelNorm(channels, eps=1e-6), ChannelNorm(channels, eps=1e-6)
        self.conv1, self.conv3 = nn.Conv2d(channels, wide, 1), nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv4, self.conv5 = nn.Conv2d(channels, wide, 1), nn.Conv2d(channels, channels, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = simple_gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.beta * self.conv3(y * self.sca(y))
        return x + self.gamma * self.conv5(simple_gate(self.conv4(self.norm2(x))))


class InstructionBlock(nn.Module):
    """Instruction Condition Block: the instruction gates channels, whose mixture by a NAFBlock is added.

    x (B, C, H, W), instruction (B, T) -> as x.
    """

    def __init__(self, channels: int, text_width: int):
        super().__init__()
        self.fc = nn.Linear(text_width, channels)
        self.block = NAFBlock(channels)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, channels, 1, 1)) for _ in range(2))

    def forward(self, x: torch.Tensor, instruction: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.fc(instruction))[:, :, None, None]
        return x + self.block((x * self.gamma + self.beta) * gate)


class LanguageHead(nn.Module):
    """From a sentence's embedding to an instruction, and which degradation it asks to remove.

    Key names of the official `lm_instructir-7d.pt`: 384 -> 256 numbers, of length 1, -> seven classes.
    """

    def __init__(self, embedding: int = 384, width: int = 256, classes: int = 7):
        super().__init__()
        self.fc1 = nn.Linear(embedding, width)
        # restoration does not ask for the classes; distributed training waits for the gradient of all that trains
        self.fc2 = nn.Linear(width, classes).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, embedding) -> the instruction (B, width)."""
        return F.normalize(self.fc1(x), dim=1)

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """(B, embedding) -> logits (B, classes): noise, blur, rain, haze, low light, enhancement, low resolution."""
        return self.fc2(self(x))


@ARCH_REGISTRY.register()
class InstructIR(TextConditioned):
    """A NAFNet whose levels are each followed by an Instruction Condition Block. 16 M parameters.

    How the sentence gets in: `prompt` is the embedding of a frozen sentence encoder, (B, text_dim). The language head
    is part of the network (`lm_head`), so that it is trained, saved and loaded with it. The released weights come as
    two files, the image network's and the head's, and read embeddings of bge-micro-v2 (`text_encoder`);
    `InstructIR.join` makes one state dict of both. With `language_head: false` the network is the image network alone,
    and `prompt` the head's output (B, 256).

    Args:
        img_channel: channels of input and output.
        width: channels of the first level; each level doubles them.
        enc_blk_nums, middle_blk_num, dec_blk_nums: blocks of each encoder level, the coarsest, each decoder level.
        txtdim: numbers of an instruction.
        text_dim: length of the sentence embedding; without a language head it is `txtdim`.
        language_head: whether the head is in the network.
        nclasses: classes that the head tells apart.
        text_encoder: the sentence encoder whose embeddings the weights were trained with, a Hugging Face name; None
            for the package's own.

    Raises:
        UserError: an argument has a value it cannot have.
    """

    text_modules = ("lm_head", "fc")

    def __init__(
        self,
        *,
        img_channel: int = 3,
        width: int = 32,
        enc_blk_nums: Sequence[int] = (2, 2, 4, 8),
        middle_blk_num: int = 4,
        dec_blk_nums: Sequence[int] = (2, 2, 2, 2),
        txtdim: int = 256,
        text_dim: int = 384,
        language_head: bool = True,
        nclasses: int = 7,
        text_encoder: str | None = None,
    ):
        self.config = c = given(locals())
        super().__init__()
        c["text_dim"] = text_dim if language_head else txtdim
        for name in ("img_channel", "width", "txtdim", "text_dim", "nclasses"):
            demand(whole(c[name]), "InstructIR", name, c[name], "a whole number from 1")
        demand(whole(middle_blk_num, 0), "InstructIR", "middle_blk_num", middle_blk_num, "a whole number from 0")
        encoder, decoder = c["enc_blk_nums"], c["dec_blk_nums"]
        for name in ("enc_blk_nums", "dec_blk_nums"):
            fits = isinstance(c[name], list) and all(whole(n, 0) for n in c[name]) and len(c[name]) == len(encoder)
            demand(fits, "InstructIR", name, c[name], "a list of whole numbers, as long as enc_blk_nums")
        self.text_dim, self.upscale, self.size_multiple = c["text_dim"], 1, 2 ** len(encoder)
        self.text_encoder, self.floats_per_pixel = text_encoder, 14 * width

        def level(channels: int, depth: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(channels) for _ in range(depth)))

        widths = [width * 2**n for n in range(len(encoder) + 1)]
        coarser = widths[:0:-1]  # from the coarsest
        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.encoders = nn.ModuleList(map(level, widths, encoder))
        self.enc_cond = nn.ModuleList(InstructionBlock(n, txtdim) for n in widths[:-1])
        self.downs = nn.ModuleList(nn.Conv2d(n, 2 * n, 2, stride=2) for n in widths[:-1])
        self.middle_blks = level(widths[-1], middle_blk_num)
        self.ups = nn.ModuleList(nn.Sequential(nn.Conv2d(n, 2 * n, 1, bias=False), nn.PixelShuffle(2)) for n in coarser)
        self.decoders = nn.ModuleList(map(level, (n // 2 for n in coarser), decoder))
        self.dec_cond = nn.ModuleList(InstructionBlock(n // 2, txtdim) for n in coarser)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.lm_head = LanguageHead(text_dim, txtdim, nclasses) if language_head else None

    def forward(self, x: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, img_channel, H, W) in [0, 1], any H and W from 1, prompt (B, text_dim) or None -> as x, not clamped."""
        instruction = self.prompt_or_blind(x, prompt)
        if self.lm_head is not None:
            instruction = self.lm_head(instruction)
        y = self.intro(pad_zeros(x, self.size_multiple))
        skips = []
        for blocks, condition, down in zip(self.encoders, self.enc_cond, self.downs):
            skips.append(condition(blocks(y), instruction))
            y = down(skips[-1])
        y = self.middle_blks(y)
        for up, blocks, condition in zip(self.ups, self.decoders, self.dec_cond):
            y = condition(blocks(up(y) + skips.pop()), instruction)
        return self.ending(y)[..., : x.shape[-2], : x.shape[-1]] + x

    @staticmethod
    def join(image: dict[str, torch.Tensor], head: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One state dict of the two that are released: the image network's and the language head's."""
        return {**image, **{f"lm_head.{name}": value for name, value in head.items()}}
