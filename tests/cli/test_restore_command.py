"""The command line: what it does with files and folders, and how it says what it will not do."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import prompt_mamba_cli
import prompt_mamba_cli.arguments
import prompt_mamba_cli.photographs
from prompt_mamba_arch import batch, cli, image_io, restore, video
from prompt_mamba_arch.restore import Restorer

ROOT = Path(__file__).resolve().parents[2]


def test_one_file(tmp_path, run, model, save, listing):
    source = save(tmp_path / "in.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", dpi=(300, 300))
    out, err = run("restore", "-i", source, "-o", tmp_path / "new" / "out.png", "-p", "remove the noise", code=0)
    assert err == [] and "'remove the noise'" in out and "out.png" in out
    expected = Restorer.from_pretrained(model, "cpu").restore(image_io.read_photo(source).pixels, "remove the noise")
    found = image_io.read_photo(tmp_path / "new" / "out.png")
    assert abs(found.pixels.astype(int) - expected).max() <= 1 and found.dpi == pytest.approx((300, 300), abs=0.1)
    assert listing(tmp_path) == ["in.jpg", "new/out.png"]


@pytest.mark.parametrize("name, options", [("in.jpg", {"quality": 60}), ("in.webp", {}), ("in.png", {})])
def test_where_nothing_changes_the_file_is_the_same(tmp_path, run, save, name, options):
    source = save(tmp_path / name, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", **options)
    target = tmp_path / "out" / name
    run("restore", "-i", source, "-o", target, "--strength", "0", code=0)
    assert target.read_bytes() == source.read_bytes()
    if name.endswith(".jpg"):
        run("restore", "-i", source, "-o", target.with_suffix(".JPEG"), "--strength", "0", code=0)
        assert target.with_suffix(".JPEG").read_bytes() == source.read_bytes()
    run("restore", "-i", source, "-o", target.with_suffix(".tif"), "--strength", "0", code=0)
    assert target.with_suffix(".tif").read_bytes() != source.read_bytes()


def test_where_nothing_changes_the_stream_is_the_same(tmp_path, run, save, monkeypatch):
    source = save(tmp_path / "in.jpg", quality=60).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source)))
    run("restore", "-i", "-", "-o", tmp_path / "out.jpg", "--strength", "0", code=0)
    assert (tmp_path / "out.jpg").read_bytes() == source


def test_into_a_folder_the_name_stays(tmp_path, run, save, listing):
    source = save(tmp_path / "a photo.JPG")
    (tmp_path / "there").mkdir()
    for place in (str(tmp_path / "there"), f"{tmp_path}/new/", str(tmp_path / "no suffix")):
        run("restore", "-i", source, "-o", place, "--strength", "0.5", "--tile", "64", code=0)
    assert listing(tmp_path) == [
        "a photo.JPG", "new/a photo.JPG", "no suffix/a photo.JPG", "there/a photo.JPG",
    ]  # fmt: skip


def test_a_folder_with_one_broken_file(tmp_path, run, save, listing):
    source, target = tmp_path / "in", tmp_path / "out"
    names = ["2.png", "10.jpg", "sub/a.png", "sub/a.jpg", "sub/deep/b.TIF"]
    for name in names:
        save(source / name)
    (source / "5.png").write_bytes((source / "2.png").read_bytes()[:200])
    (source / "notes.txt").write_text("no photograph")
    (source / "._2.png").write_text("what another system left")
    save(source / ".thumbnails" / "2.png")
    out, err = run("restore", "-i", source, "-o", target, code=1)
    assert len(err) == 1 and "5.png" in err[0] and err[0].startswith("prompt-mamba: ")
    assert "5 of 6 images restored" in out
    assert listing(target) == sorted(names)


def test_a_folder_of_one(tmp_path, run):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("broken")
    out, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert len(err) == 1 and "a.png" in err[0] and "0 of 1 images" in out
    assert not (tmp_path / "out").exists()


def test_results_inside_the_input_folder_are_no_input(tmp_path, run, save, listing):
    save(tmp_path / "a.png")
    target = tmp_path / "restored"
    run("restore", "-i", tmp_path, "-o", target, code=0)
    run("restore", "-i", tmp_path, "-o", target, "--overwrite", code=0)
    assert listing(tmp_path) == ["a.png", "restored/.prompt_mamba_results", "restored/a.png"]
    _, err = run("restore", "-i", tmp_path, "-o", tmp_path / "again", "--compare", code=0)
    assert listing(tmp_path / "again") == [".prompt_mamba_results", "a.png", "a.png.compare.jpg"]
    assert "results of earlier runs (1) are passed over" in err[0]
    # and the input inside the output folder is input
    out, _ = run("restore", "-i", tmp_path / "restored", "-o", tmp_path, "--overwrite", code=0)
    assert "1 of 1" in out


def test_no_original_is_lost(tmp_path, save, refused):
    source = save(tmp_path / "in" / "a.png")
    before = source.read_bytes()
    link, hard = tmp_path / "link.png", tmp_path / "hard.png"
    link.symlink_to(source)
    os.link(source, hard)
    for target in (source, source.parent, link, hard, f"{tmp_path}/in/../in/a.png"):
        said = refused("is an input", "-i", source, "-o", target, "--overwrite")
        assert "original" in said
    refused("is the input folder", "-i", tmp_path / "in", "-o", f"{tmp_path}/in/.", "--overwrite")
    # a/b/b/x.png would become a/b/x.png
    for name in ("a/b/x.png", "a/b/b/x.png"):
        save(tmp_path / name)
    refused("is an input", "-i", tmp_path / "a" / "b", "-o", tmp_path / "a", "--overwrite")
    assert source.read_bytes() == before


def test_existing_results_stay(tmp_path, run, save, refused):
    source, target = save(tmp_path / "in.png"), tmp_path / "out.png"
    target.write_text("older")
    refused("'" + str(target) + "' exists already; add --overwrite", "-i", source, "-o", target)
    assert target.read_text() == "older"
    run("restore", "-i", source, "-o", target, "--overwrite", code=0)
    assert image_io.read_photo(target).pixels.shape == (20, 30, 3)
    for name in "abc":
        save(tmp_path / "more" / f"{name}.png")
        save(tmp_path / "results" / f"{name}.png")
    refused("and 2 more exists already", "-i", tmp_path / "more", "-o", tmp_path / "results")


@pytest.mark.parametrize(
    "extra, said",
    [
        (["--strength", "3"], "--strength: must be a number from 0 to 2"),
        (["--strength", "nan"], "--strength"),
        (["--strength", "much"], "--strength"),
        (["--tile", "0"], "--tile: must be auto, none or a number of pixels from 64"),
        (["--tile", "-64"], "--tile"),
        (["--tile", "large"], "--tile"),
        (["--model", "no_such_name"], "no network named 'no_such_name'"),
        (["--model", "missing.pth"], "no such network file"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--promt", "x"], "--promt"),
        (["-o", "out.xyz"], "its suffix must be one of .png"),
        (["-i", "missing.png"], "no such file or folder: 'missing.png'"),
        (["-i", "broken.png"], "broken.png"),
        (["-i", "empty.png"], "is empty"),
        (["-i", "none"], "holds no images"),
        (["-i", ""], "-i/--input: must name"),
        (["-o", ""], "-o/--output: must name"),
        (["-i", "none", "-o", "in.png"], "is a file"),
        (["-o", "in.png/out.png"], "is a file, not a folder"),
        (["-i", "photo.raw", "-o", "none"], "cannot write 'photo.raw'"),
        (["-i", "*.tif"], "no image matches '*.tif'"),
        (["-i", "in.png", "missing.png", "-o", "new"], "no such file or folder: 'missing.png'"),
        (["-i", "in.png", "broken.png"], "looks like a file, and 2 images need a folder"),
        (["-i", "in.png", "broken.png", "-o", "empty.png"], "is a file, and 2 images"),
        (["-i", "in.png", "more/in.png", "-o", "new"], "would both become 'new/in.png'"),
        (["-i", "in.png", "broken.png", "-o", "-"], "carry one photograph"),
        (["-i", "-", "in.png"], "carry one photograph"),
        (["--jobs", "0"], "--jobs: must be a whole number from 1"),
        (["--share", "0/4"], "--share: must be all, or such as 2/4"),
        (["--share", "5/4"], "--share"),
        (["--overwrite", "--skip-existing"], "not allowed with"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, extra, said, save, refused, listing):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in.png")
    (tmp_path / "photo.raw").write_bytes((tmp_path / "in.png").read_bytes())
    (tmp_path / "broken.png").write_bytes((tmp_path / "in.png").read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    (tmp_path / "none").mkdir()
    save(tmp_path / "more" / "in.png")
    before = listing(tmp_path)
    refused(said, "-i", "in.png", "-o", "out.png", *extra)
    assert listing(tmp_path) == before


def test_what_is_a_photograph_is_told_by_its_content(tmp_path, run, save):
    save(tmp_path / "in.png")
    (tmp_path / "in.png").rename(tmp_path / "photo.unknown")
    run("restore", "-i", tmp_path / "photo.unknown", "-o", tmp_path / "out.png", code=0)


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch, save, refused, listing):
    source = save(tmp_path / "in.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root everything can be written
    refused("cannot be written to", "-i", source, "-o", tmp_path / "new" / "deep" / "out.png")
    assert listing(tmp_path) == ["in.png"]


def test_a_prompt_for_a_network_without_text_is_refused_once(tmp_path, run, save, refused):
    from basicsr.utils.registry import ARCH_REGISTRY

    arguments = {"num_feat": 8, "num_block": 1, "upscale": 2}
    net = ARCH_REGISTRY.get("MSRResNet")(**arguments)
    torch.save({"params": net.state_dict(), "network_g": {"type": "MSRResNet", **arguments}}, tmp_path / "net.pth")
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png")
    how = ["-i", tmp_path / "in", "-o", tmp_path / "out", "--model", tmp_path / "net.pth"]
    refused("takes no prompts", *how, "-p", "remove the noise")
    run("restore", *how, code=0)
    assert image_io.read_photo(tmp_path / "out" / "a.png").pixels.shape == (40, 60, 3)


def test_warnings_are_lines_too(tmp_path, run, model, save):
    content = torch.load(model)
    torch.save({**content, "phase": "pretrain"}, tmp_path / "net.pth")
    source = save(tmp_path / "in.png")
    how = ["-i", source, "-o", tmp_path / "out.png", "-p", "remove it", "--model", tmp_path / "net.pth"]
    _, err = run("restore", *how, code=0)
    assert len(err) == 1 and err[0].startswith("prompt-mamba: the network") and "not learned to read" in err[0]


def test_what_a_format_cannot_hold_is_said(tmp_path, run, save):
    Image.fromarray(np.zeros((20, 30, 4), np.uint8)).save(tmp_path / "in.png")
    _, err = run("restore", "-i", tmp_path / "in.png", "-o", tmp_path / "out.jpg", code=0)
    assert len(err) == 1 and "in.png" in err[0] and "transparency" in err[0]


@pytest.mark.parametrize("folder", [False, True])
def test_ctrl_c(tmp_path, run, monkeypatch, folder, save, listing):
    source = save(tmp_path / "in" / "a.png")

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    how = ["-i", source.parent, "-o", tmp_path / "out"] if folder else ["-i", source, "-o", tmp_path / "out.png"]
    _, err = run("restore", *how, code=130)
    assert err == ["prompt-mamba: interrupted"]
    assert listing(tmp_path) == ["in/a.png"]


def test_too_little_memory(tmp_path, monkeypatch, save, refused):
    source = save(tmp_path / "in.png")

    def too_much(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(batch, "read_photo", too_much)
    refused("not enough memory", "-i", source, "-o", tmp_path / "out.png")


def test_bugs_are_not_hidden(tmp_path, model, monkeypatch, save):
    def bug(*_args, **_options):
        raise ZeroDivisionError

    monkeypatch.setattr(Restorer, "restore", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main(["restore", "-i", str(save(tmp_path / "in.png")), "-o", str(tmp_path / "out.png"), "--model", model])


@pytest.mark.parametrize("command", ["train", "test"])
def test_train_and_test_get_their_flags(monkeypatch, command):
    from prompt_mamba_arch import test, train

    seen = []
    monkeypatch.setattr({"train": train, "test": test}[command], "main", lambda argv: seen.append(argv) or 7)
    assert cli.main([command, "-opt", "a.yml", "--debug"]) == 7
    assert seen == [["-opt", "a.yml", "--debug"]]


def test_train_says_what_is_wrong_with_its_option_file(run):
    _, err = run("train", "-opt", "missing.yml", code=2)
    assert len(err) == 1 and "missing.yml" in err[0]


@pytest.mark.parametrize("arguments", [[], ["restor"], ["restore"], ["restore", "-i", "a.png"]])
def test_unfinished_commands(run, arguments):
    out, err = run(*arguments, code=2)
    assert out == "" and len(err) == 1 and "--help" in err[0]


def test_what_is_repeated_agrees():
    """The command imports nothing of the package before work begins, so it has its own copies."""
    assert prompt_mamba_cli.photographs.SUFFIXES == tuple(image_io.SUFFIXES)
    assert prompt_mamba_cli.photographs.FILMS == tuple(video.SUFFIXES)
    assert prompt_mamba_cli.arguments.MIN_TILE == restore.MIN_TILE


_HEAVY = """
import sys
sys.argv = ["prompt-mamba", *{arguments!r}]
import prompt_mamba_cli
try:
    code = prompt_mamba_cli.main()
