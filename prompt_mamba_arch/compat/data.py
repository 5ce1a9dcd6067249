"""Prefetching, LMDB, JPEG quality, and images that cannot be read."""

from __future__ import annotations

import functools
import os
import queue
import threading
import weakref
from collections.abc import Iterator

import basicsr.test
import basicsr.train
import cv2
from basicsr.data import degradations, prefetch_dataloader
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from basicsr.utils import imfrombytes
from basicsr.utils.file_client import FileClient, LmdbBackend
from torch.utils.data import DataLoader

from prompt_mamba_arch.errors import UserError, one_line

# -------------------------------------------------------------------------------------------------- JPEG quality


def mend_jpeg_quality() -> None:
    """random_add_jpg_compression hands OpenCV a float as quality: "Can't parse 'params'" since OpenCV 4.14."""
    original = degradations.add_jpg_compression

    @functools.wraps(original)
    def add_jpg_compression(img: object, quality: float = 90) -> object:
        return original(img, int(quality))

    degradations.add_jpg_compression = add_jpg_compression


# --------------------------------------------------------------------------------------------------- prefetching


def _fill(items: Iterator, waiting: queue.Queue, stop: threading.Event) -> None:
    """The prefetching thread: puts ("item", x) ..., then ("end", None) or ("error", exception)."""

    def put(entry: tuple[str, object]) -> None:
        while not stop.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    try:
        for item in items:
            put(("item", item))
            if stop.is_set():
                return
    except BaseException as exc:  # everything belongs to the trainer, who waits for it
        put(("error", exc))
    else:
        put(("end", None))


