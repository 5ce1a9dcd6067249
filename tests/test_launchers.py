"""BasicSR's own networks and datasets through our launchers, from plain BasicSR option files; and how mistakes end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

import prompt_mamba_arch
from prompt_mamba_arch import test as tester
from prompt_mamba_arch import train as trainer

PACKAGE = Path(prompt_mamba_arch.__file__).resolve().parent

# as BasicSR 1.4.2 writes its option files, with small numbers
SWINIR = """
# general settings
name: swinir
model_type: SwinIRModel
scale: 2
num_gpu: auto
manual_seed: 0

# dataset and data loader settings
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: {gt}
    dataroot_lq: {lq}
    io_backend:
      type: disk

    gt_size: 32
    use_hflip: true
    use_rot: true

    # data loader
    num_worker_per_gpu: 1
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 2
    prefetch_mode: ~

  val_1:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: {gt}
    dataroot_lq: {lq}
    io_backend:
      type: disk

# network structures
network_g:
  type: SwinIR
  upscale: 2
  in_chans: 3
  img_size: 16
  window_size: 8
  img_range: 1.
  depths: [2]
  embed_dim: 12
  num_heads: [2]
  mlp_ratio: 2
  upsampler: 'pixelshuffledirect'
  resi_connection: '1conv'

# path
path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

# training settings
train:
  ema_decay: 0.9
  optim_g:
    type: Adam
    lr: !!float 2e-3
    weight_decay: 0
    betas: [0.9, 0.99]

  scheduler:
    type: MultiStepLR
    milestones: [250000, 400000]
    gamma: 0.5

  total_iter: 8
  warmup_iter: -1  # no warm up

  # losses
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

# validation settings
val:
  val_freq: !!float 4
  save_img: false

  metrics:
    psnr: # metric name, can be arbitrary
      type: calculate_psnr
      crop_border: 2
      test_y_channel: true

# logging settings
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 4
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~

# dist training settings
dist_params:
  backend: nccl
  port: 29500
"""

SWINIR_TEST = """
name: swinir_test
model_type: SwinIRModel
scale: 2
num_gpu: auto
manual_seed: 0

datasets:
  test_1:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: {gt}
    dataroot_lq: {lq}
    io_backend:
      type: disk
  test_2:
    name: without_truth
    type: SingleImageDataset
    dataroot_lq: {lq}
    io_backend:
      type: disk

network_g:
  type: SwinIR
  upscale: 2
  in_chans: 3
  img_size: 16
  window_size: 8
  img_range: 1.
  depths: [2]
  embed_dim: 12
  num_heads: [2]
  mlp_ratio: 2
  upsampler: 'pixelshuffledirect'
  resi_connection: '1conv'

path:
  pretrain_network_g: experiments/swinir/models/net_g_latest.pth
  param_key_g: params_ema
  strict_load_g: true
"""

MSRRESNET = """
name: msrresnet
model_type: SRModel
scale: 2
num_gpu: 0  # set num_gpu: 0 for cpu mode
manual_seed: 0

datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: {gt}
    dataroot_lq: {lq}
    io_backend:
      type: {backend}

    gt_size: 32
    use_hflip: true
    use_rot: true

    num_worker_per_gpu: 0
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 4
    prefetch_mode: cpu
    num_prefetch_queue: 2

  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: {gt}
    dataroot_lq: {lq}
    io_backend:
      type: {backend}

network_g:
  type: MSRResNet
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 8
  num_block: 1
  upscale: 2

path:
  pretrain_network_g: ~
  strict_load_g: true
  resume_state: ~

train:
  ema_decay: 0.9
  optim_g:
    type: AdamW
    lr: 2e-3
    weight_decay: 1e-4
    betas: [0.9, 0.99]

  scheduler:
    type: CosineAnnealingRestartLR
    periods: [6]
    restart_weights: [1]
    eta_min: !!float 1e-7

  total_iter: 8
  warmup_iter: 2

  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean

val:
  val_freq: 4
  save_img: true
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 0

logger:
  print_freq: 1
  save_checkpoint_freq: 4
  use_tb_logger: false

dist_params:
  backend: nccl
  port: 29500
"""


class Place:
    """Folders gt/ (64x64) and lq/ (32x32), option files beside them, results in out/."""

    def __init__(self, folder: Path, photos: dict[str, np.ndarray]):
        self.folder, self.root = folder, folder / "out"
        for name in ("gt", "lq"):
            (folder / name).mkdir()
        for name, photo in photos.items():
            gt = np.ascontiguousarray(photo[64:128, 64:128, ::-1])
            cv2.imwrite(str(folder / "gt" / f"{name}.png"), gt)
            cv2.imwrite(str(folder / "lq" / f"{name}.png"), cv2.resize(gt, (32, 32), interpolation=cv2.INTER_AREA))
        self.names = sorted(photos)

    def lmdb(self) -> None:
        for name in ("gt", "lq"):
            files = [f"{image}.png" for image in self.names]
            make_lmdb_from_imgs(str(self.folder / name), str(self.folder / f"{name}.lmdb"), files, self.names)

    def write(self, text: str, backend: str = "disk") -> str:
        suffix = ".lmdb" if backend == "lmdb" else ""
        path = self.folder / "options.yml"
        path.write_text(
            text.format(gt=self.folder / f"gt{suffix}", lq=self.folder / f"lq{suffix}", backend=backend),
            encoding="utf-8",
        )
        return str(path)

    def log(self, kind: str, name: str) -> str:
        """The newest log file's text."""
        folder = self.root / ("experiments" if kind == "train" else "results") / name
        return max(folder.glob(f"{kind}_{name}_*.log"), key=lambda path: path.stat().st_mtime_ns).read_text()


