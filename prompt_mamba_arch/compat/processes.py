"""Processes and devices: gloo without CUDA, SLURM, DDP on a CPU, the end of a run, one log file per run."""

from __future__ import annotations

import datetime
import functools
import logging
import os
import re
import shutil
import subprocess

import basicsr
import basicsr.test
import basicsr.train
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from basicsr.models.base_model import BaseModel
from basicsr.utils import dist_util
from basicsr.utils import logger as basicsr_logger
from basicsr.utils import options as basicsr_options
from torch.nn.parallel import DistributedDataParallel

from prompt_mamba_arch.errors import UserError

# rank 0 validates and saves while the others wait at the next collective call
_GLOO_TIMEOUT = datetime.timedelta(hours=6)


def first_slurm_host(nodelist: str) -> str:
    """The first host of SLURM's list: `gpu[007-009,12],login1` -> `gpu007`. Uses scontrol where there is one."""
    if shutil.which("scontrol"):
        names = subprocess.run(["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=False)
        if names.returncode == 0 and names.stdout.strip():
            return names.stdout.split()[0]
    name = re.match(r"[^,\[]*(?:\[[^\]]*\][^,\[]*)*", nodelist).group(0)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", name)


def _slurm_environment(port: int | None) -> None:
    """Tells torch.distributed what srun told this process. One process per task, on one or many nodes."""
    try:
        environment = {
            "RANK": os.environ["SLURM_PROCID"],
            "WORLD_SIZE": os.environ["SLURM_NTASKS"],
            "LOCAL_RANK": os.environ.get("SLURM_LOCALID", "0"),
            "MASTER_ADDR": first_slurm_host(os.environ.get("SLURM_JOB_NODELIST") or os.environ["SLURM_NODELIST"]),
        }
    except KeyError as exc:
        raise UserError(f"--launcher slurm: {exc.args[0]} is not set; start the processes with srun") from None
    os.environ.update(environment)
    if port is not None:
        os.environ["MASTER_PORT"] = str(port)
    os.environ.setdefault("MASTER_PORT", "29500")


def mend_init_dist() -> None:
    """`--launcher pytorch|slurm` without CUDA: ZeroDivisionError (rank % 0 GPUs), then nccl. Uses gloo there; with CUDA
    BasicSR's function does its work, unless the option file keeps this run on the CPU (num_gpu: 0 asks for gloo)."""
    original = dist_util.init_dist

    def init_dist(launcher: str, backend: str = "nccl", **kwargs: object) -> None:
        if launcher == "pytorch" and "RANK" not in os.environ:
            raise UserError("--launcher pytorch: start the processes with torchrun")
        if torch.cuda.is_available() and backend != "gloo":
            original(launcher, backend, **kwargs)
            return
        if mp.get_start_method(allow_none=True) is None:
            mp.set_start_method("spawn")  # as BasicSR: forking after gloo's threads have started is not safe
        port = kwargs.pop("port", None)
        if launcher == "slurm":
            _slurm_environment(port)
        dist.init_process_group(backend="gloo", timeout=_GLOO_TIMEOUT, **kwargs)

    dist_util.init_dist = basicsr_options.init_dist = init_dist


def mend_model_to_device() -> None:
    """DDP is given the current CUDA device even on a CPU: RuntimeError, no NVIDIA driver."""
    original = BaseModel.model_to_device

    def model_to_device(self: BaseModel, net: torch.nn.Module) -> torch.nn.Module:
        if self.device.type != "cpu":
            return original(self, net)
        net = net.to(self.device)
        if self.opt["dist"]:
            net = DistributedDataParallel(net, find_unused_parameters=self.opt.get("find_unused_parameters", False))
        return net

    BaseModel.model_to_device = model_to_device


def _close_log() -> None:
    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    basicsr_logger.initialized_logger.pop("basicsr", None)


def _leave_process_group() -> None:
    # with nccl as BasicSR: a barrier there would fail after ten minutes, while rank 0 may still validate
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == "gloo":
        dist.barrier()
        dist.destroy_process_group()


def mend_pipelines() -> None:
    """A second run in one process writes into the first run's log file (and the first writes none, if anything has
    asked for the logger before); two processes end in SIGABRT, as nothing leaves the process group.

    After an error the group stays as it is: the other processes are not at the barrier, and this one is about to exit.
    """

    def around(pipeline: object) -> object:
        @functools.wraps(pipeline)
        def run(root_path: str) -> None:
            _close_log()
            try:
                pipeline(root_path)
                _leave_process_group()
            finally:
                _close_log()

        return run

    basicsr.train_pipeline = basicsr.train.train_pipeline = around(basicsr.train.train_pipeline)
    basicsr.test_pipeline = basicsr.test.test_pipeline = around(basicsr.test.test_pipeline)


MENDS = (mend_init_dist, mend_model_to_device, mend_pipelines)
