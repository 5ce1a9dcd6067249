"""A comparison's pictures at full size, and a study of them."""

from __future__ import annotations

import re
import urllib.request

import numpy as np
import pytest
from PIL import Image

from prompt_mamba_arch import cli
from prompt_mamba_arch.classical import median
from prompt_mamba_arch.compare import write_comparison
from prompt_mamba_arch.model_card.sets import SETS
from prompt_mamba_arch.study import Design, Materials, Store
from prompt_mamba_arch.study.server import create
from prompt_mamba_arch.web import serving


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def _listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_study_of_a_comparison_is_two_commands(plan, root, tmp_path, checkpoint, capsys):
    pytest.importorskip("uvicorn", reason="the study needs Starlette and uvicorn")
    plan(tasks={"noise25": {"set": "noise25", "prompt": "oracle"}})
    assert cli.main(["compare", "-opt", str(plan.path)]) == 0
    assert "images/" in capsys.readouterr().out
    folder = tmp_path / "out" / "images"
    materials = Materials(folder)
    assert materials.methods == ("median", "net") and len(materials.images) == 3 and not materials.incomplete
    assert set(materials.prompts.values()) == {"remove the noise"} and len(materials.prompts) == 3
    for pair in SETS["noise"](root)[1].pairs(None):
        assert np.array_equal(_pixels(folder / "inputs" / f"noise25_{pair.key}.png"), pair.lq)
        assert np.array_equal(_pixels(folder / "median" / f"noise25_{pair.key}.png"), median(pair.lq))

    (tmp_path / "study").mkdir()
    store, design = Store(tmp_path / "study" / "study.sqlite"), Design(comparisons=3, checks=0)
    store.use(materials, design)
    with serving(create(store, materials, design, cache=tmp_path / "study" / "pictures")) as base:
        jar = urllib.request.HTTPCookieProcessor()
        browse = urllib.request.build_opener(jar).open
        page = browse(f"{base}begin", b"agree=yes").read().decode()
        sides = re.findall(r'src="/?(picture/[^"]+)"', page)
        assert len(sides) >= 2, page
        for side in sides:
            assert browse(base + side).read().startswith(b"\x89PNG")
    # another run leaves the pictures as they are, and so the study goes on
    assert cli.main(["compare", "-opt", str(plan.path)]) == 0
    store.use(Materials(folder), design)
    store.close()


def test_pictures_are_those_of_the_last_run(run, tmp_path, checkpoint):
    folder = tmp_path / "out" / "images"
    model, one = {"model": str(checkpoint)}, {"set": "noise25", "limit": 1}
    (folder / "own").mkdir(parents=True)
    (folder / "own" / "kept.png").write_bytes(b"what a person has put there")
    write_comparison(run(methods={"a/b.c": model, "a_b_c": {"opencv": "median"}, "inputs": model}, tasks={"t": one}))
    keys = [name.partition("/")[2] for name in _listing(folder) if name.startswith("inputs/")]
    assert len(keys) == 1
    expected = [*(f"{name}/{keys[0]}" for name in ("a_b_c", "a_b_c 2", "inputs", "inputs 2")), "own/kept.png"]
    assert _listing(folder) == sorted([".pictures.json", *expected])

    # sentences that differ are none that a study could show
    asked = {"a": {**model, "prompt": "one"}, "b": {**model, "prompt": "another"}, "blind": model}
    write_comparison(run(methods=asked, tasks={"t": one}))
    assert _listing(folder) == sorted(
        [".pictures.json", *(f"{name}/{keys[0]}" for name in ("a", "b", "blind", "inputs")), "own/kept.png"]
    )
    write_comparison(run(methods={"a": asked["a"], "blind": model}, tasks={"t": one, "u": {**one, "prompt": "one"}}))
    assert Materials(folder, ["a", "blind"]).prompts == {f"t_{keys[0][2:-4]}": "one", f"u_{keys[0][2:-4]}": "one"}
