"""A network as one file for programs that do not have this package: ONNX, torch.export, TorchScript, safetensors.

Images of any height and width from twice the network's `size_multiple` on, one at a time; the prompt's embedding is an
input beside the image, zeros for none. Only the scan needs another formulation: one step of the recurrence, which the
format repeats for every token (ONNX's operator Scan, a loop in TorchScript), so that nothing depends on the size.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from prompt_mamba_arch.archs.blocks import ScanMixer
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.checkpoint_files import load_network
from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.ops.compose import expand_rates

__all__ = ["FORMATS", "Exportable", "export", "largest_difference"]

FORMATS = {"onnx": ".onnx", "torch": ".pt2", "torchscript": ".pt", "safetensors": ".safetensors"}
_OPSET = 20
_MEND = "pip install onnx onnxruntime onnxscript"
_LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch._dynamo")


class Exportable(nn.Module):
    """A PromptMamba that exporters can follow for all sizes at once, with the same parameters and results.

    Args:
        net: is copied.
        script: with a scripted loop (TorchScript), else with the operator that torch.export knows.
    """

    def __init__(self, net: PromptMamba, *, script: bool = False):
        super().__init__()
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.multiple, self.upscale = net.size_multiple, net.upscale
        for parent in list(self.net.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, ScanMixer):
                    setattr(parent, name, _StepwiseScan(child, torch.jit.script(_loop) if script else _operator_scan))

    def forward(self, image: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """image (1, 3, H, W), prompt (1, text_dim) -> (1, 3, H * upscale, W * upscale), not clamped."""
        result = self.net(self._padded(self._padded(image, 2), 3), prompt)
        for dim in (2, 3) if self.multiple > 1 else ():  # a slice would be followed as one that does or does not cut
            result = result.index_select(dim, torch.arange(image.shape[dim] * self.upscale, device=image.device))
        return result

    def _padded(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """As the network pads, mirrored to a whole multiple; by an index, which needs no branch."""
        if self.multiple == 1:
            return x
        size = x.shape[dim]
        place = torch.arange((size + self.multiple - 1) // self.multiple * self.multiple, device=x.device)
        return x.index_select(dim, torch.where(place < size, place, 2 * (size - 1) - place))


class _StepwiseScan(nn.Module):
    """`ScanMixer` with another scan, and with orders of pixels that are computed and not looked up."""

    def __init__(self, mixer: ScanMixer, scan):
        super().__init__()
        self.mixer, self.scan = mixer, scan

    def forward(self, x: torch.Tensor, text: torch.Tensor | None):
        mixer = self.mixer
        _, height, width, _ = x.shape
        u = mixer.in_proj(x)
        if mixer.conv is not None:
            u = F.silu(mixer.conv(u))
        u = u.reshape(height * width, -1)  # (L, D): one image
        dbc = mixer.dbc_proj(u)
        if mixer.text_scan is not None:
            dbc = dbc + mixer.text_scan(text)
        dbc = dbc.view(height * width, len(mixer.ways), -1)  # (L, K, R + 2N)
        pixel = torch.arange(height * width, device=x.device)
        to_token, to_pixel = zip(*(_orders(way, pixel, height, width) for way in mixer.ways))
        rank = mixer.dt_weight.shape[-1]
        states = (dbc.shape[-1] - rank) // 2
        us = torch.stack([u[index] for index in to_token], dim=1)  # (L, K, D)
        dbc = torch.stack([dbc[index, k] for k, index in enumerate(to_token)], dim=1)
        low, B, C = dbc.split([rank, states, states], dim=-1)
        delta = F.softplus(torch.einsum("lkr,kdr->lkd", low, mixer.dt_weight) + mixer.dt_bias)
        A = expand_rates(-torch.exp(mixer.A_log), states, mixer.a_form)  # (K, D, N)
        y = self.scan(delta, delta * us, B, C, A) + us * mixer.D  # (L, K, D)
        y = sum(y[index, k] for k, index in enumerate(to_pixel))
        y = mixer.norm(y).view(1, height, width, -1)
        if mixer.gate_proj is not None:
            y = y * F.silu(mixer.gate_proj(x))
        return y, mixer.out_proj.weight


def _orders(way: str, place: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(the pixel that is visited at each step, the step at which each pixel is visited), as `ops.scan_order` has it.

    place: 0 .. height * width - 1. Without remainders by a size, which ONNX's exporter does not know.
    """
    if way.startswith("columns"):
        pixel, step = place.view(height, width).t().reshape(-1), place.view(width, height).t().reshape(-1)
    elif way.startswith("snake"):
        grid = place.view(height, width)
        odd = torch.arange(height, device=place.device) % 2 == 1
        pixel = step = torch.where(odd[:, None], grid.flip(1), grid).reshape(-1)
    else:
        pixel = step = place
    if way.endswith("_reversed"):
        pixel, step = pixel.flip(0), place.flip(0)[step]
    return pixel, step


