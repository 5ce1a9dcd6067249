"""PromptTwoPhaseModel step by step, with a network of a few hundred parameters."""

from __future__ import annotations

import copy
import logging
import math
import os
from collections import OrderedDict
from types import SimpleNamespace

import cv2
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.utils.data import DataLoader, Dataset

from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.models import checkpoint, prompt_two_phase_model
from prompt_mamba_arch.models.two_phase_options import check_options
from prompt_mamba_arch.models.validation import _means
from prompt_mamba_arch.text import Wish, wish_vectors

DIM = 384  # of the default text encoder


@ARCH_REGISTRY.register()
class StubPromptNet(nn.Module):
    """Has what the model looks for in a network: prompts, text parameters, config, and buffers."""

    def __init__(self, *, dim: int = 4, text_dim: int = DIM):
        super().__init__()
        self.config = {"dim": dim, "text_dim": text_dim}
        self.body = nn.Conv2d(3, dim, 3, padding=1)
        self.norm = nn.BatchNorm2d(dim)
        self.tail = nn.Conv2d(dim, 3, 3, padding=1)
        self.text_null = nn.Parameter(torch.full((text_dim,), 0.02))
        self.text_shift = nn.Linear(text_dim, dim)
        self.seen = None

    def text_parameters(self):
        return (name for name, _ in self.named_parameters() if name.startswith("text_"))

    def forward(self, x, prompt=None):
        self.seen = prompt
        if prompt is None:
            prompt = x.new_zeros(len(x), len(self.text_null))
        prompt = torch.where((prompt == 0).all(1, keepdim=True), self.text_null, prompt)
        shift = self.text_shift(prompt)[..., None, None]
        return x + self.tail(torch.relu(self.norm(self.body(x)) + shift))


@ARCH_REGISTRY.register()
class StubTextFeatureNet(StubPromptNet):
    """Makes text features first, as PromptMamba does."""

    def __init__(self):
        super().__init__(text_dim=8)
        self.config = {"text_dim": DIM, "text_width": 8}
        self.text_embed = nn.Linear(DIM, 8)

    def forward(self, x, prompt=None):
        return super().forward(x, None if prompt is None else self.text_embed(prompt))


@ARCH_REGISTRY.register()
class StubPlainNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.body(x)


def options(folder, phase: str = "finetune", **train) -> OrderedDict:
    train = {key: value for key, value in train.items() if value is not ...}
    train.setdefault("ema_decay", 0.5)
    return OrderedDict(
        name="stub",
        model_type="PromptTwoPhaseModel",
        scale=1,
        num_gpu=0,
        manual_seed=3,
        datasets=OrderedDict(train=OrderedDict(name="pairs", batch_size_per_gpu=4)),
        network_g=OrderedDict(type="StubPromptNet"),
        path=OrderedDict(
            pretrain_network_g=None,
            models=str(folder),
            training_states=str(folder),
            visualization=str(folder / "visualization"),
        ),
        train=OrderedDict(
            phase=phase,
            optim_g=OrderedDict(type="AdamW", lr=1e-2, weight_decay=0.0),
            scheduler=OrderedDict(type="MultiStepLR", milestones=[100], gamma=0.5),
            total_iter=10,
            pixel_opt=OrderedDict(type="L1Loss"),
            **train,
        ),
        val=OrderedDict(val_freq=5, save_img=False),
        dist=False,
        is_train=True,
        rank=0,
        world_size=1,
    )


def build(opt, seed: int = 0):
    torch.manual_seed(seed)
    return build_model(copy.deepcopy(opt))


def batch(size: int = 4, prompts=("remove the noise", "sharpen it"), seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "lq": torch.rand(size, 3, 12, 12, generator=generator),
        "gt": torch.rand(size, 3, 12, 12, generator=generator),
        "prompt": [prompts[i % len(prompts)] for i in range(size)],
        "lq_path": [f"{i}.png" for i in range(size)],
    }


def steps(model, count: int = 3, start: int = 1, **kwargs) -> list[float]:
    losses = []
    for iteration in range(start, start + count):
        model.update_learning_rate(iteration)
        model.feed_data(batch(seed=iteration, **kwargs))
        model.optimize_parameters(iteration)
        losses.append(model.get_current_log()["l_pix"])
    return losses


def weights(net) -> dict:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def changed(net, before: dict) -> set[str]:
    parameters = {name for name, _ in net.named_parameters()}
    return {name for name, value in net.state_dict().items() if name in parameters and not value.equal(before[name])}


# ------------------------------------------------------------------------------------------------------- phases


def test_pretrain_reads_no_text_and_leaves_the_text_parameters_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("prompt_mamba_arch.models.prompt_two_phase_model.TextEncoder", None)
    model = build(options(tmp_path, "pretrain"))
    before = weights(model.net_g)
    steps(model)
    assert model.net_g.seen is None
    # a bias before batch normalisation has a gradient of rounding errors only
    trained = {"body.weight", "norm.weight", "norm.bias", "tail.weight", "tail.bias"}
    assert changed(model.net_g, before) - {"body.bias"} == trained


