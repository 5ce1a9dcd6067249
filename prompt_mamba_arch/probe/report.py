"""Tables of what the probe measured: Markdown for people, CSV of every case, JSON for other programs."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prompt_mamba_arch.errors import replace_on_success
from prompt_mamba_arch.probe.cases import REQUESTS
from prompt_mamba_arch.probe.measure import Probe, Result

__all__ = ["CSV", "JSON", "MARKDOWN", "MEASURES", "Row", "markdown_table", "summary", "write_report"]

MARKDOWN, CSV, JSON = "report.md", "results.csv", "figures.json"
WORST = 10  # per cent


class Measure(NamedTuple):
    """A line of the table.

    Attributes:
        name: in `Result.measured`.
        text: in the table.
        unit: "dB" or "" for shares.
        before: the measure that has the input's value, if there is one.
        worst: a second line says what the worst of the images have.
    """

    name: str
    text: str
    unit: str = "dB"
    before: str | None = None
    worst: bool = False


_RESTORED = (Measure("psnr", "PSNR to the clean image", before="input_psnr"),)
_LEFT = (Measure("no_harm", "PSNR to the input", worst=True),)
MEASURES: dict[str, tuple[Measure, ...]] = {
    "right": _RESTORED,
    "empty": _RESTORED,
    "subset": (
        Measure("removed_error", "PSNR to what was asked for (removed_error)", before="input_removed_error"),
        Measure("kept_error", "change of what should stay (kept_error)"),
        Measure("kept_share", "share of what should stay that is there (kept_share)", ""),
        Measure("followed", "nearer to what was asked for than to any other subset (adherence)", ""),
        Measure("chance", "the same by chance: 1 / number of subsets, the empty one included", ""),
        Measure("margin", "margin to the nearest other subset"),
    ),
    "paraphrased": (
        Measure("psnr", "PSNR to what was asked for, mean of the phrasings", before="input_psnr"),
        Measure("spread", "best phrasing less worst"),
        Measure("agreement", "PSNR between the results of two phrasings"),
        Measure("followed", "share of phrasings that were followed (adherence)", ""),
    ),
    "wrong": _LEFT,
    "leave_alone": _LEFT,
    "unrelated": _LEFT,
    "clean": _LEFT,
    "contradictory": (
        Measure("to_input", "PSNR to the input"),
        Measure("to_target", "PSNR to the image without it"),
        Measure("nearer_input", "share of images that were rather left as they are", ""),
    ),
    "kind": _RESTORED,
    "kind_empty": _RESTORED,
}


class Row(NamedTuple):
    """One figure of the summary, in each network.

    Attributes:
        request: a key of `cases.REQUESTS`.
        degradations: their number, or a kind's name.
        measure: a name, as `no_harm`, or `no_harm_worst`: the worst tenth of the images begins there.
        text, unit: what that is.
        count: how many images it is the mean of.
        input: the same of the input, where that says something.
        values: of the networks; None where nothing could be measured.
    """

    request: str
    degradations: int | str
    measure: str
    text: str
    unit: str
    count: int
    input: float | None
    values: tuple[float | None, ...]


def summary(probe: Probe) -> list[Row]:
    """Means over the images, request by request."""
    groups: dict[tuple[str, int | str], list[Result]] = {}
    for result in probe.results:
        request, kinds = result.case.request, result.case.kinds
        groups.setdefault((request, kinds[0] if request.startswith("kind") else len(kinds)), []).append(result)
    rows = []
    for request, measures in MEASURES.items():
        for (name, degradations), results in groups.items():
            if name != request:
                continue
            for measure in measures:
                columns = [_column(results, measure.name, i) for i in range(len(probe.asked))]
                before = _mean(_column(results, measure.before, 0)) if measure.before else None
                count = sum(value is not None for value in columns[0])
                row = Row(request, degradations, measure.name, measure.text, measure.unit, count, before, ())
                rows.append(row._replace(values=tuple(_mean(column) for column in columns)))
                if measure.worst:
                    text = f"{measure.text}, {WORST} % of the images are below"
                    values = tuple(_worst(column) for column in columns)
                    rows.append(row._replace(measure=f"{measure.name}_worst", text=text, values=values))
    return rows


def _column(results: Sequence[Result], name: str, number: int) -> list[float | None]:
    return [result.measured[number].get(name) for result in results]


def _mean(column: Sequence[float | None]) -> float | None:
    values = [value for value in column if value is not None]
    return float(np.mean(values)) if values else None


def _worst(column: Sequence[float | None]) -> float | None:
    values = [value for value in column if value is not None]
    return float(np.percentile(values, WORST)) if values else None


def write_report(probe: Probe, output: str | os.PathLike, rows: Sequence[Row] | None = None) -> list[Path]:
    """Writes the three files; returns their paths."""
    rows = summary(probe) if rows is None else rows
    output = Path(output)
    with replace_on_success(output / MARKDOWN) as path:
        path.write_text(_markdown(probe, rows), encoding="utf-8")
    with replace_on_success(output / JSON) as path:
        path.write_text(json.dumps(_figures(probe, rows), indent=1) + "\n", encoding="utf-8")
    with replace_on_success(output / CSV) as path, open(path, "w", newline="", encoding="utf-8") as file:
        _write_cases(probe, csv.writer(file))
    return [output / name for name in (MARKDOWN, CSV, JSON)]


def _figures(probe: Probe, rows: Sequence[Row]) -> dict:
    return {
        "images": len(probe.keys),
        "left_out": list(probe.failed),
        **probe.settings,
        "models": {one.label: {"weights": one.digest, "reads_prompts": one.reads} for one in probe.asked},
        "rows": [
            {**row._asdict(), "values": {one.label: value for one, value in zip(probe.asked, row.values)}}
            for row in rows
        ],
    }


def _write_cases(probe: Probe, table: csv.writer) -> None:
    names = list(dict.fromkeys(name for result in probe.results for name in result.measured[0]))
    table.writerow(["image", "model", "request", "degradations", "removed", "prompts", *names])
    for result in probe.results:
        case = result.case
        told = [case.request, " ".join(case.kinds), " ".join(case.remove), " | ".join(case.prompts)]
        for one, measured in zip(probe.asked, result.measured):
            table.writerow([result.key, one.label, *told, *(measured.get(name) for name in names)])


def _markdown(probe: Probe, rows: Sequence[Row]) -> str:
    settings = probe.settings
    size = f"the middle {settings['crop']} pixels square" if settings["crop"] else "whole"
    labels = [one.label for one in probe.asked]
    count = len(probe.keys)
    parts = [
        "# What was asked, and what was done",
        f"{count} image{'s' * (count != 1)}, {size}, degraded by 1, 2 and 3 of: {', '.join(settings['kinds'])} (seed "
        f"{settings['seed']}). The prompts are the bank's test phrasings, which no training has seen. "
        "Means over images; decibels are at most 100, which stands for no difference.",
    ]
    if probe.failed:
        parts.append(f"Left out: {'; '.join(f'{key} ({why})' for key, why in probe.failed.items())}.")
    blind = [one.label for one in probe.asked if not one.reads]
    if blind:
        parts.append(f"Without prompts, as they take none: {', '.join(blind)}.")
    parts.append(markdown_table([row for row in rows if not row.request.startswith("kind")], labels))
    parts.append(
        "A contradictory request has no right answer; the table says what was done. kept_error is the part of the "
        "error that is more or less of what should stay; kept_share is 1 where that is untouched and 0 where it is "
        "gone."
    )
    kinds = [row for row in rows if row.request == "kind"]
    if kinds:
        parts += ["## Each kind alone", kinds_table(rows, labels)]
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Sequence[Row], labels: Sequence[str]) -> str:
    """A line for each figure, a column for each network."""
    lines = [["request", "degradations", "measured", "images", "input", *labels], ["---"] * (5 + len(labels))]
    before: tuple = ()
    for row in rows:
        start = (f"{row.request.replace('_', ' ')}: {REQUESTS[row.request]}", str(row.degradations))
        text = f"{row.text}, dB" if row.unit == "dB" else row.text
        cells = ["", ""] if start == before else list(start)  # said once
        lines.append([*cells, text, str(row.count), *(number(value) for value in (row.input, *row.values))])
        before = start
    return _table(lines)


def kinds_table(rows: Sequence[Row], labels: Sequence[str]) -> str:
    """A line for each kind alone: input, prompted, blind, and what the prompt gained over the input."""
    heads = [f"{label}, {what}" for label in labels for what in ("prompted", "gain", "no prompt")]
    lines = [["kind", "images", "input", *heads], ["---"] * (3 + len(heads))]
    blind = {row.degradations: row for row in rows if row.request == "kind_empty"}
    for row in rows:
        if row.request != "kind":
            continue
        cells = []
        for prompted, without in zip(row.values, blind[row.degradations].values):
            cells += [number(prompted), f"{prompted - row.input:+.2f}", number(without)]
        lines.append([str(row.degradations), str(row.count), number(row.input), *cells])
    return _table(lines) + "\n\nPSNR to the clean image, dB."


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
