"""The Restorer: any size, any type, files of networks, too little memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.restore import Restorer


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_restorer_keeps_type_and_strength_scales_the_change(checkpoint, photo, dtype):
    restorer = Restorer.from_pretrained(checkpoint, device="cpu")
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    image = (photo.astype(np.float64) / 255 * full).astype(dtype)
    before = image.copy()
    one, half, none = (restorer.restore(image, strength=s) for s in (1.0, 0.5, 0.0))
    assert one.dtype == dtype and one.shape == image.shape and np.array_equal(image, before)
    assert np.array_equal(none, image) and not np.array_equal(one, image)
    inside = (one > 0) & (one < full)  # what was clipped has no half way
    middle = (one.astype(np.float64) + image) / 2
    assert np.abs(half - middle)[inside].max() <= (1e-6 if dtype == np.float32 else 1)
    assert np.array_equal(one, restorer.restore(image))


def test_a_prompt_changes_the_result_and_an_empty_one_does_not(checkpoint, photo):
    restorer = Restorer.from_pretrained(checkpoint, device="cpu")
    blind = restorer.restore(photo)
    assert np.array_equal(blind, restorer.restore(photo, "  "))
    assert not np.array_equal(blind, restorer.restore(photo, "remove the noise"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 130)])
def test_any_size(checkpoint, shape):
    image = np.full((*shape, 3), 128, np.uint8)
    restorer = Restorer.from_pretrained(checkpoint, device="cpu")
    assert restorer.restore(image).shape == image.shape == restorer.restore(image, tile=64).shape


def test_tiles_agree_with_the_whole_image(checkpoint, photos):
    restorer = Restorer.from_pretrained(checkpoint, device="cpu")
    image = photos["chelsea"]
    whole, tiled = restorer.restore(image, tile="none").astype(float), restorer.restore(image, tile=96).astype(float)
    assert 10 * np.log10(255**2 / np.mean((whole - tiled) ** 2)) > 35  # dB


def test_out_of_memory_means_smaller_tiles_and_nothing_stale(net, photos):
    sizes = []

    class Crowded(torch.nn.Module):
        def forward(self, x):
            sizes.append(tuple(x.shape[-2:]))
            if max(x.shape[-2:]) > 100:
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            return 1 - x

    image = photos["coffee"]
    restored = Restorer(Crowded(), device="cpu").restore(image)
    assert np.array_equal(restored, 255 - image) and max(sizes)[0] > 100
    with pytest.raises(RuntimeError, match="out of memory"):
        Restorer(Crowded(), device="cpu").restore(image, tile="none")


def test_safetensors_and_folders(net, tmp_path, photo):
    arguments = {"type": "PromptMamba", **net.config}
    folder = tmp_path / "model"
    folder.mkdir()
    half = {name: value.half() for name, value in net.state_dict().items()}
    save_file(half, folder / "tiny.safetensors", metadata={"network_g": json.dumps(arguments)})
    from_file, from_folder = (Restorer.from_pretrained(p, "cpu") for p in (folder / "tiny.safetensors", folder))
    assert np.array_equal(from_file.restore(photo), from_folder.restore(photo))


def test_basicsr_networks_restore_blind(tmp_path, photo):
    from basicsr.archs import build_network

    arguments = {"type": "SwinIR", "upscale": 2, "img_size": 16, "window_size": 4, "depths": [1], "embed_dim": 8,
                 "num_heads": [2], "upsampler": "pixelshuffledirect"}  # fmt: skip
    net = build_network(dict(arguments))
    torch.save({"params": net.state_dict(), "network_g": arguments}, tmp_path / "swinir.pth")
    restorer = Restorer.from_pretrained(tmp_path / "swinir.pth", "cpu")
    assert restorer.restore(photo).shape == (2 * photo.shape[0], 2 * photo.shape[1], 3)
    with pytest.raises(UserError, match="takes no prompts"):
        restorer.restore(photo, "remove the noise")
