"""What the tests of the command line share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from prompt_mamba_arch import cli
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The file of a small network that has learned nothing, with text."""
    torch.manual_seed(0)
    net = PromptMamba(size="tiny", dim=8, enc_blocks=[1, 1], middle_blocks=1, dec_blocks=[1, 1])
    path = tmp_path_factory.mktemp("model") / "net.pth"
    state = net.state_dict()
    torch.save({"params": state, "params_ema": state, "network_g": {"type": "PromptMamba", **net.config}}, path)
    return str(path)


@pytest.fixture
def save():
    """Writes a picture of noise: save(path, (width, height), Pillow's options)."""

    def save(path, size=(30, 20), **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return path

    return save


@pytest.fixture
def run(capfd, model):
    """Runs the command; returns (stdout, lines of stderr)."""

    def run(*arguments, code):
        arguments = [str(argument) for argument in arguments]
        if "--model" not in arguments and arguments[:1] == ["restore"]:
            arguments += ["--model", model]
        capfd.readouterr()
        try:
            found = cli.main(arguments)
        except SystemExit as error:  # as argparse leaves
            found = error.code
        out, err = capfd.readouterr()
        assert found == code, err
        assert "Traceback" not in err
        return out, err.splitlines()

    return run


@pytest.fixture
def refused(run):
    """Runs `restore`, which must end in one line that has `said` in it; returns the line."""

    def refused(said, *arguments):
        out, err = run("restore", *arguments, code=2)
        assert out == "" and len(err) == 1, err
        assert err[0].startswith("prompt-mamba: ") and said in err[0], err
        return err[0]

    return refused


@pytest.fixture
def listing():
    """All files below a folder."""

    def listing(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    return listing
