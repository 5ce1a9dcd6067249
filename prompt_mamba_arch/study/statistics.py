"""What answers of a study tell, and how surely."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from prompt_mamba_arch.study.plan import CHECK, PAIR, RATING
from prompt_mamba_arch.study.store import Answer

__all__ = [
    "Agreement",
    "Estimate",
    "agreement",
    "attentive",
    "bradley_terry",
    "krippendorff_alpha",
    "preferences",
    "ranking",
    "ratings",
    "wilson",
]

_LEVEL = 0.95
_PASSED = 2 / 3  # of the attention checks, at least
_PRIOR = 0.5  # a won and a lost comparison of this weight between every two methods
_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A value with its 95 % confidence interval, from `count` answers."""

    value: float
    low: float
    high: float
    count: int


class Agreement(NamedTuple):
    """Of participants who answered the same comparison.

    Attributes:
        share: of pairs of answers to the same comparison that are the same.
        alpha: Krippendorff's, for nominal data: 1 is full agreement, 0 what chance gives. Both NaN where no comparison
            was answered twice.
        comparisons: that were answered twice or more.
    """

    share: float
    alpha: float
    comparisons: int


def wilson(wins: int, count: int) -> Estimate:
    """A share with Wilson's score interval (1927)."""
    if count == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    interval = stats.binomtest(wins, count).proportion_ci(_LEVEL, method="wilson")
    return Estimate(wins / count, interval.low, interval.high, count)


def attentive(answers: Iterable[Answer]) -> tuple[list[Answer], int]:
    """The answers of participants who saw through two of three attention checks, and how many did not; a participant
    who has not come to any yet counts as attentive."""
    answers = list(answers)
    seen, passed = Counter(), Counter()
    for one in answers:
        if one.trial.kind == CHECK:
            seen[one.participant] += 1
            passed[one.participant] += one.answer != one.trial.spoiled
    careless = {who for who in seen if passed[who] < _PASSED * seen[who]}
    return [one for one in answers if one.participant not in careless], len(careless)


def _choices(answers: Iterable[Answer]) -> list[tuple[int, str, str, str]]:
    """(participant, image, preferred method, other method) of each comparison."""
    found = []
    for one in answers:
        if one.trial.kind == PAIR:
            two = (one.trial.left, one.trial.right)
            found.append((one.participant, one.trial.image, *(two if one.answer == "left" else two[::-1])))
    return found


def preferences(answers: Iterable[Answer], methods: Sequence[str]) -> dict[tuple[str, str], Estimate]:
    """(method, other) -> how often it was preferred to the other one, for both orders of every two methods."""
    wins = Counter((winner, loser) for _, _, winner, loser in _choices(answers))
    return {(a, b): wilson(wins[a, b], wins[a, b] + wins[b, a]) for a, b in itertools.permutations(methods, 2)}


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Abilities in the model of Bradley and Terry (1952), in which i is preferred to j with the probability
    1 / (1 + exp(ability j - ability i)).

    The most likely ones, with half a won and half a lost comparison added between every two, so that they stay finite
    where somebody always wins.

    Args:
        wins: (M, M); [i, j] is how often i was preferred to j.

    Returns:
        (M,), their mean is 0.
    """
    count = len(wins)
    wins = wins + _PRIOR * (1 - np.eye(count))

    def loss(abilities: np.ndarray) -> tuple[float, np.ndarray]:
        ahead = abilities[:, None] - abilities[None, :]
        value = (wins * np.logaddexp(0, -ahead)).sum()
        slope = -wins / (1 + np.exp(ahead))
        return value, slope.sum(1) - slope.sum(0)

    found = optimize.minimize(loss, np.zeros(count), jac=True, method="BFGS", options={"gtol": 1e-8})
    return found.x - found.x.mean()


def ranking(
    answers: Iterable[Answer], methods: Sequence[str], resamples: int = _RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Method -> its Bradley-Terry ability, the best first. Intervals are percentiles over resampled participants, whose
    answers are not independent of each other."""
    place = {method: index for index, method in enumerate(methods)}
    choices = _choices(answers)
    people = sorted({who for who, *_ in choices})
    index = {who: number for number, who in enumerate(people)}
    wins = np.zeros((len(people), len(methods), len(methods)))
    for who, _, winner, loser in choices:
        wins[index[who], place[winner], place[loser]] += 1
    abilities = bradley_terry(wins.sum(0))
    drawn = _resample(len(people), lambda weights: bradley_terry(np.tensordot(weights, wins, 1)), resamples, seed)
    low, high = _interval(drawn, len(methods))
    counts = wins.sum((0, 1)) + wins.sum((0, 2))
    best = sorted(methods, key=lambda method: -abilities[place[method]])
    return {
        method: Estimate(*(float(v[place[method]]) for v in (abilities, low, high)), int(counts[place[method]]))
        for method in best
    }


