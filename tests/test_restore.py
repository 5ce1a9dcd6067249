"""The Restorer: what it loads, what it does with images of every kind and size, what it refuses and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from prompt_mamba_arch import memory, restore
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.text import Wish


def _tiny(**arguments):
    torch.manual_seed(0)
    arguments = {"size": "tiny", "dim": 8, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1], **arguments}
    net = PromptMamba(**arguments)
    with torch.no_grad():  # so that it changes something, and heeds prompts
        for name, parameter in net.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter) * (1 + 2 * ("text_" in name)))
    return net


@pytest.fixture(scope="module")
def net():
    return _tiny()


@pytest.fixture(scope="module")
def restorer(net):
    return Restorer(net, name="tiny one", device="cpu")


@pytest.fixture(scope="module")
def content(net):
    return {
        "params": {key: torch.zeros_like(value) for key, value in net.state_dict().items()},
        "params_ema": net.state_dict(),
        "network_g": {"type": "PromptMamba", **net.config},
    }


class _Local(nn.Module):
    """Reaches one pixel far; counts what it is given."""

    def __init__(self, upscale=1):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 3 * upscale**2, 3, padding=1, padding_mode="replicate")
        self.shuffle = nn.PixelShuffle(upscale)
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return self.shuffle(self.conv(x))


class _Small(_Local):
    """Has memory for so many pixels; when it fails, it has computed some tiles already."""

    def __init__(self, pixels, message):
        super().__init__()
        self.pixels, self.message = pixels, message

    def forward(self, x):
        if x.shape[2] * x.shape[3] > self.pixels:
            raise RuntimeError(self.message)
        return super().forward(x)


def _image(*shape, dtype=np.uint8):
    values = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    return values if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("prompt", [5, b"remove the noise"])
def test_a_prompt_that_is_no_text_is_refused(restorer, prompt):
    with pytest.raises(UserError, match="must be text, a Wish or None"):
        restorer.restore(_image(20, 30), prompt)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_strength_scales_what_is_changed(restorer, dtype):
    image = _image(30, 41, dtype=dtype)
    before = image.copy()
    full = restorer.restore(image)
    half = restorer.restore(image, strength=0.5)
    assert full.dtype == half.dtype == dtype and full.shape == image.shape
    assert abs(full.astype(float) - image).max() > (0.01 if dtype == np.float32 else 2)
    np.testing.assert_array_equal(restorer.restore(image, strength=0), image)
    inside = (full > full.min()) & (full < full.max())  # not clipped
    middle = (full.astype(float) + image) / 2
    assert abs(half - middle)[inside].max() <= (1e-6 if dtype == np.float32 else 1)
    np.testing.assert_array_equal(image, before)
    assert not np.shares_memory(restorer.restore(image, strength=0), image)


def test_it_is_the_networks_output(restorer, net):
    image = _image(20, 24)
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        expected = net(x)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    assert abs(restorer.restore(image) - expected).max() <= 0.501


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (67, 1), (7, 9)])
def test_the_smallest_images(restorer, shape):
    image = _image(*shape)
    assert restorer.restore(image).shape == image.shape
    assert restorer.restore(image, "remove the noise", tile=64).shape == image.shape


def test_views_and_read_only_arrays(restorer):
    image = _image(40, 30)
    expected = restorer.restore(image)
    turned = np.ascontiguousarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    turned.flags.writeable = False
    np.testing.assert_array_equal(restorer.restore(turned), expected)


def test_the_prompt_reaches_the_network(restorer):
    image = _image(24, 24, dtype=np.float32)
    blind = restorer.restore(image)
    for empty in (None, "", "  \n"):
        np.testing.assert_array_equal(restorer.restore(image, empty), blind)
    noise, haze = (restorer.restore(image, prompt) for prompt in ("remove the noise", "remove the haze"))
    assert abs(noise - blind).max() > 1e-4 and abs(noise - haze).max() > 1e-4
    np.testing.assert_array_equal(restorer.restore(image, "remove the noise"), noise)


def test_a_network_with_wishes_is_told_what_the_sentence_was_read_to_ask_for(restorer):
    wishing = Restorer(_tiny(wishes=True), device="cpu")
    rain = Wish({"rain"})
    assert torch.equal(wishing.embed("remove the rain"), rain.vector(384)[None])
    assert torch.equal(wishing.embed("take the rain out, please"), wishing.embed(rain))
    assert torch.equal(wishing.embed("what is the capital of France?"), Wish(()).vector(384)[None])
    assert wishing.embed("fix this photo") is wishing.embed(Wish()) is wishing.embed(" ") is None
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(wishing.restore(image, rain), wishing.restore(image, "remove the rain"))
    for nothing in ("what is the capital of France?", Wish(()), [Wish(()), Wish(())]):
        np.testing.assert_array_equal(wishing.restore(image, nothing), image)
    np.testing.assert_array_equal(wishing.restore(image, [Wish(()), rain]), wishing.restore(image, rain))
    # one that reads sentences is given the wish as one
    assert torch.equal(restorer.embed(rain), restorer.embed("remove the rain"))


def test_several_prompts_are_followed_one_after_another(restorer):
    image, seen = _image(130, 100), []
    noise, haze = "remove the noise", "remove the haze"
    once = restorer.restore(image, [noise], tile=80)
    twice = restorer.restore(image, [noise, haze], tile=80, progress=lambda *at: seen.append(at))
    np.testing.assert_array_equal(once, restorer.restore(image, noise, tile=80))
    np.testing.assert_array_equal(twice, restorer.restore(once, haze, tile=80))
    assert (twice != once).any() and seen == [(done, 8) for done in range(1, 9)]
    np.testing.assert_array_equal(restorer.restore(image, []), restorer.restore(image))
    np.testing.assert_array_equal(restorer.restore(image, [noise, haze], strength=0), image)
    with pytest.raises(UserError, match="one prompt at a time, not 2"):
        Restorer(_Local(2), device="cpu").restore(_image(5, 5), ["", ""])


@pytest.mark.parametrize("upscale", [1, 2])
def test_the_ensemble_treats_all_sides_alike(upscale):
    """Turned or mirrored, an image has the result turned or mirrored, which it has not without."""
    restorer = Restorer(_Local(upscale), device="cpu")
    image = _image(31, 47, dtype=np.float32)
    result = restorer.restore(image, ensemble=True)
    for change in (np.fliplr, np.rot90, lambda a: a.transpose(1, 0, 2)):
        changed = np.ascontiguousarray(change(image))
        np.testing.assert_allclose(restorer.restore(changed, ensemble=True), change(result), atol=1e-6)
        assert abs(restorer.restore(changed) - change(restorer.restore(image))).max() > 1e-3
    # in tiles, too, and scaled
    np.testing.assert_allclose(restorer.restore(_image(100, 70), ensemble=True, tile=64),
                               restorer.restore(_image(100, 70), ensemble=True, tile="none"), atol=1)  # fmt: skip
    half = restorer.restore(image, ensemble=True, strength=0.5)
    if upscale == 1:
        inside = (result > 0) & (result < 1)  # not clipped
        np.testing.assert_allclose(half[inside], ((image + result) / 2)[inside], atol=1e-6)
    np.testing.assert_allclose(Restorer(nn.Identity(), device="cpu").restore(image, ensemble=True), image, atol=1e-6)


def test_half_precision_changes_little(monkeypatch, net, restorer):
    monkeypatch.setattr(restore, "half_type", lambda device: torch.bfloat16)
    half = Restorer(net, device="cpu", half=True)
    assert half.half is torch.bfloat16 and restorer.half is None
    image = _image(40, 50)
    expected = restorer.restore(image, "remove the noise")
    found = half.restore(image, "remove the noise")
    difference = abs(found.astype(int) - expected)
    assert 0 < difference.mean() < 1 and difference.max() <= 16  # of 255; bfloat16 has 8 bits
    monkeypatch.setattr(restore, "half_type", lambda device: None)  # where nothing is gained, nothing is lost
    np.testing.assert_array_equal(Restorer(net, device="cpu", half=True).restore(image, "remove the noise"), expected)


def test_what_overflows_in_half_precision_is_computed_in_full(monkeypatch):
    class Large(_Local):
        def forward(self, x):
            y = super().forward(x.mul_(1))  # in place
            return y * (torch.inf if y.dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(restore, "half_type", lambda device: torch.bfloat16)
    image = _image(20, 20)
    expected = Restorer(_Local(), device="cpu").restore(image)
    np.testing.assert_array_equal(Restorer(Large(), device="cpu", half=True).restore(image), expected)


def test_tiles_are_run_on_the_networks_grid_and_reported(restorer):
    image, seen = _image(130, 100), []
    whole = restorer.restore(image, tile="none")
    tiled = restorer.restore(image, tile=80, progress=lambda *at: seen.append(at))
    assert seen == [(done, 4) for done in range(1, 5)]
    np.testing.assert_array_equal(restorer.restore(image, tile=80), tiled)
    np.testing.assert_array_equal(restorer.restore(image, tile=200), whole)
    assert abs(tiled.astype(int) - whole).mean() < 4  # the scans look further than tiles are wide


@pytest.mark.parametrize("upscale", [1, 2, 3])
def test_tiles_change_nothing_for_a_local_network(upscale):
    restorer = Restorer(_Local(upscale), device="cpu")
    image = _image(150, 131, dtype=np.uint16)
    whole = restorer.restore(image, tile=None)
    assert whole.shape == (150 * upscale, 131 * upscale, 3)
    assert abs(restorer.restore(image, tile=64).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("upscale", [2, 4])
def test_enlarging_networks(upscale):
    restorer = Restorer(_tiny(upscale=upscale, enc_blocks=[], dec_blocks=[], unshuffle=1), device="cpu")
    image = _image(13, 9)
    assert restorer.upscale == upscale
    assert restorer.restore(image, "sharpen").shape == (13 * upscale, 9 * upscale, 3)
    large = cv2.resize(image.astype(np.float32), None, fx=upscale, fy=upscale, interpolation=cv2.INTER_CUBIC)
    assert abs(restorer.restore(image, strength=0) - large.clip(0, 255)).max() < 0.501


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_too_little_memory_makes_the_tiles_smaller(message):
    """Nothing of the failed attempts is in the result: an unlimited network gives the same."""
    image = _image(200, 170)
    small = Restorer(_Small(100 * 100, message), device="cpu")
    expected = Restorer(_Local(), device="cpu").restore(image, tile="none")
    for tile in ("auto", 190, 400):
        small.net.seen.clear()
        assert abs(small.restore(image, tile=tile).astype(int) - expected).max() <= 1
        assert all(height * width <= 100 * 100 for height, width in small.net.seen)


def test_a_failure_after_some_tiles_leaves_no_stale_one():
    class Failing(_Local):
        def forward(self, x):
            self.seen.append(0)
            if len(self.seen) == 4:  # the trial, two tiles, and then
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            return self.shuffle(self.conv(x)) * (0.5 if len(self.seen) < 4 else 1)  # the first tiles were wrong

    image = _image(200, 170)
    restored = Restorer(Failing(), device="cpu").restore(image, tile=128)
    expected = Restorer(_Local(), device="cpu").restore(image, tile="none")
    assert abs(restored.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("tile, said", [("none", "let tile be auto"), ("auto", "64 pixels"), (128, "64 pixels")])
def test_too_little_memory_for_the_smallest_tiles(tile, said):
    restorer = Restorer(_Small(20 * 20, "out of memory"), device="cpu")
    with pytest.raises(UserError, match=said):
        restorer.restore(_image(100, 100), tile=tile)


def test_other_errors_of_the_network_are_not_taken_for_memory():
    restorer = Restorer(_Small(20 * 20, "mat1 and mat2 shapes cannot be multiplied"), device="cpu")
    with pytest.raises(RuntimeError, match="mat1"):
        restorer.restore(_image(100, 100))


def test_auto_takes_tiles_only_where_memory_is_short(monkeypatch, restorer):
    image, seen = _image(200, 200), []
    restorer.restore(image, progress=lambda *at: seen.append(at))
    assert seen == [(1, 1)]
    monkeypatch.setattr(restore, "free_memory", lambda device: 2 * 100**2 * restorer.bytes_per_pixel())
    seen.clear()
    restorer.restore(image, progress=lambda *at: seen.append(at))
    assert len(seen) > 1
    monkeypatch.setattr(restore, "free_memory", lambda device: 0)
    assert restorer.restore(_image(70, 70)).shape == (70, 70, 3)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_the_estimate_of_memory_holds():
    """Above what a pass takes, and not by far: tiles neither exhaust memory nor are needlessly small."""
    program = r"""