except SystemExit as error:
    code = error.code
heavy = sorted({{"torch", "basicsr", "numpy", "prompt_mamba_arch"}} & set(sys.modules))
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--help"], 0),
        (["restore", "--help"], 0),
        (["restore", "-i", "missing.png", "-o", "out.png"], 2),
        (["restore", "-i", "setup.py", "-o", "out.png", "--tile", "1"], 2),
    ],
)
def test_help_and_mistakes_import_nothing(arguments, code):
    program = _HEAVY.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("usage" in done.stdout) if code == 0 else (len(done.stderr.splitlines()) == 1)


def test_the_console_command_is_cli_main(tmp_path, monkeypatch, model, save):
    source = save(tmp_path / "in.png")
    arguments = ["restore", "-i", str(source), "-o", str(tmp_path / "out.png"), "--model", model]
    monkeypatch.setattr(sys, "argv", ["prompt-mamba", *arguments])
    assert prompt_mamba_cli.main() == 0
    assert (tmp_path / "out.png").exists()
    assert prompt_mamba_cli.main() == 2  # it exists


def test_python_m(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "prompt_mamba_arch", "restore", "-i", str(tmp_path / "no"), "-o", "out.png"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr == f"prompt-mamba: no such file or folder: {str(tmp_path / 'no')!r}\n"


def test_a_checkpoint_of_basicsr_with_its_option_file(tmp_path, run, save, refused):
    from basicsr.utils.registry import ARCH_REGISTRY

    net = ARCH_REGISTRY.get("MSRResNet")(num_feat=8, num_block=1, upscale=2)
    torch.save({"params": net.state_dict()}, tmp_path / "net_g_latest.pth")
    (tmp_path / "train.yml").write_text("network_g:\n  type: MSRResNet\n  num_feat: 8\n  num_block: 1\n  upscale: 2\n")
    source, target = save(tmp_path / "in.png"), tmp_path / "out.png"
    how = ["-i", source, "-o", target, "--model", tmp_path / "net_g_latest.pth"]
    refused("--opt FILE.yml", *how)
    refused("missing.yml", *how, "--opt", tmp_path / "missing.yml")
    run("restore", *how, "--opt", tmp_path / "train.yml", code=0)
    assert image_io.read_photo(target).pixels.shape == (40, 60, 3)
