"""`restore` for many photographs, and what goes beside them: comparisons, streams, several prompts and processes."""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from prompt_mamba_arch import batch, image_io
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.text import Intent, read_intent

ROOT = Path(__file__).resolve().parents[2]


def test_several_prompts(tmp_path, run, save, model):
    source = save(tmp_path / "in.png")
    prompts = ["remove the noise", "", "now sharpen it"]
    out, err = run(
        "restore", "-i", source, "-o", tmp_path / "out.png", *[a for p in prompts for a in ("-p", p)], code=0
    )
    assert err == [] and "'remove the noise', then whatever is wrong, then 'now sharpen it'" in out
    expected = Restorer.from_pretrained(model, "cpu").restore(image_io.read_photo(source).pixels, prompts)
    assert abs(image_io.read_photo(tmp_path / "out.png").pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "prompts, said",
    [
        (["remove the noise but keep the blur"], [r"I understood: remove noise \([01]\.\d\d\), keep .*blur"]),
        (
            ["what is the capital of France?"],
            [r"I understood: this does not ask for restoration .*nothing should change"],
        ),
        (["leave it as it is"], [r"I understood: leave the photograph as it is .*nothing should change"]),
        (
            ["take the grain out", "", "remove the rain"],
            [r"by 'take the grain out': remove noise", r"by 'remove the rain': "],
        ),
        ([""], []),
        ([], []),
    ],
)
def test_it_says_what_it_understood(tmp_path, run, save, prompts, said):
    options = [word for prompt in prompts for word in ("-p", prompt)]
    out, err = run("restore", "-i", save(tmp_path / "in.png"), "-o", tmp_path / "out.png", *options, code=0)
    lines = out.splitlines()
    assert len(lines) == len(said) + 1 and err == [] and "restored to" in lines[-1]
    assert all(re.search(pattern, line) for pattern, line in zip(said, lines))


@pytest.mark.parametrize("prompt, guess", [("what is the capital of France?", False), ("gibberish", True)])
def test_what_is_not_clear_is_said_and_how_to_say_it_better(tmp_path, run, save, monkeypatch, prompt, guess):
    if guess:
        remove = {**read_intent("what time is it?").remove, "noise": 0.25}
        asks = {"restoration": 0.8, "nothing": 0.1, "unrelated": 0.1}
        monkeypatch.setattr(
            "prompt_mamba_arch.text.read_intents", lambda _: [Intent(prompt, remove, remove, 0.0, asks)]
        )
    how = ["-i", save(tmp_path / "in.png"), "-o", tmp_path / "out.png", "--model", "tiny", "--dry-run"]
    _, err = run("restore", *how, "-p", prompt, code=0)
    assert len(err) == 1 and err[0].startswith(f"prompt-mamba: not clear: {prompt!r}")
    assert ("this is a guess" in err[0]) == guess and '"remove the noise"' in err[0]


def test_what_is_clear_needs_no_advice(tmp_path, run, save):
    how = ["-i", save(tmp_path / "in.png"), "-o", tmp_path / "out.png", "--model", "tiny", "--dry-run"]
    _, err = run("restore", *how, "-p", "remove the noise", "-p", "leave it as it is", "-p", "fix this photo", code=0)
    assert err == []


def test_it_works_without_knowing_what_it_understood(tmp_path, run, save, monkeypatch):
    def missing(prompts):
        raise batch.UserError("intent: the file is missing")

    monkeypatch.setattr("prompt_mamba_arch.text.read_intents", missing)
    _, err = run("restore", "-i", save(tmp_path / "in.png"), "-o", tmp_path / "out.png", "-p", "sharpen", code=0)
    assert err == ["prompt-mamba: intent: the file is missing"] and (tmp_path / "out.png").exists()


def test_without_a_prompt_it_looks_for_what_is_wrong_and_says_it(tmp_path, run):
    dark = data.astronaut()[:128, 200:328].astype(np.float32) / 8 + np.random.default_rng(0).normal(0, 4, (128, 128, 3))
    Image.fromarray(dark.clip(0, 255).astype(np.uint8)).save(tmp_path / "in.png")
    arguments = ["restore", "-i", tmp_path / "in.png", "-o", tmp_path / "out.png", "--model", "tiny"]
    out, err = run(*arguments, code=0)
    assert err == [] and re.search(r"\(cpu; no prompt, so I chose to remove the .*darkness.*\)", out)
    assert image_io.read_photo(tmp_path / "out.png").pixels.mean() > 2 * dark.mean()