def test_finetune_gives_each_image_its_prompt(tmp_path):
    model = build(options(tmp_path))
    before = weights(model.net_g)
    steps(model, 1)
    expected = model.text_encoder.encode(["remove the noise", "sharpen it"] * 2)
    assert torch.equal(model.net_g.seen, expected)
    assert {"text_shift.weight", "text_shift.bias", "tail.weight"} <= changed(model.net_g, before)
    assert "text_null" not in changed(model.net_g, before)  # no image was blind


def test_prompt_dropout_makes_samples_blind_in_its_share_and_again_the_same(tmp_path):
    model = build(options(tmp_path, prompt_dropout=0.25))
    blind = []
    for iteration in range(1, 101):
        model.feed_data(batch())
        blind.append((model._training_prompts(model._seed_iteration(iteration)) == 0).all(1))
    assert 0.18 < torch.stack(blind).float().mean() < 0.32
    model.feed_data(batch())
    assert torch.equal((model._training_prompts(model._seed_iteration(42)) == 0).all(1), blind[41])

    always = build(options(tmp_path, prompt_dropout=1.0))
    present = torch.ones(len(batch()["prompt"]), 9)
    remove = present.clone()
    remove[0, 3] = 0  # the first sample keeps something, so its target is not that of blind restoration
    always.feed_data({**batch(), "present": present, "remove": remove})
    blind = (always._training_prompts(always._seed_iteration(1)) == 0).all(1)
    assert blind.tolist() == [False, *[True] * (len(present) - 1)]
    before = weights(always.net_g)
    steps(always, 1)
    assert not always.net_g.seen.any()
    # every parameter has a gradient also in a batch without any prompt, which DDP insists on
    assert all(p.grad is not None for p in always.net_g.parameters())
    assert "text_null" in changed(always.net_g, before)


def test_text_gates_wake_once_alike_in_the_network_and_its_average(tmp_path):
    small = {"dim": 8, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "mixers": ["dense", "scan"]}

    def gates(net):
        return {name: value for name, value in net.state_dict().items() if name.endswith("text_gate.weight")}

    def opt(phase, start=None, **train):
        made = options(tmp_path, phase, **train)
        made["network_g"] = OrderedDict(type="PromptMamba", **small)
        made["path"]["pretrain_network_g"] = start
        return made

    first = build(opt("pretrain"))
    assert len(gates(first.net_g)) == 4 and not any(weight.any() for weight in gates(first.net_g).values())
    first.save(0, 1)
    asleep = str(tmp_path / "net_g_1.pth")
    model = build(opt("finetune", asleep, text_gate_std=0.5))
    awake = gates(model.net_g)
    assert all(0.3 < weight.std() < 0.7 for weight in awake.values())
    assert all(torch.equal(weight, awake[name]) for name, weight in gates(model.net_g_ema).items())
    again = build(opt("finetune", asleep, text_gate_std=0.5), seed=1)
    assert all(torch.equal(weight, awake[name]) for name, weight in gates(again.net_g).items())
    # what is awake already, as in a run that goes on, stays as it is
    model.save(0, 2)
    resumed = build(opt("finetune", str(tmp_path / "net_g_2.pth"), text_gate_std=2.0))
    assert all(torch.equal(weight, awake[name]) for name, weight in gates(resumed.net_g).items())
    with pytest.raises(UserError, match="StubPromptNet has no text gates"):
        build(options(tmp_path, text_gate_std=0.5))


@pytest.mark.parametrize(
    ("freeze", "moves"),
    [
        ("backbone", {"text_shift.weight", "text_shift.bias"}),
        (["^text_", r"body\.", "norm"], {"tail.weight", "tail.bias"}),
    ],
)
def test_freeze(tmp_path, freeze, moves):
    opt = options(tmp_path, freeze=freeze)
    build(options(tmp_path, "pretrain")).save(0, 1)
    opt["path"]["pretrain_network_g"] = str(tmp_path / "net_g_1.pth")
    model = build(opt)
    before = weights(model.net_g)
    steps(model)
    assert changed(model.net_g, before) == moves


def test_freeze_refuses_what_cannot_be_meant(tmp_path):
    for freeze, message in (
        (["nothing_like_it"], "no parameter matches 'nothing_like_it'"),
        ([""], "nothing is left to train"),
        ("backbon", "did you mean 'backbone'"),
        ("tail", r"write freeze: \['tail'\]"),
        (["("], "no regular expression"),
        ("backbone", "path.pretrain_network_g"),
    ):
        with pytest.raises(UserError, match=message):
            build(options(tmp_path, freeze=freeze))


