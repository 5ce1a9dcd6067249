"""Wishes: which kinds of degradation shall go, as a network is told it.

A sentence's embedding says a great deal that has nothing to do with the photograph, and "remove the grain but not the
rain" lies next to "remove the rain but not the grain". So what a sentence asks for is read once, word by word
(`read_intent`), and a network that was trained on wishes (`PromptMamba(wishes=True)`) is told only that. It is told the
same whatever the phrasing, and what a person is shown as understood is what the network does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from prompt_mamba_arch.errors import UserError, did_you_mean
from prompt_mamba_arch.text.intent import BLURS, Intent

__all__ = ["WISHES", "Wish", "wish_vectors"]

# The order is part of trained networks: append, never reorder.
WISHES = ("noise", "defocus", "motion", "jpeg", "lowres", "rain", "haze", "lowlight", "holes")
_PHRASES = {
    "defocus": "the focus blur",
    "motion": "the motion blur",
    "jpeg": "the JPEG artifacts",
    "lowres": "the low resolution",
    "lowlight": "the darkness",
    "holes": "the scratches and missing parts",
}


@dataclass(frozen=True)
class Wish:
    """What shall go.

    Attributes:
        remove: the kinds; empty: change nothing; None: whatever is wrong (blind restoration).

    Raises:
        UserError: there is no such kind.
    """

    remove: frozenset[str] | None = None

    def __post_init__(self):
        if self.remove is None:
            return
        if isinstance(self.remove, str) or not isinstance(self.remove, Iterable):
            raise TypeError("Wish takes a set of kinds, or None for whatever is wrong")
        object.__setattr__(self, "remove", frozenset(self.remove))
        for kind in sorted(self.remove.difference(WISHES)):
            raise UserError(f"no such kind: {kind!r}; the kinds are {', '.join(WISHES)}{did_you_mean(kind, WISHES)}")

    @classmethod
    def of(cls, intent: Intent) -> Wish:
        """The likeliest wish. A restoration that is asked for, but not clearly of what, is of the likeliest kind."""
        if intent.meant != "restoration":
            return cls(())
        staying = any(value >= 0.5 for value in intent.keep.values())
        if intent.everything >= 0.5 and not staying:
            return cls()
        return cls(intent.named)

    def vector(self, text_dim: int) -> Tensor:
        """(text_dim,) float32, in place of a sentence's embedding. Zeros for whatever is wrong.

        The sum of one wave for "this is a wish" and one for each kind; the waves are cosines, orthogonal to one another
        and alike to no sentence, so the kinds can be told apart without loss. Both blurs together are told as half of
        each: who says "blur" seldom knows which it is, and a network that looks for both in full sharpens for neither.

        Raises:
            UserError: `text_dim` is too small for so many kinds.
        """
        return wish_vectors([self], text_dim)[0]

    def sentence(self) -> str:
        """Plain English, for people and for networks that read sentences: "remove the noise and the rain"."""
        if self.remove is None:
            return "remove whatever is wrong"
        if not self.remove:
            return "leave it as it is"
        named = [_PHRASES.get(kind, f"the {kind}") for kind in WISHES if kind in self.remove]
        return "remove " + " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def wish_vectors(wishes: Iterable[Wish], text_dim: int) -> Tensor:
    """(B, text_dim): `Wish.vector` of each."""
    return torch.tensor([_told(wish.remove) for wish in wishes]) @ _waves(text_dim)


def _told(remove: frozenset[str] | None) -> list[float]:
    """That it is a wish, and how much of each kind shall go."""
    if remove is None:
        return [0.0] * (1 + len(WISHES))
    blur = 0.5 if remove.issuperset(BLURS) else 1.0
    return [1.0, *(float(kind in remove) * (blur if kind in BLURS else 1.0) for kind in WISHES)]


def _waves(text_dim: int) -> Tensor:
    """(1 + kinds, text_dim): rows of the orthonormal cosine transform."""
    count = 1 + len(WISHES)
    if text_dim <= count:
        raise UserError(f"wishes need a text_dim greater than {count}, not {text_dim}")
    place = (torch.arange(text_dim, dtype=torch.float64) + 0.5) * (math.pi / text_dim)
    rows = math.sqrt(2 / text_dim) * torch.cos(torch.arange(1, count + 1, dtype=torch.float64)[:, None] * place)
    return rows.float()
