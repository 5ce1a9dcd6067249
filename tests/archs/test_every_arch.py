"""Every network that the package registers, by the same tests: sizes, gradients, state dict, parameters, SRModel."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from small_networks import SMALL, shaken

from prompt_mamba_arch.errors import UserError

# (network, arguments) -> parameters that the papers and releases tell, in thousands
PUBLISHED = [
    # MambaIRv2 (arXiv:2411.15269), tables of lightweight and of classical super-resolution; the first also from the
    # entry of team 40 in NTIRE 2025, 789 680 numbers
    ("MambaIRv2", {"upscale": 2}, 774),
    ("MambaIRv2", {"upscale": 4}, 790),
    ("MambaIRv2", {"upscale": 2, "size": "small"}, 9_600),
    ("MambaIRv2", {"upscale": 2, "size": "base"}, 22_900),
    # MambaIR (arXiv:2402.15648v2), the same two tables
    ("MambaIR", {"upscale": 2}, 905),
    ("MambaIR", {"upscale": 3}, 913),
    ("MambaIR", {"upscale": 4}, 924),
    ("MambaIR", {"upscale": 2, "size": "base"}, 20_420),
    ("MambaIR", {"upscale": 4, "size": "base"}, 20_570),
    # EFDN, the baseline of NTIRE2023_ESR to NTIRE2025_ESR, whose README says 0.276 M
    ("EFDN", {}, 276),
    # InstructIR (arXiv:2401.16468): "16M", of which the language head is no part
    ("InstructIR", {"language_head": False}, 15_840),
    # PromptIR (arXiv:2306.13090), and Restormer (arXiv:2111.09881), which it is without its prompts
    ("PromptIR", {}, 35_590),
    ("PromptIR", {"decoder": False, "extra_parameters": False}, 26_130),
    # no paper counts TextPromptIR's; this is what its computation reaches. PromptMamba's are in the README
    ("TextPromptIR", {}, 39_628),
    ("PromptMamba", {"size": "tiny"}, 1_380),
]


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


@pytest.mark.parametrize(("kind", "arguments", "thousands"), PUBLISHED, ids=lambda value: str(value))
def test_parameters_are_as_many_as_published(kind, arguments, thousands):
    with torch.device("meta"):
        net = ARCH_REGISTRY.get(kind)(**arguments)
    rounding = 5e-3 if thousands > 1000 else 1e-3  # of what is published
    assert sum(p.numel() for p in net.parameters()) / 1e3 == pytest.approx(thousands, rel=rounding)


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
        ({"type": "TextPromptIR", "text_dim": 0}, "text_dim must be a whole number from 1, not 0"),
    ],
)  # fmt: skip
def test_impossible_values_are_named(section, said):
    with pytest.raises(UserError) as error:
        build_network(dict(section))
    assert said in str(error.value)
