"""What is said of a dataset, so that one engine can prepare them all: where its files lie, how many, and what for.

    SUBSET = Subset(
        "train", count=2103, task="deblur", remove=("motion",), crop=Crop(512, 256),
        layouts=(Layout("as it unpacks", gt="train/{scene}/sharp/{name}", lq="train/{scene}/blur/{name}"),),
    )

A pattern is a path below some folder of the source, without the extension: the archive may have been unpacked at any
depth. `{scene}` stands for a part of a name, and the files of a pair agree in all of their fields. `{name:[0-9]+}`
restricts it by a regular expression, `{name:**}` may reach over folders, `{}` and `{:a|b}` are of no meaning for the
pair. Capitals make no difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Crop", "Dataset", "Layout", "Pattern", "Subset"]

_FIELD = re.compile(r"\{(\w*)(?::([^{}]*))?\}")


class Pattern:
    """A pattern of paths.

    Attributes:
        text: as it was written.
        fields: names of its fields, in their order.
    """

    def __init__(self, text: str):
        self.text = text
        folder, name = _split(text)
        self.fields = tuple(dict.fromkeys(name for name, _ in _FIELD.findall(text) if name))
        # some field reaches over folders: the folder's part and the name's cannot be told apart
        self._deep = any(body == "**" or "/" in body for _, body in _FIELD.findall(text))
        first = _FIELD.match(text)
        self._everything = first is not None and first[2] == "**"  # whatever lies in the source, from its root on
        seen: set[str] = set()
        if self._deep:
            base = "(?P<base>)" if self._everything else _BASE
            self._path = re.compile(base + _regex(text, seen), re.IGNORECASE)
        else:
            self._folder = re.compile(_BASE + (_regex(folder + "/", seen) if folder else ""), re.IGNORECASE)
            self._name = re.compile(_regex(name, seen), re.IGNORECASE)

    def search(self, folders: Mapping[str, Iterable[str]], above: str = "") -> dict[str, dict[tuple[str, ...], str]]:
        """Base folder -> values of the fields -> path, for all files that fit.

        Args:
            folders: folder ("" or ending with a slash) -> names of its images, with their extensions.
            above: the names of the folders that these lie in, as the pattern may begin there.
        """
        found: dict[str, dict[tuple[str, ...], str]] = {}
        above = "" if self._everything else above
        for folder, names in folders.items():
            outer = None if self._deep else self._folder.fullmatch(above + folder)
            if not self._deep and outer is None:
                continue
            for name in names:
                stem = name.rpartition(".")[0]
                if self._deep:
                    here = (self._path.fullmatch(above + folder + stem),)
                else:
                    here = (outer, self._name.fullmatch(stem))
                if here[-1] is not None:
                    values = {k: v for match in here for k, v in match.groupdict().items()}
                    base = values.pop("base")
                    found.setdefault(base, {})[tuple(values[one] for one in self.fields)] = folder + name
        return found

    def values(self, path: str) -> tuple[str, ...] | None:
        """The fields' values in a path with its extension, or None if it does not fit."""
        folder, slash, name = path.rpartition("/")
        found = self.search({folder + slash: [name]})
        return next((key for group in found.values() for key in group), None)

    def filled(self, values: Mapping[str, str]) -> str:
        """The path that these values stand for, to say what is missing."""
        return _FIELD.sub(lambda match: values.get(match[1], "*") if match[1] else _first(match[2]), self.text)


def _split(text: str) -> tuple[str, str]:
    """At the last slash that is not inside a field."""
    plain = _FIELD.sub(lambda match: "_" * len(match[0]), text)
    at = plain.rfind("/")
    return text[: max(at, 0)], text[at + 1 :]


def _first(choice: str | None) -> str:
    """An example of it, to be read by people; a regular expression is none."""
    first = (choice or "*").split("|")[0]
    return first if re.fullmatch(r"[\w/ -]*", first) else "*"


_BASE = r"(?P<base>(?:[^/]+/)*?)"


def _regex(text: str, seen: set[str]) -> str:
    parts, position = [], 0
    for match in _FIELD.finditer(text):
        name, body = match[1], match[2]
        parts.append(re.escape(text[position : match.start()]))
        position = match.end()
        body = ".+?" if body == "**" else body or ("[^/]+?" if name else "[^/]*?")
        parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{body})" if name else f"(?:{body})")
        if name:
            seen.add(name)
    return "".join([*parts, re.escape(text[position:])])


