"""What one person has on the table: a photograph, what became of it, and the way back. All pixels lie on the disk."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from prompt_mamba_arch.app.limits import Limits
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.image_io import SUFFIXES, Photo, read_photo, write_photo

__all__ = ["Session", "Sessions", "Version"]

_PREVIEW = 3000  # pixels of the longer side of what a page shows
_LEAST_ROOM = 1 << 30  # bytes that stay free on the disk
_GONE = "there is no photo here (any more); drop one"
_FOLDER = re.compile(r"prompt_mamba_app_(\d+)_\w+\Z")


class Version(NamedTuple):
    """The photograph at one time.

    Attributes:
        number: 0 is the photograph as it came.
        request: what was asked for to get it, in words for people; "" for the photograph as it came.
        pixels: (H, W, 3) uint8 or uint16 RGB, read from the disk where they are used.
        picture: the name under which a page gets it, small enough to be shown; nobody can guess it.
    """

    number: int
    request: str
    pixels: np.ndarray
    picture: str


class _State(NamedTuple):
    base: int  # the version that a request is done to
    shown: int


class Session:
    """One photograph and its versions.

    A request is done to `base` and makes a new version, which is `shown`; so requests can be tried one after another on
    the same photograph. `go_on` makes the result the base; `undo` takes the last step of either kind back.

    Args:
        folder: receives the files, and is deleted by `close`.
        path: the photograph.
        name: how the person calls it.
        limits: of pixels and of steps that can be undone.

    Raises:
        UserError: no image, a damaged one, or too large. OSError: the disk is full.
    """

    def __init__(self, folder: Path, path: Path, name: str, limits: Limits):
        self.name = _plain_name(name)
        self.stopped = threading.Event()
        """Set to end the restoration that is under way."""
        self.closed = False
        self.touched = time.monotonic()
        self._folder, self._limits = folder, limits
        self._lock = threading.RLock()
        self._versions: dict[int, Version] = {}
        self._next = 0
        with _renamed(path, self.name):
            limits.check_upload(path)
            photo = read_photo(path)
        folder.mkdir(parents=True)
        try:
            alpha = None if photo.alpha is None else self._keep("alpha", photo.alpha)
            # what belongs to it stays in memory, its pixels do not
            self._photo = replace(photo, pixels=self._keep("photo", photo.pixels), alpha=alpha)
            self._states = [_State(*[self._add(self._photo.pixels, "").number] * 2)]
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    # ---- what there is

    @property
    def base(self) -> Version:
        """What a request is done to."""
        return self._versions[self._states[-1].base]

    @property
    def shown(self) -> Version:
        """The latest result; the base itself where there is none yet."""
        return self._versions[self._states[-1].shown]

    @property
    def original(self) -> Version:
        """The photograph as it came."""
        return self._versions[0]

    @property
    def can_undo(self) -> bool:
        return len(self._states) > 1

    @property
    def can_go_on(self) -> bool:
        return self.shown is not self.base

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file held and the page does not keep, in plain words."""
        return self._photo.notes

    @property
    def suffix(self) -> str:
        """Of the photograph's format, as its name says."""
        return Path(self.name).suffix.lower()

    # ---- what can be done

    def add(self, pixels: np.ndarray, request: str) -> Version:
        """Keeps a result, which is now shown. Raises UserError if the session has been closed meanwhile."""
        with self._lock:
            if self.closed:
                raise UserError(_GONE)
            version = self._add(self._keep(f"version{self._next}", pixels), request)
            self._push(_State(self.base.number, version.number))
            return version

    def go_on(self) -> None:
        """From now on requests are done to the result."""
        with self._lock:
            if self.can_go_on:
                self._push(_State(self.shown.number, self.shown.number))

    def undo(self) -> None:
        """Takes the last step back."""
        with self._lock:
            if self.can_undo:
                self._states.pop()
                self._forget()

    def write(self, suffix: str) -> tuple[Path, list[str]]:
        """The shown version as a file at full size, with the photograph's metadata.

        Returns:
            The file, which stays as long as the session, and what its format could not hold, in plain words.

        Raises:
            UserError: an unknown suffix, or a format that cannot hold so many pixels.
        """
        if suffix not in SUFFIXES:
            raise UserError(f"photographs are written as {', '.join(SUFFIXES)}, not {suffix!r}")
        with self._lock:
            shown = self.shown
            path = self._folder / f"result{shown.number}{suffix}"
            with _renamed(path, f"{Path(self.name).stem}{suffix}"):
                # always anew: what was lost is told each time, and one that is under way is not waited for
                return path, write_photo(path, self._photo.with_pixels(shown.pixels))

    def file_name(self, suffix: str) -> str:
        """How the downloaded file is called."""
        return f"{Path(self.name).stem}_restored{suffix}"

    def picture(self, name: str) -> Path | None:
        """The file of a version's picture."""
        found = next((version for version in list(self._versions.values()) if version.picture == name), None)
        return None if found is None else self._folder / f"{found.picture}.jpg"

    def close(self) -> None:
        """Ends what is under way and deletes every file."""
        self.closed = True
        with self._lock:
            self._versions.clear()
            shutil.rmtree(self._folder, ignore_errors=True)

    # ---- how

    def _keep(self, name: str, array: np.ndarray) -> np.ndarray:
        free = shutil.disk_usage(self._folder).free
        if free - array.nbytes < _LEAST_ROOM:
            raise UserError("there is no room on the server's disk at present; try again later")
        path = self._folder / f"{name}.npy"
        np.save(path, array)
        return np.asarray(np.load(path, mmap_mode="r"))

    def _add(self, pixels: np.ndarray, request: str) -> Version:
        picture = secrets.token_urlsafe(18)
        height, width = pixels.shape[:2]
        scale = min(1, _PREVIEW / max(height, width))
        small = pixels
        if scale < 1:
            side = (max(round(width * scale), 1), max(round(height * scale), 1))
            small = cv2.resize(pixels, side, interpolation=cv2.INTER_AREA)
        look = Photo(small, gray=self._photo.gray, icc=self._photo.icc)
        write_photo(self._folder / f"{picture}.jpg", look)
        version = Version(self._next, request, pixels, picture)
        self._versions[version.number] = version
        self._next += 1
        return version

    def _push(self, state: _State) -> None:
        self._states.append(state)
        del self._states[: -(self._limits.steps + 1)]
        self._forget()

    def _forget(self) -> None:
        """Deletes the versions to which no way leads back."""
        needed = {0, *(number for state in self._states for number in state)}
        for number in [number for number in self._versions if number not in needed]:
            version = self._versions.pop(number)
            downloads = [path.name for path in self._folder.glob(f"result{number}.*")]
            for name in (f"version{number}.npy", f"{version.picture}.jpg", *downloads):
                with contextlib.suppress(OSError):  # Windows keeps files that are mapped; `close` deletes them
                    os.unlink(self._folder / name)


