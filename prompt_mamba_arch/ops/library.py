"""Finds and loads the C++ kernels: one shared library of plain C functions beside this file, independent of Python's
and torch's versions. `why_not` says why they are not used, where they are not."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

__all__ = ["LIBRARY", "Missing", "kernels", "load", "why_not"]

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
LIBRARY = Path(__file__).resolve().parent / f"_scan{_SUFFIX}"
INTERFACE = 2  # the same number as in csrc/api.cpp


class Missing(Exception):
    """Why there are no kernels."""


def load() -> ctypes.CDLL:
    """Raises Missing."""
    if os.environ.get("PROMPT_MAMBA_NO_KERNELS", "0") not in ("", "0"):
        raise Missing("PROMPT_MAMBA_NO_KERNELS is set")
    if not hasattr(torch.library, "register_autograd"):
        raise Missing(f"they need torch 2.4, this is {torch.__version__}")
    if not LIBRARY.exists():
        raise Missing(
            "they were not built: install a C++ compiler and this package again, or, in a clone, run "
            "python setup.py build_ext --inplace"
        )
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise Missing(f"{LIBRARY.name} cannot be loaded: {error}") from error
    try:
        found = library.pm_scan_interface()
        library.pm_scan_instruction_set.restype = ctypes.c_char_p
        library.pm_scan_use_instruction_set.argtypes = [ctypes.c_char_p]
        library.pm_scan_multiply_adds.argtypes = [ctypes.c_int64]
        library.pm_scan_multiply_adds.restype = ctypes.c_int64
        library.pm_scan_forward.restype = library.pm_scan_backward.restype = ctypes.c_int
    except AttributeError:  # a function that is not there
        found = None
    if found != INTERFACE:
        raise Missing(f"{LIBRARY.name} was built from other sources: run python setup.py build_ext --inplace --force")
    wanted = os.environ.get("PROMPT_MAMBA_INSTRUCTION_SET", "")  # for measurements
    if not library.pm_scan_use_instruction_set(wanted.encode()):
        raise Missing(f"PROMPT_MAMBA_INSTRUCTION_SET: there is no {wanted!r} here")
    return library


try:
    kernels: ctypes.CDLL | None = load()
    why_not: str | None = None
except Missing as reason:
    kernels, why_not = None, f"the C++ kernels are not used: {reason}"
