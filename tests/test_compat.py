"""Each mend of prompt_mamba_arch.compat, by the symptom that BasicSR shows without it."""

from __future__ import annotations

import copy
import logging
import math
import multiprocessing
import os
import pickle
import random
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path

import basicsr.train
import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from basicsr.data import build_dataset, degradations
from basicsr.data.prefetch_dataloader import CPUPrefetcher, PrefetchDataLoader
from basicsr.models import build_model, lr_scheduler
from basicsr.models import sr_model as basicsr_sr_model
from basicsr.utils import FileClient
from basicsr.utils import options as basicsr_options
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from safetensors.torch import save_file
from torch.utils.data import Dataset

from prompt_mamba_arch.compat import options, processes
from prompt_mamba_arch.errors import UserError

# ------------------------------------------------------------------------------------------------------ options


def paired(folders, phase: str = "train", **extra) -> OrderedDict:
    opt = OrderedDict(name="photos", type="PairedImageDataset", phase=phase, scale=1)
    opt.update(dataroot_gt=str(folders.gt), dataroot_lq=str(folders.lq), io_backend=OrderedDict(type="disk"))
    if phase == "train":
        opt.update(gt_size=16, use_hflip=True, use_rot=True, num_worker_per_gpu=0, batch_size_per_gpu=2)
    opt.update(extra)
    return opt


@pytest.fixture
def opt(paired_folders) -> OrderedDict:
    """Options as BasicSR's loader yields them, of a tiny MSRResNet."""
    return OrderedDict(
        name="msrresnet",
        model_type="SRModel",
        scale=1,
        num_gpu=0,
        datasets=OrderedDict(train=paired(paired_folders), val=paired(paired_folders, "val")),
        network_g=OrderedDict(type="MSRResNet", num_in_ch=3, num_out_ch=3, num_feat=4, num_block=1, upscale=2),
        path=OrderedDict(pretrain_network_g=None, strict_load_g=True, resume_state=None),
        train=OrderedDict(
            optim_g=OrderedDict(type="Adam", lr=1e-3),
            scheduler=OrderedDict(type="MultiStepLR", milestones=[100], gamma=0.5),
            total_iter=4,
            pixel_opt=OrderedDict(type="L1Loss"),
        ),
        val=OrderedDict(val_freq=2, metrics=OrderedDict(psnr=OrderedDict(type="calculate_psnr", crop_border=0))),
        logger=OrderedDict(print_freq=1, save_checkpoint_freq=2),
    )


@pytest.fixture
def without_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def built(opt: dict, **train) -> object:
    opt = copy.deepcopy(opt)
    opt["train"].update(train)
    opt.update(dist=False, is_train=True, rank=0, world_size=1)
    return build_model(opt)


def test_yaml_reads_numbers_as_people_write_them(tmp_path):
    file = tmp_path / "o.yml"
    file.write_text("a: 1e-4\nb: 5e3\nc: -1\nd: !!float 2e-4\ne: [1e-7, 1.5E+2, -.5e1]\nf: v1e4\ng: 1e\nh: ~\ni: 4.\n")
    got = options.read_option_file(file)
    assert list(got) == list("abcdefghi")
    assert list(got.values()) == [1e-4, 5e3, -1, 2e-4, [1e-7, 150.0, -5.0], "v1e4", "1e", None, 4.0]
    assert type(got["c"]) is int and type(got["b"]) is float
    # BasicSR's own loader, which other code may use
    import yaml

    assert yaml.load("lr: 1e-4", Loader=basicsr_options.ordered_yaml()[0]) == {"lr": 1e-4}


def test_yaml_runs_no_code_and_says_the_line(tmp_path):
    file, proof = tmp_path / "o.yml", tmp_path / "proof"
    file.write_text(f"name: x\npath: !!python/object/apply:os.mkdir ['{proof}']\n")
    with pytest.raises(UserError, match=r"o\.yml, line 2: .*plain data.*python/object/apply"):
        options.read_option_file(file)
    assert not proof.exists()
    file.write_text("name: x\n  train: y\n")
    with pytest.raises(UserError, match=r"o\.yml, line 2: "):
        options.read_option_file(file)
    for text, message in (("- a\n", "holds sections"), ("\xff", "UTF-8")):
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=message):
            options.read_option_file(file)


