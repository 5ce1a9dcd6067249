"""A study's outcome as Markdown, CSV and plots."""

from __future__ import annotations

import csv
import datetime
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.study import statistics
from prompt_mamba_arch.study.plan import CHECK, PAIR, RATING
from prompt_mamba_arch.study.statistics import Estimate
from prompt_mamba_arch.study.store import Store

__all__ = ["MARKDOWN", "write_report"]

MARKDOWN = "report.md"
_INK, _ACCENT = "#333333", "#1552a8"


def write_report(store: Store, folder: Path) -> list[Path]:
    """Writes report.md, ranking.csv, preferences.csv, agreement.csv, ratings.csv, answers.csv, and the plots as PNG
    where Matplotlib is installed. A study may be running meanwhile.

    Returns:
        The files.

    Raises:
        UserError: nobody has answered anything yet.
    """
    answers, methods = store.answers(), store.methods
    kept, careless = statistics.attentive(answers)
    compared = [one for one in kept if one.trial.kind == PAIR]
    if not compared:
        raise UserError("nobody who paid attention has compared anything yet" if answers else "nobody has answered yet")
    folder.mkdir(parents=True, exist_ok=True)
    ranks = statistics.ranking(kept, methods)
    shares = statistics.preferences(kept, methods)
    agreed = statistics.agreement(kept)
    rated = statistics.ratings(kept, methods)
    written = [
        _csv(folder / "ranking.csv", ("method", "ability", "low", "high", "comparisons"),
             ((method, *_numbers(one)) for method, one in ranks.items())),
        _csv(folder / "preferences.csv", ("method", "other", "preferred", "low", "high", "comparisons"),
             ((*pair, *_numbers(one)) for pair, one in shares.items() if one.count)),
        _csv(folder / "agreement.csv", ("method", "other", "same_answer", "krippendorff_alpha", "comparisons"),
             ((*pair, f"{one.share:.4f}", f"{one.alpha:.4f}", one.comparisons) for pair, one in agreed.items())),
        _csv(folder / "ratings.csv", ("method", "mean", "low", "high", "ratings"),
             ((method, *_numbers(one)) for method, one in rated.items())),
        _csv(folder / "answers.csv",
             ("participant", "kind", "image", "left", "right", "spoiled", "answer", "milliseconds"),
             ((one.participant, *one.trial, one.answer, "" if one.milliseconds is None else one.milliseconds)
              for one in answers)),
    ]  # fmt: skip
    plots = _plots(folder, ranks, shares, rated)
    begun, finished = store.counts()
    people = len({one.participant for one in compared})
    checks = [one for one in answers if one.trial.kind == CHECK]
    passed = sum(one.answer != one.trial.spoiled for one in checks)
    times = sorted(one.milliseconds / 1000 for one in compared if one.milliseconds)
    lines = [
        "# User study",
        "",
        f"{datetime.date.today().isoformat()}. {begun} participants agreed to take part, {finished} answered "
        f"everything. {len(compared)} comparisons and {sum(one.trial.kind == RATING for one in kept)} ratings by "
        f"{people} of them count; {careless} failed more than a third of their attention checks "
        f"({passed} of {len(checks)} checks were passed in all) and do not count."
        + (f" A comparison took {times[len(times) // 2]:.1f} s (median)." if times else ""),
        "",
        f"{len(store.images)} images, {len(methods)} methods: {', '.join(methods)}. Order and sides were random, both "
        "pictures were cut out at the same place, and nothing told which method made them.",
        "",
        "## Ranking",
        "",
        "Abilities in the model of Bradley and Terry: a method that is ahead by 1 is preferred in 73 % of comparisons, "
        "by 2 in 88 %. Intervals hold 95 %, from resampling participants.",
        "",
        *_table(("", "ability", "95 % interval", "comparisons"),
                ((method, f"{one.value:+.2f}", _interval(one, "+.2f"), one.count) for method, one in ranks.items())),
        "",
        "## Preferences",
        "",
        "How often the method of the row was preferred to that of the column, with Wilson's 95 % interval, which takes "
        "all answers for independent.",
        "",
        *_table(("", *ranks), ([row, *(_share(shares, row, column) for column in ranks)] for row in ranks)),
        "",
        "## Agreement",
        "",
        "Of participants who saw the same comparison. Krippendorff's alpha is 1 for full agreement, 0 for chance; "
        "where nearly all prefer the same method, it is low however often they agree.",
        "",
        *_table(("", "the same answer", "alpha", "comparisons seen twice or more"),
                ((" / ".join(pair), _percent(one.share), "–" if math.isnan(one.alpha) else f"{one.alpha:.2f}",
                  one.comparisons) for pair, one in agreed.items())),
    ]  # fmt: skip
    if rated:
        lines += [
            "",
            "## Following the prompt",
            "",
            "How well does the picture do what the sentence asks, from 1 (not at all) to 5 (fully)?",
            "",
            *_table(("", "mean", "95 % interval", "ratings"),
                    ((method, f"{one.value:.2f}", _interval(one, ".2f"), one.count) for method, one in rated.items())),
        ]  # fmt: skip
    for path in plots:
        lines += ["", f"![{path.stem}]({path.name})"]
    with replace_on_success(folder / MARKDOWN) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / MARKDOWN, *written, *plots]


