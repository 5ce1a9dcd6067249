"""A loss on the Fourier coefficients: it sees the fine texture that a mean over pixels averages away."""

from __future__ import annotations

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from prompt_mamba_arch.errors import UserError

__all__ = ["FrequencyLoss"]


@LOSS_REGISTRY.register()
class FrequencyLoss(nn.Module):
    """Mean absolute difference of the two images' 2-D Fourier coefficients, real and imaginary parts alike.

    The frequency reconstruction loss of MIMO-UNet (Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image
    Deblurring", ICCV 2021, eq. 9) on one scale; its authors add it to the L1 loss with weight 0.1.

    Args:
        loss_weight: factor of the loss.
        norm: `backward` leaves the coefficients unnormalised as the paper does, so the loss grows with the patch's
            side; `ortho` makes it independent of the patch's size.
    """

    def __init__(self, loss_weight: float = 0.1, norm: str = "backward"):
        super().__init__()
        if norm not in ("backward", "ortho"):
            raise UserError(f"FrequencyLoss: norm must be backward or ortho, not {norm!r}")
        self.loss_weight = loss_weight
        self.norm = norm

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Both `(B, C, H, W)`; returns a scalar, in float32 whatever the images are."""
        # the transform is linear: that of the difference is the difference of the two
        difference = torch.fft.rfft2(pred.float() - target.float(), norm=self.norm)
        return self.loss_weight * torch.view_as_real(difference).abs().mean()