@pytest.fixture
def place(tmp_path, photos) -> Place:
    return Place(tmp_path, photos)


def losses(log: str) -> list[float]:
    return [float(value) for value in re.findall(r"l_pix: (\S+)", log)]


def test_swinir_from_disk_trains_and_tests_from_a_plain_option_file(place, monkeypatch):
    monkeypatch.chdir("/")
    assert trainer.main(["-opt", place.write(SWINIR), "--root", str(place.root)]) == 0
    log = place.log("train", "swinir")
    assert len(losses(log)) == 8 and losses(log)[-1] < losses(log)[0] and "Validation Set5" in log
    assert (place.root / "experiments/swinir/models/net_g_8.pth").is_file()
    assert list((place.root / "tb_logger/swinir").iterdir())
    # no val section at all; the network is given from the root folder
    assert tester.main(["-opt", place.write(SWINIR_TEST), f"--root={place.root}"]) == 0
    for dataset in ("Set5", "without_truth"):
        folder = place.root / "results/swinir_test/visualization" / dataset
        images = sorted(path.name for path in folder.iterdir())
        assert images == [f"{name}_swinir_test.png" for name in place.names]
        assert cv2.imread(str(folder / images[0])).shape == (64, 64, 3)
    assert "Testing Set5" in place.log("test", "swinir_test") and "Testing" not in place.log("train", "swinir")


def test_msrresnet_from_lmdb_trains_and_tests_from_a_plain_option_file(place):
    place.lmdb()
    arguments = ["-opt", place.write(MSRRESNET, "lmdb"), "--root", str(place.root)]
    assert trainer.main(arguments) == 0
    log = place.log("train", "msrresnet")
    assert len(losses(log)) == 8 and "# psnr" in log
    # the same file as a test file: the datasets' names aside, BasicSR takes it
    text = MSRRESNET.replace("  val:\n    name: Set5", "  test:\n    name: Set5")
    text = text[: text.index("  train:\n")] + text[text.index("  test:\n") :]
    state = torch.load(place.root / "experiments/msrresnet/models/net_g_latest.pth", weights_only=True)
    assert set(state) == {"params", "params_ema"}
    network = place.root / "experiments/msrresnet/models/net_g_latest.pth"
    arguments = ["-opt", place.write(text, "lmdb"), "--root", str(place.root), "--force_yml"]
    assert tester.main([*arguments, f"path:pretrain_network_g={network}", "name=a=b", "val:save_img=false"]) == 0
    assert re.search(r"# psnr: \d", place.log("test", "a=b"))


def start(*arguments: str, **kwargs) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **kwargs.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_killed_run_continues_from_its_last_whole_state(place, monkeypatch, tmp_path):
    options = place.write(MSRRESNET.replace("total_iter: 8", "total_iter: 100000"))
    run = place.root / "experiments/msrresnet"
    # as a script, from another folder than the second time
    process = start(str(PACKAGE / "train.py"), "-opt", options, "--root", str(place.root), cwd=tmp_path)
    try:
        deadline = time.time() + 120
        while not (run / "training_states/12.state").is_file():
            assert process.poll() is None and time.time() < deadline, process.communicate()[1][-2000:]
            time.sleep(0.05)
    finally:
        process.kill()  # SIGKILL
        process.communicate()
    states = sorted((run / "training_states").iterdir(), key=lambda path: int(path.stem))
    # of the one before: the kill may have left the newest empty
    states[-1].write_bytes(states[-2].read_bytes()[:1000])
    last = int(states[-2].stem)

    monkeypatch.chdir("/")
    arguments = [
        "-opt",
        options,
        "--root",
        str(place.root),
        "--auto_resume",
        "--force_yml",
        f"train:total_iter={last + 3}",
    ]
    with pytest.warns(UserWarning, match=f"{states[-1].name}' is truncated; trying the state before it"):
        assert trainer.main(arguments) == 0
    log = place.log("train", "msrresnet")
    assert f"iter: {last}." in log and len(losses(log)) == 3
    assert [path.name for path in (place.root / "experiments").iterdir()] == ["msrresnet"]


