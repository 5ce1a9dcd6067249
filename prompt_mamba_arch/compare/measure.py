"""BasicSR's registered metrics on (H, W, 3) uint8 RGB images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

from prompt_mamba_arch import __version__
from prompt_mamba_arch.compare.cache import code_digest
from prompt_mamba_arch.compare.tasks import Compared
from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.memory import is_out_of_memory

__all__ = ["measured", "metric_identity", "metric_options", "of_set"]


def metric_options(metric: Mapping[str, Any], task: Compared) -> dict[str, Any]:
    """The metric's options with the task's protocol, where it can take it and the option file does not say otherwise:
    border, and luma."""
    known = inspect.signature(METRIC_REGISTRY.get(metric["type"])).parameters
    options = {key: value for key, value in metric.items() if key != "better"}
    if "crop_border" in known:
        options.setdefault("crop_border", task.border)
    if "test_y_channel" in known and task.luma:
        options.setdefault("test_y_channel", True)
    return options


def metric_identity(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a metric's values depend on beside the images: its options, and the code that computes it."""
    return {**options, "version": [__version__, code_digest(METRIC_REGISTRY.get(options["type"]))]}


def of_set(metric: Mapping[str, Any]) -> Callable[[list], float] | None:
    """For a metric of a whole set, such as FID: what makes its value of what is kept of each image."""
    return getattr(METRIC_REGISTRY.get(metric["type"]), "of_set", None)


def measured(options: Mapping[str, Any], result: np.ndarray, target: np.ndarray) -> float | list:
    """The value; of a metric of a whole set, what is kept of this image, as plain lists.

    Raises:
        UserError: the images differ in size, or are too small for the metric.
    """
    if result.shape != target.shape:
        raise UserError(f"a result of {result.shape[1]} x {result.shape[0]} pixels cannot be measured against "
                        f"{target.shape[1]} x {target.shape[0]}")  # fmt: skip
    images = {"img": np.ascontiguousarray(result[..., ::-1])}  # BasicSR's are BGR
    if "img2" in inspect.signature(METRIC_REGISTRY.get(options["type"])).parameters:
        images["img2"] = np.ascontiguousarray(target[..., ::-1])
    try:
        value = calculate_metric(images, dict(options))
    except (RuntimeError, ValueError, AssertionError, IndexError, cv2.error) as error:  # as of too few pixels
        if is_out_of_memory(error):
            raise
        raise UserError(f"{options['type']} cannot be computed of this image ({one_line(error)[:120]})") from None
    return float(value) if of_set(options) is None else np.asarray(value).tolist()
