"""Networks in TensorFlow.js's graph format (`model.json` and weights in shards), computed by torch.

Only the operations that such networks for images are made of; a graph with another one is refused when it is opened.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_mamba_arch.archs.residual_groups import mirror_to_multiple
from prompt_mamba_arch.errors import UserError, one_line

__all__ = ["TfjsGraph"]

_DTYPES = {"float32": (np.float32, torch.float32), "int32": (np.int32, torch.int32)}
_CASTS = {"DT_FLOAT": torch.float32, "DT_INT32": torch.int32, "DT_BOOL": torch.bool}


class _Step(NamedTuple):
    """One operation: what it is called with, where its result goes, and which values nobody needs after it."""

    run: Callable[..., Tensor]
    inputs: tuple[str, ...]
    name: str
    over: tuple[str, ...]


class _Weight(NamedTuple):
    """Where a constant lies in the numbers of its kind."""

    kind: str
    start: int
    count: int
    shape: tuple[int, ...]


class TfjsGraph(nn.Module):
    """A graph that makes one image of another: (B, C, H, W) -> (B, C, H, W), of any size.

    Args:
        model: the file model.json.
        size_multiple: of what the graph's height and width must be; images are mirrored up to it.
        floats_per_pixel: numbers that a pass holds for each pixel at its peak.

    Raises:
        UserError: a file is missing or damaged, or an operation is not known here.
    """

    has_text = False

    def __init__(self, model: Path, *, size_multiple: int = 1, floats_per_pixel: float = 4000.0):
        super().__init__()
        self.size_multiple, self.floats_per_pixel = size_multiple, floats_per_pixel
        try:
            data = model.read_bytes()
            # of the operations; the weights are in the state dict
            self.config = {"graph": hashlib.sha256(data).hexdigest()}
            told = json.loads(data)
            nodes = told["modelTopology"]["node"]
            (self._given,) = (node["name"] for node in nodes if node["op"] == "Placeholder")
            (result,) = told["signature"]["outputs"].values()
            self._wanted = _name(result["name"])
            numbers = self._read(model.parent, told["weightsManifest"])
            self._steps = self._plan(nodes, model.name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{model.name}: not a readable TensorFlow.js graph ({one_line(error)[:160]})") from None
        # what is learned, among it constants of a number or two
        self.float32 = nn.Parameter(torch.from_numpy(numbers["float32"]))
        self.register_buffer("int32", torch.from_numpy(numbers["int32"]))

    def _read(self, folder: Path, manifest: Sequence[Mapping]) -> dict[str, np.ndarray]:
        self._weights: dict[str, _Weight] = {}
        found: dict[str, list[np.ndarray]] = {kind: [] for kind in _DTYPES}
        ends = dict.fromkeys(_DTYPES, 0)
        for group in manifest:
            data, at = b"".join((folder / path).read_bytes() for path in group["paths"]), 0
            for told in group["weights"]:
                if told["dtype"] not in _DTYPES or "quantization" in told:
                    raise ValueError(f"weights of {told['dtype']}, or quantised ones")
                kind, shape = told["dtype"], tuple(told["shape"])
                count = math.prod(shape)
                found[kind].append(np.frombuffer(data, np.dtype(_DTYPES[kind][0]).newbyteorder("<"), count, at))
                self._weights[told["name"]] = _Weight(kind, ends[kind], count, shape)
                ends[kind] += count
                at += 4 * count
        return {
            kind: np.concatenate([np.empty(0, _DTYPES[kind][0]), *parts]).astype(_DTYPES[kind][0])
            for kind, parts in found.items()
        }

    def _plan(self, nodes: Sequence[Mapping], file: str) -> list[_Step]:
        """The operations in the order of the file, which is one in which they can be computed."""
        unknown = sorted({node["op"] for node in nodes} - {*_OPERATIONS, "Const", "Placeholder"})
        if unknown:
            raise UserError(f"{file}: operations that are not known here: {', '.join(unknown)}")
        steps, last, known = [], {}, {self._given, *self._weights}
        for node in nodes:
            if node["op"] in ("Const", "Placeholder"):
                continue
            inputs = tuple(_name(name) for name in node.get("input", ()) if not name.startswith("^"))
            if missing := set(inputs) - known:
                raise UserError(f"{file}: {node['name']} needs {min(missing)}, which does not come before it")
            known.add(node["name"])
            last.update(dict.fromkeys(inputs, len(steps)))
            steps.append(_Step(_OPERATIONS[node["op"]](node.get("attr", {})), inputs, node["name"], ()))
        if self._wanted not in known:
            raise UserError(f"{file}: nothing gives its result {self._wanted}")
        over: dict[int, list[str]] = {}
        for name, number in last.items():
            if name not in self._weights and name != self._wanted:
                over.setdefault(number, []).append(name)
        return [step._replace(over=tuple(over.get(number, ()))) for number, step in enumerate(steps)]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> the same, unclamped."""
        height, width = x.shape[-2:]
        x = mirror_to_multiple(x, self.size_multiple)
        values = {self._given: x.permute(0, 2, 3, 1)}
        for step in self._steps:
            given = [values[name] if name in values else self._constant(name) for name in step.inputs]
            values[step.name] = step.run(*given)
            del given
            for name in step.over:
                values.pop(name, None)
        return values[self._wanted].permute(0, 3, 1, 2)[..., :height, :width]

    def _constant(self, name: str) -> Tensor:
        weight = self._weights[name]
        return getattr(self, weight.kind).narrow(0, weight.start, weight.count).view(weight.shape)