def _step(
    h: torch.Tensor, delta: torch.Tensor, du: torch.Tensor, B: torch.Tensor, C: torch.Tensor, A: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """h (K, D, N), delta and du (K, D), B and C (K, N), A (K, D, N) -> the next h, y (K, D)."""
    h = torch.exp(delta.unsqueeze(-1) * A) * h + du.unsqueeze(-1) * B.unsqueeze(1)
    return h, (h * C.unsqueeze(1)).sum(-1)


def _operator_scan(
    delta: torch.Tensor, du: torch.Tensor, B: torch.Tensor, C: torch.Tensor, A: torch.Tensor
) -> torch.Tensor:
    """All tokens, (L, ...), by torch's operator `scan`, which ONNX has, too. Returns y (L, K, D)."""
    from torch._higher_order_ops.scan import scan

    def step(h, token):
        return _step(h, *token, A)

    return scan(step, torch.zeros_like(A), (delta, du, B, C))[1]


def _loop(delta: torch.Tensor, du: torch.Tensor, B: torch.Tensor, C: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """As `_operator_scan`, in the words of TorchScript."""
    h = torch.zeros_like(A)
    y = torch.empty_like(du)
    for t in range(delta.shape[0]):
        h = torch.exp(delta[t].unsqueeze(-1) * A) * h + du[t].unsqueeze(-1) * B[t].unsqueeze(1)
        y[t] = (h * C[t].unsqueeze(1)).sum(-1)
    return y


# ---- files ---------------------------------------------------------------------------------------------------------


def export(
    model: str | os.PathLike,
    path: str | os.PathLike,
    kind: str,
    *,
    option_file: str | os.PathLike | None = None,
    half: bool = False,
) -> float | None:
    """Writes a network as another file, and tries that file.

    Args:
        model, option_file: name or path, and the option file, as in `Restorer.from_pretrained`.
        kind: of `FORMATS`.
        half: safetensors in float16, half as large.

    Returns:
        The largest difference between what the file and the network say to a few images of other sizes than that which
        it was exported with; None if there is no program here to run it.

    Raises:
        UserError: a network of another kind, missing packages.
    """
    net, phase = load_network(model, option_file)
    net = net.eval().requires_grad_(False)
    path = Path(path)
    if half and kind != "safetensors":
        raise UserError("half precision is for safetensors files; programs that run the others convert them themselves")
    if kind == "safetensors":
        return _write_safetensors(net, phase, path, half)
    if not isinstance(net, PromptMamba):
        raise UserError(f"only a PromptMamba can be exported as {kind}, and {str(model)!r} is a {type(net).__name__}")
    with replace_on_success(path) as temporary, _quiet():
        write, load = {"onnx": (_write_onnx, _load_onnx), "torch": (_write_torch, _load_torch),
                       "torchscript": (_write_torchscript, _load_torchscript)}[kind]  # fmt: skip
        write(net, temporary, {"network_g": json.dumps(_arguments(net)), "phase": phase or ""})
        run = load(temporary)
        return None if run is None else largest_difference(net, run)


def largest_difference(net: PromptMamba, run: Callable[..., np.ndarray]) -> float:
    """Between `run(image, prompt)` (without prompt for networks without text) and the network, over a few images."""
    random = np.random.default_rng(0)
    worst = 0.0
    smallest = 2 * net.size_multiple
    for height, width in ((smallest, smallest + 1), (45, 30), (61, 64)):
        image = torch.from_numpy(random.random((1, 3, max(height, smallest), max(width, smallest)), dtype=np.float32))
        for blind in (False, True) if net.has_text else (True,):
            prompt = torch.from_numpy(random.standard_normal((1, net.text_dim)).astype(np.float32))
            prompt = torch.zeros_like(prompt) if blind else F.normalize(prompt, dim=1)
            given = (image, prompt) if net.has_text else (image,)
            with torch.no_grad():
                expected = net(*given).numpy()
            found = run(*(t.numpy() for t in given))
            if found.shape != expected.shape:
                raise UserError(f"the exported file makes {found.shape} where the network makes {expected.shape}")
            worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def _arguments(net: nn.Module) -> dict:
    return {"type": type(net).__name__, **getattr(net, "config", {})}


def _example(net: PromptMamba) -> dict[str, torch.Tensor]:
    """Sizes that no rule fits by chance: not equal, not whole multiples."""
    side = 2 * net.size_multiple
    given = {"image": torch.rand(1, 3, side + 5, side + 10)}
    if net.has_text:
        given["prompt"] = F.normalize(torch.randn(1, net.text_dim), dim=1)
    return given


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters tell much of themselves; what matters is raised."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _write_safetensors(net: nn.Module, phase: str | None, path: Path, half: bool) -> float:
    from safetensors.torch import save_file

    kept = torch.float16 if half else torch.float32
    state = {name: (t.to(kept) if t.is_floating_point() else t).contiguous() for name, t in net.state_dict().items()}
    metadata = {"network_g": json.dumps(_arguments(net))}
    if len(json.loads(metadata["network_g"])) == 1:
        raise UserError(f"a {type(net).__name__} does not tell its arguments, so its file would not say what it holds")
    if phase:
        metadata["phase"] = phase
    with replace_on_success(path) as temporary:
        save_file(state, temporary, metadata)
        again, _ = load_network(temporary)
    before, after = (dict(module.state_dict()) for module in (net, again))
    return max(
        float((before[name].float() - after[name].float()).abs().max()) for name in before if before[name].numel()
    )


def _exported(net: PromptMamba) -> torch.export.ExportedProgram:
    try:
        from torch._higher_order_ops.scan import scan  # noqa: F401

        dynamic = torch.export.Dim.DYNAMIC
    except (ImportError, AttributeError):
        raise UserError(f"this needs a newer torch than {torch.__version__}; 2.15 is known to do it") from None
    given = _example(net)
    shapes = tuple({2: dynamic, 3: dynamic} if name == "image" else None for name in given)
    with torch.no_grad():
        return torch.export.export(
            Exportable(net), tuple(given.values()), dynamic_shapes=shapes, strict=False,
            # what holds for all sizes, and cannot be proved to, is asserted when it runs
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip


def _write_torch(net: PromptMamba, path: Path, told: dict[str, str]) -> None:
    torch.export.save(_exported(net), path, extra_files=told)


def _load_torch(path: Path) -> Callable[..., np.ndarray]:
    return _as_numpy(torch.export.load(path).module())


def _write_torchscript(net: PromptMamba, path: Path, told: dict[str, str]) -> None:
    given = _example(net)
    with torch.no_grad():
        traced = torch.jit.trace(Exportable(net, script=True), tuple(given.values()), check_trace=False)
    torch.jit.save(traced, str(path), _extra_files=told)


def _load_torchscript(path: Path) -> Callable[..., np.ndarray]:
    loaded = torch.jit.load(str(path))

    def run(*given: torch.Tensor) -> torch.Tensor:
        # what it specialises itself to after the first images costs more than it saves
        with torch.jit.optimized_execution(False):
            return loaded(*given)

    return _as_numpy(run)


def _as_numpy(module: Callable) -> Callable[..., np.ndarray]:
    def run(*given: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(*map(torch.from_numpy, given)).numpy()

    return run


def _write_onnx(net: PromptMamba, path: Path, told: dict[str, str]) -> None:
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError(f"writing ONNX needs onnxscript; install it with: {_MEND}") from None
    program = torch.onnx.export(
        _exported(net),
        dynamo=True,
        opset_version=_OPSET,
        input_names=list(_example(net)),
        output_names=["restored"],
        verbose=False,
    )
    program.model.metadata_props.update(told)
    program.model.doc_string = (
        "PromptMamba. image: (1, 3, height, width) RGB in [0, 1]. prompt: (1, text_dim), the sentence's embedding of "
        "length 1 (all-MiniLM-L6-v2), zeros for none. restored: not clamped."
    )
    program.save(str(path), external_data=False)


def _load_onnx(path: Path) -> Callable[..., np.ndarray] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return lambda *given: session.run(None, dict(zip(names, given)))[0]
