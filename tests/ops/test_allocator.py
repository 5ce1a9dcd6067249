"""Memory of freed tensors is used again, and what the user has set is left alone."""

from __future__ import annotations

import pytest
import torch

from prompt_mamba_arch.ops import allocator

resource = pytest.importorskip("resource")  # not on Windows


def page_faults_of_large_tensors() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(12_000_000)  # 48 MB, 12 000 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_large_tensors_are_not_mapped_anew():
    if not allocator.keep_freed_blocks():
        pytest.skip("no glibc, or it is set otherwise")
    page_faults_of_large_tensors()  # the first ones find their place
    assert page_faults_of_large_tensors() < 12_000


@pytest.mark.parametrize(
    ("name", "value"),
    [("PROMPT_MAMBA_MALLOC", "0"), ("MALLOC_TRIM_THRESHOLD_", "1000"), ("GLIBC_TUNABLES", "glibc.malloc.check=1")],
)
def test_settings_are_respected(monkeypatch, name, value):
    calls = []
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: calls.append(name))
    monkeypatch.setenv(name, value)
    assert not allocator.keep_freed_blocks() and not calls


def test_other_systems(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_blocks()
