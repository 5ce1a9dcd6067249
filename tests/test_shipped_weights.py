"""The starter model that comes with the package: it is small, says where it comes from, and restores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import prompt_mamba_arch
from prompt_mamba_arch.data import render
from prompt_mamba_arch.restore import Restorer, shipped_models

WEIGHTS = Path(prompt_mamba_arch.__file__).parent / "weights"


@pytest.fixture(scope="module")
def starter():
    return Restorer.from_pretrained("tiny", device="cpu")


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2))


def as_image(image):
    return np.rint(image * 255).astype(np.uint8)


def test_it_is_small_and_says_where_it_comes_from(starter):
    assert "tiny" in shipped_models()
    file = WEIGHTS / "tiny.safetensors"
    assert file.stat().st_size <= 4 * 2**20
    assert sum(p.numel() for p in starter.net.parameters()) <= 1.5e6
    with safe_open(file, framework="np") as opened:
        told = opened.metadata()
    training = json.loads(told["training"])
    assert training["data"] and training["hardware"] and all(phase["iterations"] > 0 for phase in training["phases"])
    assert told["phase"] == "finetune" and json.loads(told["network_g"])["type"] == "PromptMamba"


@pytest.mark.parametrize("prompt", ["remove the noise", "get rid of the grain", None])
def test_it_removes_noise(starter, photos, prompt):
    gains = []
    for photo in photos.values():
        recipe = [{"kind": "noise", "params": {"model": "gaussian", "sigma": 25}, "seed": 1}]
        lq = as_image(render(photo.astype(np.float32) / 255, recipe))
        gains.append(psnr(starter.restore(lq, prompt), photo) - psnr(lq, photo))
    assert np.mean(gains) > 5


@pytest.mark.parametrize(
    ("prompt", "wanted", "other", "least"),
    [("take the grain out", "noise", "lowlight", 6.0), ("brighten it up", "lowlight", "noise", 4.0)],
)
def test_requests_steer_it(starter, photos, prompt, wanted, other, least):
    """A dark and noisy photograph comes nearer to what was asked for, and not to the other half."""
    recipe = [
        {"kind": "lowlight", "params": {"stops": 2.5, "photons": 0, "read": 0}, "seed": 1},
        {"kind": "noise", "params": {"model": "gaussian", "sigma": 20}, "seed": 2},
    ]
    gains = []
    for photo in photos.values():
        clean = photo.astype(np.float32) / 255
        lq, asked, else_ = (as_image(render(clean, recipe, without=w)) for w in ((), (wanted,), (other,)))
        restored = starter.restore(lq, prompt)
        gains.append([psnr(restored, target) - psnr(lq, target) for target in (asked, else_)])
    towards, away = np.mean(gains, axis=0)
    assert towards > least and away < 0.5, gains


def test_it_leaves_alone_what_it_is_asked_to(starter, photos):
    assert np.mean([psnr(starter.restore(photo, "leave it as it is"), photo) for photo in photos.values()]) > 45
