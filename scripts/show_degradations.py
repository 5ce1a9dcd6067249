#!/usr/bin/env python
"""Writes two contact sheets: every kind of degradation at three severities, and one recipe's exact targets.

    python scripts/show_degradations.py -o docs/images
    python scripts/show_degradations.py -o /tmp/sheets --images photos/ --kinds rain haze --seed 3

Without --images the photographs are those that scikit-image ships (`pip install scikit-image`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prompt_mamba_arch.data import KINDS, ImageSource, every_target, render, severity, severity_word, to_float
from prompt_mamba_arch.data.degradations import sample_step
from prompt_mamba_arch.errors import UserError, check_keys, plain_line, replace_on_success

LEVELS = (0.2, 0.5, 0.85)
# what one recipe's sheet shows: a wet, grainy picture that somebody wrote on
EXAMPLE = [
    {"kind": "rain", "params": {"amount": 45, "length": 34, "width": 1.2, "angle": 14, "brightness": 0.95}, "seed": 5},
    {"kind": "noise", "params": {"model": "film", "sigma": 15, "clump": 0.7}, "seed": 2},
    {"kind": "holes", "params": {"shape": "text", "amount": 0.3, "fill": "white"}, "seed": 6},
]
# the photograph that shows a kind best: rain and haze belong outdoors, compression shows in fine detail
BEST = {"defocus": 1, "motion": 2, "jpeg": 1, "rain": 3, "haze": 4, "lowlight": 2}
TEXT, PAPER = (40, 40, 40), (255, 255, 255)


def shipped_photos(size: int) -> list[np.ndarray]:
    """(size, size, 3) uint8 pictures out of scikit-image's photographs."""
    try:
        from skimage import data
    except ImportError:
        raise UserError("scikit-image is not installed; install it or name a folder with --images") from None
    camera = np.repeat(data.camera()[..., None], 3, axis=2)
    views = [(data.astronaut(), 0, 90, 340), (data.chelsea(), 0, 90, 300), (data.coffee(), 20, 120, 380)]
    views += [(data.rocket(), 0, 110, 427), (camera, 20, 20, 480)]
    return [fit(image[top : top + side, left : left + side, :3], size) for image, top, left, side in views]


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image, (size, size, 3) uint8."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return np.asarray(square.resize((size, size), Image.LANCZOS))


def steps_of(kind: str, seed: int) -> list[dict]:
    """For each level the draw whose severity is nearest, out of 200; of different sorts (noise model …) if it can."""
    draws = [sample_step(kind, 1000 * seed + i) for i in range(200)]
    steps: list[dict] = []
    for level in LEVELS:
        shown = {next(iter(step["params"].values())) for step in steps}
        steps.append(
            min(
                draws,
                key=lambda step: abs(severity(step) - level) + 0.05 * (next(iter(step["params"].values())) in shown),
            )
        )
    return steps


def sheet(rows: list[list[tuple[np.ndarray, str]]]) -> Image.Image:
    """Rows of (float32 picture, caption)."""
    height, width = rows[0][0][0].shape[:2]
    gap, line = 6, 20
    page = Image.new("RGB", (gap + (width + gap) * max(map(len, rows)), gap + (height + line + gap) * len(rows)), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for r, row in enumerate(rows):
        for c, (picture, caption) in enumerate(row):
            x, y = gap + c * (width + gap), gap + r * (height + line + gap)
            page.paste(Image.fromarray(np.round(picture * 255).astype(np.uint8)), (x, y))
            pen.text((x + 2, y + height + 2), caption, fill=TEXT, font=font)
    return page


def caption_of(step: dict) -> str:
    params = step["params"]
    detail = {
        "noise": "{model}, sigma {sigma:.0f}",
        "defocus": "{shape}, {radius:.1f} px",
        "motion": "{path}, {length:.0f} px",
        "jpeg": "{format}, quality {quality}",
        "lowres": "{down} 1/{scale:.1f}, {up}",
        "rain": "{amount:.0f} x {length:.0f} px",
        "haze": "density {density:.1f}",
        "lowlight": "-{stops:.1f} stops",
        "holes": "{shape}, {fill}",
    }[step["kind"]]
    return f"{severity_word(step)} ({severity(step):.2f}): {detail.format(**params)}"


def all_kinds(images: list[np.ndarray], kinds: list[str], seed: int, shipped: bool) -> Image.Image:
    rows = []
    for number, kind in enumerate(kinds):
        image = to_float(images[BEST.get(kind, 0) if shipped else number % len(images)])
        row = [(image, kind)]
        for step in steps_of(kind, seed):
            row.append((render(image, [step]), caption_of(step)))
        rows.append(row)
    return sheet(rows)


def all_targets(image: np.ndarray) -> Image.Image:
    cells = []
    for removed, picture in every_target(to_float(image), EXAMPLE).items():
        kept = [step["kind"] for step in EXAMPLE if step["kind"] not in removed]
        caption = "remove " + ", ".join(kind for kind in KINDS if kind in removed) if removed else "as it came"
        cells.append((picture, caption + (f"; keep {', '.join(kept)}" if removed and kept else "")))
    return sheet([cells[:4], cells[4:]])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", required=True, help="folder for degradations.jpg and targets.jpg")
    parser.add_argument("--images", help="a folder of clean photographs")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND", help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=208, help="px of one picture")
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    args = parser.parse_args(argv)
    try:
        check_keys(dict.fromkeys(args.kinds), KINDS, "--kinds")
        if args.images:
            source = ImageSource(args.images, label="--images")
            images = [fit(np.uint8(np.round(to_float(source.read(key)) * 255)), args.size) for key in source.keys[:8]]
        else:
            images = shipped_photos(args.size)
        output = Path(args.output)
        output.mkdir(parents=True, exist_ok=True)
        kinds = all_kinds(images, args.kinds, args.seed, not args.images)
        sheets = {"degradations": kinds, "targets": all_targets(images[0])}
        for name, page in sheets.items():
            with replace_on_success(output / f"{name}.{args.format}") as path:
                page.save(path, **({"quality": 80} if args.format == "jpg" else {}))
            print(output / f"{name}.{args.format}")
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(f"show_degradations: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
