"""The parts of PromptMamba.

Features are NHWC tokens throughout: `(B, H, W, C)`, contiguous. A linear layer and a LayerNorm work on them as they
lie, a depthwise convolution on their channels-last view, the scan reads them through a table of pixel orders; so
nothing inside a block is transposed or copied.

Letters in shapes: B images, H x W pixels of the level, L = H * W, C channels of the level, D inner channels of the
scan, K scan directions, R rank of delta, N states, T numbers that describe the prompt, E experts.

Every module that reads the prompt is an attribute whose name starts with `text_`, and ends in a linear layer without
bias that starts at zero: until it is trained, the prompt changes nothing, not even the last bit.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn

from prompt_mamba_arch.ops import linear, scan_order, selective_scan_2d, sort_order

NORM_EPS = 1e-6
# What mixers and feed-forwards return: hidden features (B, H, W, inner), and the matrix that leads from them back to C
# channels, (C, inner) or one for each image, (B, C, inner). The block multiplies its scale into the matrix.
Branch = tuple[torch.Tensor, torch.Tensor]
# orders of each number of directions; a block takes the next entry of its row, so that blocks in turn see all four ways
SCAN_WAYS = {
    1: (("rows",), ("columns",), ("rows_reversed",), ("columns_reversed",)),
    2: (("rows", "rows_reversed"), ("columns", "columns_reversed")),
    4: (("rows", "rows_reversed", "columns", "columns_reversed"),),
}


class PixelLinear(nn.Linear):
    """Without bias: on a CPU a bias costs one more pass over the features, and the LayerNorms have one already."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight)


