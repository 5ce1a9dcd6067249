"""Files that hold a trained network: where they are, what is in them, and the network they belong to."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import prompt_mamba_arch  # noqa: F401  registers the networks
from prompt_mamba_arch.compat.options import read_option_file
from prompt_mamba_arch.compat.resume import load_plain
from prompt_mamba_arch.errors import UserError, check_keys, one_line
from prompt_mamba_arch.peers import like_type
from prompt_mamba_arch.recognise import recognise, without_prefix
from prompt_mamba_arch.weights import shipped_file, shipped_models

__all__ = ["build_network", "load_network", "shipped_models"]

_IN_FOLDERS = (".safetensors", ".pth")
_SUFFIXES = (*_IN_FOLDERS, ".pt", ".ckpt")
# under which key releases keep the weights, if not at the top
_WEIGHT_KEYS = ("params_ema", "params", "state_dict")
_LATEST = "net_g_latest.pth"  # how BasicSR calls a run's last network


def load_network(
    name_or_path: str | os.PathLike, config: Mapping[str, Any] | str | os.PathLike | None = None
) -> tuple[torch.nn.Module, str | None]:
    """Builds a network as its file says, on the CPU. Arguments and errors as `Restorer.from_pretrained`.

    A file that does not say which network it holds, as official releases do not, is recognised from its weights: those
    of this package's networks, and of spandrel's where that library is installed.

    Returns:
        The network, and the training's phase that it comes from if the file says so.
    """
    path = _find(name_or_path)
    given = None if config is None else _given_arguments(config)
    state, arguments, phase = _load(path)
    if given is None and arguments is None:
        state, head = _with_language_head(path, state)
        arguments = recognise(state)
        if arguments is not None:
            arguments.update(head)
        elif (net := _of_spandrel(state)) is not None:
            return net, phase
    return _build(path, state, given or _arguments(path, arguments)), phase


def _find(name_or_path: str | os.PathLike) -> Path:
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if (shipped := shipped_file(name)) is not None:  # a folder that happens to have the name is ./name
        return shipped
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise UserError(f"network {str(path)!r} must be a .pth, .pt, .ckpt or .safetensors file")
        return path
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in _IN_FOLDERS and not p.name.startswith("."))
        if path / _LATEST in found:  # a run's folder of networks
            return path / _LATEST
        if len(found) != 1:
            names = ", ".join(p.name for p in found[:4]) or "none"
            raise UserError(f"the folder {str(path)!r} must hold one .pth or .safetensors file, it has {names}")
        return found[0]
    if path.suffix.lower() in _SUFFIXES or path.name != name:
        raise UserError(f"no such network file: {name!r}")
    have = ", ".join(shipped_models())
    raise UserError(
        f"no network named {name!r} is shipped"
        + (f" (there are: {have})" if have else " with this version")
        + "; train one with prompt-mamba train and give its net_g_latest.pth as --model"
    )


def _load(path: Path) -> tuple[Mapping, object, str | None]:
    loaded = load_plain(path, "network")
    key = next((key for key in _WEIGHT_KEYS if key in loaded), None)
    state = loaded if key is None else loaded[key]
    tensors = isinstance(state, Mapping) and state and all(isinstance(value, torch.Tensor) for value in state.values())
    if key is None and not tensors:
        raise UserError(f"network: {str(path)!r} has no weights under {', '.join(map(repr, _WEIGHT_KEYS))}")
    if not isinstance(state, Mapping):
        raise UserError(f"network: {str(path)!r} has no weights under {key!r}")
    return without_prefix(state), loaded.get("network_g") if key else None, loaded.get("phase") if key else None


def _arguments(path: Path, arguments: object) -> Mapping[str, Any]:
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("type"), str):
        raise UserError(
            f"network: {str(path)!r} does not say which network it belongs to; name the option file that trained it "
            "(--opt FILE.yml, in Python config=), whose network_g says so"
        )
    return arguments


def _given_arguments(config: Mapping[str, Any] | str | os.PathLike) -> Mapping[str, Any]:
    """`network_g` of an option file, or the mapping itself."""
    where = "config"
    if not isinstance(config, Mapping):
        where = f"network_g in {str(config)!r}"
        config = read_option_file(config).get("network_g")
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
        raise UserError(f"{where} must be a section that holds the network's type and arguments")
    return config


def _with_language_head(path: Path, state: Mapping) -> tuple[Mapping, dict[str, Any]]:
    """InstructIR's release is two files, im_NAME and lm_NAME: the weights of both if the second is beside the first,
    and what neither says."""
    head = path.with_name(f"lm_{path.name[3:]}")
    if not (path.name.startswith("im_") and "enc_cond.0.fc.weight" in state and head.is_file()):
        return state, {}
    from prompt_mamba_arch.archs.instructir_arch import RELEASED_ENCODER, InstructIR

    return InstructIR.join(dict(state), dict(_load(head)[0])), {"text_encoder": RELEASED_ENCODER}


def _of_spandrel(state: Mapping) -> torch.nn.Module | None:
    """The network, with its weights, if spandrel is installed and knows it."""
    if importlib.util.find_spec("spandrel") is None:
        return None
    from prompt_mamba_arch import peers
    from prompt_mamba_arch.archs.spandrel_arch import SpandrelArch

    found = peers.recognise(state)
    return None if found is None else SpandrelArch.of(found)


def _build(path: Path, state: Mapping, arguments: Mapping[str, Any]) -> torch.nn.Module:
    net = build_network(arguments, f"network: {str(path)!r}")
    _load_weights(net, state, path)
    return net


def build_network(arguments: Mapping[str, Any], where: str = "network") -> torch.nn.Module:
    """The network of `type` and constructor's arguments, any that is registered, with the weights of its start.

    Raises:
        UserError: no such network, or arguments that it does not take.
    """
    from basicsr.utils.registry import ARCH_REGISTRY

    arguments = dict(arguments)
    kind = arguments.pop("type")
    if kind not in ARCH_REGISTRY:
        raise UserError(
            f"{where} holds a {kind}, which no installed package registers{like_type(kind, ARCH_REGISTRY.keys())}"
        )
    arch = ARCH_REGISTRY.get(kind)
    known = inspect.signature(arch).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known.values()):
        check_keys(arguments, known, f"the {kind} of {where}")
    try:
        return arch(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} has arguments that no {kind} takes ({one_line(error)[:160]})") from error


def _load_weights(net: torch.nn.Module, state: Mapping, path: Path) -> None:
    """Gives the network the weights of a file.

    Raises:
        UserError: they do not fit.
    """
    try:
        # half-precision files are computed with in float32
        net.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
    except (RuntimeError, AttributeError) as error:  # AttributeError: a value is no tensor
        kind = type(net).__name__
        raise UserError(f"network: {str(path)!r} does not fit its {kind} ({one_line(error)[:160]})") from None
