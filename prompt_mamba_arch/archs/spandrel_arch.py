"""Any architecture of the library spandrel as a network of an option file."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch import peers
from prompt_mamba_arch.errors import UserError, one_line

__all__ = ["SpandrelArch"]


@ARCH_REGISTRY.register()
class SpandrelArch(nn.Module):
    """A network of spandrel: SwinIR, HAT, GRL, NAFNet, SCUNet, DRUNet and some forty more; see `peers.arch_names`.

        network_g: {type: SpandrelArch, arch: SwinIR, upscale: 4, window_size: 8, ...}  # its constructor's arguments
        network_g: {type: SpandrelArch, path: official.pth}  # weights and arguments of a file

    State dicts have the network's own keys, so official files are also `path.pretrain_network_g`, and what training
    saves is read by other programs. Images of any size are padded to what the network requires and cut back.

    Args:
        arch: the architecture's name; may be left out with `path`.
        path: an official checkpoint, from which arguments and weights are read. (The one network that reads a file:
            which network it is stands in there.)
        arguments: the architecture's own.

    Raises:
        UserError: spandrel is not installed, no such architecture, argument or file.
    """

    config: dict[str, Any]
    """`arch` and arguments, as far as they are plain: `SpandrelArch(**net.config)` builds such a network again."""

    has_text = False
    floats_per_pixel = 4000.0
    """What a pass may hold for each pixel at its peak: more than Restormer's 2700 numbers."""

    def __init__(self, *, arch: str | None = None, path: str | os.PathLike | None = None, **arguments: Any):
        super().__init__()
        if (arch is None) == (path is None) and not path:
            raise UserError("network_g (SpandrelArch) needs 'arch', the architecture's name, or 'path', a checkpoint")
        if path is None:
            self.net, descriptor = peers.build(arch, arguments)
            self.config = {"arch": arch, **arguments}
        else:
            descriptor = peers.read_checkpoint(path)
            self.net, self.config = descriptor.model, peers.describe(descriptor)
            self._check_given(arch, arguments, path)
        self._describe(descriptor)
        if path is None:
            self._try_once(descriptor.input_channels)

    @classmethod
    def of(cls, descriptor) -> SpandrelArch:
        """The network that `peers.recognise` found."""
        net = cls.__new__(cls)
        nn.Module.__init__(net)
        net.net, net.config = descriptor.model, peers.describe(descriptor)
        net._describe(descriptor)
        return net

    def _describe(self, descriptor) -> None:
        self.net.requires_grad_(True)
        self.upscale: int = descriptor.scale
        self.requirements = descriptor.size_requirements
        self.size_multiple: int = self.requirements.multiple_of
        # how spandrel calls it: some networks take a map of the noise, or return more than the image
        self.call = getattr(descriptor, "_call_fn", None) or (lambda net, x: net(x))
        self.calls_plainly = getattr(self.call, "__module__", "").endswith("model_descriptor")
        self.train()

    def _try_once(self, channels: int) -> None:
        """Some arguments that do not go together are only found by passing an image through."""
        side = max(sum(self.requirements.get_padding(1, 1)) // 2 + 1, 16)
        if side > 64:
            return  # takes long
        try:
            with torch.no_grad():
                self.eval().forward(torch.zeros(1, channels, side, side))
        except Exception as error:  # whatever a foreign network makes of it
            raise UserError(
                f"network_g (SpandrelArch, arch {self.config['arch']}): these arguments do not go together "
                f"({one_line(error)[:160]})"
            ) from error
        self.train()

    def _check_given(self, arch: str | None, arguments: dict, path: str | os.PathLike) -> None:
        """What is given beside a path must agree with the file."""
        if arch is not None and arch.lower() != self.config["arch"].lower():
            raise UserError(f"network: {str(path)!r} holds a {self.config['arch']}, not a {arch}")
        for name, value in arguments.items():
            if name not in self.config or self.config[name] != value:
                found = (
                    f"the file has {self.config[name]!r}" if name in self.config else "the file has no such argument"
                )
                raise UserError(f"network_g (SpandrelArch): {name} is {value!r}, and {found}; leave it out")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, H, W) in [0, 1], any H and W from 1 -> (B, channels, H * upscale, W * upscale), unclamped."""
        height, width = x.shape[-2:]
        right, below = self.requirements.get_padding(width, height)
        x = _mirror(x, right, below)
        if self.calls_plainly:
            y = self.net(x)
        else:  # spandrel's own ways are for one image
            y = torch.cat([self.call(self.net, image) for image in x.split(1)])
        return y[..., : height * self.upscale, : width * self.upscale]

    def state_dict(self, *args, destination=None, prefix="", keep_vars=False):
        return self.net.state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)

    def _load_from_state_dict(self, state_dict, prefix, *others) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:
            state_dict[f"{prefix}net.{key[len(prefix) :]}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *others)


def _mirror(x: torch.Tensor, right: int, below: int) -> torch.Tensor:
    """Pads on the right and below by mirroring, and by repeating the border where nothing is left to mirror."""
    for dim, missing in ((-1, right), (-2, below)):
        mirrored = min(missing, x.shape[dim] - 1)
        for count, mode in ((mirrored, "reflect"), (missing - mirrored, "replicate")):
            if count:
                x = F.pad(x, (0, count, 0, 0) if dim == -1 else (0, 0, 0, count), mode=mode)
    return x
