"""Compression artefacts, by the encoders that make them: JPEG and WebP."""

from __future__ import annotations

import cv2
import numpy as np

from prompt_mamba_arch.data.degradations.spec import Choice, Degradation, Number

__all__ = ["JPEG"]

_SUBSAMPLING = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


def _apply(image: np.ndarray, p: dict, rng: np.random.Generator) -> np.ndarray:
    pixels = np.round(image * np.float32(255)).astype(np.uint8)[..., ::-1]  # OpenCV: BGR
    # a cropped photograph's blocks need not begin at its corner
    padded = cv2.copyMakeBorder(pixels, p["grid_y"], 0, p["grid_x"], 0, cv2.BORDER_REPLICATE)
    if p["format"] == "jpeg":
        flags = [cv2.IMWRITE_JPEG_QUALITY, p["quality"], cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SUBSAMPLING[p["chroma"]]]
        _, data = cv2.imencode(".jpg", padded, flags)
    else:
        _, data = cv2.imencode(".webp", padded, [cv2.IMWRITE_WEBP_QUALITY, p["quality"]])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)[p["grid_y"] :, p["grid_x"] :, ::-1]
    return decoded.astype(np.float32) / np.float32(255)


def _severity(p: dict) -> float:
    # Damage grows with the quantiser's step, which libjpeg takes as 5000 / quality below 50 and 200 - 2 quality above.
    quality = p["quality"] if p["format"] == "jpeg" else min(p["quality"] + 12, 100)  # WebP does more with the same
    step = 50 / quality if quality < 50 else 2 - quality / 50
    # 4:2:0 loses colour detail at any quality
    colour = {"4:2:0": 0.03, "4:2:2": 0.015, "4:4:4": 0.0}[p["chroma"]] if p["format"] == "jpeg" else 0.03
    return (1 - colour) * (1 - float(np.exp(-0.4 * step))) + colour


JPEG = Degradation(
    kind="jpeg",
    params={
        "format": Choice(("jpeg", "webp"), (6, 1), "jpeg"),
        "quality": Number(1, 100, (10, 90), 40, log=True, integer=True),
        "chroma": Choice(("4:2:0", "4:4:4", "4:2:2"), (3, 2, 0), "4:2:0", only={"format": ("jpeg",)}),
        "grid_y": Number(0, 15, (0, 7), 0, integer=True),  # px by which the blocks begin before the image
        "grid_x": Number(0, 15, (0, 7), 0, integer=True),
    },
    apply=_apply,
    severity=_severity,
)
