"""Small images, a network that follows prompts, and option files of a few lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import prompt_mamba_arch.text
from prompt_mamba_arch.compare import compare, read_plan
from prompt_mamba_arch.restore import Restorer


class FakeEncoder:
    """Sentences as directions by their length."""

    def encode(self, texts):
        rows = [torch.randn(384, generator=torch.Generator().manual_seed(len(text))) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    monkeypatch.setattr(prompt_mamba_arch.text, "TextEncoder", FakeEncoder)


@pytest.fixture(scope="session")
def root(tmp_path_factory, photos):
    """Folders CBSD68, LIVE1 and clean of a few images of 64 x 80, as the test sets are laid."""
    root = tmp_path_factory.mktemp("sets")
    for folder, names in {"CBSD68": ("astronaut", "coffee", "rocket"), "LIVE1": ("chelsea",)}.items():
        (root / folder).mkdir()
        for name in names:
            Image.fromarray(np.ascontiguousarray(photos[name][40:104, 60:140])).save(root / folder / f"{name}.png")
    return root


@pytest.fixture
def plan(tmp_path, root, checkpoint):
    """Writes an option file and reads it: plan(methods={...}, ...) changes what it says."""

    def plan(**changes):
        options = {
            "name": "trial",
            "output": str(tmp_path / "out"),
            "root": str(root),
            "tasks": {"noise25": {"set": "noise25"}},
            "methods": {"net": {"model": str(checkpoint)}, "median": {"opencv": "median"}},
            "metrics": {"psnr": {"type": "calculate_psnr"}},
            "cost": None,
            "bootstrap": {"samples": 200},
            **changes,
        }
        path = tmp_path / "plan.yml"
        path.write_text(yaml.safe_dump(options, sort_keys=False))
        plan.path = path
        return read_plan(path)

    return plan


@pytest.fixture
def run(plan):
    """Reads and runs it; what it says is in `run.told`."""

    def run(**changes):
        run.told = []
        return compare(plan(**changes), tell=run.told.append)

    return run


@pytest.fixture
def restored(monkeypatch):
    """The prompts of every restoration that is made."""
    prompts = []
    restore = Restorer.restore

    def counting(self, image, prompt=None, *others, **more):
        prompts.append(prompt)
        return restore(self, image, prompt, *others, **more)

    monkeypatch.setattr(Restorer, "restore", counting)
    return prompts
