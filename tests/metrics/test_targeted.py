"""Scores of targeted restoration."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prompt_mamba_arch.data import every_target
from prompt_mamba_arch.metrics.targeted import (
    MAX_DB,
    adherence,
    kept_error,
    kept_share,
    no_harm,
    psnr,
    removed_error,
)

RECIPE = [
    {"kind": "haze", "params": {"density": 0.8}, "seed": 1},
    {"kind": "noise", "params": {"model": "gaussian", "sigma": 20}, "seed": 2},
    {"kind": "holes", "params": {"shape": "brush", "amount": 0.3}, "seed": 3},
]
NOTHING, HAZE, NOISE = frozenset(), frozenset({"haze"}), frozenset({"noise"})
ALL = frozenset({"haze", "noise", "holes"})


@pytest.fixture(scope="module")
def targets(photos):
    return every_target(photos["coffee"][:96, :96].astype(np.float32) / np.float32(255), RECIPE)


def test_psnr_and_its_ends():
    a = np.full((4, 4, 3), 0.5)
    assert psnr(a, a + 0.1) == pytest.approx(20)
    assert psnr(a, a) == MAX_DB == removed_error(a, a) == no_harm(a, a)
    assert psnr(a, a + 1e-9) == MAX_DB
    assert math.isnan(psnr(a, np.full_like(a, np.nan)))
    with pytest.raises(ValueError, match="shape"):
        psnr(a, a[:2])
    with pytest.raises(ValueError, match="floating point"):
        psnr(a, np.zeros((4, 4, 3), np.uint8))


def test_kept_error_blames_only_changes_of_what_should_stay(targets):
    clean, target = targets[ALL], targets[NOISE]  # asked: remove the noise; haze and holes stay
    assert kept_error(target, target, clean) == MAX_DB and kept_share(target, target, clean) == 1
    left = targets[NOTHING]  # nothing removed: bad, but what should stay is there
    assert removed_error(left, target) < 24 and kept_error(left, target, clean) > removed_error(left, target) + 8
    assert kept_share(left, target, clean) == pytest.approx(1, abs=0.05)
    gone = clean  # everything removed: exactly the other fault
    assert kept_error(gone, target, clean) == pytest.approx(psnr(gone, target), abs=1e-6)
    assert kept_share(gone, target, clean) == pytest.approx(0, abs=1e-9)
    half = 0.5 * (target + clean)
    assert kept_share(half, target, clean) == pytest.approx(0.5, abs=1e-3)
    assert kept_error(half, target, clean) == pytest.approx(psnr(gone, target) + 20 * math.log10(2), abs=0.01)


def test_kept_error_sees_local_removal(targets):
    clean, target = targets[ALL], targets[NOISE]
    patched = target.copy()
    patched[:32, :32] = clean[:32, :32]
    assert kept_error(patched, target, clean) == pytest.approx(psnr(patched, target), abs=1e-6)
    assert 0.5 < kept_share(patched, target, clean) < 1


def test_nothing_kept_has_no_score(targets):
    assert math.isnan(kept_error(targets[NOTHING], targets[ALL], targets[ALL]))
    assert math.isnan(kept_share(targets[NOTHING], targets[ALL], targets[ALL]))


def test_adherence_names_the_request_that_was_followed(targets):
    for asked in targets:
        exact = adherence(targets[asked], targets, asked)
        assert exact.followed and exact.margin > 40 and exact.nearest == asked and exact.chance == 1 / 8
    blind = adherence(targets[ALL], targets, NOISE)  # it removed everything
    assert not blind.followed and blind.nearest == ALL and blind.margin < -40
    near = adherence(0.8 * targets[HAZE] + 0.2 * targets[NOTHING], targets, list(HAZE))
    assert near.followed and 0 < near.margin < 40
    tie = adherence(0.5 * targets[HAZE].astype(np.float64) + 0.5 * targets[NOTHING], targets, HAZE)
    assert abs(tie.margin) < 1e-6


def test_adherence_counts_equal_targets_once(targets):
    same = {NOTHING: targets[NOTHING], HAZE: targets[NOTHING].copy(), NOISE: targets[NOISE]}
    result = adherence(targets[NOTHING], same, HAZE)
    assert result.followed and result.nearest == HAZE and result.chance == 1 / 2
    only = adherence(targets[NOTHING], {NOTHING: targets[NOTHING]}, ())
    assert only.followed and only.margin == 0 and only.chance == 1
    with pytest.raises(ValueError, match="no target for"):
        adherence(targets[NOTHING], targets, {"rain"})
