"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
import re

__all__ = ["Mistake", "Parser", "at_least_one", "count", "filled", "port", "prompt", "share", "strength", "tile"]

MIN_TILE = 64  # that of prompt_mamba_arch.restore


class Mistake(Exception):
    """In the arguments; the text is the line to print."""


class Parser(argparse.ArgumentParser):
    """Mistakes end in one line and exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"prompt-mamba: {' '.join(message.split())} (see {self.prog} --help)\n")


def filled(text: str) -> str:
    """A file or folder; an empty text, as of a variable that is not set, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or folder, and is empty")
    return text


def strength(text: str) -> float:
    """0 to 2."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 2, not {text!r}")
    return value


def tile(text: str) -> str | int:
    """auto, none or pixels."""
    if text in ("auto", "none"):
        return text
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < MIN_TILE:
        raise argparse.ArgumentTypeError(f"must be auto, none or a number of pixels from {MIN_TILE} on, not {text!r}")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)


def at_least_one(text: str) -> float:
    """A number from 1 to a million."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 1e6:
        raise argparse.ArgumentTypeError(f"must be a number from 1 on, not {text!r}")
    return value


def port(text: str) -> int:
    """0 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535, not {text!r}")
    return int(text)


def prompt(text: str) -> str:
    """With a question mark for each byte that is no text."""
    return text.encode("utf-8", "replace").decode()


def share(text: str) -> str:
    """all, or I/N with I from 1 to N."""
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if text != "all" and (parts is None or not 1 <= int(parts[1]) <= int(parts[2])):
        raise argparse.ArgumentTypeError(f"must be all, or such as 2/4 for the second of four, not {text!r}")
    return text
