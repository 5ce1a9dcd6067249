"""BasicSR's registered metrics on (H, W, 3) uint8 RGB images."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

from prompt_mamba_arch.compare.tasks import Compared
from prompt_mamba_arch.errors import UserError

__all__ = ["measured", "metric_options"]


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


def measured(options: Mapping[str, Any], result: np.ndarray, target: np.ndarray) -> float:
    """Raises:
    UserError: the images differ in size.
    """
    if result.shape != target.shape:
        raise UserError(f"a result of {result.shape[1]} x {result.shape[0]} pixels cannot be measured against "
                        f"{target.shape[1]} x {target.shape[0]}")  # fmt: skip
    images = {"img": np.ascontiguousarray(result[..., ::-1])}  # BasicSR's are BGR
    if "img2" in inspect.signature(METRIC_REGISTRY.get(options["type"])).parameters:
        images["img2"] = np.ascontiguousarray(target[..., ::-1])
    return float(calculate_metric(images, dict(options)))