def test_yaml_warns_of_a_key_given_twice_and_merges_anchors(tmp_path):
    file = tmp_path / "o.yml"
    file.write_text("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n")
    assert options.read_option_file(file)["use"] == {"x": 1, "y": 3}
    file.write_text("train:\n  lr: 1\n  lr: 2\n")
    with pytest.warns(UserWarning, match="'lr' is given twice"):
        assert options.read_option_file(file) == {"train": {"lr": 2}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1", -1),
        ("5e3", 5000.0),
        ("!!float1e-4", 1e-4),
        ("True", True),
        ("none", None),
        ("~", None),
        ("[0.9, 1e-2, none_]", [0.9, 1e-2, "none_"]),
        ("a=b:c #d", "a=b:c #d"),
        ("'1'", "1"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_force_yml_reads_values_as_the_file_does(text, value):
    opt = {"train": {"optim_g": {"lr": 1}}}
    options.force_options(opt, [f"train:optim_g:lr={text}"])
    assert opt["train"]["optim_g"]["lr"] == value and type(opt["train"]["optim_g"]["lr"]) is type(value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("train:lr", "write it as section:key=value"),
        ("trian:lr=1", "no section 'trian' in the option file; did you mean 'train'"),
        ("train:lr=[1", "cannot read the value '\\[1'"),
    ],
)
def test_force_yml_says_what_is_wrong(entry, message):
    with pytest.raises(UserError, match=message):
        options.force_options({"train": {}}, [entry])


def change(opt: dict, keys: str, value: object) -> None:
    *sections, last = keys.split(":")
    for key in sections:
        opt = opt[key]
    if value is KeyError:
        del opt[last]
    else:
        opt[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ("num_gpu", 1, "num_gpu: 1, but PyTorch finds no GPU here; write num_gpu: auto (or 0 for the CPU)"),
        ("num_gpu", "all", "num_gpu must be a number of GPUs or auto, not 'all'"),
        ("datasets:train:prefetch_mode", "cuda", "datasets.train.prefetch_mode: cuda, but this run uses no GPU"),
        ("datasets:train:prefetch_mode", "gpu", "datasets.train.prefetch_mode: 'gpu' is not one of"),
        ("network_g:type", "MSRResNte", "network_g: unknown arch type 'MSRResNte'; did you mean 'MSRResNet'?"),
        ("network_g:num_faet", 3, "unknown key 'num_faet' in network_g; did you mean 'num_feat'?"),
        ("network_g", KeyError, "the option file has no section 'network_g'"),
        ("model_type", "SRModle", "model_type: unknown model type 'SRModle'; did you mean 'SRModel'?"),
        ("train:pixel_opt:type", "L1", "train.pixel_opt: unknown loss type 'L1'"),
        ("val:metrics:psnr:type", "calculate_pnsr", "did you mean 'calculate_psnr'?"),
        ("datasets:train:type", "PairedImages", "datasets.train: unknown dataset type 'PairedImages'; did you mean"),
        ("datasets:val:dataroot_gt", "/no/such", "datasets.val.dataroot_gt: there is no folder '/no/such'"),
        ("datasets:train:name", KeyError, "datasets.train lacks 'name'"),
        ("datasets:valid", {}, "datasets.valid: the sections of datasets are train, val, val_1"),
        ("train:total_iter", KeyError, "train lacks 'total_iter'"),
        ("val:val_freq", KeyError, "val lacks 'val_freq'"),
        ("logger", KeyError, "the option file lacks 'logger'"),
        (
            "path:pretrain_netwrok_g",
            "x.pth",
            "unknown key 'pretrain_netwrok_g' in path; did you mean 'pretrain_network_g'?",
        ),
        ("path:pretrain_network_g", "x.pth", "path.pretrain_network_g: there is no file 'x.pth'"),
        ("path:pretrain_network_g", 7, "path.pretrain_network_g must name a file, not 7"),
        ("network_g", None, "the option file has no section 'network_g'"),
        *(("name", name, "name must be a text that can name a folder") for name in (5, "", "a/b", "..")),
        ("manual_seed", "a", "manual_seed must be a whole number from 0 to"),
        ("manual_seed", -5, "manual_seed must be a whole number"),
        ("manual_seed", 2**32, "manual_seed must be a whole number"),
        ("datasets:train:batch_size_per_gpu", 0, "datasets.train.batch_size_per_gpu must be a whole number from 1"),
        ("datasets:train:num_worker_per_gpu", "two", "datasets.train.num_worker_per_gpu must be a whole number from 0"),
        ("datasets:train:dataset_enlarge_ratio", 0, "dataset_enlarge_ratio must be a number greater than 0, not 0"),
        ("train:total_iter", "x", "train.total_iter must be a whole number from 0, not 'x'"),
        ("train:warmup_iter", 1.5, "train.warmup_iter must be a whole number from -1, not 1.5"),
        ("train:pixel_opt:loss_weight", "x", "train.pixel_opt.loss_weight must be a number"),
        ("train:pixel_opt:reduction", "avg", "train.pixel_opt.reduction: 'avg' is not one of none, mean, sum"),
        ("train:scheduler:gamma", "x", "train.scheduler.gamma must be a number, not 'x'"),
        ("train:scheduler:milestones", [1, "x"], "train.scheduler.milestones must be a number"),
        ("val:val_freq", 0, "val.val_freq must be a whole number from 1, not 0"),
        ("val:metrics:psnr:crop_border", "x", "val.metrics.psnr.crop_border must be a whole number from 0"),
        ("train:scheduler", "MultiStepLR", "train.scheduler must be a section of keys and values, not 'MultiStepLR'"),
        ("train:scheduler:type", ["a"], "train.scheduler.type must be a text"),
        ("val:metrics", "psnr", "val.metrics must be a section of keys and values, not 'psnr'"),
        ("logger:print_freq", 0, "logger.print_freq must be a whole number from 1, not 0"),
        ("logger:save_checkpoint_freq", "x", "logger.save_checkpoint_freq must be a whole number from 1, not 'x'"),
    ],
)
def test_mistakes_are_found_before_a_folder_is_made(opt, without_gpu, tmp_path, keys, value, message):
    options.check_options(copy.deepcopy(opt), str(tmp_path), is_train=True)
    change(opt, keys, value)
    with pytest.raises(UserError) as raised:
        options.check_options(opt, str(tmp_path), is_train=True)
    assert message in str(raised.value)


