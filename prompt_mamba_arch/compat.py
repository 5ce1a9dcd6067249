"""The only file that knows BasicSR's faults; nothing else monkey-patches."""

from __future__ import annotations

import importlib
import sys
import types


def _alias(name: str, **attributes: object) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules[name] = module


def apply() -> None:
    from torchvision.transforms.functional import rgb_to_grayscale

    _alias("torchvision.transforms.functional_tensor", rgb_to_grayscale=rgb_to_grayscale)
