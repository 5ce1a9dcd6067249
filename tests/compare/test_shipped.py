"""The option files of options/compare: each is understood to the last key, and the one that needs no data runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from prompt_mamba_arch.compare import compare, read_plan
from prompt_mamba_arch.compare.methods import open_method
from prompt_mamba_arch.compare.packages import Absent
from prompt_mamba_arch.compare.tasks import open_task

FOLDER = Path(__file__).resolve().parents[2] / "options" / "compare"
# equal_budget.yml and equal_budget_limits.yml become one; light_sr.yml wants a training
PLANS = ["photographs.yml", "starter.yml"]


@pytest.mark.parametrize("name", PLANS)
def test_methods_are_understood(name):
    plan = read_plan(FOLDER / name)
    for key, options in plan.methods.items():
        try:
            method = open_method(key, options, "cpu", print)
        except Absent as error:
            assert "pip install" in str(error)
            continue
        assert method.name == key and method.upscale in (1, 4)


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yml")))
def test_every_line_is_explained(name):
    """A comment stands above each key, or above the list that it is in."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and not any("/home/" in line for line in lines)
    commented = sum(line.lstrip().startswith("#") for line in lines)
    assert commented >= len([line for line in lines if line and line[0] not in " #"])


def test_the_one_without_data_runs(tmp_path):
    small = ["crop=32", "cost=none", f"output={tmp_path}", "metrics:ssim={type: calculate_ssim, crop_border: 4}"]
    plan = read_plan(FOLDER / "photographs.yml", small)
    found = compare(plan)
    assert list(found.rows) == list(plan.tasks) and not found.failed
    for name in plan.tasks:
        assert open_task(name, plan.tasks[name], plan).oracle is None
        assert all(len(row.scores["psnr"]) == 4 for row in found.rows[name])