def test_whole_numbers_may_be_written_as_fractions_and_absent_ones_as_null(opt, tmp_path):
    opt["val"]["val_freq"], opt["train"]["total_iter"] = 5e3, 4e5
    opt["train"]["warmup_iter"] = None  # BasicSR compares it
    opt["val"]["metrics"]["psnr"]["crop_border"] = 4.0  # a slice of which is a TypeError
    options.check_options(opt, str(tmp_path), is_train=True)
    assert opt["val"]["val_freq"] == 5000 and isinstance(opt["val"]["val_freq"], int)
    assert opt["train"]["total_iter"] == 400000 and "warmup_iter" not in opt["train"]
    assert isinstance(opt["val"]["metrics"]["psnr"]["crop_border"], int)


def test_options_that_basicsr_takes_for_granted_are_filled_in(opt, tmp_path):
    opt["datasets"] = {"test_1": {**paired_of(opt, "val"), "persistent_workers": True}}
    opt["path"]["text_encoder"] = None  # make_exp_dirs would hand it to os.makedirs
    del opt["val"], opt["train"], opt["logger"]
    options.check_options(opt, str(tmp_path), is_train=False)
    assert opt["val"] == {"save_img": True, "suffix": None}
    assert opt["datasets"]["test_1"]["persistent_workers"] is False and "text_encoder" not in opt["path"]


def paired_of(opt: dict, name: str) -> dict:
    return copy.deepcopy(opt["datasets"][name])


def test_paths_into_experiments_are_found_from_the_root_folder(opt, tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "n.pth").touch()
    monkeypatch.chdir("/")
    opt["path"]["pretrain_network_g"] = "experiments/n.pth"
    options.check_options(opt, str(tmp_path), is_train=True)
    assert opt["path"]["pretrain_network_g"] == str(tmp_path / "experiments" / "n.pth")


def test_command_line_takes_both_spellings_of_local_rank(tmp_path):
    for spelling in ("--local-rank=1", "--local_rank=1"):
        args = options.option_parser().parse_args(["-opt", "x.yml", spelling, "--force_yml", "a=1", "b=-1"])
        assert args.local_rank == 1 and args.force_yml == ["a=1", "b=-1"]


