"""The two-phase model trains the other networks that read sentences, too."""

from __future__ import annotations

import copy

import pytest
import torch
from basicsr.models import build_model
from small_networks import SMALL

NETS = ["InstructIR", "TextPromptIR"]


class Encoder:
    """Embeddings of ten numbers."""

    def __init__(self, *_, **__):
        self.dim, self.folder = 10, "small"

    def encode(self, prompts):
        rows = [torch.randn(10, generator=torch.Generator().manual_seed(len(text))) * bool(text) for text in prompts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
@pytest.mark.parametrize("name", NETS)
def test_two_phases(name, phase, tmp_path, monkeypatch):
    monkeypatch.setattr("prompt_mamba_arch.models.prompt_two_phase_model.TextEncoder", Encoder)
    opt = {
        **{"name": "net", "model_type": "PromptTwoPhaseModel", "scale": 1, "num_gpu": 0, "manual_seed": 3},
        **{"dist": False, "is_train": True, "rank": 0, "world_size": 1},
        "datasets": {"train": {"name": "pairs", "batch_size_per_gpu": 2}},
        "network_g": copy.deepcopy(SMALL[name]),
        "path": {"pretrain_network_g": None, "models": str(tmp_path), "training_states": str(tmp_path)},
        "train": {
            **{"phase": phase, "total_iter": 4, "ema_decay": 0.5, "pixel_opt": {"type": "L1Loss"}},
            "optim_g": {"type": "AdamW", "lr": 1e-2, "weight_decay": 0.0},
            "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
        },
        "val": {"val_freq": 5, "save_img": False},
    }
    torch.manual_seed(0)
    model = build_model(opt)
    before = copy.deepcopy(model.net_g.state_dict())
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 5):
        lq, gt = (torch.rand(2, 3, 12, 12, generator=generator) for _ in range(2))
        sample = {"lq": lq, "gt": gt, "lq_path": ["a", "b"], "prompt": ["less noise", "sharp"]}
        model.feed_data(sample)
        model.optimize_parameters(step)
    changed = {key for key, value in model.net_g.state_dict().items() if not torch.equal(value, before[key])}
    text = set(model.net_g.text_parameters())
    assert changed - text
    assert bool(changed & text) == (phase == "finetune")
    classes = [p.requires_grad for key, p in model.net_g.named_parameters() if key.startswith("lm_head.fc2")]
    assert not any(classes)
    model.save(0, 4)
    saved = torch.load(tmp_path / "net_g_4.pth", weights_only=True)
    assert saved["network_g"]["type"] == name and set(saved["params_ema"]) == set(before)
