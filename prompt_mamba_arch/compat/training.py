"""Optimizers, learning rates, the number of epochs, metrics."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence

import basicsr
import basicsr.metrics
import basicsr.train
import numpy as np
import torch
from basicsr.models import lr_scheduler
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger

from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean, one_line
from prompt_mamba_arch.half_precision import crawls_in_bfloat16


def _arguments(factory: object) -> list[str]:
    return [name for name in inspect.signature(factory).parameters if name not in ("self", "params", "optimizer")]


def muon() -> type[torch.optim.Optimizer]:
    """timm's: that of torch takes matrices alone, this one convolutions too, and gives what is neither to AdamW.

    Raises:
        UserError: there is no timm, or one that is too old.
    """
    try:
        import timm.optim.muon as timm_muon
        from timm.optim import Muon
    except ImportError:
        Muon = None
    # before 1.0.27 the schedule did not reach what AdamW is given
    if Muon is None or "fallback_lr_scale" not in _arguments(Muon):
        raise UserError('the optimizer Muon comes with timm: pip install "timm>=1.0.27"')
    if not hasattr(timm_muon.zeropower_via_newtonschulz, "__wrapped__"):
        timm_muon.zeropower_via_newtonschulz = _in_float32_where_needed(timm_muon.zeropower_via_newtonschulz)
    return Muon


def _in_float32_where_needed(orthogonalize: Callable) -> Callable:
    """timm computes in bfloat16 wherever it is: on processors without its instructions a step takes seconds."""

    @functools.wraps(orthogonalize)
    def run(matrix: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        if crawls_in_bfloat16(matrix.device):
            kwargs.setdefault("dtype", torch.float32)
        return orthogonalize(matrix, *args, **kwargs)

    return run


def mend_get_optimizer() -> None:
    """The PyPI release of BasicSR knows Adam only: AdamW, which most transformers train with, is
    NotImplementedError. Muon (Jordan et al. 2024) is there as well."""

    def get_optimizer(
        self: BaseModel, optim_type: str, params: Iterable, lr: float, **kwargs: object
    ) -> torch.optim.Optimizer:
        known = {name: thing for name, thing in vars(torch.optim).items() if inspect.isclass(thing)}
        known = {name: thing for name, thing in known.items() if issubclass(thing, torch.optim.Optimizer)}
        if optim_type == "Muon":
            known["Muon"] = muon()
        if optim_type not in known:
            raise UserError(f"unknown optimizer type {optim_type!r}{did_you_mean(optim_type, known)}")
        check_keys(kwargs, _arguments(known[optim_type]), f"the optimizer {optim_type}")
        try:
            return known[optim_type](params, lr=lr, **kwargs)
        except (TypeError, ValueError) as exc:
            raise UserError(f"the optimizer {optim_type} refuses a value: {one_line(exc)}") from exc

    BaseModel.get_optimizer = get_optimizer


class CosineAnnealingRestartCyclicLR(lr_scheduler.CosineAnnealingRestartLR):
    """Cosine annealing with restarts where every cycle has its own floor (Restormer, arXiv 2111.09881, and its
    options).

    In cycle i of `periods[i]` iterations the rate goes from `restart_weights[i]` times the base rate (with the
    floor's part of it, as in CosineAnnealingRestartLR) down to `eta_mins[i]`, and stays there after the last cycle.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        periods: Sequence[int],
        restart_weights: Sequence[float] = (1,),
        eta_mins: Sequence[float] = (0,),
        last_epoch: int = -1,
    ):
        if len(eta_mins) != len(periods):
            raise UserError("train.scheduler: periods and eta_mins must be equally many")
        self.eta_mins = eta_mins
        super().__init__(optimizer, periods, restart_weights, last_epoch=last_epoch)

    def get_lr(self) -> list[float]:
        self.eta_min = self.eta_mins[lr_scheduler.get_position_from_periods(self.last_epoch, self.cumulative_period)]
        return super().get_lr()


def mend_cosine_end() -> None:
    """Both cosine schedules fail past sum(periods) ("list indices must be integers, not NoneType"). The rate stays at
    its floor there."""
    position = lr_scheduler.get_position_from_periods
    get_lr = lr_scheduler.CosineAnnealingRestartLR.get_lr

    def clamped_position(iteration: int, cumulative_period: Sequence[int]) -> int:
        return position(min(iteration, cumulative_period[-1]), cumulative_period)

    def clamped_get_lr(self: lr_scheduler.CosineAnnealingRestartLR) -> list[float]:
        if self.last_epoch > self.cumulative_period[-1]:
            return [self.eta_min for _ in self.base_lrs]
        return get_lr(self)

    lr_scheduler.get_position_from_periods = clamped_position
    lr_scheduler.CosineAnnealingRestartLR.get_lr = clamped_get_lr