def test_auto_resume_without_a_state_says_where_it_looked_and_starts(place, capfd):
    arguments = ["-opt", place.write(MSRRESNET), "--root", str(place.root), "--auto_resume"]
    assert trainer.main([*arguments, "--force_yml", "train:total_iter=1"]) == 0
    assert f"no training state in {place.root / 'experiments/msrresnet/training_states'}" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("force", "message"),
    [
        ("num_gpu=1", "num_gpu: 1, but PyTorch finds no GPU here"),
        ("network_g:type=MSRResNte", "unknown arch type 'MSRResNte'; did you mean 'MSRResNet'?"),
        ("datasets:train:dataroot_gt=/no/such", "datasets.train.dataroot_gt: there is no folder '/no/such'"),
        ("path:resume_state=no.state", "path.resume_state: there is no file 'no.state'"),
        ("trian:lr=1", "no section 'trian'"),
    ],
)
def test_mistake_is_one_line_and_leaves_the_run_alone(place, capfd, monkeypatch, force, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = place.root / "experiments/msrresnet"
    run.mkdir(parents=True)
    before = sys.argv
    assert trainer.main(["-opt", place.write(MSRRESNET), "--root", str(place.root), "--force_yml", force]) == 2
    err = capfd.readouterr().err
    assert err.startswith("prompt-mamba: ") and message in err and err.count("\n") == 1
    assert list(place.root.rglob("*")) == [run.parent, run] and sys.argv is before


def test_corrupt_image_ends_training_in_one_line(place, capfd):
    (place.folder / "lq" / f"{place.names[1]}.png").write_bytes(b"no image")
    assert trainer.main(["-opt", place.write(MSRRESNET), "--root", str(place.root)]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("prompt-mamba: ")]
    assert lines == [f"prompt-mamba: corrupt image '{place.folder / 'lq' / place.names[1]}.png' (lq)"]


def test_command_line_mistakes_are_one_line(tmp_path, capfd):
    bad = tmp_path / "bad.yml"
    bad.write_text("name: x\ndatasets: [\n")
    for arguments, message in (
        (["-opt", str(tmp_path / "no.yml")], "there is no option file"),
        (["-opt", str(bad)], f"{bad}, line 3: "),
        (["-opt", str(bad), "--lanucher", "none"], "unrecognized arguments: --lanucher"),
        ([], "required: -opt"),
    ):
        for main in (trainer.main, tester.main):
            assert main(arguments) == 2
            err = capfd.readouterr().err
            assert err.startswith("prompt-mamba: ") and message in err and err.count("\n") == 1
    # the same as a process, as a script in its own folder and as a module
    ways = ((["train.py"], PACKAGE), (["-m", "prompt_mamba_arch.test"], PACKAGE.parent))
    for process in [start(*arguments, "-opt", str(bad), cwd=folder) for arguments, folder in ways]:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (2, "") and err.startswith(f"prompt-mamba: {bad}, line 3: ")
        assert err.count("\n") == 1


def test_two_processes_train_with_gloo_and_end_well(place):
    """torchrun; prefetching in threads, which ends one process in SIGABRT when nothing joins them."""
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(PACKAGE / "train.py")]
    process = start(
        *arguments, "-opt", place.write(MSRRESNET), "--launcher", "pytorch", "--root", str(place.root),
        cwd=place.folder, env={"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 0, err[-3000:]
    assert "SIGABRT" not in err and "terminate called" not in err
    assert len(losses(place.log("train", "msrresnet"))) == 8 and "World size (gpu number): 2" in err
    assert (place.root / "experiments/msrresnet/models/net_g_latest.pth").is_file()


def test_process_group_is_left_after_a_run(place, monkeypatch):
    """One process, in this one: a second run would find the first's group."""
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda allow_none=False: "spawn")  # leave it alone
    arguments = ["-opt", place.write(MSRRESNET), "--root", str(place.root), "--launcher", "pytorch", "--local-rank=0"]
    assert trainer.main([*arguments, "--force_yml", "train:total_iter=1"]) == 0
    assert "dist: True" in place.log("train", "msrresnet") and not torch.distributed.is_initialized()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_slurm_nodes_meet_and_say_a_common_mistake_once(place):
    """Two tasks on two "nodes" (both on loopback); the folders do not match, which both see once they have met."""
    (place.folder / "lq" / f"{place.names[0]}.png").unlink()
    arguments = ["-m", "prompt_mamba_arch.train", "-opt", place.write(MSRRESNET), "--launcher", "slurm"]
    arguments += ["--root", str(place.root), "--force_yml", f"dist_params:port={free_port()}"]
    nodes = {"SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "127.0.0.1,127.0.0.2"}
    nodes["CUDA_VISIBLE_DEVICES"] = ""
    processes = [start(*arguments, cwd=PACKAGE.parent, env={**nodes, "SLURM_PROCID": str(rank)}) for rank in range(2)]
    ends = [process.communicate(timeout=300) for process in processes]
    lines = [line for _, err in ends for line in err.splitlines() if line.startswith("prompt-mamba: ")]
    assert [process.returncode for process in processes] == [2, 2], ends
    assert len(lines) == 1 and "dataset 'DIV2K' (train): lq and gt datasets have different number of images" in lines[0]
