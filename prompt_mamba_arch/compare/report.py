"""One HTML file that needs no other: tables, plots, and pictures side by side that zoom together."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

from prompt_mamba_arch.compare import tables
from prompt_mamba_arch.compare.methods import INPUT
from prompt_mamba_arch.compare.plots import COLOURS, Point, scatter
from prompt_mamba_arch.compare.run import Comparison

__all__ = ["crop_of_interest", "report"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1280px; padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .7em; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { background: var(--soft); } th.text, td.text { text-align: left; } td.best { font-weight: 700; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots svg { width: 460px; max-width: 100%; }
svg text { fill: currentColor; } .grid { stroke: var(--line); } .level { stroke: currentColor; stroke-dasharray: 4 3; }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: .6rem; }
.views { margin: .4rem 0 1.6rem; }
figure { margin: 0; } figcaption { font-size: 12.5px; padding-top: .2rem; }
.view { aspect-ratio: 1; overflow: hidden; cursor: grab; background: var(--soft); touch-action: none; }
.view:active { cursor: grabbing; }
.view img { width: 100%; height: 100%; transform-origin: 0 0; image-rendering: pixelated; display: block;
  user-select: none; -webkit-user-drag: none; }
.hint { font-size: 13px; opacity: .75; } li { margin: .25rem 0; }
""".strip()

# every picture of an example has the same place (x, y: where its corner lies, in shares of its side) and zoom
_SCRIPT = """
for (const views of document.querySelectorAll(".views")) {
  let zoom = 1, x = 0, y = 0, held = null;
  const images = views.querySelectorAll("img");
  const draw = () => {
    x = Math.min(0, Math.max(1 - zoom, x)); y = Math.min(0, Math.max(1 - zoom, y));
    for (const image of images) image.style.transform = `translate(${100 * x}%, ${100 * y}%) scale(${zoom})`;
  };
  const at = (event) => {
    const box = event.target.closest(".view").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  for (const view of views.querySelectorAll(".view")) {
    view.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [u, v] = at(event), before = zoom;
      zoom = Math.min(16, Math.max(1, zoom * Math.exp(-event.deltaY / 300)));
      x = u - (u - x) * zoom / before; y = v - (v - y) * zoom / before; draw();
    }, { passive: false });
    view.addEventListener("pointerdown", (event) => { held = at(event); view.setPointerCapture(event.pointerId); });
    view.addEventListener("pointermove", (event) => {
      if (!held) return;
      const now = at(event); x += now[0] - held[0]; y += now[1] - held[1]; held = now; draw();
    });
    for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, () => { held = null; });
    view.addEventListener("dblclick", () => { zoom = 1; x = y = 0; draw(); });
  }
}
""".strip()


def report(found: Comparison, command: str | None = None) -> str:
    """The whole page."""
    name = html.escape(found.plan.name)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{name}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>{name}</h1>",
    ]
    if command:
        parts.append(f"<p><code>{html.escape(command)}</code></p>")
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(found.plan.methods)}
    for task in found.rows:
        parts.append(f"<h2>{html.escape(tables.heading(found, task))}</h2>")
        parts.append(_table(tables.task_table(found, task)))
        parts.append(_plots(found, task, colours))
        parts += [_views(found, task, key, shown) for at, key, shown in found.showing if at == task]
    if found.costs:
        parts += ["<h2>Costs</h2>", _table(tables.cost_table(found))]
    parts.append("<h2>Notes</h2><ul>")
    parts += [f"<li>{html.escape(line)}</li>" for line in tables.notes(found)]
    parts.append(f"</ul><script>{_SCRIPT}</script></body></html>")
    return "\n".join(parts) + "\n"


def _table(table: tables.Table) -> str:
    def tag(column: str) -> str:
        return ' class="text"' if column in ("method", "told") else ""

    def cell(column: str, one: tables.Cell) -> str:
        kind = ' class="best"' if one.best else tag(column)
        return f"<td{kind}>{html.escape(one.text)}{' *' if one.sure else ''}</td>"

    head = "".join(f"<th{tag(name)}>{html.escape(name)}</th>" for name in table.header)
    rows = ["<tr>" + "".join(map(cell, table.header, row)) + "</tr>" for row in table.rows]
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _plots(found: Comparison, task: str, colours: Mapping[str, str]) -> str:
    """The first metric against time, and against operations where at least two methods have some."""
    metric = next(iter(found.plan.metrics))
    means = {row.method: row.mean(metric) for row in found.rows[task]}
    size = (found.plan.cost or {}).get("size")
    drawn = []
    for title, scale, attribute in ((f"ms for {size} x {size}", 1e3, "seconds"), ("G multiply-adds", 1e-9, "macs")):
        points = [
            Point(name, getattr(cost, attribute) * scale, means[name], colours[name])
            for name, cost in found.costs.items()
            if getattr(cost, attribute) and not math.isnan(means.get(name, math.nan))
        ]
        if len(points) > 1:
            level = means.get(INPUT, math.nan)
            drawn.append(scatter(points, title, f"{task}: {metric}", None if math.isnan(level) else level))
    return f'<div class="plots">{"".join(drawn)}</div>' if drawn else ""


def _views(found: Comparison, task: str, key: str, shown: Mapping[str, np.ndarray]) -> str:
    metric = next(iter(found.plan.metrics))
    rows = {row.method: row for row in found.rows[task]}
    window = crop_of_interest(shown, found.plan.example_pixels)
    order = [INPUT, *(row.method for row in tables.ranked(found, task) if row.method != INPUT), "target"]
    figures = []
    for name in order:
        if name not in shown:
            continue
        value = rows[name].scores.get(metric, {}).get(key) if name in rows else None
        said = name if value is None else f"{name}: {metric} {value:.{2 if abs(value) >= 10 else 4}f}"
        if name in rows and rows[name].asked:
            said += f", {rows[name].asked}"
        source = f"data:image/png;base64,{_png(shown[name][window])}"
        picture = f'<div class="view"><img alt="{html.escape(name)}" src="{source}"></div>'
        figures.append(f"<figure>{picture}<figcaption>{html.escape(said)}</figcaption></figure>")
    hint = "where the methods differ most; wheel zooms all of them, dragging moves them, a double click resets"
    return (
        f'<p><b>{html.escape(key)}</b> <span class="hint">{hint}</span></p><div class="views">{"".join(figures)}</div>'
    )


def crop_of_interest(shown: Mapping[str, np.ndarray], side: int) -> tuple[slice, slice]:
    """A square of the image, at most `side` pixels, in which the results differ most from each other."""
    images = [image for name, image in shown.items() if name not in (INPUT, "target")]
    if len(images) < 2:
        images = list(shown.values())
    height, width = images[0].shape[:2]
    side = min(side, height, width)
    differs = np.stack(images).astype(np.float32).std(axis=0).mean(axis=2)
    # sums over squares, by their top left corner
    sums = cv2.boxFilter(differs, -1, (side, side), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    valid = sums[: height - side + 1, : width - side + 1]
    top, left = np.unravel_index(int(valid.argmax()), valid.shape)
    return slice(int(top), int(top) + side), slice(int(left), int(left) + side)


def _png(image: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")