def test_networks_without_prompts_train_in_phase_pretrain_only(tmp_path):
    opt = options(tmp_path, "pretrain")
    opt["network_g"] = OrderedDict(type="StubPlainNet")
    assert steps(build(opt), 1)
    opt["train"]["phase"] = "finetune"
    with pytest.raises(UserError, match="StubPlainNet takes no prompts"):
        build(opt)
    opt["network_g"] = OrderedDict(type="StubPromptNet", text_dim=7)
    with pytest.raises(UserError, match=r"text_dim is 7, but the text encoder .* gives 384"):
        build(opt)


def test_finetune_refuses_a_dataset_without_prompts(tmp_path):
    model = build(options(tmp_path))
    data = batch()
    del data["prompt"]
    model.feed_data(data)
    with pytest.raises(UserError, match="'pairs' gives no prompts"):
        model.optimize_parameters(1)


# ------------------------------------------------------------------------------------------------ optimisation


def without_norm(opt):
    """Batch normalisation sees a batch's parts differently; nothing else does."""
    model = build(opt)
    for net in (model.net_g, model.net_g_ema):
        net.norm.eval()
        net.norm.train = lambda mode=True: None
    return model


def test_accumulated_parts_of_a_batch_equal_the_batch(tmp_path):
    whole, parts = (without_norm(options(tmp_path, accumulate=n, grad_clip=0.1)) for n in (1, 3))  # 3 of 4: uneven
    assert steps(whole) == pytest.approx(steps(parts), rel=1e-5)
    for a, b in zip(whole.net_g.parameters(), parts.net_g.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_grad_clip_limits_the_norm_and_tells_it(tmp_path):
    opt = options(tmp_path, grad_clip=0.01)
    opt["train"]["optim_g"] = OrderedDict(type="SGD", lr=1.0)
    model = build(opt)
    before = weights(model.net_g)
    steps(model, 1)
    assert model.get_current_log()["grad_norm"] > 0.02
    moved = math.sqrt(sum((p - before[name]).square().sum().item() for name, p in model.net_g.named_parameters()))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_ema_follows_parameters_and_buffers(tmp_path):
    model = build(options(tmp_path, ema_decay=0.75))
    averaged = weights(model.net_g)
    for iteration in range(1, 4):
        steps(model, 1, start=iteration)
        now = weights(model.net_g)
        averaged = {
            name: 0.75 * averaged[name] + 0.25 * now[name] if now[name].is_floating_point() else now[name]
            for name in now
        }
    for name, value in model.net_g_ema.state_dict().items():
        torch.testing.assert_close(value, averaged[name], rtol=1e-5, atol=1e-6)
    assert model.net_g_ema.norm.num_batches_tracked == 3
    assert not any(p.requires_grad for p in model.net_g_ema.parameters())


@pytest.fixture
def able(monkeypatch):
    """A processor that multiplies bfloat16."""
    monkeypatch.setattr("prompt_mamba_arch.half_precision.half_type", lambda device: torch.bfloat16)


def test_bf16_trains_and_validation_stays_in_float32(tmp_path, able):
    model = build(options(tmp_path, amp="bf16"))
    seen = []
    model.net_g.body.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    model.net_g_ema.body.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    full = steps(build(options(tmp_path)), 3)
    assert steps(model, 3) == pytest.approx(full, rel=0.02)
    model.feed_data(batch())
    model.test()
    assert seen == [torch.bfloat16] * 3 + [torch.float32]
    assert all(p.dtype == torch.float32 for p in model.net_g.parameters()) and model.output.dtype == torch.float32


def test_bf16_is_float32_where_the_processor_has_no_instructions_for_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("prompt_mamba_arch.half_precision.half_type", lambda device: None)
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    assert steps(build(options(tmp_path, amp="bf16")), 3) == steps(build(options(tmp_path)), 3)
    assert "train.amp: bf16 is many times slower" in caplog.text


def test_fp16_on_the_cpu_is_refused(tmp_path):
    with pytest.raises(UserError, match="fp16 needs a GPU; on the CPU write amp: bf16"):
        build(options(tmp_path, amp="fp16"))


@pytest.mark.parametrize("kind", ["image", "gradient"])
def test_what_is_not_finite_stops_the_run_and_reaches_no_parameter(tmp_path, kind):
    model = build(options(tmp_path))
    steps(model, 2)
    before, data = weights(model.net_g), batch()
    if kind == "image":
        data["gt"][2, 0, 0, 0] = math.nan
        message = r"iteration 3: l_pix is not finite \(images 2\.png\)"
    else:
        model.net_g.tail.weight.register_hook(lambda gradient: gradient * math.inf)
        message = r"iteration 3: grad_norm is not finite \(images 0\.png, 1\.png"
    model.feed_data(data)
    with pytest.raises(UserError, match=message) as caught:
        model.optimize_parameters(3)
    assert "\n" not in str(caught.value)
    assert not changed(model.net_g, before)


def test_a_gradient_that_overflows_in_fp16_costs_one_step_only(tmp_path, able):
    """What GradScaler does on a GPU, with its version for the CPU and bf16 in place of fp16."""
    model = build(options(tmp_path, amp="bf16"))
    model.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights(model.net_g)
    hook = model.net_g.tail.weight.register_hook(lambda gradient: gradient * math.inf)
    steps(model, 1)
    assert not changed(model.net_g, before) and model.scaler.get_scale() == 512
    hook.remove()
    unscaled = build(options(tmp_path, amp="bf16"))
    assert steps(model, 3, start=2) == pytest.approx(steps(unscaled, 3, start=2), rel=1e-3)
    assert changed(model.net_g, before) and 0 < model.get_current_log()["grad_norm"] < 10
    model.save(0, 4)
    resumed = build(options(tmp_path, amp="bf16"))
    resumed.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    resumed.resume_training(torch.load(tmp_path / "4.state", weights_only=True))
    assert resumed.scaler.get_scale() == 512

    model.scaler.update(2.0**-21)
    model.net_g.tail.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(UserError, match="grad_norm at any scale of the loss is not finite"):
        steps(model, 1, start=5)


def test_frequency_loss_is_the_mean_over_real_and_imaginary_parts(tmp_path):
    model = build(options(tmp_path, frequency_opt=OrderedDict(type="FrequencyLoss", loss_weight=0.1)))
    steps(model, 1)
    assert set(model.get_current_log()) == {"l_pix", "l_freq", "grad_norm"}
    a, b = torch.rand(2, 3, 6, 7), torch.rand(2, 3, 6, 7)
    spectrum = torch.fft.rfft2(a) - torch.fft.rfft2(b)
    expected = 0.1 * torch.stack([spectrum.real, spectrum.imag]).abs().mean()
    torch.testing.assert_close(model.cri_frequency(a, b), expected)


@ARCH_REGISTRY.register()
class StubWishNet(StubPromptNet):
    def __init__(self, *, wishes: bool):
        super().__init__()
        self.config = {"text_dim": DIM, "wishes": wishes}


def with_wishes(folder, **train) -> OrderedDict:
    opt = options(folder, **train)
    opt["network_g"] = OrderedDict(type="StubWishNet", wishes=True)
    return opt


def test_a_network_with_wishes_is_told_what_should_go(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_two_phase_model, "_ABSENT_SHARE", 0.0)
    monkeypatch.setattr(prompt_two_phase_model, "_ANY_BLUR_SHARE", 0.0)
    model = build(with_wishes(tmp_path))
    data = intent_batch()
    data["prompt"][3] = ""  # blind
    model.feed_data(data)
    model.optimize_parameters(1)
    expected = wish_vectors([Wish({"noise"}), Wish({"rain"}), Wish({"defocus"}), Wish()], DIM)
    torch.testing.assert_close(model.net_g.seen, expected)


def test_wishes_for_what_is_not_there_are_mixed_in_but_never_for_what_should_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_two_phase_model, "_ABSENT_SHARE", 1.0)
    model = build(with_wishes(tmp_path))
    data = intent_batch()
    kinds = KINDS.index
    data["recipe"] = ["a recipe"] * 4  # so it is known what is there
    data["present"] *= 0
    data["present"][0, [kinds("noise"), kinds("haze")]] = 1  # the haze should stay
    data["present"][1, [kinds("rain"), kinds("lowlight")]] = 1  # the dark has a noise of its own
    model.feed_data(data)
    model.optimize_parameters(1)
    seen = [Wish(set(KINDS) - {"haze"}), Wish(set(KINDS) - {"lowlight", "noise"}), Wish(KINDS), Wish(KINDS)]
    torch.testing.assert_close(model.net_g.seen, wish_vectors(seen, DIM))


