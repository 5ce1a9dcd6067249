"""Runs every method on every image of every task, or finds what it said before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from prompt_mamba_arch.compare.cache import Cache, Output, pixels_digest
from prompt_mamba_arch.compare.measure import measured, metric_identity, metric_options, of_set
from prompt_mamba_arch.compare.methods import INPUT, Method, open_method
from prompt_mamba_arch.compare.options import Plan
from prompt_mamba_arch.compare.packages import Absent
from prompt_mamba_arch.compare.statistics import Difference, paired_difference
from prompt_mamba_arch.compare.tasks import Compared, open_task
from prompt_mamba_arch.complexity import count
from prompt_mamba_arch.complexity.timing import medians, processor
from prompt_mamba_arch.errors import UserError, one_line, plain_line
from prompt_mamba_arch.image_io import read_size
from prompt_mamba_arch.model_card.sets import Pair

__all__ = ["Comparison", "Cost", "Row", "compare"]


class Cost(NamedTuple):
    """Of one method on an image of `Plan.cost` size; None where it is not known or not asked for.

    Attributes:
        macs: multiply-adds for that image, scans included.
        seconds: median of interleaved rounds.
    """

    parameters: int | None
    macs: float | None
    seconds: float | None


@dataclass
class Row:
    """One method on one task.

    Attributes:
        method: name, or `INPUT`.
        asked: what it was told, in words.
        prompt: the sentence that it was given, "" for none.
        scores: metric -> image -> value.
        overall: metric of whole sets -> value.
    """

    method: str
    asked: str
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    overall: dict[str, float] = field(default_factory=dict)
    prompt: str = ""

    def mean(self, metric: str) -> float:
        """Over the images whose value is finite, or that of the whole set; nan if there is none."""
        if metric in self.overall:
            return self.overall[metric]
        values = [value for value in self.scores.get(metric, {}).values() if math.isfinite(value)]
        return math.fsum(values) / len(values) if values else math.nan


@dataclass
class Comparison:
    """All that was measured.

    Attributes:
        tasks: name -> task; rows: name of the task -> rows, the input's first, then as the option file has them.
        costs: method -> cost.
        failed: (task, method, image, why).
        left_out: method or task -> why.
        machine: where times were taken.
        files: (task, key) -> method -> the file of its result, the input's among them.
        showing: (task, key, {method: pixels}), the examples of the report; "target" is what should come out.
    """

    plan: Plan
    tasks: dict[str, Compared] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    failed: list[tuple[str, str, str, str]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    files: dict[tuple[str, str], dict[str, Path]] = field(default_factory=dict)
    showing: list[tuple[str, str, dict[str, np.ndarray]]] = field(default_factory=list)

    def difference(self, task: str, row: Row, metric: str) -> Difference | None:
        """Of a method to the reference, over the images of both; None for the reference itself, and where it is not."""
        reference = next((one for one in self.rows[task] if one.method == self.plan.reference), None)
        if reference is None or reference is row:
            return None
        ours, theirs = row.scores.get(metric, {}), reference.scores.get(metric, {})
        keys = [key for key in ours if key in theirs and math.isfinite(ours[key]) and math.isfinite(theirs[key])]
        if not keys:
            return None
        return paired_difference(
            [ours[key] for key in keys], [theirs[key] for key in keys],
            samples=self.plan.samples, confidence=self.plan.confidence, seed=self.plan.seed,
        )  # fmt: skip

    def higher_is_better(self, metric: str) -> bool:
        return self.plan.metrics[metric].get("better", "higher") == "higher"


def compare(
    plan: Plan,
    *,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Runs a plan; what is in its cache is not run again.

    Args:
        tell: called with what the user should know, a line at a time.
        progress: called with (images done, images in all).

    Raises:
        UserError: what is wrong in the plan, or nothing of it could be compared.
    """
    found = Comparison(plan)
    plan = found.plan = replace(plan, metrics=_metrics(plan, found, tell))
    found.tasks = {name: open_task(name, options, plan) for name, options in plan.tasks.items()}
    methods = _methods(plan, found, tell)
    asked = {
        (task.name, method.name): method.asked(task, plan)
        for task in found.tasks.values()
        for method in methods
        if method.suits(task)
    }
    for method in methods:
        if not any(name == method.name for _, name in asked):
            found.left_out[method.name] = f"no task is {method.upscale} times reduced, or `only` names none"
            tell(f"{method.name} is left out: {found.left_out[method.name]}")
    cache = Cache(plan.output / "cache")
    images = {name: list(_keys(task)) for name, task in found.tasks.items()}
    done, total = 0, sum(len(keys) * (1 + sum(t == name for t, _ in asked)) for name, keys in images.items())
    for name, task in found.tasks.items():
        told = {method.name: asked[name, method.name] for method in methods if (name, method.name) in asked}
        rows = [Row(INPUT, ""), *(Row(method, words, prompt=prompt) for method, (prompt, words) in told.items())]
        metrics = {metric: metric_options(options, task) for metric, options in plan.metrics.items()}
        shown = _shown(images[name], plan.examples)
        for pair in task.pairs():
            results = {INPUT: cache.output(INPUT, "", pair.lq, lambda pair=pair: pair.lq)}
            for method in methods:
                if (name, method.name) in asked:
                    results[method.name] = _result(cache, method, asked[name, method.name][0], pair)
            target = pixels_digest(pair.gt)
            for row in rows:
                progress(done, total)
                _score(found, task, row, results[row.method], metrics, pair, target, tell)
                done += 1
            found.files[name, pair.key] = _files(results, pair)
            if pair.key in shown:
                found.showing.append((name, pair.key, _pixels(results, pair)))
        for row in rows:  # what is kept of each image for a metric of the whole set is no score
            for metric in [metric for metric in row.scores if of_set(metrics[metric])]:
                kept = row.scores.pop(metric)
                row.overall[metric] = of_set(metrics[metric])(list(kept.values()))
        found.rows[name] = rows
    progress(done, total)
    if not any(row.scores or row.overall for rows in found.rows.values() for row in rows if row.method != INPUT):
        raise UserError("no method gave a result")
    works = {row.method for rows in found.rows.values() for row in rows if row.scores or row.overall}
    found.costs = _costs(plan, [method for method in methods if method.name in works], found, cache)
    return found


