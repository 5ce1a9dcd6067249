"""LMDBs as BasicSR makes and reads them (https://github.com/XPixelGroup/BasicSR/blob/master/docs/DatasetPreparation.md),
with prompts beside the images.

A folder `lq.lmdb` with data.mdb, lock.mdb and meta_info.txt, a line for each image: `0001.png (480,320,3) 1`. The key
is the name without extension. Images are stored as their files are, which keeps them bit for bit and needs no decoding
(readers tell the format by the content); formats without compression become PNG. A prompt is stored under
`<key>.prompt`, see `prompt_mamba_arch.data.prompt_sources`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prompt_mamba_arch.data.image_source import decode
from prompt_mamba_arch.errors import UserError, one_line, replace_on_success
from prompt_mamba_arch.prepare.images import Shape, encode
from prompt_mamba_arch.prepare.work import in_order

__all__ = ["Entry", "write_lmdb"]

_LEVEL = 1  # of PNG compression: fast; noted in meta_info.txt
_COMMIT_BYTES = 64 << 20
_UNCOMPRESSED = {".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
_PAGE = 4096
_MARK = "prepare.json"  # beside data.mdb; BasicSR does not look at it


class Entry(NamedTuple):
    """Attributes: key; file, the image's; shape; stamp, what tells that the file is still the same."""

    key: str
    file: Path
    shape: Shape
    stamp: tuple


def write_lmdb(
    folder: Path,
    entries: Sequence[Entry],
    prompts: Mapping[str, str],
    *,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> bool:
    """Writes a LMDB, goes on with one that was begun, or leaves one that is as it should be.

    While it is written it has another name (`lq.lmdb.part`), so that a LMDB is always whole.

    Args:
        folder: its name ends in .lmdb.
        entries: what it shall hold; keys are ASCII.
        prompts: key -> the JSON object of a prompt file's line; may lack keys.
        workers: files read at a time.
        progress: receives the number of images so far.

    Returns:
        False if it was there already.

    Raises:
        UserError: a file cannot be read, or the LMDB cannot be written.
    """
    import lmdb

    mark = json.dumps({"images": len(entries), "sha256": _fingerprint(entries, prompts)})
    if _marked(folder, mark):
        progress(len(entries))
        return False
    part = folder.with_name(folder.name + ".part")
    if part.exists() and not _marked(part, mark):
        shutil.rmtree(part)
    part.mkdir(parents=True, exist_ok=True)
    with replace_on_success(part / _MARK) as temporary:
        temporary.write_text(mark, encoding="utf-8")
    try:
        environment = lmdb.open(str(part), map_size=_room(entries, prompts), readahead=False)
        try:
            _fill(environment, entries, prompts, workers, progress)
        finally:
            environment.close()
    except lmdb.Error as error:
        raise UserError(f"cannot write the LMDB {folder}: {one_line(error)}") from None
    lines = "".join(f"{e.key}.png ({e.shape.height},{e.shape.width},{e.shape.channels}) {_LEVEL}\n" for e in entries)
    (part / "meta_info.txt").write_text(lines, encoding="utf-8")
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _fingerprint(entries: Sequence[Entry], prompts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps([entry.key, entry.shape, entry.stamp, prompts.get(entry.key)]).encode("utf-8"))
    return digest.hexdigest()


def _marked(folder: Path, mark: str) -> bool:
    try:
        return (folder / _MARK).read_text(encoding="utf-8") == mark
    except OSError:
        return False


def _room(entries: Sequence[Entry], prompts: Mapping[str, str]) -> int:
    """Bytes that suffice: values of more than half a page have pages of their own; small ones fill theirs by half at
    worst."""
    images = sum((os.stat(entry.file).st_size // _PAGE + 2) * _PAGE for entry in entries)
    return images + 4 * sum(len(text.encode("utf-8")) + 512 for text in prompts.values()) + (64 << 20)


def _fill(environment, entries: Sequence[Entry], prompts: Mapping[str, str], workers: int, progress: Callable) -> None:
    """Commits now and then; images that an earlier run committed are skipped."""
    with environment.begin() as transaction:
        todo = [e for e in entries if transaction.get(e.key.encode("ascii")) is None]
    done, waiting = len(entries) - len(todo), 0
    progress(done)
    transaction = environment.begin(write=True)
    try:
        for entry, data in in_order(_stored, todo, workers):
            transaction.put(entry.key.encode("ascii"), data)
            text = prompts.get(entry.key)
            if text is not None:
                transaction.put(f"{entry.key}.prompt".encode("ascii"), text.encode("utf-8"))
            done, waiting = done + 1, waiting + len(data)
            if waiting > _COMMIT_BYTES:
                transaction.commit()
                transaction, waiting = environment.begin(write=True), 0
            progress(done)
        transaction.commit()
    except BaseException:  # what is whole is kept
        transaction.commit()
        raise


def _stored(entry: Entry) -> bytes:
    try:
        data = entry.file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {entry.file}: {error.strerror or error}") from None
    if entry.file.suffix.lower() in _UNCOMPRESSED:
        return encode(decode(data, str(entry.file)), _LEVEL)
    return data
