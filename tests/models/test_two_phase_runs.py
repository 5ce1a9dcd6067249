"""Whole training runs: killed and resumed, in two processes, and with input that is wrong."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import prompt_mamba_arch
from prompt_mamba_arch import test as tester
from prompt_mamba_arch import train as trainer
from prompt_mamba_arch.restore import Restorer

CLONE = Path(prompt_mamba_arch.__file__).resolve().parent.parent


def options(folders, phase: str, name: str, **train) -> dict:
    dataset = {
        "name": "pairs",
        "type": "PromptPairedImageDataset",
        "dataroot_gt": str(folders.gt),
        "dataroot_lq": str(folders.lq),
        "prompts": ["remove the noise", "clean it up", "denoise it"],
    }
    loader = {"gt_size": 16, "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    return {
        "name": name,
        "model_type": "PromptTwoPhaseModel",
        "scale": 1,
        "num_gpu": 0,
        "manual_seed": 5,
        "datasets": {"train": {**dataset, **loader, "dataset_enlarge_ratio": 3}, "val": dict(dataset)},
        "network_g": {
            "type": "PromptMamba",
            **{"dim": 8, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "mixers": ["conv", "scan"]},
        },
        "path": {"pretrain_network_g": None, "param_key_g": "params_ema"},
        "train": {
            "phase": phase,
            **({"prompt_dropout": 0.3} if phase == "finetune" else {}),
            "ema_decay": 0.9,
            "grad_clip": 1.0,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [5, 9], "gamma": 0.7},
            "warmup_iter": 4,
            "total_iter": 8,
            "pixel_opt": {"type": "CharbonnierLoss", "eps": 1e-6},
            **train,
        },
        "val": {
            "val_freq": 4,
            "save_img": False,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 4, "use_tb_logger": False},
    }


def written(opt: dict, root: Path) -> str:
    root.mkdir(exist_ok=True)
    path = root / f"{opt['name']}.yml"
    path.write_text(yaml.safe_dump(opt, sort_keys=False))
    return str(path)


def train(opt: dict, root: Path, *flags: str) -> int:
    return trainer.main(["-opt", written(opt, root), "--root", str(root), *flags])


def losses(root: Path, name: str) -> dict[int, str]:
    """Iteration -> logged loss, over all log files of a run; a resumed run's come last."""
    found = {}
    for file in sorted((root / "experiments" / name).glob("*.log"), key=lambda path: path.stat().st_mtime_ns):
        found.update(re.findall(r"iter: *([\d,]+), lr.*?l_pix: (\S+)", file.read_text()))
    return {int(iteration.replace(",", "")): loss for iteration, loss in found.items()}


def scores(root: Path, name: str) -> list[str]:
    logs = sorted((root / "experiments" / name).glob("*.log"), key=lambda path: path.stat().st_mtime_ns)
    return re.findall(r"# psnr: (\S+)", "".join(file.read_text() for file in logs))


def network(root: Path, name: str, iteration: int | str = "latest") -> dict:
    return torch.load(root / "experiments" / name / "models" / f"net_g_{iteration}.pth", weights_only=True)


def assert_same_network(a: dict, b: dict) -> None:
    assert {key: value for key, value in a.items() if "params" not in key} == {
        key: value for key, value in b.items() if "params" not in key
    }
    for key in ("params", "params_ema"):
        assert a[key].keys() == b[key].keys()
        for name in a[key]:
            assert a[key][name].equal(b[key][name]), (key, name)


def states(root: Path, name: str) -> list[int]:
    folder = root / "experiments" / name / "training_states"
    return sorted(int(file.stem) for file in folder.glob("[0-9]*.state"))


