"""MambaIRv2 (Guo et al., CVPR 2025, arXiv:2411.15269): attentive state spaces for restoration.

Written from the paper; keys of the state dict and hyper-parameters are those of the official release
(github.com/csguoh/MambaIR), so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch.archs.arguments import demand, fill_in, given, whole
from prompt_mamba_arch.archs.residual_groups import ResidualGroupNet, check_frame, conv_nhwc
from prompt_mamba_arch.archs.scan_parameters import decay_rates, delta_bias
from prompt_mamba_arch.archs.windows import WindowAttention, relative_positions
from prompt_mamba_arch.ops import scan_order, selective_scan_2d

__all__ = ["MambaIRv2"]

_CLASSIC = {"d_state": 16, "inner_rank": 64, "num_tokens": 128, "mlp_ratio": 2.0, "ffn": "conv"}
SIZES = {
    "light": {
        **{"embed_dim": 48, "d_state": 8, "depths": [5] * 4, "num_heads": [4] * 4},
        **{"inner_rank": 32, "num_tokens": 64, "mlp_ratio": 1.0, "ffn": "gated"},
    },
    "small": {**_CLASSIC, "embed_dim": 132, "depths": [4] * 6, "num_heads": [4] * 6},
    "base": {**_CLASSIC, "embed_dim": 174, "depths": [6] * 6, "num_heads": [6] * 6},
    "large": {**_CLASSIC, "embed_dim": 174, "depths": [6] * 9, "num_heads": [6] * 9},
}


class ConvFeedForward(nn.Module):
    """Linear, GELU, + GELU(depthwise convolution), linear: (B, H, W, C) -> the same."""

    def __init__(self, dim: int, hidden: int, kernel: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        conv = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.dwconv = nn.ModuleDict({"depthwise_conv": nn.Sequential(conv, nn.GELU())})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.fc1(x))
        return self.fc2(x + conv_nhwc(self.dwconv["depthwise_conv"], x))


class GatedFeedForward(nn.Module):
    """Linear, GELU; one half of the channels gates the other after a LayerNorm and a depthwise convolution; linear."""

    def __init__(self, dim: int, hidden: int, kernel: int):
        super().__init__()
        half = hidden // 2
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(half, dim)
        conv = nn.Conv2d(half, half, kernel, padding=kernel // 2, groups=half)
        self.sg = nn.ModuleDict({"norm": nn.LayerNorm(half), "conv": conv})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gated, gate = F.gelu(self.fc1(x)).chunk(2, -1)
        return self.fc2(gated * conv_nhwc(self.sg["conv"], self.sg["norm"](gate)))


class SemanticScan(nn.Module):
    """The attentive state-space module: pixels are sorted into categories and scanned category by category, and what
    is read from the state, C, is shifted by the category's prompt. One scan serves the whole image.

    In training a pixel's category is drawn (Gumbel softmax, whose gradient passes straight through); in evaluation it
    is the likeliest, and within a category pixels keep their order, so that the same image gives the same result.
    """

    def __init__(self, dim: int, *, d_state: int, inner_rank: int, num_tokens: int, ratio: float):
        super().__init__()
        inner = int(dim * ratio)
        rank = -(-inner // 16)
        self.d_state, self.rank = d_state, rank
        self.selectiveScan = nn.ParameterDict(
            {
                "x_proj_weight": nn.init.kaiming_uniform_(torch.empty(1, rank + 2 * d_state, inner), a=5**0.5),
                "dt_projs_weight": nn.init.uniform_(torch.empty(1, inner, rank), -(rank**-0.5), rank**-0.5),
                "dt_projs_bias": delta_bias(1, inner),
                "A_logs": decay_rates(inner, d_state),
                "Ds": torch.ones(inner),
            }
        )
        self.in_proj = nn.Sequential(nn.Conv2d(dim, inner, 1))
        self.CPE = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1, groups=inner))
        self.out_norm, self.out_proj = nn.LayerNorm(inner), nn.Linear(inner, dim)
        self.embeddingB = nn.Embedding(num_tokens, inner_rank)
        nn.init.uniform_(self.embeddingB.weight, -1 / num_tokens, 1 / num_tokens)
        self.route = nn.Sequential(nn.Linear(dim, dim // 3), nn.GELU(), nn.Linear(dim // 3, num_tokens))

    def forward(self, x: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        """x (B, H, W, dim), shared (inner_rank, N), the factor of the prompts that the layer holds -> as x."""
        batch, height, width, _ = x.shape
        prompt, category = self._categorise(x.flatten(1, 2), self.embeddingB.weight @ shared)
        order = torch.argsort(category, dim=1, stable=True)  # (B, L): the pixel at each place of the sequence
        place = torch.argsort(order, dim=1)  # the place of each pixel

        u = conv_nhwc(self.in_proj, x)
        u = (u * torch.sigmoid(conv_nhwc(self.CPE, u))).flatten(1, 2)  # (B, L, D)
        y = self._scan(_arrange(u, order), prompt, scan_order(height, width, ("rows",), x.device))
        y = self.out_proj(self.out_norm(y))
        return _arrange(y, place).view(batch, height, width, -1)

    def _categorise(self, x: torch.Tensor, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, L, dim), prompts (categories, N) -> each pixel's prompt (B, L, N) and category (B, L)."""
        scores = self.route(x)
        if not self.training:
            category = scores.argmax(-1)
            return F.embedding(category, prompts), category
        chosen = F.gumbel_softmax(scores.log_softmax(-1), hard=True, dim=-1)
        return chosen @ prompts, chosen.detach().argmax(-1)

    def _scan(self, u: torch.Tensor, prompt: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
        """u (B, L, D) in the order of the categories, prompt (B, L, N) in that of the pixels -> (B, L, D).

        The prompts are not sorted with the pixels, as in the official release, whose weights were trained so.
        """
        p = self.selectiveScan
        dbc = F.linear(u, p["x_proj_weight"][0])
        dbc = dbc + F.pad(prompt.to(dbc.dtype), (self.rank + self.d_state, 0))  # C is last
        A = -torch.exp(p["A_logs"].float())[None]
        return selective_scan_2d(u, dbc.unsqueeze(2), p["dt_projs_weight"], p["dt_projs_bias"], A, p["Ds"][None], order)


def _arrange(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """x (B, L, C), order (B, L) -> the tokens in that order."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))


class AttentiveLayer(nn.Module):
    """Attention in windows for what is near, the semantic scan for what is far, a feed-forward after each."""

    def __init__(self, index: int, heads: int, positions: torch.Tensor, c: dict):
        super().__init__()
        dim, window = c["embed_dim"], c["window_size"]
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))
        self.scale1, self.scale2 = (nn.Parameter(torch.full((dim,), 1e-4)) for _ in range(2))
        self.wqkv = nn.Linear(dim, 3 * dim, bias=c["qkv_bias"])
        self.win_mhsa = WindowAttention(
            dim, heads=heads, window=window, shift=index % 2 * (window // 2), positions=positions
        )
        options = {name: c[name] for name in ("d_state", "inner_rank", "num_tokens")}
        self.assm = SemanticScan(dim, **options, ratio=c["mlp_ratio"])
        feed_forward = GatedFeedForward if c["ffn"] == "gated" else ConvFeedForward
        hidden = int(dim * c["mlp_ratio"])
        self.convffn1, self.convffn2 = (feed_forward(dim, hidden, c["convffn_kernel_size"]) for _ in range(2))
        self.embeddingA = nn.Embedding(c["inner_rank"], c["d_state"])
        nn.init.uniform_(self.embeddingA.weight, -1 / c["inner_rank"], 1 / c["inner_rank"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + self.win_mhsa(self.wqkv(self.norm1(x)))
        x = x * self.scale1 + y + self.convffn1(self.norm2(y))
        y = x + self.assm(self.norm3(x), self.embeddingA.weight)
        return x * self.scale2 + y + self.convffn2(self.norm4(y))


@ARCH_REGISTRY.register()
class MambaIRv2(ResidualGroupNet):
    """MambaIRv2, all sizes: `light` (0.79 M parameters at x4), `small` (9.8 M), `base` (23 M), `large` (34 M).

    Args:
        in_chans, upscale, upsampler, img_range, resi_connection: as in `ResidualGroupNet`; upsampler None is the
            size's own, or "" where upscale is 1.
        size: fills in the arguments that are None in the signature.
        embed_dim: channels. depths: layers of each group. num_heads: attention heads of each group.
        d_state: numbers that a channel of the scan remembers.
        window_size: side of the windows of attention; height and width are padded inside to its multiples.
        inner_rank, num_tokens: rank and number of the categories' prompts.
        convffn_kernel_size: side of the feed-forwards' convolution.
        mlp_ratio: inner channels of scan and feed-forward / channels.
        ffn: `gated` (the light family) or `conv`.

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
        num_heads: Sequence[int] | None = None,
        window_size: int = 16,
        inner_rank: int | None = None,
        num_tokens: int | None = None,
        convffn_kernel_size: int = 5,
        mlp_ratio: float | None = None,
        ffn: str | None = None,
        qkv_bias: bool = True,
        upsampler: str | None = None,
        img_range: float = 1.0,
        resi_connection: str = "1conv",
    ):
        c = fill_in("MambaIRv2", given(locals()), SIZES)
        if c["upsampler"] is None:
            c["upsampler"] = "" if upscale == 1 else "pixelshuffledirect" if size == "light" else "pixelshuffle"
        _check(c)
        positions = relative_positions(window_size)
        groups = [
            [AttentiveLayer(index, heads, positions, c) for index in range(depth)]
            for depth, heads in zip(c["depths"], c["num_heads"])
        ]
        frame = {"in_chans": in_chans, "upscale": upscale, "upsampler": c["upsampler"], "img_range": img_range}
        super().__init__(dim=c["embed_dim"], groups=groups, name="layers", connection=resi_connection, **frame)
        self.config, self.size_multiple = c, window_size
        self.floats_per_pixel = 3 * max(c["num_heads"]) * window_size**2 + 18 * c["embed_dim"]
        self.register_buffer("relative_position_index_SA", positions)


def _check(c: dict) -> None:
    check_frame("MambaIRv2", c)
    for name in ("window_size", "inner_rank", "num_tokens", "convffn_kernel_size"):
        demand(whole(c[name]), "MambaIRv2", name, c[name], "a whole number from 1")
    heads, groups = c["num_heads"], len(c["depths"])
    fits = isinstance(heads, list) and len(heads) == groups
    fits = fits and all(whole(n) and c["embed_dim"] % n == 0 for n in heads)
    what = f"a list of {groups} divisors of embed_dim ({c['embed_dim']}), one for each of depths"
    demand(fits, "MambaIRv2", "num_heads", heads, what)
    demand(c["convffn_kernel_size"] % 2 == 1, "MambaIRv2", "convffn_kernel_size", c["convffn_kernel_size"], "odd")
    demand(c["embed_dim"] >= 3, "MambaIRv2", "embed_dim", c["embed_dim"], "at least 3")
    demand(c["ffn"] in ("gated", "conv"), "MambaIRv2", "ffn", c["ffn"], "gated or conv")
    halves = c["ffn"] == "conv" or int(c["embed_dim"] * c["mlp_ratio"]) % 2 == 0
    what = f"one that leaves an even number of embed_dim ({c['embed_dim']}) channels, of which one half gates the other"
    demand(halves, "MambaIRv2", "mlp_ratio", c["mlp_ratio"], what)
