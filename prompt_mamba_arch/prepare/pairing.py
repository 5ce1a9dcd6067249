"""Finds the images of a subset in a tree, and says what is missing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prepare.spec import Layout, Subset
from prompt_mamba_arch.prepare.tree import Tree

__all__ = ["Found", "Item", "find"]


@dataclass(frozen=True)
class Item:
    """Attributes: key, the name in the prepared folder; files, role -> path below the source."""

    key: str
    files: dict[str, str]


@dataclass
class Found:
    """What there is of a subset.

    Attributes:
        layout: the one that fits best; None if no file of the subset is there.
        items: whole pairs, in the order of their keys.
        roles: those that the items have.
        problems: what is missing or too much, one line each.
        notes: what is worth a line and no fault.
    """

    subset: Subset
    layout: Layout | None = None
    items: list[Item] = field(default_factory=list)
    roles: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find(tree: Tree, subset: Subset, *, partial: bool = False) -> Found:
    """Looks for the subset in every layout and takes the one with the most pairs.

    Args:
        partial: fewer images than published are no fault.
    """
    tried = [_find(tree, subset, layout) for layout in subset.layouts]
    found = max(tried, key=lambda one: (len(one.items), len(one.problems)), default=Found(subset))
    if not found.items and not found.problems:
        return Found(subset)
    published = None if partial else subset.published(found.layout)
    if published is not None and len(found.items) != published:
        what = "images" if found.roles == ("gt",) else "pairs"
        found.problems.insert(0, f"{len(found.items)} {what} found, {published} are published")
    return found


def _find(tree: Tree, subset: Subset, layout: Layout) -> Found:
    found = Found(subset, layout)
    files: dict[str, dict[tuple[str, ...], str]] = {}
    for role, pattern in layout.files.items():
        bases = pattern.search(tree.folders, tree.above)
        if bases:
            order = sorted(bases, key=lambda one: (-len(bases[one]), len(one), one))
            if layout.merge:
                files[role] = {k: v for base in reversed(order) for k, v in bases[base].items()}
                continue
            base = order[0]
            files[role] = bases[base]
            for other in sorted(set(bases) - {base}):
                found.notes.append(
                    f"{len(bases[other])} more {role} images below '{other}' are left alone; '{base}' has "
                    f"{len(files[role])}"
                )
    if not files:
        return found
    for role in set(layout.files) - set(files) - layout.optional:
        found.problems.append(f"no {role} images at all: nothing fits {layout.files[role].text}")
    if found.problems:
        return found
    found.roles = tuple(role for role in layout.files if role in files)
    pairs = _in_order(found, files) if layout.sorted_pairs else _by_fields(found, files)
    wanted = _listed(tree, found, files)
    if wanted is not None:
        pairs = {values: pair for values, pair in pairs.items() if pair["gt"] in wanted}
    found.items = _named(layout, pairs)
    return found


def _by_fields(found: Found, files: dict) -> dict[tuple[str, ...], dict[str, str]]:
    """Field values of the key role -> role -> path, for whole pairs. The rest is told."""
    layout = found.layout
    main = layout.files[layout.key_role]
    used: dict[str, set] = {role: set() for role in files}
    pairs, lonely = {}, []
    for values, path in files[layout.key_role].items():
        named = dict(zip(main.fields, values))
        pair = {}
        for role, group in files.items():
            own = tuple(named[one] for one in layout.files[role].fields)
            if own in group:
                pair[role] = group[own]
                used[role].add(own)
            else:
                lonely.append(f"no {role} image for {path}: {layout.files[role].filled(named)} is missing")
        if len(pair) == len(files):
            pairs[values] = pair
    for role, group in files.items():
        for values in group.keys() - used[role] if not (role == "gt" and layout.spare_gt) else ():
            named = dict(zip(layout.files[role].fields, values))
            lonely.append(f"no {layout.key_role} image for {group[values]}: {main.filled(named)} is missing")
    if layout.listed_in is None:
        found.problems += sorted(lonely)
    return pairs


def _in_order(found: Found, files: dict) -> dict[tuple[str, ...], dict[str, str]]:
    """The same for names that have nothing in common. One file too few would shift all pairs: then there are none."""
    layout = found.layout
    counts = {role: len(group) for role, group in files.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{number} of {layout.files[role].text}" for role, number in counts.items())
        found.problems.append(f"{told}: the names of a pair differ, so which one lacks its partner cannot be told")
        return {}
    roles = [role for role in files if role != "gt"] or ["gt"]  # named after the degraded image
    order = {role: [group[values] for values in sorted(group)] for role, group in files.items()}
    return {
        values: {role: paths[index] for role, paths in order.items()}
        for index, values in enumerate(sorted(files[roles[0]]))
    }


def _listed(tree: Tree, found: Found, files: dict) -> set[str] | None:
    """The gt paths that the list names, None for all."""
    layout = found.layout
    if layout.listed_in is None:
        return None
    there = tree.read_list(layout.listed_in)
    if there is None:
        if layout.list_needed:
            found.problems.append(f"{layout.listed_in} is missing, which says which images these are")
            return set()
        return None
    where, text = there
    try:
        names = layout.read_list(text)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{tree.root / where} is not as it should be: {error!r}") from None
    wanted = set()
    for name in names:
        values = layout.files["gt"].values(name.replace("\\", "/"))
        if values is None:
            found.problems.append(f"{where} lists {name}, which does not fit {layout.files['gt'].text}")
            continue
        named = dict(zip(layout.files["gt"].fields, values))
        for role, group in files.items():
            own = tuple(named.get(one, "") for one in layout.files[role].fields)
            if own not in group:
                found.problems.append(f"{where} lists {layout.files[role].filled(named)}, which is missing")
        wanted.add(files["gt"].get(values, ""))
    return wanted


# BasicSR takes a name in meta_info.txt up to its first blank or dot, and LMDB keys are ASCII to it
_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


def _named(layout: Layout, pairs: dict[tuple[str, ...], dict[str, str]]) -> list[Item]:
    """Items with plain, flat, unique keys: GOPR0372_07_00-000047."""
    role = next((r for r in layout.files if r != "gt"), "gt") if layout.sorted_pairs else layout.key_role
    fields = layout.files[role].fields
    keys = {}
    for values in pairs:
        named = dict(zip(fields, values))
        text = layout.key.format(**named) if layout.key else "-".join(values)
        keys[values] = _PLAIN.sub("_", text.replace("/", "-"))
    often = Counter(key.casefold() for key in keys.values())  # some file systems see no difference in capitals
    for values, key in keys.items():
        if often[key.casefold()] > 1:  # names that differed only in what was replaced, or in their folder
            digest = hashlib.sha256("/".join(values).encode("utf-8", "surrogateescape")).hexdigest()[:8]
            whole = _PLAIN.sub("_", "-".join(values).replace("/", "-"))
            keys[values] = f"{whole}_{digest}"
    return sorted((Item(keys[values], files) for values, files in pairs.items()), key=lambda item: item.key)
