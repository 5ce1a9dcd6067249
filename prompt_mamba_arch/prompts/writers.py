"""Writes prompt files: a few requests for each image, from the bank or from any other writer.

A prompt file is JSON Lines, one object an image (see `prompt_mamba_arch.data.prompt_file`, which reads it). While it is
written, its lines are kept in a file of the same name with ".part" behind it. A run that ends early, whatever ended it,
is continued by the next one; the prompt file itself appears when it is whole.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.prompts.compose import from_parameters

__all__ = ["BankWriter", "Brief", "Said", "Writer", "Written", "from_bank", "write_prompts"]

_DRAWS = 50  # from the bank, until one is new
_SYNC_SECONDS = 1.0  # so much work is lost at most when the power fails; when the process dies, none is
_MOST_NOTES = 10


class Brief(NamedTuple):
    """What the prompts of one image shall say.

    Attributes:
        remove: the kinds to ask for; none: to leave the image as it is.
        present: all kinds in the image, those to remove among them; None if that is not known.
        recipe: what was done to the image (see `data.sample_recipe`), if that is known; else phrases that fit only some
            parameters are not used.
        severity: kind -> 0 to 1, so that requests may say how strong the damage is.
    """

    key: str
    remove: tuple[str, ...]
    present: tuple[str, ...] | None = None
    task: str | None = None
    recipe: Sequence[Mapping[str, Any]] | None = None
    severity: Mapping[str, float] | None = None

    @property
    def stays(self) -> tuple[str, ...]:
        return tuple(kind for kind in self.present or () if kind not in self.remove)


class Prompts(NamedTuple):
    """The prompts of one image.

    Attributes:
        from_bank: how many of them the bank gave in the place of the writer.
        repeated: how many are another image's, too, as nothing new was found.
        reason: why the bank gave some.
    """

    texts: list[str]
    from_bank: int = 0
    repeated: int = 0
    reason: str = ""


class Said:
    """The prompts of a file so far. Two that differ in capitals, punctuation or blanks are the same."""

    def __init__(self, texts: Iterable[str] = ()):
        self._texts = {_words(text) for text in texts}
        self._lock = threading.Lock()

    def add(self, text: str) -> bool:
        """Whether it is new."""
        words = _words(text)
        with self._lock:
            if words in self._texts:
                return False
            self._texts.add(words)
            return True


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold().replace("'", "").replace("’", "")))


class Writer(Protocol):
    """Gives `count` prompts for an image. Of what it gives, it adds to `said` what was not said before.

    Writers that may wait have `stop`, which makes them give up; it is called from another thread.
    """

    parallel: bool

    def write(self, brief: Brief, count: int, said: Said, rng: random.Random) -> Prompts: ...

    def stop(self) -> None: ...


class BankWriter:
    """From the bank alone, with `from_parameters`. The same seed gives the same file."""

    parallel = False  # what is new depends on what was said before

    def __init__(self, split: str = "train"):
        self.split = split

    def write(self, brief: Brief, count: int, said: Said, rng: random.Random) -> Prompts:
        texts, repeated = from_bank(brief, count, said, rng, self.split)
        return Prompts(texts, repeated=repeated)

    def stop(self) -> None:
        """Never waits."""


def from_bank(
    brief: Brief, count: int, said: Said, rng: random.Random, split: str, have: Iterable[str] = ()
) -> tuple[list[str], int]:
    """Texts from the bank, and how many of them are not new. Those differ, if possible, within the image (`have`)."""
    recipe = brief.recipe
    if recipe is None:
        recipe = [{"kind": kind} for kind in brief.present or brief.remove]
    texts, own, repeated = [], Said(have), 0
    for _ in range(count):
        other = None
        for _ in range(_DRAWS):
            # where it is not known what else is in the image, "fix everything" would ask for more than `remove`
            text = from_parameters(
                recipe, brief.remove, rng, split, severity=brief.severity, generic=brief.present is not None
            )
            if said.add(text):
                own.add(text)
                break
            if other is None and own.add(text):
                other = text
        else:
            text = other or text
            repeated += 1
        texts.append(text)
    return texts, repeated


# ---- the file ------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """Attributes: images in the file; how many of them an earlier run had done; prompts that the bank gave in the place
    of the writer; prompts that two images share."""

    images: int
    resumed: int
    from_bank: int
    repeated: int


def write_prompts(
    path: str | os.PathLike,
    briefs: Sequence[Brief],
    writer: Writer,
    *,
    count: int = 4,
    split: str = "train",
    seed: int = 0,
    jobs: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Writes a prompt file, or goes on with one that was begun.

    Args:
        path: the file; it is replaced when the new one is whole.
        briefs: one for each image, with different keys; the file keeps their order.
        count: prompts for each image.
        split: of the bank; kept with the lines, so that a run is not continued with another one's phrases.
        jobs: images at a time, for writers that wait for an answer.
        tell: receives lines about what is worth knowing.
        progress: receives (images done, images in all).

    Raises:
        UserError: what the writer raises, with how much is done and kept; or the begun file is of another task.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = _Notes(tell)
    with _Partial(path.with_name(path.name + ".part"), briefs, {"count": count, "split": split}) as partial:
        resumed = len(partial.lines)
        if resumed:
            tell(f"{resumed} of {len(briefs)} images are done already, by a run that ended early")
        progress(resumed, len(briefs))
        said = Said(text for line in partial.lines.values() for text in line["prompts"])
        todo = (brief for brief in briefs if brief.key not in partial.lines)

        def write(brief: Brief) -> tuple[Brief, Prompts]:
            return brief, writer.write(brief, count, said, random.Random(f"{seed} {brief.key}"))

        bank = repeated = 0
        try:
            for brief, prompts in _each(write, todo, jobs if writer.parallel else 1, writer.stop):
                partial.append(brief, prompts.texts)
                bank += prompts.from_bank
                repeated += prompts.repeated
                if prompts.from_bank:
                    notes.tell(
                        f"image '{brief.key}': {prompts.from_bank} of {count} prompts are the bank's, as an answer "
                        f"{prompts.reason}"
                    )
                progress(len(partial.lines), len(briefs))
        except UserError as error:
            if not partial.lines:
                raise
            done = f"{len(partial.lines)} of {len(briefs)} images are done and kept in {partial.path}"
            raise UserError(f"{error}; {done}; the same command goes on from there") from None
        with replace_on_success(path) as temporary, open(temporary, "wb") as file:
            for brief in briefs:
                file.write(_encode(partial.lines[brief.key]))
            file.flush()
            os.fsync(file.fileno())
    partial.path.unlink()
    return Written(len(briefs), resumed, bank, repeated)


def _each(work: Callable, items: Iterator, jobs: int, stop: Callable[[], None]) -> Iterator:
    """Results of `work`, several at a time, as they come. After an error nothing more is begun, what is nearly ready
    is given nevertheless, and the error comes last."""
    if jobs == 1:
        yield from map(work, items)
        return
    error = None
    running: set[Future] = set()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                while error is None and len(running) < jobs:
                    item = next(items, None)
                    if item is None:
                        break
                    running.add(pool.submit(work, item))
                if not running:
                    break
                ready, running = wait(running, return_when=FIRST_COMPLETED)
                for future in ready:
                    if future.exception() is None:
                        yield future.result()
                    elif error is None:
                        error = future.exception()
                        stop()
        except BaseException:  # Ctrl-C, a full disk
            stop()
            raise
    if error is not None:
        raise error


class _Notes:
    def __init__(self, tell: Callable[[str], None]):
        self._tell = tell
        self._told = 0

    def tell(self, line: str) -> None:
        self._told += 1
        if self._told <= _MOST_NOTES:
            self._tell(line)
        elif self._told == _MOST_NOTES + 1:
            self._tell("there is more like this; the number stands at the end")


class _Partial:
    """The lines that are done, on disk: first the settings, then one line an image, in the order they got ready.

    Attributes:
        lines: key -> line as it is in the prompt file.
    """

    def __init__(self, path: Path, briefs: Sequence[Brief], settings: Mapping[str, Any]):
        self.path = path
        self._wanted = {brief.key: brief for brief in briefs}
        if len(self._wanted) != len(briefs):
            raise UserError("two images have the same key")
        self.lines: dict[str, dict] = {}
        whole = self._read(dict(settings)) if path.exists() else 0
        self._file = open(path, "r+b" if whole else "wb")
        self._file.truncate(whole)  # a line that was cut off is written again
        self._file.seek(whole)
        self._synced = 0.0
        if not whole:
            self._put(settings)

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *error) -> None:
        self._sync()
        self._file.close()
        if not self.lines:  # nothing that would be worth going on from
            self.path.unlink()

    def append(self, brief: Brief, prompts: Sequence[str]) -> None:
        line = _fields(brief, prompts)
        self._put(line)
        self.lines[brief.key] = line

    def _put(self, line: Mapping[str, Any]) -> None:
        self._file.write(_encode(line))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _read(self, settings: dict) -> int:
        """Takes the lines that are there; returns the length of the part that is whole."""
        begun = f"{self.path} is what a run with other settings left"
        advice = "run it with those, or delete that file"
        whole = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file):
                try:
                    fields = json.loads(line)
                except ValueError:  # UnicodeDecodeError is one, too
                    fields = None
                if not line.endswith(b"\n") or not isinstance(fields, dict):
                    if file.read(1):
                        raise UserError(f"{self.path}, line {number + 1}: not a JSON object; mend or delete that file")
                    break
                whole += len(line)
                if number == 0:
                    if fields != settings:
                        raise UserError(f"{begun} ({_plain(fields)}, now {_plain(settings)}); {advice}")
                    continue
                brief = self._wanted.get(fields.get("key"))
                if brief is None:  # an image that has gone
                    continue
                expected = _fields(brief, fields.get("prompts", ()))
                if fields != expected:
                    raise UserError(f"{begun} (image '{brief.key}' is not as it was); {advice}")
                self.lines.setdefault(brief.key, fields)
        return whole


def _fields(brief: Brief, prompts: Sequence[str]) -> dict[str, Any]:
    """A line of the prompt file, without what is not known."""
    present = None if brief.present is None else list(brief.present)
    line = {"key": brief.key, "prompts": list(prompts), "task": brief.task, "remove": list(brief.remove)}
    return {name: value for name, value in {**line, "present": present}.items() if value is not None}


def _encode(line: Mapping[str, Any]) -> bytes:
    return (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8")


def _plain(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
