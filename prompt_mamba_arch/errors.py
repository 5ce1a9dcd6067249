"""Mistakes of the person at the keyboard: how the package says them, in one plain line. Standard library only."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

__all__ = ["UserError", "check_keys", "check_number", "did_you_mean", "plain_line", "replace_on_success"]


class UserError(Exception):
    """What is wrong, where (file, key, image) and what to do, in one line. Launchers print it without a traceback."""


def did_you_mean(name: object, valid: Iterable[object]) -> str:
    """`"; did you mean 'X'?"` with the valid name nearest to `name`, or an empty string when none is near."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_keys(section: Mapping, allowed: Iterable[str], where: str) -> None:
    """Refuses a misspelt option instead of ignoring it.

    Args:
        section: the mapping that the option file holds at `where`.
        allowed: every key that is understood there.
        where: the section's name as the option file spells it, for example `datasets.train`.

    Raises:
        UserError: names the first unknown key and the nearest valid one (or all valid ones when none is near).
    """
    if not isinstance(section, Mapping):
        raise UserError(f"{where} must be a section of keys and values, not {section!r}")
    allowed = list(allowed)
    for key in section:
        if key not in allowed:
            hint = did_you_mean(key, allowed) or (
                f"; valid keys are {', '.join(sorted(allowed))}" if allowed else "; it has none to be set"
            )
            raise UserError(f"unknown key {key!r} in {where}{hint}")


def check_number(
    section: Mapping,
    key: str,
    least: float,
    most: float = float("inf"),
    *,
    where: str,
    whole: bool = False,
    above: bool = False,
    below: bool = False,
) -> None:
    """A number from `least` to `most`; `above`, `below`: without the end itself. None is allowed: it means absent.

    Raises:
        UserError: it is none, or too small or large.
    """
    value = section.get(key)
    if value is None:
        return
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
    good = good and (not whole or float(value).is_integer())  # BasicSR's option files write 4e5 iterations
    if not good or (above and value == least) or (below and value == most):
        start = "" if least == float("-inf") else f" {'greater than' if above else 'from'} {least}"
        end = "" if most == float("inf") else f" and less than {most}" if below else f" to {most}"
        number = "whole number" if whole else "number"
        name = f"{where}.{key}" if where else key
        raise UserError(f"{name} must be a {number}{start}{end}, not {value!r}")


def one_line(text: object) -> str:
    """The text with every run of white space, line breaks too, as one blank."""
    return " ".join(str(text).split())


# A DataLoader worker's exception comes back as the same type with its traceback pasted into the message; what was said
# originally is the last line (or lines) of that, after the class's name.
_FROM_WORKER = re.compile(
    r"\ACaught \w+ in .*?^Original Traceback.*^(?:[\w.]+\.)?(\w+(?:Error|Exception)): (.*)\Z", re.S | re.M
)


def plain_line(exc: BaseException) -> str | None:
    """The one line to print for an exception that is the user's to mend, else None (then it is a bug: show it whole).

    The user's are UserError, and errors of the operating system that name a file or say that the disk is full.
    Both are recognised also when a DataLoader worker raised them and the parent re-raised them with a traceback inside.
    """
    text = str(exc)
    from_worker = _FROM_WORKER.match(text)
    if isinstance(exc, UserError):
        return one_line(from_worker.group(2) if from_worker else text)
    if isinstance(exc, OSError):
        if from_worker:
            return one_line(re.sub(r"^\[Errno \d+\] ", "", from_worker.group(2)))
        if exc.filename is not None:
            return one_line(f"{exc.strerror}: {os.fspath(exc.filename)!r}" if exc.strerror else text)
        if exc.errno is not None and exc.strerror and not isinstance(exc, ConnectionError):
            return one_line(exc.strerror)
    return None


@contextlib.contextmanager
def replace_on_success(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; it takes that name when the block ends well and vanishes when it does not.

    So a file is either the old one or the whole new one, whatever interrupts the writing. The temporary name keeps the
    suffix (writers pick the format by it) and starts with a dot (folder scans skip it).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
