"""The command line: folders, mistakes in one line, nothing half-written."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from prompt_mamba_arch.cli import main
from prompt_mamba_arch.restore import Restorer


def test_a_folder_goes_on_behind_a_bad_file(tmp_path, checkpoint, photo, capsys):
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.jpg"):
        Image.fromarray(photo).save(source / name)
    (source / "bad.png").write_bytes(b"\x89PNG no")
    arguments = ["restore", "-i", str(source), "-o", str(tmp_path / "out"), "--model", str(checkpoint)]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "bad.png" in said and "2 of 3 images" in said and "Traceback" not in said
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "a.png",
        "sub/b.jpg",
    ]
    assert main(arguments) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"-i": "gone.png"}, "no such file or folder: 'gone.png'"),
        ({"-o": "out.gif"}, "suffix must be one of"),
        ({"-i": "cut.png"}, "'cut.png' is damaged"),
        ({"--model": "gone.pth"}, "no such network file"),
        ({"--model": "huge"}, "no network named 'huge'"),
        ({"--model": "cut.pth"}, "truncated"),
        ({"--model": "plain.pth"}, "does not say which network"),
        ({"--strength": "7"}, "--strength must be from 0 to 2"),
        ({"--tile": "small"}, "--tile must be"),
        ({"--tile": "8"}, "tile must be"),
        ({"--device": "warp"}, "unknown device"),
        ({"-o": "a.png"}, "the output is the input"),
        ({"--colour": "1"}, "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_plain_line(tmp_path, checkpoint, photo, capsys, monkeypatch, change, says):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo).save("a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    (tmp_path / "cut.pth").write_bytes(checkpoint.read_bytes()[:5000])
    torch.save({"params": {}}, "plain.pth")
    before = sorted(p.name for p in tmp_path.iterdir())
    arguments = {"-i": "a.png", "-o": "b.png", "--model": str(checkpoint), **change}
    try:
        code = main(["restore", *(word for pair in arguments.items() for word in pair)])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2 and says in said and "Traceback" not in said
    assert sum("prompt-mamba:" in line for line in said.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there(tmp_path, checkpoint, photo, capsys):
    Image.fromarray(photo).save(tmp_path / "a.png")
    arguments = ["-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--model", str(checkpoint)]
    assert main(["restore", *arguments, "--device", "cuda"]) == 2
    assert "there are 0 CUDA GPUs" in capsys.readouterr().err


def test_ctrl_c(tmp_path, checkpoint, photo, capsys, monkeypatch):
    Image.fromarray(photo).save(tmp_path / "a.png")
    monkeypatch.setattr(Restorer, "restore", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    arguments = ["-i", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--model", str(checkpoint)]
    assert main(["restore", *arguments]) == 130
    assert "interrupted" in capsys.readouterr().err and not (tmp_path / "b.png").exists()


def test_train_and_test_are_handed_over(capsys):
    for command in ("train", "test"):
        assert main([command, "-opt", "gone.yml"]) == 2
        assert "gone.yml" in capsys.readouterr().err
