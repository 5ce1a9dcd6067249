"""The loss in dB, against BasicSR's metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from basicsr.losses import build_loss
from basicsr.metrics.psnr_ssim import calculate_psnr

from prompt_mamba_arch.errors import UserError


def _images(photos):
    gt = np.stack([photo[:64, :64] for photo in photos.values()]).astype(np.float64)
    noise = np.random.default_rng(0).normal(size=gt.shape) * np.array([2, 8, 25, 60])[: len(gt), None, None, None]
    return np.clip(np.rint(gt + noise), 0, 255), gt


def _tensor(images):
    return torch.from_numpy(images / 255).permute(0, 3, 1, 2).float()


def test_it_is_minus_the_mean_psnr(photos):
    lq, gt = _images(photos)
    expected = np.mean([calculate_psnr(a, b, crop_border=0) for a, b in zip(lq, gt)])
    loss = build_loss({"type": "PSNRLoss", "eps": 1e-12})
    assert -loss(_tensor(lq), _tensor(gt)).item() == pytest.approx(expected, abs=1e-3)


def test_images_count_alike_however_wrong_they_are(photos):
    lq, gt = map(_tensor, _images(photos))
    lq.requires_grad_()
    build_loss({"type": "PSNRLoss", "loss_weight": 0.1, "eps": 1e-9})(lq, gt).backward()
    # the gradient along the error is the same for every image: error * d loss / d error = constant
    along = (lq.grad * (lq - gt)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(along, torch.full_like(along, 0.1 * 20 / np.log(10) / len(gt)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("power", [1e-3, 0.25, 0.5, 1.0])
def test_power_is_that_of_the_squared_error(photos, power):
    lq, gt = map(_tensor, _images(photos))
    found = build_loss({"type": "PSNRLoss", "power": power})(lq, gt).item()
    error = ((lq - gt).double() ** 2).mean(dim=(1, 2, 3)) + 1e-5
    expected = (error**power - 1) / power
    assert found == pytest.approx(10 / np.log(10) * expected.mean().item(), rel=1e-3)


def test_equal_images_have_a_finite_gradient(photos):
    _, gt = map(_tensor, _images(photos))
    pred = gt.clone().requires_grad_()
    loss = build_loss({"type": "PSNRLoss"})(pred, gt)
    loss.backward()
    assert loss.item() == pytest.approx(-50, abs=1e-3) and torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("wrong", [{"eps": 0}, {"power": -0.5}, {"power": 2}])
def test_what_makes_no_loss_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        build_loss({"type": "PSNRLoss", **wrong})
