"""A collection of bad and odd inputs: each is restored, or refused in one plain line, and nothing is left behind."""

from __future__ import annotations

import re

import pytest
from bad_inputs import NAMES, PROMPTS, REFUSED, RESTORED
from PIL import Image


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, run, save, listing, name):
    """Alone it is a mistake; in a folder it is passed over, and the photograph beside it is restored."""
    suffix, content, said = REFUSED[name]
    bad = tmp_path / "in" / f"bad{suffix}"
    save(tmp_path / "in" / "good.png")
    bad.write_bytes(content)
    _, err = run("restore", "-i", bad, "-o", tmp_path / "alone.png", code=2)
    assert len(err) == 1 and re.search(said, err[0]) and bad.name in err[0] and len(err[0]) < 500
    out, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert len(err) == 1 and re.search(said, err[0]) and "1 of 2 images restored" in out and "1 failed" in out
    assert listing(tmp_path) == sorted(["in/good.png", f"in/{bad.name}", "out/good.png"])
    assert bad.read_bytes() == content


@pytest.mark.parametrize("name", RESTORED)
def test_restored(tmp_path, run, listing, name):
    suffix, content, said = RESTORED[name]
    source, target = tmp_path / f"odd{suffix}", tmp_path / "out" / f"odd{suffix}"
    source.write_bytes(content)
    _, err = run("restore", "-i", source, "-o", target, code=0)
    assert len(err) <= (said is not None) and all(said in line for line in err)
    with Image.open(source) as before, Image.open(target) as after:
        after.load()
        assert before.size == after.size and after.format == Image.registered_extensions()[suffix]
    assert listing(tmp_path) == [source.name, f"out/{source.name}"]


@pytest.mark.parametrize(
    "name",
    NAMES,
)  # fmt: skip
def test_odd_names(tmp_path, run, save, listing, name):
    """No result leaves the output folder, and a line stays a line."""
    save(tmp_path / "in" / name, format="PNG")
    expected = [f"in/{name}"] + ([] if name.startswith(".") else [f"out/{name}"])  # those are hidden files
    run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=2 if name.startswith(".") else 0)
    assert listing(tmp_path) == expected
    out, err = run("restore", "-i", tmp_path / "in" / name, "-o", tmp_path / "one.png", code=0)
    assert len(out.splitlines()) == 1 and err == []
    (tmp_path / "in" / name).write_text("no image")
    _, err = run("restore", "-i", tmp_path / "in" / name, "-o", tmp_path / "two.png", code=2)
    assert len(err) == 1


def test_patterns_do_not_lead_out_of_the_output_folder(tmp_path, run, save, listing, monkeypatch):
    save(tmp_path / "home" / "a" / "1.png")
    save(tmp_path / "escaped" / "2.png")
    monkeypatch.chdir(tmp_path / "home")
    run("restore", "-i", "*/../../escaped/*.png", "-o", "out", code=0)
    assert listing(tmp_path) == ["escaped/2.png", "home/a/1.png", "home/out/.prompt_mamba_results", "home/out/2.png"]


def test_links_that_lead_nowhere(tmp_path, run, save, listing):
    source = save(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "missing.png")
    (tmp_path / "in" / "self.png").symlink_to(tmp_path / "in" / "self.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "in")  # folders are not followed, or this had no end
    (tmp_path / "in" / "a folder.png").mkdir()
    _, err = run("restore", "-i", tmp_path / "in", "-o", tmp_path / "out", code=1)
    assert len(err) == 2 and listing(tmp_path / "out") == ["good.png"] and source.exists()


@pytest.mark.parametrize("name", PROMPTS)
def test_odd_prompts(tmp_path, run, save, name):
    """They are followed as well as may be; what was understood and the line at the end stay one line each."""
    prompt = PROMPTS[name]
    out, err = run("restore", "-i", save(tmp_path / "in.png"), "-o", tmp_path / "out.png", f"--prompt={prompt}", code=0)
    assert len(out.splitlines()) == 1 + bool(prompt.strip()) and len(err) <= 1 and len(out) < 800
    assert all("longer than 256 tokens" in line for line in err)
    assert (tmp_path / "out.png").exists()
