"""The doctor: what it finds, and the command that it names for each."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prompt_mamba_arch import cli, doctor
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import encoder

ROOT = Path(__file__).resolve().parents[1]


def _named(findings):
    return {finding.name: finding for finding in findings}


def test_it_looks_at_everything():
    found = _named(doctor.examine())
    for name in ("version", "packages", "threads", "scan, CPU", "GPU", "free memory, cpu", "text encoder", "networks"):
        assert found[name].value and found[name].state in ("good", "poor")
        assert "\n" not in found[name].value
    assert "video" in found["extras"].value and "app" in found["extras"].value
    assert f"torch {importlib.metadata.version('torch')}" in found["packages"].value


@pytest.mark.parametrize(
    "why, mend",
    [
        ("they were not built: install a C++ compiler", "build_ext"),
        ("PROMPT_MAMBA_NO_KERNELS is set", "unset PROMPT_MAMBA_NO_KERNELS"),
        ("PROMPT_MAMBA_INSTRUCTION_SET: there is no 'x' here", "unset PROMPT_MAMBA_INSTRUCTION_SET"),
        ("they need torch 2.4, this is 2.1", "pip install 'torch>=2.4'"),
        ("_scan.so cannot be loaded: bad ELF", "build_ext"),
    ],
)
def test_without_kernels_it_says_why(monkeypatch, why, mend):
    monkeypatch.setattr(doctor.library, "kernels", None)
    monkeypatch.setattr(doctor.library, "why_not", f"the C++ kernels are not used: {why}")
    found = _named(doctor.examine())["scan, CPU"]
    assert found.state == "poor" and why in found.value and mend in found.mend


def test_packages_that_are_missing_or_old(monkeypatch):
    needed = ["torch>=99", "no-such-package>=1", "numpy", "lpips; extra == 'lpips'", "numpy>=99; python_version < '3'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: needed)
    bad = [finding for finding in doctor.examine() if finding.state == "bad" and finding.name == "packages"]
    assert [finding.mend for finding in bad] == ["pip install 'torch>=99'", "pip install 'no-such-package>=1'"]


def test_a_missing_text_encoder(monkeypatch):
    def missing(model=None):
        raise UserError("no text encoder here; install it with: pip install it")

    monkeypatch.setattr(encoder, "find_model", missing)
    found = _named(doctor.examine())["text encoder"]
    assert found.state == "bad" and found.mend == "pip install it"
    found = _named(doctor.try_out(seconds=0))
    assert found["test of the encoder"].state == "bad"
    assert found["test of restoring"].state == "good"  # blind


def test_threads_and_gpus(monkeypatch):
    monkeypatch.setattr(doctor, "_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = _named(doctor.examine())["threads"]
    assert found.state == "poor" and found.mend == "unset OMP_NUM_THREADS"
    if torch.cuda.is_available():
        return
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/nvidia-smi")
    found = _named(doctor.examine())["GPU"]
    assert found.state == "poor" and found.mend


def test_the_test(checkpoint):
    found = _named(doctor.try_out(str(checkpoint), "cpu", seconds=0))
    assert found["test of the scan"].state == "good" and found["test of the encoder"].state == "good"
    assert "dB" in found["test of restoring"].value and "s a megapixel on cpu" in found["test of restoring"].value
    found = _named(doctor.try_out("missing.pth", seconds=0))["test of restoring"]
    assert found.state == "bad" and "missing.pth" in found.value


def test_a_scan_that_computes_nonsense(monkeypatch):
    from prompt_mamba_arch.ops import selective_scan

    def wrong(*args, backend):
        return selective_scan(*args, backend="reference") + (backend == "auto")

    monkeypatch.setattr(doctor, "selective_scan", wrong)
    assert doctor._try_scan().state == "bad"


def test_the_command(monkeypatch, capsys):
    assert cli.main(["doctor", "--no-test"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("  ok  version: ") and "scan, CPU" in out

    monkeypatch.setattr(
        doctor, "examine", lambda: iter([doctor.Finding("bad", "text encoder", "gone", "pip install it")])
    )
    assert cli.main(["doctor", "--no-test"]) == 1
    assert capsys.readouterr().out == "FAIL  text encoder: gone\n      -> pip install it\n"


def test_without_torch_it_still_speaks():
    program = "import sys; sys.modules['torch'] = None; from prompt_mamba_cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "FAIL  packages: " in done.stdout and "-> pip install torch" in done.stdout
    assert "Traceback" not in done.stderr
