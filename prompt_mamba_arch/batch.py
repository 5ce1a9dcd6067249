"""Many photographs, from files to files, in one process or several."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prompt_mamba_arch import video
from prompt_mamba_arch.comparison import before_after
from prompt_mamba_arch.errors import UserError, one_line, plain_line, replace_on_success
from prompt_mamba_arch.image_io import SUFFIXES, Photo, read_photo, write_photo
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.scratch import arrays_in

__all__ = ["Job", "News", "Wish", "load", "restore_file", "restore_files"]

# photograph, where its restoration goes, where the picture of before and after goes or None
Job = tuple[Path, Path, "Path | None"]

_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what fails with these fails for the next photograph, too
_NEWS_EVERY = 0.1  # seconds
_PATIENCE = 10  # seconds for a process to leave


@dataclass(frozen=True)
class Wish:
    """How to restore; the same for all photographs. As in `Restorer.from_pretrained` and `Restorer.restore`."""

    model: str = "tiny"
    device: str = "auto"
    option_file: str | None = None
    half: bool = False
    prompts: tuple[str, ...] = ()
    strength: float = 1.0
    tile: str | int = "auto"
    ensemble: bool = False
    overwrite: bool = False
    """Replace a result that has come to be there."""
    keep_times: bool = True
    """Results have the photographs' times of access and modification."""
    neighbours: int = 1
    """Processes, this one included, that compute on this machine at the same time and share its memory."""
    place: int = 0
    """The number of this process among them; it decides which GPU is taken."""


class News(NamedTuple):
    """What has become of a job: so much of it is done, from 0 to 1; and once it is over, what there is to say, and what
    went wrong if it failed."""

    job: int
    done: float
    over: bool = False
    notes: tuple[str, ...] = ()
    failure: str | None = None


def load(wish: Wish) -> Restorer:
    """The network, on the GPU whose turn it is, with its share of the memory."""
    device = wish.device
    if device == "auto" and torch.cuda.device_count() > 1:
        device = f"cuda:{wish.place % torch.cuda.device_count()}"
    restorer = Restorer.from_pretrained(wish.model, device, wish.option_file, half=wish.half)
    restorer.memory_share /= wish.neighbours
    return restorer


def restore_file(
    restorer: Restorer, job: Job, wish: Wish, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """One photograph or film. Its result appears last, so where there is one, all of it is there.

    Returns:
        What was lost on the way, in plain words.

    Raises:
        UserError, OSError: as `read_photo`, `Restorer.restore`, `write_photo`; or the result has come to be there.
    """
    source, target, _ = job
    times = source.stat() if source.is_file() else None  # before reading, which changes them
    how = (wish.prompts or None, wish.strength, wish.tile, progress)
    if target.suffix.lower() in video.SUFFIXES:
        target.parent.mkdir(parents=True, exist_ok=True)
        notes = video.restore_film(restorer, source, target, *how, ensemble=wish.ensemble)
    else:
        notes = _restore_photo(restorer, job, how, wish)
    if wish.keep_times:
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    return notes


def _restore_photo(restorer: Restorer, job: Job, how: tuple, wish: Wish) -> list[str]:
    source, target, comparison = job
    empty = arrays_in(target.parent)  # there is room for the result, too
    photo = read_photo(source, empty=empty)
    pixels = restorer.restore(photo.pixels, *how, ensemble=wish.ensemble, look=True, empty=empty)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not wish.overwrite:
        raise UserError(f"{str(target)!r} has come to be there meanwhile, and is kept")
    if comparison is not None:
        write_photo(comparison, Photo(before_after(photo.pixels, pixels), icc=photo.icc))
    if _format(source) == _format(target) and _same(photo.pixels, pixels):
        with replace_on_success(target) as temporary:  # to encode it anew would change it
            shutil.copyfile(source, temporary)
        return []
    photo = photo.with_pixels(pixels)  # so that what it was takes no memory while this is encoded
    return [*photo.notes, *write_photo(target, photo)]


def _format(path: Path) -> str:
    return SUFFIXES.get(path.suffix.lower(), "")


def _same(before: np.ndarray, after: np.ndarray) -> bool:
    """Looks no further than the first rows that differ."""
    rows = range(0, len(before), 64)
    return before.shape == after.shape and all(np.array_equal(before[i : i + 64], after[i : i + 64]) for i in rows)


def restore_files(
    restorer: Restorer,
    jobs: Sequence[Job],
    wish: Wish,
    tell: Callable[[News], None],
    processes: int = 1,
) -> None:
    """Restores all photographs; what goes wrong with one is told, and the rest go on.

    Args:
        restorer: for work in this process; others load their own.
        tell: hears of each job, in this process, in the order of events.
        processes: how many work at a time, each with its share of the threads.

    Raises:
        UserError, OSError: what would go wrong with the next photograph, too: a full disk, a network that cannot be
            loaded in another process.
    """
    processes = min(processes, len(jobs))
    if processes > 1:
        _Team(jobs, wish, tell, processes).work()
        return
    for number, job in enumerate(jobs):
        tell(_attempt(restorer, number, job, wish, tell))


def _attempt(restorer: Restorer, number: int, job: Job, wish: Wish, tell: Callable[[News], None]) -> News:
    told = 0.0

    def progress(done: int, tiles: int) -> None:
        nonlocal told
        if time.monotonic() - told > _NEWS_EVERY:
            told = time.monotonic()
            tell(News(number, done / tiles))

    try:
        return News(number, 1.0, True, tuple(restore_file(restorer, job, wish, progress)))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _HOPELESS:
            raise
        return News(number, 1.0, True, failure=_failure(error))


def _failure(error: Exception) -> str:
    """One line; for what is a fault of the program, with its place."""
    if isinstance(error, MemoryError):
        return "not enough memory for this image"
    line = plain_line(error)
    if line is None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}, line {place.lineno}"
        line = f"a fault of the program: {type(error).__name__} in {where}: {one_line(error)[:200]}"
    return line