def test_a_blur_is_also_wished_away_as_any_blur(tmp_path, monkeypatch):
    monkeypatch.setattr(prompt_two_phase_model, "_ABSENT_SHARE", 0.0)
    monkeypatch.setattr(prompt_two_phase_model, "_ANY_BLUR_SHARE", 1.0)
    model = build(with_wishes(tmp_path))
    data = intent_batch()
    for role, rows in {
        "present": [{"defocus"}, {"defocus", "motion"}, {"motion", "noise"}, {"noise"}],
        "remove": [{"defocus"}, {"motion"}, {"motion"}, {"noise"}],  # the second one's focus blur should stay
    }.items():
        data[role] = torch.tensor([[float(kind in row) for kind in KINDS] for row in rows])
    model.feed_data(data)
    model.optimize_parameters(1)
    both = Wish({"defocus", "motion"})
    torch.testing.assert_close(model.net_g.seen, wish_vectors([both, Wish({"motion"}), both, Wish({"noise"})], DIM))


def test_where_the_data_does_not_say_what_should_go_the_sentence_is_read(tmp_path, photos, monkeypatch):
    """Pairs with a text for prompt, and others that say it, in one batch: "leave it as it is" would be a false wish."""
    monkeypatch.setattr(prompt_two_phase_model, "_ABSENT_SHARE", 0.0)
    for role in ("gt", "lq"):
        (tmp_path / role).mkdir()
        cv2.imwrite(str(tmp_path / role / "1.png"), photos["coffee"])
    general = {"phase": "train", "gt_size": 12}
    pairs = {**general, "type": "PromptPairedImageDataset", "dataroot_gt": str(tmp_path / "gt"), "scale": 1}
    pairs = {**pairs, "dataroot_lq": str(tmp_path / "lq")}
    clean = {**general, "type": "PromptDegradationDataset", "dataroot_gt": str(tmp_path / "gt"), "prompt_dropout": 0}
    parts = [
        {**pairs, "prompts": "remove the rain", "weight": 1},
        {**pairs, "prompts": {"task": "denoise"}, "weight": 1},
        {**clean, "kinds": ["none"], "requests": {"none": 1}, "weight": 1},
    ]
    mixed = build_dataset({"name": "mix", "type": "PromptMixDataset", "phase": "train", "scale": 1, "datasets": parts})
    model = build(with_wishes(tmp_path))
    model.feed_data(torch.utils.data.default_collate([mixed[i] for i in range(3)]))
    model.optimize_parameters(1)
    expected = {0: Wish({"rain"}), 1: Wish({"noise"}), 2: Wish(())}
    order = [mixed.locate(i)[0] for i in range(3)]
    torch.testing.assert_close(model.net_g.seen, wish_vectors([expected[i] for i in order], DIM))


