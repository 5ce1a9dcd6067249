"""How a kind of degradation is described: its parameters with their limits, how it is applied, how severe it is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean

__all__ = ["Choice", "Degradation", "Number", "position"]


@dataclass(frozen=True)
class Number:
    """A parameter that is a number.

    Attributes:
        low, high: hard limits; a recipe beyond them is refused.
        draw: (from, to) that are sampled by default, evenly (or evenly in the logarithm).
        default: its value where a recipe leaves it out.
        integer: whole numbers only; both ends of `draw` occur.
        least: share of the default draws that are the lower end of `draw` itself; the others are spread as ever.
        only: {other parameter: values of it for which this one means something}; else it is neither drawn nor stored.
    """

    low: float
    high: float
    draw: tuple[float, float]
    default: float
    log: bool = False
    integer: bool = False
    least: float = 0.0
    only: Mapping[str, tuple] = field(default_factory=dict)

    def check(self, value: Any, where: str) -> float | int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise UserError(f"{where} must be a number, not {value!r}")
        if not self.low <= value <= self.high:
            raise UserError(f"{where} must be between {self.low:g} and {self.high:g}, not {value!r}")
        if self.integer and value != int(value):
            raise UserError(f"{where} must be a whole number, not {value!r}")
        return int(value) if self.integer else float(value)

    def pick(self, u: float, override: Any = None) -> float | int:
        """The value at `u`, which is uniform in [0, 1)."""
        if override is not None and not isinstance(override, (list, tuple)):
            return override
        if override is not None and len(override) != 2:
            return override[int(u * len(override))]
        low, high = self.draw if override is None else override
        if override is None and self.least:
            u = max(0.0, (u - self.least) / (1 - self.least))
        if self.integer:
            return int(low) + int(u * (int(high) - int(low) + 1))
        value = low * (high / low) ** u if self.log and low > 0 else low + (high - low) * u
        return round(value, 4)

    def check_override(self, value: Any, where: str) -> Any:
        if not isinstance(value, (list, tuple)):
            return self.check(value, where)
        values = [self.check(v, where) for v in value]
        if not values or (len(values) == 2 and values[0] > values[1]):
            raise UserError(f"{where} must be a number, a range [low, high] or a list of numbers, not {value!r}")
        return values


@dataclass(frozen=True)
class Choice:
    """A parameter that is one of a few values; `weights` say how often each is drawn by default."""

    values: tuple
    weights: tuple[float, ...]
    default: Any
    only: Mapping[str, tuple] = field(default_factory=dict)

    def check(self, value: Any, where: str) -> Any:
        # 1 == True in Python, but not in JSON
        if not any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.values):
            hint = did_you_mean(value, self.values) or f"; valid are {', '.join(map(str, self.values))}"
            raise UserError(f"{where} cannot be {value!r}{hint}")
        return value

    def pick(self, u: float, override: Any = None) -> Any:
        if override is None:
            return weighted(u, self.values, self.weights)
        return override[int(u * len(override))] if isinstance(override, (list, tuple)) else override

    def check_override(self, value: Any, where: str) -> Any:
        if isinstance(value, (list, tuple)) and value:
            return [self.check(v, where) for v in value]
        return self.check(value, where)


def weighted(u: float, values: Sequence, weights: Sequence[float]) -> Any:
    """The value at `u`, uniform in [0, 1), when each takes a share of that interval proportional to its weight."""
    left = u * sum(weights)
    for value, weight in zip(values, weights):
        left -= weight
        if left < 0:
            return value
    return next(v for v, w in reversed(list(zip(values, weights))) if w > 0)


@dataclass(frozen=True)
class Degradation:
    """One kind.

    Attributes:
        params: name -> Number or Choice.
        apply: (image, params, rng) -> image. The image is (H, W, 3) float32 in [0, 1] and must not be changed; the
            result may leave [0, 1], it is clipped afterwards. What is drawn from `rng` depends on the image's size and
            on the parameters alone, never on its pixels: so a draw stays the same whatever was rendered before it.
        severity: params -> [0, 1].
    """

    kind: str
    params: Mapping[str, Number | Choice]
    apply: Callable[[np.ndarray, dict, np.random.Generator], np.ndarray]
    severity: Callable[[dict], float]

    def sample(self, rng: random.Random, overrides: Mapping[str, Any] | None = None) -> dict:
        """Draws the parameters. Every one uses up one number, so that fixing one leaves the others as they were."""
        overrides = overrides or {}
        drawn: dict[str, Any] = {}
        for name, param in self.params.items():
            value = param.pick(rng.random(), overrides.get(name))
            if _matters(param, drawn):
                drawn[name] = value
        return drawn

    def complete(self, params: Mapping[str, Any], where: str) -> dict:
        """Checks given parameters and adds the defaults of those left out.

        Raises:
            UserError: an unknown name, a value of the wrong type or beyond its limits.
        """
        check_keys(params, self.params, where)
        return {
            name: param.check(params[name], f"{where}.{name}") if name in params else param.default
            for name, param in self.params.items()
        }

    def check_overrides(self, overrides: Mapping[str, Any], where: str) -> dict:
        """Checks what replaces the default draws: a value, a range [low, high], or a list of values."""
        check_keys(overrides, self.params, where)
        return {name: self.params[name].check_override(value, f"{where}.{name}") for name, value in overrides.items()}


def _matters(param: Number | Choice, drawn: Mapping[str, Any]) -> bool:
    return all(drawn.get(other) in values for other, values in param.only.items())


def position(value: float, low: float, high: float) -> float:
    """Where `value` lies between low (0) and high (1), clipped."""
    return min(max((value - low) / (high - low), 0.0), 1.0)
