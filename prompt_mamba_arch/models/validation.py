"""Validation of one dataset: images shared among the processes, the same numbers as from one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.registry import METRIC_REGISTRY
from tqdm import tqdm

from prompt_mamba_arch.errors import UserError, plain_line, replace_on_success

__all__ = ["validate"]


def validate(model: Any, dataloader: Any, name: str, current_iter: int | str, save_img: bool) -> dict[str, float]:
    """Restores every image of `dataloader.dataset` and returns the mean of each metric.

    Process r of w takes images r, r + w, ... All come back with the same means, bit for bit those of one process. An
    exception in one process ends all of them.

    Args:
        model: offers `feed_data`, `test`, `get_current_visuals` and `opt`, as BasicSR's models do.
        name: the dataset's, a folder of the saved images.
        current_iter: the iteration, or the run's name in a test; part of the images' names.

    Raises:
        UserError: a metric needs the truth and the dataset has none; what the dataset raises.
    """
    val = model.opt["val"]
    metrics = val.get("metrics") or {}
    dataset = dataloader.dataset
    rank, world = get_dist_info()
    mine = range(rank, len(dataset), world)
    scores, failure = [], None
    try:
        for index in tqdm(mine, desc=name, unit="image", disable=not (val.get("pbar") and rank == 0)):
            data = dataloader.collate_fn([dataset[index]])
            result, truth = _restore(model, data)
            if save_img:
                _save(result, _image_path(model.opt, name, data, current_iter))
            scores.append((index, _score(result, truth, metrics, name)))
    except Exception as exc:
        if world == 1:
            raise
        failure = exc
    if world > 1:
        scores = _gather(scores, failure)
    return _means(scores, metrics, name)


def _restore(model: Any, data: Mapping) -> tuple[Any, Any]:
    """The result and the truth (or None) as uint8 BGR `(H, W, 3)`."""
    model.feed_data(data)
    model.test()
    visuals = model.get_current_visuals()
    model.lq = model.gt = model.output = None  # the next image may need the memory
    truth = tensor2img([visuals["gt"]]) if "gt" in visuals else None
    return tensor2img([visuals["result"]]), truth


def _image_path(opt: Mapping, name: str, data: Mapping, current_iter: int | str) -> Path:
    """BasicSR's, below a folder of the dataset's name. An image's key keeps its folders: names may repeat in them."""
    key = Path(data["key"][0]) if "key" in data else Path(Path(data["lq_path"][0]).stem)
    folder = Path(opt["path"]["visualization"], name)
    if opt["is_train"]:
        return folder / key / f"{key.name}_{current_iter}.png"
    return folder / key.parent / f"{key.name}_{opt['val'].get('suffix') or opt['name']}.png"


def _save(image: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(path) as temporary:
        imwrite(image, str(temporary))


def _score(result: Any, truth: Any, metrics: Mapping, name: str) -> dict[str, float]:
    images = {"img": result} if truth is None else {"img": result, "img2": truth}
    scores = {}
    for metric, options in metrics.items():
        if truth is None and "img2" in inspect.signature(METRIC_REGISTRY.get(options["type"])).parameters:
            raise UserError(f"val.metrics.{metric} needs the true images, and the dataset {name!r} has none")
        value = calculate_metric(images, options)
        # of a metric of the whole set, what it keeps of one image
        scores[metric] = value if _of_set(options) else float(value)
    return scores


def _of_set(options: Mapping) -> Callable[[list], float] | None:
    """For a metric of the whole set: what makes its value of what it keeps of each image."""
    kind = options.get("type")
    return getattr(METRIC_REGISTRY.get(kind), "of_set", None) if kind in METRIC_REGISTRY else None


def _gather(scores: list, failure: Exception | None) -> list:
    """The scores of all processes in the order of the images; raises in all if one of them failed."""
    _, world = get_dist_info()
    line = None if failure is None else plain_line(failure)
    shares = [None] * world
    dist.all_gather_object(shares, (scores, line, None if failure is None or line else repr(failure)))
    if failure is not None and line is None:
        raise failure
    for _, line, bug in shares:
        if line:
            raise UserError(line)
        if bug:
            raise RuntimeError(f"validation failed in another process: {bug}")
    return sorted((score for share, *_ in shares for score in share), key=lambda pair: pair[0])


def _means(scores: list[tuple[int, dict[str, float]]], metrics: Mapping, name: str) -> dict[str, float]:
    """Metric -> mean over the images, or what a metric of the whole set says. Values that are not finite would hide all
    others: they are counted, and left out."""
    means = {}
    for metric in metrics:
        values = [score[metric] for _, score in scores]
        if _of_set(metrics[metric]):
            means[metric] = _of_set(metrics[metric])(values)
            continue
        finite = [value for value in values if math.isfinite(value)]
        if len(finite) < len(values):
            get_root_logger().warning(
                f"{name}: {metric} is not finite for {len(values) - len(finite)} of {len(values)} images, which are "
                "not in the mean"
            )
        means[metric] = math.fsum(finite) / len(finite) if finite else math.nan
    return means