def test_the_wishes_reach_the_network(tmp_path, run, save, monkeypatch):
    seen = []

    def restore(self, image, *rest, ensemble, look, empty):
        assert look
        seen.append((self.half is not None, *rest[:3], ensemble))
        return image

    monkeypatch.setattr(Restorer, "restore", restore)
    monkeypatch.setattr("prompt_mamba_arch.restore.half_type", lambda device: "a type")
    source = save(tmp_path / "in.png")
    run("restore", "-i", source, "-o", tmp_path / "a.png", "--ensemble", "--half", "--tile", "128", code=0)
    run("restore", "-i", source, "-o", tmp_path / "b.png", "--strength", "0.3", "-p", "sharpen", code=0)
    assert seen == [(True, None, 1.0, 128, True), (False, ("sharpen",), 0.3, "auto", False)]
    monkeypatch.setattr("prompt_mamba_arch.restore.half_type", lambda device: None)
    _, err = run("restore", "-i", source, "-o", tmp_path / "c.png", "--half", code=0)
    assert len(err) == 1 and "half precision would gain nothing on cpu" in err[0]


def test_patterns_and_several_inputs(tmp_path, run, save, monkeypatch, listing):
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/b/2.jpg", "c/3.png", "4.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no photograph")
    out, err = run("restore", "-i", "in/*/**/*.*", "in/4.png", "in/notes.txt", "-o", "out", code=0)
    assert "4 of 4 images" in out and len(err) == 1 and "'in/notes.txt' is passed over" in err[0]
    assert listing(tmp_path / "out") == ["4.png", "a/1.png", "a/b/2.jpg", "c/3.png"]


def test_comparisons(tmp_path, run, save):
    for size, name in (((60, 40), "wide.png"), ((40, 60), "high.png")):
        save(tmp_path / "in" / name, size)
    run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", "--compare", code=0)
    wide, high = (Image.open(tmp_path / "out" / f"{name}.png.compare.jpg") for name in ("wide", "high"))
    assert wide.width == 60 and 80 < wide.height < 150  # one above the other
    assert 80 < high.width < 90 and 60 < high.height < 90
    source = image_io.read_photo(tmp_path / "in" / "high.png").pixels
    found = np.asarray(high).astype(int)
    assert abs(found[-60:, :40] - source).mean() < 12  # JPEG, of noise
    restored = image_io.read_photo(tmp_path / "out" / "high.png").pixels
    assert abs(found[-60:, -40:] - restored).mean() < 12


def test_nothing_is_done_in_a_dry_run(tmp_path, run, save, listing):
    save(tmp_path / "in" / "a.png", (200, 100))
    save(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "c.jpg").write_text("no photograph")
    before = listing(tmp_path)
    how = ["-i", tmp_path / "in", "-o", tmp_path / "out", "--dry-run", "--tile", "64", "--compare", "-p", "sharpen"]
    out, err = run("restore", *how, code=1)
    assert listing(tmp_path) == before
    assert "a.png' (200 x 100 pixels, in tiles of 64 pixels) would become" in out and "in one piece" in out
    assert "a.png.compare.jpg" in out and "2 of 3 images would be restored; nothing was done" in out
    assert len(err) == 1 and "c.jpg" in err[0]


