"""Every answer, in SQLite, on the disk before the participant sees the next question."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.study.materials import Materials
from prompt_mamba_arch.study.plan import CHECK, RATING, SIDES, Design, Trial, draw

__all__ = ["Answer", "Progress", "Store"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS participants (
    id INTEGER PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,  -- whoever reads this file cannot go on as somebody else
    consent_hash TEXT NOT NULL,       -- of the text that was agreed to
    begun_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS trials (
    participant INTEGER NOT NULL REFERENCES participants(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL, image TEXT NOT NULL, "left" TEXT NOT NULL, "right" TEXT NOT NULL, spoiled TEXT NOT NULL,
    PRIMARY KEY (participant, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    participant INTEGER NOT NULL,
    position INTEGER NOT NULL,
    answer TEXT NOT NULL,
    milliseconds INTEGER,
    answered_at REAL NOT NULL,
    PRIMARY KEY (participant, position),
    FOREIGN KEY (participant, position) REFERENCES trials(participant, position) ON DELETE CASCADE
) WITHOUT ROWID;
"""


class Progress(NamedTuple):
    """Where a participant is: `position` of `total`, which is `total` when all is answered, and the question there."""

    position: int
    total: int
    trial: Trial | None


class Answer(NamedTuple):
    """What somebody answered. `answer` is "left", "right", or of a rating "1" to "5"."""

    participant: int
    trial: Trial
    answer: str
    milliseconds: int | None
    position: int = 0
    """Of the question among the participant's."""


class Store:
    """A study's database file; may be used from several threads, and read by other processes meanwhile.

    Write-ahead log, and every answer synchronised with the disk before it counts: neither a killed process nor a power
    failure loses one that was acknowledged.

    Raises:
        UserError: the file is no study, or one of another version.
    """

    def __init__(self, path: Path):
        self._lock = threading.RLock()
        try:
            # isolation_level None: transactions begin and end where this code says
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{str(path)!r} is not a study's database: {error}") from None
        version = self._read("version")
        if version is None:
            self._write("version", _VERSION)
        elif version != _VERSION:
            raise UserError(f"{str(path)!r} is a study of version {version}, and this program knows {_VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _read(self, name: str) -> Any:
        with self._lock:
            row = self._db.execute("SELECT value FROM study WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _write(self, name: str, value: Any) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", (name, json.dumps(value)))

    # ---- the study

    def use(self, materials: Materials, design: Design) -> None:
        """Begins a study, or goes on with it. The design may change; it holds for participants to come.

        Raises:
            UserError: the study was begun with other materials.
        """
        known = self._read("fingerprint")
        if known not in (None, materials.fingerprint):
            raise UserError(
                "the study was begun with other images, methods, prompts or another crop; its answers would not fit "
                "these. Name another output folder"
            )
        self._write("fingerprint", materials.fingerprint)
        self._write("methods", list(materials.methods))
        self._write("images", list(materials.images))
        self._write("prompts", materials.prompts)
        self._write("design", asdict(design))

    @property
    def methods(self) -> list[str]:
        """Alphabetical."""
        return self._read("methods") or []

    @property
    def images(self) -> list[str]:
        return self._read("images") or []

    # ---- participants

    def begin(self, materials: Materials, design: Design, consent: str) -> str:
        """A new participant, who has agreed to the text `consent`; returns the secret that says who it is.

        Raises:
            UserError: the study is full.
        """
        token = secrets.token_urlsafe(18)
        with self._transaction() as db:
            (count,) = db.execute("SELECT count(*) FROM participants").fetchone()
            if count >= design.participants:
                raise UserError("this study has all the participants that it needs; thank you for wanting to help")
            cursor = db.execute(
                "INSERT INTO participants (token_hash, consent_hash, begun_at) VALUES (?, ?, ?)",
                (_hashed(token), _hashed(consent), time.time()),
            )
            asked = {}
            query = 'SELECT image, min("left", "right"), max("left", "right"), kind, count(*) FROM trials ' \
                    "WHERE kind <> ? GROUP BY 1, 2, 3, 4"  # fmt: skip
            for image, a, b, kind, often in db.execute(query, (CHECK,)):
                asked[(image, b, "") if kind == RATING else (image, a, b)] = often
            trials = draw(materials, design, asked, random.Random(secrets.randbits(64)))
            db.executemany(
                "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(cursor.lastrowid, position, *trial) for position, trial in enumerate(trials)],
            )
        return token

    def participant(self, token: str) -> int | None:
        """The number of the one with this secret."""
        with self._lock:
            row = self._db.execute("SELECT id FROM participants WHERE token_hash = ?", (_hashed(token),)).fetchone()
        return None if row is None else row[0]

    def progress(self, participant: int) -> Progress:
        """The first question without an answer."""
        with self._lock:
            (total,) = self._db.execute("SELECT count(*) FROM trials WHERE participant = ?", (participant,)).fetchone()
            row = self._db.execute(
                "SELECT position FROM trials WHERE participant = ?1 AND position NOT IN "
                "(SELECT position FROM answers WHERE participant = ?1) ORDER BY position LIMIT 1",
                (participant,),
            ).fetchone()
        if row is None:
            return Progress(total, total, None)
        return Progress(row[0], total, self.trial(participant, row[0]))

    def trial(self, participant: int, position: int) -> Trial | None:
        with self._lock:
            row = self._db.execute(
                'SELECT kind, image, "left", "right", spoiled FROM trials WHERE participant = ? AND position = ?',
                (participant, position),
            ).fetchone()
        return None if row is None else Trial(*row)

    def answer(self, participant: int, position: int, answer: str, milliseconds: int | None = None) -> None:
        """Keeps an answer; it is on the disk when this returns. A second one to the same question does not count.

        Raises:
            UserError: there is no such question, or this is no answer to it.
        """
        trial = self.trial(participant, position)
        if trial is None:
            raise UserError("there is no such question")
        if answer not in (tuple("12345") if trial.kind == RATING else SIDES):
            raise UserError("that is no answer to this question")
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)",
                (participant, position, answer, milliseconds, time.time()),
            )

    def withdraw(self, participant: int) -> None:
        """Deletes a participant and every answer of theirs."""
        with self._transaction() as db:
            db.execute("DELETE FROM participants WHERE id = ?", (participant,))
        with self._lock, contextlib.suppress(sqlite3.OperationalError):  # a reader is at it; SQLite does it later
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # ---- what came out

    def answers(self) -> list[Answer]:
        """All of them, by participant and position."""
        with self._lock:
            rows = self._db.execute(
                'SELECT participant, kind, image, "left", "right", spoiled, answer, milliseconds, position '
                "FROM answers JOIN trials USING (participant, position) ORDER BY participant, position"
            ).fetchall()
        return [Answer(row[0], Trial(*row[1:6]), *row[6:]) for row in rows]

    def counts(self) -> tuple[int, int]:
        """Participants, and those of them who have answered everything."""
        with self._lock:
            (begun,) = self._db.execute("SELECT count(*) FROM participants").fetchone()
            (finished,) = self._db.execute(
                "SELECT count(*) FROM participants WHERE NOT EXISTS (SELECT 1 FROM trials LEFT JOIN answers "
                "USING (participant, position) WHERE trials.participant = participants.id AND answer IS NULL)"
            ).fetchone()
        return begun, finished


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
