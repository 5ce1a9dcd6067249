"""Files of networks and training states: whole or not there, of plain types, explained when they do not fit."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prompt_mamba_arch.compat.resume import load_plain
from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.models.two_phase_options import text_parameters

__all__ = ["explain", "mean", "plain", "remove_leftovers", "same_phase", "write"]


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


def mean(states: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The mean of several networks' weights: a uniform model soup (Wortsman et al., ICML 2022). Of numbers that are no
    fractions (counters, indices), the last one's.

    Args:
        states: state dicts of the same names and shapes.
    """
    last = states[-1]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in last.items()
    }


def same_phase(paths: Iterable[str | os.PathLike]) -> str | None:
    """The phase of training that all these files come from, as far as they say so and agree."""
    phases = {load_plain(path, "pretrained network").get("phase") for path in paths}
    return phases.pop() if len(phases) == 1 else None


def explain(error: UserError, net: nn.Module, path: str | os.PathLike, param_key: str | None) -> str:
    """A line that says more than `error` about why a checkpoint does not fit: which text parameters it lacks, or which
    constructor arguments it was saved with."""
    try:
        loaded = load_plain(path, "pretrained network")
    except UserError:
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
