"""Exported networks: the same results as the network's, for other sizes than those they were exported with."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from prompt_mamba_arch import cli, export
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_cli.export import FORMATS


def _network(**arguments):
    torch.manual_seed(0)
    small = {"dim": 8, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "mixers": ["conv", "scan"]}
    net = PromptMamba(**{**small, "text_width": 8, **arguments}).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def _save(net, path, **more):
    torch.save({"params": net.state_dict(), "network_g": {"type": "PromptMamba", **net.config}, **more}, path)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return _save(
        _network(mixers=["dense+scan", "conv+scan"], middle_blocks=2), tmp_path_factory.mktemp("net") / "net.pth"
    )


@pytest.mark.parametrize("script", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"mixers": ["scan", "scan"], "directions": 1},
        {"directions": 4, "a_form": "tied", "gate": False},
        {"a_form": "scalar", "local_conv": False, "scan_norm": False, "expand": 2.0},
        {"num_experts": 3, "ffn_ratio": 4.0},
        {"text_scan": False, "text_gate": False, "text_attention": False},
        {"upscale": 3, "enc_blocks": [], "dec_blocks": [], "mixers": ["conv+scan"], "unshuffle": 1},
    ],
)
def test_the_other_formulation_says_the_same(arguments, script):
    net = _network(**arguments)
    module = export.Exportable(net, script=script)

    def run(*given):
        with torch.no_grad():
            return module(*map(torch.from_numpy, given)).numpy()

    assert export.largest_difference(net, run) < 2e-6


def test_orders_are_those_of_the_table():
    from prompt_mamba_arch.ops import DIRECTIONS, scan_order

    height, width = 5, 7
    place = torch.arange(height * width)
    for way in DIRECTIONS:
        pixel, step = export._orders(way, place, height, width)
        torch.testing.assert_close(pixel.int(), scan_order(height, width, (way,))[0])
        torch.testing.assert_close(pixel[step], place)


_WITHOUT_OUR_PACKAGE = """
import sys
sys.modules["prompt_mamba_arch"] = sys.modules["torch"] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = numpy.load(sys.argv[2])
found = [session.run(["restored"], {"image": given[f"image{i}"], "prompt": given["prompt"]})[0] for i in range(2)]
numpy.savez(sys.argv[3], *found)
"""


def test_onnx_runs_without_the_package(tmp_path, source):
    """With images of two sizes, one smaller and one larger than the example."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path, net = tmp_path / "net.onnx", Restorer.from_pretrained(source, "cpu").net
    try:
        difference = export.export(source, path, "onnx")
    except UserError as error:
        pytest.skip(str(error))  # an older torch
    assert difference < 1e-5
    random = np.random.default_rng(0)
    images = {f"image{i}": random.random((1, 3, *size), dtype=np.float32) for i, size in enumerate(((9, 11), (50, 71)))}
    prompt = torch.nn.functional.normalize(torch.randn(1, net.text_dim), dim=1)
    np.savez(tmp_path / "given.npz", **images, prompt=prompt.numpy())
    command = [sys.executable, "-c", _WITHOUT_OUR_PACKAGE, path, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(list(map(str, command)), check=True)
    for image, found in zip(images.values(), np.load(tmp_path / "found.npz").values()):
        with torch.no_grad():
            expected = net(torch.from_numpy(image), prompt).numpy()
            blind = net(torch.from_numpy(image)).numpy()
        assert abs(found - expected).max() < 1e-5 < abs(found - blind).max()

    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["network_g"])["type"] == "PromptMamba"
    assert not [node for node in model.graph.node if node.domain not in ("", "ai.onnx") and "pkg" not in node.domain]


def test_torch_export(tmp_path, source):
    try:
        difference = export.export(source, tmp_path / "net.pt2", "torch")
    except UserError as error:
        pytest.skip(str(error))  # an older torch
    assert difference < 1e-5


def test_torchscript(tmp_path, source):
    assert export.export(source, tmp_path / "net.pt", "torchscript") < 1e-5
    extra = {"network_g": ""}
    torch.jit.load(str(tmp_path / "net.pt"), _extra_files=extra)
    assert json.loads(extra["network_g"])["type"] == "PromptMamba"


@pytest.mark.parametrize("half", [False, True])
def test_safetensors_is_a_checkpoint(tmp_path, half):
    source = _save(_network(), tmp_path / "net.pth", phase="finetune")
    difference = export.export(source, tmp_path / "net.safetensors", "safetensors", half=half)
    assert difference < 1e-2 if half else difference == 0
    before, after = (Restorer.from_pretrained(tmp_path / f"net.{suffix}", "cpu") for suffix in ("pth", "safetensors"))
    assert after.phase == "finetune" and after.net.config == before.net.config
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert abs(after.restore(image, "sharpen").astype(int) - before.restore(image, "sharpen")).max() <= half


def test_what_cannot_be_exported(tmp_path, source):
    from basicsr.utils.registry import ARCH_REGISTRY

    arguments = {"num_feat": 8, "num_block": 1, "upscale": 2}
    net = ARCH_REGISTRY.get("MSRResNet")(**arguments)
    other = tmp_path / "other.pth"
    torch.save({"params": net.state_dict(), "network_g": {"type": "MSRResNet", **arguments}}, other)
    for kind in FORMATS:
        with pytest.raises(UserError, match="MSRResNet"):
            export.export(other, tmp_path / "net", kind)
    with pytest.raises(UserError, match="half precision is for safetensors"):
        export.export(source, tmp_path / "net.onnx", "onnx", half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


def test_a_wrong_file_is_noticed():
    net = _network()
    assert export.largest_difference(net, lambda image, prompt: image) > 1e-3
    with pytest.raises(UserError, match="the exported file makes"):
        export.largest_difference(net, lambda image, prompt: image[..., :-1])


def test_the_command(tmp_path, source, capsys, monkeypatch):
    assert tuple(FORMATS.items()) == tuple(export.FORMATS.items())
    target = tmp_path / "net.safetensors"
    assert cli.main(["export", "--model", str(source), "-o", str(target)]) == 0
    assert "net.safetensors' written (safetensors, " in capsys.readouterr().out
    for arguments, said in (
        (["-o", str(target)], "exists already; add --overwrite"),
        (["-o", "net.xyz"], "is none of .onnx"),
        (["-o", "net.onnx", "--format", "torch"], "torch files end in .pt2"),
        (["-o", "no/such/net.onnx"], "no such folder"),
        (["-o", str(tmp_path), "--format", "onnx"], "it is a folder"),
        (["-o", str(tmp_path / "a.onnx"), "--model", "missing.pth"], "no such network file"),
    ):
        assert cli.main(["export", *arguments]) == 2
        line = capsys.readouterr().err
        assert line.startswith("prompt-mamba: ") and said in line and len(line.splitlines()) == 1
    for difference, code, said in (
        (None, 0, "was not tried"),
        (1e-6, 0, "1.0e-06 at most"),
        (0.1, 1, "1.0e-01 at most"),
    ):
        monkeypatch.setattr(export, "export", lambda model, path, kind, d=difference, **_: path.touch() or d)
        assert cli.main(["export", "-o", str(tmp_path / "b.onnx"), "--overwrite"]) == code
        assert said in capsys.readouterr().out
