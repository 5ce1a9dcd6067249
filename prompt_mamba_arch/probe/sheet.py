"""Contact sheets: what was asked, what came out, and where it is wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prompt_mamba_arch.errors import replace_on_success
from prompt_mamba_arch.metrics.targeted import psnr
from prompt_mamba_arch.probe.cases import Case
from prompt_mamba_arch.probe.measure import Probe, Result, Targets, targets_of

__all__ = ["SHEET", "draw_sheets", "examples", "failures"]

SHEET = "sheet.jpg"
SIDE = 224  # pixels of a picture: the middle of the image, one to one, as resizing hides grain
AMPLIFIED = 4  # the error pictures
_GAP, _LINE = 6, 18
_TEXT, _PAPER = (40, 40, 40), (255, 255, 255)
_SHOWN = ("subset", "right", "empty", "paraphrased", "wrong", "leave_alone", "unrelated", "contradictory", "clean")


def draw_sheets(probe: Probe, output: str | os.PathLike) -> list[Path]:
    """Writes sheet.jpg (one image for each sort of request) and failures.jpg (what the network did worst; for several
    networks failures_1.jpg and so on). The networks are run once more on what is shown.

    Returns:
        their paths.
    """
    sheets = {SHEET: (examples(probe.results), range(len(probe.asked)))}
    for number in range(len(probe.asked)):
        name = "failures.jpg" if len(probe.asked) == 1 else f"failures_{number + 1}.jpg"
        sheets[name] = (failures(probe.results, number), [number])
    paths = []
    for name, (shown, numbers) in sheets.items():
        page = _page(probe, shown, numbers)
        with replace_on_success(Path(output) / name) as path:
            page.save(path, quality=88)
        paths.append(Path(output) / name)
    return paths


def examples(results: Sequence[Result]) -> list[Result]:
    """For each sort of request the one with most degradations, each of another image as long as there are any."""
    keys = list(dict.fromkeys(result.key for result in results))
    shown = []
    for turn, request in enumerate(name for name in _SHOWN if any(r.case.request == name for r in results)):
        key = keys[turn % len(keys)]
        fitting = [result for result in results if result.case.request == request]
        shown.append(max(fitting, key=lambda result: (result.key == key, len(result.case.kinds))))
    kinds = [result for result in results if result.case.request == "kind"]
    for turn, kind in enumerate(dict.fromkeys(result.case.kinds[0] for result in kinds)):
        of_kind = [result for result in kinds if result.case.kinds[0] == kind]
        shown.append(of_kind[turn % len(of_kind)])
    return shown


def failures(results: Sequence[Result], number: int) -> list[Result]:
    """What the network did worst: three requests taken for others, three restorations, three images not left alone."""

    def gain(result: Result) -> float:
        measured = result.measured[number]
        return measured["psnr"] - measured["input_psnr"]

    sorts = (
        (("subset",), lambda result: result.measured[number]["margin"]),
        (("right", "empty"), gain),
        (("wrong", "leave_alone", "unrelated", "clean"), lambda result: result.measured[number]["no_harm"]),
    )
    shown = []
    for requests, quality in sorts:
        worst: dict[str, Result] = {}
        for result in sorted((r for r in results if r.case.request in requests), key=quality):
            worst.setdefault(result.key, result)
        shown += list(worst.values())[:3]
    return shown


def _page(probe: Probe, shown: Sequence[Result], numbers: Sequence[int]) -> Image.Image:
    columns = 2 + 2 * len(numbers)
    height = _LINE + SIDE + _LINE + 2 * _GAP
    page = Image.new("RGB", (_GAP + (SIDE + _GAP) * columns, _GAP + height * len(shown)), _PAPER)
    pen = ImageDraw.Draw(page)
    title, small = ImageFont.load_default(13), ImageFont.load_default(11)
    memory: dict[str, Targets] = {}
    clean: dict[str, np.ndarray] = {}
    for row, result in enumerate(shown):
        if result.key not in clean:
            clean[result.key] = probe.clean(result.key)
        top = _GAP + height * row
        text = _fitting(_title(result), title, page.width - 2 * _GAP)
        pen.text((_GAP, top), text, fill=_TEXT, font=title)
        targets = targets_of(result.case, clean[result.key], memory.setdefault(result.key, {}))
        for column, (picture, caption) in enumerate(_cells(probe, result.case, targets, numbers)):
            left = _GAP + (SIDE + _GAP) * column
            page.paste(Image.fromarray(_middle(picture)), (left, top + _LINE))
            caption = _fitting(caption, small, SIDE)
            pen.text((left, top + _LINE + SIDE + 2), caption, fill=_TEXT, font=small)
    return page


def _title(result: Result) -> str:
    case = result.case
    done = ", ".join(case.kinds) or "nothing"
    typed = f'"{case.prompts[0]}"' if case.prompts[0] else "no prompt"
    return f"{case.request.replace('_', ' ')} ({result.key}: {done}): {typed}"


def _cells(probe: Probe, case: Case, targets: dict, numbers: Sequence[int]) -> list[tuple[np.ndarray, str]]:
    lq, target = targets[frozenset()], targets[frozenset(case.remove)]
    name = "the same without " + ", ".join(case.remove) if case.remove else "to be left as it is"
    if case.request == "contradictory":
        name = f"no right answer; without {case.remove[0]}"
    cells = [(lq, f"input, {psnr(lq, target):.1f} dB" if case.remove else "input"), (target, name)]
    for number in numbers:
        one = probe.asked[number]
        restored = one.restorer.restore(lq, case.prompts[0] if one.reads else "")
        error = np.abs(restored - target) * AMPLIFIED
        cells.append((restored, f"{one.label}, {psnr(restored, target):.1f} dB"))
        cells.append((error, f"its error x {AMPLIFIED}"))
    return cells


def _middle(picture: np.ndarray) -> np.ndarray:
    """(at most SIDE, at most SIDE, 3) uint8."""
    top, left = (max(size - SIDE, 0) // 2 for size in picture.shape[:2])
    part = picture[top : top + SIDE, left : left + SIDE]
    return np.ascontiguousarray(np.rint(part.clip(0, 1) * 255).astype(np.uint8))


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut where it is too long."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
