"""The YAML keys that BasicSR itself reads from, or writes into, a dataset section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prompt_mamba_arch.errors import UserError, check_keys

__all__ = ["GENERAL_KEYS", "check_dataset_keys", "is_training", "option"]

GENERAL_KEYS = (
    "name",
    "type",
    "phase",  # written by BasicSR: train, val or test
    "scale",  # copied by BasicSR from the top of the YAML
    "io_backend",
    "use_shuffle",
    "num_worker_per_gpu",
    "batch_size_per_gpu",
    "dataset_enlarge_ratio",
    "prefetch_mode",
    "num_prefetch_queue",
    "pin_memory",
    "persistent_workers",
)


def check_dataset_keys(opt: Mapping, own_keys: Iterable[str]) -> None:
    """Raises UserError for a key that neither BasicSR nor the dataset reads, naming the nearest one that is read."""
    check_keys(opt, (*GENERAL_KEYS, *own_keys), f"dataset {opt.get('name', opt.get('type', ''))}".rstrip())


def is_training(opt: Mapping) -> bool:
    """True in the train section; "val" and "test" draw nothing at random."""
    return opt.get("phase", "train") == "train"


def option(opt: Mapping, key: str, kind: type, *, default=None, required: bool = False, minimum: int | None = None):
    """`opt[key]` after a check of its type, for a readable message.

    Raises:
        UserError: it is required and absent, or not of type `kind`, or below `minimum`.
    """
    value = opt.get(key)
    where = f"dataset {opt.get('name', opt.get('type', ''))}".rstrip()
    if value is None:
        if required:
            raise UserError(f"{where}: the key '{key}' is missing")
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", bool: "true or false", str: "text", float: "a number", list: "a list"}
        raise UserError(f"{where}: {key} must be {names.get(kind, kind.__name__)}, not {value!r}")
    if minimum is not None and value < minimum:
        raise UserError(f"{where}: {key} must be at least {minimum}, not {value}")
    return value
