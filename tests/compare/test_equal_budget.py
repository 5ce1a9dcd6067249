"""The study on a budget of a few steps: equal latency, the same batches, and what is done is not done again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from prompt_mamba_arch import train
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.compat.options import read_option_file
from prompt_mamba_arch.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TINY = {"enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "mixers": ["conv", "scan"]}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("equal_budget", ROOT / "scripts" / "equal_budget.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def study(tmp_path, root, photos):
    for name, photo in photos.items():
        (tmp_path / "clean").mkdir(exist_ok=True)
        Image.fromarray(photo).save(tmp_path / "clean" / f"{name}.png")
    options = {
        "name": "trial",
        "output": str(tmp_path / "out"),
        "root": str(root),
        "networks": {
            "ours": {"type": "PromptMamba", "dim": 8, **TINY},
            "EDSR": {
                "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "upscale": 1, "num_block": 1,
                "sizes": [{"num_feat": 96}, {"num_feat": 8}, {"num_feat": 128}],
            },
        },
        "latency": {"size": 64, "rounds": 3},
        "training": {"first": 2, "second": 2, "batch": 2, "pixels": 32, "workers": 0},
        "tasks": {"noise25": {"set": "noise25", "limit": 1, "prompt": "oracle"}},
        "cost": None,
    }  # fmt: skip
    path = tmp_path / "study.yml"
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def test_the_study(script, study, tmp_path, monkeypatch, capsys):
    runs = []

    def here(file, out, seconds, threads):  # a process takes many seconds to start
        runs.append(file.stem)
        assert 0 < seconds <= 3600
        assert train.main(["-opt", str(file), "--root", str(out)]) == 0
        return True

    def timed(things, rounds, threads, *, device, tick):
        for thing in things.values():
            thing()
        return {"ours 0": 1.0, "EDSR 0": 3.0, "EDSR 1": 1.3, "EDSR 2": 0.5}

    monkeypatch.setattr(script, "medians", timed)
    monkeypatch.setattr(script, "run_training", here)
    words = ["-opt", str(study), "--train", str(tmp_path / "clean")]
    assert script.main(words) == 0
    out = capsys.readouterr().out
    assert runs == ["ours_1", "ours_2", "EDSR_1", "EDSR_2"]
    assert "| ours, blind | blind |" in out and '| ours | "remove the noise" (oracle) |' in out
    assert "## Budget" in out and "sentences |" in out and "| EDSR |" in out
    folder = tmp_path / "out"
    latency = json.loads((folder / "latency.json").read_text())["found"]
    assert latency["EDSR"]["network_g"]["num_feat"] == 8 and latency["ours"]["reads"]  # nearest to one second
    assert not latency["EDSR"]["reads"]

    ours, theirs = (read_option_file(folder / f"{name}_2.yml") for name in ("ours", "EDSR"))
    assert ours["train"]["phase"] == "finetune" and theirs["train"]["phase"] == "pretrain"
    assert ours["manual_seed"] == theirs["manual_seed"] and ours["train"]["total_iter"] == theirs["train"]["total_iter"]
    same = ("kinds", "count", "batch_size_per_gpu", "gt_size", "dataroot_gt")
    assert [ours["datasets"]["train"][key] for key in same] == [theirs["datasets"]["train"][key] for key in same]
    states = [_state(folder, run) for run in ("EDSR_1", "EDSR_2")]
    assert any(
        not torch.equal(states[0][key], states[1][key]) for key in states[0]
    )  # the second goes on from the first

    runs.clear()
    assert script.main(words) == 0 and not runs
    capsys.readouterr()
    assert script.main([*words, "--force_yml", "training:second=3"]) == 2  # what is there is no result of these options
    assert "other options; name another output" in capsys.readouterr().err and not runs


def _state(folder, run):
    loaded = torch.load(folder / "experiments" / run / "models" / "net_g_latest.pth", weights_only=True)
    return loaded["params"]


def test_a_network_whose_text_paths_are_off_reads_nothing(script):
    assert script._reads(PromptMamba(dim=8, **TINY))
    assert not script._reads(PromptMamba(dim=8, **TINY, text_scan=False, text_gate=False, text_attention=False))


def test_the_clock_ends_a_training(script, tmp_path, monkeypatch):
    models = tmp_path / "experiments" / "a_1" / "models"
    models.mkdir(parents=True)
    for number in (9, 30, 200):
        (models / f"net_g_{number}.pth").touch()
    monkeypatch.setattr(script, "run_training", lambda *arguments: False)
    told = []
    files = [tmp_path / "a_1.yml", tmp_path / "a_2.yml"]
    record = script.trained("a", files, {"hours": 1, "threads": 1}, tmp_path, told.append)
    assert list(record) == ["a_1"] and record["a_1"]["network"].endswith("net_g_200.pth")
    assert told == ["a: the hours were over at net_g_200.pth"]
    again = script.trained("a", files, {"hours": 1, "threads": 1}, tmp_path, told.append)
    assert again == record and len(told) == 1  # no second phase after the clock has ended the first


@pytest.mark.parametrize("how", [KeyboardInterrupt, UserError])
def test_time_before_an_interruption_counts(script, tmp_path, monkeypatch, how):
    clock, asked = [0.0], []
    monkeypatch.setattr(script.time, "perf_counter", lambda: clock[0])
    ends = [how("stopped"), True, False]
    (tmp_path / "experiments" / "a_2" / "models").mkdir(parents=True)
    (tmp_path / "experiments" / "a_2" / "models" / "net_g_5.pth").touch()

    def run(file, out, seconds, threads):
        asked.append((file.stem, seconds))
        clock[0] += 600
        end = ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end

    monkeypatch.setattr(script, "run_training", run)
    files = [tmp_path / "a_1.yml", tmp_path / "a_2.yml"]
    with pytest.raises(how):
        script.trained("a", files, {"hours": 1, "threads": 1}, tmp_path, print)
    record = script.trained("a", files, {"hours": 1, "threads": 1}, tmp_path, print)
    assert asked == [("a_1", 3600), ("a_1", 3000), ("a_2", 2400)]
    assert [(one["seconds"], one["finished"]) for one in record.values()] == [(1200, True), (600, False)]
    assert all(set(one) == {"seconds", "network", "finished"} for one in record.values())


def test_mistakes(script, study, tmp_path, capsys):
    options = yaml.safe_load(study.read_text())
    for changes, said in (
        ({"networks": {}}, "at least one entry"),
        ({"training": {"frist": 2}}, "did you mean 'first'"),
        ({"training": 5}, "training must be a section"),
        ({"latency": {"reference": "our"}}, "latency.reference names no network: 'our'; did you mean 'ours'?"),
        ({"networks": {"a": {"type": "EDSRR"}}}, "did you mean 'EDSR'"),
        ({"networks": {"a": {"sizes": [{}]}}}, "must have a type"),
    ):
        study.write_text(yaml.safe_dump({**options, **changes}))
        assert script.main(["-opt", str(study), "--train", str(tmp_path / "clean")]) == 2
        err = capsys.readouterr().err.strip().splitlines()
        assert said in err[-1] and err[-1].startswith("equal_budget: ")
    assert script.main(["-opt", str(study), "--train", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize(
    "file, names",
    [
        ("equal_budget", {"PromptMamba tiny", "NAFNet", "SwinIR", "Restormer", "MambaIR", "InstructIR"}),
        ("equal_budget_limits", {"PromptMamba tiny", "without sentences", "convolutions for scans", "NAFNet"}),
    ],
)
def test_the_shipped_studies_are_whole(script, file, names):
    options = read_option_file(ROOT / "options" / "compare" / f"{file}.yml")
    assert names == set(options["networks"])
    for name, (network, sizes) in script._split(options["networks"]).items():
        assert isinstance(network["type"], str) and np.all([isinstance(size, dict) for size in sizes]), name
    assert options["latency"]["reference"] in options["networks"]
