"""What constructors of networks share: their arguments as a plain dict, and what to say where a value is impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prompt_mamba_arch.errors import UserError, did_you_mean

__all__ = ["demand", "fill_in", "given", "whole"]


def given(names: Mapping[str, Any]) -> dict[str, Any]:
    """A constructor's arguments, from its `locals()` at the first line; sequences become lists."""
    arguments = {name: value for name, value in names.items() if name not in ("self", "__class__")}
    return {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in arguments.items()}


def fill_in(net: str, arguments: Mapping[str, Any], sizes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arguments without `size`, those that are None taken from the size of that name.

    Raises:
        UserError: no such size.
    """
    arguments = dict(arguments)
    size = arguments.pop("size")
    if size not in sizes:
        raise UserError(f"{net}: unknown size {size!r}: the sizes are {', '.join(sizes)}{did_you_mean(size, sizes)}")
    return {name: sizes[size].get(name) if value is None else value for name, value in arguments.items()}


def demand(possible: bool, net: str, name: str, value: object, what: str) -> None:
    """Raises UserError `NET: NAME must be WHAT, not VALUE` unless that is so."""
    if not possible:
        raise UserError(f"{net}: {name} must be {what}, not {value!r}")


def whole(value: object, least: int = 1) -> bool:
    """Whether it is an integer, and at least so great."""
    return type(value) is int and value >= least