def test_sentence_share_leaves_prompts_as_they_are_written(tmp_path):
    model = build(with_wishes(tmp_path, sentence_share=1.0))
    model.feed_data(batch())  # says nothing of kinds
    model.optimize_parameters(1)
    torch.testing.assert_close(model.net_g.seen, model.text_encoder.encode(batch()["prompt"]))
    model = build(with_wishes(tmp_path, sentence_share=0.5))
    sentences = 0
    for iteration in range(1, 26):
        model.feed_data(intent_batch())
        model.optimize_parameters(iteration)
        as_written = model.text_encoder.encode(intent_batch()["prompt"])
        sentences += torch.isclose(model.net_g.seen, as_written).all(1).sum().item()
    assert 30 < sentences < 70
    model.feed_data(batch())
    with pytest.raises(UserError, match="'pairs' does not say what its prompts ask to remove, which a network with"):
        model.optimize_parameters(26)
    with pytest.raises(UserError, match=r"write network_g\.wishes: true"):
        check_options({**options(tmp_path, sentence_share=0.5)}, True)


def test_validation_tells_such_a_network_what_the_sentences_were_read_to_ask_for(tmp_path):
    model = build(with_wishes(tmp_path))
    model.feed_data(batch(prompts=("remove the rain", "fix this photo", "what is the capital of France?", "")))
    model.test()
    seen = model.net_g_ema.seen
    torch.testing.assert_close(seen, wish_vectors([Wish({"rain"}), Wish(), Wish(()), Wish()], DIM))


def with_intent(folder, weight: float | None = 0.5, **train) -> OrderedDict:
    opt = options(folder, intent_opt={"loss_weight": weight} if weight else None, **train)
    opt["network_g"] = OrderedDict(type="StubTextFeatureNet")
    return opt


def intent_batch(seed: int = 0) -> dict:
    data = batch(seed=seed, prompts=("remove the noise", "take the rain out", "fix the focus", "hello"))
    remove, present = torch.zeros(4, 9), torch.ones(4, 9)
    remove[0, 0] = remove[1, 5] = remove[2, 1] = 1
    return {**data, "remove": remove, "present": present}


def intent_steps(model, count: int, start: int = 1) -> list[float]:
    losses = []
    for iteration in range(start, start + count):
        model.feed_data(intent_batch(iteration))
        model.optimize_parameters(iteration)
        losses.append(model.get_current_log()["l_intent"])
    return losses


def test_intent_loss_learns_what_prompts_ask_for_through_the_text_features(tmp_path):
    model = build(with_intent(tmp_path))
    losses = intent_steps(model, 60)
    assert losses[0] == pytest.approx(0.5 * math.log(2)) and losses[-1] < 0.15 * losses[0]
    with torch.no_grad():
        prompts = ["remove the noise", "take the rain out", "fix the focus", "hello"]
        told = model.intent_loss.tell(model.net_g.text_embed(model.text_encoder.encode(prompts)))
    assert torch.equal((told > 0).float(), intent_batch()["remove"])
    without = build(with_intent(tmp_path, None))
    without.feed_data(intent_batch())
    without.optimize_parameters(1)
    assert "l_intent" not in without.get_current_log()


