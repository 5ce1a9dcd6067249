"""Restorer: from a trained network and an image of any size to the restored image."""

from __future__ import annotations

import inspect
import json
import math
import numbers
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import prompt_mamba_arch  # registers the networks
from prompt_mamba_arch.compat.options import read_option_file
from prompt_mamba_arch.compat.resume import load_plain
from prompt_mamba_arch.errors import UserError, check_keys, one_line
from prompt_mamba_arch.tiling import restore_in_strips

__all__ = ["Restorer", "shipped_models"]

_WEIGHTS = Path(prompt_mamba_arch.__file__).parent / "weights"
_SUFFIXES = (".safetensors", ".pth")
MIN_TILE = 64  # pixels; below that there is more overlap than tile
_OVERLAP = 48  # pixels that neighbouring tiles share
_TRIAL = 16  # pixels a side
_LATEST = "net_g_latest.pth"  # how BasicSR calls a run's last network
# Peak memory of a forward pass without gradients / that of the input's first features, measured for PromptMamba and
# rounded up generously; for a network that does not say how wide it is
_FEATURE_COPIES, _UNKNOWN_WIDTH = 30, 180


class Restorer:
    """A trained network that restores images as prompts ask. Build it with `from_pretrained`.

    Attributes:
        name: what it was loaded from.
        upscale: output pixels per input pixel, along each side.
        device: where it computes.
        phase: the training's phase that it comes from, if the file says so.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        *,
        name: str = "network",
        device: str | torch.device = "auto",
        phase: str | None = None,
    ):
        self.device = _device(device)
        try:
            self.net = net.to(self.device).eval().requires_grad_(False)
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # a kind that this torch was built without
            if _out_of_memory(error):
                raise
            raise UserError(f"device {str(device)!r} cannot be used: {one_line(error)[:120]}") from None
        self.name = name
        self.phase = phase
        config = getattr(net, "config", {})
        # others may need it, too, and do not say so; attention in windows needs whole windows
        windows = {getattr(module, "window_size", None) for module in net.modules()}
        needed = math.lcm(8, *(window for window in windows if type(window) is int and window > 0))
        self._multiple: int = getattr(net, "size_multiple", needed)
        self._takes_prompts: bool = getattr(net, "has_text", False)
        # numbers per pixel of the widest full-resolution features
        unshuffle = config.get("unshuffle") or 1
        self._width: float = config.get("dim", _UNKNOWN_WIDTH) / unshuffle**2
        self._text_encoder = None
        self._warned = False
        self.upscale = self._find_upscale()

    def _find_upscale(self) -> int:
        """By trial: networks have different names for it, and some accept a value that they do not heed."""
        side = -(-_TRIAL // self._multiple) * self._multiple
        x = torch.zeros(1, 3, side, side, device=self.device)
        try:
            with torch.inference_mode():
                y = self.net(x)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            if _out_of_memory(error):
                raise
            raise UserError(
                f"the network {self.name!r} does not take one RGB image ({one_line(error)[:160]})"
            ) from error
        shape = tuple(getattr(y, "shape", ()))
        scale = shape[-1] // side if shape else 0
        if scale < 1 or shape != (1, 3, side * scale, side * scale):
            raise UserError(
                f"the network {self.name!r} does not make one RGB image of another: of shape {tuple(x.shape)} it makes "
                f"{shape or type(y).__name__}"
            )
        return scale

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike = "tiny",
        device: str | torch.device = "auto",
        config: Mapping[str, Any] | str | os.PathLike | None = None,
    ) -> Restorer:
        """Loads a network.

        Args:
            name_or_path: a shipped network's name; or a checkpoint of the training (.pth), a .safetensors file, or a
                folder that holds one such file or a net_g_latest.pth. Averaged weights (`params_ema`) are taken where
                there are any.
            device: `auto` (CUDA where there is a GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.
            config: for files that do not say which network they belong to, such as BasicSR's own: `type` and the
                constructor's arguments, or the option file (.yml) that trained it. It has precedence over the file's.

        Raises:
            UserError: no such file or name, a damaged file, one that does not say which network it belongs to, or a
                device that is not there.
        """
        device = _device(device)  # said before anything is loaded
        path = _find(name_or_path)
        given = None if config is None else _given_arguments(config)
        load = _load_safetensors if path.suffix.lower() == ".safetensors" else _load_pth
        state, arguments, phase = load(path)
        net = _build(path, state, given or _arguments(path, arguments))
        return cls(net, name=str(name_or_path), device=device, phase=phase)

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
        if isinstance(strength, bool) or not isinstance(strength, numbers.Real) or not 0 <= strength <= 2:
            raise UserError(f"strength must be a number from 0 to 2, not {strength!r}")
        side = self._tile(tile, image)
        text = self.embed(prompt)
        if strength == 0 and self.upscale == 1:
            return image.copy()
        height, width = (size * self.upscale for size in image.shape[:2])
        try:
            restored = np.empty((height, width, 3), image.dtype)
        except MemoryError:
            raise UserError(f"not enough memory for a result of {width} x {height} pixels") from None
        while True:
            try:
                self._restore_into(restored, image, text, float(strength), side, progress)
                return restored
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if tile is None or tile == "none":
                    raise UserError("not enough memory for the whole image at once; let tile be auto") from error
                # nothing of the failed attempt is kept: all tiles are run again, smaller
                side = min(side, max(image.shape[:2]))
                if side <= MIN_TILE:
                    raise UserError(
                        f"not enough memory for tiles of {side} pixels; close other programs"
                        + ("" if self.device.type == "cpu" else ", or take the device cpu")
                    ) from error
                side = max(side // 2, MIN_TILE)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def embed(self, prompt: str | None) -> torch.Tensor | None:
        """The prompt as `restore` gives it to the network, (1, text_dim); None without a prompt.

        Raises:
            UserError: the network takes no prompts, or the sentence encoder is not installed.
        """
        if prompt is None or not prompt.strip():
            return None
        if not self._takes_prompts:
            raise UserError(f"the network {self.name!r} takes no prompts; leave the prompt out")
        if self.phase == "pretrain" and not self._warned:
            self._warned = True
            warnings.warn(
                f"the network {self.name!r} comes from phase pretrain and has not learned to read prompts; it removes "
                "whatever is wrong",
                stacklevel=2,
            )
        if self._text_encoder is None:
            from prompt_mamba_arch.text import TextEncoder  # transformers takes seconds to import

            self._text_encoder = TextEncoder()
        return self._text_encoder.encode([prompt]).to(self.device)

    def _restore_into(
        self, result: np.ndarray, image: np.ndarray, text: torch.Tensor | None, strength: float, side: int, progress
    ) -> None:
        """Fills every row of `result`, which is all that is kept of the image beside two rows of tiles."""
        full = np.float32(1 if image.dtype == np.float32 else np.iinfo(image.dtype).max)
        strips = restore_in_strips(
            image,
            lambda part: self._run(part.astype(np.float32) / full, text, strength),
            tile=side,
            overlap=min(_OVERLAP, side // 4),
            multiple=self._multiple,
            upscale=self.upscale,
            progress=progress,
        )
        for top, strip in strips:
            if not np.isfinite(strip).all():
                raise UserError(f"the network {self.name!r} gave values that are not numbers; its weights are damaged")
            strip = strip.clip(0, 1)
            result[top : top + len(strip)] = strip if image.dtype == np.float32 else np.rint(strip * full)

    def _run(self, image: np.ndarray, text: torch.Tensor | None, strength: float) -> np.ndarray:
        """(h, w, 3) float32 -> the same, enlarged by `upscale`."""
        # copied, for networks that compute in place
        x = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(self.device)  # (1, 3, h, w)
        with torch.inference_mode():
            if strength == 1:
                y = self._forward(x, text)
            else:
                base = x.clone()
                if self.upscale > 1:
                    base = torch.nn.functional.interpolate(x, scale_factor=self.upscale, mode="bicubic")
                y = base if strength == 0 else torch.lerp(base, self._forward(x, text).to(base), strength)
            return y[0].permute(1, 2, 0).float().cpu().numpy()

    def _forward(self, x: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        """(1, 3, h, w) -> the same, enlarged by `upscale`."""
        height, width = (size * self.upscale for size in x.shape[-2:])
        if not hasattr(self.net, "size_multiple"):  # PromptMamba pads inside; others may want it done
            missing = [-size % self._multiple for size in x.shape[-2:]]
            x = torch.nn.functional.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
        y = self.net(x) if text is None else self.net(x, text)
        return y[..., :height, :width]

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
            return max(affordable // 64 * 64, MIN_TILE)
        if isinstance(tile, bool) or not isinstance(tile, numbers.Integral) or tile < MIN_TILE:
            raise UserError(f"tile must be auto, none, or a number of pixels from {MIN_TILE} on, not {tile!r}")
        return int(tile)


def shipped_models() -> list[str]:
    """Names that `from_pretrained` knows."""
    return sorted(path.stem for path in _WEIGHTS.glob("*.safetensors"))


def _find(name_or_path: str | os.PathLike) -> Path:
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in shipped_models():  # a folder that happens to have the name is ./name
        return _WEIGHTS / f"{name}.safetensors"
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise UserError(f"network {str(path)!r} must be a .pth or .safetensors file")
        return path
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))
        if path / _LATEST in found:  # a run's folder of networks
            return path / _LATEST
        if len(found) != 1:
            names = ", ".join(p.name for p in found[:4]) or "none"
            raise UserError(f"the folder {str(path)!r} must hold one .pth or .safetensors file, it has {names}")
        return found[0]
    if path.suffix.lower() in _SUFFIXES or path.name != name:
        raise UserError(f"no such network file: {name!r}")
    have = ", ".join(shipped_models())
    raise UserError(
        f"no network named {name!r} is shipped"
        + (f" (there are: {have})" if have else " with this version")
        + "; train one with prompt-mamba train and give its net_g_latest.pth as --model"
    )


def _load_pth(path: Path) -> tuple[Mapping, object, str | None]:
    loaded = load_plain(path, "network")
    state = loaded.get("params_ema", loaded.get("params"))
    if not isinstance(state, Mapping):
        raise UserError(f"network: {str(path)!r} has no weights under 'params' or 'params_ema'")
    return state, loaded.get("network_g"), loaded.get("phase")


def _load_safetensors(path: Path) -> tuple[Mapping, object, str | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
        arguments = json.loads(told.get("network_g", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"network: {str(path)!r} is damaged ({one_line(error)[:160]})") from None
    return state, arguments, told.get("phase")


def _arguments(path: Path, arguments: object) -> Mapping[str, Any]:
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("type"), str):
        raise UserError(
            f"network: {str(path)!r} does not say which network it belongs to; name the option file that trained it "
            "(--opt FILE.yml, in Python config=), whose network_g says so"
        )
    return arguments


def _given_arguments(config: Mapping[str, Any] | str | os.PathLike) -> Mapping[str, Any]:
    """`network_g` of an option file, or the mapping itself."""
    where = "config"
    if not isinstance(config, Mapping):
        where = f"network_g in {str(config)!r}"
        config = read_option_file(config).get("network_g")
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
        raise UserError(f"{where} must be a section that holds the network's type and arguments")
    return config


def _build(path: Path, state: Mapping, arguments: Mapping[str, Any]) -> torch.nn.Module:
    from basicsr.utils.registry import ARCH_REGISTRY

    arguments = dict(arguments)
    kind = arguments.pop("type")
    if kind not in ARCH_REGISTRY:
        raise UserError(f"network: {str(path)!r} holds a {kind}, which no installed package registers")
    arch = ARCH_REGISTRY.get(kind)
    known = inspect.signature(arch).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in known.values()):
        check_keys(arguments, known, f"the {kind} of {path.name}")
    try:
        net = arch(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"network: {str(path)!r} has arguments that no {kind} takes ({one_line(error)[:160]})"
        ) from error
    try:
        # half-precision files are computed with in float32
        net.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
    except (RuntimeError, AttributeError) as error:  # AttributeError: a value is no tensor
        raise UserError(f"network: {str(path)!r} does not fit its {kind} ({one_line(error)[:160]})") from None
    return net


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise UserError(f"unknown device {str(device)!r}; write auto, cpu, cuda, cuda:1 or mps") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        have = {0: "there is no CUDA GPU", 1: "there is one CUDA GPU"}.get(count, f"there are {count} CUDA GPUs")
        raise UserError(f"device {str(device)!r} was asked for, and {have} here; use cpu or auto")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' was asked for, and there is none here; use cpu or auto")
    return found


def _free_memory(device: torch.device) -> float:
    """Bytes; of the GPU or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> float:
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


def _free_of_container(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that a container's limit (cgroup v2) leaves; infinity where there is none."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(limit - used + int(stat.get("inactive_file", 0)), 0)  # the page cache gives way
    except (OSError, ValueError):  # no file, or "max"
        return float("inf")


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    # of CUDA and MPS; of the CPU's allocator on Linux and on Windows; of cuBLAS and cuDNN
    return any(said in text for said in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed"))


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        found = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image must be an (H, W, 3) RGB array, not {found}")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(f"an image must be uint8, uint16 or float32, not {image.dtype}")
    if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):
        raise UserError("a float32 image must be in [0, 1]")