def test_a_run_is_resumed(tmp_path, run, save, listing):
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png")
    how = ["-i", tmp_path / "in", "-o", tmp_path / "out"]
    save(tmp_path / "out" / "b.png")
    before = (tmp_path / "out" / "b.png").read_bytes()
    out, _ = run("restore", *how, "--skip-existing", code=0)
    assert "2 of 2 images" in out and "1 were there already" in out
    assert listing(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    assert (tmp_path / "out" / "b.png").read_bytes() == before
    out, _ = run("restore", *how, "--skip-existing", code=0)
    assert out == "nothing to do: 3 images restored already\n"


def test_what_came_to_be_there_meanwhile_is_kept(tmp_path, run, save, monkeypatch):
    for name in "ab":
        save(tmp_path / "in" / f"{name}.png")
    target = tmp_path / "out" / "b.png"
    restore = Restorer.restore

    def slow(self, *args, **options):
        save(target)
        return restore(self, *args, **options)

    monkeypatch.setattr(Restorer, "restore", slow)
    out, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert len(err) == 1 and "b.png' has come to be there" in err[0] and "1 of 2 images" in out and "1 failed" in out


def test_times_are_the_photographs(tmp_path, run, save):
    source = save(tmp_path / "in.jpg")
    os.utime(source, ns=(1_000_000_000_000_000_000, 1_100_000_000_123_000_000))
    run("restore", "-i", source, "-o", tmp_path / "a.png", code=0)
    run("restore", "-i", source, "-o", tmp_path / "b.png", "--no-times", code=0)
    assert (tmp_path / "a.png").stat().st_mtime_ns == 1_100_000_000_123_000_000
    assert (tmp_path / "b.png").stat().st_mtime > time.time() - 600


def test_ranks_share_a_folder(tmp_path, run, save, monkeypatch, listing):
    for i in range(5):
        save(tmp_path / "in" / f"{i}.png")
    how = ["-i", tmp_path / "in", "-o", tmp_path / "out"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    out, _ = run("restore", *how, code=0)
    assert "share 2 of 2 (RANK): 2 of 5 images" in out and listing(tmp_path / "out") == ["1.png", "3.png"]
    monkeypatch.setenv("RANK", "0")
    run("restore", *how, code=0)  # what the other did is no obstacle
    assert listing(tmp_path / "out") == [f"{i}.png" for i in range(5)]
    out, _ = run("restore", *how, "--share", "6/7", code=0)
    assert "nothing to do" in out
    _, err = run("restore", *how, "--share", "all", code=2)
    assert "exists already" in err[0]


def test_faults_of_the_program_cost_one_photograph(tmp_path, run, save, monkeypatch, listing):
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png", (20 + i, 20))
    restore = Restorer.restore

    def fault(self, image, *args, **options):
        if image.shape[1] == 21:
            raise ZeroDivisionError("by zero")
        return restore(self, image, *args, **options)

    monkeypatch.setattr(Restorer, "restore", fault)
    _, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert len(err) == 1 and "1.png" in err[0] and "a fault of the program: ZeroDivisionError in test_many.py" in err[0]
    assert listing(tmp_path / "out") == ["0.png", "2.png"]


def test_a_full_disk_ends_the_run(tmp_path, run, save, monkeypatch):
    for i in range(3):
        save(tmp_path / "in" / f"{i}.png")
    calls = []

    def full(path, _photo):
        calls.append(path)
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(batch, "write_photo", full)
    _, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=2)
    assert len(err) == 1 and "No space left" in err[0] and len(calls) == 1


# ---- streams -------------------------------------------------------------------------------------------------------


class _Stream(io.TextIOWrapper):
    def isatty(self):
        return False


def _streams(monkeypatch, data=b""):
    monkeypatch.setattr(sys, "stdin", _Stream(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdout", _Stream(io.BytesIO()))
    return sys.stdout.buffer


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_from_stream_to_stream(tmp_path, run, save, monkeypatch, kind):
    data = save(tmp_path / "in", format=kind).read_bytes()
    sent = _streams(monkeypatch, data)
    _, err = run("restore", "-i", "-", "-o", "-", code=0)
    with Image.open(io.BytesIO(sent.getvalue())) as image:
        image.load()
        assert image.format == kind and image.size == (30, 20)
    assert err == ["standard input restored to standard output (cpu; no prompt, so whatever is wrong)"]


def test_one_of_them_may_be_a_file(tmp_path, run, save, monkeypatch, listing):
    source = save(tmp_path / "in.png")
    _streams(monkeypatch, source.read_bytes())
    run("restore", "-i", "-", "-o", tmp_path / "out.jpg", "--compare", code=0)
    sent = _streams(monkeypatch)
    run("restore", "-i", source, "-o", "-", code=0)
    assert Image.open(io.BytesIO(sent.getvalue())).size == (30, 20)
    assert listing(tmp_path) == ["in.png", "out.jpg", "out.jpg.compare.jpg"]


@pytest.mark.parametrize(
    "data, arguments, said",
    [
        (b"", [], "standard input is empty"),
        (b"some text", [], "standard input is not an image that can be read"),
        (b"\x89PNG\r\n\x1a\n and no more", [], "standard input is"),
        (b"BM", ["-o", "folder/"], "has no name"),
        (b"BM", ["--compare", "-o", "-"], "standard output is none"),
        (b"BM", ["-i", "missing.png", "-o", "-"], "'missing.png' is no photograph"),
    ],
)
def test_mistakes_with_streams(tmp_path, run, monkeypatch, listing, data, arguments, said):
    monkeypatch.chdir(tmp_path)
    _streams(monkeypatch, data)
    _, err = run("restore", "-i", "-", "-o", "out.png", *arguments, code=2)
    assert len(err) == 1 and said in err[0] and "/tmp" not in err[0] and listing(tmp_path) == []


# ---- processes -----------------------------------------------------------------------------------------------------


def test_a_pipe(tmp_path, save, model):
    data = save(tmp_path / "in.png").read_bytes()
    command = [sys.executable, "-m", "prompt_mamba_cli", "restore", "-i", "-", "-o", "-", "--model", model]
    done = subprocess.run(command, input=data, cwd=ROOT, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0 and Image.open(io.BytesIO(done.stdout)).size == (30, 20)


def test_several_processes(tmp_path, save, run, model, monkeypatch, listing):
    """They give the same as one. A broken photograph and a killed process cost one photograph each, and no more."""
    for i in range(6):
        save(tmp_path / "in" / f"{i}.png", (30 + i, 20))
    (tmp_path / "in" / "3.png").write_text("no photograph")
    killed = []
    hear = batch._Team._hear

    def kill_once(self, pipe):
        member = self._members[pipe]
        if killed:
            hear(self, pipe)
        else:  # it asks for its first job, and is killed before it can do it
            killed.append(self._waiting[-1][0])
            os.kill(member[0].pid, signal.SIGSTOP)
            hear(self, pipe)
            os.kill(member[0].pid, signal.SIGKILL)

    monkeypatch.setattr(batch._Team, "_hear", kill_once)
    how = ["-i", tmp_path / "in", "-o", tmp_path / "out", "-p", "remove the noise"]
    out, err = run("restore", *how, "--jobs", "2", code=1)
    assert killed == [0] and "4 of 6 images" in out and "2 failed" in out
    slow = [line for line in err if "plain PyTorch" in line]  # without the C++ kernels; the first process alone says it
    assert len(slow) <= 1 and len(err) == 2 + len(slow)
    assert any("0.png': its process was killed" in line for line in err)
    assert any("3.png' is not an image" in line for line in err)
    assert listing(tmp_path / "out") == ["1.png", "2.png", "4.png", "5.png"]
    (tmp_path / "in" / "3.png").unlink()
    run("restore", *how, "--skip-existing", code=0)
    assert listing(tmp_path / "out") == ["0.png", "1.png", "2.png", "4.png", "5.png"]
    restorer = Restorer.from_pretrained(model, "cpu")
    for path in (tmp_path / "out").iterdir():
        expected = restorer.restore(image_io.read_photo(tmp_path / "in" / path.name).pixels, "remove the noise")
        assert abs(image_io.read_photo(path).pixels.astype(int) - expected).max() <= 1


@pytest.fixture
def member(monkeypatch):
    """What a process of several does, done here with what it would hear; returns what it says."""
    monkeypatch.setattr(batch.signal, "signal", lambda *_: None)
    monkeypatch.setattr(batch.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(batch.logging.Logger, "setLevel", lambda *_: None)

    def member(wish, *heard):
        ours, theirs = multiprocessing.Pipe()
        for word in heard:
            ours.send(word)
        with warnings.catch_warnings():
            batch._member(theirs, wish, 1)
        said = []
        while ours.poll():
            said.append(ours.recv())
        return said

    return member


def test_a_process_works_until_there_is_nothing_left(tmp_path, save, model, member, listing):
    jobs = [(save(tmp_path / "in" / f"{i}.png"), tmp_path / "out" / f"{i}.png", None) for i in range(2)]
    said = member(batch.Wish(model=model, device="cpu"), (0, jobs[0]), (1, jobs[1]), None)
    assert said[0] is None and [news.job for news in said[1:] if news.over] == [0, 1]
    assert listing(tmp_path / "out") == ["0.png", "1.png"]


def test_a_process_says_why_it_cannot_begin(tmp_path, member):
    (said,) = member(batch.Wish(model=str(tmp_path / "missing.pth"), device="cpu"))
    assert isinstance(said, batch.UserError) and "missing.pth" in str(said)


def test_neighbours_share_memory_and_gpus(monkeypatch, model):
    whole = batch.load(batch.Wish(model=model)).memory_share
    assert batch.load(batch.Wish(model=model, neighbours=4)).memory_share == whole / 4
    seen = []

    def load(model, device, *_, **__):
        seen.append(device)
        return argparse.Namespace(memory_share=1)

    monkeypatch.setattr(batch.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(batch.Restorer, "from_pretrained", load)
    for place in range(3):
        batch.load(batch.Wish(place=place))
    batch.load(batch.Wish(device="cpu"))
    assert seen == ["cuda:0", "cuda:1", "cuda:0", "cpu"]
