"""Which backend runs, what it is given, and what is said when something does not fit."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from prompt_mamba_arch.ops import (
    available_backends,
    cpu,
    library,
    scan_order,
    selective_scan,
    selective_scan_2d,
)
from prompt_mamba_arch.ops.interface import BACKENDS, _automatic, _say_once

# ---- choosing ------------------------------------------------------------------------------------------------------


def test_automatic_choice_on_cpu(scan_tools, monkeypatch):
    expected = "cpu" if "cpu" in available_backends() else "torch"
    assert _automatic(torch.randn(1), 16, True) == expected
    used = []
    monkeypatch.setitem(
        BACKENDS, expected, BACKENDS[expected]._replace(sequence=lambda *a: used.append(a[0].dtype) or (a[0], a[0]))
    )
    selective_scan(**scan_tools.sequence(1, 4, 6, 2, dtype=torch.float16))
    assert used == [torch.float32]


def test_without_the_kernels_the_scan_runs_in_pytorch_and_says_so_once(scan_tools, monkeypatch, caplog):
    monkeypatch.setattr(cpu, "why_not", "there are none")
    _say_once.cache_clear()
    arguments = scan_tools.sequence(1, 4, 6, 2)
    with caplog.at_level(logging.WARNING, logger="prompt_mamba_arch"):
        for _ in range(2):
            assert selective_scan(**arguments)[0].shape == (1, 4, 6)
    assert [record.getMessage() for record in caplog.records] == [
        "the scan runs in plain PyTorch, slowly: there are none"
    ]
    assert "cpu" not in available_backends()
    with pytest.raises(RuntimeError, match="scan backend 'cpu': there are none"):
        selective_scan(**arguments, backend="cpu")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PROMPT_MAMBA_NO_KERNELS", "1", "PROMPT_MAMBA_NO_KERNELS is set"),
        ("PROMPT_MAMBA_INSTRUCTION_SET", "mmx", "there is no 'mmx' here"),
    ],
)
def test_environment_variables(monkeypatch, kernels, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(library.Missing, match=message):
        library.load()


def test_a_library_that_is_missing_or_broken_or_old(monkeypatch, tmp_path, kernels):
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "_scan.so")
    with pytest.raises(library.Missing, match="were not built: install a C\\+\\+ compiler"):
        library.load()
    (tmp_path / "_scan.so").write_bytes(b"no library")
    with pytest.raises(library.Missing, match=r"_scan.so cannot be loaded"):
        library.load()
    monkeypatch.undo()
    monkeypatch.setattr(library, "INTERFACE", -1)
    with pytest.raises(library.Missing, match="was built from other sources"):
        library.load()


@pytest.mark.parametrize("functions", [{}, {"pm_scan_interface": lambda: library.INTERFACE}])
def test_a_library_that_lacks_functions(monkeypatch, tmp_path, kernels, functions):
    monkeypatch.setattr(library.ctypes, "CDLL", lambda _: SimpleNamespace(**functions))
    with pytest.raises(library.Missing, match="was built from other sources"):
        library.load()


def test_cpu_backend_refuses_other_devices(scan_tools, kernels):
    arguments = scan_tools.sequence(1, 4, 6, 2)
    arguments = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    with pytest.raises(RuntimeError, match="for cpu tensors; these are on meta"):
        selective_scan(**arguments, backend="cpu")


# ---- what does not fit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": torch.zeros(2, 6, 8)}, r"delta must be \(2, 6, 9\), not \(2, 6, 8\)"),
        ({"A": torch.zeros(6, 4)}, r"A must be \(6, 3\), not \(6, 4\)"),
        ({"A": torch.zeros(6)}, r"u must be \(B, D, L\), A \(D, N\)"),
        ({"a_form": "tied"}, r"A must be \(6, 1\), not \(6, 3\)"),
        ({"a_form": "tide"}, "unknown form of A 'tide'; there are general, tied, scalar"),
        ({"B": torch.zeros(2, 4, 3, 9), "C": torch.zeros(2, 4, 3, 9)}, "6 channels cannot be shared by 4 groups"),
        ({"C": torch.zeros(2, 2, 9)}, r"C must be \(2, 1, 3, 9\), not \(2, 1, 2, 9\)"),
        ({"D": torch.zeros(5)}, r"D must be \(6,\)"),
        ({"z": torch.zeros(2, 6, 1)}, r"z must be \(2, 6, 9\)"),
        ({"delta_bias": torch.zeros(6, 1)}, r"delta_bias must be \(6,\)"),
        ({"u": torch.zeros(2, 6, 9, dtype=torch.int32)}, "floating-point tensors, not torch.int32"),
        ({"backend": "cuda"}, "unknown scan backend 'cuda'; there are auto, reference, torch, cpu, mamba_ssm"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_sequence_arguments_that_do_not_fit(scan_tools, change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**{**scan_tools.sequence(2, 6, 9, 3), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 9)}, r"x must be \(B, L, D\)"),
        ({"dbc": torch.zeros(2, 9, 2, 9)}, r"must be R \+ 2N; it is 9, R is 2"),
        ({"dbc": torch.zeros(2, 9, 3, 8)}, r"dbc must be \(2, 9, 2, 8\), not \(2, 9, 3, 8\)"),
        ({"A": torch.zeros(2, 6, 1)}, r"A must be \(2, 6, 3\)"),
        ({"D": torch.zeros(6)}, r"D must be \(2, 6\)"),
        ({"dt_bias": torch.zeros(6)}, r"dt_bias must be \(2, 6\)"),
        ({"order": torch.zeros(1, 9, dtype=torch.int32)}, r"order must be \(2, 9\)"),
        ({"order": torch.zeros(2, 9, dtype=torch.int64)}, "order must be int32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_image_arguments_that_do_not_fit(scan_tools, change, message):
    with pytest.raises(ValueError, match=message):
        selective_scan_2d(**{**scan_tools.image(2, 9, 6, 3, 2, 2), **change})


# ---- orders --------------------------------------------------------------------------------------------------------


def test_scan_orders():
    names = ("rows", "rows_reversed", "columns", "columns_reversed", "snake", "snake_reversed")
    order = scan_order(2, 3, names)
    assert order.dtype == torch.int32
    assert order.tolist() == [
        [0, 1, 2, 3, 4, 5],
        [5, 4, 3, 2, 1, 0],
        [0, 3, 1, 4, 2, 5],
        [5, 2, 4, 1, 3, 0],
        [0, 1, 2, 5, 4, 3],
        [3, 4, 5, 2, 1, 0],
    ]
    assert scan_order(2, 3, names) is order
    with pytest.raises(ValueError, match="unknown scan direction 'diagonal'"):
        scan_order(2, 3, ["diagonal"])
