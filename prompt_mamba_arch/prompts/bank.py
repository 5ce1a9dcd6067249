"""Reads the prompt bank: the YAML files in the folder `bank`. Its README.md tells how they are written."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from prompt_mamba_arch.errors import UserError, check_keys, one_line

__all__ = ["BLUR", "KINDS", "SPLITS", "Pattern", "Section", "load"]

SPLITS = ("train", "val", "test")
KINDS = ("noise", "defocus", "motion", "jpeg", "lowres", "rain", "haze", "lowlight", "holes")
BLUR = "blur"  # the file of requests that ask for defocus and motion both

_FOLDER = Path(__file__).with_name("bank")
_KIND_KEYS = (
    *("name", "keep", "do", "say", "say_slight", "say_heavy", "bare", "misspelt"),
    *("level_slight", "level_moderate", "level_heavy"),
)
_KEYS = {
    "frames": (
        *("photo", "ask", "plea", "why", "remove", "only", "only_do", "keep", "keep_name", "describe"),
        *("and_do", "and_say", "and_name", "and_bare"),
    ),
    "everything": ("do", "say", "bare", "misspelt", "all_but"),
    "leave_alone": ("say", "named"),
    "unrelated": ("chat", "traps", "edits", "effects"),
}  # fmt: skip


class Pattern:
    """A phrase with choices, as "remove the (noise|grain)( please|)". Choices may be nested."""

    __slots__ = ("_parts",)

    def __init__(self, text: str):
        parts, rest = _parse(text, 0)
        if rest != len(text):
            raise ValueError(f"a ')' without its '(' in {text!r}")
        self._parts = parts

    def draw(self, rng: random.Random) -> str:
        parts = self._parts
        return parts[0] if len(parts) == 1 and type(parts[0]) is str else _draw(parts, rng)

    def expand(self) -> Iterator[str]:
        """All that `draw` can give."""
        return _expand(self._parts)


def _parse(text: str, start: int) -> tuple[tuple, int]:
    """The sequence that begins at `start`, up to the end, a '|' or a ')' at its own depth, and where that is.
    A sequence is a tuple of strings and of choices; a choice is a tuple of sequences."""
    parts: list = []
    literal = start
    position = start
    while position < len(text) and text[position] not in "|)":
        if text[position] != "(":
            position += 1
            continue
        if position > literal:
            parts.append(text[literal:position])
        options = []
        while True:
            option, position = _parse(text, position + 1)
            options.append(option)
            if position == len(text):
                raise ValueError(f"a '(' without its ')' in {text!r}")
            if text[position] == ")":
                break
        parts.append(tuple(options))
        position += 1
        literal = position
    if position > literal:
        parts.append(text[literal:position])
    return tuple(parts), position


def _draw(parts: tuple, rng: random.Random) -> str:
    return "".join([p if type(p) is str else _draw(p[int(rng.random() * len(p))], rng) for p in parts])


def _expand(parts: tuple) -> Iterator[str]:
    options = [(p,) if isinstance(p, str) else [text for o in p for text in _expand(o)] for p in parts]
    return map("".join, itertools.product(*options))


class Variant(NamedTuple):
    when: dict[str, tuple]
    phrases: dict[str, tuple[Pattern, ...]]


class Section:
    """One split of one file.

    Variants are phrases that fit only some images: "the film grain" where the noise's model is film.
    """

    def __init__(self, phrases: dict[str, tuple[Pattern, ...]], variants: tuple[Variant, ...] = ()):
        self._variants = variants
        self._base = phrases
        self._merged: dict[tuple[bool, ...], dict[str, tuple[Pattern, ...]]] = {}

    def phrases(self, params: Mapping[str, Any] | None = None) -> dict[str, tuple[Pattern, ...]]:
        """Key -> phrases that fit an image with these parameters of the degradation; None: all phrases."""
        if not self._variants:
            return self._base
        fits = tuple(
            params is None or all(params.get(name) in values for name, values in variant.when.items())
            for variant in self._variants
        )
        if fits not in self._merged:
            merged = dict(self._base)
            for variant, fit in zip(self._variants, fits):
                for key, patterns in variant.phrases.items() if fit else ():
                    merged[key] = merged.get(key, ()) + patterns
            self._merged[fits] = merged
        return self._merged[fits]


@functools.cache
def load(folder: Path = _FOLDER) -> dict[str, dict[str, Section]]:
    """split -> name of the file without suffix (a kind, "blur", "frames", …) -> Section. Read once per process.

    Raises:
        UserError: a file is missing or is not as the README beside it says.
    """
    files = {name: _read(folder / f"{name}.yaml") for name in (*KINDS, BLUR, *_KEYS)}
    return {split: {name: files[name][split] for name in files} for split in SPLITS}


def _read(path: Path) -> dict[str, Section]:
    # libyaml's loader is ten times as fast, where PyYAML was built with it
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as error:
        raise UserError(f"prompt bank: cannot read {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"prompt bank: {path} is not YAML: {one_line(error)}") from None
    check_keys(content, SPLITS, str(path))
    keys = _KEYS.get(path.stem, _KIND_KEYS)
    sections = {}
    for split in SPLITS:
        where = f"{path}, {split}"
        section = content.get(split)
        check_keys(section, (*keys, "variants"), where)
        variants = tuple(_variant(variant, where) for variant in section.get("variants", ()))
        phrases = {key: _patterns(section.get(key, []), f"{where}.{key}") for key in keys}
        for key in keys:
            if not phrases[key] and not key.startswith(("say_", "misspelt")):
                raise UserError(f"{where}: there must be phrases under '{key}'")
        sections[split] = Section(phrases, variants)
    return sections


def _variant(variant: Any, where: str) -> Variant:
    where = f"{where}.variants"
    check_keys(variant, (*_KIND_KEYS, "when"), where)
    when = variant.get("when")
    if not isinstance(when, Mapping) or not when or not all(isinstance(values, list) for values in when.values()):
        raise UserError(f"{where}: 'when' must be like {{shape: [text]}}, not {when!r}")
    phrases = {key: _patterns(value, f"{where}.{key}") for key, value in variant.items() if key != "when"}
    return Variant({name: tuple(values) for name, values in when.items()}, phrases)


def _patterns(value: Any, where: str) -> tuple[Pattern, ...]:
    if not isinstance(value, list):
        raise UserError(f"{where} must be a list of texts")
    for text in value:
        if not isinstance(text, str) or not text:
            raise UserError(f"{where} must be a list of texts; {text!r} is none (put it in quotes?)")
    try:
        return tuple(Pattern(text) for text in value)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
