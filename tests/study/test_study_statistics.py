"""Statistics against published values, and against worlds in which the truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from prompt_mamba_arch.study import statistics
from prompt_mamba_arch.study.plan import Trial
from prompt_mamba_arch.study.store import Answer

METHODS = ["a", "b", "c"]


def test_wilson_interval():
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20."""
    for wins, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = statistics.wilson(wins, count)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5) and found.count == count
    assert math.isnan(statistics.wilson(0, 0).value)


def test_krippendorff_alpha():
    """The example of Krippendorff (2011): four observers, twelve units, values missing; 0.743 for nominal data."""
    rows = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[value for value in column if value != "."] for column in zip(*rows)]
    assert statistics.krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert statistics.krippendorff_alpha([["x", "x"], ["y", "y", "y"]]) == 1
    assert math.isnan(statistics.krippendorff_alpha([["x", "x"], ["y"]]))


def _world(abilities, people=40, images=6, seed=0, kind="pair"):
    """Everybody compares everything, as the model of Bradley and Terry says."""
    rng = np.random.default_rng(seed)
    answers = []
    for who, image, (a, b) in itertools.product(range(people), range(images), itertools.combinations(METHODS, 2)):
        left, right = (a, b) if rng.random() < 0.5 else (b, a)
        ahead = abilities[left] - abilities[right]
        answer = "left" if rng.random() < 1 / (1 + math.exp(-ahead)) else "right"
        answers.append(Answer(who, Trial(kind, f"{image}", left, right), answer, 900))
    return answers


def test_bradley_terry_finds_the_abilities():
    truth = {"a": 1.0, "b": 0.0, "c": -1.0}
    found = statistics.ranking(_world(truth), METHODS, resamples=200)
    assert list(found) == METHODS
    for method, ability in truth.items():
        one = found[method]
        assert one.low < one.value < one.high and one.high - one.low < 0.7
        assert one.value == pytest.approx(ability, abs=0.25)
        assert one.count == 40 * 6 * 2


def test_bradley_terry_of_two_is_the_log_odds():
    # 30 and 10, and the half that is added to both
    found = statistics.bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]))
    assert found[0] - found[1] == pytest.approx(math.log(30.5 / 10.5), abs=1e-6)


def test_a_method_that_always_wins_has_a_finite_ability():
    found = statistics.ranking(_world({"a": 50, "b": 0, "c": 0}), METHODS, resamples=20)
    assert next(iter(found)) == "a" and 3 < found["a"].value < 20


def test_equal_methods_are_not_told_apart():
    found = statistics.ranking(_world(dict.fromkeys(METHODS, 0.0), seed=3), METHODS, resamples=200)
    assert all(one.low < 0 < one.high for one in found.values())
    shares = statistics.preferences(_world(dict.fromkeys(METHODS, 0.0), seed=3), METHODS)
    assert all(one.low < 0.5 < one.high for one in shares.values())


def test_preferences_are_of_methods_not_of_sides():
    trials = [Trial("pair", "1", "a", "b"), Trial("pair", "1", "b", "a"), Trial("pair", "2", "b", "a")]
    answers = [
        Answer(n, trial, answer, None) for n, (trial, answer) in enumerate(zip(trials, ("left", "right", "left")))
    ]
    shares = statistics.preferences(answers, METHODS)
    assert shares["a", "b"].value == pytest.approx(2 / 3) and shares["b", "a"].value == pytest.approx(1 / 3)
    assert shares["a", "c"].count == 0
    agreed = statistics.agreement(answers)
    assert list(agreed) == [("a", "b")] and agreed["a", "b"].share == 1 and agreed["a", "b"].comparisons == 1


def test_agreement_of_people_who_choose_by_chance_is_none():
    agreed = statistics.agreement(_world(dict.fromkeys(METHODS, 0.0), people=30, images=20))
    assert all(abs(one.alpha) < 0.05 and abs(one.share - 0.5) < 0.05 for one in agreed.values())


def test_who_fails_the_checks_does_not_count():
    spoiled = Trial("check", "1", "a", "a", "left")
    pair = Trial("pair", "1", "a", "b")
    answers = [
        *(Answer(1, spoiled, answer, None) for answer in ("right", "right", "left")),  # two of three
        *(Answer(2, spoiled, answer, None) for answer in ("right", "left", "left")),
        *(Answer(who, pair, "left", None) for who in (1, 2, 3)),  # 3 was not checked
    ]
    kept, careless = statistics.attentive(answers)
    assert careless == 1 and {one.participant for one in kept} == {1, 3}


def test_ratings():
    values = {"a": (5, 4, 5, 4), "b": (1, 2, 1, 2)}
    answers = [
        Answer(who, Trial("rating", "1", method), str(value), None)
        for method, given in values.items()
        for who, value in enumerate(given)
    ]
    found = statistics.ratings(answers, METHODS)
    assert list(found) == ["a", "b"] and found["a"].value == 4.5 and found["b"].value == 1.5
    assert 4 <= found["a"].low <= 4.5 <= found["a"].high <= 5
    alone = statistics.ratings(answers[:1], METHODS)["a"]
    assert alone.value == 5 and not math.isfinite(alone.low)
