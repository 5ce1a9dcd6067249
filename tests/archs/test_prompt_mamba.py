"""The network: shapes, the prompt's neutrality, gradients, arguments. Widths are small, the named sizes come last."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from prompt_mamba_arch.archs import blocks
from prompt_mamba_arch.archs import prompt_mamba_arch as prompt_mamba_arch_module
from prompt_mamba_arch.archs.blocks import Block, ScanMixer
from prompt_mamba_arch.archs.config import SIZES
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba, pad_to_multiple
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.ops import scan_order, sort_order

TEXT_DIM = 12
SMALL = {"dim": 8, "enc_blocks": [1], "middle_blocks": 3, "dec_blocks": [1], "mixers": ["conv", "scan+conv"]}
SMALL_PLAIN = {"dim": 8, "enc_blocks": [], "middle_blocks": 3, "dec_blocks": [], "mixers": ["scan+conv"]}
OPTIONS = {
    "defaults": {},
    "one direction": {"directions": 1},
    "four directions": {"directions": 4},
    "states": {"d_state": 3},
    "semantic order": {"semantic_scan": 4, "mixers": ["scan", "scan+conv"]},
    "tied": {"a_form": "tied"},
    "scalar": {"a_form": "scalar"},
    "expanded": {"expand": 2.0, "ffn_ratio": 3.0},
    "no local convolution": {"local_conv": False},
    "no gate": {"gate": False},
    "no norm of the scan": {"scan_norm": False},
    "no unshuffle": {"unshuffle": 1},
    "coarse tokens": {"unshuffle": 3},
    "scans alone": {"mixers": ["scan", "scan"]},
    "convolutions alone": {"mixers": ["conv", "conv"]},
    "dense convolutions": {"mixers": ["dense", "scan+dense"]},
    "three levels": {
        "enc_blocks": [1, 0],
        "middle_blocks": 1,
        "dec_blocks": [0, 2],
        "mixers": ["conv", "scan", "scan"],
    },
    "no text": {"text_scan": False, "text_gate": False, "text_attention": False},
    "text in the scan": {"text_gate": False, "text_attention": False},
    "text gates": {"text_scan": False, "text_attention": False},
    "text attention": {"text_scan": False, "text_gate": False, "text_tokens": 3},
    "text gates without a scan": {"mixers": ["conv", "conv"], "text_gate": False, "text_attention": False},
    "experts": {"num_experts": 3},
    "experts routed by the image": {"num_experts": 2, "text_route": False},
    "checkpointing": {"use_checkpoint": True},
    "gray": {"in_chans": 1, "out_chans": 1},
    "gray to colour": {"in_chans": 1},
    "more input": {"in_chans": 6},
}
WITH_TEXT = [n for n in OPTIONS if n not in ("no text", "text gates without a scan", "experts routed by the image")]


def build(upscale: int = 1, **options) -> PromptMamba:
    torch.manual_seed(0)
    small = SMALL if upscale == 1 else SMALL_PLAIN
    return PromptMamba(**{**small, "upscale": upscale, "text_dim": TEXT_DIM, "text_width": 8, **options})


def with_trained_text(net: PromptMamba) -> PromptMamba:
    """As if the text path had been trained: what starts at zero has values."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name in net.text_parameters():
            parameter = net.get_parameter(name)
            if not parameter.any():
                nn.init.normal_(parameter, std=0.5)
    return net


