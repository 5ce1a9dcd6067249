"""Writes what `measure` found as a model card in Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from prompt_mamba_arch.errors import UserError, replace_on_success

__all__ = ["curves", "markdown", "write_card"]

_PICTURES = {"sheet.jpg": "model_card_examples.jpg", "failures.jpg": "model_card_failures.jpg"}
_CURVE = "model_card_curve.svg"
_KINDS_GAIN = {"rain": 4.0, "haze": 4.0, "lowlight": 4.0, "holes": 4.0}  # dB over the input
_ADHERENCE, _NO_HARM, _WRONG = 0.85, 45.0, 35.0
_SECONDS, _BYTES, _EVEN = 4.0, 1.5 * 2**30, 0.05

# set -> (licence, source)
_LICENCES = {
    "CBSD68": ("research only (Berkeley)", "BSDS500's validation images as FFDNet's authors distribute them"),
    "LIVE1": ("research only", "LIVE image quality database, reference images"),
    "Set5": ("research only", "Bevilacqua et al. 2012, reduced by MATLAB's bicubic"),
    "Rain100L": ("research only", "Yang et al. 2017; targets are BSDS images"),
    "SOTS": ("research only", "RESIDE, Li et al. 2018"),
    "CC15": ("research only", "Nam et al. 2016, as MCWNNM's authors distribute it"),
    "PolyU": ("non-commercial", "Xu et al. 2018"),
}

_USE = """\
## What it is for

Photographs that are noisy, blurred, compressed, too small, rainy, hazy, too dark or damaged, of which somebody says \
in plain English what should go; or says nothing, and then whatever is wrong is removed. It runs without a GPU.

It is not for:

- **Evidence, diagnosis, measurement.** What was lost is guessed. Do not use it where a decision rests on a detail: \
medical and microscope images, forensics, identity, number plates, satellite measurements.
- **Faces.** It knows nothing of faces in particular. Small or badly blurred ones become smooth or uneven, and may \
look like another person.
- **Text.** Small print may turn into other letters. Asked to fill holes or remove scribbles, it may remove writing \
that belongs to the picture.
- **Making things up.** It does not invent texture as generative models do; large holes and strong blur stay soft.
- **Other languages** than English, and edits that are no restoration ("make the sky purple"): these it should leave \
alone, and the table of requests says how well it does.

Training degradations are synthetic. Real noise, real rain and real haze are other than these; see the sets of real \
photographs below."""


def write_card(
    found: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    output: str | os.PathLike,
    images: str | os.PathLike = "docs/images",
    command: str = "",
) -> list[Path]:
    """Writes the card, and its pictures into the folder `images` below the card's; returns the paths.

    Args:
        found: of `measure.measure_all`.
        record: of `measure.training_record`, or None.
        command: how it was made.
    """
    output = Path(output)
    folder = output.parent / images
    written = []
    pictures: dict[str, str] = {}
    for source in map(Path, found.get("pictures", ())):
        if source.name in _PICTURES:
            name = _PICTURES[source.name]
            folder.mkdir(parents=True, exist_ok=True)
            with replace_on_success(folder / name) as path, Image.open(source) as image:
                image.save(path, quality=75, optimize=True)
            pictures[source.name] = Path(images, name).as_posix()
            written.append(folder / name)
    lines = [line for line in curves(record or {}).values() if len(line) > 1]
    if lines:
        folder.mkdir(parents=True, exist_ok=True)
        with replace_on_success(folder / _CURVE) as path:
            path.write_text(_svg(lines), encoding="utf-8")
        pictures["curve"] = Path(images, _CURVE).as_posix()
        written.append(folder / _CURVE)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(output) as path:
        path.write_text(markdown(found, record, pictures, command), encoding="utf-8")
    return [output, *written]


def markdown(
    found: Mapping[str, Any], record: Mapping[str, Any] | None, pictures: Mapping[str, str], command: str = ""
) -> str:
    """The card's text; `pictures`: "sheet.jpg", "failures.jpg", "curve" -> link."""
    parts = [*_head(found, command), _USE, *_training(record, pictures), *_figures(found)]
    parts += [*_requests(found), *_speed(found), *_failures(pictures), *_data(found, record)]
    return "\n\n".join(parts) + "\n"