def _name(told: str) -> str:
    """Of an operation, without the number of its output: all of these have one."""
    return told.partition(":")[0]


def _plain(run: Callable[..., Tensor]) -> Callable[[Mapping], Callable[..., Tensor]]:
    """An operation without attributes."""
    return lambda attributes: run


def _text(attributes: Mapping, key: str) -> str:
    return base64.b64decode(attributes[key]["s"]).decode()


def _bit(attributes: Mapping, key: str) -> int:
    return int(attributes.get(key, {}).get("i", 0))


def _whole_numbers(attributes: Mapping, key: str) -> list[int]:
    return [int(number) for number in attributes.get(key, {}).get("list", {}).get("i", ())]


def _window(attributes: Mapping) -> tuple[int, int]:
    """Strides of a convolution of (B, H, W, C)."""
    _, down, across, _ = _whole_numbers(attributes, "strides")
    if _text(attributes, "data_format") != "NHWC" or set(_whole_numbers(attributes, "dilations")) - {1}:
        raise UserError("a convolution that is dilated, or not of (batch, height, width, channels), is not known here")
    return down, across


def _convolution(attributes: Mapping) -> Callable[..., Tensor]:
    strides, same = _window(attributes), _text(attributes, "padding") == "SAME"

    def run(x: Tensor, weight: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        if same:  # what is missing, less of it above and on the left
            missing = [
                max((-(-size // stride) - 1) * stride + kernel - size, 0)
                for size, stride, kernel in zip(x.shape[-2:], strides, weight.shape)
            ]
            (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in missing)
            x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight.permute(3, 2, 0, 1), stride=strides).permute(0, 2, 3, 1)

    return run


def _transposed_convolution(attributes: Mapping) -> Callable[..., Tensor]:
    strides = _window(attributes)
    if _text(attributes, "padding") != "VALID":
        raise UserError("a transposed convolution with padding is not known here")

    def run(size: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        y = F.conv_transpose2d(x.permute(0, 3, 1, 2), weight.permute(3, 2, 0, 1), stride=strides)
        more = [wanted - has for wanted, has in zip(size.tolist()[1:3], y.shape[-2:])]
        return F.pad(y, (0, more[1], 0, more[0])).permute(0, 2, 3, 1)

    return run


def _slice(attributes: Mapping) -> Callable[..., Tensor]:
    if _bit(attributes, "ellipsis_mask") or _bit(attributes, "new_axis_mask"):
        raise UserError("a slice with an ellipsis or a new axis is not known here")
    first, last, single = (_bit(attributes, key) for key in ("begin_mask", "end_mask", "shrink_axis_mask"))

    def run(x: Tensor, begin: Tensor, end: Tensor, strides: Tensor) -> Tensor:
        index: list[Any] = []
        for axis, (start, stop, step) in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist())):
            if single >> axis & 1:
                index.append(start)
            else:
                index.append(slice(None if first >> axis & 1 else start, None if last >> axis & 1 else stop, step))
        return x[tuple(index)]

    return run


def _sum(attributes: Mapping) -> Callable[..., Tensor]:
    keep = bool(attributes.get("keep_dims", {}).get("b", False))
    return lambda x, axes: x.sum(axes.reshape(-1).tolist(), keepdim=keep) if axes.numel() else x


def _gather(attributes: Mapping) -> Callable[..., Tensor]:
    if _bit(attributes, "batch_dims"):
        raise UserError("gathering in batches is not known here")

    def run(x: Tensor, indices: Tensor, axis: Tensor) -> Tensor:
        axis = int(axis) % x.dim()
        found = x.index_select(axis, indices.reshape(-1))
        return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    return run


def _pack(attributes: Mapping) -> Callable[..., Tensor]:
    axis = _bit(attributes, "axis")
    return lambda *given: torch.stack(given, axis)


def _range(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype, device=start.device)


def _squeeze(attributes: Mapping) -> Callable[..., Tensor]:
    axes = _whole_numbers(attributes, "squeeze_dims")
    return lambda x: x.squeeze(axes) if axes else x.squeeze()


# name -> what makes a function of its attributes
_OPERATIONS: Mapping[str, Callable[[Mapping], Callable[..., Tensor]]] = {
    "Abs": _plain(torch.abs),
    "AddV2": _plain(torch.add),
    "BroadcastTo": _plain(lambda x, shape: x.expand(shape.tolist())),
    "Cast": lambda attributes: lambda x, to=_CASTS[attributes["DstT"]["type"]]: x.to(to),
    "ConcatV2": _plain(lambda *given: torch.cat(given[:-1], int(given[-1]))),
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _transposed_convolution,
    "Einsum": lambda attributes: functools.partial(torch.einsum, _text(attributes, "equation")),
    "Exp": _plain(torch.exp),
    "ExpandDims": _plain(lambda x, axis: x.unsqueeze(int(axis))),
    "Floor": _plain(torch.floor),
    "FloorDiv": _plain(lambda a, b: torch.div(a, b, rounding_mode="floor")),
    "FloorMod": _plain(torch.remainder),
    "GatherV2": _gather,
    "Greater": _plain(torch.gt),
    "GreaterEqual": _plain(torch.ge),
    "Identity": _plain(lambda x: x),
    "Less": _plain(torch.lt),
    "LessEqual": _plain(torch.le),
    "LogicalAnd": _plain(torch.logical_and),
    "Maximum": _plain(torch.maximum),
    "Minimum": _plain(torch.minimum),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "NotEqual": _plain(torch.ne),
    "Pack": _pack,
    "Range": _plain(_range),
    "RealDiv": _plain(torch.div),
    "Reciprocal": _plain(torch.reciprocal),
    "Reshape": _plain(lambda x, shape: x.reshape(shape.tolist())),
    "Rsqrt": _plain(torch.rsqrt),
    "SelectV2": _plain(torch.where),
    "Shape": _plain(lambda x: torch.tensor(x.shape, dtype=torch.int32, device=x.device)),
    "Sign": _plain(torch.sign),
    "Square": _plain(torch.square),
    "Squeeze": _squeeze,
    "StridedSlice": _slice,
    "Sub": _plain(torch.sub),
    "Sum": _sum,
    "Tanh": _plain(torch.tanh),
    "Transpose": _plain(lambda x, order: x.permute(order.tolist())),
}
