"""The file that is shipped: the run's averaged weights, in half precision, with the record of their training."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import cv2
import pytest
import torch
from safetensors import safe_open

from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.restore import Restorer

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "ship_weights.py"
LOG = """2026-01-01 10:00:00,000 INFO: [star..][epoch:  0, iter:     100, lr:(2.000e-03,)] l_pix: -3.7e-01
2026-01-01 10:06:00,000 INFO: [star..][epoch:  0, iter:   1,000, lr:(2.000e-03,)] l_pix: -3.7e-01
2026-01-01 10:06:10,000 INFO: Validation val
\t # psnr: 24.5000

2026-01-01 10:06:11,000 INFO: Validation val_2
\t # psnr: 20.0000

2026-01-01 18:00:00,000 INFO: [star..][epoch:  0, iter:   1,100, lr:(2.000e-03,)] l_pix: -3.7e-01
2026-01-01 18:06:00,000 INFO: [star..][epoch:  0, iter:   2,000, lr:(2.000e-03,)] l_pix: -3.7e-01
"""


@pytest.fixture
def arguments(tmp_path, photos):
    torch.manual_seed(0)
    net = PromptMamba(size="tiny", dim=8, enc_blocks=[1, 1], middle_blocks=1, dec_blocks=[1, 1])
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    (run / "train_run_20260101_100000.log").write_text(LOG, encoding="utf-8")
    state = net.state_dict()
    saved = {"params": {}, "params_ema": state, "network_g": {"type": "PromptMamba", **net.config}, "phase": "finetune"}
    torch.save(saved, run / "models" / "net_g_latest.pth")
    cv2.imwrite(str(tmp_path / "photo.png"), photos["chelsea"][:64, :64])
    return [str(run), "--data", "cats, CC0", "--check", str(tmp_path), "-o", str(tmp_path / "out" / "net.safetensors")]


def ship(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["ship_weights.py", *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_file_restores_and_tells_its_training(tmp_path, arguments, monkeypatch, photos, capsys):
    ship(monkeypatch, arguments)
    file = tmp_path / "out" / "net.safetensors"
    with safe_open(file, framework="pt") as opened:
        training = json.loads(opened.metadata()["training"])
        assert all(opened.get_tensor(key).dtype is torch.float16 for key in opened.keys())
    assert training["data"] == "cats, CC0"
    (phase,) = training["phases"]
    # eight hours without a line are no training; one curve, that of the first validation set
    assert phase == {"name": "run", "iterations": 2000, "hours": 0.2, "validation": [[0.1, 1000, 24.5]]}
    shipped, full = (Restorer.from_pretrained(path) for path in (file, Path(arguments[0], "models")))
    assert shipped.phase == "finetune"
    photo = photos["chelsea"][:64, :64]
    assert abs(shipped.restore(photo).astype(int) - full.restore(photo)).max() <= 1
    assert "half precision costs" in capsys.readouterr().out


def test_what_half_precision_breaks_is_not_written(tmp_path, arguments, monkeypatch):
    path = Path(arguments[0], "models", "net_g_latest.pth")
    saved = torch.load(path, weights_only=True)
    saved["params_ema"]["outro.weight"] *= 0
    saved["params_ema"]["outro.bias"] += 1e-9  # nothing at all in half precision ...
    saved["params_ema"]["intro.weight"] += 1e5  # ... and too much for it
    torch.save(saved, path)
    with pytest.raises(Exception, match=r"half precision|not numbers"):
        ship(monkeypatch, arguments)
    assert not list((tmp_path / "out").iterdir())
