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
    the worst of them, and the others are not learned for a long time.

    Args:
        loss_weight: factor of the loss.
        eps: added to the mean squared error of images in [0, 1]; 1e-5 means that nothing is gained above 50 dB.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 1e-5):
        super().__init__()
        if not eps > 0:
            raise UserError(f"PSNRLoss: eps must be greater than 0, not {eps!r}")
        self.loss_weight = loss_weight
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Both `(B, C, H, W)`; returns a scalar, in float32 whatever the images are."""
        error = (pred.float() - target.float()).square().mean(dim=(1, 2, 3))  # (B,)
        return self.loss_weight * (10 / math.log(10)) * (error + self.eps).log().mean()
