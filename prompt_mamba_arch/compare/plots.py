"""Quality against cost, as SVG that stands in a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["COLOURS", "Point", "scatter"]

# told apart also by those who do not see red from green (Okabe and Ito 2008)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#6a51a3", "#637939", "#777777")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 300, 58, 130, 16, 44
_FONT = 'font-family="sans-serif" font-size="11"'


class Point(NamedTuple):
    label: str
    x: float
    y: float
    colour: str


def scatter(points: Sequence[Point], x_title: str, y_title: str, level: float | None = None) -> str:
    """x is logarithmic and must be above 0; `level` is a dashed line, such as what was given."""
    ys = [point.y for point in points] + ([] if level is None else [level])
    low, high = min(ys), max(ys)
    margin = (high - low or abs(high) or 1) * 0.08
    ticks = _ticks(low - margin, high + margin)
    low, high = min(low - margin, ticks[0]), max(high + margin, ticks[-1])
    left = math.floor(math.log10(min(point.x for point in points)) - 0.1)
    right = math.ceil(math.log10(max(point.x for point in points)) + 0.1)

    def across(x: float) -> float:
        return _LEFT + (math.log10(x) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" xmlns="http://www.w3.org/2000/svg" role="img" {_FONT}>']
    parts.append(f"<title>{html.escape(y_title)} against {html.escape(x_title)}</title>")
    for power in range(left, right + 1):
        x = across(10.0**power)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{_power(power)}</text>')
    for tick in ticks:
        y = down(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    if level is not None:
        y = down(level)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="level"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 4}" y="{y + 4:.1f}">input</text>')
    dots = [(across(point.x), down(point.y)) for point in points]
    for point, (x, y), base in zip(points, dots, _place_labels(dots, [point.label for point in points])):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{point.colour}"/>')
        parts.append(f'<text x="{x + 8:.1f}" y="{base:.1f}">{html.escape(point.label)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(x_title)}</text>')
    height = _HEIGHT / 2
    parts.append(
        f'<text x="14" y="{height:.0f}" text-anchor="middle" transform="rotate(-90 14 {height:.0f})">'
        f"{html.escape(y_title)}</text></svg>"
    )
    return "\n".join(parts)


def _place_labels(dots: Sequence[tuple[float, float]], texts: Sequence[str]) -> list[float]:
    """Heights of labels that begin right of their dots, as near to them as they can without lying on another or on a
    dot."""
    taken = [(x - 5, x + 5, y - 5, y + 5) for x, y in dots]
    heights = []
    for (x, y), text in zip(dots, texts):
        left, right = x + 7, x + 9 + 6.2 * len(text)  # pixels of a letter, about

        def free(base: float, left: float = left, right: float = right) -> bool:
            top, bottom = base - 9, base + 3
            return not any(left < r and l < right and top < b and t < bottom for l, r, t, b in taken)  # noqa: E741

        steps = [y + 4 + 6 * step * sign for step in range(20) for sign in (1, -1)]
        base = next(filter(free, steps), y + 4)
        taken.append((left, right, base - 9, base + 3))
        heights.append(base)
    return heights


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [round(number * step, 10) for number in range(first, math.floor(high / step) + 1)]


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 4 else f"1e{power}"
