"""Prompt files: JSON Lines, one object per image.

    {"key": "0001", "prompts": ["remove the noise", "clean it up"], "task": "denoise", "remove": ["noise"],
     "present": ["noise", "jpeg"]}

`key` (the image's path below its root, without extension) and `prompts` are required. `remove` and `present` name kinds
of `prompt_mamba_arch.data.KINDS`. Blank lines are allowed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean, replace_on_success

__all__ = ["PromptEntry", "parse_entry", "read_prompt_file", "write_prompt_file"]


@dataclass(frozen=True)
class PromptEntry:
    """What one line of a prompt file says. None means: not stated."""

    key: str
    prompts: tuple[str, ...]
    task: str | None = None
    remove: tuple[str, ...] | None = None
    present: tuple[str, ...] | None = None

    def to_json(self) -> str:
        """One line, without the fields that are not stated."""
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None}, ensure_ascii=False)


_FIELDS = tuple(PromptEntry.__dataclass_fields__)


def parse_entry(line: str | bytes, where: str) -> PromptEntry:
    """Reads one JSON object.

    Args:
        line: the object's text, UTF-8 if bytes.
        where: file and line, to begin a message with.

    Raises:
        UserError: says what is wrong with it.
    """
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not a JSON object ({error.msg} at column {error.colno})") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: not UTF-8 text") from None
    if not isinstance(fields, Mapping):
        raise UserError(f'{where}: not a JSON object like {{"key": "0001", "prompts": ["remove the noise"]}}')
    check_keys(fields, _FIELDS, where)
    for field in ("key", "prompts"):
        if field not in fields:
            raise UserError(f"{where}: the field '{field}' is missing")
    if not isinstance(fields["key"], str) or not fields["key"].strip():
        raise UserError(f"{where}: key must be a non-empty text, not {fields['key']!r}")
    prompts = fields["prompts"]
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise UserError(f"{where}: prompts must be a list of non-empty texts, not {prompts!r}")
    task = fields.get("task")
    if task is not None and not isinstance(task, str):
        raise UserError(f"{where}: task must be a text, not {task!r}")
    return PromptEntry(
        key=fields["key"],
        prompts=tuple(prompts),
        task=task,
        remove=_kinds(fields.get("remove"), "remove", where),
        present=_kinds(fields.get("present"), "present", where),
    )


def read_prompt_file(path: str | os.PathLike) -> dict[str, PromptEntry]:
    """Key -> entry, in the file's order.

    Raises:
        UserError: the file cannot be read or is empty, or one of its lines is wrong: with the file, the line's number
            and what is wrong there.
    """
    path = os.path.expanduser(os.fspath(path))
    entries: dict[str, PromptEntry] = {}
    lines: dict[str, int] = {}
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # byte order mark of Windows editors
                line = line.strip()
                if not line:
                    continue
                where = f"{path}, line {number}"
                entry = parse_entry(line, where)
                if entry.key in entries:
                    raise UserError(f"{where}: the key '{entry.key}' is there already, in line {lines[entry.key]}")
                entries[entry.key] = entry
                lines[entry.key] = number
    except OSError as error:
        raise UserError(f"cannot read the prompt file {path}: {error.strerror or error}") from None
    if not entries:
        raise UserError(f"the prompt file {path} has no entry")
    return entries


def write_prompt_file(path: str | os.PathLike, entries: Iterable[PromptEntry]) -> int:
    """Writes the file whole or not at all; returns the number of entries.

    Raises:
        UserError: an entry would not be read back (empty prompt, unknown kind), or a key comes twice.
    """
    path = os.path.expanduser(os.fspath(path))
    seen: set[str] = set()
    with replace_on_success(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for number, entry in enumerate(entries, start=1):
            line = entry.to_json()
            parse_entry(line, f"entry {number} for {path}")
            if entry.key in seen:
                raise UserError(f"entry {number} for {path}: the key '{entry.key}' comes twice")
            seen.add(entry.key)
            file.write(line + "\n")
    return len(seen)


def _kinds(value: object, field: str, where: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
        raise UserError(f"{where}: {field} must be a list of kinds ({', '.join(KINDS)}), not {value!r}")
    for kind in value:
        if kind not in KINDS:
            hint = did_you_mean(kind, KINDS) or f"; the kinds are {', '.join(KINDS)}"
            raise UserError(f"{where}: {field} names an unknown kind '{kind}'{hint}")
    return tuple(value)