def test_intent_loss_leaves_out_blind_samples_and_unknown_damage(tmp_path):
    model = build(with_intent(tmp_path))
    intent_steps(model, 5)
    data = intent_batch()
    model.feed_data({**data, "prompt": ["", "", *data["prompt"][2:]], "present": data["present"] * 0, "remove":
                     data["remove"] * torch.tensor([[1.0], [1.0], [1.0], [0.0]])})  # fmt: skip
    remove, known = model._wanted_kinds(model.text_encoder.encode(model.prompts))
    assert known.tolist() == [False, False, True, False] and torch.equal(remove, data["remove"])
    model.optimize_parameters(6)
    embed = model.get_bare_model(model.net_g).text_embed
    told = model.intent_loss.tell(embed(model.text_encoder.encode(model.prompts)))
    model.intent_loss.feed(remove, known)
    model.intent_loss._features = embed(model.text_encoder.encode(model.prompts))
    expected = 0.5 * nn.functional.binary_cross_entropy_with_logits(told[2], remove[2])
    torch.testing.assert_close(model.intent_loss(slice(0, 4)), expected)
    plain = batch()
    model.feed_data(plain)
    with pytest.raises(UserError, match="'pairs' does not say what its prompts ask to remove"):
        model.optimize_parameters(7)


def test_intent_loss_of_parts_is_that_of_the_batch(tmp_path):
    whole, parts = (without_norm(with_intent(tmp_path, accumulate=n)) for n in (1, 3))
    assert intent_steps(whole, 4) == pytest.approx(intent_steps(parts, 4), rel=1e-4)


def test_intent_layer_lives_in_the_training_state_only(tmp_path):
    model = build(with_intent(tmp_path))
    intent_steps(model, 3)
    model.save(0, 3)
    expected = intent_steps(model, 2, start=4)
    saved = torch.load(tmp_path / "net_g_3.pth", weights_only=True)
    assert set(saved["params"]) == set(model.net_g.state_dict()) and not any("tell" in name for name in saved["params"])
    opt = with_intent(tmp_path)
    opt["path"].update(pretrain_network_g=str(tmp_path / "net_g_3.pth"), resume_state=str(tmp_path / "3.state"))
    resumed = build(opt, seed=99)
    state = torch.load(tmp_path / "3.state", weights_only=True)
    resumed.resume_training(state)
    assert intent_steps(resumed, 2, start=4) == expected
    with pytest.raises(UserError, match=r"does not fit this option file .* train\.intent_opt"):
        build(with_intent(tmp_path, None)).resume_training(state)


def test_intent_loss_refuses_what_cannot_be_meant(tmp_path):
    for section, message in (
        ({"loss_wieght": 0.1}, "did you mean 'loss_weight'"),
        ({"loss_weight": 0}, r"train\.intent_opt\.loss_weight must be a number greater than 0"),
        (0.1, "lacks 'loss_weight'"),
        ({"loss_weight": 0.1}, "StubPromptNet has no text features"),
    ):
        with pytest.raises(UserError, match=message):
            build(options(tmp_path, intent_opt=section))
    with pytest.raises(UserError, match="intent_opt means nothing in phase pretrain"):
        build(options(tmp_path, "pretrain", intent_opt={"loss_weight": 0.1}))
    with pytest.raises(UserError, match=r"train\.freeze keeps as it is"):
        build(with_intent(tmp_path, freeze=["text_embed"]))


# ------------------------------------------------------------------------------------------- files and resuming


def test_checkpoint_holds_weights_constructor_arguments_and_phase(tmp_path):
    model = build(options(tmp_path))
    steps(model, 1)
    model.save(0, 1)
    model.save(-1, -1)
    assert {file.name for file in tmp_path.iterdir()} == {"net_g_1.pth", "net_g_latest.pth", "1.state"}
    saved = torch.load(tmp_path / "net_g_latest.pth", weights_only=True)
    assert set(saved) == {"params", "params_ema", "network_g", "phase"} and saved["phase"] == "finetune"
    assert saved["network_g"] == {"type": "StubPromptNet", "dim": 4, "text_dim": DIM}
    arguments = dict(saved["network_g"])
    net = ARCH_REGISTRY.get(arguments.pop("type"))(**arguments)
    net.load_state_dict(saved["params_ema"])
    for name, value in model.net_g_ema.state_dict().items():
        assert value.equal(saved["params_ema"][name])


def test_resumed_run_has_the_losses_it_would_have_had(tmp_path):
    opt = options(tmp_path, prompt_dropout=0.5, warmup_iter=5)
    model = build(opt)
    steps(model, 3)
    model.best_metric_results = {"set": {}}
    model.save(0, 3)
    expected = steps(model, 3, start=4)

    opt["path"].update(pretrain_network_g=str(tmp_path / "net_g_3.pth"), resume_state=str(tmp_path / "3.state"))
    leftover = tmp_path / ".net_g_4.77-0123abcd.pth"
    leftover.write_bytes(b"half")
    resumed = build(opt, seed=99)
    resumed.resume_training(torch.load(tmp_path / "3.state", weights_only=True))
    assert steps(resumed, 3, start=4) == expected
    for a, b in zip(model.net_g_ema.state_dict().values(), resumed.net_g_ema.state_dict().values()):
        assert a.equal(b)
    assert resumed.best_metric_results == {"set": {}}
    assert not leftover.exists()


