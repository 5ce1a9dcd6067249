"""Files of networks and training states: whole or not there, of plain types, explained when they do not fit."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.models.two_phase_options import text_parameters

__all__ = ["explain", "plain", "remove_leftovers", "write"]


def plain(value: Any) -> Any:
    """The same value of plain types only, so that `torch.load(weights_only=True)` reads it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def write(content: dict, path: Path) -> None:
    """Saves `content`. Whenever the process or the machine stops, `path` is the old file or the whole new one.

    Raises:
        OSError: the disk is full, or the like; the old file is as it was.
    """
    with replace_on_success(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def remove_leftovers(*folders: str | os.PathLike) -> None:
    """Removes what `write` could not, as the process was killed in the middle of it."""
    for folder in folders:
        for file in Path(folder).glob(".*"):
            if re.fullmatch(r"\.(net_\w+|\d+)\.\d+-[0-9a-f]{8}\.(pth|state)", file.name):
                with contextlib.suppress(FileNotFoundError):
                    file.unlink()


def explain(error: UserError, net: nn.Module, path: str | os.PathLike, param_key: str | None) -> str:
    """A line that says more than `error` about why a checkpoint does not fit: which text parameters it lacks, or which
    constructor arguments it was saved with."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return str(error)
    arguments, config = loaded.get("network_g"), getattr(net, "config", None)
    if isinstance(arguments, Mapping) and config:
        ours = {"type": type(net).__name__, **plain(config)}
        differs = [key for key in ours if key in arguments and arguments[key] != ours[key]]
        if differs:
            told = ", ".join(f"{key} {arguments[key]!r} (here {ours[key]!r})" for key in differs)
            return f"pretrained network: {str(path)!r} is a network of other arguments: {told}"
    weights = loaded.get(param_key, loaded.get("params", loaded)) if param_key else loaded
    here = net.state_dict()
    there = {key[len("module.") :] if key.startswith("module.") else key for key in weights}
    missing = [key for key in here if key not in there]
    if missing and set(missing) <= text_parameters(net) and there <= set(here):
        return (
            f"pretrained network: {str(path)!r} has none of the {len(missing)} text parameters {', '.join(missing)}; "
            "to start with a text path that is neutral write path.strict_load_g: false"
        )
    return str(error)
