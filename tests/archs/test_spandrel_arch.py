"""SpandrelArch: built by name, loaded by path, and wrong ones named."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from basicsr.archs import build_network

from prompt_mamba_arch import checkpoint_files, peers
from prompt_mamba_arch.errors import UserError

spandrel = pytest.importorskip("spandrel", reason="SpandrelArch needs the library spandrel")

SWIN = {"upscale": 2, "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4, "img_size": 16,
        "mlp_ratio": 2.0, "upsampler": "pixelshuffledirect"}  # fmt: skip
DRUNET = {"in_nc": 4, "out_nc": 3, "nc": [4, 8, 8, 8], "nb": 2}
NETS = {
    "SwinIR": SWIN,
    "HAT": {**{name: SWIN[name] for name in ("embed_dim", "depths", "num_heads", "window_size", "mlp_ratio")},
            "upscale": 2, "upsampler": "pixelshuffle", "img_size": 16, "squeeze_factor": 4},
    "GRL": {"img_size": 16, "window_size": 8, "depths": [2], "num_heads_window": [2], "num_heads_stripe": [2],
            "embed_dim": 16, "upscale": 2, "upsampler": "pixelshuffledirect"},
    "NAFNet": {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    "SCUNet": {"dim": 64, "config": [1, 1, 1, 1, 1, 1, 1]},
    "DRUNet": DRUNET,
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2},
}  # fmt: skip


def build(arch: str, **more) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network({"type": "SpandrelArch", "arch": arch, **NETS.get(arch, {}), **more})


@pytest.fixture
def official(tmp_path):
    """A file as its authors release it: weights, and nothing that says of what."""
    path = tmp_path / "001_classicalSR.pth"
    net = build("SwinIR")
    torch.save({"params": net.net.state_dict()}, path)
    return net.eval(), path


@pytest.mark.parametrize(
    "name, meant",
    [
        ("NAFNett", "{type: SpandrelArch, arch: NAFNet}"),
        ("SCUNet", "{type: SpandrelArch, arch: SCUNet}"),
        ("restormer", "{type: SpandrelArch, arch: Restormer}"),
        ("SwinRI", "'SwinIR'"),  # BasicSR's own come first
        ("MambaIRv3", "'MambaIRv2'"),
    ],
)
def test_who_takes_an_architecture_for_a_type_is_told_what_to_write(name, meant):
    for build_it, said in ((build_network, "unknown arch type"), (checkpoint_files.build_network, "network holds a")):
        with pytest.raises((KeyError, UserError)) as raised:
            build_it({"type": name})
        assert str(raised.value).startswith(said) and str(raised.value).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize("arch", NETS)
def test_any_size_and_a_step_of_training(arch):
    net = build(arch).train()
    for height, width in [(1, 1), (5, 9), (17, 8)]:
        x = torch.rand(2, 3, height, width)
        out = net(x)
        assert out.shape == (2, 3, height * net.upscale, width * net.upscale)
        out.mean().backward()
    heard = [p.grad is not None for p in net.parameters() if p.requires_grad]
    assert sum(heard) > 0.5 * len(heard)  # SPAN keeps its convolutions folded for evaluation beside those it trains
    assert net.training
    again = build_network({"type": "SpandrelArch", **json.loads(json.dumps(net.config))})
    again.load_state_dict(net.state_dict(), strict=True)
    x = torch.rand(1, 3, 7, 9)
    with torch.inference_mode():
        assert torch.equal(net.eval()(x), again.eval()(x))


def test_it_computes_what_spandrel_does(official):
    net, path = official
    descriptor = spandrel.ModelLoader(device="cpu").load_from_file(path)
    x = torch.rand(1, 3, 9, 14)
    with torch.inference_mode():
        torch.testing.assert_close(net(x).clamp(0, 1), descriptor(x))


def test_keys_are_the_networks_own(official):
    net, path = official
    saved = torch.load(path, weights_only=True)["params"]
    assert set(net.state_dict()) == set(saved)
    other = build("SwinIR")
    other.load_state_dict(saved, strict=True)
    wrapped = torch.nn.DataParallel(build("SwinIR"))
    wrapped.load_state_dict({f"module.{name}": value for name, value in saved.items()}, strict=True)
    assert set(wrapped.state_dict()) == {f"module.{name}" for name in saved}
    with pytest.raises(RuntimeError, match="Missing"):
        other.load_state_dict({name: saved[name] for name in list(saved)[:-1]}, strict=True)


def test_a_path_alone_loads_with_detected_arguments(official):
    net, path = official
    loaded = build_network({"type": "SpandrelArch", "path": str(path)}).eval()
    x = torch.rand(1, 3, 7, 10)
    with torch.inference_mode():
        assert torch.equal(loaded(x), net(x))
    assert loaded.config["arch"] == "SwinIR" and loaded.config["window_size"] == 4
    again = build_network({"type": "SpandrelArch", **loaded.config})
    again.load_state_dict(net.state_dict(), strict=True)
    assert build_network({"type": "SpandrelArch", "arch": "swinir", "path": str(path), "upscale": 2}).upscale == 2
    with pytest.raises(UserError, match="holds a SwinIR, not a HAT"):
        build_network({"type": "SpandrelArch", "arch": "HAT", "path": str(path)})
    with pytest.raises(UserError, match="upscale is 4, and the file has 2"):
        build_network({"type": "SpandrelArch", "path": str(path), "upscale": 4})


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "needs 'arch', the architecture's name, or 'path'"),
        ({"arch": "SwinRI"}, "spandrel knows no architecture 'SwinRI'; did you mean 'SwinIR'?"),
        ({"arch": "zzzz"}, "knows no architecture 'zzzz'; there are "),
        ({"arch": "RealCUGAN"}, "several networks: arch is one of UpCunet2x, UpCunet3x, UpCunet4x, UpCunet2x_fast"),
        ({"arch": "SwinIR", "upscal": 2}, "unknown key 'upscal' in network_g (SpandrelArch, arch SwinIR)"),
        ({"arch": "SwinIR", "upscal": 2}, "did you mean 'upscale'?"),
        ({"arch": "SwinIR", "window_size": 7}, "(SpandrelArch, arch SwinIR): these arguments are refused (shape"),
        ({"arch": "SCUNet", "dim": 16}, "arch SCUNet): these arguments do not go together"),
        ({"arch": "SPAN"}, "(SpandrelArch, arch SPAN) lacks 'num_in_ch'"),
        ({"arch": "LaMa"}, "LaMa fills holes and needs a mask"),
        ({"path": "nowhere.pth"}, "there is no file 'nowhere.pth'"),
        ({"path": __file__}, "must be a file .pth, .pt, .ckpt, .safetensors"),
    ],
)
def test_wrong_sections_say_what_is_right(section, said):
    with pytest.raises(UserError) as error:
        build_network({"type": "SpandrelArch", **section})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_damaged_and_unknown_files(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"no network")
    torch.save({"params": {"strange.weight": torch.zeros(2)}}, tmp_path / "b.pth")
    for name, said in {"a.pth": "is damaged", "b.pth": "holds no network that spandrel knows"}.items():
        with pytest.raises(UserError, match=said):
            build_network({"type": "SpandrelArch", "path": str(tmp_path / name)})


def test_restricted_ones_say_which_extra_they_need(monkeypatch):
    monkeypatch.setattr(peers, "_table", lambda: {})
    with pytest.raises(UserError, match=r"Restormer has a licence.*pip install spandrel-extra-arches"):
        peers.build("restormer", {})


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    peers._table.cache_clear()
    try:
        with pytest.raises(UserError, match="pip install spandrel, or the extra 'peers'"):
            build_network({"type": "SpandrelArch", "arch": "SwinIR"})
    finally:
        peers._table.cache_clear()
