from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from prompt_mamba_arch.compare.statistics import paired_difference


def test_interval_is_scipy_s():
    rng = np.random.default_rng(1)
    theirs = rng.normal(30, 4, 40)  # images differ much more than methods do
    ours = theirs + rng.normal(0.3, 0.5, 40)
    found = paired_difference(ours, theirs, samples=20000)
    known = bootstrap((ours, theirs), lambda a, b, axis: (a - b).mean(axis=axis), paired=True, n_resamples=20000,
                      method="percentile", rng=np.random.default_rng(0)).confidence_interval  # fmt: skip
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.01)
    assert found.is_sure and found.low > 0
    assert found == paired_difference(ours, theirs, samples=20000)
    narrow = paired_difference(ours, theirs, samples=20000, confidence=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_no_difference():
    found = paired_difference([1.0, 2.0], [1.0, 2.0], samples=10)
    assert found == (0, 0, 0) and not found.is_sure
    assert not paired_difference([1.0, 3.0], [2.0, 2.0], samples=100).is_sure
    for ours, theirs in (([1.0], [1.0, 2.0]), ([], [])):
        with pytest.raises(ValueError, match="make no pairs"):
            paired_difference(ours, theirs)
