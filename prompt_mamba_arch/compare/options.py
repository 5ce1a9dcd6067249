"""The option file of a comparison, read and checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.utils.registry import METRIC_REGISTRY

from prompt_mamba_arch.compat.options import force_options, read_option_file
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean

__all__ = ["BLIND", "ORACLE", "Plan", "read_plan"]

BLIND, ORACLE = "none", "oracle"
METRICS = {"psnr": {"type": "calculate_psnr"}, "ssim": {"type": "calculate_ssim"}}
TASK_KEYS = ("set", "images", "degrade", "remove", "lq", "gt", "scale", "luma", "border", "prompt", "limit", "crop")
_TOP = (
    *("name", "output", "root", "limit", "crop", "prompt", "tasks", "methods", "metrics", "reference", "bootstrap"),
    *("cost", "report", "device"),
)


@dataclass(frozen=True)
class Plan:
    """What is compared on what.

    Attributes:
        name: of the comparison, a title.
        output: folder of the report; the cache is in it.
        root: folder of the test sets that tasks name by `set`, or None.
        limit, crop: only so many images of each task; only the middle so many pixels a side. Tasks may say otherwise.
        prompt: `none` (blind), `oracle` (the sentence that the test set's protocol has, which says what was done), or a
            text. Tasks and methods may say otherwise; the method's word counts most.
        tasks, methods, metrics: name -> options. A metric's have BasicSR's `type`, and `better`: higher or lower.
        reference: the method that others are compared with.
        samples, confidence, seed: of the bootstrap.
        cost: `{"size", "rounds", "threads"}`, or None: no times are taken.
        examples, example_pixels: pictures of each task in the report, and their side.
        device: as `Restorer.from_pretrained` takes it.
    """

    name: str
    output: Path
    root: Path | None
    limit: int | None
    crop: int | None
    prompt: str
    tasks: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Any]]
    reference: str
    samples: int
    confidence: float
    seed: int
    cost: Mapping[str, int] | None
    examples: int
    example_pixels: int
    device: str


def read_plan(path: str | os.PathLike, force: Sequence[str] = ()) -> Plan:
    """Reads `options/compare/*.yml`.

    Args:
        force: `section:key=value` entries, which count more than the file.

    Raises:
        UserError: no such file, a key, task, method or metric that is not known, or a value of the wrong kind.
    """
    options = read_option_file(path)
    force_options(options, force)
    check_keys(options, _TOP, "the option file")
    name = str(options.get("name") or Path(path).stem)
    tasks, methods = (_sections(options, key) for key in ("tasks", "methods"))
    for key, task in tasks.items():
        check_keys(task, TASK_KEYS, f"tasks.{key}")
        _number(task, "limit", f"tasks.{key}.limit")
        _number(task, "crop", f"tasks.{key}.crop")
        _number(task, "border", f"tasks.{key}.border", 0)
        _prompt(task, f"tasks.{key}.prompt")
        if not isinstance(task.get("luma"), (bool, type(None))):
            raise UserError(f"tasks.{key}.luma must be true or false, not {task['luma']!r}")
    for key, method in methods.items():
        _prompt(method, f"methods.{key}.prompt")
        if not isinstance(method.get("only") or [], list):
            raise UserError(f"methods.{key}.only must be a list of tasks, not {method['only']!r}")
        for only in method.get("only") or ():
            if only not in tasks:
                raise UserError(f"methods.{key}.only names no task: {only!r}{did_you_mean(only, tasks)}")
    metrics = _sections(options, "metrics") if options.get("metrics") is not None else METRICS
    for key, metric in metrics.items():
        _check_metric(key, metric)
    reference = options.get("reference", next(iter(methods)))
    if reference not in methods:
        raise UserError(f"reference names no method: {reference!r}{did_you_mean(reference, methods)}")
    bootstrap = _section(options, "bootstrap", {"samples": 10000, "confidence": 0.95, "seed": 0})
    if not 0 < bootstrap["confidence"] < 1:
        raise UserError(f"bootstrap.confidence must be between 0 and 1, not {bootstrap['confidence']!r}")
    _number(bootstrap, "samples", "bootstrap.samples")
    _number(bootstrap, "seed", "bootstrap.seed", 0)
    report = _section(options, "report", {"examples": 2, "pixels": 160})
    _number(report, "examples", "report.examples", 0)
    _number(report, "pixels", "report.pixels")
    cost = None
    if "cost" not in options or options["cost"] is not None:
        cost = _section(options, "cost", {"size": 256, "rounds": 5, "threads": 1})
        for key in cost:
            _number(cost, key, f"cost.{key}")
    root = options.get("root")
    return Plan(
        name=name,
        output=Path(str(options.get("output") or f"results/compare/{name}")).expanduser(),
        root=None if root is None else Path(str(root)).expanduser(),
        limit=_number(options, "limit", "limit"),
        crop=_number(options, "crop", "crop"),
        prompt=_prompt(options, "prompt") or BLIND,
        tasks=tasks,
        methods=methods,
        metrics=metrics,
        reference=reference,
        **bootstrap,
        cost=cost,
        examples=report["examples"],
        example_pixels=report["pixels"],
        device=str(options.get("device", "auto")),
    )


def _sections(options: Mapping, key: str) -> dict[str, Mapping]:
    found = options.get(key)
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"the option file must have a section {key!r} with at least one entry")
    for name, section in found.items():
        if not isinstance(section, Mapping):
            raise UserError(f"{key}.{name} must be a section of keys and values, not {section!r}")
    return {str(name): section for name, section in found.items()}


def _section(options: Mapping, key: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    given = options.get(key) or {}
    check_keys(given, defaults, key)
    for name, value in given.items():
        wanted = type(defaults[name])
        if isinstance(value, bool) or not isinstance(value, (int, wanted)):
            raise UserError(f"{key}.{name} must be a number, not {value!r}")
    return {**defaults, **given}


def _number(options: Mapping, key: str, where: str, least: int = 1) -> int | None:
    value = options.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise UserError(f"{where} must be a whole number from {least} on, not {value!r}")
    return value


def _prompt(options: Mapping, where: str) -> str | None:
    """A text; YAML reads an empty one as null, which is blind."""
    if "prompt" not in options:
        return None
    value = options["prompt"]
    if value is None:
        return BLIND
    if not isinstance(value, str):
        raise UserError(f"{where} must be a text, none or oracle, not {value!r}")
    return value


def _check_metric(name: str, metric: Mapping[str, Any]) -> None:
    kind = metric.get("type")
    if kind not in METRIC_REGISTRY:
        raise UserError(f"metrics.{name}.type: no such metric: {kind!r}{did_you_mean(kind, METRIC_REGISTRY.keys())}")
    if metric.get("better", "higher") not in ("higher", "lower"):
        raise UserError(f"metrics.{name}.better must be higher or lower, not {metric['better']!r}")
