"""The network as deepinv's denoiser. The algorithms are that library's; the shipped network is the denoiser."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from prompt_mamba_arch import cli, pnp
from prompt_mamba_arch.classical import gaussian_kernel
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.metrics.targeted import psnr
from prompt_mamba_arch.restore import Restorer


@pytest.fixture(scope="module")
def denoiser():
    pytest.importorskip("deepinv")
    return pnp.as_denoiser(Restorer.from_pretrained("tiny", "cpu"))


@pytest.fixture(scope="module")
def clean(photos):
    """(96, 96, 3) float32."""
    return np.ascontiguousarray(photos["astronaut"][30:126, 40:136].astype(np.float32) / 255)


def _noise(image, sigma):
    return image + np.random.default_rng(0).normal(0, sigma, image.shape).astype(np.float32)


def test_the_denoiser_denoises(denoiser, clean):
    x = torch.from_numpy(clean.transpose(2, 0, 1))[None]
    for sigma, gain in ((20 / 255, 3), (100 / 255, 5)):  # the second by less contrast
        noisy = torch.from_numpy(_noise(clean, sigma).transpose(2, 0, 1))[None]
        with torch.no_grad():
            found = denoiser(noisy.expand(2, -1, -1, -1), torch.tensor([sigma, sigma]))
        assert found.shape == (2, 3, 96, 96) and torch.allclose(found[0], found[1])
        before, after = (-10 * torch.log10(((y[:1] - x) ** 2).mean()).item() for y in (noisy, found))
        assert after > before + gain


def test_operators(denoiser, clean, tmp_path):
    """Each is undone in part, by the command, and better than by what it starts from."""
    known = np.ones(clean.shape[:2], bool)
    known[20:26, 10:80] = known[40:90, 50:54] = False
    holes = np.where(known[..., None], _noise(clean, 2 / 255), 1).clip(0, 1).astype(np.float32)
    blurred = cv2.filter2D(clean, -1, gaussian_kernel(1.6), borderType=cv2.BORDER_REFLECT)
    blurred = _noise(blurred, 2 / 255).clip(0, 1)
    for name, image in (("holes", holes), ("blurred", blurred)):
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.where(known, 0, 255).astype(np.uint8)).save(tmp_path / "mask.png")

    def command(name, *more):
        words = ["pnp", "-i", tmp_path / f"{name}.png", "-o", tmp_path / "out.png", "--device", "cpu", *more]
        assert cli.main([str(word) for word in words]) == 0
        return np.asarray(Image.open(tmp_path / "out.png")) / np.float32(255)

    filled = command("holes", "--operator", "inpaint", "--mask", tmp_path / "mask.png")
    assert psnr(filled, clean) > psnr(holes, clean) + 5
    sharp = command("blurred", "--operator", "blur", "--blur", 1.6)
    assert psnr(sharp, clean) > psnr(blurred, clean) + 0.5
    small = cv2.resize(clean, (48, 48), interpolation=cv2.INTER_AREA)
    large = pnp.enlarge(denoiser, small, 2)
    assert large.shape == clean.shape and psnr(large, clean) > 24
    for algorithm in ("diffpir", "ddrm"):
        first, again = (pnp.inpaint(denoiser, holes, known, algorithm=algorithm, steps=3, seed=1) for _ in range(2))
        assert np.array_equal(first, again) and first.shape == clean.shape and np.isfinite(first).all()


def test_mistakes(denoiser, clean, monkeypatch, capsys):
    mask = np.ones(clean.shape[:2], bool)
    for run, said in (
        (lambda: pnp.inpaint(denoiser, clean, mask), "leaves nothing to fill"),
        (lambda: pnp.inpaint(denoiser, clean, mask[:5]), "the mask has 96 x 5 pixels"),
        (lambda: pnp.deblur(denoiser, clean, np.ones((2, 3))), "odd sides"),
        (lambda: pnp.enlarge(denoiser, clean, 2, algorithm="ddrm"), "needs an operator with singular values"),
        (lambda: pnp.enlarge(denoiser, clean, 2, algorithm="dipr"), "did you mean 'dpir'"),
        (lambda: pnp.enlarge(denoiser, clean, 2, steps=9), "eight steps"),
    ):
        with pytest.raises(UserError, match=said):
            run()
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(UserError, match=r"needs the package deepinv .*pip install deepinv"):
        pnp.as_denoiser(Restorer.from_pretrained("tiny", "cpu"))


def test_the_command_says_what_is_missing(capsys):
    for words, said in (
        (["--operator", "inpaint"], "--operator inpaint needs --mask"),
        (["--operator", "blur", "--blur", "2", "--scale", "2"], "--scale is for --operator sr"),
        (["--operator", "sr", "--scale", "2"], "no such file"),
    ):
        assert cli.main(["pnp", "-i", "none.png", "-o", "out.png", *words]) == 2
        assert said in capsys.readouterr().err


def test_transparency_is_refused(tmp_path, capsys):
    """Enlarging would leave the alpha channel at its old size."""
    path = tmp_path / "clear.png"
    Image.fromarray(np.full((8, 8, 4), 90, np.uint8)).save(path)
    assert cli.main(["pnp", "-i", str(path), "-o", str(tmp_path / "out.png"), "--operator", "sr", "--scale", "2"]) == 2
    assert "without transparency" in capsys.readouterr().err and not (tmp_path / "out.png").exists()
