"""Every option file that ships: its keys are checked, and it trains or tests for two iterations from end to end."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.archs import build_network

from prompt_mamba_arch import test as tester
from prompt_mamba_arch import train as trainer
from prompt_mamba_arch.checkpoint_files import load_network
from prompt_mamba_arch.compat.options import read_option_file
from prompt_mamba_arch.errors import UserError

CLONE = Path(__file__).resolve().parent.parent
# those of one dataset each are tried on miniatures of it, in tests/prepare; those of options/compare are no training's,
# see tests/compare/test_shipped.py
FILES = sorted(
    file
    for kind in ("train", "test")
    for file in (CLONE / "options" / kind).glob("**/*.yml")
    if file.parent.name != "datasets"
)

# arguments that make a network small; those that a network does not have are left out
SMALL = {
    "PromptMamba": {"dim": 8, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "mixers": ["conv", "scan"]},
    "MambaIRv2": {"embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 4},
}


def filled(file: Path, folders, folder: Path) -> OrderedDict:
    """The option file with the placeholders filled in, and small numbers."""
    opt = read_option_file(file)
    opt["num_gpu"] = 0
    scale = opt.get("scale", 1)
    prompts = folder / "prompts.jsonl"
    entries = [{"key": Path(name).stem, "prompts": ["clean it up"], "remove": ["noise"]} for name in folders.names]
    prompts.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    for dataset in opt["datasets"].values():
        fill_dataset(dataset, folders, prompts, scale)
    opt["network_g"].update(SMALL.get(opt["network_g"]["type"], {}))
    if opt["path"].get("pretrain_network_g"):
        network = folder / "net.pth"
        torch.save({"params": build_network(opt["network_g"]).state_dict()}, network)
        opt["path"]["pretrain_network_g"] = str(network)
    if "train" in opt:
        opt["train"].update(total_iter=2)
        opt["logger"].update(print_freq=1, save_checkpoint_freq=2)
        if opt.get("val"):
            opt["val"]["val_freq"] = 2
    return opt


def test_training_goes_on_from_the_network_that_comes_with_the_package(paired_folders, tmp_path):
    """By its name, at full size: what one iteration with a rate of zero leaves is the shipped network."""
    opt = filled(CLONE / "options/train/PromptMamba/finetune_tiny.yml", paired_folders, tmp_path)
    opt["network_g"] = {"type": "PromptMamba", "size": "tiny", "wishes": True}
    opt["path"]["pretrain_network_g"] = "tiny"
    opt["train"]["total_iter"] = 1
    opt["train"]["optim_g"]["lr"] = 0.0
    assert trainer.main(["-opt", written(opt, tmp_path), "--root", str(tmp_path / "out")]) == 0
    saved = torch.load(tmp_path / "out/experiments/finetune_tiny/models/net_g_latest.pth", weights_only=True)
    shipped = load_network("tiny")[0].state_dict()
    for weights in (saved["params"], saved["params_ema"]):
        assert all(torch.equal(value, shipped[name]) for name, value in weights.items()) and len(weights) > 100


def fill_dataset(dataset: dict, folders, prompts: Path, scale: int) -> None:
    for nested in dataset.get("datasets", ()):
        fill_dataset(nested, folders, prompts, scale)
    for key in ("meta_info_file", "filename_tmpl"):
        dataset.pop(key, None)
    if "io_backend" in dataset:
        dataset["io_backend"] = {"type": "disk"}
    if "dataroot_gt" in dataset:
        dataset["dataroot_gt"] = str(folders.gt)
    for key in ("dataroot_lq", "dataroot_lq_2"):
        if key in dataset:
            dataset[key] = str(folders.lq)
    if str(dataset.get("prompts", "")).endswith(".jsonl") or dataset.get("prompts") == "lmdb":
        dataset["prompts"] = str(prompts)
    if "gt_size" in dataset:
        dataset["gt_size"] = 16 * scale
    for key, value in (("num_worker_per_gpu", 0), ("batch_size_per_gpu", 2), ("dataset_enlarge_ratio", 1)):
        if key in dataset:
            dataset[key] = value


def downscaled(folders, scale: int) -> None:
    """Makes lq `scale` times smaller than gt."""
    import cv2

    for file in folders.lq.iterdir() if scale > 1 else ():
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), None, fx=1 / scale, fy=1 / scale))


def as_plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, list) else value


def written(opt: dict, folder: Path) -> str:
    path = folder / "filled.yml"
    path.write_text(yaml.safe_dump(as_plain(opt), sort_keys=False))
    return str(path)


def test_there_are_option_files_for_both_phases_and_the_test():
    names = {file.name for file in FILES}
    assert {f"train_PromptMamba_tiny_phase{n}.yml" for n in (1, 2)} | {"test_PromptMamba_tiny.yml"} <= names
    for file in FILES:
        assert str(CLONE) not in file.read_text() and "/home/" not in file.read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_option_file_runs(file, paired_folders, tmp_path, capsys):
    opt = filled(file, paired_folders, tmp_path)
    downscaled(paired_folders, opt.get("scale", 1))
    root = tmp_path / "out"
    launch, kind = (trainer, "experiments") if "train" in opt else (tester, "results")
    code = launch.main(["-opt", written(opt, tmp_path), "--root", str(root)])
    assert code == 0, capsys.readouterr().err
    run = root / kind / opt["name"]
    if kind == "experiments":
        saved = torch.load(run / "models" / "net_g_latest.pth", weights_only=True)
        assert all(torch.isfinite(value).all() for value in saved["params"].values())
        assert (run / "training_states" / "2.state").is_file()
    else:
        restored = list(run.rglob("*.png"))
        assert len(restored) == len(paired_folders.names) * len(opt["datasets"])


TINY = [file for file in FILES if "PromptMamba_tiny" in file.stem]


@pytest.mark.parametrize("file", TINY, ids=lambda file: file.stem)
def test_a_misspelt_key_anywhere_in_our_sections_is_one_plain_line(file, paired_folders, tmp_path, capsys):
    launch = trainer if file.name.startswith("train") else tester
    sections = ["", "network_g", "val", "path", "val.metrics.psnr", next(iter(read_option_file(file)["datasets"]))]
    sections += ["train", "logger", "train.optim_g", "train.scheduler", "train.pixel_opt"] if launch is trainer else []
    for number, section in enumerate(sections):
        opt = filled(file, paired_folders, tmp_path)
        here = opt["datasets"][section] if section in opt["datasets"] else opt
        for key in section.split(".") if here is opt and section else ():
            here = here[key]
        last = next(key for key in reversed(here) if not isinstance(here[key], dict) and key not in ("better",))
        here[f"{last}x"] = here[last]
        code = launch.main(["-opt", written(opt, tmp_path), "--root", str(tmp_path / f"out{number}")])
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert code == 2 and line.startswith("prompt-mamba: unknown key"), (section, line)
        assert f"{last}x" in line and f"did you mean '{last}'" in line, line


def test_what_is_missing_is_said(paired_folders, tmp_path):
    from prompt_mamba_arch.compat.options import check_options

    opt = filled(CLONE / "options/train/PromptMamba/train_PromptMamba_tiny_phase2.yml", paired_folders, tmp_path)
    check_options(opt, str(tmp_path), True)
    for section, key in (("train", "phase"), ("train", "optim_g"), ("network_g", "type"), ("logger", "print_freq")):
        changed = {**opt, section: {k: v for k, v in opt[section].items() if k != key}}
        with pytest.raises(UserError, match=f"{section}.* lacks '(type|{key})'"):
            check_options(changed, str(tmp_path), True)
