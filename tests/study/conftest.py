"""A small study: three methods, of which one is plainly best."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

METHODS = ("good", "middling", "poor")


@pytest.fixture
def results(tmp_path, photos):
    """A folder as `study serve` takes it: four images of 96 x 120 pixels, with inputs, three with prompts."""
    folder = tmp_path / "results"
    rng = np.random.default_rng(0)
    for method, sigma in (*zip(METHODS, (1, 15, 40)), ("inputs", 60)):
        (folder / method).mkdir(parents=True)
        for name, photo in photos.items():
            noisy = photo[:96, :120] + rng.normal(0, sigma, (96, 120, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / method / f"{name}.png")
    prompts = [{"key": name, "prompts": ["take the grain out <b>now</b>"]} for name in sorted(photos)[:3]]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    return folder
