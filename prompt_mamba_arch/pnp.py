"""Plug and play: a known operator says what was done to an image, the network only what images look like.

The library deepinv (Tachella et al. 2025; extra `pnp`) has the algorithms; here is the network as its denoiser.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from prompt_mamba_arch.data.degradations import resize
from prompt_mamba_arch.errors import UserError, did_you_mean, one_line
from prompt_mamba_arch.restore import Restorer

if TYPE_CHECKING:
    from deepinv.models import Denoiser
    from deepinv.physics import Physics

__all__ = ["ALGORITHMS", "OPERATORS", "as_denoiser", "deblur", "enlarge", "inpaint", "reconstruct"]

ALGORITHMS = ("dpir", "diffpir", "ddrm")
OPERATORS = ("inpaint", "blur", "sr")
_PROMPT = "remove the noise"
_STRONGEST = 40 / 255  # noise that the network meets in training


def as_denoiser(restorer: Restorer, prompt: str = _PROMPT, strongest: float = _STRONGEST) -> Denoiser:
    """A deepinv denoiser: x (B, C, H, W), sigma -> the same without noise.

    The network sees by itself how strong the noise is. Stronger noise than it knows is shown to it with less contrast
    (denoiser scaling, Xu et al. 2020).

    Args:
        prompt: what it is asked; networks that take none are not.
        strongest: sigma, of values in [0, 1], up to which it is used as it is.

    Raises:
        UserError: deepinv is not installed, or the network enlarges.
    """
    if restorer.upscale != 1:
        raise UserError(f"the network {restorer.name!r} enlarges its input; it is no denoiser")
    deepinv = _deepinv()
    text = restorer.embed(prompt) if restorer.takes_prompts else None

    class PromptDenoiser(deepinv.models.Denoiser):
        """`as_denoiser` says what it does."""

        where = restorer.device

        def forward(self, x: torch.Tensor, sigma: float | torch.Tensor, **ignored: object) -> torch.Tensor:
            level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)
            contrast = (strongest / level.clamp(min=1e-8)).clamp(max=1).expand(x.shape[0], 1, 1, 1)
            words = None if text is None else text.expand(x.shape[0], -1)
            shown = (x.to(restorer.device) - 0.5) * contrast + 0.5
            return ((restorer.forward(shown, words) - 0.5) / contrast + 0.5).to(x)

    return PromptDenoiser(device=restorer.device)


def inpaint(
    denoiser: Denoiser, image: np.ndarray, known: np.ndarray, sigma: float = 0.01, algorithm: str = "dpir", **options
) -> np.ndarray:
    """Fills what is not known.

    Args:
        image: (H, W, 3) float32 RGB in [0, 1].
        known: (H, W) bool; where the image is to be believed.
        sigma: of the noise on what is known.
        algorithm, options: as `reconstruct`.
    """
    if known.shape != image.shape[:2]:
        raise UserError(f"the mask has {_size(known)} pixels and the image {_size(image)}")
    if known.all() or not known.any():
        raise UserError(f"the mask leaves {'nothing' if known.all() else 'everything'} to fill")
    mask = torch.from_numpy(known.astype(np.float32)).expand(1, 3, -1, -1).contiguous()
    physics = _deepinv().physics.Inpainting(img_size=(3, *known.shape), mask=mask)
    rough = cv2.inpaint(np.rint(image * 255).astype(np.uint8), (~known).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    y = _tensor(image) * mask
    return _image(reconstruct(denoiser, y, physics, _tensor(rough / 255), sigma, algorithm, **options))


def deblur(
    denoiser: Denoiser, image: np.ndarray, kernel: np.ndarray, sigma: float = 0.01, algorithm: str = "dpir", **options
) -> np.ndarray:
    """Takes back a convolution with a known kernel, (h, w) with odd sides, not flipped; others as `inpaint`."""
    if (
        kernel.ndim != 2
        or not all(side % 2 for side in kernel.shape)
        or not np.isfinite(kernel).all()
        or kernel.sum() <= 0
    ):
        raise UserError("a kernel must have odd sides, and numbers whose sum is above 0")
    margin = 2 * max(kernel.shape)  # the operator is circular
    wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    weights = torch.from_numpy((kernel / kernel.sum()).astype(np.float32))[None, None]
    physics = _deepinv().physics.BlurFFT(img_size=(3, *wide.shape[:2]), filter=weights)
    y = _tensor(wide)
    found = _image(reconstruct(denoiser, y, physics, y, sigma, algorithm, **options))
    return found[margin:-margin, margin:-margin]


def enlarge(
    denoiser: Denoiser, image: np.ndarray, scale: int, sigma: float = 0.01, algorithm: str = "dpir", **options
) -> np.ndarray:
    """Takes back bicubic reduction; others as `inpaint`.

    Returns:
        (H * scale, W * scale, 3)
    """
    height, width = (side * scale for side in image.shape[:2])
    physics = _deepinv().physics.Downsampling(img_size=(3, height, width), factor=scale, filter="bicubic")
    rough = resize(image.astype(np.float64), height, width, "bicubic")
    return _image(reconstruct(denoiser, _tensor(image), physics, _tensor(rough), sigma, algorithm, **options))


def reconstruct(
    denoiser: Denoiser,
    y: torch.Tensor,
    physics: Physics,
    start: torch.Tensor,
    sigma: float = 0.01,
    algorithm: str = "dpir",
    *,
    steps: int | None = None,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> torch.Tensor:
    """The image that a measurement is of, by one of deepinv's algorithms.

    Args:
        y: the measurement. physics: what made it. start: where `dpir` begins, the shape of the image.
        sigma: of the measurement's noise.
        algorithm: `dpir` (Zhang et al. 2021), `diffpir` (Zhu et al. 2023), `ddrm` (Kawar et al. 2022; not for `sr`).
            The last two draw random numbers and ask the denoiser for noise that it was not trained on.
        steps: default 8 for dpir, where the library fixes it, 20 for the others.
        seed: of the random numbers.

    Raises:
        UserError: no such algorithm, or it cannot be used with this operator.
    """
    deepinv = _deepinv()
    if algorithm not in ALGORITHMS:
        hint = did_you_mean(algorithm, ALGORITHMS) or f"; there are {', '.join(ALGORITHMS)}"
        raise UserError(f"no such algorithm: {algorithm!r}{hint}")
    if algorithm == "ddrm" and not isinstance(physics, deepinv.physics.DecomposablePhysics):
        raise UserError("ddrm needs an operator with singular values; take dpir or diffpir")
    if algorithm == "dpir" and steps is not None:
        raise UserError("dpir has eight steps; they are not a choice")
    sigma = max(float(sigma), 1e-3)
    physics.noise_model = deepinv.physics.GaussianNoise(sigma)
    device = getattr(denoiser, "where", y.device)
    y, start, physics = y.to(device), start.to(device), physics.to(device)
    with torch.random.fork_rng(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        if algorithm == "dpir":
            model = deepinv.optim.DPIR(sigma=sigma, denoiser=denoiser, device=device)
            return model(y, physics, init=start)
        if algorithm == "diffpir":
            fidelity = deepinv.optim.data_fidelity.L2()
            options = {"sigma": sigma, "max_iter": steps or 20, "device": device}
            return deepinv.sampling.DiffPIR(model=denoiser, data_fidelity=fidelity, **options)(y, physics)
        return deepinv.sampling.DDRM(denoiser=denoiser, sigmas=np.linspace(1, 0, steps or 20))(y, physics)


def _deepinv():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import deepinv
            import deepinv.sampling
    except ImportError as error:
        raise UserError(f"this needs the package deepinv ({one_line(error)[:100]}): pip install deepinv") from None
    return deepinv


def _tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))[None]


def _image(x: torch.Tensor) -> np.ndarray:
    return x[0].clamp(0, 1).permute(1, 2, 0).float().cpu().numpy()


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
