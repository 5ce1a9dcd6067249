"""What a wish was understood as, and the sentence that says what a person has corrected it to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError, did_you_mean
from prompt_mamba_arch.text import Intent, describe, read_intent

__all__ = ["LABELS", "Understood", "understand", "write_request"]

# kind -> what stands beside its box
LABELS = {
    "noise": "noise, grain",
    "defocus": "out of focus",
    "motion": "motion blur",
    "jpeg": "JPEG blocks",
    "lowres": "low resolution",
    "rain": "rain",
    "haze": "haze, fog",
    "lowlight": "darkness",
    "holes": "scratches, holes",
}
# kind -> how a request calls it
_NAMES = {
    "noise": "the image noise",
    "defocus": "the focus blur",
    "motion": "the motion blur",
    "jpeg": "the compression artifacts",
    "lowres": "the low resolution",
    "rain": "the rain",
    "haze": "the haze",
    "lowlight": "the darkness",
    "holes": "the scratches",
}
_HALF = 0.5
_SURE = 0.8


@dataclass(frozen=True)
class Understood:
    """A wish as it was understood.

    Attributes:
        prompt: the wish.
        sentence: what it was taken for, in plain words, with probabilities.
        remove, keep: kinds in the order of `KINDS`: those that shall go, those that are said to stay.
        asks: "restoration", "nothing" or "unrelated".
        sure: that every one of these is more than a guess.
    """

    prompt: str
    sentence: str
    remove: tuple[str, ...]
    keep: tuple[str, ...]
    asks: str
    sure: bool


def understand(prompt: str) -> Understood:
    """Reads a wish; an empty one asks for everything.

    Raises:
        UserError: the sentence encoder is not installed.
    """
    prompt = prompt.encode("utf-8", "replace").decode()
    return _understood(read_intent(prompt))


def _understood(intent: Intent) -> Understood:
    asks = intent.meant
    keep = tuple(kind for kind in KINDS if intent.keep.get(kind, 0) >= _HALF)
    remove = ()
    if asks == "restoration":
        remove = tuple(kind for kind in KINDS if intent.remove.get(kind, 0) >= _HALF and kind not in keep)
    said = [intent.asks[asks], *(intent.keep[kind] for kind in keep)]
    said += [intent.everything] if intent.everything >= _HALF else [intent.remove[kind] for kind in remove]
    clear = asks != "restoration" or bool(remove)
    return Understood(intent.prompt, describe(intent), remove, keep, asks, clear and min(said) >= _SURE)


def write_request(remove: Collection[str], keep: Collection[str] = ()) -> str:
    """The sentence for kinds that were ticked: "remove the image noise and the rain, keep the haze".

    All kinds and nothing to keep is the empty sentence, which asks for everything.

    Raises:
        UserError: an unknown kind, one in both, or none that shall go.
    """
    for kind in (*remove, *keep):
        if kind not in KINDS:
            raise UserError(f"there is no kind {kind!r}{did_you_mean(kind, KINDS)}")
        if kind in remove and kind in keep:
            raise UserError(f"{_NAMES[kind]} can be removed or kept, not both")
    if not remove:
        raise UserError("nothing is ticked that shall go; tick at least one thing")
    if set(remove) == set(KINDS):
        return ""
    sentence = f"remove {_listed([kind for kind in KINDS if kind in remove])}"
    return f"{sentence}, keep {_listed([kind for kind in KINDS if kind in keep])}" if keep else sentence


def _listed(kinds: Sequence[str]) -> str:
    names = [_NAMES[kind] for kind in kinds]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
