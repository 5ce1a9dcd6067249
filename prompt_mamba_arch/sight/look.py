"""What is wrong with a photograph, for whoever does not say it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.sight.network import SightNetwork, as_input, views
from prompt_mamba_arch.text.wish import WISHES, Wish

__all__ = ["load_network", "see", "what_is_wrong"]

_FILE = Path(__file__).with_name("sight.safetensors")


def see(image: np.ndarray) -> dict[str, float]:
    """How likely each kind is in a photograph.

    Args:
        image: (H, W, 3) RGB, uint8, uint16, or float32 in [0, 1]; of any size.

    Raises:
        UserError: the network's file is missing or damaged.
    """
    patches, whole = views(image)
    with torch.inference_mode():
        logits = _shipped()(as_input(patches[None]), as_input(whole[None]))
    return dict(zip(WISHES, logits[0].sigmoid().tolist()))


def what_is_wrong(seen: Mapping[str, float]) -> Wish:
    """That what is probably there, as `see` says, shall go; `Wish()`, whatever is wrong, where nothing is."""
    return Wish(frozenset(kind for kind, likely in seen.items() if likely >= 0.5) or None)


def load_network(path: str | Path) -> SightNetwork:
    """A network from a file that scripts/train_sight.py wrote, for evaluation.

    Raises:
        UserError: no such file, a damaged one, or one of another network.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            state = {name: file.get_tensor(name).float() for name in file.keys()}
        network = SightNetwork(**config)
        network.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{str(path)!r} is no network that sees what is wrong ({one_line(error)[:160]})") from None
    return network.eval().requires_grad_(False)


@functools.lru_cache(maxsize=1)
def _shipped() -> SightNetwork:
    return load_network(_FILE)
