"""What every test shares: one thread, no network, a few real photographs."""

from __future__ import annotations

import os

# before torch is imported, and inherited by the processes that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import prompt_mamba_arch  # noqa: F401  mends BasicSR, which test modules import before anything of ours

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos() -> dict[str, np.ndarray]:
    """Name -> (192, 192, 3) uint8 RGB: crops of photographs that scikit-image ships."""
    from skimage import data

    corners = {"astronaut": (20, 130), "chelsea": (60, 130), "coffee": (100, 220), "rocket": (150, 230)}
    return {
        name: np.ascontiguousarray(getattr(data, name)()[top : top + 192, left : left + 192, :3])
        for name, (top, left) in corners.items()
    }


class PairedFolders(NamedTuple):
    gt: Path
    lq: Path

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.gt.glob("*.png"))


@pytest.fixture
def paired_folders(tmp_path: Path, photos: dict[str, np.ndarray]) -> PairedFolders:
    """Folders gt/ and lq/ with four 64x64 PNG pairs of equal names; lq is gt with noise of sigma 25/255."""
    import cv2

    folders = PairedFolders(tmp_path / "gt", tmp_path / "lq")
    rng = np.random.default_rng(0)
    for folder in folders:
        folder.mkdir()
    for name, photo in photos.items():
        gt = np.ascontiguousarray(photo[64:128, 64:128, ::-1])  # OpenCV writes BGR
        lq = np.clip(gt + rng.normal(0, 25, gt.shape), 0, 255).round().astype(np.uint8)
        for folder, image in zip(folders, (gt, lq)):
            assert cv2.imwrite(str(folder / f"{name}.png"), image)
    return folders


@pytest.fixture(scope="module")
def net():
    """A PromptMamba that is built and run in milliseconds; a prompt changes what it does."""
    from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba

    torch.manual_seed(0)
    net = PromptMamba(dim=8, enc_blocks=[1, 1], middle_blocks=1, dec_blocks=[1, 1], text_width=8).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # the text path starts neutral, the output near the input
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


@pytest.fixture
def checkpoint(net, tmp_path):
    """Its file, as the training writes it."""
    path = tmp_path / "net_g_latest.pth"
    torch.save({"params": net.state_dict(), "network_g": {"type": "PromptMamba", **net.config}}, path)
    return path


@pytest.fixture
def photo(photos):
    """(70, 90, 3) uint8 RGB."""
    return np.ascontiguousarray(photos["astronaut"][:70, :90])
