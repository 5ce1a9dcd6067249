"""Tasks of an option file: which images, what was done to them, and how they are measured."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prompt_mamba_arch.compare.options import BLIND, ORACLE, Plan
from prompt_mamba_arch.data import KINDS, ImageSource, render, sample_recipe, to_float
from prompt_mamba_arch.data.degradations import matlab_downscale
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean
from prompt_mamba_arch.model_card import sets
from prompt_mamba_arch.model_card.sets import Pair
from prompt_mamba_arch.photographs import Photographs

__all__ = ["Compared", "open_task"]

SHIPPED = "scikit-image"  # in the place of a folder
_EXCLUSIVE = ("set", "images", "lq")
_COMMON = ("luma", "border", "prompt", "limit", "crop")


class Compared(NamedTuple):
    """A task that methods are compared on.

    Attributes:
        name: its name in the option file.
        about: what is done to which images, in words.
        pairs: makes the images anew.
        scale: how many times smaller `Pair.small` is; 1 where there is none.
        luma, border: metrics that can take the luma channel alone, without so many pixels at each edge.
        prompt: what the option file gives to methods that take text: `none`, `oracle` or a text; None: what it says on
            top.
        oracle: the sentence of the test set's protocol, if there is one.
    """

    name: str
    about: str
    pairs: Callable[[], Iterator[Pair]]
    scale: int
    luma: bool
    border: int
    prompt: str | None
    oracle: str | None


def open_task(name: str, options: Mapping[str, Any], plan: Plan) -> Compared:
    """Raises:
    UserError: the images are not there, or what is said of them does not go together.
    """
    where = f"tasks.{name}"
    given = [key for key in _EXCLUSIVE if options.get(key) is not None]
    if len(given) != 1:
        raise UserError(
            f"{where} must have one of {', '.join(_EXCLUSIVE)}, not {' and '.join(given) or 'none of them'}"
        )
    limit, crop = (options.get(key, getattr(plan, key)) for key in ("limit", "crop"))
    about, pairs, scale, luma, oracle = {"set": _of_set, "images": _made, "lq": _paired}[given[0]](where, options, plan)
    border = (scale if luma else 0) if options.get("border") is None else options["border"]
    luma = luma if options.get("luma") is None else options["luma"]
    if crop is not None and crop < scale:
        raise UserError(f"{where}: crop must be at least the scale, {scale}, not {crop}")
    prompt = options.get("prompt", BLIND) or BLIND if "prompt" in options else None
    if prompt == ORACLE and oracle is None:
        raise UserError(f"{where}: prompt oracle is for tasks of a set, which have a sentence; write the text")
    return Compared(
        name,
        about if crop is None else f"{about}, middle {crop} pixels",
        lambda: (_cropped(pair, crop, scale) for pair in pairs(limit)),
        scale,
        luma,
        border,
        prompt,
        oracle,
    )


def _of_set(where: str, options: Mapping[str, Any], plan: Plan):
    check_keys(options, ("set", *_COMMON), where)
    if plan.root is None:
        raise UserError(f"{where}.set needs `root`, the folder of the test sets")
    wanted, found, missing = options["set"], {}, {}
    for part in sets.SETS.values():
        try:
            found |= {task.id: task for task in part(plan.root)}
        except sets.Missing as error:
            missing[str(error)] = part.__name__
    if wanted not in found:
        hint = did_you_mean(wanted, found)
        lacking = f" (not there: {', '.join(missing)})" if missing else ""
        raise UserError(f"{where}.set: no {wanted!r} in {str(plan.root)!r}{hint or lacking}")
    task = found[wanted]
    scale = int(task.id[1:]) if task.id[:1] == "x" else 1
    return task.name, task.pairs, scale, task.luma, task.prompt


def _made(where: str, options: Mapping[str, Any], plan: Plan):
    """`images` and what is done to them: a degradation by name, a scale, or kinds with exact targets."""
    check_keys(options, ("images", "degrade", "remove", *_COMMON), where)
    shipped = options["images"] == SHIPPED
    source = Photographs() if shipped else ImageSource(str(options["images"]), label=f"{where}.images")
    about = Path(str(options["images"])).name
    degrade, remove = options.get("degrade"), options.get("remove")
    if isinstance(degrade, list) and all(isinstance(kind, str) for kind in degrade):
        check_keys(dict.fromkeys(degrade), KINDS, f"{where}.degrade")
        if not isinstance(remove, (list, type(None))):
            raise UserError(f"{where}.remove must be a list of kinds, not {remove!r}")
        return f"{about}, {' and '.join(degrade)}", _targeted(source, degrade, remove), 1, False, None
    if remove is not None and not isinstance(degrade, list):
        raise UserError(f"{where}.remove needs degrade to be a list of kinds: [noise, haze]")
    if not isinstance(degrade, str):
        raise UserError(
            f"{where}.degrade must be noise25, jpeg10, blur, x2, x3, x4 or a list of kinds, not {degrade!r}"
        )
    if degrade in ("x2", "x3", "x4"):
        scale = int(degrade[1])
        return f"{about}, {scale} times reduced", _reduced(source, scale), scale, True, None
    return f"{about}, {degrade}", sets.made(source, sets.degrader(degrade)), 1, False, None


def _paired(where: str, options: Mapping[str, Any], plan: Plan):
    check_keys(options, ("lq", "gt", "scale", *_COMMON), where)
    if options.get("gt") is None:
        raise UserError(f"{where}: lq needs gt, the folder of what should come out")
    scale = options.get("scale", 1)
    if scale not in (1, 2, 3, 4) or isinstance(scale, bool):
        raise UserError(f"{where}.scale must be 1, 2, 3 or 4, not {scale!r}")
    lq, gt = (ImageSource(str(options[key]), label=f"{where}.{key}") for key in ("lq", "gt"))
    return Path(str(options["lq"])).name, sets.paired(lq, gt, scale), scale, scale > 1, None


def _reduced(source: ImageSource | Photographs, scale: int):
    def pairs(limit: int | None) -> Iterator[Pair]:
        for key in source.keys[:limit]:
            image = sets.read_image(source, key)
            image = image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]
            yield sets.enlarged(key, matlab_downscale(np.ascontiguousarray(image), scale), image, scale)

    return pairs


def _targeted(source: ImageSource | Photographs, kinds: list[str], remove: list[str] | None):
    """Every image has all `kinds`; the target has those that are not in `remove` (default: none), by the same draws."""
    check_keys(dict.fromkeys(remove or ()), kinds, "remove")

    def pairs(limit: int | None) -> Iterator[Pair]:
        for key in source.keys[:limit]:
            image = to_float(sets.read_image(source, key))
            recipe = sample_recipe(zlib.crc32(key.encode()), kinds, len(kinds))
            lq, gt = (render(image, recipe, without=without) for without in ((), kinds if remove is None else remove))
            yield Pair(key, *(np.rint(one.clip(0, 1) * 255).astype(np.uint8) for one in (lq, gt)))

    return pairs


def _cropped(pair: Pair, crop: int | None, scale: int) -> Pair:
    """The middle of each; where there is a small one, cut on its grid."""
    if crop is None or max(pair.gt.shape[:2]) <= crop:
        return pair
    base = pair.gt if pair.small is None else pair.small
    side = crop // scale
    top, left = (max(size - side, 0) // 2 for size in base.shape[:2])

    def cut(image: np.ndarray | None, times: int) -> np.ndarray | None:
        if image is None:
            return None
        rows, columns = (slice(start * times, (start + side) * times) for start in (top, left))
        return np.ascontiguousarray(image[rows, columns])

    return Pair(pair.key, cut(pair.lq, scale), cut(pair.gt, scale), cut(pair.small, 1))