def test_a_state_of_the_other_phase_or_of_another_set_up_is_refused(tmp_path):
    build(options(tmp_path, "pretrain")).save(0, 1)
    state = torch.load(tmp_path / "1.state", weights_only=True)
    model = build(options(tmp_path))
    with pytest.raises(UserError, match=r"belongs to phase pretrain, but train.phase is finetune; give this run"):
        model.resume_training(state)
    foreign = {key: value for key, value in state.items() if key != "phase"}
    with pytest.raises(UserError, match="not written by PromptTwoPhaseModel"):
        model.resume_training(foreign)
    with pytest.raises(UserError, match="does not fit this option file"):
        model.resume_training({**state, "phase": "finetune"})


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net_g_latest.pth"
    checkpoint.write({"params": torch.ones(3)}, path)
    before = path.read_bytes()

    def full_disk(content, file):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError):
        checkpoint.write({"params": torch.zeros(3)}, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_network_that_does_not_fit_is_explained(tmp_path):
    build(options(tmp_path, "pretrain", ema_decay=...)).save(0, 1)
    path = tmp_path / "net_g_1.pth"
    whole = torch.load(path, weights_only=True)
    opt = options(tmp_path, freeze="backbone")
    opt["path"]["pretrain_network_g"] = str(path)

    def refused(message: str, content=None, **network) -> None:
        if content is not None:
            torch.save(content, path)
        changed_opt = copy.deepcopy(opt)
        changed_opt["network_g"].update(network)
        with pytest.raises(UserError, match=message) as caught:
            build(changed_opt)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    refused(r"other arguments: dim 4 \(here 5\)", dim=5)
    # BasicSR's own file, of a network without text
    backbone = {key: value for key, value in whole["params"].items() if not key.startswith("text_")}
    refused(
        "none of the 3 text parameters text_null, text_shift.weight, text_shift.bias; .*strict_load_g: false",
        {"params": backbone},
    )
    opt["path"]["strict_load_g"] = False
    model = build(opt)
    assert model.net_g.body.weight.equal(whole["params"]["body.weight"])
    assert model.net_g_ema.body.weight.equal(whole["params"]["body.weight"])  # no params_ema: falls back to params
    opt["path"]["strict_load_g"] = True
    refused("has no 'params'", {"state_dict": backbone})
    refused("does not fit StubPromptNet", {"params": {"foreign": torch.ones(1)}})
    path.write_bytes(path.read_bytes()[:-200])
    refused("is truncated")


# --------------------------------------------------------------------------------------------------- validation


class Images(Dataset):
    """Six images; two of them have one name, in two folders."""

    def __init__(self, **extra):
        self.opt = {"name": "six"}
        self.extra = extra

    def __len__(self):
        return 6

    def __getitem__(self, index):
        sample = {name: value[0] for name, value in batch(1, seed=index).items()}
        sample["key"] = ["a/same", "b/same", "two", "three", "four", "five"][index]
        sample["lq_path"] = f"/data/{sample['key']}.png"
        sample.update(self.extra)
        return {name: value for name, value in sample.items() if value is not None}


PSNR = {"type": "calculate_psnr", "crop_border": 0}


def validated(opt, dataset=None, save_img: bool = False, model=None):
    model = model or build(opt)
    logged = []
    board = SimpleNamespace(add_scalar=lambda *entry: logged.append(entry))
    model.validation(DataLoader(dataset or Images()), 5, board, save_img)
    return model, logged


def test_validation_measures_saves_and_remembers_the_best(tmp_path):
    opt = options(tmp_path)
    opt["val"]["metrics"] = {"psnr": PSNR, "ssim": {"type": "calculate_ssim", "crop_border": 0}}
    model, logged = validated(opt, save_img=True)
    saved = {str(file.relative_to(tmp_path / "visualization")) for file in tmp_path.rglob("*.png")}
    names = ("two", "three", "four", "five")
    assert saved == {f"six/{name}/{name}_5.png" for name in names} | {f"six/{f}/same/same_5.png" for f in "ab"}
    assert [entry[0] for entry in logged] == ["metrics/six/psnr", "metrics/six/ssim"]
    assert model.best_metric_results["six"]["psnr"] == {"better": "higher", "val": logged[0][1], "iter": 5}
    assert model.net_g.training and not model.net_g_ema.training

    opt.update(is_train=False, train=None)
    opt["path"]["visualization"] = str(tmp_path / "results")
    opt["val"]["suffix"] = "blind"
    validated(opt, save_img=True)
    assert (tmp_path / "results/six/a/same_blind.png").is_file() and (tmp_path / "results/six/two_blind.png").is_file()


@pytest.mark.parametrize(
    ("phase", "prompt", "expected"),
    [
        ("finetune", ..., "remove the noise"),
        ("finetune", "from_dataset", "remove the noise"),
        ("finetune", "sharpen the eyes", "sharpen the eyes"),
        ("finetune", "none", None),
        ("pretrain", ..., None),
    ],
)
def test_validation_prompts(tmp_path, phase, prompt, expected):
    opt = options(tmp_path, phase)
    if prompt is not ...:
        opt["val"]["prompt"] = prompt
    model, _ = validated(opt)
    seen = model.net_g_ema.seen
    assert seen is None if expected is None else torch.equal(seen, model.text_encoder.encode([expected]))


def test_validation_without_truth_or_with_a_perfect_image(tmp_path):
    opt = options(tmp_path, "pretrain")
    validated(opt, Images(gt=None))
    opt["val"]["metrics"] = {"psnr": PSNR}
    with pytest.raises(UserError, match=r"metrics.psnr needs the true images, and the dataset 'six' has none"):
        validated(opt, Images(gt=None))

    class OnePerfect(Images):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "gt": sample["lq"]} if index == 2 else sample

    def psnr_of(dataset) -> float:
        model = build(opt)
        model.net_g_ema.forward = lambda x, prompt=None: x
        return validated(opt, dataset, model=model)[0].metric_results["psnr"]

    assert 5 < psnr_of(Images()) < 20  # noise against noise
    assert 20 < psnr_of(OnePerfect()) < 40  # an infinite one among six


