"""A comparison as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from prompt_mamba_arch.compare.methods import INPUT
from prompt_mamba_arch.compare.run import Comparison, Row
from prompt_mamba_arch.compare.statistics import Difference
from prompt_mamba_arch.ntire.factsheet import escaped

__all__ = ["Cell", "Table", "cost_table", "latex", "markdown", "notes", "scores_csv", "summary_csv", "task_table"]


class Cell(NamedTuple):
    """A text; `best` of its column; `sure`: the difference is not chance."""

    text: str
    best: bool = False
    sure: bool = False


class Table(NamedTuple):
    header: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


def task_table(found: Comparison, task: str) -> Table:
    """Methods from the best to the worst by the first metric, after what they were given."""
    metrics = list(found.plan.metrics)
    rows = ranked(found, task)
    header = ["method", "told"]
    for metric in metrics:
        header += [f"{metric} {'↑' if found.higher_is_better(metric) else '↓'}"]
    header += [f"{metric} against {found.plan.reference}" for metric in metrics]
    lines = []
    for row in rows:
        cells = [Cell(row.method), Cell(row.asked)]
        for metric in metrics:
            means = [one.mean(metric) for one in rows if one.method != INPUT and not math.isnan(one.mean(metric))]
            best = row.method != INPUT and row.mean(metric) == _best(means, found.higher_is_better(metric))
            cells.append(Cell(_number(row.mean(metric), _digits(means)), best))
        for metric in metrics:
            cells.append(_difference(found.difference(task, row, metric)))
        lines.append(tuple(cells))
    return Table(tuple(header), lines)


def ranked(found: Comparison, task: str) -> list[Row]:
    metric = next(iter(found.plan.metrics))
    sign = -1 if found.higher_is_better(metric) else 1

    def place(row: Row) -> tuple:
        mean = row.mean(metric)
        return row.method != INPUT, math.isnan(mean), 0 if math.isnan(mean) else sign * mean

    return sorted(found.rows[task], key=place)


def cost_table(found: Comparison) -> Table:
    size = (found.plan.cost or {}).get("size")
    rows = [
        (
            Cell(name),
            Cell("" if cost.parameters is None else f"{cost.parameters / 1e6:.3f} M"),
            Cell("" if cost.macs is None else f"{cost.macs / 1e9:.2f} G"),
            Cell("" if cost.seconds is None else f"{cost.seconds * 1e3:.1f} ms"),
        )
        for name, cost in found.costs.items()
    ]
    return Table(("method", "parameters", "MACs", f"time for {size} x {size}"), rows)


def notes(found: Comparison) -> list[str]:
    """What a reader must know, a sentence each."""
    plan = found.plan
    lines = [
        "All methods see the same pixels, rounded to 8 bits as their results are.",
        f"The best of each column is bold. Differences are means over the images, in brackets the "
        f"{100 * plan.confidence:g} % interval of a paired bootstrap ({plan.samples} draws); * marks those whose "
        "interval leaves out zero.",
        'Under "told" stand the sentence that a method was given and the parameters that it was set to; "oracle" is '
        "the sentence of the test's own protocol, which says what was done to the image; blind is none.",
    ]
    if any(task.scale > 1 for task in found.tasks.values()):
        lines.append("Methods that enlarge get the reduced image, others its bicubic enlargement, which is `input`.")
    if found.costs:
        lines.append(
            f"Times: medians of interleaved rounds on {found.machine}; MACs with those of the scans; both for an "
            f"output of {plan.cost['size']} x {plan.cost['size']} pixels."
        )
    lines += [f"Left out: {name} ({why})." for name, why in found.left_out.items()]
    lines += [f"Failed: {task}, {method}, image {key} ({why})." for task, method, key, why in found.failed]
    return lines


def heading(found: Comparison, task: str) -> str:
    keys = {key for row in found.rows[task] for values in row.scores.values() for key in values}
    protocol = ", luma" if found.tasks[task].luma else ""
    border = found.tasks[task].border
    border = f", {border} pixels left out at each edge" if border else ""
    return f"{task}: {found.tasks[task].about} ({len(keys)} images{protocol}{border})"


def markdown(found: Comparison, command: str | None = None) -> str:
    parts = [f"# {found.plan.name}\n"]
    if command:
        parts.append(f"```bash\n{command}\n```\n")
    for task in found.rows:
        parts += [f"## {heading(found, task)}\n", _markdown_table(task_table(found, task))]
    if found.costs:
        parts += ["## Costs\n", _markdown_table(cost_table(found))]
    parts += ["## Notes\n", "\n".join(f"- {line}" for line in notes(found)) + "\n"]
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    def said(cell: Cell) -> str:
        text = cell.text.replace("|", "\\|")
        return f"**{text}**" if cell.best else f"{text} \\*" if cell.sure else text

    numbers = ["---" if name in ("method", "told") else "---:" for name in table.header]
    lines = [table.header, numbers, *([said(cell) for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex(found: Comparison) -> str:
    """One table for each task, with booktabs."""
    parts = ["% needs \\usepackage{booktabs}"]
    for task in found.rows:
        parts.append(_latex_table(task_table(found, task), heading(found, task)))
    if found.costs:
        parts.append(_latex_table(cost_table(found), f"Costs on {found.machine}"))
    return "\n\n".join(parts) + "\n"


def _latex_table(table: Table, caption: str) -> str:
    def said(cell: Cell) -> str:
        text = escaped(cell.text)
        return f"\\textbf{{{text}}}" if cell.best else f"{text}$^*$" if cell.sure else text

    arrows = {"↑": "$\\uparrow$", "↓": "$\\downarrow$"}
    header = [
        escaped(name.rstrip(" ↑↓")) + (f" {arrows[name[-1]]}" if name[-1] in arrows else "") for name in table.header
    ]
    columns = "".join("l" if name in ("method", "told") else "r" for name in table.header)
    lines = [" & ".join(header) + r" \\", r"\midrule", *(" & ".join(map(said, row)) + r" \\" for row in table.rows)]
    return "\n".join([
        r"\begin{table}", r"\centering", f"\\caption{{{escaped(caption)}}}", f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ])  # fmt: skip


def scores_csv(found: Comparison) -> str:
    """A line for each task, image, method and metric."""
    rows = [
        (task, key, row.method, row.asked, metric, repr(value))
        for task, rows in found.rows.items()
        for row in rows
        for metric, values in row.scores.items()
        for key, value in values.items()
    ]
    return _csv(("task", "image", "method", "told", "metric", "value"), rows)


def summary_csv(found: Comparison) -> str:
    """A line for each task, method and metric, with the difference to the reference."""
    rows = []
    for task in found.rows:
        for row in ranked(found, task):
            for metric in found.plan.metrics:
                difference = found.difference(task, row, metric) or ("", "", "")
                number = len(row.scores.get(metric, ())) or ""
                rows.append((task, row.method, row.asked, metric, number, repr(row.mean(metric)), *difference))
    return _csv(("task", "method", "told", "metric", "images", "mean", "difference", "low", "high"), rows)


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _best(values: Sequence[float], higher: bool) -> float | None:
    return None if not values else max(values) if higher else min(values)


def _digits(values: Sequence[float]) -> int:
    """So that what differs is seen: decibels have two, shares of one have four."""
    largest = max((abs(value) for value in values), default=0.0)
    return 2 if largest >= 10 else 3 if largest >= 1.5 else 4


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _difference(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell("")
    digits = 2 if max(map(abs, difference)) >= 0.5 else 3 if max(map(abs, difference)) >= 0.05 else 4
    mean, low, high = (f"{value:+.{digits}f}" for value in difference)
    return Cell(f"{mean} [{low}, {high}]", sure=difference.is_sure)
