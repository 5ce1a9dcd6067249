"""The order of the training data and the random draws of each sample: functions of the seed and the position, so that a
resumed run goes on as if it had never stopped."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import basicsr
import basicsr.train
import numpy as np
import torch
import torch.distributed as dist
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.utils import get_root_logger
from torch.utils.data import DataLoader, Dataset


class Draw(int):
    """An index into the dataset that knows where in the training it is drawn: `origin` is (seed, epoch, position)."""

    def __new__(cls, index: int, origin: tuple[int, int, int]):
        draw = super().__new__(cls, index)
        draw.origin = origin
        return draw

    def __getnewargs__(self) -> tuple:  # it travels to DataLoader workers
        return int(self), self.origin


class ResumableSampler(EnlargedSampler):
    """BasicSR's order of indices, as `Draw`s; one epoch can start behind the samples that a run has had before it was
    interrupted.

    Attributes:
        seed: the run's `manual_seed`.
        resumed: (epoch, samples of it that this process has had).
    """

    seed = 0
    resumed = (-1, 0)

    def __iter__(self) -> Iterator[Draw]:
        epoch, had = self.resumed
        start = had if epoch == self.epoch else 0
        for number, index in enumerate(super().__iter__()):
            if number >= start:
                # the position in the epoch's order of all processes: the draws do not depend on their number
                yield Draw(index, (self.seed, self.epoch, number * self.num_replicas + self.rank))


class Reproducible(Dataset):
    """A dataset whose sample is a function of a Draw alone: of no earlier sample, of no worker."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> object:
        if name == "dataset" or name.startswith("__"):  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> object:
        if isinstance(index, Draw):
            words = np.random.SeedSequence(index.origin).generate_state(4)
            random.seed(words.tobytes())
            np.random.seed(words)
            if threading.current_thread() is threading.main_thread():  # torch's belongs to the network beside a thread
                torch.default_generator.manual_seed(int.from_bytes(words[:2].tobytes(), "little"))
        return self.dataset[int(index)]


def _one_seed(opt: dict, state: dict | None) -> None:
    """The seed that the run began with, in all processes: without `manual_seed` BasicSR takes a random one in each, and
    another one when resuming."""
    seed = opt.get("manual_seed")
    if opt.get("dist"):
        seeds = [seed]
        dist.broadcast_object_list(seeds)
        seed = seeds[0]
    opt["manual_seed"] = (state or {}).get("manual_seed", seed)


def mend_data_order() -> None:
    """Resuming starts the epoch again: the first images are seen twice, the last ones of a long epoch perhaps never.
    Flips and crops depend on which worker has had which samples before, and repeat in every epoch, as every epoch's
    workers begin with the same seeds.

    Sample k of epoch e now follows from (manual_seed, e, k), and a resumed epoch goes on behind the batches that the
    training state has seen.
    """
    create, load, build = (
        basicsr.train.create_train_val_dataloader,
        basicsr.train.load_resume_state,
        basicsr.train.build_dataloader,
    )

    def load_resume_state(opt: dict) -> dict | None:
        state = load(opt)
        _one_seed(opt, state)
        if state is not None:
            opt["resumed"] = {"epoch": state["epoch"], "iter": state["iter"]}
        return state

    def build_dataloader(dataset: Dataset, dataset_opt: dict, **kwargs: object) -> DataLoader:
        if isinstance(kwargs.get("sampler"), ResumableSampler):
            dataset = Reproducible(dataset)
        return build(dataset, dataset_opt, **kwargs)

    def create_train_val_dataloader(opt: dict, logger: object) -> tuple:
        train_loader, train_sampler, *rest = create(opt, logger)
        train_sampler.seed = opt["manual_seed"] or 0
        if opt.get("resumed"):
            epoch, iteration = opt["resumed"]["epoch"], opt["resumed"]["iter"]
            batches = iteration - epoch * len(train_loader)
            if 0 <= batches <= len(train_loader):
                train_sampler.resumed = (epoch, batches * train_loader.batch_size)
            else:
                get_root_logger().warning(
                    f"iteration {iteration} is not in epoch {epoch}, as the epochs had another length when it was "
                    "saved (other images, batch size or number of processes); the epoch starts again"
                )
        return (train_loader, train_sampler, *rest)

    basicsr.train.EnlargedSampler = ResumableSampler
    basicsr.train.build_dataloader = build_dataloader
    basicsr.load_resume_state = basicsr.train.load_resume_state = load_resume_state
    basicsr.create_train_val_dataloader = basicsr.train.create_train_val_dataloader = create_train_val_dataloader


MENDS = (mend_data_order,)
