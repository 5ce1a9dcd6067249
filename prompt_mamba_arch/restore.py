"""Restorer: from a trained network and an image of any size to the restored image."""

from __future__ import annotations

import math
import numbers
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from prompt_mamba_arch.checkpoint_files import load_network, shipped_models
from prompt_mamba_arch.ensemble import self_ensemble
from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.half_precision import half_type
from prompt_mamba_arch.memory import free_memory, is_out_of_memory
from prompt_mamba_arch.ops import available_backends
from prompt_mamba_arch.scratch import Empty, copied, release
from prompt_mamba_arch.sight import see, what_is_wrong
from prompt_mamba_arch.text import TextEncoder, Wish, read_intent
from prompt_mamba_arch.tiling import restore_in_blocks

__all__ = ["Restorer", "shipped_models"]

MIN_TILE = 64  # pixels; below that there is more overlap than tile
_OVERLAP = 48  # pixels that neighbouring tiles share
_NOTHING = Wish(())
_TRIAL = 16  # pixels a side
_UNKNOWN_WIDTH = 180  # numbers per pixel of the first features, for a network that does not say how wide they are


class Restorer:
    """A trained network that restores images as prompts ask. Build it with `from_pretrained`.

    Attributes:
        name: what it was loaded from.
        upscale: output pixels per input pixel, along each side.
        device: where it computes.
        phase: the training's phase that it comes from, if the file says so.
        takes_prompts: whether it reads sentences.
        told_wishes: whether it is told what a sentence was read to ask for (`text.Wish`), not the sentence itself.
        half: the half-precision type in which it computes, or None.
        memory_share: the part of the free memory that tiles of automatic size may take.
        seen: how likely each kind was in the photograph at which `restore` looked last.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        *,
        name: str = "network",
        device: str | torch.device = "auto",
        phase: str | None = None,
        half: bool = False,
    ):
        self.device = _device(device)
        try:
            self.net = net.to(self.device).eval().requires_grad_(False)
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # a kind that this torch was built without
            if is_out_of_memory(error):
                raise
            raise UserError(f"device {str(device)!r} cannot be used: {one_line(error)[:120]}") from None
        self.name = name
        self.phase = phase
        self.half = half_type(self.device) if half else None
        config = getattr(net, "config", {})
        # others may need it, too, and do not say so; attention in windows needs whole windows
        windows = {getattr(module, "window_size", None) for module in net.modules()}
        needed = math.lcm(8, *(window for window in windows if type(window) is int and window > 0))
        self._multiple: int = getattr(net, "size_multiple", needed)
        self.takes_prompts: bool = getattr(net, "has_text", False)
        self._config = config
        self.told_wishes: bool = self.takes_prompts and config.get("wishes", False)
        self.memory_share = 0.5
        self.seen: dict[str, float] = {}
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
            if is_out_of_memory(error):
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
        *,
        half: bool = False,
    ) -> Restorer:
        """Loads a network.

        Args:
            name_or_path: a shipped network's name; or a checkpoint of the training (.pth), a .safetensors file, or a
                folder that holds one such file or a net_g_latest.pth. Averaged weights (`params_ema`) are taken where
                there are any.
            device: `auto` (CUDA where there is a GPU, else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.
            config: for files that do not say which network they belong to, such as BasicSR's own: `type` and the
                constructor's arguments, or the option file (.yml) that trained it. It has precedence over the file's.
            half: compute in half precision where the device gains by it; `Restorer.half` tells.

        Raises:
            UserError: no such file or name, a damaged file, one that does not say which network it belongs to, or a
                device that is not there.
        """
        device = _device(device)  # said before anything is loaded
        net, phase = load_network(name_or_path, config)
        return cls(net, name=str(name_or_path), device=device, phase=phase, half=half)

    def restore(
        self,
        image: np.ndarray,
        prompt: str | Wish | Sequence[str | Wish] | None = None,
        strength: float = 1.0,
        tile: str | int | None = "auto",
        progress: Callable[[int, int], None] | None = None,
        *,
        ensemble: bool = False,
        look: bool = False,
        empty: Empty = np.empty,
    ) -> np.ndarray:
        """Restores one image.

        Args:
            image: (H, W, 3) RGB, uint8, uint16, or float32 in [0, 1].
            prompt: what to do, in plain words or as a `text.Wish`; None or "" removes whatever is wrong. Of several,
                each is done to the result of the one before. A network that is told wishes gives the image back
                exactly where the sentence asks for nothing, or for something that is no restoration.
            strength: scales what is changed: 0 gives the input back exactly (enlarged by bicubic interpolation if the
                network enlarges), 1 what the network says; above 1 exaggerates.
            tile: `auto` (tiles only if the whole image needs too much memory), `none`, or a side in pixels.
            progress: called with (tiles done, tiles in all).
            ensemble: the mean over the image's eight turned and mirrored versions: a little better, eight times slower.
            look: where the prompt does not say what is wrong, it is looked for in the image (see `sight`), if the
                network is told wishes; else the network has to find out by itself.
            empty: makes the result's array of its shape and type; that of `scratch.arrays_in` lays large ones on the
                disk.

        Returns:
            (H * upscale, W * upscale, 3) of the image's type.

        Raises:
            UserError: an image, strength or tile of the wrong kind, a prompt for a network that takes none, several
                prompts for one that enlarges, or not enough memory for the smallest tiles.
        """
        _check_image(image)
        if isinstance(strength, bool) or not isinstance(strength, numbers.Real) or not 0 <= strength <= 2:
            raise UserError(f"strength must be a number from 0 to 2, not {strength!r}")
        prompts = list(prompt) or [None] if isinstance(prompt, (list, tuple)) else [prompt]
        if len(prompts) > 1 and self.upscale > 1:
            raise UserError(f"the network {self.name!r} enlarges, so it takes one prompt at a time, not {len(prompts)}")
        self.tile_side(image.shape[:2], tile)  # a wrong one is said at once
        prompts = [self._read(prompt) for prompt in prompts]
        if look and self.told_wishes and None in prompts:
            self.seen = seen = see(image)  # others may look meanwhile
            prompts = [what_is_wrong(seen) if prompt is None else prompt for prompt in prompts]
        texts = [self.embed(prompt) for prompt in prompts]
        if self.upscale == 1:
            if strength == 0:
                return copied(image, empty)
            texts = [text for prompt, text in zip(prompts, texts) if prompt != _NOTHING]
            if not texts:
                return copied(image, empty)
        for turn, text in enumerate(texts):

            def report(done: int, tiles: int, turn: int = turn) -> None:
                progress(turn * tiles + done, len(texts) * tiles)

            told = None if progress is None else report
            image = self._once(image, text, float(strength), tile, told, ensemble, empty)
        return image

    def _once(self, image: np.ndarray, text: torch.Tensor | None, strength: float, tile, progress, ensemble, empty):
        """`restore` for one prompt."""
        side = self.tile_side(image.shape[:2], tile)
        height, width = (size * self.upscale for size in image.shape[:2])
        try:
            restored = empty((height, width, 3), image.dtype)
        except MemoryError:
            raise UserError(f"not enough memory for a result of {width} x {height} pixels") from None
        while True:
            try:
                self._restore_into(restored, image, text, strength, side, progress, ensemble)
                return restored
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
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

    def embed(self, prompt: str | Wish | None) -> torch.Tensor | None:
        """The prompt as `restore` gives it to the network, (1, text_dim); None without a prompt.

        Networks that are told wishes (`PromptMamba(wishes=True)`) are told what the sentence was read to ask for,
        others its embedding.

        Raises:
            UserError: the network takes no prompts, or the sentence encoder is not installed.
        """
        prompt = self._read(prompt)
        if prompt is None:
            return None
        if not self.takes_prompts:
            raise UserError(f"the network {self.name!r} takes no prompts; leave the prompt out")
        if self.phase == "pretrain" and not self._warned:
            self._warned = True
            warnings.warn(
                f"the network {self.name!r} comes from phase pretrain and has not learned to read prompts; it removes "
                "whatever is wrong",
                stacklevel=2,
            )
        if self.told_wishes:
            return prompt.vector(self._config["text_dim"])[None].to(self.device)
        if self._text_encoder is None:
            # some networks are made for another encoder than the package's
            self._text_encoder = TextEncoder(getattr(self.net, "text_encoder", None))
        sentence = prompt if isinstance(prompt, str) else prompt.sentence()
        return self._text_encoder.encode([sentence]).to(self.device)

    def _read(self, prompt: str | Wish | None) -> str | Wish | None:
        """None for whatever is wrong; a `Wish` for a network that is told wishes, else the sentence or wish itself."""
        if isinstance(prompt, str):
            prompt = prompt.encode("utf-8", "replace").decode()  # a terminal's bytes may be no text
            if not prompt.strip():
                return None
            if self.told_wishes:
                prompt = Wish.of(read_intent(prompt))
        elif not (prompt is None or isinstance(prompt, Wish)):
            raise UserError(f"a prompt must be text, a Wish or None, not {prompt!r}")
        return None if prompt == Wish() else prompt

    def _restore_into(
        self,
        result: np.ndarray,
        image: np.ndarray,
        text: torch.Tensor | None,
        strength: float,
        side: int,
        progress: Callable[[int, int], None] | None,
        ensemble: bool,
    ) -> None:
        """Fills all of `result`, which is all that is kept of the image beside a tile and what rows of them share."""
        full = np.float32(1 if image.dtype == np.float32 else np.iinfo(image.dtype).max)
        blocks = restore_in_blocks(
            image,
            lambda part: self._run(part.astype(np.float32) / full, text, strength, ensemble),
            tile=side,
            overlap=min(_OVERLAP, side // 4),
            multiple=self._multiple,
            upscale=self.upscale,
            progress=progress,
        )
        for top, left, block in blocks:
            if not np.isfinite(block).all():
                raise UserError(f"the network {self.name!r} gave values that are not numbers; its weights are damaged")
            block = block.clip(0, 1)
            place = result[top : top + len(block), left : left + block.shape[1]]
            place[:] = block if image.dtype == np.float32 else np.rint(block * full)
            release(image, result)

    def _run(self, image: np.ndarray, text: torch.Tensor | None, strength: float, ensemble: bool) -> np.ndarray:
        """(h, w, 3) float32 -> the same, enlarged by `upscale`."""
        # copied, for networks that compute in place
        x = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(self.device)  # (1, 3, h, w)

        def forward(x: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
            return self_ensemble(lambda seen: self.forward(seen, text), x) if ensemble else self.forward(x, text)

        with torch.inference_mode():
            if strength == 1:
                y = forward(x, text)
            else:
                base = x.clone()
                if self.upscale > 1:
                    base = torch.nn.functional.interpolate(x, scale_factor=self.upscale, mode="bicubic")
                y = base if strength == 0 else torch.lerp(base, forward(x, text).to(base), strength)
            return y[0].permute(1, 2, 0).float().cpu().numpy()

    def forward(self, x: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        """One pass of the network, padded as it needs it: (1, 3, h, w) -> the same, enlarged by `upscale`."""
        height, width = (size * self.upscale for size in x.shape[-2:])
        if not hasattr(self.net, "size_multiple"):  # PromptMamba pads inside; others may want it done
            missing = [-size % self._multiple for size in x.shape[-2:]]
            x = torch.nn.functional.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
        given = (x,) if text is None else (x, text)
        if self.half is not None:
            # copied, for networks that compute in place
            with torch.autocast(self.device.type, dtype=self.half):
                y = self.net(*(t.clone() for t in given))
            if torch.isfinite(y).all():
                return y[..., :height, :width]
        return self.net(*given)[..., :height, :width]  # where half precision overflows, in full

    def bytes_per_pixel(self) -> float:
        """Peak memory that a pass takes beside the image, over the pixels of the input: an upper estimate.

        From the peaks of PromptMamba in passes over whole images, which are so many copies of the first features and
        of the output, with and without the C++ kernels; and 1.3 times that for what was not tried. Other networks say
        for themselves how many numbers they need.
        """
        output = 5.4 * 3 * self.upscale**2
        said = getattr(self.net, "floats_per_pixel", None)
        if said is not None:
            return 1.3 * 4 * (said + output)
        config = self._config
        width = config.get("dim", _UNKNOWN_WIDTH) / (config.get("unshuffle") or 1) ** 2
        fine_scan = "scan" in (config.get("mixers") or ["scan"])[0]  # where there are most pixels
        quick = self.device.type == "cpu" and "cpu" in available_backends()
        copies = {(True, False): 11.2, (True, True): 13.9, (False, False): 14.1, (False, True): 27.5}[quick, fine_scan]
        if fine_scan or not quick:
            copies *= max(1, config.get("expand", 1), config.get("directions", 2) / 2)
        return 1.3 * 4 * (copies * width + output)

    def tile_side(self, size: tuple[int, int], tile: str | int | None = "auto") -> int:
        """The side in pixels of the tiles that `restore` begins with, for an image of this height and width; at least
        the longer one if it begins with the whole image.

        Raises:
            UserError: no such `tile`.
        """
        whole = max(size)
        if tile is None or tile == "none":
            return whole
        if tile == "auto":
            affordable = int((self.memory_share * free_memory(self.device) / self.bytes_per_pixel()) ** 0.5)
            if size[0] * size[1] <= affordable**2:
                return whole
            return max(affordable // 64 * 64, MIN_TILE)
        if isinstance(tile, bool) or not isinstance(tile, numbers.Integral) or tile < MIN_TILE:
            raise UserError(f"tile must be auto, none, or a number of pixels from {MIN_TILE} on, not {tile!r}")
        return int(tile)


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


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        found = f"an array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image must be an (H, W, 3) RGB array, not {found}")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UserError(f"an image must be uint8, uint16 or float32, not {image.dtype}")
    if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):
        raise UserError("a float32 image must be in [0, 1]")
