"""compat/order.py: the training data's order and draws follow from the seed and the position alone."""

from __future__ import annotations

import logging
import pickle
import random
from collections import OrderedDict

import basicsr.train
import numpy as np
import pytest
import torch
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from prompt_mamba_arch.compat.order import Draw, Reproducible, ResumableSampler


@DATASET_REGISTRY.register()
class DrawingDataset(Dataset):
    """Ten samples that draw from every generator a dataset may use."""

    def __init__(self, opt):
        self.opt = opt

    def __len__(self):
        return 10

    def __getitem__(self, index):
        assert type(index) is int
        return {"index": index, "draws": [random.random(), np.random.rand(), torch.rand(()).item()]}


def loader(workers: int = 0, resumed=None, epoch: int = 0, batch: int = 2, **opt):
    train = OrderedDict(
        name="d", type="DrawingDataset", phase="train", num_worker_per_gpu=workers, batch_size_per_gpu=batch
    )
    opt = {
        "datasets": {"train": train},
        "num_gpu": 0,
        "dist": False,
        "rank": 0,
        "world_size": 1,
        "manual_seed": 7,
        **opt,
    }
    opt["train"] = {"total_iter": 100}
    if resumed is not None:
        opt["resumed"] = resumed
    loader, sampler, *_ = basicsr.train.create_train_val_dataloader(opt, logging.getLogger("order"))
    sampler.set_epoch(epoch)
    return loader


def seen(loader) -> list:
    return [
        (index, *draws)
        for batch in loader
        for index, draws in zip(batch["index"].tolist(), zip(*(column.tolist() for column in batch["draws"])))
    ]


def test_a_sample_follows_from_seed_epoch_and_position_alone():
    first = seen(loader())
    assert len(set(first)) == 10 and {sample[0] for sample in first} == set(range(10))
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    assert seen(loader()) == first
    assert seen(loader(workers=2)) == first
    other_epoch, other_seed = seen(loader(epoch=1)), seen(loader(manual_seed=8))
    draws = [{sample[1:] for sample in samples} for samples in (first, other_epoch, other_seed)]
    assert not draws[0] & draws[1] and not draws[0] & draws[2]
    assert [sample[0] for sample in first] == list(EnlargedSampler(range(10), 1, 0)), "BasicSR's order"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batches", [0, 2, 5])
def test_a_resumed_epoch_goes_on_behind_what_was_seen(workers, batches):
    whole = seen(loader(epoch=3))
    resumed = loader(workers, resumed={"epoch": 3, "iter": 15 + batches}, epoch=3)
    assert seen(resumed) == whole[2 * batches :]
    assert len(resumed) == 5, "the number of epochs is computed from it"
    resumed.sampler.set_epoch(4)
    assert seen(resumed) == seen(loader(epoch=4)), "the next epoch is whole"


def test_a_state_from_epochs_of_another_length_starts_its_epoch_again(caplog):
    logging.getLogger("basicsr").propagate = True
    assert len(seen(loader(resumed={"epoch": 3, "iter": 40}, epoch=3))) == 10
    assert "iteration 40 is not in epoch 3" in caplog.text


def test_draws_do_not_depend_on_the_number_of_processes():
    def draws(world: int) -> set:
        found = set()
        for rank in range(world):
            sampler = ResumableSampler(range(12), world, rank)
            sampler.seed = 5
            found |= {(int(draw), draw.origin) for draw in sampler}
        return found

    assert draws(1) == draws(2) == draws(3)


def test_what_travels_to_workers():
    draw = pickle.loads(pickle.dumps(Draw(4, (1, 2, 3))))
    assert draw == 4 and draw.origin == (1, 2, 3)
    dataset = pickle.loads(pickle.dumps(Reproducible(DrawingDataset({"name": "d"}))))
    assert dataset.opt == {"name": "d"} and len(dataset) == 10 and dataset[3]["index"] == 3


@pytest.mark.parametrize(("state", "seed"), [(None, 7), ({"manual_seed": 5}, 5), ({}, 7)])
def test_a_run_goes_on_with_the_seed_that_it_began_with(monkeypatch, tmp_path, state, seed):
    opt = {"auto_resume": False, "dist": False, "manual_seed": 7, "path": {"resume_state": None}}
    if state is not None:
        path = tmp_path / "4.state"
        torch.save({"epoch": 1, "iter": 4, "optimizers": [], "schedulers": [], **state}, path)
        opt["path"].update(resume_state=str(path), models=str(tmp_path))
    basicsr.train.load_resume_state(opt)
    assert opt["manual_seed"] == seed
    assert opt.get("resumed") == (None if state is None else {"epoch": 1, "iter": 4})
