"""How fast PromptMamba's block is, against those of NAFNet, SwinIR, Restormer and MambaIR.

    python scripts/benchmark/block.py [-o report.md] [--rounds 15] [--threads 2] [--channels 48]

Inference on 128 x 128 features, training (forward and backward) on four times 64 x 64. BasicSR's SwinIR layer and,
where spandrel is installed, its NAFNet block are measured as published; other_blocks.py has the rest, with torch's
fastest operators. One thread is measured in processor time, several on the clock. Run it on a quiet machine.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import Report, arguments, machine, medians, table
from other_blocks import MambaIRBlock, NAFBlockNCHW, RestormerBlockNCHW, SwinBlock
from torch import nn

import prompt_mamba_arch  # noqa: F401  isort: skip  (BasicSR can be imported only after it)
from basicsr.archs.swinir_arch import SwinTransformerBlock

from prompt_mamba_arch.archs.blocks import Block, ConvMixer, FeedForward, ScanMixer

OURS = "PromptMamba, scan"
ROWS, ALL = ("rows", "rows_reversed"), ("rows", "rows_reversed", "columns", "columns_reversed")


class PublishedSwinBlock(nn.Module):
    """BasicSR's layer reads tokens, and needs the image's size."""

    def __init__(self, channels: int):
        super().__init__()
        self.block = SwinTransformerBlock(
            channels, (128, 128), channels // 16, window_size=8, shift_size=4, mlp_ratio=2
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x.flatten(1, 2), x.shape[1:3]).view(x.shape)


class WithoutText(nn.Module):
    def __init__(self, channels: int, mixer: nn.Module):
        super().__init__()
        self.block = Block(channels, mixer, FeedForward(channels, ratio=2.0), 1.0, text_width=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x, None)


def scan_block(channels: int, ways: tuple[str, ...] = ROWS, a_form: str = "general") -> nn.Module:
    options = {"d_state": 8, "expand": 1.0, "local_conv": True, "gate": True, "norm": True, "text_width": None}
    return WithoutText(channels, ScanMixer(channels, ways=ways, a_form=a_form, **options))


def blocks(channels: int) -> dict[str, tuple[nn.Module, str]]:
    """Name -> block and the layout of its features."""
    found = {
        OURS: (scan_block(channels), "NHWC"),
        "PromptMamba, scan, tied A": (scan_block(channels, a_form="tied"), "NHWC"),
        "PromptMamba, scan in four directions": (scan_block(channels, ALL), "NHWC"),
        "PromptMamba, convolution": (WithoutText(channels, ConvMixer(channels, local_conv=True)), "NHWC"),
        "NAFNet": (NAFBlockNCHW(channels), "NCHW"),
        "NAFNet, channels last": (NAFBlockNCHW(channels), "channels last"),
        "SwinIR": (SwinBlock(channels), "NHWC"),
        "SwinIR, BasicSR's": (PublishedSwinBlock(channels), "NHWC"),
        "Restormer": (RestormerBlockNCHW(channels), "NCHW"),
        "Restormer, channels last": (RestormerBlockNCHW(channels), "channels last"),
        "MambaIR, fused scan": (MambaIRBlock(channels, fused=True), "NHWC"),
        "MambaIR, as published": (MambaIRBlock(channels, fused=False), "NHWC"),
    }
    try:
        from spandrel.architectures.NAFNet.__arch.NAFNet_arch import NAFBlock

        found["NAFNet, spandrel's"] = (NAFBlock(channels), "NCHW")
    except ImportError:
        pass
    return found


def features(batch: int, side: int, channels: int, layout: str) -> torch.Tensor:
    torch.manual_seed(0)
    if layout == "NHWC":
        return torch.randn(batch, side, side, channels)
    x = torch.randn(batch, channels, side, side)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels last" else x


def inference(block: nn.Module, x: torch.Tensor) -> Callable:
    block.eval()

    def run():
        with torch.no_grad():
            block(x)

    return run


def training(block: nn.Module, x: torch.Tensor) -> Callable:
    block.train()
    x.requires_grad_()
    weights = torch.randn_like(x)

    def run():
        torch.autograd.grad(block(x), [x, *block.parameters()], weights, allow_unused=True)

    return run


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--channels", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report("Blocks on this machine")
    report.add(machine(options.threads))
    for title, batch, side, make in (
        ("Inference, 128 x 128", 1, 128, inference),
        ("Training, 4 x 64 x 64", 4, 64, training),
    ):
        contestants = blocks(options.channels)
        things = {}
        for name, (block, layout) in contestants.items():
            block = block.to(memory_format=torch.channels_last) if layout == "channels last" else block
            things[name] = make(block, features(batch, side, options.channels, layout))
        one = medians(things, options.rounds)
        several = medians(things, options.rounds, options.threads)
        rows = [
            [
                name,
                layout,
                f"{sum(p.numel() for p in block.parameters()) / 1e3:.1f} k",
                f"{one[name] * 1e3:.1f}",
                f"{several[name] * 1e3:.1f}",
                f"{one[OURS] / one[name]:.2f}",
            ]
            for name, (block, layout) in contestants.items()
        ]
        header = ["block", "features", "parameters", "1 thread, ms", f"{options.threads} threads, ms", "ours / it"]
        report.add(f"## {title}, {options.channels} channels\n", table(header, rows))
    report.save(options.output)


if __name__ == "__main__":
    main()