def images(batch: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


def prompts(batch: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(batch, TEXT_DIM, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(drawn, dim=1)


@pytest.mark.parametrize("name", OPTIONS)
def test_any_image_size(name):
    net = build(**OPTIONS[name]).eval()
    with torch.inference_mode():
        for height, width in [(1, 1), (1, 7), (5, 3), (17, 31), (64, 48)]:
            out = net(images(2, height, width, net.config["in_chans"]), prompts(2))
            assert out.shape == (2, net.config["out_chans"], height, width)
            assert out.isfinite().all()


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_super_resolution(upscale):
    net = build(upscale).eval()
    with torch.inference_mode():
        for height, width in [(1, 1), (2, 5), (17, 31)]:
            out = net(images(1, height, width))
            assert out.shape == (1, 3, height * upscale, width * upscale)
            assert out.isfinite().all()


def test_padding_mirrors_where_it_can():
    row = torch.arange(1.0, 6.0).view(1, 1, 1, 5)
    assert pad_to_multiple(row, 4).flatten().tolist() == [1, 2, 3, 4, 5, 4, 3, 2] * 4
    assert pad_to_multiple(row[..., :2], 4)[0, 0, 0].tolist() == [1, 2, 2, 2]  # nothing left to mirror
    assert pad_to_multiple(row, 1) is row


def test_a_u_can_also_enlarge():
    with torch.inference_mode():
        assert build(upscale=2, **SMALL, unshuffle=2).eval()(images(1, 9, 6)).shape == (1, 3, 18, 12)


@pytest.mark.parametrize("upscale", [1, 2])
def test_starts_near_the_input(upscale):
    x = images(1, 24, 24)
    base = x if upscale == 1 else nn.functional.interpolate(x, scale_factor=2, mode="bicubic")
    with torch.inference_mode():
        change = build(upscale).eval()(x) - base
    assert 0 < change.std() < 0.02


def test_extra_input_channels_are_read_but_not_added():
    net, x = build(in_chans=6).eval(), images(1, 16, 16, 6)
    nn.init.zeros_(net.outro.weight)
    with torch.inference_mode():
        assert torch.equal(net(x), x[:, :3])


@pytest.mark.parametrize("name", OPTIONS)
def test_untrained_text_changes_no_bit(name):
    net = build(**OPTIONS[name]).eval()
    x = images(2, 13, 18, net.config["in_chans"])
    with torch.inference_mode():
        blind = net(x)
        assert torch.equal(blind, net(x, prompts(2)))
        assert torch.equal(blind, net(x, 100 * prompts(2, seed=1)))


@pytest.mark.parametrize("name", WITH_TEXT)
def test_trained_text_changes_the_output_and_zeros_are_blind(name):
    net = with_trained_text(build(**OPTIONS[name])).eval()
    x, some, nothing = images(3, 12, 10, net.config["in_chans"]), prompts(3), torch.zeros(3, TEXT_DIM)
    with torch.inference_mode():
        blind, prompted = net(x), net(x, some)
        assert torch.equal(blind, net(x, nothing))
        assert torch.equal(blind, net(x, net.text_null.expand(3, -1)))
        assert (blind - prompted).abs().amax(dim=(1, 2, 3)).min() > 1e-6
        # a batch that mixes both is what its images are alone
        some[1] = 0
        mixed = net(x, some)
        for i in range(3):
            torch.testing.assert_close(mixed[i], (blind if i == 1 else prompted)[i], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(mixed[i : i + 1], net(x[i : i + 1], some[i : i + 1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blind", [True, False], ids=["blind", "prompted"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_parameter_has_a_gradient(name, blind):
    """In every batch, blind or not: distributed training waits for the gradient of each parameter."""
    net = with_trained_text(build(**OPTIONS[name])).train()
    x = images(2, 16, 16, net.config["in_chans"])
    net(x, None if blind else prompts(2)).square().mean().backward()
    missing = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    dead = [name for name, parameter in net.named_parameters() if not missing and not parameter.grad.any()]
    assert not missing
    assert dead == ([] if blind or not net.has_text else ["text_null"])  # which no image of the batch used


def test_untrained_text_learns_from_the_first_step():
    net = build(num_experts=2).train()
    net(images(2, 16, 16), prompts(2)).square().mean().backward()
    zeros = [n for n in net.text_parameters() if n.endswith("weight") and not net.get_parameter(n).any()]
    assert {name.split(".")[-2] for name in zeros} == {"text_scan", "text_gate", "text_route", "out_proj"}
    assert all(net.get_parameter(name).grad.any() for name in zeros)


@pytest.mark.parametrize("name", ["text in the scan", "text gates", "text attention"])
def test_each_place_of_the_text_can_learn_to_obey(name):
    """One sentence asks for a brighter image, the other for a darker one."""
    net = build(**OPTIONS[name]).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    x, prompt = images(2, 8, 8), prompts(2)
    wanted = x + torch.tensor([0.1, -0.1]).view(2, 1, 1, 1)
    for _ in range(60):
        # both images with both sentences, so that nothing but the sentence tells
        loss = sum((net(part, prompt) - part - wanted + x).abs().mean() for part in (x, x.flip(0)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1  # 0.2 for a network that does not listen


def test_text_parameters_are_those_of_the_text_path():
    net, plain = build(), build(**OPTIONS["no text"])
    text = set(net.text_parameters())
    assert text and not set(plain.text_parameters())
    assert set(net.state_dict()) - text == set(plain.state_dict())
    # without any of them, the network is the same
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if name not in text})
    x = images(1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(x), plain.eval()(x))


def test_checkpointing_changes_no_gradient():
    nets = [build(use_checkpoint=flag).train() for flag in (False, True)]
    for net in nets:
        net(images(2, 16, 16), prompts(2)).square().mean().backward()
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters()):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_images_of_a_batch_do_not_see_each_other():
    net, x = with_trained_text(build(num_experts=2)).eval(), images(2, 14, 9)
    with torch.inference_mode():
        torch.testing.assert_close(net(x)[:1], net(x[:1]), rtol=1e-4, atol=1e-5)


def test_every_pixel_sees_every_other_in_a_scan_network():
    """Also against the order of the scans: four directions come together."""
    net = build(mixers=["scan", "scan"], unshuffle=1).eval()
    x = images(1, 12, 12).requires_grad_()
    for row, column in [(0, 0), (11, 11), (5, 6)]:
        (seen,) = torch.autograd.grad(net(x)[0, 0, row, column], x)
        assert (seen.abs().sum(dim=1) > 0).all()


def test_repeatable_in_eval():
    net, x = with_trained_text(build()).eval(), images(1, 20, 20)
    with torch.inference_mode():
        first = net(x, prompts(1))
        net(images(2, 7, 7))
        assert torch.equal(first, net(x, prompts(1)))


def test_semantic_order_sorts_pixels_by_their_features_once_for_a_level(monkeypatch):
    calls = []

    def counted(x, count):
        category = blocks.semantic_categories(x, count)
        calls.append(category)
        return category

    monkeypatch.setattr(prompt_mamba_arch_module, "semantic_categories", counted)
    plain, sorted_ = (build(semantic_scan=n, mixers=["scan", "conv+scan"]).eval() for n in (0, 4))
    sorted_.load_state_dict(plain.state_dict(), strict=True)  # there is nothing to learn for it
    x = images(2, 12, 8)
    with torch.inference_mode():
        different = (plain(x) - sorted_(x)).abs().max()
    assert different > 1e-6
    assert [tuple(category.shape) for category in calls] == [(2, 24), (2, 6), (2, 24)]  # encoder, middle, decoder
    assert all(0 <= category.min() and category.max() < 4 and len(category.unique()) > 1 for category in calls)


def test_semantic_order_against_sorting_by_hand():
    category = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1]])
    order = sort_order(scan_order(2, 3, ("rows", "columns_reversed")), category)
    assert order.dtype == torch.int32
    # columns, reversed, are 5 2 4 1 3 0
    assert order.tolist() == [[[1, 3, 4, 0, 2, 5], [4, 1, 3, 5, 2, 0]], [[0, 1, 2, 3, 4, 5], [2, 1, 0, 5, 4, 3]]]


def test_scans_take_turns_over_the_directions():
    def ways(directions):
        net = build(mixers=["scan", "scan"], directions=directions)
        return [m.ways for m in net.modules() if isinstance(m, ScanMixer)]

    rows, columns = ("rows", "rows_reversed"), ("columns", "columns_reversed")
    assert ways(4) == [rows + columns] * 5
    # encoder, middle, decoder: registered in the order in which features pass
    assert ways(2) == [rows, columns, rows, columns, rows]
    assert {way for (way,) in ways(1)} == {*rows, *columns}


def test_mamba_start():
    net = build(mixers=["scan", "scan"])
    for scan in (m for m in net.modules() if isinstance(m, ScanMixer)):
        delta = nn.functional.softplus(scan.dt_bias)
        assert delta.min() > 0.99e-3 and delta.max() < 1.01e-1
        torch.testing.assert_close(scan.A_log.exp(), torch.arange(1.0, 9.0).expand(*delta.shape, 8))


def test_tied_rates_start_as_the_general_ones():
    x, outs = images(1, 16, 16), []
    for a_form in ("general", "tied"):
        net = build(mixers=["scan", "scan"], a_form=a_form).eval()
        with torch.inference_mode():
            outs.append(net(x))
    torch.testing.assert_close(*outs)


def test_trains_after_validation_of_the_same_size():
    """What validation leaves in caches must not be tensors of inference mode."""
    net, x = build(), images(1, 26, 38)
    with torch.inference_mode():
        net(x)
    net(x).mean().backward()


def test_float64_agrees_with_float32():
    net, x = with_trained_text(build(num_experts=2)).eval(), images(2, 19, 14)
    with torch.inference_mode():
        single = net(x, prompts(2))
        double = net.double()(x.double(), prompts(2).double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv", "scan"])
def test_blocks_copy_no_features(kind, monkeypatch):
    """Features stay as they lie: neither we nor an operator that wants another layout transposes them."""
    monkeypatch.setattr(blocks, "selective_scan_2d", lambda u, *_, **__: u)  # how it reads them is its own affair
    net = build(mixers=[kind, kind])
    block, x, text = net.encoder[0][0], torch.randn(2, 64, 32, 8), torch.randn(2, 8)
    with torch.inference_mode(), torch.profiler.profile(record_shapes=True) as profile:
        block(x, text)
    moved = [event for event in profile.events() if event.name in ("aten::copy_", "aten::cat", "aten::clone")]
    assert any(event.name == "aten::mul" for event in profile.events())
    assert not [event.input_shapes for event in moved if math.prod(event.input_shapes[0]) >= x.numel()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    net, x = with_trained_text(build(num_experts=2)), images(2, 19, 14)
    reference = net.eval()(x, prompts(2)).detach()
    with torch.autocast("cpu", dtype):
        mixed = net.train()(x, prompts(2))
    mixed.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    torch.testing.assert_close(mixed.float(), reference, rtol=0, atol=0.03)
    with torch.inference_mode():
        half = net.eval().to(dtype)(x.to(dtype), prompts(2).to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), reference, rtol=0, atol=0.03)


def test_config_rebuilds_the_network():
    net = build(num_experts=2, a_form="tied", enc_blocks=(1,))
    config = json.loads(json.dumps(net.config))
    assert config == net.config and "size" not in config
    again = PromptMamba(**config)
    again.load_state_dict(net.state_dict())
    assert again.config == net.config
    x = images(1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(net.eval()(x), again.eval()(x))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_and_exported_networks_agree():
    net = with_trained_text(build(num_experts=2)).eval()
    x, prompt = images(1, 22, 46), prompts(1)  # a size that no other test has brought into the caches
    with torch.no_grad():
        exported = torch.export.export(net, (x, prompt)).module()
        expected = net(x, prompt)
        torch.testing.assert_close(exported(x, prompt), expected)
        torch.testing.assert_close(torch.jit.trace(net, (x, prompt), check_trace=False)(x, prompt), expected)


def test_trains_within_basicsrs_own_model(tmp_path):
    """SRModel calls net(lq), and knows nothing of prompts."""
    from basicsr.models import build_model

    opt = {
        "model_type": "SRModel",
        "num_gpu": 0,
        "dist": False,
        "is_train": True,
        "scale": 1,
        "rank": 0,
        "path": {"pretrain_network_g": None, "experiments_root": str(tmp_path), "models": str(tmp_path)},
        "network_g": {"type": "PromptMamba", **SMALL, "text_dim": TEXT_DIM},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 2e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [1000], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
    }
    torch.manual_seed(0)
    model = build_model(opt)
    gt = nn.functional.interpolate(images(2, 4, 4), scale_factor=8, mode="bilinear")
    lq = (gt + 0.1 * torch.randn(gt.shape)).clamp(0, 1)
    losses = []
    for step in range(40):
        model.feed_data({"lq": lq, "gt": gt})
        model.optimize_parameters(step + 1)
        losses.append(model.get_current_log()["l_pix"])
    assert losses[-1] < 0.85 * losses[0]
    model.test()
    assert model.output.shape == gt.shape


class TestArguments:
    def test_sizes_fill_in_what_is_not_given(self):
        with torch.device("meta"):
            net = PromptMamba.from_size("small", middle_blocks=1, text_dim=16)
        assert net.config["middle_blocks"] == 1 and net.config["dim"] == SIZES["small"][0]["dim"]

    def test_no_size_is_tiny(self):
        with torch.device("meta"):
            assert PromptMamba().config == PromptMamba(size="tiny").config

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"size": "smal"}, "unknown size 'smal': the sizes are tiny, small, base, large; did you mean 'small'?"),
            ({"upscale": 5}, "upscale must be 1, 2, 3 or 4"),
            ({"directions": 3}, "directions must be 1, 2 or 4"),
            ({"dim": 0}, "dim must be a whole number from 1, not 0"),
            ({"dim": "32"}, "dim must be a whole number from 1, not '32'"),
            ({"d_state": True}, "d_state must be"),
            ({"gate": 1}, "gate must be true or false"),
            ({"a_form": "free"}, "a_form must be general, tied or scalar"),
            ({"in_chans": 2}, "in_chans must be 1 or at least out_chans (3)"),
            ({"enc_blocks": 2}, "enc_blocks must be a list"),
            ({"dec_blocks": [1, 2]}, "dec_blocks must be a list of 1 whole numbers"),
            ({"mixers": ["conv", "attention"]}, "mixers must be a list of 2 levels"),
            ({"mixers": ["conv"]}, "mixers must be a list of 2 levels"),
            ({"expand": 0.1}, "expand must be"),
        ],
    )
    def test_impossible_values_are_named(self, options, said):
        with pytest.raises(UserError) as error:
            build(**options)
        assert said in str(error.value)

    def test_unknown_arguments_are_refused(self):
        with pytest.raises(TypeError, match="dims"):
            PromptMamba(dims=8)

    def test_wrong_shapes_are_named(self):
        net = build()
        with pytest.raises(UserError, match=r"images \(batch, 3, height, width\), not \(1, 1, 8, 8\)"):
            net(images(1, 8, 8, 1))
        with pytest.raises(UserError, match=r"shape \(1, 12\), not \(1, 384\)"):
            net(images(1, 8, 8), torch.zeros(1, 384))
        with pytest.raises(UserError, match=r"one prompt an image"):
            net(images(2, 8, 8), prompts(1))


@pytest.mark.parametrize("upscale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_named_size(size, upscale):
    least, most = {"tiny": (0.3, 1.5), "small": (3, 5), "base": (9, 13), "large": (22, 28)}[size]
    with torch.device("meta"):
        net = PromptMamba(size=size, upscale=upscale)
    assert least <= sum(parameter.numel() for parameter in net.parameters()) / 1e6 <= most
    assert all(isinstance(block, Block) for block in net.middle)


@pytest.mark.parametrize("upscale", [1, 2, 3, 4])
def test_tiny_runs(upscale):
    net, x = PromptMamba(size="tiny", upscale=upscale).eval(), images(1, 20, 12)
    with torch.inference_mode():
        out = net(x, torch.ones(1, 384))
    assert out.shape == (1, 3, 20 * upscale, 12 * upscale)
    assert out.isfinite().all()


@pytest.mark.parametrize("size", ["base", "large"])
def test_deep_networks_start_sane(size):
    """Features neither die out nor explode on the way through the untrained network."""
    torch.manual_seed(0)
    net, stds = PromptMamba(size=size).eval(), []
    for module in net.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _module, _inputs, features: stds.append(features.std().item()))
    with torch.inference_mode():
        net(images(1, 32, 32))
    assert 0.1 < min(stds) and max(stds) < 3
