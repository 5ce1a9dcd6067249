"""The network, the people at it, and what they may ask: all that the page does, without the page."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from prompt_mamba_arch.app.limits import Limits
from prompt_mamba_arch.app.region import blend, box_around, read_mask, soften
from prompt_mamba_arch.app.session import Session, Sessions, Version
from prompt_mamba_arch.app.turns import Turns
from prompt_mamba_arch.app.wish import Understood, understand, write_request
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.restore import MIN_TILE, Restorer
from prompt_mamba_arch.text import Wish

__all__ = ["Stopped", "Workshop"]

# At most so many pixels a side at a time: progress is told, and a stop heeded, between tiles
_TILE = 768
_SOFT = 100  # a region's edge is the image's longer side over this


class Stopped(UserError):
    """The person did not want to wait any longer, or has left."""


class Workshop:
    """A network that many people use, each with their own photograph.

    Args:
        restorer: the network.
        limits: what one may ask.
        folder: where photographs lie while they are worked on (default: the system's folder for such files).
        clock: seconds.
    """

    def __init__(
        self,
        restorer: Restorer,
        *,
        limits: Limits | None = None,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.restorer = restorer
        self.limits = limits or Limits()
        self.sessions = Sessions(Path(folder or tempfile.gettempdir()), self.limits, clock)
        self._clock = clock
        self._turns = Turns(self.limits.jobs, self.limits.waiting)
        restorer.embed("a word" if restorer.takes_prompts else None)  # loads the sentence encoder, before threads do

    def understand(self, prompt: str) -> Understood:
        """Raises UserError for a wish that is too long."""
        self.limits.check_prompt(prompt)
        return understand(prompt)

    def request(self, prompt: str, remove: Collection[str], keep: Collection[str]) -> tuple[str, bool]:
        """The sentence that the network gets, and whether it is the person's correction: the wish itself where the
        boxes say what was understood anyway, else one that says what the boxes say.

        Raises:
            UserError: a wish that is too long, or boxes that say nothing.
        """
        known = self.understand(prompt)
        if set(remove) == set(known.remove) and set(keep) == set(known.keep):
            return prompt, False
        return write_request(remove, keep), True

    def restore(
        self,
        session: Session,
        prompt: str,
        *,
        wish: Wish | None = None,
        strength: float = 1.0,
        mask: str = "",
        progress: Callable[[int, int], None] | None = None,
        waiting: Callable[[int], None] = lambda ahead: None,
    ) -> Version:
        """Does a request to the session's base, when it is its turn.

        Args:
            prompt: what to do; "" for whatever is wrong.
            wish: what the person has ticked: in place of what the prompt is read as, for a network that takes it.
            strength: 0 to 2.
            mask: the brushed region, as `read_mask` takes it.
            progress: called with (tiles done, tiles in all).
            waiting: called with the number of those ahead.

        Raises:
            Stopped: the person has stopped it. UserError: too many wait already, it took too long, it would become too
            large, or what `Restorer.restore` refuses.
        """
        self.limits.check_prompt(prompt)
        session.stopped.clear()

        def check() -> None:
            if session.stopped.is_set() or session.closed:
                raise Stopped("stopped; nothing was changed")

        with self._turns.turn(check, waiting):
            return self._restore(session, prompt, wish, strength, mask, progress, check)

    def _restore(self, session, prompt: str, wish: Wish | None, strength: float, mask: str, progress, check) -> Version:
        restorer, base = self.restorer, session.base
        height, width = base.pixels.shape[:2]
        region = read_mask(mask, (height, width))
        if region is not None and restorer.upscale > 1:
            raise UserError("this network enlarges, so it cannot restore a part alone; clear the brush")
        self.limits.check_pixels(height * restorer.upscale, width * restorer.upscale, "the result")
        start = self._clock()

        def report(done: int, tiles: int) -> None:
            check()
            if self._clock() - start > self.limits.seconds and done < tiles:
                raise UserError(
                    f"this took longer than {self.limits.seconds:.0f} seconds and was stopped; brush a region, or take "
                    "a smaller photo"
                )
            if progress is not None:
                progress(done, tiles)

        pixels = base.pixels
        top, bottom, left, right = (0, height, 0, width) if region is None else box_around(region)
        part = np.ascontiguousarray(pixels[top:bottom, left:right])
        tile = max(min(restorer.tile_side(part.shape[:2]), _TILE), MIN_TILE)
        asked = wish if wish is not None and restorer.told_wishes else prompt or None
        restored = restorer.restore(part, asked, strength, tile, report, look=True)
        if region is not None:
            weight = soften(region, max(height, width) / _SOFT)[top:bottom, left:right]
            whole = np.array(pixels)
            whole[top:bottom, left:right] = blend(part, restored, weight)
            restored = whole
        return session.add(restored, " ".join(prompt.split()) or "whatever is wrong")

    def close(self) -> None:
        """Deletes every photograph."""
        self.sessions.close()