# ------------------------------------------------------------------------------------------------------- resume


@pytest.fixture
def run_folder(opt, tmp_path, monkeypatch) -> Path:
    """A run with states 2 and 4; `opt` knows it. The working directory is another."""
    folder = tmp_path / "experiments" / "msrresnet"
    opt["path"].update(models=str(folder / "models"), training_states=str(folder / "training_states"))
    opt["auto_resume"] = True
    for kind in ("models", "training_states"):
        (folder / kind).mkdir(parents=True)
    for iteration in (2, 4):
        state = {"epoch": 0, "iter": iteration, "optimizers": [{"x": torch.ones(1)}], "schedulers": []}
        torch.save(state, folder / "training_states" / f"{iteration}.state")
        torch.save({"params": {}}, folder / "models" / f"net_g_{iteration}.pth")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def test_auto_resume_finds_the_newest_state_from_another_folder(opt, run_folder):
    state = basicsr.train.load_resume_state(opt)
    assert state["iter"] == 4 and state["optimizers"][0]["x"].device.type == "cpu"
    assert opt["path"]["resume_state"] == str(run_folder / "training_states" / "4.state")
    assert opt["path"]["pretrain_network_g"] == str(run_folder / "models" / "net_g_4.pth")


@pytest.mark.parametrize("broken", ["training_states/4.state", "models/net_g_4.pth"])
def test_auto_resume_falls_back_to_the_state_before_a_truncated_one(opt, run_folder, broken):
    truncate(run_folder / broken)
    with pytest.warns(UserWarning, match=r"4\S* is truncated|4\.state is truncated"):
        assert basicsr.train.load_resume_state(opt)["iter"] == 2


def test_auto_resume_says_where_it_looked_or_that_all_is_lost(opt, run_folder, capsys):
    states = list((run_folder / "training_states").iterdir())
    for path in states:
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="is empty"),
        pytest.raises(UserError, match=r"all 2 training states in .* damaged"),
    ):
        basicsr.train.load_resume_state(opt)
    for path in states:
        path.unlink()
    assert basicsr.train.load_resume_state(opt) is None
    assert f"no training state in {run_folder / 'training_states'}" in capsys.readouterr().out


def test_resume_state_is_refused_in_one_line(opt, run_folder):
    opt["auto_resume"] = False
    assert basicsr.train.load_resume_state(opt) is None
    opt["path"]["resume_state"] = str(run_folder / "models" / "net_g_4.pth")
    with pytest.raises(UserError, match="is no training state"):
        basicsr.train.load_resume_state(opt)
    opt["path"]["resume_state"] = str(run_folder / "training_states" / "4.state")
    truncate(run_folder / "training_states" / "4.state")
    with pytest.raises(UserError, match=r"path.resume_state: .*4\.state' is truncated"):
        basicsr.train.load_resume_state(opt)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("proof",)