import os, re, resource, torch
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.restore import Restorer
net = PromptMamba(dim=32, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], mixers=["conv", "scan"])
restorer = Restorer(net, device="cpu")
x = torch.rand(1, 3, 768, 768)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # begins a new peak
with open("/proc/self/statm") as file:
    before = int(file.read().split()[1]) * resource.getpagesize()
with torch.inference_mode():
    net(x)
with open("/proc/self/status") as file:  # ru_maxrss would be the parent's, if that is larger
    peak = int(re.search(r"VmHWM:\s*(\d+)", file.read())[1]) * 1024 - before
print(restorer.bytes_per_pixel(), peak / 768**2)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    estimate, found = map(float, done.stdout.split())
    assert found < estimate < 4 * found


def test_a_containers_limit_is_heeded(tmp_path):
    assert memory._free_of_container(tmp_path) == float("inf")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 50\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_of_container(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._free_of_container(tmp_path) == 350
    assert 0 < memory.free_memory(torch.device("cpu")) < 2**50


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"strength": -0.1}, "strength"),
        ({"strength": 2.1}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"strength": "1"}, "strength"),
        ({"strength": True}, "strength"),
        ({"tile": 63}, "tile"),
        ({"tile": "big"}, "tile"),
        ({"tile": 100.0}, "tile"),
        ({"tile": False}, "tile"),
        ({"image": _image(5, 5)[..., 0]}, r"\(5, 5\)"),
        ({"image": np.zeros((5, 5, 4), np.uint8)}, r"\(5, 5, 4\)"),
        ({"image": np.zeros((0, 5, 3), np.uint8)}, r"\(0, 5, 3\)"),
        ({"image": np.zeros((5, 5, 3), np.float64)}, "float64"),
        ({"image": np.full((5, 5, 3), 255, np.float32)}, r"\[0, 1\]"),
        ({"image": np.full((5, 5, 3), np.nan, np.float32)}, r"\[0, 1\]"),
        ({"image": [[0, 0, 0]]}, "list"),
    ],
)
def test_wrong_arguments(restorer, arguments, said):
    with pytest.raises(UserError, match=said):
        restorer.restore(**{"image": _image(5, 5), **arguments})


