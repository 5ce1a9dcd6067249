"""A submission in a fresh virtual environment that has torch, numpy, OpenCV and what these need, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from harness import BLOCKER, HARNESS, network

from prompt_mamba_arch.ntire import install_submission, write_submission
from prompt_mamba_arch.text import TextEncoder

OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
NOT_THERE = ("prompt_mamba_arch", "basicsr", "torchvision", "transformers", "mamba_ssm", "fvcore", "spandrel", "pytest")
# saves what the network gives for each picture, before it is rounded
PROGRAM = """
import argparse, glob, importlib.util, os, sys
import cv2
import numpy as np
import torch
from {script} import select_model

assert sys.prefix == {prefix!r} and not any(map(importlib.util.find_spec, {absent!r}))
args = argparse.Namespace(model_id=7)
if {script!r} == "test":  # the network in the folder that `main` restores with
    from models.team07_Net.network import Net
    model, data_range = Net(), 1.0
    model.load_state_dict(torch.load("model_zoo/team07_Net/team07_net.pth"), strict=True)
    main, weights, name = select_model(args, None)
    main(model_dir=weights, input_path={low!r}, output_path="results", device=torch.device("cpu"))
else:
    model, name, data_range, tile = select_model(args, torch.device("cpu"))
for path in glob.glob(os.path.join({low!r}, "*.png")):
    image = np.ascontiguousarray(cv2.imread(path)[..., ::-1])
    with torch.no_grad():
        y = model.eval()(torch.from_numpy(image.transpose(2, 0, 1)[None] / 255.0).float() * data_range)
    np.save(os.path.basename(path), y.numpy())
"""
FOLDER_SCRIPT = (
    "import os\n\n\ndef select_model(args, device):\n    model_id = args.model_id\n    if model_id == 0:\n"
    "        pass\n    else:\n        raise NotImplementedError\n\n    return model_func, model_path, name\n"
)


def _installed(*names: str) -> dict[str, metadata.Distribution]:
    """These distributions, and all that they need here, by name."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in names:
                raise
            continue  # for another system or Python
        required = (text.partition(";") for text in found[name].requires or ())
        waiting += [re.match(r"[\w.-]+", text.strip()).group() for text, _, when in required if "extra" not in when]
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of the environment, whose site-packages are links to this one's."""
    place = tmp_path_factory.mktemp("fresh") / "venv"
    try:
        opencv = next(name for name in OPENCV if _has(name))
        distributions = _installed("torch", "numpy", opencv)
    except (StopIteration, metadata.PackageNotFoundError):
        pytest.skip(
            "torch, numpy or OpenCV were not installed by a package manager of Python, so nothing says their files"
        )
    done = subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no virtual environment can be made here: {(done.stderr or done.stdout).strip()[-200:]}")
    (packages,) = {*place.glob("lib/python*/site-packages"), *place.glob("Lib/site-packages")}
    for name, distribution in distributions.items():
        files = [file for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")]
        if not files:
            pytest.skip(f"the installation of {name} does not say its files")
        for top in {file.parts[0] for file in files}:
            try:
                if not (packages / top).is_symlink():
                    (packages / top).symlink_to(
                        distribution.locate_file(top), Path(distribution.locate_file(top)).is_dir()
                    )
            except OSError as error:
                pytest.skip(f"no links can be made here: {error}")
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _has(name: str) -> bool:
    try:
        return metadata.distribution(name) is not None
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.parametrize(("track", "prompt"), [("esr", None), ("dn50", "remove the noise"), ("sr_x4", None)])
def test_it_runs_there_and_gives_what_ours_gives(tmp_path, photos, python, track, prompt):
    low, template = tmp_path / "low", tmp_path / "organisers"
    for folder in (low, template):
        folder.mkdir()
    for name, photo, (height, width) in (("0901x4", "coffee", (20, 30)), ("0902x4", "chelsea", (25, 17))):
        cv2.imwrite(str(low / f"{name}.png"), photos[photo][:height, :width, ::-1])
    net = network(**({"enc_blocks": [1], "dec_blocks": [1], "mixers": ["conv", "scan"]} if prompt else {"upscale": 4}))
    sentence = TextEncoder().encode([prompt])[0] if prompt else None
    archive = write_submission(tmp_path / "out", track, 7, "Net", net, sentence).archive
    script = "test" if track == "sr_x4" else "test_demo"
    assert BLOCKER in HARNESS
    source = FOLDER_SCRIPT if track == "sr_x4" else HARNESS.replace(BLOCKER, "")
    (template / f"{script}.py").write_text(source, encoding="utf-8")
    with zipfile.ZipFile(archive) as file:
        file.extractall(template)
    install_submission(archive, template, track)  # the branch

    program = PROGRAM.format(script=script, prefix=str(python.parent.parent), absent=NOT_THERE, low=str(low))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(python), "-s", "-c", program], cwd=template, env=kept, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    for name in ("0901x4.png", "0902x4.png"):
        x = torch.from_numpy(cv2.imread(str(low / name))[..., ::-1].transpose(2, 0, 1)[None] / np.float32(255))
        with torch.no_grad():
            y = net(x, sentence[None]) if prompt else net(x)
        found = torch.from_numpy(np.load(template / f"{name}.npy"))
        assert found.shape == y.shape and (found - y).abs().max() < 1e-5
        if track == "sr_x4":
            restored = cv2.imread(str(template / "results" / name))[..., ::-1].astype(int)
            assert np.abs(restored - 255 * y[0].clamp(0, 1).permute(1, 2, 0).numpy()).max() < 0.51
