"""What importing the package registers, under which circumstances, and what a clash says."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY, Registry

import prompt_mamba_arch
from prompt_mamba_arch.errors import UserError

CONTRACT = {
    ARCH_REGISTRY: [
        *("PromptMamba", "SpandrelArch", "InstructIR", "PromptIR", "TextPromptIR", "MambaIR", "MambaIRv2", "EFDN"),
    ],
    DATASET_REGISTRY: ["PromptPairedImageDataset", "PromptDegradationDataset", "PromptMixDataset"],
    MODEL_REGISTRY: ["PromptTwoPhaseModel"],
    METRIC_REGISTRY: ["calculate_lpips"],
}
PACKAGE = Path(prompt_mamba_arch.__file__).resolve().parent


def test_contract_is_registered_under_the_packages_own_name():
    for registry, names in CONTRACT.items():
        for name in names:
            assert registry.get(name).__module__.startswith("prompt_mamba_arch."), name


def test_basicsrs_own_names_are_still_there():
    assert {"SwinIR", "MSRResNet"} <= set(ARCH_REGISTRY.keys()) and "PairedImageDataset" in DATASET_REGISTRY
    assert MODEL_REGISTRY.get("RealESRGANModel").__name__ == "RealESRGANModel"  # registered with the suffix _basicsr


def test_second_name_for_a_file_and_reload_register_nothing_twice():
    module = sys.modules[ARCH_REGISTRY.get("PromptMamba").__module__]
    before = dict(iter(ARCH_REGISTRY))
    # as from a script run in the package's folder
    spec = importlib.util.spec_from_file_location("archs_by_another_name", module.__file__)
    other = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = other
    try:
        spec.loader.exec_module(other)
    finally:
        del sys.modules[spec.name]
    assert dict(iter(ARCH_REGISTRY)) == before
    importlib.import_module(module.__name__)
    assert dict(iter(ARCH_REGISTRY)) == before


def thing(name: str, module: str) -> type:
    return type(name, (), {"__module__": module})


def test_clash_names_both_owners():
    registry = Registry("arch")
    registry.register(thing("PromptMamba", "their_plugin.archs.net"))
    with pytest.raises(UserError) as raised:
        registry.register(thing("PromptMamba", "prompt_mamba_arch.archs.prompt_mamba_arch"))
    assert str(raised.value) == (
        "prompt_mamba_arch.archs.prompt_mamba_arch registers the arch 'PromptMamba', but their_plugin.archs.net "
        "already owns that name; import only one of the two packages"
    )
    assert registry.get("PromptMamba").__module__ == "their_plugin.archs.net"


def test_reloaded_module_replaces_its_own_class():
    registry = Registry("arch")
    registry.register(thing("Net", "plugin.net"))
    new = thing("Net", "plugin.net")
    registry.register(new)
    assert registry.get("Net") is new


def test_clash_of_metrics_keeps_both_and_says_so():
    registry = Registry("metric")
    registry.register(thing("calculate_lpips", "their_plugin.metrics"))
    with pytest.warns(UserWarning, match=r"their_plugin\.metrics already owns.*'calculate_lpips_prompt_mamba_arch'"):
        registry.register(thing("calculate_lpips", "prompt_mamba_arch.metrics.lpips"))
    assert registry.get("calculate_lpips").__module__ == "their_plugin.metrics"
    assert registry.get("calculate_lpips_prompt_mamba_arch").__module__ == "prompt_mamba_arch.metrics.lpips"


def test_unknown_name_is_a_key_error_that_names_the_nearest():
    with pytest.raises(KeyError) as raised:
        ARCH_REGISTRY.get("SwinRI")
    assert str(raised.value) == "unknown arch type 'SwinRI'; did you mean 'SwinIR'?"


IMPORT = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("network at import")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import scipy.ndimage

del scipy.ndimage.filters
for gone in ("distutils", "distutils.version", "scipy.ndimage.filters", "torchvision.transforms.functional_tensor"):
    sys.modules[gone] = None  # importing it fails, as on Python 3.12 without setuptools, SciPy 2, torchvision 0.17

import prompt_mamba_arch

heavy = "transformers mamba_ssm lpips gradio tensorboard spandrel".split()
heavy = [name for name in heavy if name in sys.modules]
assert not heavy, heavy
from basicsr.archs.arch_util import LooseVersion
from basicsr.data.data_util import generate_gaussian_kernel
from basicsr.utils.registry import ARCH_REGISTRY

assert abs(generate_gaussian_kernel().sum() - 1) < 1e-6
assert LooseVersion("0.29.1+cpu") >= LooseVersion("0.9.0") and LooseVersion("0.8") < LooseVersion("0.10")
names = {cls.__module__.split(".")[0] for _, cls in ARCH_REGISTRY}
assert names == {"basicsr", "prompt_mamba_arch"}, names
print(prompt_mamba_arch.__version__)
"""


def test_import_is_light_and_needs_nothing_that_has_gone():
    """From within the package's folder, whose names (test.py, data, text) must not be taken for other modules."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=PACKAGE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == prompt_mamba_arch.__version__
