"""Parameters, operations and activations of any network: the one place that counts them.

Convolutions, matrix products and attention are counted as they are called, by torch's own counter; the selective scans,
which no counter sees, from their sizes. An operation is a multiplication with an addition.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from prompt_mamba_arch.memory import is_out_of_memory
from prompt_mamba_arch.ops import recorded_scans
from prompt_mamba_arch.ops.record import Scan

__all__ = ["SCAN_OPERATIONS", "Counts", "active_parameters", "count"]

SCAN_OPERATIONS = 9  # for each token, channel, state and direction (VMamba, Liu et al. 2024)
_TRIAL = 32  # pixels a side, to see which parameters take part


class Counts(NamedTuple):
    """Of a network, for one image.

    Attributes:
        parameters: numbers that are trained.
        active: those that take part: not the experts that are not asked, nor all but one of experts that are averaged,
            nor what a pass without a prompt leaves out; None where the network cannot be differentiated.
        products: multiply-adds of convolutions, matrix products and attention.
        scans: operations of the selective scans, `SCAN_OPERATIONS` for each token, channel, state and direction.
        activations: numbers that convolutions, matrix products and attention give.
        convolution_activations: those of Conv2d layers alone, as NTIRE's organisers count.
        convolutions: Conv2d layers.
    """

    parameters: int
    active: int | None
    products: float
    scans: float
    activations: int
    convolution_activations: int
    convolutions: int

    @property
    def macs(self) -> float:
        """Products and scans together."""
        return self.products + self.scans


def count(
    net: nn.Module, height: int = 256, width: int = 256, *, run: Callable[[torch.Tensor], object] | None = None
) -> Counts:
    """Counts one pass over a (1, 3, height, width) image, on the network's device.

    Args:
        run: makes the pass, if the network is not simply called; `Restorer.forward` pads first.
    """
    net.eval()
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    x = torch.rand(1, 3, height, width, device=device)
    conv: list[int] = []
    with contextlib.ExitStack() as stack:
        scans = stack.enter_context(recorded_scans())
        stack.enter_context(_plain_scans(net, scans))
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                hook = module.register_forward_hook(lambda module, inputs, output: conv.append(output.numel()))
                stack.callback(hook.remove)
        stack.enter_context(torch.no_grad())
        products = stack.enter_context(FlopCounterMode(display=False, custom_mapping=_ALSO))
        outputs = stack.enter_context(_Outputs(set(products.flop_registry)))
        (run or net)(x)
    # numbers of all directions' tokens and channels
    sizes = [s.images * s.tokens * s.directions * s.channels for s in scans]
    return Counts(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        active=active_parameters(net, run=run),
        # a low-rank delta is made inside the scan's call
        products=products.get_total_flops() / 2 + sum(size * s.rank for size, s in zip(sizes, scans)),
        scans=float(SCAN_OPERATIONS * sum(size * s.states for size, s in zip(sizes, scans))),
        activations=outputs.numbers + sum(size for size, s in zip(sizes, scans) if s.rank),
        convolution_activations=sum(conv),
        convolutions=sum(isinstance(module, nn.Conv2d) for module in net.modules()),
    )


def active_parameters(net: nn.Module, *, run: Callable[[torch.Tensor], object] | None = None) -> int | None:
    """How many parameters a pass without a prompt uses: those that the output depends on.

    A module whose parameters are averaged before they meet pixels says by `idle_parameters()` how many are not met.
    None where the pass cannot be differentiated.
    """
    parameters = list(net.parameters())
    wished = [parameter.requires_grad for parameter in parameters]
    device = parameters[0].device if parameters else torch.device("cpu")
    # other random numbers, or a sum that cancels, would change nothing: what counts is whether there is a path
    try:
        for parameter in parameters:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            output = (run or net)(torch.rand(1, 3, _TRIAL, _TRIAL, device=device))
            if not parameters or not output.requires_grad:
                return None if parameters else 0
            found = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        return None
    finally:
        for parameter, wish in zip(parameters, wished):
            parameter.requires_grad_(wish)
    used = sum(parameter.numel() for parameter, gradient in zip(parameters, found) if gradient is not None)
    return used - sum(module.idle_parameters() for module in net.modules() if hasattr(module, "idle_parameters"))


@contextlib.contextmanager
def _plain_scans(net: nn.Module, scans: list[Scan]) -> Iterator[None]:
    """Also records the scans of a network that stands alone in a file, whose scan is its own plain PyTorch."""
    hooks = []
    for module in net.modules():
        if not hasattr(module, "A_log") or not hasattr(module, "dbc_proj"):
            continue
        before: list[int] = []

        def begin(module: nn.Module, inputs: tuple, before: list[int] = before) -> None:
            before.append(len(scans))

        def end(module: nn.Module, inputs: tuple, output: object, before: list[int] = before) -> None:
            if len(scans) == before.pop():  # its own
                images, height, width = inputs[0].shape[:3]
                directions, inner, rank = module.dt_weight.shape
                states = (module.dbc_proj.out_features // directions - rank) // 2
                # its delta is an ordinary product, which is counted as such
                scans.append(Scan(images, height * width, inner, states, directions))

        hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Outputs(TorchDispatchMode):
    """Adds up the numbers that operators of `kinds` give."""

    def __init__(self, kinds: set):
        super().__init__()
        self.kinds, self.numbers = kinds, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        if func._overloadpacket in self.kinds:
            self.numbers += (given[0] if isinstance(given, (tuple, list)) else given).numel()
        return given


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *others: object, **more: object) -> int:
    """Twice the multiply-adds of attention: (B, heads, L, C), (B, heads, S, C), (B, heads, S, V)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


# torch's counter knows the attention of GPUs only
_ON_CPU = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_ALSO = {} if _ON_CPU is None else {_ON_CPU: _attention}
