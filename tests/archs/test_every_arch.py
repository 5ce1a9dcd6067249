"""Every network that the package registers, by the same tests: sizes, gradients, state dict, parameters, SRModel."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from small_networks import SMALL, shaken

from prompt_mamba_arch import peers
from prompt_mamba_arch.errors import UserError

SWINIR = {"arch": "SwinIR", "window_size": 8, "img_range": 1.0, "mlp_ratio": 2, "resi_connection": "1conv"}
SWINIR_LIGHT = {**SWINIR, "embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffledirect"}
SWINIR_FULL = {**SWINIR, "embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "upsampler": "pixelshuffle"}
HAT = {"arch": "HAT", "upscale": 4, "window_size": 16, "mlp_ratio": 2, "upsampler": "pixelshuffle", "img_size": 64}
HAT_FULL = {**HAT, "embed_dim": 180, "compress_ratio": 3, "squeeze_factor": 30}
GRL = {"arch": "GRL", "upscale": 4, "stripe_size": [8, None], "stripe_groups": [None, 4], "mlp_ratio": 2}
GRL_SMALL = {**GRL, "depths": [4] * 4, "num_heads_window": [2] * 4, "num_heads_stripe": [2] * 4}
NAFNET = {"arch": "NAFNet", "middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 28], "dec_blk_nums": [1] * 4}

# (network, arguments, how many parameters the paper or the release tells)
PUBLISHED = [
    # MambaIRv2 (arXiv:2411.15269), tables of lightweight and of classical super-resolution; light x4 also from the
    # entry of team 40 in NTIRE 2025, 789 680 numbers
    ("MambaIRv2", {"upscale": 2}, "774 K"),
    ("MambaIRv2", {"upscale": 4}, "790 K"),
    ("MambaIRv2", {"upscale": 2, "size": "small"}, "9.6 M"),
    ("MambaIRv2", {"upscale": 2, "size": "base"}, "22.9 M"),
    ("MambaIRv2", {"upscale": 4, "size": "large"}, "34.2 M"),
    # MambaIR (arXiv:2402.15648v2), the same two tables
    ("MambaIR", {"upscale": 2}, "905 K"),
    ("MambaIR", {"upscale": 3}, "913 K"),
    ("MambaIR", {"upscale": 4}, "924 K"),
    ("MambaIR", {"upscale": 2, "size": "base"}, "20.42 M"),
    ("MambaIR", {"upscale": 4, "size": "base"}, "20.57 M"),
    # EFDN, the baseline of NTIRE2023_ESR to NTIRE2025_ESR, whose README says so
    ("EFDN", {}, "0.276 M"),
    # InstructIR (arXiv:2401.16468), tables of all-in-one restoration, without the language head
    ("InstructIR", {"language_head": False}, "15.8 M"),
    # PromptIR (arXiv:2306.13090), as the tables of its successors have it, and Restormer (arXiv:2111.09881), which it
    # is without its prompts
    ("PromptIR", {}, "35.59 M"),
    ("PromptIR", {"decoder": False, "extra_parameters": False}, "26.13 M"),
    # SwinIR (arXiv:2108.10257): 11.9 M as HAT's paper and others count, which is with the tables of relative positions;
    # its light networks as MambaIR's and MambaIRv2's tables count them. The paper's own 878 K are in a test below
    ("SpandrelArch", {**SWINIR_LIGHT, "upscale": 2}, "910 K"),
    ("SpandrelArch", {**SWINIR_FULL, "upscale": 4}, "11.9 M"),
    # HAT (arXiv:2205.04437), table of model sizes: HAT-S, HAT, HAT-L
    ("SpandrelArch", {**HAT, "embed_dim": 144, "depths": [6] * 6, "num_heads": [6] * 6, "compress_ratio": 24,
                      "squeeze_factor": 24}, "9.6 M"),
    ("SpandrelArch", {**HAT_FULL, "depths": [6] * 6, "num_heads": [6] * 6}, "20.8 M"),
    ("SpandrelArch", {**HAT_FULL, "depths": [6] * 12, "num_heads": [6] * 12}, "40.8 M"),
    # GRL (arXiv:2303.00748), table of super-resolution; arguments from config/model of its release: tiny, small, base
    ("SpandrelArch", {**GRL_SMALL, "embed_dim": 64, "upsampler": "pixelshuffledirect", "anchor_window_down_factor": 4},
     "0.91 M"),
    ("SpandrelArch", {**GRL_SMALL, "embed_dim": 128, "upsampler": "pixelshuffle", "anchor_window_down_factor": 4},
     "3.49 M"),
    ("SpandrelArch", {**GRL, "embed_dim": 180, "upsampler": "pixelshuffle", "anchor_window_down_factor": 4,
                      "depths": [4, 4, 8, 8, 8, 4, 4], "num_heads_window": [3] * 7, "num_heads_stripe": [3] * 7,
                      "local_connection": True}, "20.20 M"),
    # NAFNet (arXiv:2204.04676) tells operations only; parameters of its GoPro and SIDD networks as others tell them
    ("SpandrelArch", {**NAFNET, "width": 32}, "17.1 M"),
    ("SpandrelArch", {**NAFNET, "width": 64}, "67.89 M"),
    ("SpandrelArch", {**NAFNET, "width": 64, "enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12,
                      "dec_blk_nums": [2] * 4}, "116 M"),
    # SCUNet and DRUNet: neither paper was found to count them; these are what others count of the released weights
    ("SpandrelArch", {"arch": "SCUNet"}, "17.9 M"),
    ("SpandrelArch", {"arch": "DRUNet", "in_nc": 4, "out_nc": 3}, "32.6 M"),
    ("SpandrelArch", {"arch": "Restormer"}, "26.13 M"),
    # ours, as the README tells
    ("PromptMamba", {"size": "tiny"}, "1.4 M"),
    ("PromptMamba", {"size": "small"}, "4.0 M"),
    ("PromptMamba", {"size": "base"}, "11.3 M"),
    ("PromptMamba", {"size": "large"}, "26.2 M"),
]  # fmt: skip
# neither its paper nor its release (arXiv:2312.06162) tells a number: this is what its computation reaches, so that a
# change is noticed
UNPUBLISHED = [("TextPromptIR", {}, "39.63 M"), ("TextPromptIR", {"text_dim": 768}, "39.85 M")]


def build(name: str) -> torch.nn.Module:
    if SMALL[name]["type"] == "SpandrelArch":
        pytest.importorskip("spandrel", reason="the networks of spandrel need that library")
    torch.manual_seed(0)
    return build_network(copy.deepcopy(SMALL[name]))


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


def prompts(net: torch.nn.Module, batch: int) -> torch.Tensor:
    drawn = torch.randn(batch, net.text_dim, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.normalize(drawn, dim=1)


def test_none_is_forgotten():
    ours = {name for name, cls in ARCH_REGISTRY if cls.__module__.startswith("prompt_mamba_arch.")}
    assert ours == {section["type"] for section in SMALL.values()}


@pytest.mark.parametrize("name", SMALL)
def test_any_image_size(name):
    net = shaken(build(name)).eval()
    with torch.inference_mode():
        for height, width in [(1, 1), (1, 6), (5, 3), (17, 10), (24, 32)]:
            x = images(2, height, width)
            out = net(x)
            assert out.shape == (2, 3, height * net.upscale, width * net.upscale)
            assert out.isfinite().all()
            # images of a batch do not see each other
            torch.testing.assert_close(out[:1], net(x[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_repeatable_in_evaluation(name):
    net, x = shaken(build(name)).eval(), images(1, 18, 11)
    with torch.inference_mode():
        first = net(x)
        net(images(2, 7, 7))
        torch.manual_seed(99)  # nothing is drawn
        assert torch.equal(first, net(x))
    assert (first - torch.nn.functional.interpolate(x, scale_factor=net.upscale)).abs().max() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_that_trains_has_a_gradient(name):
    """Distributed training waits for each."""
    net = shaken(build(name)).train()
    given = (images(2, 16, 16), prompts(net, 2)) if net.has_text else (images(2, 16, 16),)
    net(*given).square().mean().backward()
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    assert len(trained) > 0.9 * len(list(net.parameters()))
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    dead = [name for name, p in trained.items() if p.grad is not None and not p.grad.any()]
    # what shifts all of a softmax's or a LayerNorm's inputs alike has none to speak of; a drawn category may be empty
    assert [name for name in dead if not name.endswith(("text_null", "embeddingB.weight", "wqkv.bias"))] == []


@pytest.mark.parametrize("name", SMALL)
def test_state_dict_and_config_rebuild_the_network(name):
    net = shaken(build(name)).eval()
    config = json.loads(json.dumps(net.config))
    again = build_network({"type": SMALL[name]["type"], **config}).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    assert again.config == net.config
    x = images(1, 9, 14)
    with torch.inference_mode():
        assert torch.equal(net(x), again(x))


@pytest.mark.parametrize("name", SMALL)
def test_text_is_heard_where_there_is_any(name):
    net, x = shaken(build(name)).eval(), images(2, 12, 12)
    if not net.has_text:
        with pytest.raises(TypeError):
            net(x, torch.zeros(2, 10))
        return
    with torch.inference_mode():
        blind, prompted = net(x, prompt=None), net(x, prompts(net, 2))
        assert torch.equal(blind, net(x, torch.zeros(2, net.text_dim)))
        assert (blind - prompted).abs().amax((1, 2, 3)).min() > 1e-6
    with pytest.raises(UserError, match=rf"\(2, {net.text_dim}\), not \(2, 7\)"):
        net(x, torch.zeros(2, 7))
    assert set(net.text_parameters()) < set(net.state_dict())


def parameters(kind: str, arguments: dict) -> dict[str, int]:
    """Name -> how many numbers; nothing is drawn or held where the network can be built without."""
    if kind != "SpandrelArch":
        with torch.device("meta"):
            net = ARCH_REGISTRY.get(kind)(**arguments)
    else:  # its class alone: to read it back from its weights, as SpandrelArch does, takes long at these sizes
        pytest.importorskip("spandrel", reason="the networks of spandrel need that library")
        arguments = dict(arguments)
        try:
            _, cls = peers._find(arguments.pop("arch"))
        except UserError as error:  # of spandrel-extra-arches
            pytest.skip(str(error))
        net = cls(**arguments)
    return {name: parameter.numel() for name, parameter in net.named_parameters()}


def test_every_network_s_parameters_are_counted():
    counted = {kind for kind, _, _ in PUBLISHED + UNPUBLISHED}
    assert counted == {section["type"] for section in SMALL.values()}


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    PUBLISHED + UNPUBLISHED,
    ids=[f"{kwargs.get('arch', kind)} {told}" for kind, kwargs, told in PUBLISHED + UNPUBLISHED],
)
def test_parameters_are_as_many_as_published(kind, arguments, told):
    digits, unit = told.split()
    scale = {"K": 10**3, "M": 10**6}[unit]
    last_digit = 10.0 ** -len(digits.partition(".")[2])  # some are cut off there, not rounded
    assert sum(parameters(kind, arguments).values()) / scale == pytest.approx(float(digits), abs=last_digit)


@pytest.mark.parametrize(("upscale", "thousands"), [(2, 878), (3, 886), (4, 897)])
def test_swinir_s_own_count_leaves_out_the_tables_of_positions(upscale, thousands):
    """The paper's table of lightweight super-resolution."""
    found = parameters("SpandrelArch", {**SWINIR_LIGHT, "upscale": upscale})
    counted = sum(number for name, number in found.items() if "relative_position_bias_table" not in name)
    assert round(counted / 1e3) == thousands