def test_numbers_of_numpy_are_numbers(restorer):
    image = _image(9, 9)
    expected = restorer.restore(image, strength=0.5, tile=64)
    np.testing.assert_array_equal(restorer.restore(image, strength=np.float32(0.5), tile=np.int64(64)), expected)


def test_networks_that_do_not_fit():
    class Gray(nn.Conv2d):
        pass

    with pytest.raises(UserError, match="does not take one RGB image"):
        Restorer(Gray(1, 1, 3, padding=1), device="cpu")
    with pytest.raises(UserError, match=r"it makes \(1, 1, 16, 16\)"):
        Restorer(Gray(3, 1, 3, padding=1), device="cpu")
    with pytest.raises(UserError, match=r"it makes \(1, 3, 8, 8\)"):
        Restorer(nn.AvgPool2d(2), device="cpu")
    with pytest.raises(UserError, match="images"):
        Restorer(_tiny(in_chans=4), device="cpu")
    with pytest.raises(UserError, match="takes no prompts"):
        Restorer(_tiny(text_scan=False, text_gate=False, text_attention=False), device="cpu").restore(
            _image(5, 5), "remove the noise"
        )


def test_numbers_that_are_none():
    broken = _tiny()
    with torch.no_grad():
        next(broken.outro.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="damaged"):
        Restorer(broken, device="cpu").restore(_image(9, 9))