def _metrics(plan: Plan, found: Comparison, tell: Callable[[str], None]) -> dict[str, Mapping]:
    """Those that work here: each is tried once, so that missing weights are said once, and before the work."""
    rng = np.random.default_rng(0)
    pair = [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(2)]
    trial = Compared("trial", "", lambda: iter(()), 1, False, 0, None, None)
    working = {}
    for name, metric in plan.metrics.items():
        try:
            measured(metric_options(metric, trial), *pair)
        except (UserError, TypeError) as error:  # TypeError: an option that the metric does not have, or lacks
            found.left_out[f"metric {name}"] = one_line(error)
            tell(f"metric {name} is left out: {one_line(error)}")
        else:
            working[name] = metric
    if not working:
        raise UserError("none of the metrics can be measured here")
    return working


def _methods(plan: Plan, found: Comparison, tell: Callable[[str], None]) -> list[Method]:
    opened: list[Method] = []
    for name, options in plan.methods.items():
        if name in (INPUT, "target"):
            raise UserError(f"methods.{name}: this name stands for what every method is given, or should give")
        try:
            opened.append(open_method(name, options, plan.device, tell))
        except Absent as error:
            found.left_out[name] = one_line(error)
            tell(f"{name} is left out: {found.left_out[name]}")
    if plan.reference in found.left_out:
        tell(f"no differences are taken, as the reference {plan.reference!r} is left out")
    return opened


def _keys(task: Compared):
    return (pair.key for pair in task.pairs())


def _shown(keys: Sequence[str], number: int) -> set[str]:
    """Spread over the images."""
    return {keys[round((i + 0.5) * len(keys) / number - 0.5)] for i in range(min(number, len(keys)))}


def _result(cache: Cache, method: Method, prompt: str, pair: Pair) -> Output:
    given = pair.lq if method.upscale == 1 else pair.small
    return cache.output(method.digest, prompt, given, lambda: method.run(given, prompt))


def _score(
    found: Comparison, task: Compared, row: Row, result: Output, metrics: Mapping, pair: Pair, target: str, tell
) -> None:
    for metric, options in metrics.items():
        try:
            identity = metric_identity(options)
            value = result.score(identity, target, lambda pixels, o=options: measured(o, pixels, pair.gt))
        except (UserError, MemoryError) as error:
            why = plain_line(error) or "not enough memory"
            found.failed.append((task.name, row.method, pair.key, why))
            tell(f"{task.name}, {row.method}, {pair.key}: {why}")
            return
        row.scores.setdefault(metric, {})[pair.key] = value


def _computed(results: Mapping[str, Output], what: Callable[[Output], Any]) -> Iterator[tuple[str, Any]]:
    """What is asked of each result, of those that there are."""
    for name, result in results.items():
        try:
            found = what(result)
        except (UserError, MemoryError):  # said before
            continue
        yield name, found


def _files(results: Mapping[str, Output], pair: Pair) -> dict[str, Path]:
    """Of those that have the target's size."""
    files = _computed(results, Output.file)
    return {name: file for name, file in files if read_size(file) == pair.gt.shape[:2]}


def _pixels(results: Mapping[str, Output], pair: Pair) -> dict[str, np.ndarray]:
    shown = {name: pixels for name, pixels in _computed(results, Output.pixels) if pixels.shape == pair.gt.shape}
    return {**shown, "target": pair.gt}


def _costs(plan: Plan, methods: Sequence[Method], found: Comparison, cache: Cache) -> dict[str, Cost]:
    """Counts and times; those that are timed now are interleaved."""
    if plan.cost is None:
        return {}
    size, threads = plan.cost["size"], plan.cost["threads"]
    device = next((str(m.restorer.device) for m in methods if m.restorer is not None), "cpu")
    machine = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    found.machine = f"{machine}, {threads} thread(s)"
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    identities, waiting = {}, {}
    for method in methods:
        side = size // method.upscale  # all give an image of `size`
        identities[method.name] = {"method": method.digest, "size": size, "machine": found.machine, "device": device}
        identities[method.name] |= {"torch": torch.__version__, "rounds": plan.cost["rounds"]}
        if cache.timing(identities[method.name]) is None:
            given = np.ascontiguousarray(image[:side, :side])
            waiting[method.name] = lambda method=method, given=given: method.run(given, "")
    taken: dict[str, float] = medians(waiting, plan.cost["rounds"], threads, device=device) if waiting else {}
    costs = {}
    for method in methods:
        seconds = cache.timing(identities[method.name], lambda name=method.name: taken[name])
        parameters = macs = None
        if method.restorer is not None:
            side = size // method.upscale
            counts: Any = count(method.restorer.net, side, side, run=method.restorer.forward)
            parameters, macs = counts.parameters, counts.macs
        costs[method.name] = Cost(parameters, macs, seconds)
    return costs
