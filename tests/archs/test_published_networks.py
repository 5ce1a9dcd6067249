"""Networks from papers compute what the papers say: beside spandrel's Restormer and NAFNet, and step by step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from prompt_mamba_arch.archs.efdn_arch import EFDN, SpatialAttention
from prompt_mamba_arch.archs.instructir_arch import InstructIR, LanguageHead
from prompt_mamba_arch.archs.mambair_arch import FourWayScan
from prompt_mamba_arch.archs.mambairv2_arch import MambaIRv2, SemanticScan
from prompt_mamba_arch.archs.promptir_arch import PromptIR
from prompt_mamba_arch.archs.residual_groups import mirror_to_multiple
from prompt_mamba_arch.archs.textpromptir_arch import TextPromptIR
from prompt_mamba_arch.archs.windows import WindowAttention, relative_positions
from prompt_mamba_arch.complexity import count

RESTORMER = {"dim": 8, "num_blocks": [1, 2, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@torch.no_grad()
def randomise(net: torch.nn.Module) -> torch.nn.Module:
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def test_promptir_without_prompts_is_restormer():
    extra = pytest.importorskip("spandrel_extra_arches.architectures.Restormer", reason="needs spandrel-extra-arches")
    theirs = randomise(extra.Restormer(**RESTORMER, LayerNorm_type="WithBias")).eval()
    ours = PromptIR(**RESTORMER, decoder=False).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(2, 3, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_instructir_that_adds_nothing_is_nafnet():
    spandrel = pytest.importorskip("spandrel.architectures.NAFNet", reason="needs spandrel")
    options = {"img_channel": 3, "width": 8, "enc_blk_nums": [1, 2], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}
    theirs = randomise(spandrel.NAFNet(**options)).eval()
    ours = InstructIR(**options).eval()  # its instruction blocks start at zero
    extra = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not extra.unexpected_keys
    assert all(name.startswith(("enc_cond.", "dec_cond.", "lm_head.")) for name in extra.missing_keys)
    x = torch.rand(2, 3, 13, 10)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_instruction_gates_and_its_head_joins_in():
    image = InstructIR(width=4, enc_blk_nums=[1], middle_blk_num=0, dec_blk_nums=[1], language_head=False)
    head = LanguageHead()
    whole = InstructIR(width=4, enc_blk_nums=[1], middle_blk_num=0, dec_blk_nums=[1])
    randomise(image), randomise(head)
    whole.load_state_dict(InstructIR.join(image.state_dict(), head.state_dict()), strict=True)
    x, sentence = torch.rand(2, 3, 6, 6), F.normalize(torch.randn(2, 384), dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(whole(x, sentence), image(x, head(sentence)))
        assert head.classify(sentence).shape == (2, 7)
        torch.testing.assert_close(head(sentence).norm(dim=1), torch.ones(2))


def test_four_way_scan_against_a_loop():
    scan = randomise(FourWayScan(6, d_state=3, ratio=2.0)).double()
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    with torch.no_grad():
        u, gate = scan.in_proj(x).chunk(2, -1)
        u = F.silu(scan.conv2d(u.permute(0, 3, 1, 2)))[0]  # (D, H, W)
        rows, columns = u.flatten(1), u.transpose(1, 2).flatten(1)
        ways, total = [rows, columns, rows.flip(1), columns.flip(1)], torch.zeros_like(u)
        A, D = -scan.A_logs.exp().view(4, -1, 3), scan.Ds.view(4, -1)
        for k, sequence in enumerate(ways):
            low, B, C = (scan.x_proj_weight[k] @ sequence).split([1, 3, 3])
            delta = F.softplus(scan.dt_projs_weight[k] @ low + scan.dt_projs_bias[k][:, None])
            h, steps = torch.zeros(12, 3, dtype=torch.float64), []
            for t in range(20):
                h = torch.exp(delta[:, t, None] * A[k]) * h + delta[:, t, None] * sequence[:, t, None] * B[:, t]
                steps.append(h @ C[:, t] + D[k] * sequence[:, t])
            y = torch.stack(steps, 1)
            y = y.flip(1) if k >= 2 else y
            total += y.view(12, 5, 4).transpose(1, 2) if k % 2 else y.view(12, 4, 5)
        expected = scan.out_proj(scan.out_norm(total.permute(1, 2, 0)) * F.silu(gate[0]))
        torch.testing.assert_close(scan(x)[0], expected)


def semantic_scan() -> SemanticScan:
    scan = SemanticScan(6, d_state=3, inner_rank=2, num_tokens=4, ratio=1.0)
    return randomise(scan).double()


def test_semantic_scan_against_a_loop():
    scan, x = semantic_scan().eval(), 3 * torch.randn(1, 3, 4, 6, dtype=torch.float64)
    shared = torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        category = scan.route(x).argmax(-1).flatten()
        assert len(category.unique()) > 1
        prompt = (scan.embeddingB.weight @ shared)[category]  # (L, N)
        order = sorted(range(12), key=lambda pixel: (category[pixel].item(), pixel))
        u = scan.in_proj(x.permute(0, 3, 1, 2))
        u = (u * torch.sigmoid(scan.CPE(u))).flatten(2)[0, :, order]  # (D, L)
        p = scan.selectiveScan
        low, B, C = (p["x_proj_weight"][0] @ u).split([1, 3, 3])
        C = C + prompt.t()
        delta = F.softplus(p["dt_projs_weight"][0] @ low + p["dt_projs_bias"][0][:, None])
        h, y = torch.zeros(6, 3, dtype=torch.float64), torch.empty(12, 6, dtype=torch.float64)
        for t, pixel in enumerate(order):
            h = torch.exp(-delta[:, t, None] * p["A_logs"].exp()) * h + delta[:, t, None] * u[:, t, None] * B[:, t]
            y[pixel] = h @ C[:, t] + p["Ds"] * u[:, t]
        expected = scan.out_proj(scan.out_norm(y)).view(3, 4, 6)
        torch.testing.assert_close(scan(x, shared)[0], expected)


def test_categories_are_drawn_in_training_and_likeliest_in_evaluation():
    scan, x, shared = semantic_scan(), torch.randn(1, 6, 6, 6, dtype=torch.float64), torch.eye(2, 3).double()
    with torch.no_grad():
        drawn = [scan.train()(x, shared) for _ in range(2)]
        assert not torch.equal(*drawn)
        assert torch.equal(scan.eval()(x, shared), scan(x, shared))
    scan.train()(x, shared).sum().backward()
    assert scan.route[0].weight.grad.any()  # straight through the draw


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12), (4, 4)])
def test_shifted_windows_against_a_mask_of_the_whole_image(height, width):
    """Each pixel sees those of its shifted window that are its neighbours in the image, and no other."""
    w, heads, dim = 4, 2, 8
    attention = randomise(
        WindowAttention(dim, heads=heads, window=w, shift=2, positions=relative_positions(w))
    ).double()
    qkv = torch.randn(1, height, width, 3 * dim, dtype=torch.float64)
    with torch.no_grad():
        q, k, v = qkv.view(-1, 3, heads, dim // heads).permute(1, 2, 0, 3)
        place = torch.cartesian_prod(torch.arange(height), torch.arange(width))
        window = (place + 2) // w  # without wrapping around
        visible = (window[:, None] == window).all(-1)
        distance = place[:, None] - place + w - 1
        index = (distance[..., 0] * (2 * w - 1) + distance[..., 1]).clamp(0, (2 * w - 1) ** 2 - 1)
        bias = attention.relative_position_bias_table[index].permute(2, 0, 1)
        scores = q @ k.transpose(1, 2) * (dim // heads) ** -0.5 + bias
        y = scores.masked_fill(~visible, float("-inf")).softmax(-1) @ v
        expected = attention.proj(y.transpose(0, 1).reshape(height, width, dim))
        torch.testing.assert_close(attention(qkv)[0], expected)


def test_mirroring_repeats_the_border_as_often_as_it_takes():
    row = torch.arange(1.0, 4.0).view(1, 1, 1, 3)
    assert mirror_to_multiple(row, 8)[0, 0, 0].tolist() == [1, 2, 3, 3, 2, 1, 1, 2]
    assert mirror_to_multiple(row, 8).shape == (1, 1, 8, 8)
    assert mirror_to_multiple(row, 1) is row


def test_mambairv2_has_the_keys_and_shapes_of_the_released_light_network():
    with torch.device("meta"):
        state = MambaIRv2(upscale=4).state_dict()
    assert len(state) == 1019
    layer = "layers.3.residual_group.layers.4"
    shapes = {
        "relative_position_index_SA": (256, 256),
        "patch_embed.norm.weight": (48,),
        f"{layer}.wqkv.weight": (144, 48),
        f"{layer}.win_mhsa.relative_position_bias_table": (961, 4),
        f"{layer}.assm.selectiveScan.x_proj_weight": (1, 19, 48),
        f"{layer}.assm.selectiveScan.A_logs": (48, 8),
        f"{layer}.assm.in_proj.0.weight": (48, 48, 1, 1),
        f"{layer}.assm.CPE.0.weight": (48, 1, 3, 3),
        f"{layer}.assm.embeddingB.weight": (64, 32),
        f"{layer}.assm.route.2.weight": (64, 16),
        f"{layer}.convffn2.sg.conv.weight": (24, 1, 5, 5),
        f"{layer}.embeddingA.weight": (32, 8),
        "layers.3.conv.weight": (48, 48, 3, 3),
        "upsample.0.weight": (48, 48, 3, 3),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_efdn_has_the_keys_and_shapes_of_the_challenges_file():
    """As models/team00_EFDN.py of NTIRE2025_ESR loads model_zoo/team00_EFDN.pth, strictly."""
    layers = {"head": (48, 3, 3, 3), "tail.0": (48, 48, 3, 3)}
    layers.update({f"local_fuse.{n}": (48, 96, 1, 1) for n in range(3)})
    for cell in (f"cells.{n}" for n in range(4)):
        layers[f"{cell}.conv1.conv1x1"] = (48, 48, 1, 1)
        layers.update({f"{cell}.conv{n}.rep_conv": (48, 48, 3, 3) for n in (2, 3)})
        layers.update({f"{cell}.conv{n}.act": (48,) for n in (1, 2, 3)})
        layers.update({f"{cell}.branch.{n}": (24, 48, 1, 1) for n in range(4)})
        layers.update({f"{cell}.fuse": (48, 96, 1, 1), f"{cell}.att.conv1": (12, 48, 1, 1)})
        layers.update({f"{cell}.att.{name}": (12, 12, 3, 3) for name in ("conv_max", "conv2", "conv3", "conv3_")})
        layers.update({f"{cell}.att.conv_f": (12, 12, 1, 1), f"{cell}.att.conv4": (48, 12, 1, 1)})
    expected = {f"{name}.weight": shape for name, shape in layers.items()}
    expected.update({f"{name}.bias": shape[:1] for name, shape in layers.items() if len(shape) == 4})
    with torch.device("meta"):
        found = {name: tuple(value.shape) for name, value in EFDN().state_dict().items()}
    assert found == expected


def test_efdn_costs_what_the_organisers_say():
    """0.276 M parameters and 16.70 G at 256 x 256 pixels, as fvcore counts: bilinear enlarging is four a number."""
    side = (256 - 3) // 2 + 1
    coarse = (side - 7) // 3 + 1
    with torch.device("meta"):
        found = count(EFDN(), 256, 256)
    enlarging = 4 * (4 * 12 * 256 * 256)
    assert found.parameters == 276_192 and found.scans == 0
    assert found.products == 256 * 256 * 253_008 + 4 * 12 * 12 * 9 * (side**2 + 3 * coarse**2)
    assert (found.products + enlarging) / 1e9 == pytest.approx(16.70, abs=5e-3)


def test_efdn_mixes_neighbouring_steps():
    """By hand: the blocks add 1, 10, 100 and 1000 to a constant image, each mixture is a - 2 b of what it is given."""
    net = EFDN(n_feats=4, upscale=1, in_chans=4)
    identity = torch.eye(4)[..., None, None]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for layer in (net.head, net.tail[0]):
            layer.weight[..., 1:2, 1:2] = identity
        for fuse in net.local_fuse:
            fuse.weight.copy_(torch.cat([identity, -2 * identity], dim=1))
        for number, cell in enumerate(net.cells):
            cell.fuse.bias.fill_(2 * 10.0**number)  # of which the attention, with weights of zero, leaves half
        y = net(torch.full((1, 4, 3, 20), 5.0))
    two = (5 + 1) + 10
    three = (6 - 2 * two) + 100
    four = (two - 2 * three) + 1000
    assert y.shape == (1, 4, 3, 20) and (y == two - 2 * four + 5).all()


def test_efdns_attention_sees_far_and_coarsely():
    torch.manual_seed(0)
    attention = randomise(SpatialAttention(16))
    x = torch.randn(1, 16, 33, 40)
    few = F.conv2d(x, attention.conv1.weight, attention.conv1.bias)
    halved = F.conv2d(few, attention.conv2.weight, attention.conv2.bias, stride=2)
    pooled = halved.unfold(2, 7, 3).unfold(3, 7, 3).amax((-2, -1))
    assert pooled.shape == (1, 4, 4, 5)
    for conv, rectified in ((attention.conv_max, True), (attention.conv3, True), (attention.conv3_, False)):
        pooled = conv(pooled).clamp(min=0) if rectified else conv(pooled)
    wide = F.interpolate(pooled, (33, 40), mode="bilinear")
    weights = torch.sigmoid(attention.conv4(wide + attention.conv_f(few)))
    torch.testing.assert_close(attention(x), x * weights)


def test_textpromptir_passes_over_what_the_release_never_uses():
    net = TextPromptIR(**RESTORMER)
    state = net.state_dict()
    for name in ("prompt1_1.prompt_param", "noise_level2_2.attn.temperature", "chnl_reduce3.weight",
                 "encoder_level1.0.ffn.linear3_1.weight", "noise_level3.norm1.body.weight"):  # fmt: skip
        state[name] = torch.zeros(1)
    net.load_state_dict(state, strict=True)
    state["encoder_level1.0.ffn.linear4.extra"] = state["another"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="another"):
        net.load_state_dict(state, strict=True)