@pytest.mark.parametrize("name", SMALL)
def test_trains_within_basicsrs_own_model(name, tmp_path):
    """SRModel calls net(lq), and knows nothing of prompts."""
    from basicsr.models import build_model

    scale = build(name).upscale
    opt = {
        **{"model_type": "SRModel", "num_gpu": 0, "dist": False, "is_train": True, "scale": scale, "rank": 0},
        "path": {"pretrain_network_g": None, "experiments_root": str(tmp_path), "models": str(tmp_path)},
        "network_g": copy.deepcopy(SMALL[name]),
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 2e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [1000], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
    }
    torch.manual_seed(0)
    model = build_model(opt)
    gt = torch.nn.functional.interpolate(images(2, 4, 4), scale_factor=4, mode="bilinear")
    lq = (torch.nn.functional.avg_pool2d(gt, scale) if 16 % scale == 0 else gt[..., :5, :5]).clone()
    gt = gt[..., : lq.shape[-2] * scale, : lq.shape[-1] * scale]
    losses = []
    for step in range(12):
        model.feed_data({"lq": lq + 0.1, "gt": gt})
        model.optimize_parameters(step + 1)
        losses.append(model.get_current_log()["l_pix"])
    assert min(losses[-3:]) < 0.9 * losses[0]
    model.test()
    assert model.output.shape == gt.shape
    model.save_network([model.net_g, model.net_g_ema], "net_g", 1, param_key=["params", "params_ema"])
    saved = torch.load(tmp_path / "net_g_1.pth", weights_only=True)
    build(name).load_state_dict(saved["params_ema"], strict=True)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"type": "MambaIR", "size": "lite"}, "unknown size 'lite': the sizes are light, base; did you mean 'light'?"),
        ({"type": "MambaIR", "depths": 6}, "MambaIR: depths must be a list of whole numbers"),
        ({"type": "MambaIR", "drop_path_rate": 1}, "drop_path_rate must be a number from 0"),
        ({"type": "MambaIR", "drop_path_rate": "a"}, "drop_path_rate must be a number from 0"),
        ({"type": "MambaIR", "embed_dim": 3, "resi_connection": "3conv"}, "embed_dim must be at least 4 for 3conv"),
        ({"type": "MambaIRv2", "embed_dim": 44, "mlp_ratio": 0.75}, "mlp_ratio must be one that leaves an even number"),
        ({"type": "MambaIRv2", "num_heads": [5] * 4}, "num_heads must be a list of 4 divisors of embed_dim (48)"),
        ({"type": "MambaIRv2", "upsampler": "pixelshufle"}, "upsampler must be one of"),
        ({"type": "MambaIRv2", "upscale": 2, "upsampler": ""}, "upsampler must be one that enlarges"),
        ({"type": "MambaIRv2", "convffn_kernel_size": 4}, "convffn_kernel_size must be odd, not 4"),
        ({"type": "MambaIRv2", "ffn": "gate"}, "ffn must be gated or conv"),
        ({"type": "EFDN", "n_feats": 15}, "EFDN: n_feats must be an even number from 4, not 15"),
        ({"type": "InstructIR", "dec_blk_nums": [1]}, "dec_blk_nums must be a list of whole numbers, as long as enc"),
        ({"type": "PromptIR", "heads": [1, 2, 4]}, "heads must be a list of four numbers that divide"),
        ({"type": "PromptIR", "out_channels": 1}, "out_channels must be inp_channels (3), as the image is added"),
        ({"type": "PromptIR", "dim": 12, "extra_parameters": True}, "extra_parameters must be false unless dim is 48"),
        ({"type": "PromptIR", "dim": 16}, "heads must be four numbers of which the third (4) divides 53, 106, 234"),
        ({"type": "PromptIR", "dim": 9, "heads": [1] * 4, "decoder": False}, "dim must be an even number, not 9"),
        ({"type": "PromptIR", "ffn_expansion_factor": "a"}, "ffn_expansion_factor must be a number that leaves"),
        ({"type": "TextPromptIR", "ffn_expansion_factor": 0.01}, "ffn_expansion_factor must be a number that leaves"),
        ({"type": "TextPromptIR", "text_dim": 0}, "text_dim must be a whole number from 1, not 0"),
    ],
)  # fmt: skip
def test_impossible_values_are_named(section, said):
    with pytest.raises(UserError) as error:
        build_network(dict(section))
    assert said in str(error.value)