def _resample(people: int, measure: Callable[[np.ndarray], np.ndarray], resamples: int, seed: int) -> np.ndarray | None:
    """(resamples, ...) of a measure of weights (people,); None where there are too few people to resample."""
    if people < 2:
        return None
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(people, np.full(people, 1 / people), size=resamples)
    return np.stack([measure(one) for one in weights.astype(np.float64)])


def _interval(drawn: np.ndarray | None, width: int) -> tuple[np.ndarray, np.ndarray]:
    if drawn is None:
        return np.full(width, -np.inf), np.full(width, np.inf)
    half = 100 * (1 - _LEVEL) / 2
    return tuple(np.nanpercentile(drawn, (half, 100 - half), axis=0))


def ratings(
    answers: Iterable[Answer], methods: Sequence[str], resamples: int = _RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Method -> the mean of its ratings from 1 (does not do what was asked) to 5 (does it fully), for methods that were
    rated. Intervals as in `ranking`."""
    rated = [(one.participant, one.trial.left, int(one.answer)) for one in answers if one.trial.kind == RATING]
    people = {who: number for number, who in enumerate(sorted({who for who, *_ in rated}))}
    place = {method: index for index, method in enumerate(methods)}
    sums, counts = np.zeros((2, len(people), len(methods)))
    for who, method, value in rated:
        sums[people[who], place[method]] += value
        counts[people[who], place[method]] += 1

    def mean(weights: np.ndarray) -> np.ndarray:
        total = weights @ counts
        return np.where(total > 0, weights @ sums / np.maximum(total, 1), np.nan)

    means = mean(np.ones(len(people)))
    total = counts.sum(0)
    rated_columns = np.flatnonzero(total)
    low, high = _interval(
        _resample(len(people), lambda weights: mean(weights)[rated_columns], resamples, seed), len(rated_columns)
    )
    found = {
        methods[column]: Estimate(float(means[column]), float(low[i]), float(high[i]), int(total[column]))
        for i, column in enumerate(rated_columns)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].value))


def krippendorff_alpha(units: Iterable[Mapping[Hashable, int] | Sequence[Hashable]]) -> float:
    """Krippendorff's alpha (2011) for nominal data with missing values.

    Args:
        units: the values that each unit was given; those with fewer than two say nothing.

    Returns:
        1 for full agreement, 0 for what chance gives; NaN where there is nothing to compare, or only one value.
    """
    values = [Counter(unit) for unit in units]
    values = [unit for unit in values if sum(unit.values()) > 1]
    total = Counter()
    for unit in values:
        total.update(unit)
    count = sum(total.values())
    if len(total) < 2:
        return float("nan")
    # pairs of different values within units, and in all that was said
    observed = sum(_different(unit) / (sum(unit.values()) - 1) for unit in values)
    return 1 - (count - 1) * observed / _different(total)


def _different(values: Counter) -> int:
    """Ordered pairs of values that differ."""
    return sum(values.values()) ** 2 - sum(number**2 for number in values.values())


def agreement(answers: Iterable[Answer]) -> dict[tuple[str, str], Agreement]:
    """(method, method) in alphabetical order -> how far participants agree which of them is better in an image. Methods
    that were never compared are left out."""
    told: dict[tuple[str, str], dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for _, image, winner, loser in _choices(answers):
        told[tuple(sorted((winner, loser)))][image][winner] += 1
    return {pair: _agreement(list(units.values())) for pair, units in sorted(told.items())}


def _agreement(units: Sequence[Counter]) -> Agreement:
    twice = [unit for unit in units if sum(unit.values()) > 1]
    pairs = sum(sum(unit.values()) * (sum(unit.values()) - 1) for unit in twice)
    different = sum(_different(unit) for unit in twice)
    share = 1 - different / pairs if pairs else float("nan")
    return Agreement(share, krippendorff_alpha(twice), len(twice))