def mend_setup_schedulers() -> None:
    """Restormer's CosineAnnealingRestartCyclicLR and torch's own schedules are NotImplementedError. Those that torch
    steps without an argument are known by their names here; NAFNet's TrueCosineAnnealingLR is torch's
    CosineAnnealingLR."""
    lr_scheduler.CosineAnnealingRestartCyclicLR = CosineAnnealingRestartCyclicLR
    base = torch.optim.lr_scheduler.LRScheduler
    left_out = ("LRScheduler", "_LRScheduler", "ReduceLROnPlateau")
    known = {
        name: thing
        for module in (torch.optim.lr_scheduler, lr_scheduler)
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and issubclass(thing, base) and name not in left_out
    }
    known["MultiStepLR"] = lr_scheduler.MultiStepRestartLR  # as in BasicSR, whose option files say MultiStepLR
    known["TrueCosineAnnealingLR"] = torch.optim.lr_scheduler.CosineAnnealingLR

    def setup_schedulers(self: BaseModel) -> None:
        options = dict(self.opt["train"].get("scheduler") or {})
        name = options.pop("type", None)
        if name not in known:
            raise UserError(f"train.scheduler: unknown type {name!r}{did_you_mean(name, known)}")
        check_keys(options, _arguments(known[name]), f"train.scheduler ({name})")
        try:
            self.schedulers.extend(known[name](optimizer, **options) for optimizer in self.optimizers)
        except (TypeError, ValueError, AssertionError) as exc:
            raise UserError(f"train.scheduler ({name}): {exc}") from exc

    BaseModel.setup_schedulers = setup_schedulers


def mend_warmup() -> None:
    """MultiStepLR after warmup_iter: W stays at base * (W - 1) / W for good, as it goes on from the rate that the
    warm-up wrote into the optimizer. Every schedule that chains from the current rate has this; so each goes on from
    its own."""
    original = BaseModel.update_learning_rate

    def update_learning_rate(self: BaseModel, current_iter: int, warmup_iter: int = -1) -> None:
        if 1 < current_iter <= warmup_iter:
            for scheduler in self.schedulers:
                for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr()):
                    group["lr"] = rate
        original(self, current_iter, warmup_iter)

    BaseModel.update_learning_rate = update_learning_rate


def mend_epochs() -> None:
    """An epoch's incomplete last batch is dropped but counted: 9 images in batches of 8 stop after about half of
    total_iter, and fewer images than a batch train nothing at all, both without a word."""
    original = basicsr.train.create_train_val_dataloader

    def create_train_val_dataloader(opt: dict, logger: object) -> tuple:
        train_loader, train_sampler, val_loaders, total_epochs, total_iters = original(opt, logger)
        if len(train_loader) == 0:
            raise UserError(
                f"datasets.train: {len(train_loader.dataset)} images make no batch of {train_loader.batch_size} "
                "per process; lower batch_size_per_gpu or raise dataset_enlarge_ratio"
            )
        total_epochs = max(total_epochs, math.ceil(total_iters / len(train_loader)))
        return train_loader, train_sampler, val_loaders, total_epochs, total_iters

    basicsr.create_train_val_dataloader = basicsr.train.create_train_val_dataloader = create_train_val_dataloader


# dB; beyond what 8-bit images show: one wrong step in a million samples is 108 dB, in a thousand 78 dB
_IDENTICAL = 100.0


def mend_infinite_psnr() -> None:
    """The PSNR of one restored image that equals its truth is inf, and so is the mean over the dataset. In validation
    it counts as 100 dB, with a warning; `calculate_psnr` itself stays as it is."""
    original = basicsr.metrics.calculate_metric

    @functools.wraps(original)
    def calculate_metric(data: dict, opt: dict) -> float:
        value = original(data, opt)
        if isinstance(value, float) and math.isinf(value) and "psnr" in opt["type"]:
            get_root_logger().warning(
                f"{opt['type']}: an image equals its truth; it counts as {_IDENTICAL:g} dB in the mean"
            )
            return _IDENTICAL
        return value

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "basicsr" and getattr(module, "calculate_metric", None) is original:
            module.calculate_metric = calculate_metric


def mend_luma() -> None:
    """PSNR and SSIM of the luma channel are of numbers rounded to float32, which moves PSNR in the seventh digit: other
    programs' numbers, scikit-image's for one, come out otherwise."""
    from basicsr.metrics import psnr_ssim

    original = psnr_ssim.to_y_channel

    @functools.wraps(original)
    def to_y_channel(img: np.ndarray) -> np.ndarray:
        if img.ndim != 3 or img.shape[2] != 3:
            return original(img)
        # ITU-R BT.601, 16 to 235, from BGR
        return (img.astype(np.float64) @ np.array([24.966, 128.553, 65.481]) / 255 + 16)[..., None]

    psnr_ssim.to_y_channel = to_y_channel


MENDS = (
    mend_get_optimizer,
    mend_luma,
    mend_cosine_end,
    mend_setup_schedulers,
    mend_warmup,
    mend_epochs,
    mend_infinite_psnr,
)
