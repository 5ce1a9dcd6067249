"""scripts/train_starter.sh: what it says before hours of training are spent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_starter.sh"


@pytest.mark.parametrize(
    "optim", ["raise ImportError", "class Muon:\n    def __init__(self, params, lr): ..."], ids=["none", "old"]
)
def test_a_missing_or_old_timm_is_said_before_the_first_phase(tmp_path, optim):
    stand_in = tmp_path / "packages" / "timm" / "optim"
    stand_in.mkdir(parents=True)
    (stand_in.parent / "__init__.py").touch()
    (stand_in / "__init__.py").write_text(optim)
    (stand_in / "muon.py").touch()
    places = [str(tmp_path / "packages"), str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        ["bash", str(SCRIPT), str(tmp_path), str(tmp_path), str(tmp_path / "out")],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, places))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("train_starter: the optimizer Muon") and "timm>=1.0.27" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