def _stop_thread(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    if thread is not threading.current_thread():
        thread.join(timeout=30)


class PrefetchGenerator:
    """Takes up to `num_prefetch_queue` items of an iterator ahead, in a thread.

    An exception of the iterator is raised at the item where it happened. The thread ends with the iterator, with
    `close()`, with this object, and before the interpreter does (a thread inside torch at exit aborts the process).
    """

    def __init__(self, generator: Iterator, num_prefetch_queue: int):
        self._waiting = queue.Queue(num_prefetch_queue)
        self._ended = False
        stop = threading.Event()
        # the thread must not hold this object, or it would never be collected
        thread = threading.Thread(target=_fill, args=(generator, self._waiting, stop), daemon=True)
        self.close = weakref.finalize(self, _stop_thread, stop, thread)
        thread.start()

    def __iter__(self) -> PrefetchGenerator:
        return self

    def __next__(self) -> object:
        if self._ended or not self.close.alive:
            raise StopIteration
        kind, value = self._waiting.get()
        if kind == "item":
            return value
        self._ended = True
        if kind == "error":
            raise value
        raise StopIteration


class CPUPrefetcher:
    """Hands out a loader's batches, and None after the last. Starts no workers before the first `next()` or
    `reset()`."""

    def __init__(self, loader: DataLoader):
        self.ori_loader = loader
        self.loader = None

    def next(self) -> dict | None:
        if self.loader is None:
            self.loader = iter(self.ori_loader)
        return next(self.loader, None)

    def reset(self) -> None:
        if isinstance(self.loader, PrefetchGenerator):
            self.loader.close()  # persistent workers serve one iterator at a time
        self.loader = iter(self.ori_loader)


def mend_prefetch() -> None:
    """prefetch_mode: cpu. An exception in the dataset ends the thread, and the trainer waits for ever; every epoch
    leaves a thread behind; with two processes one aborts at exit (SIGABRT). All loaders start their workers once too
    often."""
    prefetch_dataloader.PrefetchGenerator = PrefetchGenerator
    prefetch_dataloader.CPUPrefetcher = basicsr.train.CPUPrefetcher = CPUPrefetcher


# ---------------------------------------------------------------------------------------------------------- LMDB

_environments: dict[str, object] = {}
_owner = os.getpid()


def lmdb_environment(path: str | os.PathLike, *, readahead: bool = False) -> object:
    """The one read-only LMDB environment of this process for a path. Do not keep it across a fork: ask again.

    Raises:
        UserError: there is no LMDB at `path`.
    """
    import lmdb

    global _owner
    if _owner != os.getpid():
        # forked: LMDB forbids using the parent's environment, and opening it again while it is there. Closing affects
        # this process only.
        for environment in _environments.values():
            environment.close()
        _environments.clear()
        _owner = os.getpid()
    key = os.path.realpath(path)
    if key not in _environments:
        try:
            _environments[key] = lmdb.open(key, readonly=True, lock=False, readahead=readahead, create=False)
        except lmdb.Error as exc:
            raise UserError(f"cannot open the LMDB {str(path)!r}: {one_line(exc)}") from exc
    return _environments[key]


def mend_lmdb() -> None:
    """Two datasets on one LMDB fail at the first sample ("already open in this process"); a dataset with an open LMDB
    cannot be sent to a spawned worker; a missing key is a TypeError far away."""

    def __init__(
        self: LmdbBackend,
        db_paths: str | list[str],
        client_keys: str | list[str] = "default",
        readonly: bool = True,
        lock: bool = False,
        readahead: bool = False,
        **kwargs: object,
    ) -> None:
        if not readonly or lock or kwargs:
            raise UserError("io_backend: an LMDB is opened read-only and without locks; the only option is readahead")
        paths = db_paths if isinstance(db_paths, (list, tuple)) else [db_paths]
        keys = [client_keys] if isinstance(client_keys, str) else client_keys
        if len(keys) != len(paths):
            raise UserError(f"io_backend: {len(keys)} client_keys for {len(paths)} db_paths")
        self.db_paths = [str(path) for path in paths]
        self.readahead = readahead
        self._client = dict(zip(keys, self.db_paths))

    def get(self: LmdbBackend, filepath: object, client_key: str) -> bytes:
        path = self._client[client_key]
        with lmdb_environment(path, readahead=self.readahead).begin(write=False) as transaction:
            value = transaction.get(str(filepath).encode())
        if value is None:
            raise UserError(f"the LMDB {path!r} has no key {str(filepath)!r}")
        return value

    LmdbBackend.__init__ = __init__
    LmdbBackend.get = get


# -------------------------------------------------------------------------------------------------- broken input


def mend_broken_samples() -> None:
    """A file that is no image is "'NoneType' object has no attribute 'astype'", in BasicSR's image datasets: without
    its path."""

    def around(original: object, kinds: tuple[str, ...]) -> object:
        @functools.wraps(original)
        def __getitem__(self: object, index: int) -> dict:
            try:
                return original(self, index)
            except KeyError as exc:
                if exc.args[0] in self.opt:
                    raise
                raise UserError(f"dataset {self.opt['name']!r} lacks {exc.args[0]!r}") from exc
            except (AttributeError, cv2.error) as exc:
                paths = self.paths[index]
                for kind in kinds:
                    path = paths if isinstance(paths, str) else paths[f"{kind}_path"]
                    if _undecodable(self.file_client, path, kind):
                        raise UserError(f"corrupt image {path!r} ({kind})") from exc
                raise

        return __getitem__

    PairedImageDataset.__getitem__ = around(PairedImageDataset.__getitem__, ("gt", "lq"))
    SingleImageDataset.__getitem__ = around(SingleImageDataset.__getitem__, ("lq",))


def _undecodable(client: FileClient, path: str, kind: str) -> bool:
    try:
        return imfrombytes(client.get(path, kind)) is None
    except (AttributeError, cv2.error):
        return True


def mend_build_dataset() -> None:
    """Folders that do not match, a missing key of a dataset section and the like end in a traceback that does not say
    which dataset."""

    def around(build_dataset: object) -> object:
        @functools.wraps(build_dataset)
        def build(dataset_opt: dict) -> object:
            where = f"dataset {dataset_opt['name']!r} ({dataset_opt['phase']})"
            try:
                return build_dataset(dataset_opt)
            except KeyError as exc:
                raise UserError(f"{where} lacks {exc.args[0]!r}") from exc
            except (AssertionError, ValueError, OSError) as exc:
                raise UserError(one_line(f"{where}: {exc}")) from exc

        return build

    for module in (basicsr.train, basicsr.test):
        module.build_dataset = around(module.build_dataset)


MENDS = (mend_jpeg_quality, mend_prefetch, mend_lmdb, mend_broken_samples, mend_build_dataset)
