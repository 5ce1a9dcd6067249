"""How fast the selective scan is: backends, forms of A, states, threads, images; against what the machine can do.

    python scripts/benchmark/scan.py [-o report.md] [--rounds 15] [--threads 2]

ns are nanoseconds for each token, channel and state. One thread is measured in processor time, several on the clock.
Run it on a quiet machine; ratios survive a busy one, as everything is interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from measure import PeakMemory, Report, arguments, machine, medians, memory_rate, multiply_add_rate, table

from prompt_mamba_arch.ops import A_FORMS, available_backends, scan_order, selective_scan, selective_scan_2d

# Operations on the processor's multiply-add units for each token, channel and state ...
FOR_A_STATE = {
    "general": 9,  # exponent, 5 for the exponential's polynomial, input, state, output
    "tied": 4,  # power, input, state, output
    "scalar": 3,  # input, state, output
}
# ... and for each token and channel: softplus 13, delta * u, D * u; in the structured forms one exponential more
FOR_A_CHANNEL = {"general": 15, "tied": 21, "scalar": 21}
BYTES = 16  # for each token and channel: u and delta are read, y is fetched and written


def sequence(dim: int, length: int, states: int, a_form: str, gradients: bool = False) -> dict:
    """Arguments of selective_scan, channels last in memory as networks have them."""
    torch.manual_seed(0)

    def tokens(width: int) -> torch.Tensor:
        return torch.randn(1, length, width).transpose(1, 2)

    rates = torch.exp(0.3 * torch.randn(dim, 1))
    tensors = {
        "u": tokens(dim),
        "delta": tokens(dim),
        "A": -rates * torch.arange(1, states + 1) if a_form == "general" else -rates,
        "B": tokens(states),
        "C": tokens(states),
        "D": torch.randn(dim),
        "delta_bias": torch.randn(dim) - 2,
    }
    return {name: tensor.requires_grad_(gradients) for name, tensor in tensors.items()}


def run_sequence(dim: int, length: int, states: int, a_form: str, backend: str, gradients: bool) -> Callable:
    tensors = sequence(dim, length, states, a_form, gradients)
    weights = torch.randn(1, length, dim).transpose(1, 2)

    def run():
        y = selective_scan(**tensors, delta_softplus=True, backend=backend, a_form=a_form)
        if gradients:
            torch.autograd.grad(y, list(tensors.values()), weights)

    return run


def bound(states: int, a_form: str, multiply_adds: float, memory: float) -> float:
    """Least ns that forward can take: arithmetic or memory, whichever is slower."""
    arithmetic = (states * FOR_A_STATE[a_form] + FOR_A_CHANNEL[a_form]) / multiply_adds
    return max(arithmetic, BYTES / memory) / states * 1e9


def forms(report: Report, rounds: int) -> None:
    dim, length = 128, 4096
    multiply_adds, memory = multiply_add_rate(), memory_rate(1)
    rows = []
    for states in (1, 8, 16):
        things = {
            f"{a_form} {gradients}": run_sequence(dim, length, states, a_form, "cpu", gradients)
            for a_form in A_FORMS
            for gradients in (False, True)
        }
        taken = medians(things, rounds)
        for a_form in A_FORMS:
            forward, both = (taken[f"{a_form} {g}"] / (dim * length * states) * 1e9 for g in (False, True))
            least = bound(states, a_form, multiply_adds, memory)
            rows.append([states, a_form, f"{forward:.3f}", f"{both:.3f}", f"{least:.3f}", f"{least / forward:.0%}"])
    report.add(
        f"## Backend `cpu`, one thread, D = {dim}, L = {length}\n",
        table(["N", "A", "forward, ns", "forward + backward, ns", "bound of forward, ns", "reached"], rows),
    )


def backends(report: Report, rounds: int) -> None:
    dim, length, states = 64, 4096, 16
    rows = []
    for gradients in (False, True):
        # the plain loop's backward is quadratic in the length
        names = [n for n in ("reference", "torch", "cpu") if n in available_backends()]
        tokens = length // 8 if gradients else length
        things = {name: run_sequence(dim, tokens, states, "general", name, gradients) for name in names}
        taken = medians(things, max(3, rounds // 5))
        fastest = taken[names[-1]]
        for name in names:
            nanoseconds = taken[name] / (dim * tokens * states) * 1e9
            what = "forward + backward" if gradients else "forward"
            rows.append([what, tokens, name, f"{nanoseconds:.2f}", f"{taken[name] / fastest:.0f}"])
    report.add(
        f"## Backends, one thread, D = {dim}, N = {states}, general A\n",
        table(["", "L", "backend", "ns", f"times {names[-1]}"], rows),
    )


def threads_(report: Report, rounds: int, threads: int) -> None:
    dim, length = 128, 16384
    rows = []
    for states, a_form in ((16, "general"), (8, "tied")):
        for gradients in (False, True):
            things = {"run": run_sequence(dim, length, states, a_form, "cpu", gradients)}
            one, several = [], []
            for _ in range(3):  # in turns; the count cannot change within a round
                one.append(medians(things, rounds)["run"])
                several.append(medians(things, rounds, threads)["run"])
            what = "forward + backward" if gradients else "forward"
            milliseconds = (f"{min(times) * 1e3:.1f}" for times in (one, several))
            rows.append([states, a_form, what, *milliseconds, f"{min(one) / min(several):.2f}"])
    report.add(
        f"## Threads, D = {dim}, L = {length}\n",
        table(["N", "A", "", "1 thread, ms", f"{threads} threads, ms", "faster by"], rows),
    )


def images(report: Report, rounds: int) -> None:
    """The whole way from features to features: with copies in every direction, as published, and fused."""
    side, dim, rank = 128, 128, 4
    rows = []
    for states in (16, 8, 1):
        for ways in (("rows", "rows_reversed", "columns", "columns_reversed"), ("rows", "rows_reversed")):
            torch.manual_seed(0)
            directions = len(ways)
            x = torch.randn(1, side * side, dim)
            projection = torch.randn(directions, rank + 2 * states, dim) * dim**-0.5
            dt_weight, dt_bias = torch.randn(directions, dim, rank) * 0.5, torch.full((directions, dim), -4.0)
            A = -torch.arange(1.0, states + 1).repeat(directions, dim, 1)
            D, order = torch.ones(directions, dim), scan_order(side, side, ways)
            flat = projection.flatten(0, 1)

            def fused(a_form="general", x=x, flat=flat, A=A, dt_weight=dt_weight, dt_bias=dt_bias, D=D, order=order):
                dbc = torch.nn.functional.linear(x, flat).view(1, side * side, len(D), -1)
                A = A if a_form == "general" else A[..., :1]
                return selective_scan_2d(x, dbc, dt_weight, dt_bias, A, D, order, a_form=a_form)

            def copied(x=x, projection=projection, A=A, dt_weight=dt_weight, dt_bias=dt_bias, D=D, states=states):
                return with_copies(x, side, projection, A, dt_weight, dt_bias, D, states)

            torch.testing.assert_close(fused(), copied(), rtol=1e-3, atol=1e-3)
            things = {"copied": copied, "fused": fused, "tied": lambda fused=fused: fused("tied")}
            taken = medians(things, rounds)
            milliseconds = (f"{taken[name] * 1e3:.1f}" for name in things)
            rows.append([states, directions, *milliseconds, f"{taken['copied'] / taken['fused']:.2f}"])
    report.add(
        f"## Images, one thread, {side} x {side}, D = {dim}, projections included\n",
        table(["N", "directions", "copies, ms", "fused, ms", "fused, tied A, ms", "copies / fused"], rows),
    )


def with_copies(x, side, projection, A, dt_weight, dt_bias, D, states):
    """The 2-D scan as MambaIR (Guo et al. 2024) does it, on the same kernel: features are copied for each direction."""
    directions, rank = dt_weight.shape[0], dt_weight.shape[2]
    batch, _, dim = x.shape
    rows = x.transpose(1, 2).reshape(batch, dim, side, side)
    forward = [rows.flatten(2), rows.transpose(2, 3).flatten(2)][: (directions + 1) // 2]
    u = torch.stack(forward, 1)
    u = torch.cat([u, u.flip(-1)], 1)  # (B, K, D, L): rows, [columns,] and both reversed
    which = [0, 2, 1, 3][:directions] if directions == 4 else [0, 1]  # whose parameters those are
    projection, A, dt_weight, dt_bias, D = (t[which] for t in (projection, A, dt_weight, dt_bias, D))
    low, B, C = torch.einsum("bkdl,kcd->bkcl", u, projection).split([rank, states, states], 2)
    delta = torch.einsum("bkrl,kdr->bkdl", low, dt_weight)
    y = selective_scan(
        u.flatten(1, 2), delta.flatten(1, 2), A.flatten(0, 1), B, C, D.flatten(),
        delta_bias=dt_bias.flatten(), delta_softplus=True,
    ).view(u.shape)  # fmt: skip
    y = y[:, : len(forward)] + y[:, len(forward) :].flip(-1)
    total = y[:, 0]
    if directions == 4:
        total = total + y[:, 1].view(batch, dim, side, side).transpose(2, 3).flatten(2)
    return total.transpose(1, 2).contiguous()


def full_hd(report: Report, rounds: int) -> None:
    """In a process of its own, for its peak of memory."""
    rows = []
    for a_form in ("tied", "general"):
        command = [sys.executable, __file__, "--full-hd", a_form, "--rounds", str(rounds)]
        rows.append([a_form, *subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()])
    report.add(
        "## 1920 x 1080, one direction, D = 64, N = 8, forward, one thread\n",
        table(
            [
                "A",
                "seconds, memory used again",
                "seconds, fresh memory",
                "memory of a call beyond the inputs, MB",
                "of it the result, MB",
                "held after all calls, MB",
            ],
            rows,
        ),
    )


def page_faults() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure_full_hd(a_form: str, rounds: int) -> None:
    """Calls whose result lies in fresh memory, which the kernel zeroes page by page, are told apart by page faults."""
    width, height, dim, rank, states = 1920, 1080, 64, 4, 8
    length = width * height
    x, dbc = torch.randn(1, length, dim), torch.randn(1, length, 1, rank + 2 * states)
    dt_weight, dt_bias, D = torch.randn(1, dim, rank) * 0.5, torch.full((1, dim), -4.0), torch.ones(1, dim)
    A = -torch.arange(1.0, (states if a_form == "general" else 1) + 1).repeat(1, dim, 1)
    order = scan_order(height, width, ("rows",))
    selective_scan_2d(x[:, :64], dbc[:, :64], dt_weight, dt_bias, A, D, order[:, :64], a_form=a_form)  # warms up
    memory, of_one = PeakMemory(), 0
    taken: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(max(10, rounds)):
        faults, start = page_faults(), time.process_time()
        selective_scan_2d(x, dbc, dt_weight, dt_bias, A, D, order, a_form=a_form)
        taken[page_faults() - faults > 1000].append(time.process_time() - start)
        of_one = of_one if turn else memory.bytes()
    again, fresh = (f"{statistics.median(times):.2f}" if times else "-" for times in taken.values())
    print(again, fresh, *(f"{size / 2**20:.0f}" for size in (of_one, x.numel() * 4, memory.bytes())))


def main() -> None:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--full-hd", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.full_hd:
        with torch.no_grad():
            measure_full_hd(options.full_hd, options.rounds)
        return
    report = Report("The selective scan on this machine")
    report.add(machine(options.threads))
    if "cpu" in available_backends():
        forms(report, options.rounds)
    backends(report, options.rounds)
    if "cpu" in available_backends():
        threads_(report, options.rounds, options.threads)
        with torch.no_grad():
            images(report, options.rounds)
        full_hd(report, options.rounds)
    report.save(options.output)


if __name__ == "__main__":
    main()
