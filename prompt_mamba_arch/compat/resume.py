"""Training states and pretrained networks: found from anywhere, read on any device, refused in one line."""

from __future__ import annotations

import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

import basicsr
import basicsr.train
import torch
from basicsr.models.base_model import BaseModel
from basicsr.utils import check_resume, get_root_logger
from basicsr.utils.dist_util import get_dist_info

from prompt_mamba_arch.errors import UserError, one_line


def load_plain(path: str | os.PathLike, what: str) -> dict:
    """Reads a file of torch.save() on the CPU, tensors and plain types only; of a .safetensors file, as this package
    writes them, `params`, and what it says of `network_g` and `phase`.

    Raises:
        UserError: no such file, truncated, no PyTorch file, or one that would run code. `what` names it in the message.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what}: there is no file {str(path)!r}")
    if path.suffix.lower() == ".safetensors":
        return _load_safetensors(path, what)
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise UserError(f"{what}: {str(path)!r} is empty")
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):  # a zip file's index is at its end
        raise UserError(f"{what}: {str(path)!r} is truncated")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # RuntimeError, UnpicklingError, EOFError, KeyError ...: it depends on the damage
        if start.startswith(b"version https://git-lfs"):
            why = "is a Git LFS pointer; run git lfs pull"
        elif start.startswith((b"PK", b"\x80")) and ("Unsupported" in str(exc) or "GLOBAL" in str(exc)):
            why = "holds other things than tensors and plain values, which could run code"
        else:
            why = f"is damaged or no PyTorch file ({one_line(exc)[:120]})"
        raise UserError(f"{what}: {str(path)!r} {why}") from exc
    if not isinstance(loaded, Mapping):
        raise UserError(f"{what}: {str(path)!r} holds no dictionary")
    return loaded


def _load_safetensors(path: Path, what: str) -> dict:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
        arguments = json.loads(told.get("network_g", "null"))
    except (SafetensorError, OSError, ValueError) as exc:
        raise UserError(f"{what}: {str(path)!r} is damaged ({one_line(exc)[:160]})") from None
    return {"params": state, "network_g": arguments, "phase": told.get("phase")}


def _networks(opt: Mapping, iteration: int) -> list[Path]:
    """The network files that check_resume() will ask for."""
    ignored = opt["path"].get("ignore_resume_networks") or ()
    names = [key[len("network_") :] for key in opt if key.startswith("network_") and key not in ignored]
    return [Path(opt["path"]["models"], f"net_{name}_{iteration}.pth") for name in names]


def _load_state(opt: Mapping, path: Path, what: str) -> dict:
    state = load_plain(path, what)
    if not {"epoch", "iter", "optimizers", "schedulers"} <= set(state):
        raise UserError(f"{what}: {str(path)!r} is no training state")
    for network in _networks(opt, state["iter"]):
        if not network.is_file():
            raise UserError(f"{what}: the network {str(network)!r} that belongs to {path.name} is missing")
        with network.open("rb") as file:
            zipped = file.read(2) == b"PK"
        if zipped and not zipfile.is_zipfile(network):
            raise UserError(f"{what}: the network {str(network)!r} that belongs to {path.name} is truncated")
    return state


def _say(text: str) -> None:
    if get_dist_info()[0] == 0:
        print(text, flush=True)


def _newest_good_state(opt: dict) -> tuple[Path | None, dict | None]:
    folder = Path(opt["path"]["training_states"])
    found = sorted((path for path in folder.glob("*.state") if path.stem.isdigit()), key=lambda p: -int(p.stem))
    for path in found:
        try:
            state = _load_state(opt, path, "--auto_resume")
        except UserError as exc:
            # two processes may look here: one warning is enough
            if get_dist_info()[0] == 0:
                warnings.warn(f"{exc}; trying the state before it", stacklevel=2)
            continue
        return path, state
    if found:
        raise UserError(
            f"--auto_resume: all {len(found)} training states in {folder} are damaged; move that folder away"
        )
    _say(f"--auto_resume: no training state in {folder}")
    return None, None


def mend_load_resume_state() -> None:
    """`--auto_resume` looks below the working directory: elsewhere it finds nothing, renames the real run and starts
    again. Both kinds of resuming need a GPU. A state that was cut short when the run was killed ends in a traceback.

    The states are looked for where the run keeps them; the newest one that is whole is taken.
    """

    def load_resume_state(opt: dict) -> dict | None:
        path = state = None
        if opt["auto_resume"]:
            path, state = _newest_good_state(opt)
        if state is None and opt["path"].get("resume_state"):
            path = Path(opt["path"]["resume_state"])
            state = _load_state(opt, path, "path.resume_state")
        if state is None:
            return None
        opt["path"]["resume_state"] = str(path)
        check_resume(opt, state["iter"])
        return state

    basicsr.load_resume_state = basicsr.train.load_resume_state = load_resume_state


_MISFIT = re.compile(r"(Missing|Unexpected) key\(s\) in state_dict: (.*?)\. ?$|size mismatch for ([^:\s]+)", re.M)


def _misfits(message: str) -> str:
    """load_state_dict's pages as `3 keys missing (first 'a'), 2 sizes differ (first 'b')`."""
    parts, sizes = [], []
    for kind, keys, size in _MISFIT.findall(message):
        if size:
            sizes.append(size)
        else:
            names = re.findall(r'"([^"]+)"', keys)
            parts.append(
                f"{len(names)} {'keys are missing' if kind == 'Missing' else 'keys are unknown'} ({names[0]} first)"
            )
    if sizes:
        parts.append(f"{len(sizes)} sizes differ ({sizes[0]} first)")
    return ", ".join(parts) or one_line(message)[:160]


def mend_load_network() -> None:
    """A truncated file, a missing param_key or a checkpoint of another network end in a traceback, the last in pages of
    keys; before torch 2.6 a checkpoint may run code. A .safetensors file is none that torch reads."""

    def load_network(
        self: BaseModel, net: torch.nn.Module, load_path: str, strict: bool = True, param_key: str | None = "params"
    ) -> None:
        loaded = load_plain(load_path, "pretrained network")
        if Path(load_path).suffix.lower() == ".safetensors":  # it holds one network's weights, under no key
            param_key = "params"
        if param_key is not None and param_key not in loaded:
            if "params" not in loaded:
                keys = ", ".join(str(key) for key in list(loaded)[:4])
                raise UserError(
                    f"pretrained network: {str(load_path)!r} has no {param_key!r}, it has {keys}; set path.param_key_g "
                    "to one of these, or to ~ if they are the weights themselves"
                )
            get_root_logger().info(f"{load_path} has no {param_key}; params are taken.")
            param_key = "params"
        state = loaded if param_key is None else loaded[param_key]
        if not isinstance(state, MutableMapping):
            raise UserError(f"pretrained network: {str(load_path)!r} holds no weights under {param_key!r}")
        net = self.get_bare_model(net)
        get_root_logger().info(f"Loading {type(net).__name__} model from {load_path}, with param key: [{param_key}].")
        for key in [key for key in state if key.startswith("module.")]:
            state[key[len("module.") :]] = state.pop(key)
        self._print_different_keys_loading(net, state, strict)
        try:
            net.load_state_dict(state, strict=strict)
        except RuntimeError as exc:
            if "state_dict" not in str(exc):
                raise
            raise UserError(
                f"pretrained network: {str(load_path)!r} does not fit {type(net).__name__}: {_misfits(str(exc))}"
            ) from exc

    BaseModel.load_network = load_network


MENDS = (mend_load_resume_state, mend_load_network)
