"""Who may work now, and who waits: first come, first served, and no more than fit."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

from prompt_mamba_arch.errors import UserError

__all__ = ["Turns"]

_LOOK = 0.5  # seconds between looks at whether somebody still wants to wait


class Turns:
    """So many threads at a time, the others in a queue of limited length.

    Args:
        jobs: threads at a time.
        waiting: threads in the queue.
    """

    def __init__(self, jobs: int, waiting: int):
        self._free, self._room = jobs, waiting
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(
        self, go_on: Callable[[], None] = lambda: None, tell: Callable[[int], None] = lambda ahead: None
    ) -> Iterator[None]:
        """Waits for a turn, which lasts as long as the block.

        Args:
            go_on: called now and then while waiting; what it raises ends the waiting.
            tell: called with the number of those ahead, whenever that changes.

        Raises:
            UserError: the queue is full.
        """
        mine, told = object(), None
        with self._changed:
            if len(self._queue) - self._free >= self._room:
                raise UserError(f"{len(self._queue)} photos are waiting already; try again in a few minutes")
            self._queue.append(mine)
        try:
            while True:
                with self._changed:
                    ahead = self._queue.index(mine)
                    if ahead == 0 and self._free > 0:
                        self._queue.popleft()
                        self._free -= 1
                        self._changed.notify_all()
                        break
                    if ahead == told:
                        self._changed.wait(_LOOK)
                go_on()
                if ahead != told:
                    told = ahead
                    tell(ahead)
        except BaseException:
            with self._changed, contextlib.suppress(ValueError):
                self._queue.remove(mine)
                self._changed.notify_all()
            raise
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
