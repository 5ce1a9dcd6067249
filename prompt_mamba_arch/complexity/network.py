"""Any network by what a person writes for it: a name, a checkpoint, an option file, or its arguments."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from prompt_mamba_arch.checkpoint_files import build_network, load_network, shipped_models
from prompt_mamba_arch.compat.options import OptionLoader, read_option_file
from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.peers import like_type
from prompt_mamba_arch.restore import Restorer

__all__ = ["label_of", "open_network"]

_OPTION_FILES = (".yml", ".yaml")


def open_network(spec: str, device: str | torch.device = "auto", *, tell=warnings.warn) -> Restorer:
    """The network, ready to run.

    Args:
        spec: a shipped network's name; a checkpoint or a run's folder; an option file, whose `network_g` is built, with
            the weights of `path.pretrain_network_g` if it names some; a registered architecture's name (`SwinIR`); or
            its arguments as YAML, `"{type: SwinIR, upscale: 4, window_size: 8}"`.
        device: as `Restorer.from_pretrained` takes it.
        tell: called with a line where the weights are those of a network that has learned nothing.

    Raises:
        UserError: none of these, or a network that does not make one RGB image of another.
    """
    from basicsr.utils.registry import ARCH_REGISTRY

    spec = str(spec)
    if spec.lstrip().startswith("{"):
        return _untrained(_inline(spec), "network", spec, device, tell)
    if spec not in shipped_models() and not Path(spec).expanduser().exists() and spec in ARCH_REGISTRY:
        return _untrained({"type": spec}, f"network {spec}", spec, device, tell)
    if Path(spec).name == spec and not Path(spec).suffix and not Path(spec).exists():
        known = [*shipped_models(), *ARCH_REGISTRY.keys()]
        if spec not in known and (meant := like_type(spec, known)):
            raise UserError(f"no network named {spec!r} is shipped or registered{meant}")
    if not spec.lower().endswith(_OPTION_FILES):
        return Restorer.from_pretrained(spec, device)
    options = read_option_file(spec)
    network = options.get("network_g")
    if not isinstance(network, Mapping) or not isinstance(network.get("type"), str):
        raise UserError(f"network_g in {spec!r} must be a section that holds the network's type and arguments")
    weights = (options.get("path") or {}).get("pretrain_network_g")
    if weights is None:
        return _untrained(network, f"network_g in {spec!r}", spec, device, tell)
    if isinstance(weights, list):  # whose mean is tested; it costs what each of them does
        weights = weights[0]
    net, phase = load_network(weights, network)
    return Restorer(net, name=spec, device=device, phase=phase)


def label_of(spec: str) -> str:
    """A short name: the file's, or the architecture's."""
    if spec.lstrip().startswith("{"):
        found = _inline(spec)
        return str(found.get("arch") or found["type"])  # of SpandrelArch
    path = Path(spec)
    return path.stem if path.suffix.lower() in (*_OPTION_FILES, ".pth", ".safetensors") else path.name or spec


def _inline(spec: str) -> Mapping[str, Any]:
    try:
        found = yaml.load(spec, Loader=OptionLoader)
    except yaml.YAMLError as error:
        raise UserError(
            f"network {spec!r} is not YAML ({one_line(getattr(error, 'problem', None) or error)})"
        ) from None
    if not isinstance(found, Mapping) or not isinstance(found.get("type"), str):
        raise UserError(f"network {spec!r} must name its type: {{type: SwinIR, upscale: 4}}")
    return found


def _untrained(arguments: Mapping[str, Any], where: str, name: str, device, tell) -> Restorer:
    tell(f"{name} names no weights; the network has learned nothing")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same network each time
        net = build_network(arguments, where)
    return Restorer(net, name=name, device=device)
