"""PromptMamba: restores an image as a sentence asks, with a state-space network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.utils.checkpoint import checkpoint

from prompt_mamba_arch.archs.blocks import (
    SCAN_WAYS,
    Block,
    ConvMixer,
    DenseBlock,
    Down,
    ExpertFeedForward,
    FeedForward,
    Intro,
    Outro,
    ScanMixer,
    TextAttention,
    TextGate,
    Up,
    semantic_categories,
)
from prompt_mamba_arch.archs.config import resolve
from prompt_mamba_arch.errors import UserError

__all__ = ["PromptMamba"]


@ARCH_REGISTRY.register()
class PromptMamba(nn.Module):
    """A U of convolutional and state-space blocks, steered by a sentence's embedding.

        image -> unshuffle + 3x3 -> encoder levels -> [cross-attention with the prompt] -> middle -> decoder levels
              -> 3x3 + pixel shuffle -> + the image itself (upscale 1) or its bicubic enlargement

    Every level halves width and height and doubles the channels. Without encoder levels it is a plain stack, the usual
    shape for super-resolution.

    Args:
        in_chans: 1, 3, ...; what exceeds `out_chans` (a mask, say) is read but not added to the output.
        out_chans: channels of the output.
        upscale: 1, 2, 3 or 4.
        size: `tiny`, `small`, `base`, `large` fill in the arguments that are None in the signature; explicit ones win.
            None is `tiny`.
        dim: channels of the first level.
        enc_blocks, middle_blocks, dec_blocks: blocks of each encoder level, of the coarsest level, of each decoder
            level (the coarser first; as many levels as `enc_blocks`).
        mixers: for each level from the finest to the coarsest what its blocks are: `scan`, `conv` (depthwise
            convolution and channel attention), `dense` (two full convolutions) or a cycle such as `conv+scan`.
        unshuffle: side of the square of pixels that makes one token of the first level.
        directions: 1, 2 or 4 scan directions a block; with fewer than four, blocks take turns.
        semantic_scan: above 0, scans visit the pixels not as they lie but sorted into so many categories by their
            features, worked out once for each level (the semantic order of SemanIR, Ren et al. 2024, and MambaIRv2).
        d_state: numbers that a channel of the scan remembers.
        expand: inner channels of the scan block / its channels.
        a_form: `general` decay rates, each number its own; `tied`, n times the first; or `scalar`, all the same.
        local_conv: depthwise 3x3 convolution in the blocks.
        gate: SiLU-gated branch in the scan block.
        scan_norm: LayerNorm of the scan's result.
        ffn_ratio: channels before the feed-forward's gate / the block's channels.
        num_experts: above 1, feed-forwards are mixtures of so many experts, mixed for each image.
        residual_scale: the learned scale of what a block adds starts here.
        text_dim: length of the prompt embedding.
        text_width: numbers that describe the prompt inside the network.
        text_scan: the prompt shifts delta, B and C of the scans.
        text_gate: the prompt gates the channels that blocks add, and those from which the output is made.
        text_attention: cross-attention at the coarsest level.
        text_tokens: tokens into which that expands the prompt.
        text_route: the prompt chooses experts too (num_experts above 1); else the image alone does.
        wishes: how this network's prompts are made, for those who make them; it computes the same. False: the embedding
            of the sentence. True: mostly the vector of what the sentence was read to ask for (`text.Wish.vector`).
        use_checkpoint: blocks recompute their features in the backward pass: less memory, a third more time.

    Raises:
        UserError: an argument has a value it cannot have.
    """

    config: dict
    """The constructor's arguments as they were resolved, of plain types: `PromptMamba(**net.config)` rebuilds it."""

    size_multiple: int
    """Width and height are padded inside to multiples of this; tiles whose sides are multiples waste nothing."""

    def __init__(
        self,
        *,
        in_chans: int = 3,
        out_chans: int = 3,
        upscale: int = 1,
        size: str | None = None,
        dim: int | None = None,
        enc_blocks: Sequence[int] | None = None,
        middle_blocks: int | None = None,
        dec_blocks: Sequence[int] | None = None,
        mixers: Sequence[str] | None = None,
        unshuffle: int | None = None,
        directions: int = 2,
        semantic_scan: int = 0,
        d_state: int = 8,
        expand: float = 1.0,
        a_form: str = "general",
        local_conv: bool = True,
        gate: bool = True,
        scan_norm: bool = True,
        ffn_ratio: float = 2.0,
        num_experts: int = 1,
        residual_scale: float = 0.1,
        text_dim: int = 384,
        text_width: int | None = None,
        text_scan: bool = True,
        text_gate: bool = True,
        text_attention: bool = True,
        text_tokens: int = 8,
        text_route: bool = True,
        wishes: bool = False,
        use_checkpoint: bool = False,
    ):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "size", "__class__")}
        self.config = resolve(size, arguments)
        super().__init__()
        self.upscale, self.text_dim, self.use_checkpoint = upscale, text_dim, use_checkpoint
        levels = len(self.config["enc_blocks"])
        unshuffle, mixers = self.config["unshuffle"], self.config["mixers"]
        widths = [self.config["dim"] * 2**level for level in range(levels + 1)]
        self.size_multiple = unshuffle * 2**levels

        ways = itertools.cycle(SCAN_WAYS[directions])  # over all scan blocks, from the input to the output
        self.intro = Intro(in_chans, widths[0], unshuffle)
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        for width, depth, kinds in zip(widths, self.config["enc_blocks"], mixers):
            self.encoder.append(self._level(width, depth, kinds, ways))
            self.downs.append(Down(width))
        if text_attention:
            self.text_attention = TextAttention(widths[-1], text_width=self.config["text_width"], tokens=text_tokens)
        else:
            self.text_attention = None
        self.middle = self._level(widths[-1], self.config["middle_blocks"], mixers[-1], ways)
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        for width, depth, kinds in zip(widths[-2::-1], self.config["dec_blocks"], mixers[-2::-1]):
            self.ups.append(Up(2 * width))
            self.decoder.append(self._level(width, depth, kinds, ways))
        self.text_gate = TextGate(self.config["text_width"], widths[0]) if text_gate else None
        self.outro = Outro(widths[0], out_chans, unshuffle * upscale)

        self.has_text = any(True for _ in self.text_parameters())
        if self.has_text:
            # stands for "no prompt"; as long as a real embedding, which has unit norm
            self.text_null = nn.Parameter(F.normalize(torch.randn(text_dim), dim=0))
            self.text_embed = nn.Sequential(nn.Linear(text_dim, self.config["text_width"]), nn.SiLU())

    @classmethod
    def from_size(cls, size: str, **overrides) -> PromptMamba:
        """A named size; overrides are constructor arguments."""
        return cls(size=size, **overrides)

    def _level(self, width: int, depth: int, kinds: str, ways: Iterator[tuple[str, ...]]) -> nn.ModuleList:
        """The blocks of one level; `kinds` is an entry of `mixers`."""
        c = self.config

        def text_width(place: str) -> int | None:
            return c["text_width"] if c[place] else None

        def mixer(kind: str) -> nn.Module:
            if kind == "conv":
                return ConvMixer(width, local_conv=c["local_conv"])
            scan = {name: c[name] for name in ("d_state", "expand", "a_form", "local_conv", "gate")}
            return ScanMixer(width, ways=next(ways), norm=c["scan_norm"], text_width=text_width("text_scan"), **scan)

        def feed_forward() -> nn.Module:
            if c["num_experts"] == 1:
                return FeedForward(width, ratio=c["ffn_ratio"])
            return ExpertFeedForward(
                width, ratio=c["ffn_ratio"], experts=c["num_experts"], text_width=text_width("text_route")
            )

        def block(kind: str) -> nn.Module:
            options = {"residual_scale": c["residual_scale"], "text_width": text_width("text_gate")}
            if kind == "dense":
                return DenseBlock(width, **options)
            return Block(width, mixer(kind), feed_forward(), **options)

        return nn.ModuleList(block(kind) for _, kind in zip(range(depth), itertools.cycle(kinds.split("+"))))

    def text_parameters(self) -> Iterator[str]:
        """Names of the parameters of the text path. At their start, none of them changes the output by a single bit."""
        for name, _ in self.named_parameters():
            if any(part.startswith("text_") for part in name.split(".")):
                yield name

    @torch.no_grad()
    def wake_text_gates(self, std: float, generator: torch.Generator | None = None) -> bool:
        """Gives the gates that prompts work by random weights, if they are as neutral as they started.

        Where every prompt passes every channel alike, a channel that only some prompts want is never made: what it
        would gain for them it loses for the others. Once prompts pass different channels, such channels pay.

        Returns:
            whether there were gates, all of them neutral.
        """
        gates = [module.weight for module in self.modules() if isinstance(module, TextGate)]
        if not gates or any(weight.any() for weight in gates):
            return False
        for weight in gates:
            weight.copy_(std * torch.randn(weight.shape, generator=generator))
        return True

    def forward(self, x: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """Restores a batch.

        Args:
            x: (B, in_chans, H, W), [0, 1], any H and W >= 1.
            prompt: (B, text_dim) of unit norm; a row of zeros, or None for the whole batch, is blind restoration.

        Returns:
            (B, out_chans, H * upscale, W * upscale), not clamped.

        Raises:
            UserError: the shapes are not these.
        """
        self._check_input(x, prompt)
        height, width = x.shape[-2] * self.upscale, x.shape[-1] * self.upscale
        text = self._describe(prompt, x.shape[0]) if self.has_text else None

        # the features keep the parameters' precision, also where autocast multiplies in a lower one
        features = self.intro(pad_to_multiple(x, self.size_multiple)).to(self.intro.weight.dtype)
        skips = []
        for blocks, down in zip(self.encoder, self.downs):
            features = self._run(blocks, features, text)
            skips.append(features)
            features = down(features).to(features.dtype)
        if self.text_attention is not None:
            features = self.text_attention(features, text)
        features = self._run(self.middle, features, text)
        for up, blocks in zip(self.ups, self.decoder):
            features = self._run(blocks, up(features) + skips.pop(), text)
        if self.text_gate is not None:
            features = features * self.text_gate(text)[:, None, None].to(features.dtype)
        return self.outro(features)[..., :height, :width] + self._base(x)

    def _run(self, blocks: nn.ModuleList, features: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        count = self.config["semantic_scan"]
        scans = count and any(isinstance(getattr(block, "mixer", None), ScanMixer) for block in blocks)
        category = semantic_categories(features, count) if scans else None
        for block in blocks:
            if self.use_checkpoint and self.training and torch.is_grad_enabled():
                features = checkpoint(block, features, text, category, use_reentrant=False)
            else:
                features = block(features, text, category)
        return features

    def _describe(self, prompt: torch.Tensor | None, batch: int) -> torch.Tensor:
        """(B, text_dim) or None -> (B, text_width), the null embedding standing in for rows of zeros."""
        null = self.text_null.expand(batch, -1)
        if prompt is not None:
            prompt = prompt.to(null)
            null = torch.where((prompt == 0).all(dim=1, keepdim=True), null, prompt)
        # numbers of unit norm become numbers of unit variance, which is what a linear layer's start expects
        return self.text_embed(null * self.text_dim**0.5)

    def _base(self, x: torch.Tensor) -> torch.Tensor:
        """What the network adds to: the input, or its bicubic enlargement; gray is repeated for each output channel."""
        out_chans = self.config["out_chans"]
        x = x[:, :out_chans].expand(-1, out_chans, -1, -1)
        if self.upscale > 1:
            x = F.interpolate(x, scale_factor=self.upscale, mode="bicubic", align_corners=False)
        return x

    def _check_input(self, x: torch.Tensor, prompt: torch.Tensor | None) -> None:
        channels = self.config["in_chans"]
        if x.dim() != 4 or x.shape[1] != channels:
            raise UserError(f"the network reads images (batch, {channels}, height, width), not {tuple(x.shape)}")
        if prompt is not None and tuple(prompt.shape) != (x.shape[0], self.text_dim):
            raise UserError(
                f"the network expects a prompt embedding of shape ({x.shape[0]}, {self.text_dim}), not "
                f"{tuple(prompt.shape)}: text_dim must be the text encoder's, and there is one prompt an image"
            )


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pads right and bottom so that height and width divide by `multiple`; mirrors, or repeats where too little is
    there to mirror."""
    for dim in (-1, -2):
        size = x.shape[dim]
        missing = -size % multiple
        if missing:
            pad = (0, missing, 0, 0) if dim == -1 else (0, 0, 0, missing)
            x = F.pad(x, pad, mode="reflect" if missing < size else "replicate")
    return x