# ---- several processes ---------------------------------------------------------------------------------------------
# A pipe to each, on which it asks for its next job. A process that is killed costs its one job: no queue or lock that
# all use is left in disorder.


class _Team:
    def __init__(self, jobs: Sequence[Job], wish: Wish, tell: Callable[[News], None], processes: int):
        self._waiting = list(enumerate(jobs))[::-1]
        self._tell, self._wish = tell, wish
        self._context = multiprocessing.get_context("spawn")  # forking a process that has used threads can hang
        self._processes = processes
        self._members: dict = {}  # pipe -> (process, place, job or None)

    def work(self) -> None:
        try:
            for place in range(self._processes):
                self._hire(place)
            while self._members:
                for pipe in multiprocessing.connection.wait(list(self._members)):
                    self._hear(pipe)
        finally:
            self._dismiss()

    def _hire(self, place: int) -> None:
        ours, theirs = self._context.Pipe()
        wish = self._wish
        neighbours = wish.neighbours * self._processes
        wish = Wish(**{**vars(wish), "neighbours": neighbours, "place": wish.place * self._processes + place})
        threads = max(1, torch.get_num_threads() // self._processes)
        process = self._context.Process(target=_member, args=(theirs, wish, threads), daemon=True)
        process.start()
        theirs.close()
        self._members[ours] = (process, place, None)

    def _hear(self, pipe) -> None:
        process, place, job = self._members[pipe]
        try:
            said = pipe.recv()
        except (EOFError, OSError):  # it was killed
            self._lost(pipe)
            return
        if isinstance(said, Exception):
            raise said
        if said is not None:
            self._tell(said)
            if not said.over:
                return
        job = self._waiting.pop() if self._waiting else None
        self._members[pipe] = (process, place, job)
        try:
            pipe.send(job)
        except OSError:
            self._lost(pipe)
            return
        if job is None:
            del self._members[pipe]
            process.join(_PATIENCE)

    def _lost(self, pipe) -> None:
        process, place, job = self._members.pop(pipe)
        pipe.close()
        process.join(_PATIENCE)
        if job is None:
            raise UserError(
                f"a process ended before it could begin (exit code {process.exitcode}); use fewer --jobs if memory is "
                "short"
            )
        failure = "its process was killed; if memory is short, use fewer --jobs or a smaller --tile"
        self._tell(News(job[0], 1.0, True, failure=failure))
        if self._waiting:
            self._hire(place)

    def _dismiss(self) -> None:
        for process, _, _ in self._members.values():
            process.terminate()
        for process, _, _ in self._members.values():
            process.join(_PATIENCE)
            process.kill()


def _leave_with(first) -> None:
    """Ends this process when the first is killed: else it would go on with its photograph while a new run takes it."""
    first.join()
    os._exit(1)


def _member(pipe, wish: Wish, threads: int) -> None:
    """What another process does: asks for a job, until there is none or the first process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them; the first ends the others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and not at once: temporary files are removed
    first = multiprocessing.parent_process()
    if first is not None:
        threading.Thread(target=_leave_with, args=(first,), daemon=True).start()
    warnings.simplefilter("ignore")  # the first process says them
    logging.getLogger("prompt_mamba_arch").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    try:
        restorer = load(wish)
        pipe.send(None)
        while (job := pipe.recv()) is not None:
            pipe.send(_attempt(restorer, *job, wish, pipe.send))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        line = plain_line(error)
        if line is None and not isinstance(error, MemoryError):
            raise
        pipe.send(UserError(line or "not enough memory; use fewer --jobs"))
