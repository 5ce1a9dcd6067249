"""A loss that weighs images by how wrong they still are: a dark photograph does not drown one with a little noise."""

from __future__ import annotations

import math

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from prompt_mamba_arch.errors import UserError

__all__ = ["PSNRLoss"]


@LOSS_REGISTRY.register()
class PSNRLoss(nn.Module):
    """The mean of the images' negative PSNR, in dB (HINet, Chen et al., CVPR Workshops 2021; NAFNet trains with it).

    Where degradations are mixed, errors differ a hundredfold from image to image; with L1 or L2 the gradient belongs to
    the worst of them, and the others are not learned for a long time. With the logarithm it belongs to the best, which
    are left to learn least: darkness and haze, large errors with simple remedies, then take thousands of iterations
    where a power of 0.25 takes hundreds. So training can start with a power and end with the logarithm.

    Args:
        loss_weight: factor of the loss.
        eps: added to the mean squared error of images in [0, 1]; 1e-5 means that nothing is gained above 50 dB.
        power: p of (MSE^p - 1) / p in place of ln MSE, which is its limit for 0; 0.5 is the root mean square, 1 the
            mean square.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-5, power: float = 0.0):
        super().__init__()
        if not eps > 0:
            raise UserError(f"PSNRLoss: eps must be greater than 0, not {eps!r}")
        if not 0 <= power <= 1:
            raise UserError(f"PSNRLoss: power must be from 0 to 1, not {power!r}")
        self.loss_weight = loss_weight
        self.eps = eps
        self.power = power

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Both `(B, C, H, W)`; returns a scalar, in float32 whatever the images are."""
        error = (pred.float() - target.float()).square().mean(dim=(1, 2, 3))  # (B,)
        each = (error + self.eps).log() if self.power == 0 else ((error + self.eps) ** self.power - 1) / self.power
        return self.loss_weight * (10 / math.log(10)) * each.mean()