def _numbers(one: Estimate) -> tuple:
    return (*(f"{value:.4f}" for value in one[:3]), one.count)


def _interval(one: Estimate, form: str) -> str:
    if not (math.isfinite(one.low) and math.isfinite(one.high)):
        return "needs two participants"
    return f"{one.low:{form}} to {one.high:{form}}"


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f} %"


def _share(shares: Mapping[tuple[str, str], Estimate], row: str, column: str) -> str:
    one = shares.get((row, column))
    if one is None or not one.count:
        return "–"
    return f"{_percent(one.value)} ({_percent(one.low)} to {_percent(one.high)}; {one.count})"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def _csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with replace_on_success(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
    return path


def _plots(
    folder: Path,
    ranks: Mapping[str, Estimate],
    shares: Mapping[tuple[str, str], Estimate],
    rated: Mapping[str, Estimate],
) -> list[Path]:
    """Nothing where Matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    drawn = []

    def intervals(name: str, values: Mapping[str, Estimate], label: str, middle: float | None) -> None:
        figure = Figure(figsize=(7, 1.2 + 0.45 * len(values)), layout="constrained")
        axes = figure.subplots()
        for row, one in enumerate(reversed(list(values.values()))):
            if math.isfinite(one.low) and math.isfinite(one.high):
                axes.plot([one.low, one.high], [row, row], color=_INK, linewidth=2)
            axes.plot(one.value, row, "o", color=_ACCENT, markersize=8)
        axes.set_yticks(range(len(values)), list(reversed(list(values))))
        axes.set_ylim(-0.6, len(values) - 0.4)
        axes.set_xlabel(label)
        if middle is not None:
            axes.axvline(middle, color="#999999", linewidth=1, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
        drawn.append(_save(figure, folder / name))

    intervals("ranking.png", ranks, "Bradley-Terry ability (95 % interval)", 0)
    if rated:
        intervals("ratings.png", rated, "does what was asked, 1 to 5 (95 % interval)", None)
    figure = Figure(figsize=(2.2 + 0.9 * len(ranks), 1.6 + 0.7 * len(ranks)), layout="constrained")
    axes = figure.subplots()
    grid = [[shares[a, b].value if a != b else math.nan for b in ranks] for a in ranks]
    axes.imshow(grid, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            if not math.isnan(value):
                colour = "white" if abs(value - 0.5) > 0.3 else "black"
                axes.text(column, row, f"{100 * value:.0f} %", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(ranks)), list(ranks), rotation=30, ha="right")
    axes.set_yticks(range(len(ranks)), list(ranks))
    axes.set_title("preferred to the method of the column")
    drawn.append(_save(figure, folder / "preferences.png"))
    return drawn


def _save(figure, path: Path) -> Path:
    with replace_on_success(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
