"""Restores the quickstart's photograph blind and with sentences, prints PSNR before and after, draws one picture.

    python scripts/quickstart_report.py QUICKSTART_FOLDER NETWORK

Writes report.jpg and the restored photographs into the folder. Exits with 1 if a restoration is not nearer to its
target than its input was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prompt_mamba_arch.restore import Restorer

# prompt -> the file that holds what it asks for
REQUESTS = {
    None: "photo_gt.png",
    "take the grain out": "photo_noise.png",
    "remove the scratches": "photo_holes.png",
    "brighten it up": "photo_lowlight.png",
}


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB, over all channels of two uint8 images."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def panel(image: np.ndarray, text: str) -> np.ndarray:
    caption = 26  # pixels
    canvas = Image.new("RGB", (image.shape[1], image.shape[0] + caption), "white")
    canvas.paste(Image.fromarray(image), (0, 0))
    font = ImageFont.load_default(size=15)
    ImageDraw.Draw(canvas).text((4, image.shape[0] + 4), text, fill="black", font=font)
    return np.asarray(canvas)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("network", help="a shipped network's name or a checkpoint")
    args = parser.parse_args()

    restorer = Restorer.from_pretrained(args.network)
    lq = read(args.folder / "photo.png")
    rows, better = [], True
    print("\n| request | PSNR before | PSNR after |\n|---|---|---|")
    for prompt, target in REQUESTS.items():
        if not (args.folder / target).exists():  # that kind is not in this photograph
            continue
        gt = read(args.folder / target)
        restored = restorer.restore(lq, prompt, look=True)  # as `prompt-mamba restore` does
        before, after = psnr(lq, gt), psnr(restored, gt)
        better &= after > before
        request = f'"{prompt}"' if prompt else "no sentence"
        print(f"| {request} | {before:.2f} dB | {after:.2f} dB |")
        rows.append(
            [
                panel(lq, f"input, {before:.2f} dB"),
                panel(restored, f"{request}, {after:.2f} dB"),
                panel(gt, "what was asked for" if prompt else "truth"),
            ]
        )
        Image.fromarray(restored).save(args.folder / f"restored_{Path(target).stem.split('_')[1]}.png")
    picture = np.vstack([np.hstack(row) for row in rows])
    Image.fromarray(picture).save(args.folder / "report.jpg", quality=88)
    print(f"\npicture: {args.folder / 'report.jpg'}")
    return 0 if better else 1


if __name__ == "__main__":
    sys.exit(main())
