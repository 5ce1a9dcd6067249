"""What a run has found out about the images of a subset, so that the next one need not look again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prepare.images import Shape
from prompt_mamba_arch.prepare.tree import Stamp

__all__ = ["Record", "State"]


@dataclass(frozen=True)
class Record:
    """One image (or pair).

    Attributes:
        key: its name in the prepared folder.
        files: role -> path below the source, and its stamp.
        shapes: role -> size; empty if there is a problem.
        problem: why it is left out, or "".
    """

    key: str
    files: Mapping[str, tuple[str, Stamp]]
    shapes: Mapping[str, Shape]
    problem: str = ""

    def to_json(self) -> str:
        return json.dumps(
            {
                "key": self.key,
                "files": {role: [path, *stamp] for role, (path, stamp) in self.files.items()},
                "shapes": {role: list(shape) for role, shape in self.shapes.items()},
                "problem": self.problem,
            }
        )


class State:
    """Records on disk, JSON Lines, the first line for the settings. A line that was cut off is written again.

    Attributes:
        records: key -> the newest record.
        source: where the files lay when the file was written last.

    Raises:
        UserError: it is of a run with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], source: Path):
        self.path = path
        self.records: dict[str, Record] = {}
        self.source: str | None = None
        self._file = None
        self._settings = {**settings}
        self._wanted_source = str(source)
        if path.exists():
            self._read()

    def _read(self) -> None:
        whole = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file):
                try:
                    fields = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                if number == 0 or "settings" in fields:
                    if fields.get("settings") != self._settings:
                        raise UserError(
                            f"{self.path.parent.parent} was prepared with other settings ({fields.get('settings')}, "
                            f"now {self._settings}); use those, or another --out"
                        )
                    self.source = fields["source"]
                    continue
                files = {role: (path, Stamp(*stamp)) for role, (path, *stamp) in fields["files"].items()}
                shapes = {role: Shape(*shape) for role, shape in fields["shapes"].items()}
                self.records[fields["key"]] = Record(fields["key"], files, shapes, fields["problem"])
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def add(self, record: Record) -> None:
        self._line(record.to_json())
        self.records[record.key] = record

    def forget(self, key: str) -> None:
        """Not on disk: what is not in the source any more is not asked for."""
        self.records.pop(key, None)

    def settle(self) -> None:
        """Notes where the source lies now."""
        if self.source != self._wanted_source:
            self._line(None)

    def _line(self, text: str | None) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a", encoding="utf-8")
            if self.source != self._wanted_source:
                head = {"settings": self._settings, "source": self._wanted_source}
                self._file.write(json.dumps(head) + "\n")
                self.source = self._wanted_source
        if text is not None:
            self._file.write(text + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
