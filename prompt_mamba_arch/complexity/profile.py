"""Several networks beside each other: what each costs at given sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from prompt_mamba_arch.complexity.count import SCAN_OPERATIONS, Counts, count
from prompt_mamba_arch.complexity.network import label_of, open_network
from prompt_mamba_arch.complexity.peak import peak_memory
from prompt_mamba_arch.complexity.timing import medians
from prompt_mamba_arch.errors import UserError

__all__ = ["Profile", "profile", "to_markdown", "to_rows"]

Size = tuple  # (height, width) in pixels


class Profile(NamedTuple):
    """One network at one size.

    Attributes:
        seconds: median of the rounds, None where no time was taken.
        memory: bytes that a pass takes beyond the network, None where it was not measured.
    """

    label: str
    architecture: str
    size: Size
    counts: Counts
    seconds: float | None
    memory: int | None


def profile(
    specs: Sequence[str],
    sizes: Sequence[Size] = ((256, 256),),
    *,
    rounds: int = 7,
    threads: int = 1,
    device: str = "auto",
    memory: bool = True,
    tell: Callable[[str], None] = lambda line: None,
    tick: Callable[[], None] = lambda: None,
) -> list[Profile]:
    """Profiles networks, as `open_network` takes them, at sizes (height, width).

    Args:
        rounds: each network runs once in every round, so that a disturbance hits all alike; 0 takes no times.
        memory: also measure the peak, in a process of its own for each network and size.
        tell: called with what the user should know, a line at a time.
        tick: called when one more thing is done: a count, a run, a peak; there are
            `len(specs) * len(sizes) * (1 + (rounds and rounds + 1) + memory)`.

    Raises:
        UserError: what `open_network` says; two networks of one name.
    """
    labels = labels_for(specs)
    nets = {label: open_network(spec, device, tell=tell) for label, spec in zip(labels, specs)}
    found = []
    for height, width in sizes:
        counts = {}
        for label, net in nets.items():
            counts[label] = count(net.net, height, width, run=net.forward)
            tick()
        seconds: Mapping[str, float] = {}
        if rounds:
            where = next(iter(nets.values())).device
            seconds = medians(
                {label: _pass(net, height, width) for label, net in nets.items()},
                rounds, threads, device=where, tick=tick,
            )  # fmt: skip
        for (label, net), spec in zip(nets.items(), specs):
            peak = None
            if memory:
                try:
                    peak = peak_memory(spec, height, width, threads, device)
                except UserError as error:
                    tell(f"{label}: {error}")
                tick()
            kind = type(net.net).__name__
            found.append(Profile(label, kind, (height, width), counts[label], seconds.get(label), peak))
    return found


def _pass(net, height: int, width: int) -> Callable[[], object]:
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(net.device)

    @torch.inference_mode()
    def run() -> object:
        return net.forward(x)

    return run


def labels_for(specs: Sequence[str]) -> list[str]:
    """Short and different names."""
    if len(set(specs)) < len(specs):
        raise UserError("a network is named twice")
    short = [label_of(spec) for spec in specs]
    return [name if short.count(name) == 1 else spec for name, spec in zip(short, specs)]


def to_rows(found: Sequence[Profile]) -> list[dict[str, object]]:
    """One mapping of plain values for each network and size, for CSV and JSON."""
    return [
        {
            **{"network": one.label, "architecture": one.architecture, "height": one.size[0], "width": one.size[1]},
            **one.counts._asdict(),
            **{"macs": one.counts.macs, "seconds": one.seconds, "memory": one.memory},
        }
        for one in found
    ]


def to_markdown(found: Sequence[Profile]) -> str:
    """One table for each size, and what its columns mean."""
    header = ("network", "parameters", "active", "MACs", "of them scans", "activations", "memory", "latency")
    parts = []
    for size in dict.fromkeys(one.size for one in found):
        lines = [header, ("---",) + ("---:",) * (len(header) - 1)]
        for one in (one for one in found if one.size == size):
            c = one.counts
            lines.append((
                one.label if one.label == one.architecture else f"{one.label} ({one.architecture})",
                f"{c.parameters / 1e6:.3f} M", "" if c.active is None else f"{c.active / 1e6:.3f} M",
                f"{c.macs / 1e9:.2f} G", f"{c.scans / 1e9:.2f} G" if c.scans else "none",
                f"{c.activations / 1e6:.1f} M",
                "" if one.memory is None else f"{one.memory / 2**20:.0f} MiB",
                "" if one.seconds is None else f"{one.seconds * 1e3:.0f} ms",
            ))  # fmt: skip
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"{size[1]} x {size[0]} pixels:\n\n{table}\n")
    parts.append(
        f"MACs: multiply-adds of convolutions, matrix products and attention, and {SCAN_OPERATIONS} operations of the "
        "scans for each token, channel, state and direction, as VMamba counts them. Activations: numbers that these "
        "give, scans left out. Active: parameters that a pass without a prompt uses. Memory: what a pass takes beyond "
        "the network. Latency: median of interleaved rounds.\n"
    )
    return "\n".join(parts)
