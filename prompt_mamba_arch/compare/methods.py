"""Methods of an option file, each opened when its turn comes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from prompt_mamba_arch.classical import CLASSICAL
from prompt_mamba_arch.compare.cache import code_digest
from prompt_mamba_arch.compare.options import BLIND, ORACLE, Plan
from prompt_mamba_arch.compare.packages import PACKAGES, Absent, Ncnn
from prompt_mamba_arch.compare.tasks import Compared
from prompt_mamba_arch.complexity import open_network
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean, one_line
from prompt_mamba_arch.probe.measure import network_digest
from prompt_mamba_arch.restore import Restorer

__all__ = ["INPUT", "Method", "open_method"]

INPUT = "input"  # the row of what was given
SOURCES = ("model", "package", *CLASSICAL)
_NETWORK_KEYS = ("model", "opt", "prompt", "only", "tile", "strength")


@dataclass(frozen=True)
class Method:
    """One way from a degraded image to a restored one.

    Attributes:
        name: its name in the option file.
        digest: of all that its results depend on: weights, arguments, versions.
        run: ((H, W, 3) uint8, prompt or "") -> restored, (H * upscale, W * upscale, 3) uint8.
        upscale: it enlarges so many times.
        takes_prompts: it reads sentences.
        told: its parameters in words: what it was told beside a prompt.
        prompt: what the option file says for this method alone, or None.
        only: names of the tasks that it is for; None: all.
        restorer: the network, if it is one of torch.
    """

    name: str
    digest: str
    run: Callable[[np.ndarray, str], np.ndarray]
    upscale: int = 1
    takes_prompts: bool = False
    told: str = ""
    prompt: str | None = None
    only: frozenset[str] | None = None
    restorer: Restorer | None = None

    def suits(self, task: Compared) -> bool:
        """Methods that enlarge are for tasks of their scale; others see what bicubic interpolation has enlarged."""
        return (self.only is None or task.name in self.only) and self.upscale in (1, task.scale)

    def asked(self, task: Compared, plan: Plan) -> tuple[str, str]:
        """The prompt for this task ("" is blind), and how the report says it."""
        if not self.takes_prompts:
            return "", self.told
        word = self.prompt or task.prompt or plan.prompt
        if word == BLIND:
            return "", "blind"
        if word == ORACLE:
            if task.oracle is None:
                raise UserError(f"methods.{self.name}: task {task.name!r} has no sentence of its own; name a prompt")
            return task.oracle, f'"{task.oracle}" (oracle)'
        return word, f'"{word}"'


def open_method(name: str, options: Mapping[str, Any], device: str, tell: Callable[[str], None]) -> Method:
    """Raises:
    Absent: its package is not installed.
    UserError: what is wrong in its options, or with its file.
    """
    where = f"methods.{name}"
    given = [source for source in SOURCES if options.get(source) is not None]
    if len(given) != 1:
        raise UserError(f"{where} must have one of {', '.join(SOURCES)}, not {' and '.join(given) or 'none of them'}")
    only = options.get("only")
    common = {"name": name, "only": None if only is None else frozenset(only), "prompt": _prompt(options)}
    if given[0] == "model":
        return _network(where, options, device, tell, common)
    make = _package if given[0] == "package" else _classical
    return make(where, given[0], options, device, common)


def _prompt(options: Mapping[str, Any]) -> str | None:
    return None if "prompt" not in options else options["prompt"] or BLIND


def _network(where: str, options: Mapping, device: str, tell, common: dict) -> Method:
    check_keys(options, _NETWORK_KEYS, where)
    if options.get("opt") is not None:
        restorer = Restorer.from_pretrained(str(options["model"]), device, str(options["opt"]))
    else:
        restorer = open_network(str(options["model"]), device, tell=tell)
    reads = restorer.takes_prompts
    if common["prompt"] not in (None, BLIND) and not reads:
        raise UserError(f"{where}: the network takes no prompt")
    tile, strength = options.get("tile", "auto"), options.get("strength", 1.0)
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= 2:
        raise UserError(f"{where}.strength must be a number from 0 to 2, not {strength!r}")
    restorer.tile_side((1, 1), tile)  # a wrong one is said at once
    digest = _digest(network_digest(restorer.net), code_digest(type(restorer.net)))
    if (tile, strength) != ("auto", 1.0):
        digest = _digest(digest, tile, strength)
    return Method(
        **common,
        digest=digest,
        run=lambda image, prompt: restorer.restore(image, prompt or None, strength, tile),
        upscale=restorer.upscale,
        takes_prompts=reads,
        told="" if strength == 1 else f"strength {strength:g}",
        restorer=restorer,
    )


def _package(where: str, source: str, options: Mapping, device: str, common: dict) -> Method:
    name = options[source]
    if name not in PACKAGES:
        hint = did_you_mean(name, PACKAGES) or f"; there are {', '.join(PACKAGES)}"
        raise UserError(f"{where}.package: no such network: {name!r}{hint}")
    package = PACKAGES[name]
    arguments = _arguments(where, source, options, package.build)
    try:
        found = package.build(**arguments)
    except Absent as error:
        raise Absent(f"{error}; {package.install}") from None
    told = _said(package.build, arguments)
    if isinstance(found, Ncnn):
        return Method(
            **common,
            digest=_digest(found.digest, code_digest(Ncnn), arguments),
            run=lambda image, prompt: np.rint(found(image / np.float32(255)).clip(0, 1) * 255).astype(np.uint8),
            upscale=found.upscale,
            told=told,
        )
    restorer = Restorer(found, name=name, device=device)
    return Method(
        **common,
        digest=_digest(name, network_digest(found), code_digest(type(found)), arguments),
        run=lambda image, prompt: restorer.restore(image),
        upscale=restorer.upscale,
        told=told,
        restorer=restorer,
    )


def _classical(where: str, source: str, options: Mapping, device: str, common: dict) -> Method:
    name, filters = options[source], CLASSICAL[source]
    if name not in filters:
        hint = did_you_mean(name, filters) or f"; there are {', '.join(filters)}"
        raise UserError(f"{where}.{source}: no such filter: {name!r}{hint}")
    arguments = _arguments(where, source, options, filters[name])
    distribution = {"opencv": "opencv-python"}.get(source, source)
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = ""  # OpenCV comes in several distributions
        if source != "opencv":
            raise Absent(f"the package {distribution} is not installed; pip install {distribution}") from None

    def run(image: np.ndarray, prompt: str) -> np.ndarray:
        try:
            return filters[name](image, **arguments)
        except (ImportError, ValueError, TypeError, ArithmeticError, cv2.error) as error:  # parameters that cannot be
            raise UserError(f"{where}: {one_line(error)[:160]}") from None

    return Method(
        **common,
        digest=_digest(source, name, version, code_digest(filters[name]), arguments),
        run=run,
        told=_said(filters[name], arguments),
    )


def _arguments(where: str, source: str, options: Mapping, function: Callable) -> dict[str, Any]:
    known = {key: p for key, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}
    check_keys(options, (source, "only", *known), where)
    found = {key: options[key] for key in known if key in options}
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{where}.{key} must be a number, not {value!r}")
    return found


def _said(function: Callable, given: Mapping[str, Any]) -> str:
    """All parameters, those too that the option file leaves as they are."""
    defaults = {key: p.default for key, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}
    return ", ".join(f"{key} {value:g}" for key, value in {**defaults, **given}.items())


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
