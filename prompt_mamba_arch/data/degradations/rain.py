"""Rain: layers of streaks from far (short, thin, dense, faint) to near (long, broad, few, bright), and the veil that
the many drops too far away to be seen singly lay over the picture."""

from __future__ import annotations

import cv2
import numpy as np

from prompt_mamba_arch.data.degradations.fields import smooth_field
from prompt_mamba_arch.data.degradations.spec import Degradation, Number

__all__ = ["RAIN"]


def _streaks(h: int, w: int, p: dict, layer: int, rng: np.random.Generator) -> np.ndarray:
    """Opacity of one layer, (H, W) float32 in [0, 1]; layer 0 is the nearest."""
    far = 0.62**layer
    length, width = p["length"] * far, p["width"] * far
    margin = int(np.ceil(length)) + 2
    area = (h + 2 * margin) * (w + 2 * margin)
    share = 0.55**layer / sum(0.55**i for i in range(p["layers"]))  # of the streaks' area
    # in every layer the same area is wet: the smaller the streaks, the more of them
    count = min(max(1, round(p["amount"] * 1e-4 * area * share / far**2)), 200_000)
    place, shape = rng.random((2, count)), rng.random((2, count))
    tilt = np.deg2rad(p["angle"] + 2.5 * rng.standard_normal(count))
    order = np.argsort(shape[0], kind="stable")  # the bright ones over the faint
    bright = 0.3 + 0.7 * shape[0][order]
    half = 0.5 * length * (0.35 + 0.5 * shape[1][order])
    y, x = place[0][order] * (h + 2 * margin), place[1][order] * (w + 2 * margin)
    dy, dx = half * np.cos(tilt), half * np.sin(tilt)
    # whole numbers with 4 fractional bits, as cv2.line takes them
    ends = np.round(16 * np.stack([x - dx, y - dy, x + dx, y + dy], axis=1)).astype(int).tolist()
    canvas = np.zeros((h + 2 * margin, w + 2 * margin), np.uint8)
    thickness = max(1, int(width))
    for (x0, y0, x1, y1), value in zip(ends, np.round(255 * bright).astype(int).tolist()):
        cv2.line(canvas, (x0, y0), (x1, y1), value, thickness, cv2.LINE_AA, 4)
    streaks = canvas.astype(np.float32) / np.float32(255)
    streaks *= np.float32(min(1.0, width / (thickness + 0.5)))  # drawn half a pixel broader: fainter in return
    # a drop falls during the exposure: the ends fade, all in one direction
    taper = max(1.0, 0.3 * length)
    kernel = _line_kernel(taper, np.deg2rad(p["angle"]))
    streaks = cv2.filter2D(streaks, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    if layer == 0 and p["layers"] > 1:  # nearer than the focus
        streaks = cv2.GaussianBlur(streaks, (0, 0), 0.25 + 0.2 * width, borderType=cv2.BORDER_CONSTANT)
    return streaks[margin : margin + h, margin : margin + w] * np.float32(p["brightness"] * 0.88**layer)


def _line_kernel(length: float, tilt: float) -> np.ndarray:
    """A line through the middle, tilted from the vertical, (k, k) float32, sum 1."""
    n = int(np.ceil(length / 2)) + 1
    t = np.linspace(-length / 2, length / 2, 8 * n)
    y, x = t * np.cos(tilt), t * np.sin(tilt)
    kernel = np.zeros((2 * n + 1, 2 * n + 1))
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - i - (y - row)) * np.abs(1 - j - (x - column))
            np.add.at(kernel, (row + i + n, column + j + n), weight)
    return (kernel / kernel.sum()).astype(np.float32)


def _apply(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    h, w = image.shape[:2]
    mist = np.float32(p["veil"]) * (1 + np.float32(0.25) * smooth_field(h, w, 4, rng))
    clear = 1 - np.clip(mist, 0, 1)
    for layer in reversed(range(p["layers"])):
        clear = clear * (1 - np.clip(_streaks(h, w, p, layer, rng), 0, 1))
    clear = clear[..., None]
    # a drop shows the sky, a little bluish
    light = np.float32(p["light"]) * np.float32([0.97, 0.99, 1.0])
    return image * clear + light * (1 - clear)


def _severity(p: dict) -> float:
    wet = p["amount"] * 1e-4 * p["length"] * p["width"] * p["brightness"]
    hidden = 1 - (1 - p["veil"]) ** 1.2 * float(np.exp(-1.6 * wet * (0.9 + 0.05 * p["layers"])))
    return min(1.0, 1.7 * hidden**0.85)


RAIN = Degradation(
    kind="rain",
    params={
        "amount": Number(1, 300, (12, 60), 28, log=True),  # streaks of the nearest layer's size in 100 x 100 px
        "length": Number(3, 150, (16, 50), 28),  # px
        "width": Number(0.3, 8, (0.6, 1.4), 1.0),  # px
        "angle": Number(-80, 80, (-35, 35), 10),  # degrees from the vertical
        "brightness": Number(0.05, 1, (0.45, 0.95), 0.7),  # opacity of the brightest streaks
        "layers": Number(1, 5, (1, 3), 2, integer=True),
        # opacity of the mist; often there is none, and a network that has always seen some darkens pictures without
        "veil": Number(0, 0.9, (0.0, 0.25), 0.1, least=0.5),
        "light": Number(0.3, 1, (0.75, 0.98), 0.9),  # display value of what the drops show
    },
    apply=_apply,
    severity=_severity,
)
