"""Requests written from what is in an image, without any model."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean
from prompt_mamba_arch.prompts.bank import BLUR, KINDS, SPLITS, Pattern, load
from prompt_mamba_arch.prompts.typing_habits import as_typed

__all__ = ["Request", "complaint", "for_kinds", "from_parameters", "labelled", "leave_alone", "phrasings", "unrelated"]

_BLURS = ("defocus", "motion")
_UNRELATED = (("chat", 0.3), ("traps", 0.15), ("edits", 0.35), ("effects", 0.2))
_MISSPELT = 0.12  # of the keywords

# frames are written for one thing: "{names} is fine"
_AGREEING = ("{names}", "{gone}")
_AGREEMENT = (
    ("is ", "are "),
    ("isn't", "aren't"),
    ("doesn't", "don't"),
    ("does", "do"),
    ("needs", "need"),
    ("belongs", "belong"),
    ("annoys", "annoy"),
    ("bothers", "bother"),
    ("ruins", "ruin"),
    ("spoils", "spoil"),
    ("disturbs", "disturb"),
    ("gives", "give"),
    ("makes", "make"),
    ("stays", "stay"),
    ("goes", "go"),
    ("has ", "have "),
    ("was ", "were "),
)
_JOINED = re.compile(r", | & | (?:and|plus|as well as|along with) ")
_TAIL = re.compile(r" (?:of|from|in|on|under|over|with|that) ")


class Request(NamedTuple):
    """A request and what it means.

    Attributes:
        remove: the kinds that it asks to remove; "sharpen it" asks for both blurs.
        keep: the kinds that it says shall stay.
        asks: "restoration", "nothing" (to leave all as it is) or "unrelated".
        everything: it asks to remove whatever is wrong (but for `keep`), without naming it.
    """

    text: str
    remove: frozenset[str]
    keep: frozenset[str]
    asks: str
    everything: bool = False


class _Thing(NamedTuple):
    """One item of a request: a file of the bank, and what is known of it in this image."""

    name: str
    params: Mapping[str, Any] | None = None
    severity: float | None = None

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(_BLURS if self.name == BLUR else (self.name,))


def from_parameters(
    recipe: Iterable[Mapping[str, Any]],
    remove: Collection[str],
    rng: random.Random,
    split: str = "train",
    *,
    severity: Mapping[str, float] | None = None,
    generic: bool = True,
) -> str:
    """A request to remove some of what was done to an image.

    Args:
        recipe: the steps `{"kind", "params", …}` that were applied. Phrases that fit only some parameters ("the date
            stamp") are used where the parameters agree.
        remove: the kinds to ask for, all of them in the recipe. Empty: a request to leave the image as it is.
            A part of the recipe's kinds: what is to go is named, and sometimes what shall stay, too.
        rng: all choices are its.
        split: whose phrasings: "train", "val" or "test".
        severity: kind -> severity in [0, 1]. With it, requests may say how strong the damage is ("heavy noise").
        generic: whether a request for all that is there may be "fix this photo". Say False where the recipe is not
            all that is in the image.

    Raises:
        UserError: an unknown kind or split, or `remove` has a kind that the recipe has not.
    """
    steps = {step["kind"]: step.get("params") or {} for step in recipe if step["kind"] != "none"}
    remove = _checked(remove, "remove")
    _checked(steps, "recipe")
    absent = remove.difference(steps)
    if absent:
        raise UserError(f"cannot write a request to remove {', '.join(sorted(absent))}: not in the recipe")
    keep = frozenset(steps).difference(remove)
    severity = severity or {}
    writer = _Writer(split, rng)
    if not remove:
        text = writer.leave_alone(writer.things(keep, (), steps, severity))
    else:
        # where no other blur is to stay, people do not say which blur they mean
        going = writer.things(remove, keep, steps, severity, merge=0.5)
        staying = writer.things(keep, remove, steps, severity, merge=0.5)
        text = writer.request(going, staying, everything=generic).text
    return as_typed(text, rng)


def for_kinds(remove: Collection[str], keep: Collection[str], rng: random.Random, split: str = "train") -> str:
    """A request to remove exactly these kinds, naming some of `keep` as what shall stay. Empty `remove`: to change
    nothing. Never a generic one.

    Raises:
        UserError: an unknown kind or split, or a kind in both.
    """
    return _labelled_for(_checked(remove, "remove"), _checked(keep, "keep"), rng, split, {}).text


def leave_alone(rng: random.Random, split: str = "train", keep: Collection[str] = ()) -> str:
    """A request to change nothing; it may name some of `keep`."""
    writer = _Writer(split, rng)
    return as_typed(writer.leave_alone(writer.things(_checked(keep, "keep"), ())), rng)


def complaint(rng: random.Random, split: str = "train") -> Request:
    """What is wrong, and not a word of what to do: "it's too dark"."""
    writer = _Writer(split, rng)
    thing = _Thing(rng.choice((*KINDS, BLUR)), None, rng.random())
    return Request(as_typed(writer.put(writer.statement(thing)), rng), thing.kinds, frozenset(), "restoration")


def unrelated(rng: random.Random, split: str = "train", section: str | None = None) -> str:
    """A sentence that asks for no restoration: conversation, other edits, effects to be added; or one of a section of
    the bank's file alone."""
    writer = _Writer(split, rng)
    if section is None:
        (section,) = rng.choices([name for name, _ in _UNRELATED], [weight for _, weight in _UNRELATED])
    return as_typed(writer.put(writer.pick("unrelated", section)), rng)


def phrasings(kind: str, split: str = "train") -> list[str]:
    """Every simple request of the bank about one kind, "blur" (which blur is left open), "everything", "leave_alone"
    or "unrelated": as it stands in the bank, without how it is wrapped and typed."""
    photos = photo_words(split)
    texts = templates(kind, split)
    return list(dict.fromkeys(t.replace("{photo}", photos[i % len(photos)]) for i, t in enumerate(texts)))


def photo_words(split: str) -> list[str]:
    """What an image is called in a request: "this photo"."""
    _check_split(split)
    return [text for pattern in load()[split]["frames"].phrases()["photo"] for text in pattern.expand()]


def templates(kind: str, split: str) -> list[str]:
    """As `phrasings`, with {photo} where the image is spoken of."""
    _check_split(split)
    names = (*KINDS, BLUR, "everything", "leave_alone", "unrelated")
    if kind not in names:
        raise UserError(f"the prompt bank has no phrasings for {kind!r}{did_you_mean(kind, names)}")
    frames = load()[split]["frames"].phrases()
    phrases = load()[split][kind].phrases()
    texts = [
        text
        for key, patterns in phrases.items()
        if key not in ("name", "keep", "named", "all_but")
        for pattern in patterns
        for text in pattern.expand()
    ]
    things = [text for pattern in phrases.get("name", ()) for text in pattern.expand()]
    for frame in frames["remove"]:
        for text in frame.expand():
            texts.extend(text.replace("{names}", thing) for thing in things)
    return texts


def labelled(rng: random.Random, split: str = "train") -> Request:
    """A random request with its meaning, for those who learn to read them."""
    kind = rng.random()
    if kind < 0.17:
        return Request(unrelated(rng, split), frozenset(), frozenset(), "unrelated")
    if kind < 0.25:
        keep = frozenset(rng.sample(KINDS, rng.choice((0, 0, 1, 2))))
        writer = _Writer(split, rng)
        things = writer.things(keep, (), merge=1.0)
        text = writer.leave_alone(things, named=bool(things))
        return Request(as_typed(text, rng), frozenset(), _kinds(things), "nothing")
    severity = {kind: rng.random() for kind in KINDS} if rng.random() < 0.7 else {}
    if kind < 0.33:
        keep = frozenset(rng.sample(KINDS, rng.choice((0, 0, 0, 1, 1, 2))))
        writer = _Writer(split, rng)
        request = writer.everything(writer.things(keep, (), merge=1.0))
        return request._replace(text=as_typed(request.text, rng))
    count = rng.choice((1, 1, 1, 1, 1, 2, 2, 3))
    pool = [*KINDS, BLUR]
    drawn = rng.sample(pool, count + rng.choice((0, 0, 1, 1, 2)))
    remove = {kind for name in drawn[:count] for kind in _Thing(name).kinds}
    keep = {kind for name in drawn[count:] for kind in _Thing(name).kinds} - remove
    return _labelled_for(frozenset(remove), frozenset(keep), rng, split, severity)


def _labelled_for(
    remove: frozenset, keep: frozenset, rng: random.Random, split: str, severity: Mapping[str, float]
) -> Request:
    both = remove & keep
    if both:
        raise UserError(f"a request cannot ask to remove and to keep {', '.join(sorted(both))}")
    writer = _Writer(split, rng)
    if not remove:
        things = writer.things(keep, (), merge=0.5)
        return Request(as_typed(writer.leave_alone(things), rng), frozenset(), keep, "nothing")
    request = writer.request(
        writer.things(remove, keep, severity=severity), writer.things(keep, remove), everything=False
    )
    return request._replace(text=as_typed(request.text, rng))


class _Writer:
    """Draws one request from one split."""

    def __init__(self, split: str, rng: random.Random):
        _check_split(split)
        self.rng = rng
        self.bank = load()[split]
        self.frames = self.bank["frames"].phrases()

    def things(
        self,
        kinds: Collection[str],
        others: Collection[str],
        steps: Mapping[str, Mapping] | None = None,
        severity: Mapping[str, float] | None = None,
        merge: float = 0.0,
    ) -> list[_Thing]:
        """The items that name `kinds`, in random order.

        Both blurs become one item, "blur", most of the time; a single one with the probability `merge`, unless the
        other blur is one of `others`.
        """
        severity = severity or {}
        names = sorted(kinds, key=KINDS.index)
        blurs = [kind for kind in names if kind in _BLURS]
        things = [
            _Thing(kind, None if steps is None else steps[kind], severity.get(kind))
            for kind in names
        ]  # fmt: skip
        if blurs and not any(kind in _BLURS for kind in others):
            if self.rng.random() < (0.75 if len(blurs) == 2 else merge):
                known = [severity[kind] for kind in blurs if kind in severity]
                things = [thing for thing in things if thing.name not in _BLURS]
                things.append(_Thing(BLUR, None, max(known) if known else None))
        if len(things) > 1:
            self.rng.shuffle(things)
        return things

    # -- requests

    def request(self, going: Sequence[_Thing], staying: Sequence[_Thing], everything: bool) -> Request:
        """A request to remove `going`, of which there is at least one, from an image that also has `staying`."""
        rng = self.rng
        remove = _kinds(going)
        if everything and rng.random() < (0.12 if staying else 0.16 if len(going) == 1 else 0.25):
            return self.everything(staying)
        mention = rng.random() if staying else 1.0
        if mention < 0.5:
            named = list(staying[: rng.choice((1, 1, 2))])
            return Request(self.put(self._keeping(going, named)), remove, _kinds(named), "restoration")
        if mention < 0.75 or rng.random() < 0.06:
            return Request(self.put(self._only(going)), remove, frozenset(), "restoration")
        return Request(self.put(self._plain(going)), remove, frozenset(), "restoration")

    def everything(self, staying: Sequence[_Thing]) -> Request:
        """A request to remove all but `staying`."""
        phrases = self.bank["everything"].phrases()
        keep = _kinds(staying)
        if staying:
            text = self._fill(self._draw(phrases["all_but"]), names=self._names(staying, "keep"))
        else:
            style = self.rng.random()
            if style < 0.5:
                text = self._fill(self._draw(self.frames["ask"]), do=self._draw(phrases["do"]))
            elif style < 0.75:
                text = self._fill(self._draw(self.frames["plea"]), say=self._draw(phrases["say"]))
            else:
                text = self._keyword(phrases)
        return Request(self.put(text), frozenset(KINDS) - keep, keep, "restoration", everything=True)

    def leave_alone(self, things: Sequence[_Thing], named: bool | None = None) -> str:
        phrases = self.bank["leave_alone"].phrases()
        if things and (self.rng.random() < 0.4 if named is None else named):
            return self.put(self._fill(self._draw(phrases["named"]), names=self._names(things[:2], "keep")))
        return self.put(self._draw(phrases["say"]))

    def _plain(self, going: Sequence[_Thing]) -> str:
        rng, frames = self.rng, self.frames
        style = rng.random()
        if style < 0.13 and all(thing.severity is not None for thing in going):
            levels = [self._draw(self._phrases(thing)[f"level_{_level(thing.severity)}"]) for thing in going]
            return self._fill(self._draw(frames["describe"]), levels=", ".join(levels))
        if style < 0.23:
            joiner = self._draw(frames["and_bare"])
            return joiner.join([self._keyword(self._phrases(thing)) for thing in going])
        if style < (0.37 if len(going) == 1 else 0.5):
            return self._fill(self._draw(frames["remove"]), names=self._names(going, "name"))
        if style < 0.57:
            joiner = self._draw(frames["and_say"])
            say = joiner.join([self.statement(thing) for thing in going])
            return self._fill(self._draw(frames["plea"]), say=say)
        if style < 0.67 and len(going) < 3:
            say, do = self.statement(going[0]), self._imperative(going[-1:])
            if len(going) == 1:
                return self._fill(self._draw(frames["why"]), say=say, do=do)
            return self._draw(frames["and_say"]).join((say, do))
        return self._fill(self._draw(frames["ask"]), do=self._imperative(going))

    def _only(self, going: Sequence[_Thing]) -> str:
        if self.rng.random() < 0.5:
            return self._fill(self._draw(self.frames["only"]), names=self._names(going, "name"))
        return self._fill(self._draw(self.frames["only_do"]), do=self._imperative(going))

    def _keeping(self, going: Sequence[_Thing], staying: Sequence[_Thing]) -> str:
        names = self._names(staying, "keep")
        style = self.rng.random()
        if style < 0.35:
            gone = self._names(going, "name")
            return self._fill(self._draw(self.frames["keep_name"]), gone=gone, names=names)
        if style < 0.45:
            wish = self._keyword(self._phrases(going[0])) if len(going) == 1 else self._imperative(going)
        elif style < 0.6:
            wish = "remove the noise?"
            while wish.endswith("?"):  # a question cannot go on with "but keep"
                wish = self._fill(self._draw(self.frames["remove"]), names=self._names(going, "name"))
        else:
            wish = self._imperative(going)
        return self._fill(self._draw(self.frames["keep"]), wish=wish, names=names)

    # -- parts of requests

    def _phrases(self, thing: _Thing) -> dict[str, tuple[Pattern, ...]]:
        return self.bank[thing.name].phrases(thing.params)

    def _imperative(self, going: Sequence[_Thing]) -> str:
        joiner = self._draw(self.frames["and_do"]) if len(going) > 1 else ""
        return joiner.join([self._draw(self._phrases(thing)["do"]) for thing in going])

    def statement(self, thing: _Thing) -> str:
        phrases = self._phrases(thing)
        if thing.severity is not None and self.rng.random() < 0.4:
            stronger = phrases.get(f"say_{_level(thing.severity)}")  # there are none for moderate damage
            if stronger:
                return self._draw(stronger)
        return self._draw(phrases["say"])

    def _keyword(self, phrases: Mapping[str, tuple[Pattern, ...]]) -> str:
        misspelt = phrases["misspelt"] and self.rng.random() < _MISSPELT
        return self._draw(phrases["misspelt" if misspelt else "bare"])

    def _names(self, things: Sequence[_Thing], key: str) -> str:
        names = []
        for thing in things:
            phrases = self._phrases(thing)
            use_keep = key == "keep" and self.rng.random() < 0.6
            names.append(self._draw(phrases["keep" if use_keep else "name"]))
        joiner = self._draw(self.frames["and_name"]) if len(names) > 1 else ""
        return joiner.join((", ".join(names[:-1]), names[-1])) if len(names) > 2 else joiner.join(names)

    def _draw(self, patterns: Sequence[Pattern]) -> str:
        return patterns[int(self.rng.random() * len(patterns))].draw(self.rng)

    def pick(self, name: str, key: str) -> str:
        """A phrase of one file, variants included."""
        return self._draw(self.bank[name].phrases()[key])

    def put(self, text: str) -> str:
        """The text with its word for the picture, the same all through."""
        return text.replace("{photo}", self._draw(self.frames["photo"])) if "{photo}" in text else text

    @staticmethod
    def _fill(frame: str, **parts: str) -> str:
        for slot, text in parts.items():
            slot = "{" + slot + "}"
            if slot in _AGREEING and _is_plural(text):
                for one, many in _AGREEMENT:
                    frame = frame.replace(f"{slot} {one}", f"{slot} {many}")
            frame = frame.replace(slot, text)
        return frame


def _kinds(things: Iterable[_Thing]) -> frozenset[str]:
    return frozenset(kind for thing in things for kind in thing.kinds)


def _is_plural(names: str) -> bool:
    if _JOINED.search(names):
        return True
    head = _TAIL.split(names)[0]  # "the loss of details" is one, "the drops of rain" are many
    return head.endswith("s") and not head.endswith(("ss", "us"))


def _level(severity: float) -> str:
    return "slight" if severity < 1 / 3 else "moderate" if severity < 2 / 3 else "heavy"


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"the prompt bank's split must be {', '.join(SPLITS)}, not {split!r}")


@functools.lru_cache(maxsize=4096)
def _known(kinds: frozenset[str], where: str) -> frozenset[str]:
    check_keys(dict.fromkeys(kinds), KINDS, where)
    return kinds


def _checked(kinds: Iterable[str], where: str) -> frozenset[str]:
    return _known(frozenset((kinds,) if isinstance(kinds, str) else kinds), where)