def test_pretrained_network_is_refused_in_one_line(opt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = built(opt)
    good = {"params": model.net_g.state_dict()}
    torch.save(good, "good.pth")
    model.load_network(model.net_g, "good.pth", True, "params_ema")  # falls back on params, as BasicSR does
    other = OrderedDict(good["params"], conv_first=torch.ones(1))
    other["conv_last.bias"] = other.pop("conv_last.weight")
    cases = {
        "other.pth": ({"params": other}, "does not fit MSRResNet: 1 keys are missing (conv_last.weight first)"),
        "bare.pth": (good["params"], "has no 'params', it has conv_first.weight"),
        "evil.pth": ({"params": Evil()}, "could run code"),
        "list.pth": ({"params": [1.0]}, "holds no weights under 'params'"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, name)
        with pytest.raises(UserError) as raised:
            model.load_network(model.net_g, name)
        assert message in str(raised.value) and "\n" not in str(raised.value)
    assert "1 keys are unknown (conv_first first), 1 sizes differ (conv_last.bias first)" in misfit(model, other)
    truncate(Path("good.pth"))
    with pytest.raises(UserError, match=r"'good\.pth' is truncated"):
        model.load_network(model.net_g, "good.pth")
    Path("page.pth").write_text("<html>")
    with pytest.raises(UserError, match=r"'page\.pth' is damaged or no PyTorch file"):
        model.load_network(model.net_g, "page.pth")
    assert not Path("proof").exists()


@pytest.mark.parametrize("key", ["params", "params_ema", None])
@pytest.mark.parametrize("file", ["parallel.pth", "net.safetensors"])
def test_pretrained_network_is_read_once(opt, tmp_path, monkeypatch, file, key):
    monkeypatch.chdir(tmp_path)
    model = built(opt)
    wanted = {name: value + 1 for name, value in model.net_g.state_dict().items()}
    parallel = {f"module.{name}": value for name, value in wanted.items()}
    torch.save(parallel if key is None else {"params": parallel}, "parallel.pth")
    save_file(wanted, "net.safetensors")
    reads, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, *args, **kwargs: reads.append(path) or load(path, *args, **kwargs))
    model.load_network(model.net_g, file, True, key)
    assert len(reads) == (file == "parallel.pth")
    assert all(torch.equal(value, wanted[name]) for name, value in model.net_g.state_dict().items())


def misfit(model, params: dict) -> str:
    torch.save({"params": params}, "misfit.pth")
    with pytest.raises(UserError) as raised:
        model.load_network(model.net_g, "misfit.pth")
    return str(raised.value)


# ---------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("gpu[007-009,12],login1", "gpu007"),
        ("n1", "n1"),
        ("a,b", "a"),
        ("r[1-2]c[03,5]", "r1c03"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_first_slurm_host_without_scontrol(nodelist, host, monkeypatch):
    monkeypatch.setattr(processes.shutil, "which", lambda name: None)
    assert processes.first_slurm_host(nodelist) == host


def test_launchers_outside_torchrun_and_srun_are_refused(without_gpu, monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="start the processes with torchrun"):
        basicsr_options.init_dist("pytorch")
    with pytest.raises(UserError, match="SLURM_PROCID is not set; start the processes with srun"):
        basicsr_options.init_dist("slurm", backend="nccl", port=29500)
    assert not dist.is_initialized()


def test_with_cuda_init_dist_is_basicsrs(monkeypatch):
    from basicsr.utils import dist_util

    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dist_util, "_init_dist_slurm", lambda backend, port=None: calls.append((backend, port)))
    monkeypatch.setattr(dist_util.mp, "get_start_method", lambda allow_none=False: "spawn")
    basicsr_options.init_dist("slurm", backend="nccl", port=29500)
    assert calls == [("nccl", 29500)]


def test_every_run_has_its_own_log_file(tmp_path, monkeypatch):
    from basicsr.utils import get_root_logger

    get_root_logger()  # something asked for the logger before the run did
    written = []

    def pipeline(root_path):
        log = Path(root_path, f"{len(written)}.log")
        written.append(log)
        get_root_logger(log_file=str(log)).info(log.name)

    monkeypatch.setattr(basicsr.train, "train_pipeline", pipeline)
    monkeypatch.setattr(basicsr.test, "test_pipeline", pipeline)
    processes.mend_pipelines()
    basicsr.train.train_pipeline(str(tmp_path))
    basicsr.test.test_pipeline(str(tmp_path))
    assert [log.read_text().split()[-1] for log in written] == ["0.log", "1.log"]
    assert logging.getLogger("basicsr").handlers == []


# ----------------------------------------------------------------------------------------------------- training


def test_optimizers_of_torch_are_known(opt):
    model = built(opt, optim_g={"type": "AdamW", "lr": 1e-3, "weight_decay": 0.1, "betas": [0.9, 0.99]})
    assert type(model.optimizer_g) is torch.optim.AdamW and model.optimizer_g.defaults["weight_decay"] == 0.1
    assert type(built(opt, optim_g={"type": "SGD", "lr": 1e-3, "momentum": 0.9}).optimizer_g) is torch.optim.SGD
    with pytest.raises(UserError, match="unknown optimizer type 'AdmaW'; did you mean 'AdamW'"):
        built(opt, optim_g={"type": "AdmaW", "lr": 1e-3})
    with pytest.raises(
        UserError, match="unknown key 'weight_deacy' in the optimizer Adam; did you mean 'weight_decay'"
    ):
        built(opt, optim_g={"type": "Adam", "lr": 1e-3, "weight_deacy": 1})
    with pytest.raises(UserError, match="the optimizer Adam refuses a value: Invalid beta parameter"):
        built(opt, optim_g={"type": "Adam", "lr": 1e-3, "betas": [0.9, 2]})


def test_muon_turns_matrices_and_leaves_the_rest_to_adamw(opt):
    timm = pytest.importorskip("timm.optim")
    model = built(opt, optim_g={"type": "Muon", "lr": 1e-3, "nesterov": True})
    assert type(model.optimizer_g) is timm.Muon
    before = {name: value.detach().clone() for name, value in model.net_g.named_parameters()}
    for parameter in model.net_g.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    model.optimizer_g.step()
    for name, value in model.net_g.named_parameters():
        change = (value.detach() - before[name]).flatten(1 if value.dim() > 1 else 0)
        assert change.abs().sum() > 0
        if value.dim() == 4 and min(change.shape) >= 4:  # as large in every direction
            sizes = torch.linalg.svdvals(change)
            assert sizes.max() < 2.5 * sizes.min()
    before = copy.deepcopy(model.net_g.state_dict())
    for group in model.optimizer_g.param_groups:
        group["lr"] = 0.0  # the schedule's end, for what AdamW is given, too
    model.optimizer_g.step()
    assert all(torch.equal(value, before[name]) for name, value in model.net_g.state_dict().items())
    with pytest.raises(UserError, match="unknown key 'nestrov' in the optimizer Muon; did you mean 'nesterov'"):
        built(opt, optim_g={"type": "Muon", "lr": 1e-3, "nestrov": True})


@pytest.mark.parametrize("able, dtype", [(torch.bfloat16, torch.bfloat16), (None, torch.float32)])
def test_muon_computes_in_bfloat16_only_where_the_processor_can(opt, monkeypatch, able, dtype):
    pytest.importorskip("timm.optim")
    monkeypatch.setattr("prompt_mamba_arch.half_precision.half_type", lambda device: able)
    model = built(opt, optim_g={"type": "Muon", "lr": 1e-3})
    seen = set()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "mm" in str(function):
                seen.add(args[0].dtype)
            return function(*args, **(kwargs or {}))

    for parameter in model.net_g.parameters():
        parameter.grad = torch.ones_like(parameter)
    with Watch():
        model.optimizer_g.step()
    assert seen == {dtype}


def test_muon_says_what_it_needs(opt, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim", None)
    with pytest.raises(UserError, match="pip install"):
        built(opt, optim_g={"type": "Muon", "lr": 1e-3})


def rates(model, iterations: range, warmup: int = -1) -> list[float]:
    got = []
    for iteration in iterations:
        model.update_learning_rate(iteration, warmup_iter=warmup)
        model.optimizer_g.step()
        got.append(model.get_current_learning_rate()[0])
    return got


@pytest.mark.parametrize(
    "scheduler",
    [{"type": "MultiStepLR", "milestones": [7], "gamma": 0.5}, {"type": "StepLR", "step_size": 7, "gamma": 0.5}],
)
def test_warmup_ends_at_the_base_rate_and_milestones_follow(opt, scheduler):
    model = built(opt, scheduler=scheduler)
    got = rates(model, range(1, 10), warmup=5)
    assert got == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4])
    # the same from a state in the middle of the warm-up
    first, second = built(opt, scheduler=scheduler), built(opt, scheduler=scheduler)
    rates(first, range(1, 4), warmup=5)
    second.resume_training(
        copy.deepcopy(
            {"optimizers": [first.optimizer_g.state_dict()], "schedulers": [s.state_dict() for s in first.schedulers]}
        )
    )
    assert rates(second, range(4, 10), warmup=5) == pytest.approx(got[3:])


