"""Where a dataset's prompts come from: the option `prompts` of a dataset section.

    prompts: ~                          # or absent. Blind: the empty prompt
    prompts: path/to/prompts.jsonl      # a prompt file, see `prompt_file`
    prompts: lmdb                       # side keys in the LMDB of the lq images, see below
    prompts: remove the noise           # this prompt for every image
    prompts: [remove the noise, clean it up]
    prompts: {task: denoise}            # a few ready prompts, see `TASKS`

A side key is `<key>.prompt`; its value is the JSON object of a prompt file's line, in UTF-8. BasicSR does not see side
keys, as it reads only what meta_info.txt lists. `write_lmdb_prompts` adds them to a LMDB.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

import torch

from prompt_mamba_arch.data.image_source import ImageSource
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.data.prompt_file import PromptEntry, parse_entry, read_prompt_file
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean

__all__ = ["TASKS", "PromptSource", "Task", "multi_hot", "prompt_source", "write_lmdb_prompts"]


class Task(NamedTuple):
    """Ready prompts, and the kinds of degradation that they ask to remove."""

    remove: tuple[str, ...]
    prompts: tuple[str, ...]


# The first prompt of each is the one that validation uses.
TASKS: dict[str, Task] = {
    "denoise": Task(
        ("noise",), ("remove the noise", "get rid of the grain in this photo", "clean up the speckles", "denoise it")
    ),
    "deblur": Task(
        ("defocus", "motion"), ("remove the blur", "make this blurry photo sharp", "it is out of focus, sharpen it")
    ),
    "dejpeg": Task(
        ("jpeg",), ("remove the JPEG artifacts", "get rid of the blocky compression", "clean up the compression damage")
    ),
    "sr": Task(
        ("lowres",), ("increase the resolution", "make this small image large and detailed", "upscale the picture")
    ),
    "derain": Task(("rain",), ("remove the rain", "take the rain streaks out", "make it look as if it did not rain")),
    "dehaze": Task(("haze",), ("remove the haze", "clear the fog in this picture", "make the hazy view clear")),
    "lowlight": Task(
        ("lowlight",), ("brighten this dark photo", "it was taken in low light, make it bright", "fix the exposure")
    ),
    "inpaint": Task(
        ("holes",), ("fill in the missing parts", "repair the holes in this image", "restore the areas that are lost")
    ),
}


class PromptSource(Protocol):
    """Gives the entry of an image; raises UserError, with the key, where there is none."""

    def entry(self, key: str) -> PromptEntry: ...


class _Fixed:
    def __init__(self, prompts: tuple[str, ...], task: str | None = None, remove: tuple[str, ...] | None = None):
        # a task with one kind says what is in the image; "deblur" leaves open which blur it is
        present = remove if remove is not None and len(remove) == 1 else None
        self._fields = {"prompts": prompts, "task": task, "remove": remove, "present": present}

    def entry(self, key: str) -> PromptEntry:
        return PromptEntry(key=key, **self._fields)


class _File:
    def __init__(self, path: str):
        self._path = path
        self._entries = read_prompt_file(path)

    def entry(self, key: str) -> PromptEntry:
        try:
            return self._entries[key]
        except KeyError:
            raise UserError(f"no prompt for image '{key}' in {self._path}{did_you_mean(key, self._entries)}") from None


class _Lmdb:
    def __init__(self, images: ImageSource):
        if images.backend != "lmdb":
            raise UserError("prompts: lmdb needs the lq images in a LMDB; set io_backend: {type: lmdb}")
        self._images = images

    def entry(self, key: str) -> PromptEntry:
        data = self._images.read_entry(key + ".prompt")
        where = f"{self._images.root}, key '{key}.prompt'"
        if data is None:
            raise UserError(f"no prompt for image '{key}': {where} is missing")
        return parse_entry(bytes(data), where)


def prompt_source(prompts: object, lq: ImageSource) -> PromptSource:
    """Understands the option `prompts` (see the table above).

    Args:
        prompts: the option's value, None if absent.
        lq: the source of the degraded images, whose LMDB may hold the prompts.

    Raises:
        UserError: the value is none of the forms, or its file is wrong.
    """
    if prompts is None:
        return _Fixed(("",))
    if isinstance(prompts, Mapping):
        check_keys(prompts, ("task",), "prompts")
        name = prompts.get("task")
        if name not in TASKS:
            hint = did_you_mean(name, TASKS) or f"; the tasks are {', '.join(TASKS)}"
            raise UserError(f"prompts: no ready prompts for the task {name!r}{hint}")
        return _Fixed(TASKS[name].prompts, name, TASKS[name].remove)
    if isinstance(prompts, str):
        if prompts.lower().endswith(".jsonl"):
            return _File(os.path.expanduser(prompts))
        if prompts == "lmdb":
            return _Lmdb(lq)
        if _looks_like_a_path(prompts):
            raise UserError(f"prompts: '{prompts}' looks like a file, but a prompt file's name ends in .jsonl")
        return _Fixed((prompts,))
    if isinstance(prompts, (list, tuple)) and prompts and all(isinstance(p, str) and p.strip() for p in prompts):
        return _Fixed(tuple(prompts))
    raise UserError(
        f"prompts must be a .jsonl file, 'lmdb', a text, a list of non-empty texts or {{task: NAME}}, not {prompts!r}"
    )


def write_lmdb_prompts(folder: str | os.PathLike, entries: Iterable[PromptEntry]) -> int:
    """Adds prompts to a LMDB of images, all or none, replacing those that are there; returns their number.

    The images and meta_info.txt stay as they are, so BasicSR reads the LMDB as before.

    Args:
        folder: the LMDB of the degraded images; no other process should be reading it.
        entries: for example `read_prompt_file(path).values()`.

    Raises:
        UserError: no LMDB there, an entry for an image that it does not hold, or it cannot be written.
    """
    import lmdb

    images = ImageSource(folder, {"type": "lmdb"}, label="LMDB")
    records = {}
    for entry in entries:
        images.path(entry.key)  # raises when there is no such image
        line = entry.to_json()
        parse_entry(line, f"prompt for '{entry.key}'")
        records[f"{entry.key}.prompt".encode("ascii")] = line.encode("utf-8")
    grown = os.path.getsize(os.path.join(images.root, "data.mdb"))
    # small records fill their pages by half at worst; the rest is room for the pages that are copied on write
    grown += 4 * sum(len(key) + len(value) + 16 for key, value in records.items()) + (16 << 20)
    try:
        environment = lmdb.open(images.root, map_size=grown)
        try:
            with environment.begin(write=True) as transaction:
                for key, value in records.items():
                    transaction.put(key, value)
        finally:
            environment.close()
    except lmdb.Error as error:
        raise UserError(f"cannot write prompts into {images.root}: {error}") from None
    return len(records)


def multi_hot(kinds: Iterable[str] | None) -> torch.Tensor:
    """`(len(KINDS),)` float32: 1 for each of `kinds`; zeros for None."""
    named = frozenset(kinds or ())
    return torch.tensor([float(kind in named) for kind in KINDS])


def _looks_like_a_path(text: str) -> bool:
    suffix = os.path.splitext(text)[1].lower()
    return suffix in {".json", ".txt", ".csv", ".tsv", ".yml", ".yaml"} or (
        " " not in text and ("/" in text or "\\" in text)
    )