def test_a_network_without_text_training_says_so(net):
    restorer = Restorer(net, device="cpu", phase="pretrain")
    with pytest.warns(UserWarning, match="has not learned to read prompts"):
        restorer.restore(_image(5, 5), "remove the noise")


# ---------------------------------------------------------------------------------------------------------------- files


def _save_safetensors(path, content, **metadata):
    from safetensors.torch import save_file

    state = {key: value.contiguous() for key, value in content["params_ema"].items()}
    save_file(state, path, {"network_g": json.dumps(content["network_g"]), **metadata})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".PTH"])
@pytest.mark.parametrize("half", [False, True])
def test_checkpoints(tmp_path, restorer, content, suffix, half):
    path = tmp_path / f"net{suffix}"
    if half:
        content = {**content, "params_ema": {key: value.half() for key, value in content["params_ema"].items()}}
    if suffix == ".safetensors":
        _save_safetensors(path, content, phase="finetune")
    else:
        torch.save({**content, "phase": "finetune"}, path)
    image = _image(20, 30)
    expected = restorer.restore(image, "remove the noise")
    for where in (path, str(path), tmp_path):
        loaded = Restorer.from_pretrained(where, device="cpu")
        assert loaded.phase == "finetune" and loaded.name == str(where) and loaded.device.type == "cpu"
        assert abs(loaded.restore(image, "remove the noise").astype(int) - expected).max() <= half