def test_cosine_stays_at_its_floor_past_its_periods(opt):
    model = built(
        opt,
        scheduler={"type": "CosineAnnealingRestartLR", "periods": [4, 4], "restart_weights": [1, 0.5], "eta_min": 1e-7},
    )
    got = rates(model, range(1, 14))
    assert got[2] == pytest.approx((1e-3 + 1e-7) / 2) and got[4] == pytest.approx(1e-7)
    assert got[8:] == pytest.approx([1e-7] * 5)
    assert lr_scheduler.get_position_from_periods(99, [4, 8]) == 1


def test_cyclic_cosine_has_a_floor_per_cycle(opt):
    """Restormer's rate: constant-like first cycle down to 3e-4, then down to 1e-6."""
    options_ = {
        "type": "CosineAnnealingRestartCyclicLR",
        "periods": [4, 6],
        "restart_weights": [1, 1],
        "eta_mins": [3e-4, 1e-6],
    }
    got = rates(built(opt, scheduler=options_), range(1, 13))

    def expected(t: int) -> float:
        start, period, floor = (0, 4, 3e-4) if t <= 4 else (4, 6, 1e-6)
        return floor + 0.5 * (1e-3 - floor) * (1 + math.cos(math.pi * (t - start) / period)) if t <= 10 else floor

    assert got == pytest.approx([expected(t) for t in range(12)])
    with pytest.raises(UserError, match="equally many"):
        built(opt, scheduler={**options_, "eta_mins": [0]})


