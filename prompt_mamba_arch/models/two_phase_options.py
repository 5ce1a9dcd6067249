"""The option file of PromptTwoPhaseModel: which keys there are, what they may hold, what they freeze."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping

import torch
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from torch import nn

from prompt_mamba_arch.data.dataset_options import GENERAL_KEYS
from prompt_mamba_arch.errors import UserError, check_keys, check_number, did_you_mean

__all__ = [
    "AMP_DTYPES",
    "LOSSES",
    "PHASES",
    "check_options",
    "frozen_parameters",
    "takes_prompts",
    "text_parameters",
]

PHASES = ("pretrain", "finetune")
AMP_DTYPES = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# section of `train` -> name of its value in the log
LOSSES = {"pixel_opt": "l_pix", "frequency_opt": "l_freq", "perceptual_opt": "l_percep"}

_KEYS = {
    "": "name model_type scale num_gpu manual_seed datasets network_g path train val logger text_encoder "
    "dist_params find_unused_parameters",
    "train": "phase prompt_dropout sentence_share text_gate_std freeze amp grad_clip accumulate ema_decay optim_g "
    "scheduler total_iter warmup_iter pixel_opt frequency_opt perceptual_opt intent_opt",
    "val": "val_freq save_img suffix pbar metrics prompt self_ensemble",
    "path": "pretrain_network_g param_key_g strict_load_g resume_state ignore_resume_networks",
    "logger": "print_freq save_checkpoint_freq use_tb_logger wandb",
    "logger.wandb": "project resume_id",
    "text_encoder": "model device",
}
# what BasicSR, and our mends of it, write into the options before they reach the model
_WRITTEN = {
    "": "is_train dist rank world_size auto_resume root_path resumed",
    "path": "experiments_root models training_states log visualization results_root",
}


def check_options(opt: Mapping, is_train: bool) -> None:
    """Refuses misspelt keys, missing ones and values that make no sense, before anything is built.

    The values in `datasets` are left to the datasets, and the constructor's arguments in `network_g` to the check that
    all networks go through.

    Raises:
        UserError: the first mistake, with the key where it stands.
    """
    for where, keys in _KEYS.items():
        section = _section(opt, where)
        if section is not None:
            check_keys(section, f"{keys} {_WRITTEN.get(where, '')}".split(), where or "the option file")
    for name, section in opt["datasets"].items():
        own_keys = getattr(DATASET_REGISTRY.get(section["type"]), "own_keys", None) if section.get("type") else None
        if own_keys is not None:
            check_keys(section, (*GENERAL_KEYS, *own_keys), f"datasets.{name}")
    if is_train:
        _check_train(opt)
    _check_val(opt, is_train)


def _section(opt: Mapping, where: str) -> Mapping | None:
    for key in where.split(".") if where else ():
        opt = (opt or {}).get(key)
    return opt


def _check_train(opt: Mapping) -> None:
    train = opt.get("train") or {}
    phase = train.get("phase")
    if phase not in PHASES:
        told = "train lacks 'phase'" if phase is None else f"train.phase: {phase!r} is unknown"
        hint = did_you_mean(phase, PHASES) or "; write phase: pretrain or phase: finetune"
        raise UserError(f"{told}{hint}")
    for key in ("prompt_dropout", "sentence_share", "text_gate_std"):
        if phase == "pretrain" and key in train:
            raise UserError(f"train.{key} means nothing in phase pretrain, which reads no prompts; remove it")
    check_number(train, "prompt_dropout", 0, 1, where="train")
    check_number(train, "sentence_share", 0, 1, where="train")
    if train.get("sentence_share") is not None and not (opt.get("network_g") or {}).get("wishes"):
        raise UserError("train.sentence_share is for networks that are told wishes; write network_g.wishes: true")
    check_number(train, "text_gate_std", 0, where="train")
    check_number(train, "ema_decay", 0, 1, below=True, where="train")
    check_number(train, "grad_clip", 0, above=True, where="train")
    check_number(train, "accumulate", 1, whole=True, where="train")
    check_number(train, "total_iter", 0, whole=True, where="train")
    check_number(train, "warmup_iter", -1, whole=True, where="train")

    _check_intent(train, phase)

    amp = train.get("amp") or "none"
    if amp not in AMP_DTYPES:
        raise UserError(f"train.amp: {amp!r} is not one of none, bf16, fp16")
    if amp == "fp16" and (opt["num_gpu"] == 0 or not torch.cuda.is_available()):
        raise UserError("train.amp: fp16 needs a GPU; on the CPU write amp: bf16 or amp: none")

    batch = ((opt.get("datasets") or {}).get("train") or {}).get("batch_size_per_gpu")
    if isinstance(batch, int) and train.get("accumulate", 1) > batch:
        raise UserError(
            f"train.accumulate: a batch of {batch} (datasets.train.batch_size_per_gpu) has no {train['accumulate']} "
            "parts"
        )
    for key in ("optim_g", "scheduler"):
        if not isinstance(train.get(key), Mapping) or train[key].get("type") is None:
            raise UserError(f"train.{key} lacks 'type'")
    if train["optim_g"].get("lr") is None:
        raise UserError("train.optim_g lacks 'lr'")
    check_number(train["optim_g"], "lr", 0, where="train.optim_g")
    check_number(train["optim_g"], "weight_decay", 0, where="train.optim_g")
    _check_losses(train)
    _check_freeze(train.get("freeze"))


def _check_losses(train: Mapping) -> None:
    sections = {key: train[key] for key in LOSSES if train.get(key)}
    if not sections:
        raise UserError(f"train has no loss; give it one of {', '.join(LOSSES)}")
    for key, section in sections.items():
        where = f"train.{key}"
        if not isinstance(section, Mapping) or not section.get("type"):
            raise UserError(f"{where} lacks 'type'")
        try:
            loss = LOSS_REGISTRY.get(section["type"])
        except KeyError as exc:
            raise UserError(f"{where}: {exc}") from None
        parameters = inspect.signature(loss).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            check_keys(section, ("type", *(p.name for p in parameters)), f"{where} ({section['type']})")


def _check_intent(train: Mapping, phase: str) -> None:
    section = train.get("intent_opt")
    if section is None:
        return
    if phase == "pretrain":
        raise UserError("train.intent_opt means nothing in phase pretrain, which reads no prompts; remove it")
    if isinstance(section, Mapping):
        check_keys(section, ("loss_weight",), "train.intent_opt")
    if not isinstance(section, Mapping) or section.get("loss_weight") is None:
        raise UserError("train.intent_opt lacks 'loss_weight'; write intent_opt: {loss_weight: 0.1}")
    check_number(section, "loss_weight", 0, above=True, where="train.intent_opt")


def _check_freeze(freeze: object) -> None:
    if freeze in (None, "none", "backbone"):
        return
    if isinstance(freeze, str):
        hint = did_you_mean(freeze, ("none", "backbone")) or f"; for a regular expression write freeze: ['{freeze}']"
        raise UserError(f"train.freeze: {freeze!r} is neither none nor backbone{hint}")
    if not isinstance(freeze, (list, tuple)) or not all(isinstance(pattern, str) for pattern in freeze):
        raise UserError(f"train.freeze must be none, backbone or a list of regular expressions, not {freeze!r}")
    for pattern in freeze:
        try:
            re.compile(pattern)
        except re.error as exc:
            raise UserError(f"train.freeze: {pattern!r} is no regular expression ({exc})") from None


def _check_val(opt: Mapping, is_train: bool) -> None:
    val = opt.get("val") or {}
    prompt = val.get("prompt")
    if "prompt" in val and (not isinstance(prompt, str) or not prompt.strip()):
        raise UserError(f"val.prompt must be from_dataset, none or a text, not {prompt!r}")
    if not isinstance(val.get("self_ensemble", False), bool):
        raise UserError(f"val.self_ensemble must be true or false, not {val['self_ensemble']!r}")
    if is_train and opt["train"]["phase"] == "pretrain" and prompt not in (None, "none"):
        raise UserError("val.prompt: phase pretrain knows no prompts; write prompt: none or leave it out")
    for name, section in (val.get("metrics") or {}).items():
        where = f"val.metrics.{name}"
        if not isinstance(section, Mapping) or not section.get("type"):
            raise UserError(f"{where} lacks 'type'")
        if section.get("better", "higher") not in ("higher", "lower"):
            raise UserError(f"{where}.better must be higher or lower, not {section['better']!r}")
        try:
            metric = METRIC_REGISTRY.get(section["type"])
        except KeyError as exc:
            raise UserError(f"{where}: {exc}") from None
        # BasicSR's metrics swallow every keyword, a misspelt one too; other packages' may mean it
        if metric.__module__.split(".")[0] in ("basicsr", "prompt_mamba_arch"):
            named = [p.name for p in inspect.signature(metric).parameters.values() if p.kind is not p.VAR_KEYWORD]
            named = [key for key in named if key not in ("img", "img2")]
            check_keys(section, ("type", "better", *named), f"{where} ({section['type']})")


def takes_prompts(net: nn.Module) -> bool:
    """Whether `forward` has an argument `prompt`."""
    return "prompt" in inspect.signature(net.forward).parameters


def text_parameters(net: nn.Module) -> set[str]:
    """Names of the parameters that only prompts use; none for a network without prompts."""
    return set(net.text_parameters()) if hasattr(net, "text_parameters") else set()


def frozen_parameters(net: nn.Module, phase: str, freeze: str | Iterable[str] | None) -> set[str]:
    """Names of the parameters that `train.phase` and `train.freeze` keep as they are.

    Args:
        net: the bare network.
        phase: `pretrain` freezes the text parameters.
        freeze: `none`, `backbone` (all but the text parameters), or regular expressions, which `re.search` looks for in
            the parameters' names.

    Raises:
        UserError: an expression that matches no parameter, or nothing is left to train.
    """
    names = [name for name, _ in net.named_parameters()]
    text = text_parameters(net)
    frozen = set(text) if phase == "pretrain" else set()
    if freeze == "backbone":
        frozen.update(name for name in names if name not in text)
    elif freeze not in (None, "none"):
        for pattern in freeze:
            matched = [name for name in names if re.search(pattern, name)]
            if not matched:
                raise UserError(
                    f"train.freeze: no parameter matches {pattern!r}; they are named {names[0]}, {names[-1]} …"
                )
            frozen.update(matched)
    if len(frozen) == len(names):
        raise UserError(f"train.freeze: nothing is left to train in phase {phase}")
    return frozen
