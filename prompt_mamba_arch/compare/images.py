"""The pictures of a comparison at full size, laid as `prompt-mamba study serve` takes them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from prompt_mamba_arch.compare.methods import INPUT
from prompt_mamba_arch.compare.run import Comparison
from prompt_mamba_arch.data.prompt_file import PromptEntry, write_prompt_file
from prompt_mamba_arch.errors import replace_on_success

__all__ = ["write_images"]

_INPUTS, _TARGETS, _PROMPTS = "inputs", "targets", "prompts.jsonl"  # see `study.Materials`
_LIST = ".pictures.json"


def write_images(found: Comparison, folder: Path) -> None:
    """Makes the folder hold METHOD/TASK_IMAGE.png, inputs/TASK_IMAGE.png and prompts.jsonl.

    What lies there and is the same stays as it is, so a study of these pictures goes on after another run. What an
    earlier run has put there and this one does not have is deleted, and nothing else. The pictures are copies: who
    edits one does not change what later runs measure.

    A task's sentence is in prompts.jsonl if those of its methods that read sentences were given the same one.
    """
    methods = {INPUT: _INPUTS, **_plain_names(found.plan.methods, (_INPUTS, _TARGETS))}
    images = _plain_names(found.files, ())
    wanted = {
        f"{methods[method]}/{images[image]}.png": file
        for image, files in found.files.items()
        for method, file in files.items()
    }
    before = _listed(folder)
    _list(folder, before | set(wanted))  # of a run that is interrupted here, too
    for name, file in wanted.items():
        target = folder / name
        if not _same(target, file):
            target.parent.mkdir(parents=True, exist_ok=True)
            with replace_on_success(target) as temporary:
                shutil.copy2(file, temporary)  # with its time, by which `_same` and a study know it
    for name in before - set(wanted):
        target = folder / name
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or not there
            target.parent.rmdir()
    _list(folder, wanted)
    sentences = {task: {row.prompt for row in rows} - {""} for task, rows in found.rows.items()}
    entries = [
        PromptEntry(images[task, key], tuple(sentences[task])) for task, key in images if len(sentences[task]) == 1
    ]
    if entries:
        write_prompt_file(folder / _PROMPTS, entries)
    else:
        (folder / _PROMPTS).unlink(missing_ok=True)


def _listed(folder: Path) -> set[str]:
    """The pictures that earlier runs have put there."""
    try:
        names = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {name for name in names if isinstance(name, str) and re.fullmatch(r"[^/]+/[^/]+\.png", name)}


def _list(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replace_on_success(folder / _LIST) as temporary:
        temporary.write_text(json.dumps(sorted(names)), encoding="utf-8")


def _same(target: Path, file: Path) -> bool:
    if not target.is_file():
        return False
    one, other = target.stat(), file.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _plain_names(names: Iterable, taken: Iterable[str]) -> dict:
    """Name, or parts of one -> a different one for each, which is no path and has no suffix."""
    plain, known = {}, {name.lower() for name in taken}
    for name in names:
        text = "_".join(name) if isinstance(name, tuple) else name
        text = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|.]', "_", text).strip() or "_"
        number, unique = 1, text
        while unique.lower() in known:  # some file systems do not tell them apart
            number += 1
            unique = f"{text} {number}"
        known.add(unique.lower())
        plain[name] = unique
    return plain
