"""TensorFlow.js graphs compute what their operations say; MAXIM's packages are found, and missed in one line."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prompt_mamba_arch.compare import packages
from prompt_mamba_arch.compare.methods import open_method
from prompt_mamba_arch.compare.tfjs import TfjsGraph
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.probe.measure import network_digest

STRIDE_2 = {"strides": {"list": {"i": ["1", "2", "2", "1"]}}, "dilations": {"list": {"i": ["1"] * 4}}}
NHWC = {"data_format": {"s": base64.b64encode(b"NHWC").decode()}}


def text(value: str) -> dict:
    return {"s": base64.b64encode(value.encode()).decode()}


def write(folder, nodes, constants, *, shards=1):
    """A graph from `x` to its last node; constants: name -> array."""
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in constants.values())
    paths = [f"group1-shard{n + 1}of{shards}.bin" for n in range(shards)]
    cuts = [len(data) * n // shards for n in range(shards + 1)]
    for path, start, stop in zip(paths, cuts, cuts[1:]):
        (folder / path).write_bytes(data[start:stop])
    topology = [{"name": "x", "op": "Placeholder", "attr": {}}]
    topology += [{"name": name, "op": "Const", "attr": {}} for name in constants]
    topology += [{"name": n, "op": op, "input": list(given), "attr": more} for n, op, given, more in nodes]
    weights = [{"name": n, "shape": list(v.shape), "dtype": v.dtype.name} for n, v in constants.items()]
    model = {
        "modelTopology": {"node": topology},
        "signature": {"outputs": {"y": {"name": f"{nodes[-1][0]}:0"}}},
        "weightsManifest": [{"paths": paths, "weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"


def ints(*values):
    return np.array(values, np.int32)


CONSTANTS = {"c": ints(1), "learned": np.float32(0.5)}


def scalar(value):
    return np.array(value, np.int32)


# operation, its constants after (or, with None, around) x of (2, 4, 6, 3), attributes, the same in numpy
ALONE = [
    ("Transpose", (ints(0, 2, 1, 3),), {}, lambda x: x.transpose(0, 2, 1, 3)),
    ("Reshape", (ints(2, -1, 3),), {}, lambda x: x.reshape(2, -1, 3)),
    ("Sum", (ints(1, 3),), {"keep_dims": {"b": True}}, lambda x: x.sum((1, 3), keepdims=True)),
    ("Sum", (scalar(-1),), {}, lambda x: x.sum(-1)),
    ("ExpandDims", (scalar(1),), {}, lambda x: x[:, None]),
    ("BroadcastTo", (ints(5, 2, 4, 6, 3),), {}, lambda x: np.broadcast_to(x, (5, 2, 4, 6, 3))),
    ("GatherV2", (ints(3, 0, 0), scalar(1)), {}, lambda x: np.take(x, [3, 0, 0], 1)),
    (
        "StridedSlice",
        (ints(1, 0, 1), ints(2, 3, 99), ints(1, 2, 1)),
        {"shrink_axis_mask": {"i": "1"}, "end_mask": {"i": "4"}},
        lambda x: x[1, 0:3:2, 1:],
    ),
    ("FloorMod", (np.float32([-0.3]),), {}, lambda x: x % np.float32(-0.3)),
    ("FloorDiv", (np.float32([0.3]),), {}, lambda x: x // np.float32(0.3)),
    ("Maximum", (np.float32([0.4, 0.5, 0.6]),), {}, lambda x: np.maximum(x, np.float32([0.4, 0.5, 0.6]))),
    ("RealDiv", (np.float32(3),), {}, lambda x: x / np.float32(3)),
    ("Rsqrt", (), {}, lambda x: x**-0.5),
    ("Reciprocal", (), {}, lambda x: 1 / x),
    ("Sign", (), {}, np.sign),
    ("Einsum", (np.ones((6, 5), np.float32),), {"equation": text("abcd,ce->abed")},
     lambda x: x.sum(2, keepdims=True).repeat(5, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "constants", "attributes", "expected"), ALONE, ids=[row[0] for row in ALONE])
def test_operations(kind, constants, attributes, expected, tmp_path):
    named = {f"c{n}": value for n, value in enumerate(constants)}
    nodes = [("y", kind, ["x", *named], attributes), ("result", "Reshape", ["y", "flat"], {})]
    net = TfjsGraph(write(tmp_path, nodes, {**named, "flat": ints(1, 1, -1, 1)}, shards=3))
    x = np.random.default_rng(0).uniform(0.1, 1, (2, 4, 6, 3)).astype(np.float32)
    expected = expected(x).reshape(-1)
    given = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    # what comes out is cut to the size of what went in: here one row of many pixels
    steps, values = net._steps, {"x": given.permute(0, 2, 3, 1)}
    with torch.inference_mode():
        for step in steps:
            values[step.name] = step.run(*(values[n] if n in values else net._constant(n) for n in step.inputs))
    np.testing.assert_allclose(values["result"].flatten().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 1)])
def test_a_network_of_convolutions(size, tmp_path):
    """Down by two as TensorFlow pads it, a gate by comparisons, up again, and the image added."""
    torch.manual_seed(0)
    down, up = torch.randn(4, 3, 3, 3), torch.randn(4, 3, 2, 2)
    constants = {
        "down": down.permute(2, 3, 1, 0).numpy(), "up": up.permute(2, 3, 1, 0).numpy(), "zero": np.float32(0),
        "half": np.float32(0.5), "first": ints(0), "ends": ints(3), "one": ints(1),
    }  # fmt: skip
    nodes = [
        ("d", "Conv2D", ["x", "down"], {**STRIDE_2, **NHWC, "padding": text("SAME")}),
        ("positive", "Greater", ["d", "zero"], {}),
        ("small", "Mul", ["d", "half"], {}),
        ("gated", "SelectV2", ["positive", "d", "small"], {}),
        ("shape", "Shape", ["x", "^small"], {}),
        ("batch", "StridedSlice", ["shape", "first", "one", "one"], {"shrink_axis_mask": {"i": "1"}}),
        ("rows", "StridedSlice", ["shape", "one", "ends", "one"], {}),
        ("wanted", "ConcatV2", ["more", "rows", "channels", "zero_axis"], {}),
        ("u", "Conv2DBackpropInput", ["wanted", "up", "gated"], {**STRIDE_2, **NHWC, "padding": text("VALID")}),
        ("y", "AddV2", ["u", "x"], {}),
    ]
    nodes.insert(7, ("more", "Pack", ["batch"], {"axis": {"i": "0"}}))
    constants |= {"channels": ints(3), "zero_axis": scalar(0)}
    net = TfjsGraph(write(tmp_path, nodes, constants, shards=2), size_multiple=2)
    x = torch.rand(2, 3, *size)
    with torch.inference_mode():
        padded = F.pad(x, (0, size[1] % 2, 0, size[0] % 2), mode="replicate")
        found = F.conv2d(F.pad(padded, (0, 1, 0, 1)), down, stride=2)
        found = torch.where(found > 0, found, found / 2)
        expected = (F.conv_transpose2d(found, up, stride=2) + padded)[..., : size[0], : size[1]]
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in net.parameters()) == 4 * 27 + 4 * 12 + 2 and net.int32.numel() == 5


def test_what_cannot_be_computed_is_said(tmp_path):
    plain = [("y", "Abs", ["x"], {})]
    model = write(tmp_path / "a", plain, CONSTANTS)
    digest = network_digest(TfjsGraph(model))
    other = write(tmp_path / "b", [("y", "Neg", ["x"], {})], CONSTANTS)
    assert network_digest(TfjsGraph(other)) != digest  # other operations with the same weights
    wrong = {
        "operations that are not known here: Erf, Lgamma": [("e", "Erf", ["x"], {}), ("y", "Lgamma", ["e"], {})],
        "y needs z, which does not come before it": [("y", "AddV2", ["x", "z"], {}), ("z", "Abs", ["x"], {})],
        "a slice with an ellipsis": [("y", "StridedSlice", ["x", "c", "c", "c"], {"ellipsis_mask": {"i": "1"}})],
    }
    for number, (said, nodes) in enumerate(wrong.items()):
        with pytest.raises(UserError, match=said):
            TfjsGraph(write(tmp_path / str(number), nodes, CONSTANTS))
    shard = tmp_path / "a" / "group1-shard1of1.bin"
    shard.write_bytes(b"")
    with pytest.raises(UserError, match="not a readable TensorFlow"):
        TfjsGraph(model)
    shard.unlink()
    with pytest.raises(UserError, match="not a readable TensorFlow") as error:
        TfjsGraph(model)
    assert "\n" not in str(error.value)
    model.write_text("{")
    with pytest.raises(UserError, match="not a readable TensorFlow"):
        TfjsGraph(model)


def test_npm_packages_are_found_as_node_finds_them(tmp_path, monkeypatch):
    work = tmp_path / "work" / "deep"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.delenv("NODE_PATH", raising=False)
    with pytest.raises(packages.Absent, match=r"in no node_modules .*npm install --no-save .*maxim-deblurring@0\.1\.0"):
        open_method("M", {"package": "maxim_deblurring"}, "cpu", print)

    package = tmp_path / "node_modules" / "@upscalerjs" / "maxim-deblurring"
    write(package / "models", [("y", "Neg", ["x"], {})], CONSTANTS)
    (package / "package.json").write_text("{}")
    method = open_method("M", {"package": "maxim_deblurring"}, "cpu", print)
    image = np.full((5, 7, 3), 200, np.uint8)
    assert method.run(image, "").shape == image.shape and not method.run(image, "").any()
    monkeypatch.chdir("/")
    monkeypatch.setenv("NODE_PATH", str(tmp_path / "node_modules"))
    assert open_method("M", {"package": "maxim_deblurring"}, "cpu", print).digest == method.digest
    with pytest.raises(packages.Absent):
        open_method("M", {"package": "maxim_dehazing_indoor"}, "cpu", print)
