"""Several datasets as one, for BasicSR allows only one under `train`."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from prompt_mamba_arch.data.dataset_options import check_dataset_keys, option
from prompt_mamba_arch.data.image_source import key_of
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError, did_you_mean

__all__ = ["PromptMixDataset", "schedule"]


@DATASET_REGISTRY.register()
class PromptMixDataset(Dataset):
    """Items of several datasets, each as often as its weight says, evenly interleaved.

    Index -> (dataset, item) is fixed: nothing is drawn at random. Each dataset's items come in turn, again from the
    first when all have been; BasicSR's sampler shuffles the indices as usual.

    Args:
        opt: the dataset section of the option file. BasicSR's general keys, and:
            datasets (list): a section for each, with its `type`, its own keys, and `weight` (default 1). `phase` and
                `scale` are passed on. Any registered dataset that gives `lq`, `gt`, `lq_path` and `gt_path` will do:
                without `prompt` its samples are blind.
            length (int): items of an epoch. Default: as many as it takes for every item of every dataset to come at
                least once (datasets that are small for their weight then come several times).

    A sample has `lq`, `gt`, `prompt`, `key`, `lq_path`, `gt_path`, `present`, `remove` and `recipe` ("" where there is
    none), whichever dataset it is from, so that samples of all can share a batch.

    Raises:
        UserError: a wrong option here or in one of the datasets, or `gt_size` that differ in training.
    """

    own_keys = ("datasets", "length")

    def __init__(self, opt: Mapping[str, Any]):
        super().__init__()
        check_dataset_keys(opt, self.own_keys)
        self.opt = opt
        sections = option(opt, "datasets", list, required=True)
        if not sections:
            raise UserError("datasets: the list is empty")
        self.datasets, self.weights = [], []
        for number, section in enumerate(sections, start=1):
            where = f"datasets[{number}]"
            if not isinstance(section, Mapping):
                raise UserError(f"{where} must be a section of keys and values, not {section!r}")
            section = copy.deepcopy(dict(section))  # BasicSR's datasets take keys out of theirs
            weight = section.pop("weight", 1)
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
                raise UserError(f"{where}: weight must be a number greater than 0, not {weight!r}")
            self.weights.append(float(weight))
            self.datasets.append(_build(section, opt, where))
        if opt.get("phase", "train") == "train":
            sizes = {section["gt_size"] for section in sections if section.get("gt_size") is not None}
            if len(sizes) > 1:
                raise UserError(f"datasets: a batch needs one gt_size for all of them, not {sorted(sizes)}")
        shares = [weight / sum(self.weights) for weight in self.weights]
        enough = max(math.ceil(len(data) / share - 1e-9) for data, share in zip(self.datasets, shares))
        self.plan = schedule(self.weights, option(opt, "length", int, default=enough, minimum=1))

    def __len__(self) -> int:
        return len(self.plan)

    def locate(self, index: int) -> tuple[int, int]:
        """(number of the dataset, index in it)."""
        dataset, turn = self.plan[index].tolist()
        return dataset, turn % len(self.datasets[dataset])

    def __getitem__(self, index: int) -> dict[str, Any]:
        dataset, item = self.locate(index)
        sample = self.datasets[dataset][item]
        gt_path = sample.get("gt_path", "")
        return {
            "lq": sample["lq"],
            "gt": sample["gt"],
            "prompt": sample.get("prompt", ""),
            "key": sample.get("key", key_of(gt_path)),
            "lq_path": sample.get("lq_path", gt_path),
            "gt_path": gt_path,
            "present": sample.get("present", torch.zeros(len(KINDS))),
            "remove": sample.get("remove", torch.zeros(len(KINDS))),
            "recipe": sample.get("recipe", ""),
        }


def schedule(weights: list[float], length: int) -> np.ndarray:
    """(length, 2) int64: which dataset, and its how-manieth turn, for each index.

    Shares are exact to one item (largest remainders), and a dataset's turns are spread evenly over the epoch.
    """
    exact = np.asarray(weights, np.float64) / sum(weights) * length
    turns = np.floor(exact + 1e-9).astype(np.int64)
    for dataset in np.argsort(turns - exact, kind="stable")[: length - int(turns.sum())]:
        turns[dataset] += 1
    which = np.repeat(np.arange(len(weights)), turns)
    turn = np.concatenate([np.arange(n) for n in turns])
    when = (turn + 0.5) / turns[which]
    return np.stack([which, turn], axis=1)[np.lexsort((which, when))]


def _build(section: dict, opt: Mapping[str, Any], where: str) -> Dataset:
    kind = section.get("type")
    known = [name for name in DATASET_REGISTRY.keys() if name != "PromptMixDataset"]
    if kind not in known:
        raise UserError(f"{where}: no dataset of type {kind!r}{did_you_mean(kind, known)}")
    section.setdefault("name", f"{opt.get('name', 'mix')}[{where}]")
    section.setdefault("phase", opt.get("phase", "train"))
    if "scale" in opt:
        section.setdefault("scale", opt["scale"])
    return DATASET_REGISTRY.get(kind)(section)
