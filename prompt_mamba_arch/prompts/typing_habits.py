"""How people type: capitals or none, full stops or none, apostrophes left out, wrong letters."""

from __future__ import annotations

import random
import re

__all__ = ["as_typed"]

_SENTENCE = re.compile(r"([.?!] )([a-z])")
_NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wqrteiuopisafgdhklkxzvcbmn"))


def as_typed(text: str, rng: random.Random) -> str:
    """The text as one of many people would type it; readable: two wrong letters at most, none in short words."""
    habit = rng.random()
    if habit < 0.38:  # with care
        text = _SENTENCE.sub(lambda found: found[1] + found[2].upper(), text[0].upper() + text[1:])
        return text if text[-1] in ".?!/]" or rng.random() < 0.35 else text + "."
    if habit < 0.68:  # as it is in the bank
        return text.rstrip("?") if rng.random() < 0.4 else text
    text = text.lower().rstrip("?.")
    if habit < 0.70:
        return text.upper()
    if habit < 0.72:
        return text + rng.choice(("!", "!!", "...", "??", " !!!"))
    text = text.replace("'", "")
    if rng.random() < 0.5:
        text = text.replace(",", "")
    if habit > 0.88:
        for _ in range(1 if len(text) < 40 else rng.randint(1, 2)):
            text = _slip(text, rng)
    return text


def _slip(text: str, rng: random.Random) -> str:
    """One wrong letter, after the first one of a word of five letters or more."""
    places = [found.start() for found in re.finditer(r"(?<=[a-z])[a-z](?=[a-z])", text)]
    words = [found.span() for found in re.finditer(r"[a-z]{5,}", text)]
    places = [place for place in places if any(start < place < end for start, end in words)]
    if not places:
        return text
    at = rng.choice(places)
    before, letter, after = text[:at], text[at], text[at + 1 :]
    kind = rng.random()
    if kind < 0.35:
        return before + after
    if kind < 0.7:
        return before + after[0] + letter + after[1:]
    if kind < 0.85:
        return before + letter + letter + after
    return before + _NEIGHBOURS.get(letter, letter) + after