def kill_in_the_middle(opt: dict, root: Path) -> None:
    """Trains in a process of its own and kills it with SIGKILL after the first training states."""
    command = [sys.executable, str(CLONE / "prompt_mamba_arch" / "train.py"), "-opt", written(opt, root)]
    process = subprocess.Popen([*command, "--root", str(root)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 120
        while len(states(root, opt["name"])) < 2:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < until, "no training state within two minutes"
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def phase1(tmp_path_factory, photos):
    """(folders, root): eight iterations of phase 1 in experiments/phase1."""
    folder = tmp_path_factory.mktemp("phase1")
    folders = make_folders(folder, photos)
    assert train(options(folders, "pretrain", "phase1"), folder) == 0
    return folders, folder


def make_folders(folder: Path, photos):
    from types import SimpleNamespace

    folders = SimpleNamespace(gt=folder / "gt", lq=folder / "lq")
    rng = np.random.default_rng(0)
    for path in (folders.gt, folders.lq):
        path.mkdir()
    for name, photo in photos.items():
        gt = np.ascontiguousarray(photo[64:96, 64:104, ::-1])
        cv2.imwrite(str(folders.gt / f"{name}.png"), gt)
        lq = np.clip(gt + rng.normal(0, 25, gt.shape), 0, 255).round().astype(np.uint8)
        cv2.imwrite(str(folders.lq / f"{name}.png"), lq)
    return folders


@pytest.mark.parametrize(("phase", "workers"), [("pretrain", (1, 0)), ("finetune", (0, 1))])
def test_killed_run_continues_as_if_it_had_not_been(phase1, tmp_path, monkeypatch, phase, workers):
    folders, before = phase1
    opt = options(folders, phase, "killed", total_iter=100000)
    if phase == "finetune":
        opt["path"]["pretrain_network_g"] = str(before / "experiments/phase1/models/net_g_latest.pth")
    opt["datasets"]["train"]["num_worker_per_gpu"] = workers[0]
    kill_in_the_middle(opt, tmp_path)
    (tmp_path / "experiments/killed/training_states/999999.state").write_bytes(b"PK cut short")  # as an old file copy
    last = states(tmp_path, "killed")[-2]
    until_kill = losses(tmp_path, "killed")

    monkeypatch.chdir("/")  # found from anywhere
    opt["train"]["total_iter"] = last + 7
    opt["datasets"]["train"]["num_worker_per_gpu"] = workers[1]
    with pytest.warns(UserWarning, match=r"999999\.state.* is truncated; trying the state before it"):
        assert train(opt, tmp_path, "--auto_resume") == 0
    resumed = {i: loss for i, loss in losses(tmp_path, "killed").items() if i > last}
    assert list(resumed)[:7] == list(range(last + 1, last + 8)), "it went on with the iteration after the state"

    # the same run without the interruption and without workers
    opt["name"] = "whole"
    opt["datasets"]["train"]["num_worker_per_gpu"] = 0
    assert train(opt, tmp_path) == 0
    whole = losses(tmp_path, "whole")
    assert {i: until_kill[i] for i in range(1, last + 1)} == {i: whole[i] for i in range(1, last + 1)}
    assert {i: resumed[i] for i in range(last + 1, last + 8)} == {i: whole[i] for i in range(last + 1, last + 8)}
    assert len(set(whole.values())) > 0.9 * len(whole) > 5  # they do differ from iteration to iteration
    assert_same_network(network(tmp_path, "killed"), network(tmp_path, "whole"))
    assert network(tmp_path, "killed")["phase"] == phase


# What each of the two processes runs: both phases, each interrupted after its 4th iteration and resumed, and a test.
TWO_PROCESSES = """
import os, sys, time
from prompt_mamba_arch import test, train

def run(launch, port, *arguments):
    os.environ["MASTER_PORT"] = port
    code = launch.main([*arguments, "--root", sys.argv[1], "--launcher", "pytorch"])
    if code:
        sys.exit(code)

if __name__ == "__main__":
    ports = sys.argv[2:]
    for phase in ("phase1", "phase2"):
        option_file = os.path.join(sys.argv[1], phase + ".yml")
        run(train, ports.pop(), "-opt", option_file, "--force_yml", "train:total_iter=4")
        time.sleep(1.1)  # log files are named by the second
        run(train, ports.pop(), "-opt", option_file, "--auto_resume")
    run(test, ports.pop(), "-opt", os.path.join(sys.argv[1], "test.yml"))
"""


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_processes_train_both_phases_resume_and_share_validation(phase1, tmp_path):
    folders, _ = phase1
    together, alone = tmp_path / "together", tmp_path / "alone"
    for root, batch in ((together, 2), (alone, 4)):  # batches of four images in all
        first = options(folders, "pretrain", "phase1")
        second = options(folders, "finetune", "phase2", prompt_dropout=0.0, accumulate=2 if root is together else 1)
        second["path"]["pretrain_network_g"] = str(root / "experiments/phase1/models/net_g_latest.pth")
        # an odd number of images: the processes' shares differ
        for opt in (first, second):
            opt["datasets"]["train"]["batch_size_per_gpu"] = batch
            names = root / "names.txt"
            root.mkdir(exist_ok=True)
            names.write_text("\n".join(sorted(os.listdir(folders.gt))[:3]))
            opt["datasets"]["val"]["meta_info_file"] = str(names)
            written(opt, root)
        test = copy.deepcopy(second)
        test.update(name="test", datasets={"test": test["datasets"].pop("val")})
        test["path"]["pretrain_network_g"] = str(root / "experiments/phase2/models/net_g_latest.pth")
        del test["train"], test["logger"], test["val"]["val_freq"]
        test["val"].update(save_img=True)
        written(test, root)

    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = {**os.environ, "PYTHONPATH": str(CLONE), "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    command = [sys.executable, str(script), str(together), *free_ports(5)]
    processes = [
        subprocess.Popen(
            command,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=480)
        assert process.returncode == 0, errors[-3000:]

    # one process with batches of four does the same
    for name in ("phase1", "phase2"):
        assert trainer.main(["-opt", str(alone / f"{name}.yml"), "--root", str(alone)]) == 0
    assert tester.main(["-opt", str(alone / "test.yml"), "--root", str(alone)]) == 0
    for name in ("phase1", "phase2"):
        ours, theirs = losses(together, name), losses(alone, name)
        assert list(ours) == list(theirs) == list(range(1, 9))
        assert [float(v) for v in ours.values()] == pytest.approx([float(v) for v in theirs.values()], rel=2e-3)
        assert states(together, name) == [4, 8]

    # and a network is measured the same by two processes and by one, image for image
    shutil.copytree(together / "experiments", alone / "experiments", dirs_exist_ok=True)
    assert tester.main(["-opt", str(alone / "test.yml"), "--root", str(alone)]) == 0
    results = [
        max((root / "results/test").glob("*.log"), key=os.path.getmtime).read_text() for root in (together, alone)
    ]
    measured = [re.findall(r"# psnr: (\S+)", text) for text in results]
    assert measured[0] == measured[1] and len(measured[0]) == 1
    images = sorted((together / "results/test/visualization/pairs").iterdir())
    assert len(images) == 3
    for image in images:
        assert image.read_bytes() == (alone / "results/test/visualization/pairs" / image.name).read_bytes()


def test_a_test_takes_the_mean_of_several_networks_and_of_eight_versions(phase1, tmp_path, capsys):
    folders, root = phase1
    opt = options(folders, "finetune", "mean")
    opt["datasets"] = {"test": opt["datasets"].pop("val")}
    del opt["train"], opt["logger"], opt["val"]["val_freq"]
    opt["val"].update(save_img=True, prompt="none")
    files = [f"experiments/phase1/models/net_g_{iteration}.pth" for iteration in (4, 8)]
    shutil.copytree(root / "experiments", tmp_path / "experiments")

    def run(name: str, network: object, **val) -> list[np.ndarray]:
        told = {
            **opt,
            "name": name,
            "path": {**opt["path"], "pretrain_network_g": network},
            "val": {**opt["val"], **val},
        }
        assert tester.main(["-opt", written(told, tmp_path), "--root", str(tmp_path)]) == 0
        images = (tmp_path / f"results/{name}/visualization/pairs").iterdir()
        return [cv2.imread(str(file)) for file in sorted(images)]

    averaged = run("mean", files)
    kept = torch.load(tmp_path / "results/mean/net_g_mean.pth", weights_only=True)
    first, second = (torch.load(tmp_path / file, weights_only=True)["params_ema"] for file in files)
    for key, value in kept["params_ema"].items():
        torch.testing.assert_close(value, (first[key] + second[key]) / 2, msg=key)
    assert any((first[key] != second[key]).any() for key in first)
    assert kept["phase"] == "pretrain" and kept["network_g"]["dim"] == 8

    # the file is a network like any other: for a test, and for restoring
    for image, again in zip(averaged, run("kept", "results/mean/net_g_mean.pth")):
        np.testing.assert_array_equal(image, again)
    restorer = Restorer.from_pretrained(tmp_path / "results/mean/net_g_mean.pth", "cpu")
    ensembles = run("ensemble", files, self_ensemble=True)
    assert any((image != together).any() for image, together in zip(averaged, ensembles))
    for file, image, together in zip(sorted(folders.lq.iterdir()), averaged, ensembles):
        lq = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        np.testing.assert_array_equal(image[..., ::-1], restorer.restore(lq))
        np.testing.assert_allclose(together[..., ::-1], restorer.restore(lq, ensemble=True), atol=1)

    def refused(message: str, **changed) -> None:
        capsys.readouterr()
        assert tester.main(["-opt", written({**opt, "name": "no", **changed}, tmp_path), "--root", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err

    def names(*names: str) -> dict:
        return {**opt["path"], "pretrain_network_g": list(names)}

    refused("path.pretrain_network_g: there is no file 'nowhere.pth'", path=names(files[0], "nowhere.pth"))
    refused("path.pretrain_network_g is an empty list", path=names())
    refused("SRModel takes one file; PromptTwoPhaseModel averages", path=names(*files), model_type="SRModel")
    refused("val.self_ensemble must be true or false", val={"self_ensemble": 8})
    refused("SRModel knows no such thing", val={"self_ensemble": True}, model_type="SRModel")
    content = torch.load(tmp_path / files[1], weights_only=True)
    content["params_ema"] = {key: value[..., :1] for key, value in content["params_ema"].items()}
    torch.save(content, tmp_path / "other.pth")
    refused(f"{str(tmp_path / 'other.pth')!r} does not fit", path=names(files[0], "other.pth"))


def test_wrong_input_ends_in_one_plain_line(phase1, tmp_path, capsys):
    folders, root = phase1

    def refused(opt: dict, message: str, *flags: str) -> None:
        capsys.readouterr()
        if not flags:  # BasicSR's archive of a run is named by the second, and two in one second clash
            opt = {**opt, "name": f"run_{abs(hash(message))}"}
        assert train(opt, tmp_path, *flags) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("prompt-mamba: ")]
        assert len(lines) == 1 and re.search(message, lines[0]), lines

    shutil.copytree(root / "experiments", tmp_path / "experiments")
    refused(
        options(folders, "finetune", "phase1"),
        r"8\.state' belongs to phase pretrain, but train\.phase is finetune; give this run a name of its own",
        "--auto_resume",
    )
    opt = options(folders, "finetune", "phase2")
    opt["path"]["pretrain_network_g"] = "experiments/nowhere.pth"
    refused(opt, r"path\.pretrain_network_g: there is no file 'experiments/nowhere\.pth'")
    opt["path"]["pretrain_network_g"] = "experiments/phase1/models/net_g_latest.pth"
    file = tmp_path / opt["path"]["pretrain_network_g"]
    file.write_bytes(file.read_bytes()[:1000])
    refused(opt, r"net_g_latest\.pth' is truncated")
    opt["path"]["pretrain_network_g"] = None
    opt["train"]["freeze"] = ["^encoder", "decodr"]
    refused(opt, "train.freeze: no parameter matches 'decodr'")
    del opt["train"]["freeze"]
    opt["datasets"]["train"]["dataroot_lq"] = str(tmp_path / "nowhere")
    refused(opt, r"datasets\.train\.dataroot_lq: there is no folder")

    broken = tmp_path / "broken"
    shutil.copytree(folders.lq, broken)
    next(broken.iterdir()).write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    opt["datasets"]["train"].update(dataroot_lq=str(broken), num_worker_per_gpu=1)
    refused(opt, re.escape(next(broken.iterdir()).name))