def _head(found: Mapping[str, Any], command: str) -> list[str]:
    about = found["model"]
    config = about["config"]
    lines = [
        ["network", about["kind"] + (f", size {config['size']}" if config.get("size") else "")],
        ["parameters", f"{about['parameters']:,}"],
        ["weights", f"`{about['digest'][:16]}` (SHA-256 over arguments, weights, reader of wishes; first 16 digits)"],
    ]
    if not about["reads_prompts"]:
        lines.append(["prompts", "it takes none; whatever is asked below, it was run without"])
    if about["phase"]:
        lines.append(["last phase of its training", about["phase"]])
    parts = [f"# Model card: {about['kind']} {about['label']}", _table([["", ""], ["---", "---"], *lines])]
    if command:
        parts.append(f"All figures and pictures here are what this command wrote:\n\n```bash\n{command}\n```")
    if found["limit"] is not None:
        parts.append(f"**A trial:** only the first {found['limit']} images of each set were used.")
    return parts


# -- training


def curves(record: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Name -> (hours from the start of all, dB), from the record's `curve`, or from the `validation` of its `phases`.

    These are lists of `[hours, …, dB]`.

    Raises:
        UserError: it is something else.
    """
    found, before = {}, 0.0
    try:
        if record.get("curve"):
            found["training"] = [(float(point[0]), float(point[-1])) for point in record["curve"]]
        for phase in record.get("phases") or ():
            points = [(before + float(point[0]), float(point[-1])) for point in phase.get("validation") or ()]
            found[str(phase["name"])] = points
            before += float(phase["hours"])
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        raise UserError(
            "the training record's curves must be lists of [hours, dB], in phases with name and hours"
        ) from None
    return {name: points for name, points in found.items() if points}


def _training(record: Mapping[str, Any] | None, pictures: Mapping[str, str]) -> list[str]:
    parts = ["## How it was trained"]
    if not record:
        return [*parts, "The file holds no record of its training."]
    lines = [["", ""], ["---", "---"]]
    for name, value in record.items():
        if name not in ("data", "curve", "phases"):
            lines.append([name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)])
    if len(lines) > 2:
        parts.append(_table(lines))
    phases = record.get("phases") or ()
    if phases:
        rows = [[str(p["name"]), f"{p.get('iterations', 0):,}", f"{p['hours']:.2f}"] for p in phases]
        total = sum(phase["hours"] for phase in phases)
        parts.append(_table([["run", "iterations", "hours"], ["---"] * 3, *rows, ["together", "", f"{total:.2f}"]]))
    found = curves(record)
    if "curve" in pictures:
        parts.append(f"![Quality against hours of training, one line for each run]({pictures['curve']})")
    for name, points in found.items():
        shown = points if len(points) <= 12 else [points[round(i * (len(points) - 1) / 11)] for i in range(12)]
        rows = [[f"hours ({name})", *(f"{hours:.2f}" for hours, _ in shown)], ["---"] * (len(shown) + 1)]
        parts.append(_table([*rows, ["dB", *(f"{value:.2f}" for _, value in shown)]]))
    for name, points in list(found.items())[-1:]:
        first, end = points[0][0], points[-1][0]
        late = [value for hours, value in points if hours <= first + 0.8 * (end - first)]
        if end > first and late:
            parts.append(f"The last fifth of the hours of {name} brought {points[-1][1] - late[-1]:+.2f} dB.")
    return parts


def _svg(lines: Sequence[Sequence[tuple[float, float]]]) -> str:
    """Quality against hours."""
    width, height, left, bottom, edge = 640, 300, 60, 40, 15
    values = [value for line in lines for _, value in line]
    low, high = min(values), max(values)
    longest = max(hours for line in lines for hours, _ in line) or 1.0
    span = (high - low) or 1.0

    def x(hours: float) -> float:
        return left + hours / longest * (width - left - edge)

    def y(value: float) -> float:
        return height - bottom - (value - low) / span * (height - bottom - edge)

    words = [
        (x(0), height - 20, "0"),
        (x(longest) - 20, height - 20, f"{longest:.3g}"),
        (width / 2, height - 6, "hours of training"),
        (4, y(high) + 5, f"{high:.2f}"),
        (4, y(low), f"{low:.2f}"),
        (4, (y(high) + y(low)) / 2, "dB"),
    ]
    drawn = [f'<text x="{a:.0f}" y="{b:.0f}">{word}</text>' for a, b, word in words]
    for number, line in enumerate(lines):
        path = " ".join(f"{x(hours):.1f},{y(value):.1f}" for hours, value in line)
        colour = ("#1560bd", "#c04000", "#208020")[number % 3]
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<path d="M{left},{edge} V{height - bottom} H{width - edge}" fill="none" stroke="#999"/>',
            *drawn,
            "</svg>\n",
        ]
    )


# -- figures


def _figures(found: Mapping[str, Any]) -> list[str]:
    parts = [
        "## Restoration",
        "PSNR in dB to the clean image, mean over images, of 8-bit RGB results (Set5: luma, without as many pixels at "
        "the edge as it was reduced). Noise is added to 8-bit values, clipped and rounded, as the all-in-one "
        "literature does, with `numpy.random.default_rng(index of the image in sorted order)`. The bar is what this "
        "network was to reach with its prompt; a + means over the input. Other methods are OpenCV's "
        "fastNlMeansDenoisingColored and scikit-image's denoise_tv_chambolle and wiener; they were told how strong the "
        "damage is, which the network is not.",
    ]
    lines = [
        ["what", "prompt", "images", "input", "prompted", "gain", "no prompt", "other methods", "bar", ""],
        ["---"] * 10,
    ]
    for group in found["sets"].values():
        for line in group:
            others = [f"{name} {value:.2f}" for name, value in line["references"].items() if value is not None]
            gain = line["prompted"] - line["input"]
            bar, verdict = _verdict(line)
            start = [line["name"], f"“{line['prompt']}”", str(line["images"])]
            values = [f"{line['input']:.2f}", f"**{line['prompted']:.2f}**", f"{gain:+.2f}", f"{line['blind']:.2f}"]
            lines.append([*start, *values, "; ".join(others), bar, verdict])
    if len(lines) > 2:
        parts.append(_table(lines))
    parts += [f"Not measured: {part} ({why})." for part, why in found["skipped"].items()]
    return parts


def _verdict(line: Mapping[str, Any]) -> tuple[str, str]:
    """What the bar is, and whether it was reached."""
    bar = line.get("bar") or {}
    told, missed = [], []
    if bar.get("psnr") is not None:
        told.append(f"{bar['psnr']:.1f}")
        missed.append(bar["psnr"] - line["prompted"])
    if bar.get("gain") is not None:
        told.append(f"+{bar['gain']:.1f}" if bar["gain"] else "better than the input")
        missed.append(bar["gain"] - (line["prompted"] - line["input"]))
    if bar.get("blind") is not None:
        told.append(f"no prompt within {bar['blind']:.2f}")
        missed.append(line["prompted"] - line["blind"] - bar["blind"])
    return "; ".join(told), _reached(missed, "dB")


def _reached(missed: Sequence[float], unit: str) -> str:
    """`missed`: by how much each part of the bar was."""
    if not missed:
        return ""
    worst = max(missed)
    return "reached" if worst <= 0 else f"missed by {worst:.2f} {unit}".strip()


def _requests(found: Mapping[str, Any]) -> list[str]:
    probed = found.get("requests")
    if not probed:
        return []
    rows = {(row["request"], row["degradations"], row["measure"]): row for row in probed["rows"]}
    lines = [["request", "measured", "images", "found", "chance", "bar", ""], ["---"] * 7]
    wanted = (
        ("subset", "followed", "asks for some of what is wrong", "adherence", _ADHERENCE, ""),
        ("subset", "removed_error", "asks for some of what is wrong", "PSNR to what was asked for, dB", None, "dB"),
        ("subset", "kept_error", "asks for some of what is wrong", "kept_error, dB", None, "dB"),
        ("paraphrased", "spread", "the same in other words", "best phrasing less worst, dB", None, "dB"),
        ("leave_alone", "no_harm", "leave it as it is", "PSNR to the input, dB", _NO_HARM, "dB"),
        ("unrelated", "no_harm", "nothing to do with restoration", "PSNR to the input, dB", _NO_HARM, "dB"),
        ("wrong", "no_harm", "asks for what is not there", "PSNR to the input, dB", _WRONG, "dB"),
        ("clean", "no_harm", "no prompt, and nothing is wrong", "PSNR to the input, dB", None, "dB"),
        ("contradictory", "nearer_input", "remove it and keep it", "share rather left as they are", None, ""),
    )
    for request, measure, text, name, bar, unit in wanted:
        for (one, degradations, what), row in rows.items():
            if (one, what) != (request, measure) or row["value"] is None:
                continue
            chance = rows.get((request, degradations, "chance")) if measure == "followed" else None
            lines.append(
                [
                    *(f"{text} ({degradations} degradation{'s' * (degradations != 1)})", name, str(row["count"])),
                    *(f"{row['value']:.2f}", f"{chance['value']:.2f}" if chance else ""),
                    *("" if bar is None else f"{bar:g}", _reached([] if bar is None else [bar - row["value"]], unit)),
                ]
            )
    parts = [
        "## Requests",
        f"`prompt-mamba probe` on {probed['images']} images of {probed['set']} (the middle {probed['crop']} pixels "
        "square), degraded by one to three of the nine kinds, asked in phrasings that no training has seen. Adherence "
        "is the share of results that are nearer to what was asked for than to every other subset of the "
        "degradations.",
        _table(lines),
    ]
    kinds = [row for row in probed["rows"] if row["request"] == "kind"]
    if kinds:
        lines = [["kind alone", "images", "input", "prompted", "gain", "no prompt", "bar", ""], ["---"] * 8]
        for row in kinds:
            blind = rows["kind_empty", row["degradations"], "psnr"]
            gain = row["value"] - row["input"]
            bar = _KINDS_GAIN.get(row["degradations"])
            verdict = _reached([] if bar is None else [bar - gain], "dB")
            values = [f"{row['input']:.2f}", f"**{row['value']:.2f}**", f"{gain:+.2f}", f"{blind['value']:.2f}"]
            told = "" if bar is None else f"+{bar:.1f}"
            lines.append([row["degradations"], str(row["count"]), *values, told, verdict])
        parts.append(_table(lines))
    return parts


def _speed(found: Mapping[str, Any]) -> list[str]:
    measured = found.get("speed")
    if not measured:
        return []
    lines = [["megapixels", "size", "seconds", "µs per pixel", "peak memory of the process, GiB"], ["---"] * 5]
    for one in measured:
        memory = "" if one["bytes"] is None else f"{one['bytes'] / 2**30:.2f}"
        size = f"{one['width']} x {one['height']}"
        lines.append(
            [f"{one['megapixels']:.2f}", size, f"{one['seconds']:.2f}", f"{_per_pixel(one):.2f}", memory]
        )  # fmt: skip
    parts = ["## Time and memory", _table(lines)]
    threads = measured[0]["threads"]
    where = f"{measured[0]['device']}, {threads} thread{'s' * (threads != 1)}"
    notes = [f"{where}; the best of three (above four megapixels, of one), each size in a process of its own."]
    one = min(measured, key=lambda m: abs(m["megapixels"] - 1))
    if abs(one["megapixels"] - 1) < 0.1:
        told = _reached([one["seconds"] - _SECONDS], "s")
        notes.append(f"Bars at one megapixel: {_SECONDS:g} s ({told})")
        if one["bytes"] is not None:
            told = _reached([(one["bytes"] - _BYTES) / 2**30], "GiB")
            notes[-1] += f", {_BYTES / 2**30:g} GiB ({told})"
        notes[-1] += "."
    if len(measured) > 1:
        each = [_per_pixel(m) for m in measured]
        mean = sum(each) / len(each)
        off = max(abs(value / mean - 1) for value in each)
        told = "reached" if off <= _EVEN else "missed"
        notes.append(f"Time per pixel differs by at most {100 * off:.0f} % from its mean (bar: 5 %, {told}).")
    return [*parts, " ".join(notes)]


def _per_pixel(one: Mapping[str, Any]) -> float:
    return one["seconds"] / one["megapixels"]


def _failures(pictures: Mapping[str, str]) -> list[str]:
    parts = []
    if "failures.jpg" in pictures:
        parts += [
            "## What it does badly",
            "Of four photographs, what it did worst: requests that were taken for others, restorations that gained "
            "least, images that were not left alone. The last column is the error, four times.",
            f"![The worst results]({pictures['failures.jpg']})",
        ]
    if "sheet.jpg" in pictures:
        parts += ["## One of each request", f"![Examples]({pictures['sheet.jpg']})"]
    return parts


def _data(found: Mapping[str, Any], record: Mapping[str, Any] | None) -> list[str]:
    parts = ["## Data and licences"]
    data = (record or {}).get("data")
    if isinstance(data, str):
        parts.append(f"Trained on: {data}")
    elif isinstance(data, Sequence) and data and all(isinstance(entry, Mapping) for entry in data):
        names = list(dict.fromkeys(name for entry in data for name in entry))
        rows = [[str(entry.get(name, "")) for name in names] for entry in data]
        parts.append("Trained on:\n\n" + _table([[str(name) for name in names], ["---"] * len(names), *rows]))
    elif data:
        parts.append(f"Trained on: {json.dumps(data)}")
    else:
        parts.append("The file does not say what it was trained on.")
    used = [line["name"] for group in found["sets"].values() for line in group]
    used += [found["requests"]["set"]] if found.get("requests") else []
    rows = [[name, *told] for name, told in _LICENCES.items() if any(name in line for line in used)]
    if rows:
        head = [["measured on", "licence", "source"], ["---"] * 3]
        parts.append(_table([*head, *rows]))
    if found.get("pictures"):
        parts.append(
            "The pictures here are made from photographs that scikit-image ships: astronaut (NASA, public domain), "
            "rocket (SpaceX, public domain), chelsea and coffee (CC0)."
        )
    return parts


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
