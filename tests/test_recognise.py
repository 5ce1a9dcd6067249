"""Files that do not say which network they hold: recognised from their weights, restored through, tested with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from small_networks import SMALL, shaken

from prompt_mamba_arch.archs.instructir_arch import RELEASED_ENCODER, InstructIR, LanguageHead
from prompt_mamba_arch.checkpoint_files import load_network
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.recognise import recognise
from prompt_mamba_arch.restore import Restorer

RECOGNISED = [name for name in SMALL if not name.startswith("PromptMamba") and name != "PromptIR without prompts"]


def build(name: str) -> torch.nn.Module:
    if SMALL[name]["type"] == "SpandrelArch":
        pytest.importorskip("spandrel", reason="needs spandrel")
    torch.manual_seed(0)
    return shaken(build_network(dict(SMALL[name]))).eval()


@pytest.mark.parametrize("name", RECOGNISED)
@pytest.mark.parametrize("wrap", ["params", "state_dict", "nothing"])
def test_recognised_from_the_weights_alone(name, wrap, tmp_path):
    net = build(name)
    state = net.state_dict()
    if wrap == "state_dict":  # as a training framework saves it
        state = {f"net.{key}": value for key, value in state.items()}
    torch.save(state if wrap == "nothing" else {wrap: state, "epoch": 3}, tmp_path / "released.pth")
    loaded, phase = load_network(tmp_path / "released.pth")
    assert phase is None and type(loaded) is type(net)
    x = torch.rand(1, 3, 9, 13)
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(x), net(x))


@pytest.mark.parametrize("prefix", ["module.", "net_g.", "model.", "net.module.", "model.net_g."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_prefixes_of_trainers(prefix, suffix, tmp_path):
    net = build("MambaIR")
    state = {f"{prefix}{key}": value.contiguous() for key, value in net.state_dict().items()}
    path = tmp_path / f"released{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, path)
    loaded, _ = load_network(path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in net.state_dict().items())


def test_a_list_of_layers_is_no_prefix(tmp_path):
    dncnn = pytest.importorskip("spandrel.architectures.DnCNN", reason="needs spandrel").DnCNN(nb=17, act_mode="R")
    assert all(name.startswith("model.") for name in dncnn.state_dict())  # as in the authors' files
    torch.save(dncnn.state_dict(), tmp_path / "dncnn.pth")
    torch.save({f"module.{name}": value for name, value in dncnn.state_dict().items()}, tmp_path / "parallel.pth")
    for name in ("dncnn.pth", "parallel.pth"):
        loaded, _ = load_network(tmp_path / name)
        assert loaded.config["arch"] == "DnCNN"


def test_published_sizes_are_recognised():
    for kind, options in {
        **{"MambaIR": {"size": "base"}, "MambaIRv2": {"upscale": 3}, "PromptIR": {}, "InstructIR": {}, "EFDN": {}},
        "TextPromptIR": {"text_dim": 768},
    }.items():
        with torch.device("meta"):
            net = build_network({"type": kind, **options})
            found = recognise(net.state_dict())
            again = build_network(dict(found))
        shapes = [{key: value.shape for key, value in n.state_dict().items()} for n in (net, again)]
        assert found["type"] == kind and shapes[0] == shapes[1] and net.upscale == again.upscale


def test_instructirs_two_files(tmp_path):
    image = build("InstructIR without its head")
    torch.save(image.state_dict(), tmp_path / "im_net.pt")
    alone, _ = load_network(tmp_path / "im_net.pt")
    assert alone.lm_head is None
    head = shaken(LanguageHead(384, 6))
    torch.save(head.state_dict(), tmp_path / "lm_net.pt")
    whole, _ = load_network(tmp_path / "im_net.pt")
    assert isinstance(whole, InstructIR) and whole.text_encoder == RELEASED_ENCODER and whole.text_dim == 384
    x, sentence = torch.rand(1, 3, 8, 8), torch.randn(1, 384)
    with torch.inference_mode():
        torch.testing.assert_close(whole(x, sentence), image(x, head(sentence)))


def test_unknown_weights_are_refused(tmp_path):
    torch.save({"params": {"strange.weight": torch.zeros(2)}}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="does not say which network it belongs to"):
        load_network(tmp_path / "net.pth")


@pytest.mark.parametrize("name", RECOGNISED)
def test_restorer_in_tiles(name, tmp_path, photos):
    net = build(name)
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    restorer = Restorer.from_pretrained(tmp_path / "net.pth")
    image = np.ascontiguousarray(photos["coffee"][:70, :90])
    whole, tiled = restorer.restore(image, tile="none"), restorer.restore(image, tile=64)
    assert whole.shape == tiled.shape == (70 * net.upscale, 90 * net.upscale, 3)
    assert whole.dtype == np.uint8 and restorer.upscale == net.upscale
    with torch.inference_mode():
        x = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))
        expected = net(x)[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255
    assert np.abs(whole - expected).max() <= 0.51
    assert restorer.takes_prompts == net.has_text
    assert restorer.bytes_per_pixel() > 4 * 3
    if not net.has_text:
        with pytest.raises(UserError, match="takes no prompts"):
            restorer.restore(image, "remove the noise")


def test_restore_command_and_basicsrs_test(tmp_path, paired_folders, capfd):
    """Through the command line, on small random weights."""
    from prompt_mamba_arch import test as tester
    from prompt_mamba_cli import main

    for name in ("MambaIRv2", "InstructIR"):
        weights = tmp_path / f"{name}.pth"
        torch.save({"params": build(name).state_dict()}, weights)
        out = tmp_path / name
        assert main(["restore", "-i", str(paired_folders.lq), "-o", str(out), "--model", str(weights)]) == 0
        assert len(list(out.glob("*.png"))) == 4
        options = {
            **{"name": name, "model_type": "SRModel", "scale": 1, "num_gpu": 0, "manual_seed": 0},
            "datasets": {
                "test": {
                    **{"name": "photos", "type": "PairedImageDataset", "io_backend": {"type": "disk"}},
                    **{"dataroot_gt": str(paired_folders.gt), "dataroot_lq": str(paired_folders.lq)},
                }
            },
            "network_g": SMALL[name],
            "path": {"pretrain_network_g": str(weights), "strict_load_g": True},
            "val": {
                **{"save_img": False, "suffix": None},
                "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": False}},
            },
        }
        (tmp_path / "test.yml").write_text(yaml.safe_dump(options), encoding="utf-8")
        assert tester.main(["-opt", str(tmp_path / "test.yml"), "--root", str(tmp_path)]) == 0
        captured = capfd.readouterr()
        assert "psnr:" in captured.out + captured.err