def test_unknown_scheduler_and_key_name_the_nearest(opt):
    with pytest.raises(UserError, match="unknown type 'MultiStep'; did you mean 'MultiStepLR'"):
        built(opt, scheduler={"type": "MultiStep"})
    with pytest.raises(
        UserError, match=r"unknown key 'milestone' in train.scheduler .MultiStepLR.; did you mean 'milestones'"
    ):
        built(opt, scheduler={"type": "MultiStepLR", "milestone": [1]})
    assert (
        type(built(opt, scheduler={"type": "CosineAnnealingLR", "T_max": 9}).schedulers[0]).__name__
        == "CosineAnnealingLR"
    )


def loaders(opt: dict, **train) -> tuple:
    opt = copy.deepcopy(opt)
    opt["datasets"]["train"].update(train)
    opt.update(dist=False, world_size=1, rank=0, manual_seed=0)
    return basicsr.train.create_train_val_dataloader(opt, logging.getLogger("test"))


def test_epochs_suffice_for_all_iterations(opt):
    opt["train"]["total_iter"] = 10
    train_loader, _, _, epochs, _ = loaders(opt, batch_size_per_gpu=3)  # four images: one batch and a dropped rest
    assert len(train_loader) * epochs >= 10
    with pytest.raises(UserError, match="4 images make no batch of 5"):
        loaders(opt, batch_size_per_gpu=5)
    assert len(loaders(opt, batch_size_per_gpu=5, dataset_enlarge_ratio=2)[0]) == 1


def test_identical_images_do_not_make_the_mean_infinite():
    image = np.zeros((16, 16, 3), np.uint8)
    metric = {"type": "calculate_psnr", "crop_border": 0}
    assert basicsr_sr_model.calculate_metric({"img": image, "img2": image}, metric) == 100
    assert basicsr_sr_model.calculate_metric({"img": image, "img2": image + 255}, metric) == 0


# --------------------------------------------------------------------------------------------------------- data


def test_random_jpeg_compression_works(photos):
    random.seed(0)
    image = photos["coffee"].astype(np.float32) / 255
    out = degradations.random_add_jpg_compression(image, (30, 40))
    assert out.shape == image.shape and 0.001 < np.abs(out - image).mean() < 0.1


class Items(Dataset):
    def __init__(self, bad: int | None = None):
        self.bad = bad

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict:
        if index == self.bad:
            raise UserError("corrupt image x.png")
        return {"x": index}


def prefetching(bad: int | None = None) -> CPUPrefetcher:
    return basicsr.train.CPUPrefetcher(PrefetchDataLoader(num_prefetch_queue=2, dataset=Items(bad), batch_size=1))


def within(seconds: float, function) -> object:
    """The function's result or exception; fails instead of hanging."""
    got = []

    def call():
        try:
            got.append((function(), None))
        except BaseException as exc:
            got.append((None, exc))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    assert got, "hangs"
    value, exc = got[0]
    if exc is not None:
        raise exc
    return value


def test_prefetcher_raises_the_datasets_exception_in_the_trainer():
    prefetcher = prefetching(bad=2)
    prefetcher.reset()
    assert [int(within(10, prefetcher.next)["x"]) for _ in range(2)] == [0, 1]
    with pytest.raises(UserError, match=r"corrupt image"):
        within(10, prefetcher.next)
    assert within(10, prefetcher.next) is None