def test_plain_weights_where_there_are_no_averaged_ones(tmp_path, restorer, content):
    torch.save({"params": content["params_ema"], "network_g": content["network_g"]}, tmp_path / "net.pth")
    image = _image(20, 30)
    loaded = Restorer.from_pretrained(tmp_path / "net.pth")
    np.testing.assert_array_equal(loaded.restore(image), restorer.restore(image))


def test_shipped_names(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setattr("prompt_mamba_arch.weights._FOLDER", weights)
    with pytest.raises(UserError, match="'tiny' is shipped with this version; train one"):
        Restorer.from_pretrained()
    _save_safetensors(weights / "tiny.safetensors", content)
    assert restore.shipped_models() == ["tiny"]
    (tmp_path / "tiny").mkdir()  # photographs of small things, say
    assert Restorer.from_pretrained().name == "tiny"
    with pytest.raises(UserError, match="'huge' is shipped \\(there are: tiny\\)"):
        Restorer.from_pretrained("huge")


@pytest.mark.parametrize("kind", ["SwinIR", "MSRResNet", "EDSR"])
def test_basicsr_networks_work_blind(tmp_path, kind):
    """EDSR tells nobody its factor."""
    arguments = {
        "SwinIR": {"img_size": 16, "window_size": 8, "embed_dim": 12, "depths": [2], "num_heads": [2], "upscale": 1},
        "MSRResNet": {"num_feat": 8, "num_block": 1, "upscale": 2},
        "EDSR": {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 4},
    }[kind]
    net = ARCH_REGISTRY.get(kind)(**arguments)
    torch.save({"params": net.state_dict(), "network_g": {"type": kind, **arguments}}, tmp_path / "net.pth")
    restorer = Restorer.from_pretrained(tmp_path / "net.pth", "cpu")
    assert restorer.upscale == arguments["upscale"]
    for shape in ((1, 1), (13, 21), (70, 90)):
        restored = restorer.restore(_image(*shape), tile=64)
        assert restored.shape == (shape[0] * restorer.upscale, shape[1] * restorer.upscale, 3)
    with pytest.raises(UserError, match="takes no prompts"):
        restorer.restore(_image(5, 5), "remove the noise")


def test_damaged_and_foreign_files(tmp_path, content):
    def refused(name, said, write):
        path = tmp_path / name
        write(path)
        with pytest.raises(UserError, match=said) as caught:
            Restorer.from_pretrained(path, "cpu")
        assert name in str(caught.value) and len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)

    network = content["network_g"]
    for name in ("good.pth", "good.safetensors"):
        save = torch.save if name.endswith("pth") else lambda content, path: _save_safetensors(path, content)
        save(content, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for length in (0, 7, 100, len(whole) // 2, len(whole) - 20):
            refused(f"cut{length}_{name}", "truncated|damaged", lambda path, n=length, w=whole: path.write_bytes(w[:n]))
    refused("a.pth", "does not say which network", lambda p: torch.save({"params": content["params"]}, p))
    refused("b.pth", "no weights", lambda p: torch.save({"weights": content["params"]}, p))
    refused("c.pth", "does not say which network", lambda p: torch.save(content["params"], p))
    refused("d.pth", "no weights", lambda p: torch.save({**content, "params_ema": torch.zeros(3)}, p))
    refused("e.pth", "which no installed", lambda p: torch.save({**content, "network_g": {"type": "Foreign"}}, p))
    refused("f.pth", "does not say", lambda p: torch.save({**content, "network_g": {"type": ["PromptMamba"]}}, p))
    refused("g.pth", "'dimm'", lambda p: torch.save({**content, "network_g": {"type": "PromptMamba", "dimm": 8}}, p))
    refused("h.pth", "fit", lambda p: torch.save({**content, "network_g": {**network, "dim": 16}}, p))
    refused("i.pth", "fit", lambda p: torch.save({**content, "params_ema": {"a": 1}}, p))
    refused("j.pth", "EDSR takes", lambda p: torch.save({**content, "network_g": {"type": "EDSR"}}, p))
    refused("k.onnx", "must be a .pth", lambda p: p.write_bytes(b"onnx"))
    from safetensors.torch import save_file

    refused("l.safetensors", "does not say which", lambda p: save_file({"a": torch.zeros(1)}, p))
    refused("m.safetensors", "damaged", lambda p: save_file({"a": torch.zeros(1)}, p, {"network_g": "{"}))


def test_what_is_not_there(tmp_path):
    for name in ("missing.pth", "folder/missing", "./missing"):
        with pytest.raises(UserError, match="no such network file"):
            Restorer.from_pretrained(name)
    with pytest.raises(UserError, match=r"must hold one .* none"):
        Restorer.from_pretrained(tmp_path)
    for name in ("a.pth", "b.pth", "._a.pth"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"must hold one .* a\.pth, b\.pth"):
        Restorer.from_pretrained(tmp_path)


def test_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0", torch.device("cuda:3")):
        with pytest.raises(UserError, match="there is no CUDA GPU here"):  # before the file is looked for
            Restorer.from_pretrained(tmp_path / "missing.pth", device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="there are 2 CUDA GPUs here"):
        Restorer.from_pretrained(tmp_path / "missing.pth", "cuda:2")
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        Restorer.from_pretrained(tmp_path / "missing.pth", "gpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(UserError, match="'mps'"):
            Restorer.from_pretrained(tmp_path / "missing.pth", "mps")
    assert Restorer(_Local()).device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_the_same(net, restorer):
    image = _image(150, 130)
    on_gpu = Restorer(_tiny(), device="cuda")
    for tile in ("auto", 80):
        expected = restorer.restore(image, "remove the noise", tile=tile)
        assert abs(on_gpu.restore(image, "remove the noise", tile=tile).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("window", [4, 7, 16])
def test_attention_in_windows_gets_whole_windows(window):
    net = ARCH_REGISTRY.get("SwinIR")(
        img_size=2 * window, window_size=window, embed_dim=8, depths=[2], num_heads=[2], upscale=1
    )
    restorer = Restorer(net, device="cpu")
    for shape in ((1, 1), (50, 61)):
        assert restorer.restore(_image(*shape), tile=64).shape == (*shape, 3)


def test_a_checkpoint_of_basicsr_needs_the_option_file_that_trained_it(tmp_path):
    arguments = {"type": "MSRResNet", "num_feat": 8, "num_block": 1, "upscale": 2}
    net = ARCH_REGISTRY.get("MSRResNet")(num_feat=8, num_block=1, upscale=2)
    latest = tmp_path / "net_g_latest.pth"
    torch.save({"params": net.state_dict()}, latest)
    torch.save({"params": {}}, tmp_path / "net_g_100.pth")
    with pytest.raises(UserError, match=r"does not say which network .*name the option file .*--opt"):
        Restorer.from_pretrained(latest, "cpu")

    image = _image(9, 11)
    expected = Restorer(net, device="cpu").restore(image)
    option_file = tmp_path / "train.yml"
    option_file.write_text(f"name: a run\nnetwork_g: {json.dumps(arguments)}\n")
    for where in (latest, tmp_path):  # of a run's networks, the last
        for config in (arguments, option_file, str(option_file)):
            loaded = Restorer.from_pretrained(where, "cpu", config=config)
            np.testing.assert_array_equal(loaded.restore(image), expected)

    (tmp_path / "none.yml").write_text("name: a run\n")
    for config, said in (
        ({"upscale": 2}, "config must"),
        (tmp_path / "none.yml", "network_g in .*none.yml"),
        (tmp_path / "gone.yml", "gone.yml"),
        ({**arguments, "num_feet": 8}, "did you mean 'num_feat'"),
        ({**arguments, "num_feat": 16}, "does not fit"),
    ):
        with pytest.raises(UserError, match=said):
            Restorer.from_pretrained(latest, "cpu", config=config)


def test_a_prompt_for_a_network_without_text_is_refused_at_any_strength():
    with pytest.raises(UserError, match="takes no prompts"):
        Restorer(_Local(), device="cpu").restore(_image(5, 5), "remove the noise", strength=0)


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_a_large_image_costs_little_more_memory_than_its_result(strength):
    """No copies of the whole image as floating-point numbers: what numpy holds beside the result is rows of tiles."""
    restorer, image = Restorer(_Local(), device="cpu"), _image(4096, 128)
    tracemalloc.start()
    try:
        restorer.restore(image, strength=strength, tile=64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.6 * image.nbytes