@dataclass(frozen=True, init=False)
class Layout:
    """One way in which the files of a subset may lie.

    Attributes:
        name: whose it is.
        files: role -> pattern. `gt` is the clean image; other roles (`lq`, `lq_x4`, `lq_left`) are degraded ones.
        optional: roles that may be missing as a whole.
        key: how an image is called in the prepared folder, in fields; default all fields, joined by "-".
        sorted_pairs: the names of a pair have nothing in common: files are paired in the order of their names.
        listed_in: name of a file that says which images belong to the subset.
        read_list: gives the gt paths of that file's text.
        list_needed: without the list, it cannot be known which images these are.
        spare_gt: clean images without a degraded one are another subset's.
        merge: the files lie in several places, and all of them belong to it.
        cut: the images are sub-images already.
    """

    name: str
    files: Mapping[str, Pattern]
    optional: frozenset[str]
    key: str | None
    sorted_pairs: bool
    listed_in: str | None
    read_list: Callable[[str], list[str]] | None
    list_needed: bool
    spare_gt: bool
    merge: bool
    cut: bool

    def __init__(
        self,
        name: str,
        files: Mapping[str, str] | None = None,
        *,
        optional: Iterable[str] = (),
        key: str | None = None,
        sorted_pairs: bool = False,
        listed_in: str | None = None,
        read_list: Callable[[str], list[str]] | None = None,
        list_needed: bool = True,
        spare_gt: bool = False,
        merge: bool = False,
        cut: bool = False,
        gt: str | None = None,
        lq: str | None = None,
    ):
        patterns = {"gt": gt, "lq": lq, **(files or {})}
        set_ = object.__setattr__
        set_(self, "name", name)
        set_(self, "files", {role: Pattern(text) for role, text in patterns.items() if text is not None})
        set_(self, "optional", frozenset(optional))
        set_(self, "key", key)
        set_(self, "sorted_pairs", sorted_pairs)
        set_(self, "listed_in", listed_in)
        set_(self, "read_list", read_list)
        set_(self, "list_needed", list_needed)
        set_(self, "spare_gt", spare_gt)
        set_(self, "merge", merge)
        set_(self, "cut", cut)
        known = set(self.files[self.key_role].fields)
        for role, pattern in self.files.items():
            if not sorted_pairs and not known.issuperset(pattern.fields):
                raise ValueError(
                    f"{pattern.text}: {self.key_role} does not have all of its fields, so {role} has no pair"
                )

    @property
    def key_role(self) -> str:
        """The role whose names tell all images apart: many degraded ones may have the same clean one."""
        spare = self.spare_gt  # else the first of equals, which is gt
        return max(self.files, key=lambda role: (len(self.files[role].fields), spare and role != "gt"))


@dataclass(frozen=True)
class Crop:
    """Sub-images for training: squares of `size` pixels of the clean image, `step` apart, the last ones at the edge."""

    size: int
    step: int


@dataclass(frozen=True)
class Subset:
    """A part of a dataset that is prepared into a folder of its own.

    Attributes:
        name: the folder.
        layouts: where its files may lie; the one with the most images is taken.
        count: the published number of images, or a number for each layout's name.
        task, remove, present: what its prompts ask for, as in a prompt file; `present` None: what `remove` says.
        say: ready prompts, where a degradation is none of the kinds that the bank of phrases knows.
        split: of the bank of phrases.
        scales: role -> how many times larger gt is; default 1.
        crop: sub-images; None keeps whole images.
        centre: gt is larger than lq, which shows its middle.
        reduce: scales for which `lq_x<scale>` is made from gt by MATLAB's bicubic, after gt was cut to a multiple
            of 12 pixels.
    """

    name: str
    layouts: tuple[Layout, ...]
    count: int | Mapping[str, int] | None = None
    task: str | None = None
    remove: tuple[str, ...] = ()
    present: tuple[str, ...] | None = None
    say: tuple[str, ...] = ()
    split: str = "train"
    scales: Mapping[str, int] = field(default_factory=dict)
    crop: Crop | None = None
    centre: bool = False
    reduce: tuple[int, ...] = ()

    def published(self, layout: Layout) -> int | None:
        return self.count if self.count is None or isinstance(self.count, int) else self.count.get(layout.name)

    def scale(self, role: str) -> int:
        return self.scales.get(role, 1)


@dataclass(frozen=True)
class Dataset:
    """Attributes: name, as in the command; title, as in papers; subsets; about, the text of its file."""

    name: str
    title: str
    subsets: tuple[Subset, ...]
    about: str = ""
