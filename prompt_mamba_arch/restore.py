"""Restorer: from a trained network and an image of any size to the restored image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import prompt_mamba_arch  # registers the networks
from prompt_mamba_arch.compat.resume import load_plain
from prompt_mamba_arch.errors import UserError, check_keys, one_line
from prompt_mamba_arch.tiling import restore_in_tiles

__all__ = ["Restorer", "shipped_models"]

_WEIGHTS = Path(prompt_mamba_arch.__file__).parent / "weights"
_SUFFIXES = (".safetensors", ".pth")
_MIN_TILE = 64  # pixels; below that there is more overlap than tile
_OVERLAP = 48  # pixels that neighbouring tiles share
# Peak memory of a forward pass without gradients / that of the input's first features, measured for PromptMamba and
# rounded up generously; for a network that does not say how wide it is
_FEATURE_COPIES, _UNKNOWN_WIDTH = 30, 180


class Restorer:
    """A trained network that restores images as prompts ask. Build it with `from_pretrained`.

    Attributes:
        name: what it was loaded from.
        upscale: output pixels per input pixel, along each side.
        device: where it computes.
    """

    def __init__(self, net: torch.nn.Module, *, name: str = "network", device: str | torch.device = "auto"):
        self.device = _device(device)
        self.net = net.to(self.device).eval().requires_grad_(False)
        self.name = name
        config = getattr(net, "config", {})
        self.upscale: int = config.get("upscale") or getattr(net, "upscale", 1)
        self._multiple: int = getattr(net, "size_multiple", 8)
        self._takes_prompts = hasattr(net, "text_parameters")
        # numbers per pixel of the widest full-resolution features
        unshuffle = config.get("unshuffle") or 1
        self._width: float = config.get("dim", _UNKNOWN_WIDTH) / unshuffle**2
        self._text_encoder = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike = "tiny", device: str | torch.device = "auto") -> Restorer:
        """Loads a network.

        Args:
            name_or_path: a shipped network's name; or a checkpoint of the training (.pth), a .safetensors file, or a
                folder that holds one such file. Averaged weights (`params_ema`) are taken where there are any.
            device: `auto` (CUDA where there is a GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.

        Raises:
            UserError: no such file or name, a damaged file, one that does not say which network it belongs to, or a
                device that is not there.
        """
        device = _device(device)  # said before anything is loaded
        path = _find(name_or_path)
        state, arguments = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pth(path)
        return cls(_build(path, state, arguments), name=str(name_or_path), device=device)

    def restore(
        self,
        image: np.ndarray,
        prompt: str | None = None,
        strength: float = 1.0,
        tile: str | int | None = "auto",
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Restores one image.

        Args:
            image: (H, W, 3) RGB, uint8, uint16, or float32 in [0, 1].
            prompt: what to do, in plain words; None or "" removes whatever is wrong.
            strength: scales what is changed: 0 gives the input back exactly (enlarged by bicubic interpolation if the
                network enlarges), 1 what the network says; above 1 exaggerates.
            tile: `auto` (tiles only if the whole image needs too much memory), `none`, or a side in pixels.
            progress: called with (tiles done, tiles in all).

        Returns:
            (H * upscale, W * upscale, 3) of the image's type.

        Raises:
            UserError: an image, strength or tile of the wrong kind, a prompt for a network that takes none, or not
                enough memory for the smallest tiles.
        """
        _check_image(image)
        if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 2:
            raise UserError(f"strength must be a number from 0 to 2, not {strength!r}")
        side = self._tile(tile, image)
        full = 1.0 if image.dtype == np.float32 else float(np.iinfo(image.dtype).max)
        given = image.astype(np.float32) / np.float32(full)
        base = given if self.upscale == 1 else _enlarge(given, self.upscale)
        if strength == 0:
            return image.copy() if self.upscale == 1 else _as_type(base, image.dtype, full)

        text = self._embed(prompt)
        while True:
            try:
                restored = self._restore(given, text, side, progress)
                break
            except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or tile == "none" or tile is None:
                    raise
                # nothing of the failed attempt is kept: all tiles are run again, smaller
                side = min(side, max(image.shape[:2])) // 2
                if side < _MIN_TILE:
                    raise UserError(
                        f"not enough memory for tiles of {_MIN_TILE} pixels: close other programs, or use --device cpu"
                    ) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        if not np.isfinite(restored).all():
            raise UserError(f"the network {self.name!r} gave values that are not numbers; its weights are damaged")
        return _as_type(base + np.float32(strength) * (restored - base), image.dtype, full)

    def _restore(self, image: np.ndarray, text: torch.Tensor | None, side: int, progress) -> np.ndarray:
        overlap = min(_OVERLAP, side // 4)
        return restore_in_tiles(
            image,
            lambda part: self._run(part, text),
            tile=side,
            overlap=overlap,
            multiple=self._multiple,
            upscale=self.upscale,
            progress=progress,
        )

    def _run(self, image: np.ndarray, text: torch.Tensor | None) -> np.ndarray:
        """(h, w, 3) float32 -> the same, enlarged by `upscale`."""
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(self.device)  # (1, 3, h, w)
        height, width = image.shape[0] * self.upscale, image.shape[1] * self.upscale
        if not hasattr(self.net, "size_multiple"):  # PromptMamba pads inside; others want it done
            missing = [-n % self._multiple for n in image.shape[:2]]
            x = torch.nn.functional.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
        with torch.inference_mode():
            y = self.net(x) if text is None else self.net(x, text)
        return y[0, :, :height, :width].permute(1, 2, 0).float().cpu().numpy()

    def _embed(self, prompt: str | None) -> torch.Tensor | None:
        if prompt is None or not prompt.strip():
            return None
        if not self._takes_prompts:
            raise UserError(f"the network {self.name!r} takes no prompts; leave the prompt out")
        if self._text_encoder is None:
            from prompt_mamba_arch.text import TextEncoder  # transformers takes seconds to import

            self._text_encoder = TextEncoder()
        return self._text_encoder.encode([prompt]).to(self.device)

    def _tile(self, tile: str | int | None, image: np.ndarray) -> int:
        """The side of the tiles; at least the image's for one tile."""
        whole = max(image.shape[:2])
        if tile is None or tile == "none":
            return whole
        if tile == "auto":
            per_pixel = 4 * (self._width * _FEATURE_COPIES + 12 * self.upscale**2)  # bytes
            affordable = int((0.5 * _free_memory(self.device) / per_pixel) ** 0.5)
            if image.shape[0] * image.shape[1] <= affordable**2:
                return whole
            return max(affordable // 64 * 64, _MIN_TILE)
        if isinstance(tile, bool) or not isinstance(tile, int) or tile < _MIN_TILE:
            raise UserError(f"tile must be auto, none, or a number of pixels from {_MIN_TILE} on, not {tile!r}")
        return tile


def shipped_models() -> list[str]:
    """Names that `from_pretrained` knows."""
    return sorted(path.stem for path in _WEIGHTS.glob("*.safetensors"))


def _find(name_or_path: str | os.PathLike) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise UserError(f"network {str(path)!r} must be a .pth or .safetensors file")
        return path
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES)
        if len(found) != 1:
            names = ", ".join(p.name for p in found[:4]) or "none"
            raise UserError(f"the folder {str(path)!r} must hold one .pth or .safetensors file, it has {names}")
        return found[0]
    name = str(name_or_path)
    if path.suffix in _SUFFIXES or os.sep in name:
        raise UserError(f"no such network file: {name!r}")
    shipped = _WEIGHTS / f"{name}.safetensors"
    if shipped.is_file():
        return shipped
    have = ", ".join(shipped_models())
    raise UserError(
        f"no network named {name!r} is shipped"
        + (f" (there are: {have})" if have else " with this version")
        + "; train one with prompt-mamba train and give its net_g_latest.pth as --model"
    )


def _load_pth(path: Path) -> tuple[Mapping, Mapping]:
    loaded = load_plain(path, "network")
    arguments = loaded.get("network_g")
    state = loaded.get("params_ema", loaded.get("params"))
    if not isinstance(state, Mapping) or not isinstance(arguments, Mapping) or "type" not in arguments:
        raise UserError(
            f"network: {str(path)!r} does not say which network it belongs to; checkpoints of PromptTwoPhaseModel do "
            "(keys params, network_g)"
        )
    return state, arguments


def _load_safetensors(path: Path) -> tuple[Mapping, Mapping]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            arguments = json.loads((file.metadata() or {}).get("network_g", "null"))
            state = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"network: {str(path)!r} is damaged ({one_line(error)})") from None
    if not isinstance(arguments, Mapping) or "type" not in arguments:
        raise UserError(f"network: {str(path)!r} does not say which network it belongs to (metadata key network_g)")
    return state, arguments


def _build(path: Path, state: Mapping, arguments: Mapping[str, Any]) -> torch.nn.Module:
    import inspect

    from basicsr.utils.registry import ARCH_REGISTRY

    arguments = dict(arguments)
    kind = arguments.pop("type")
    if kind not in ARCH_REGISTRY:
        raise UserError(f"network: {str(path)!r} holds a {kind}, which no installed package registers")
    arch = ARCH_REGISTRY.get(kind)
    check_keys(arguments, inspect.signature(arch).parameters, f"the {kind} of {path.name}")
    net = arch(**arguments)
    # half-precision files are computed with in float32
    try:
        net.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
    except RuntimeError as error:
        raise UserError(f"network: {str(path)!r} does not fit its {kind} ({one_line(error)[:160]})") from None
    return net


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"unknown device {str(device)!r}; write auto, cpu, cuda, cuda:1 or mps") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device {str(device)!r} was asked for, and there are {count} CUDA GPUs here; use cpu or auto")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' was asked for, and there is none here; use cpu or auto")
    return found


def _free_memory(device: torch.device) -> int:
    """Bytes; of the GPU or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 2 << 30  # not known: assume a small machine


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        found = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image must be an (H, W, 3) RGB array, not {found}")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(f"an image must be uint8, uint16 or float32, not {image.dtype}")
    if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):
        raise UserError("a float32 image must be in [0, 1]")


def _enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _as_type(image: np.ndarray, dtype: np.dtype, full: float) -> np.ndarray:
    image = image.clip(0, 1)
    return image.astype(np.float32) if dtype == np.float32 else np.rint(image * np.float32(full)).astype(dtype)