def test_a_metric_that_is_not_finite_is_left_out_of_the_mean():
    scores = [(0, {"m": 1.0}), (1, {"m": math.nan}), (2, {"m": 2.0})]
    assert _means(scores, {"m": {}}, "six") == {"m": 1.5}
    assert math.isnan(_means(scores[1:2], {"m": {}}, "six")["m"])


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda o: o["train"].update(prompt_dropuot=0.1),
            "unknown key 'prompt_dropuot' in train; did you mean 'prompt_dropout'",
        ),
        (
            lambda o: o.update(textencoder={}),
            "unknown key 'textencoder' in the option file; did you mean 'text_encoder'",
        ),
        (lambda o: o["val"].update(promt="none"), "unknown key 'promt' in val; did you mean 'prompt'"),
        (lambda o: o["path"].update(pretrain_network=None), "unknown key 'pretrain_network' in path; did you mean"),
        (lambda o: o.update(logger={"print_frequency": 1}), "in logger; did you mean 'print_freq'"),
        (lambda o: o.update(text_encoder={"modle": "x"}), "in text_encoder; did you mean 'model'"),
        (lambda o: o["train"]["pixel_opt"].update(weight=1), "in train.pixel_opt .L1Loss.; did you mean 'loss_weight'"),
        (lambda o: o["val"].update(metrics={"p": {**PSNR, "crop_boarder": 1}}), "did you mean 'crop_border'"),
        (lambda o: o["train"].pop("phase"), "train lacks 'phase'; write phase: pretrain or phase: finetune"),
        (lambda o: o["train"].update(phase="fine_tune"), "'fine_tune' is unknown; did you mean 'finetune'"),
        (lambda o: o["train"].update(prompt_dropout=1.5), "prompt_dropout must be a number from 0 to 1, not 1.5"),
        (lambda o: o["train"].update(ema_decay=1), "ema_decay must be a number from 0 and less than 1, not 1"),
        (lambda o: o["train"].update(grad_clip=0), "grad_clip must be a number greater than 0, not 0"),
        (lambda o: o["train"].update(total_iter=math.inf), "total_iter must be a whole number from 0, not inf"),
        (lambda o: o["val"].update(self_ensemble=1), "val.self_ensemble must be true or false, not 1"),
        (lambda o: o["train"].update(accumulate=8), "a batch of 4 .* has no 8 parts"),
        (lambda o: o["train"].update(amp="half"), "'half' is not one of none, bf16, fp16"),
        (lambda o: o["train"].pop("pixel_opt"), "train has no loss"),
        (lambda o: o["train"]["optim_g"].pop("lr"), "optim_g lacks 'lr'"),
        (lambda o: o["train"]["optim_g"].update(lr=-1), "train.optim_g.lr must be a number from 0"),
        (lambda o: o["train"]["optim_g"].update(lr="3e-4x"), "train.optim_g.lr must be a number"),
        (lambda o: o["train"].update(phase="pretrain", prompt_dropout=0.1), "means nothing in phase pretrain"),
        (lambda o: o["train"].update(phase="pretrain", text_gate_std=0.1), "text_gate_std means nothing in phase"),
        (lambda o: (o["train"].update(phase="pretrain"), o["val"].update(prompt="from_dataset")), "knows no prompts"),
        (lambda o: o["val"].update(prompt=3), "val.prompt must be from_dataset, none or a text"),
    ],
)
def test_options_are_checked(tmp_path, change, message):
    opt = options(tmp_path)
    check_options(opt, True)
    change(opt)
    with pytest.raises(UserError, match=message):
        check_options(opt, True)
