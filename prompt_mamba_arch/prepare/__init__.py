"""Turns downloaded datasets into what an option file points at: `prompt-mamba prepare`.

A dataset is a description in `datasets/`: where its files lie, how many are published, what they are for. `engine`
prepares any of them.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

from prompt_mamba_arch.errors import UserError, did_you_mean
from prompt_mamba_arch.prepare import datasets
from prompt_mamba_arch.prepare.engine import Prepared, prepare
from prompt_mamba_arch.prepare.spec import Crop, Dataset, Layout, Subset

__all__ = ["Crop", "Dataset", "Layout", "Prepared", "Subset", "dataset", "dataset_names", "prepare"]


def dataset_names() -> list[str]:
    """What `dataset` knows, sorted."""
    return sorted(name.replace("_", "-") for _, name, _ in pkgutil.iter_modules(datasets.__path__))


def dataset(name: str) -> Dataset:
    """The description of that name; capitals, blanks and underscores make no difference.

    Raises:
        UserError: there is none.
    """
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    names = dataset_names()
    if plain not in names:
        hint = did_you_mean(plain, names) or f"; there are {', '.join(names)}"
        raise UserError(f"no dataset {name!r}{hint}")
    return importlib.import_module(f"{datasets.__name__}.{plain.replace('-', '_')}").DATASET