def test_prefetcher_leaves_no_thread_behind():
    before = threading.active_count()
    prefetcher = prefetching()
    for _ in range(3):
        prefetcher.reset()
        assert int(prefetcher.next()["x"]) == 0
    assert threading.active_count() <= before + 1
    while within(10, prefetcher.next) is not None:
        pass
    assert within(10, prefetcher.next) is None  # asked again after the end
    prefetcher.reset()
    del prefetcher
    deadline = time.time() + 10
    while threading.active_count() > before and time.time() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


@pytest.fixture
def lmdb_folders(paired_folders, tmp_path):
    made = []
    for folder in paired_folders:
        names = paired_folders.names
        target = tmp_path / f"{folder.name}.lmdb"
        keys = [Path(name).stem for name in names]
        make_lmdb_from_imgs(str(folder), str(target), names, keys)
        made.append(target)
    return type(paired_folders)(*made)


def read_in_child(dataset: Dataset, index: int, answers) -> None:
    answers.put(float(dataset[index]["gt"].sum()))


def test_datasets_share_one_lmdb_and_travel_to_workers(lmdb_folders):
    make = lambda gt, lq: build_dataset(  # noqa: E731
        paired(type(lmdb_folders)(gt, lq), "val", io_backend={"type": "lmdb"})
    )
    first = make(lmdb_folders.gt, lmdb_folders.lq)
    same = make(lmdb_folders.gt, lmdb_folders.gt)  # one LMDB in both roles, and a second dataset on it
    sums = [float(first[i]["gt"].sum()) for i in range(4)]
    assert [float(same[i]["lq"].sum()) for i in range(4)] == sums
    assert float(pickle.loads(pickle.dumps(first))[2]["gt"].sum()) == sums[2]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_in_child, args=(first, 3, answers))
    child.start()
    assert answers.get(timeout=30) == sums[3]
    child.join(30)
    assert child.exitcode == 0 and float(first[1]["gt"].sum()) == sums[1]


def test_lmdb_says_what_is_missing(lmdb_folders, tmp_path):
    client = FileClient("lmdb", db_paths=[str(lmdb_folders.gt)], client_keys=["gt"])
    with pytest.raises(UserError, match=r"gt\.lmdb' has no key 'nobody'"):
        client.get("nobody", "gt")
    with pytest.raises(UserError, match="cannot open the LMDB"):
        FileClient("lmdb", db_paths=str(tmp_path / "no.lmdb")).get("x")
    with pytest.raises(UserError, match="read-only"):
        FileClient("lmdb", db_paths=str(lmdb_folders.gt), readonly=False)


def test_broken_image_is_named(paired_folders):
    bad = paired_folders.lq / paired_folders.names[0]
    bad.write_bytes(b"no image")
    for type_ in ("PairedImageDataset", "SingleImageDataset"):
        dataset = build_dataset(paired(paired_folders, "val", type=type_))
        with pytest.raises(UserError) as raised:
            for index in range(4):
                dataset[index]
        assert str(raised.value) == f"corrupt image {str(bad)!r} (lq)"


def test_option_that_a_sample_needs_is_named(paired_folders):
    opt = paired(paired_folders)
    opt["use_flip"] = opt.pop("use_hflip")  # as older option files call it
    with pytest.raises(UserError, match="dataset 'photos' lacks 'use_hflip'"):
        build_dataset(opt)[0]


def test_dataset_that_cannot_be_built_is_named(paired_folders):
    (paired_folders.lq / paired_folders.names[0]).unlink()
    with pytest.raises(
        UserError, match=r"dataset 'photos' \(val\): lq and gt datasets have different number of images: 3, 4"
    ):
        basicsr.train.build_dataset(paired(paired_folders, "val"))
    with pytest.raises(UserError, match=r"dataset 'photos' \(val\) lacks 'io_backend'"):
        opt = paired(paired_folders, "val")
        del opt["io_backend"]
        basicsr.train.build_dataset(opt)


def test_opencv_reads_what_the_fixtures_wrote(paired_folders):
    assert cv2.imread(str(paired_folders.gt / "coffee.png")).shape == (64, 64, 3)
