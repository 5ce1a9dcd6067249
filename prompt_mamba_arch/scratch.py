"""Arrays on the disk, for photographs that are too large to lie in memory."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["Empty", "arrays_in", "copied", "release"]

# as `numpy.empty`
Empty = Callable[[tuple, np.dtype], np.ndarray]

_LARGE = 96_000_000  # bytes: what 32 megapixels of 8 bits in three channels take
_STRIP = 1 << 24  # bytes


class _Map(mmap.mmap):
    """One that was made here; `release` must not touch others, whose changes it might throw away."""


def arrays_in(folder: Path) -> Empty:
    """What makes arrays, as `numpy.empty` does: small ones in memory, large ones in nameless files in the folder,
    which is made when it is needed.

    The files vanish with their arrays, and with the process, however it ends. Where there is no room for one, the array
    is in memory.
    """

    def empty(shape: tuple, dtype: np.dtype) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < _LARGE:
            return np.empty(shape, dtype)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                _reserve(file, size)
                return np.frombuffer(_Map(file.fileno(), size), dtype).reshape(shape)
        except OSError:
            return np.empty(shape, dtype)

    return empty


def _reserve(file: BinaryIO, size: int) -> None:
    """Now, as a disk that is full later would end the process."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
        return
    except AttributeError:  # not on this system
        pass
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # what file systems that cannot do it say
            raise
    zeros = bytes(min(size, _STRIP))
    for start in range(0, size, _STRIP):
        file.write(zeros[: size - start])
    file.flush()


def release(*arrays: np.ndarray | None) -> None:
    """Gives back the memory that pages of such arrays have come to take; they are read again from the disk when they
    are needed. Does nothing to other arrays."""
    for array in arrays:
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        base = base.obj if isinstance(base, memoryview) else base
        if isinstance(base, _Map) and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)


def copied(array: np.ndarray, empty: Empty) -> np.ndarray:
    """A copy in C order in a new array, made in strips."""
    copy = empty(array.shape, array.dtype)
    rows = max(1, _STRIP // max(array[:1].nbytes, 1))
    for top in range(0, len(array), rows):
        copy[top : top + rows] = array[top : top + rows]
        release(array, copy)
    return copy