class ZeroLinear(nn.Linear):
    """Starts at zero, without bias: what it feeds is unchanged at first, yet it receives a gradient at once."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)
        nn.init.zeros_(self.weight)


class TextGate(ZeroLinear):
    """The prompt's factors for channels: 1 at first, any number later.

    Not a sigmoid: it shuts all channels for every request that is not learned in the first hundreds of steps, and once
    shut, no gradient is left to learn it by. And what sharpens is what smooths with the sign turned.

    (B, T) -> (B, outputs).
    """

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return 1 + super().forward(text)


def simple_gate(x: torch.Tensor) -> torch.Tensor:
    """The product of the two halves of the channels (NAFNet, Chen et al. 2022): (..., 2C) -> (..., C)."""
    a, b = x.chunk(2, dim=-1)
    return a * b


def image_mean(x: torch.Tensor) -> torch.Tensor:
    """The mean over all pixels, summed in float32 at least (float16 overflows): (B, H, W, C) -> (B, C)."""
    return x.mean(dim=(1, 2), dtype=torch.promote_types(x.dtype, torch.float32)).to(x.dtype)


class DepthwiseConv(nn.Conv2d):
    """3x3, one filter a channel, zero padding: (B, H, W, C) -> the same."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ScanMixer(nn.Module):
    """Every pixel gathers from all pixels that a selective scan (Mamba, Gu and Dao 2023) has passed on its way.

        x, z = two linear layers of the input
        u = SiLU(depthwise(x));  delta, B, C = linear(u) [+ what the prompt adds]
        y = sum over directions of scan(u, delta, A, B, C, D);  output = linear(LayerNorm(y) * SiLU(z))

    Args:
        ways: names of the K pixel orders, as `ops.scan_order` knows them.
        d_state: N, numbers that a channel remembers.
        expand: D / C.
        a_form: A is a parameter for each of the N states ("general"), or one for all of them: A_n = n * a ("tied") or
            A_n = a ("scalar").
        local_conv, gate, norm: whether there are the depthwise convolution, the branch z and the LayerNorm of y.
        text_width: T, or None: the prompt does not reach the scan.
    """

    def __init__(
        self,
        channels: int,
        *,
        ways: tuple[str, ...],
        d_state: int,
        expand: float,
        a_form: str,
        local_conv: bool,
        gate: bool,
        norm: bool,
        text_width: int | None,
    ):
        super().__init__()
        inner, directions, rank = int(channels * expand), len(ways), math.ceil(channels / 16)
        self.ways, self.a_form = ways, a_form
        # two layers, not one that is cut in half: the convolution then finds its input contiguous
        self.in_proj = PixelLinear(channels, inner)
        self.gate_proj = PixelLinear(channels, inner) if gate else None
        self.conv = DepthwiseConv(inner) if local_conv else None
        self.dbc_proj = PixelLinear(inner, directions * (rank + 2 * d_state))
        self.text_scan = ZeroLinear(text_width, self.dbc_proj.out_features) if text_width else None

        # Mamba's start: delta is log-uniform in [1e-3, 1e-1], A_n = -n (-1 in the scalar form), D = 1
        delta = torch.exp(torch.empty(directions, inner).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_weight = nn.Parameter(torch.empty(directions, inner, rank).uniform_(-1, 1) * rank**-0.5)
        self.dt_bias = nn.Parameter(delta + torch.log(-torch.expm1(-delta)))  # the inverse of softplus
        rates = torch.arange(1, (d_state if a_form == "general" else 1) + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(torch.log(rates).repeat(directions, inner, 1))  # (K, D, N), or (K, D, 1)
        self.D = nn.Parameter(torch.ones(directions, inner))
        self.norm = nn.LayerNorm(inner, eps=NORM_EPS) if norm else nn.Identity()
        self.out_proj = PixelLinear(inner, channels)

    def forward(self, x: torch.Tensor, text: torch.Tensor | None, category: torch.Tensor | None = None) -> Branch:
        """category (B, L): scan the pixels sorted by it; None: as they lie."""
        batch, height, width, _ = x.shape
        u = self.in_proj(x)  # (B, H, W, D)
        if self.conv is not None:
            u = F.silu(self.conv(u))
        u = u.reshape(batch, height * width, -1)  # (B, L, D)
        dbc = self.dbc_proj(u)
        if self.text_scan is not None:
            dbc = dbc + self.text_scan(text)[:, None]
        dbc = dbc.view(batch, height * width, len(self.ways), -1)  # (B, L, K, R + 2N)
        order = scan_order(height, width, self.ways, x.device)  # (K, L)
        A = -torch.exp(self.A_log)
        scan = functools.partial(selective_scan_2d, a_form=self.a_form)
        if category is None:
            y = scan(u, dbc, self.dt_weight, self.dt_bias, A, self.D, order)
        else:  # every image has its own orders
            images = zip(u.split(1), dbc.split(1), sort_order(order, category))
            y = torch.cat([scan(a, b, self.dt_weight, self.dt_bias, A, self.D, way) for a, b, way in images])
        y = self.norm(y).unflatten(1, (height, width))
        if self.gate_proj is not None:
            y = y * F.silu(self.gate_proj(x))
        return y, self.out_proj.weight


def semantic_categories(x: torch.Tensor, count: int) -> torch.Tensor:
    """Which of `count` groups of channels speaks loudest at each pixel: (B, H, W, C) -> (B, L) whole numbers.

    Pixels of like features have like categories, wherever in the image they are. Nothing is learned for it but the
    features themselves.
    """
    x = F.layer_norm(x.detach().flatten(1, 2), x.shape[-1:])
    groups = x.tensor_split(min(count, x.shape[-1]), dim=-1)
    return torch.stack([group.mean(-1) for group in groups], -1).argmax(-1)


class ConvMixer(nn.Module):
    """Every pixel gathers from its 3x3 neighbours; the mean over the image weighs the channels (NAFNet's first half).

    Args:
        local_conv: whether there is the depthwise convolution; without it only the mean looks beyond a pixel.
    """

    def __init__(self, channels: int, *, local_conv: bool):
        super().__init__()
        self.in_proj = PixelLinear(channels, 2 * channels)
        self.conv = DepthwiseConv(2 * channels) if local_conv else None
        self.attention = nn.Linear(channels, channels)
        nn.init.ones_(self.attention.bias)  # at first, the features pass
        self.out_proj = PixelLinear(channels, channels)

    def forward(self, x: torch.Tensor, text: torch.Tensor | None) -> Branch:
        x = self.in_proj(x)  # (B, H, W, 2C)
        if self.conv is not None:
            x = self.conv(x)
        x = simple_gate(x)  # (B, H, W, C)
        return x * self.attention(image_mean(x))[:, None, None], self.out_proj.weight


class FeedForward(nn.Module):
    """Linear, simple gate, linear, pixel by pixel."""

    def __init__(self, channels: int, *, ratio: float):
        super().__init__()
        half = int(channels * ratio / 2)
        self.expand = PixelLinear(channels, 2 * half)
        self.contract = PixelLinear(half, channels)

    def forward(self, x: torch.Tensor, text: torch.Tensor | None) -> Branch:
        return simple_gate(self.expand(x)), self.contract.weight


class ExpertFeedForward(nn.Module):
    """E feed-forwards; the prompt and the image's mean feature decide the mixture, one for the whole image.

    The experts' weights are averaged before they meet the pixels (CondConv, Yang et al. 2019), so that any number of
    experts costs about as much as one, and each of them has a gradient in every step.
    """

    def __init__(self, channels: int, *, ratio: float, experts: int, text_width: int | None):
        super().__init__()
        half = int(channels * ratio / 2)
        self.expand = nn.ModuleList(PixelLinear(channels, 2 * half) for _ in range(experts))
        self.contract = nn.ModuleList(PixelLinear(half, channels) for _ in range(experts))
        self.route = nn.Linear(channels, experts)
        self.text_route = ZeroLinear(text_width, experts) if text_width else None

    def idle_parameters(self) -> int:
        """How many of the parameters no pixel meets: those of all experts but one, as their average is one more."""
        held = sum(layer.weight.numel() for layer in (*self.expand, *self.contract))
        return held - held // len(self.expand)

    def forward(self, x: torch.Tensor, text: torch.Tensor | None) -> Branch:
        logits = self.route(image_mean(x))
        if self.text_route is not None:
            logits = logits + self.text_route(text)
        share = logits.softmax(dim=-1)  # (B, E)
        expand, contract = self._mixed(self.expand, share), self._mixed(self.contract, share)
        hidden = torch.bmm(x.flatten(1, 2).to(expand.dtype), expand.transpose(1, 2))  # (B, L, C * ratio)
        return simple_gate(hidden).unflatten(1, x.shape[1:3]), contract

    @staticmethod
    def _mixed(layers: nn.ModuleList, share: torch.Tensor) -> torch.Tensor:
        weights = torch.stack([layer.weight for layer in layers])  # (E, out, in)
        return torch.einsum("be,eoi->boi", share.to(weights.dtype), weights)


class Block(nn.Module):
    """x + scale * mixer(LayerNorm(x)), then x + scale * feed-forward(LayerNorm(x)).

    The prompt gates the channels of what is added (text_width given): it can silence a block, at no cost for a pixel.
    """

    def __init__(
        self, channels: int, mixer: nn.Module, ffn: nn.Module, residual_scale: float, *, text_width: int | None
    ):
        super().__init__()
        self.mixer_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.mixer = mixer
        self.ffn_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.ffn = ffn
        self.scale = nn.Parameter(torch.full((2, channels), float(residual_scale)))
        self.text_gate = TextGate(text_width, 2 * channels) if text_width else None

    def forward(self, x: torch.Tensor, text: torch.Tensor | None, category: torch.Tensor | None = None) -> torch.Tensor:
        scales = self.scale.unsqueeze(1)  # (2, 1, C)
        if self.text_gate is not None:
            scales = scales * torch.stack(self.text_gate(text).chunk(2, dim=-1))  # (2, B, C)
        given = (text, category) if isinstance(self.mixer, ScanMixer) else (text,)
        x = self._add(x, *self.mixer(self.mixer_norm(x), *given), scales[0])
        return self._add(x, *self.ffn(self.ffn_norm(x), text), scales[1])

    @staticmethod
    def _add(x: torch.Tensor, hidden: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """x + scale * (weight @ hidden); the scale, (1, C) or (B, C), goes into the matrix: it is smaller."""
        weight = weight * scale.unsqueeze(-1).to(weight.dtype)  # (1 or B, C, inner)
        if weight.shape[0] == 1:
            return x + linear(hidden, weight[0])
        return x + torch.bmm(hidden.flatten(1, 2), weight.transpose(1, 2)).view(x.shape)


class DenseBlock(nn.Module):
    """x + scale * convolution(SiLU(convolution(x))), 3x3 from all channels to all (EDSR, Lim et al. 2017).

    Several times the arithmetic of the other blocks, but of the kind that processors are best at: on a CPU it takes
    less time than they do where channels are few and pixels many. The prompt gates what is added, as in `Block`.
    """

    def __init__(self, channels: int, residual_scale: float, *, text_width: int | None):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.full((channels,), float(residual_scale)))
        self.text_gate = TextGate(text_width, channels) if text_width else None

    def forward(self, x: torch.Tensor, text: torch.Tensor | None, category: torch.Tensor | None = None) -> torch.Tensor:
        scale = self.scale
        if self.text_gate is not None:
            scale = (scale * self.text_gate(text))[:, None, None]  # (B, 1, 1, C)
        y = self.conv2(F.silu(self.conv1(x.permute(0, 3, 1, 2))))
        return x + (scale * y.permute(0, 2, 3, 1)).to(x.dtype)


class TextAttention(nn.Module):
    """Pixels ask the prompt: cross-attention with a few tokens made of the embedding. (B, H, W, C) -> the same.

    The whole module belongs to the text path; its last layer starts at zero.
    """

    def __init__(self, channels: int, *, text_width: int, tokens: int, head_channels: int = 32):
        super().__init__()
        self.tokens = tokens
        self.heads = max(h for h in range(1, max(1, channels // head_channels) + 1) if channels % h == 0)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.query = PixelLinear(channels, channels)
        # one token alone would get all the attention whatever the pixel asks
        self.key_value = nn.Linear(text_width, tokens * 2 * channels)
        self.out_proj = ZeroLinear(channels, channels)

    def forward(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        batch, _, _, channels = x.shape

        def by_head(tokens: torch.Tensor) -> torch.Tensor:  # (B, tokens, C) -> (B, heads, tokens, C / heads)
            return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query = by_head(self.query(self.norm(x)).flatten(1, 2))
        key, value = map(by_head, self.key_value(text).view(batch, self.tokens, 2 * channels).chunk(2, dim=-1))
        found = F.scaled_dot_product_attention(query, key, value)  # (B, heads, L, C / heads)
        return x + self.out_proj(found.transpose(1, 2).flatten(2)).view(x.shape).to(x.dtype)


class Intro(nn.Conv2d):
    """Image to features, squares of `factor` x `factor` pixels becoming one: (B, in, H, W) -> (B, H/f, W/f, C)."""

    def __init__(self, in_chans: int, channels: int, factor: int):
        super().__init__(in_chans * factor**2, channels, 3, padding=1)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pixel_unshuffle(x, self.factor).contiguous(memory_format=torch.channels_last)
        return super().forward(x).permute(0, 2, 3, 1).contiguous()


class Outro(nn.Conv2d):
    """Features to what is added to the image: (B, H, W, C) -> (B, out, H * factor, W * factor).

    The weights start small, so that the untrained network returns nearly its input, and not at zero, so that every
    layer before has a gradient from the first step.
    """

    def __init__(self, channels: int, out_chans: int, factor: int):
        super().__init__(channels, out_chans * factor**2, 3, padding=1)
        self.factor = factor
        nn.init.normal_(self.weight, std=0.005 / math.sqrt(9 * channels))
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(super().forward(x.permute(0, 3, 1, 2)), self.factor)


class Down(nn.Conv2d):
    """Half the width and height, twice the channels."""

    def __init__(self, channels: int):
        super().__init__(channels, 2 * channels, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


class Up(PixelLinear):
    """Twice the width and height, half the channels: a linear layer makes four pixels of one."""

    def __init__(self, channels: int):
        super().__init__(channels, 2 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, width, channels = x.shape
        x = super().forward(x).view(batch, height, width, 2, 2, channels // 2)
        return x.transpose(2, 3).reshape(batch, 2 * height, 2 * width, channels // 2)