def _plain_name(name: str) -> str:
    """A file name without folders, control characters and what file systems refuse; with a suffix that is written."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = re.sub(r'[\x00-\x1f\x7f<>:"|?*\u202a-\u202e\u2066-\u2069\ud800-\udfff]', "_", name).strip(" .")
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SUFFIXES:
        stem, suffix = name, ".png"
    return f"{stem[:80].strip(' .') or 'photo'}{suffix}"


@contextlib.contextmanager
def _renamed(path: Path, name: str) -> Iterator[None]:
    """Errors that name a file of the server name the person's instead."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(repr(str(path)), repr(name)).replace(repr(path.name), repr(name))) from None


class Sessions:
    """Who has a photograph on the table. May be used from several threads.

    Args:
        folder: where their files go, in one that is made, and deleted by `close`.
        limits: how many sessions, and how long an idle one stays.
        clock: seconds.
    """

    def __init__(self, folder: Path, limits: Limits, clock: Callable[[], float] = time.monotonic):
        _delete_leftovers(folder)
        self.folder = folder / f"prompt_mamba_app_{os.getpid()}_{secrets.token_hex(4)}"
        self.folder.mkdir(parents=True)
        self._limits, self._clock = limits, clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, key: str, path: Path, name: str) -> Session:
        """A new session in the place of the person's old one, if there is one and the photograph can be read.

        Raises:
            UserError: as `Session`; or there are too many people here.
        """
        self.sweep()
        with self._lock:
            if key not in self._sessions and len(self._sessions) >= self._limits.sessions:
                raise UserError("too many people are here at present; try again in a few minutes")
        session = Session(self.folder / secrets.token_hex(8), path, name, self._limits)
        session.touched = self._clock()
        with self._lock:
            old = self._sessions.pop(key, None)
            self._sessions[key] = session
        if old is not None:
            old.close()
        return session

    def get(self, key: str) -> Session:
        """Raises UserError where there is none (any more)."""
        with self._lock:
            session = self._sessions.get(key)
        if session is None:
            raise UserError(_GONE)
        session.touched = self._clock()
        return session

    def picture(self, name: str) -> Path | None:
        """The file of a picture that any session shows."""
        with self._lock:
            sessions = list(self._sessions.values())
        return next((path for path in (session.picture(name) for session in sessions) if path is not None), None)

    def with_shown(self, name: str) -> Session | None:
        """The session that shows the picture of this name."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            with contextlib.suppress(KeyError):  # being closed
                if session.shown.picture == name:
                    session.touched = self._clock()
                    return session
        return None

    def end(self, key: str) -> None:
        """Deletes a person's files, if there are any."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def sweep(self) -> int:
        """Ends idle sessions; returns how many."""
        now = self._clock()
        with self._lock:
            idle = [key for key, one in self._sessions.items() if now - one.touched > self._limits.idle_seconds]
        for key in idle:
            self.end(key)
        return len(idle)

    def __len__(self) -> int:
        return len(self._sessions)

    def close(self) -> None:
        for key in list(self._sessions):
            self.end(key)
        shutil.rmtree(self.folder, ignore_errors=True)


def _delete_leftovers(folder: Path) -> None:
    """Photographs that a page which was killed has left behind."""
    for path in folder.glob("prompt_mamba_app_*"):
        match = _FOLDER.fullmatch(path.name)
        if match and not _runs(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # os.kill ends it there; better too many files than one too few
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
