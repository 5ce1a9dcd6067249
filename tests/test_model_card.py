"""The model card: each set is measured as its benchmark is, nothing is measured twice, and what is written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr
from PIL import Image
from safetensors.torch import save_file

import prompt_mamba_arch.text
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.data.degradations import matlab_downscale
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.model_card import measure as measure_module
from prompt_mamba_arch.model_card import sets
from prompt_mamba_arch.model_card.card import curves, markdown, write_card
from prompt_mamba_arch.model_card.evaluate import evaluate, references
from prompt_mamba_arch.model_card.measure import PARTS, measure_all, training_record
from prompt_mamba_arch.model_card.sets import SETS, Missing, psnr
from prompt_mamba_arch.model_card.speed import measure_speed
from prompt_mamba_arch.restore import Restorer

ROOT = Path(__file__).resolve().parent.parent


class FakeEncoder:
    """Sentences as directions by their length; the real encoder has tests of its own."""

    def encode(self, texts):
        rows = [torch.randn(384, generator=torch.Generator().manual_seed(len(text))) for text in texts]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    monkeypatch.setattr(prompt_mamba_arch.text, "TextEncoder", FakeEncoder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photos):
    """All sets, each of one or two small images."""
    root = tmp_path_factory.mktemp("eval")

    def save(place, image):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    views = {name: np.ascontiguousarray(photo[40:104, 60:140]) for name, photo in photos.items()}
    for name in ("astronaut", "coffee"):
        save(f"CBSD68/{name}.png", views[name])
    save("LIVE1/chelsea.png", views["chelsea"])
    save("Set5/HR/coffee.png", np.ascontiguousarray(views["coffee"][:63, :79]))
    for scale in (2, 4):
        cut = views["coffee"][: 63 // scale * scale, : 79 // scale * scale]
        save(f"Set5/LR_bicubic/X{scale}/coffeex{scale}.png", matlab_downscale(cut, scale))
    for name, lq, gt, suffix in (
        ("Rain100L_sample", "input", "target", ""),
        ("SOTS_outdoor_sample", "hazy", "clear", "_0.8_0.2"),
        ("CC15_part", "noisy", "clean", ""),
        ("PolyU_part", "noisy", "clean", ""),
    ):
        save(f"{name}/{gt}/0001.png", views["rocket"])
        save(f"{name}/{lq}/0001{suffix}.png", np.minimum(views["rocket"], 250) + np.uint8(5))
    return root


def _pairs(part, folder, number=0):
    return list(SETS[part](folder)[number].pairs(None))


def _identity(image, prompt):
    return image


# -- protocols


def test_psnr_is_basicsr_s(photos):
    a, b = photos["coffee"], photos["coffee"][:, ::-1]
    for border, luma in ((0, False), (4, True)):
        expected = calculate_psnr(a[..., ::-1], b[..., ::-1], crop_border=border, test_y_channel=luma)
        assert psnr(a, b, luma=luma, border=border) == pytest.approx(expected, abs=1e-4)
    assert psnr(a, a) == 100
    with pytest.raises(ValueError, match="one size"):
        psnr(a, a[:5])


def test_noise_is_that_of_the_all_in_one_literature(folder, photos):
    tasks = SETS["noise"](folder)
    assert [task.bar.psnr for task in tasks] == [33.3, 30.6, 27.3]
    for task, sigma in zip(tasks, (15, 25, 50)):
        for index, (pair, name) in enumerate(zip(task.pairs(None), ("astronaut", "coffee"))):
            clean = photos[name][40:104, 60:140]
            noisy = np.random.default_rng(index).normal(0, sigma, clean.shape) + clean
            assert pair.key == name and np.array_equal(pair.gt, clean)
            assert np.array_equal(pair.lq, np.clip(noisy, 0, 255).round().astype(np.uint8))
    assert len(list(tasks[0].pairs(1))) == 1


def test_jpeg_is_libjpeg_s(folder, photos):
    sizes = []
    for number, quality in enumerate((10, 20, 40)):
        (pair,) = _pairs("jpeg", folder, number)
        file = cv2.imencode(".jpg", pair.gt[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        assert np.array_equal(pair.lq[..., ::-1], cv2.imdecode(file, cv2.IMREAD_COLOR))
        sizes.append(psnr(pair.lq, pair.gt))
    assert sizes == sorted(sizes)


def test_blur_has_its_width(folder, tmp_path):
    point = np.zeros((41, 41, 3), np.uint8)
    point[:, 20:] = 200
    (tmp_path / "CBSD68").mkdir()
    Image.fromarray(point).save(tmp_path / "CBSD68" / "edge.png")
    (pair,) = _pairs("blur", tmp_path)
    slope = np.diff(pair.lq.astype(float).mean(axis=(0, 2)))  # of an edge: the kernel
    place = np.arange(len(slope))
    middle = (slope * place).sum() / slope.sum()
    near = abs(place - middle) < 6
    assert middle == pytest.approx(19, abs=0.1)
    assert ((place - middle) ** 2 * slope)[near].sum() / slope[near].sum() == pytest.approx(1.6**2, rel=0.15)
    assert pair.lq[:, :8].astype(float).std() > 0.5  # the noise, clipped at black


def test_set5_comes_back_to_its_size(folder):
    for number, (scale, size) in enumerate(((2, (62, 78)), (4, (60, 76)))):
        (pair,) = _pairs("enlarging", folder, number)
        task = SETS["enlarging"](folder)[number]
        assert pair.lq.shape == pair.gt.shape == (*size, 3)
        assert task.luma and task.border == scale
        assert psnr(pair.lq, pair.gt, luma=True, border=scale) > 20


def test_pairs_find_each_other(folder, tmp_path, photos):
    for part in ("rain", "haze", "real_noise", "real_noise_jpeg"):
        (pair,) = _pairs(part, folder)
        assert pair.key.startswith("0001") and psnr(pair.lq, pair.gt) == pytest.approx(34.2, abs=0.3)
    for name, size in (("input", 20), ("target", 24)):
        (tmp_path / "Rain100L_sample" / name).mkdir(parents=True)
        Image.fromarray(photos["rocket"][:size, :24]).save(tmp_path / "Rain100L_sample" / name / "1.png")
    with pytest.raises(UserError, match="differ in size"):
        _pairs("rain", tmp_path)


@pytest.mark.parametrize("part", SETS)
def test_sets_are_evaluated(part, folder, tmp_path):
    with pytest.raises(Missing):
        SETS[part](tmp_path)
    for task in SETS[part](folder):
        truth = {pair.lq.tobytes(): pair.gt for pair in task.pairs(None)}
        done = []

        def oracle(image, prompt, task=task, truth=truth):
            assert prompt in (task.prompt, "")
            return truth[image.tobytes()] if prompt else image

        found = evaluate(task, oracle, tick=lambda: done.append(1))  # noqa: B023
        assert found["prompted"] == 100 and found["blind"] == found["input"] < 60
        assert found["images"] == len(truth) == len(done)
        assert evaluate(task, _identity, limit=1)["images"] == 1


def test_other_methods_are_better_than_nothing(folder, monkeypatch):
    for part in ("noise", "jpeg", "blur"):
        for task in SETS[part](folder):
            before = evaluate(task, _identity)["input"]
            others = references(task)
            assert others and all(value > before for value in others.values()), (task.name, before, others)
    assert references(SETS["rain"](folder)[0]) == {}

    def absent(image, *, weight):
        raise ImportError

    monkeypatch.setattr(sets, "total_variation", absent)
    assert references(SETS["jpeg"](folder)[0]) == {"total variation": None}


# -- the whole


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(measure_module, "_CROP", 32)
    monkeypatch.setattr(measure_module, "_PICTURE", 40)
    monkeypatch.setattr(measure_module, "measure_speed", lambda model, size, rounds, device: _speed(size))


def _speed(size, seconds=2.0):
    taken = {"megapixels": size, "seconds": seconds * size, "bytes": 2**30}
    return {**taken, "width": 40, "height": 30, "threads": 2, "device": "cpu"}


def test_everything_is_measured_once(folder, tmp_path, checkpoint, net, small, monkeypatch):
    runs = []
    restore = Restorer.restore

    def counting(self, image, *args):
        runs.append(self.name)
        return restore(self, image, *args)

    monkeypatch.setattr(Restorer, "restore", counting)
    options = {"limit": 1, "megapixels": [0.25, 1.0]}
    found = measure_all(str(checkpoint), folder, tmp_path / "work", **options)
    assert found["skipped"] == {} and set(found["sets"]) == set(SETS)
    (line,) = found["sets"]["rain"]
    assert line["images"] == 1 and line["bar"]["gain"] == 0 and line["references"] == {}
    expected = psnr(restore(Restorer.from_pretrained(checkpoint), *_only(folder)), _pairs("rain", folder)[0].gt)
    assert line["prompted"] == pytest.approx(expected)
    assert {row["request"] for row in found["requests"]["rows"]} > {"subset", "wrong", "kind"}
    assert [one["megapixels"] for one in found["speed"]] == [0.25, 1.0]
    first = len(runs)
    again = measure_all(str(checkpoint), folder, tmp_path / "work", **options)
    assert again == found and len(runs) - first < 40  # the pictures are drawn anew

    other = tmp_path / "other.pth"
    state = PromptMamba(**net.config).state_dict()
    torch.save({"params": state, "network_g": {"type": "PromptMamba", **net.config}}, other)
    monkeypatch.setattr(measure_module, "references", None)  # those of other methods stay
    del runs[:]
    measure_all(str(other), folder, tmp_path / "work", parts=[*SETS, "requests"], **options)
    assert set(runs) == {str(other)} and len(runs) > 40


def _only(folder):
    (pair,) = _pairs("rain", folder)
    return pair.lq, "remove the rain"


def test_what_is_missing_or_broken_is_left_out(folder, tmp_path, checkpoint, small):
    part = tmp_path / "eval"
    (part / "LIVE1").mkdir(parents=True)
    (part / "LIVE1" / "a.png").write_text("broken")
    told = []
    found = measure_all(str(checkpoint), part, tmp_path / "work", parts=["noise", "jpeg", "requests"], tell=told.append)
    assert set(found["skipped"]) == {"noise", "jpeg", "requests"} and found["sets"] == {}
    assert "CBSD68" in found["skipped"]["noise"] and "a.png" in found["skipped"]["jpeg"]
    assert len(told) == 3 and told[0].startswith("noise is left out")


def test_two_processes_can_share_the_work(tmp_path):
    one, other = (measure_module._Kept(tmp_path / "work" / "results.json") for _ in range(2))
    one["noise"] = 1
    other["jpeg"] = 2
    one["blur"] = 3
    found = measure_module._Kept(tmp_path / "work" / "results.json")
    assert (found["noise"], found["jpeg"], found["blur"]) == (1, 2, 3) and "rain" not in found
    (tmp_path / "work" / "results.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        one["rain"] = 4


def test_time_and_memory(checkpoint, monkeypatch):
    found = measure_speed(str(checkpoint), 0.004, 1, "cpu")
    assert (found["width"], found["height"]) == (80, 48) and found["seconds"] > 0
    assert found["bytes"] is None or found["bytes"] > 10e6
    failed = subprocess.CompletedProcess([], 2, "", "a warning\nno such network file: 'x.pth'\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(UserError, match="16 megapixels was not measured: no such network file"):
        measure_speed("x.pth", 16, 1, "cpu")


def test_training_record(tmp_path, net, checkpoint):
    def write(told):
        save_file(net.state_dict(), tmp_path / "net.safetensors", metadata=told)
        return str(tmp_path / "net.safetensors")

    record = {"hours": 9.5, "curve": [[1, 25.0], [2, 26.0]]}
    assert training_record(write({"training": json.dumps(record)})) == record
    assert training_record(write({"other": "x"})) is None and training_record(str(checkpoint)) is None
    with pytest.raises(UserError, match="not a JSON object"):
        training_record(write({"training": "[1]"}))
    assert curves(record) == {"training": [(1, 25), (2, 26)]} and curves({}) == {}
    phases = [{"name": "one", "hours": 2, "validation": [[1, 500, 25.0]]}, {"name": "two", "hours": 1}]
    phases.append({"name": "three", "hours": 1, "validation": [[0.5, 100, 26.0]]})
    assert curves({"phases": phases}) == {"one": [(1, 25)], "three": [(3.5, 26)]}
    for wrong in ({"curve": [1, 2]}, {"phases": [{"hours": 1}]}, {"phases": ["one"]}):
        with pytest.raises(UserError, match="lists of"):
            curves(wrong)


def _line(**values):
    line = {"name": "CBSD68, noise of sigma 25", "prompt": "remove the noise", "luma": False, "images": 68}
    line |= {"input": 20.0, "prompted": 30.0, "blind": 29.9, "references": {"TV": 27.0, "absent": None}}
    return {**line, "bar": {"psnr": None, "gain": None, "blind": None}, **values}


def test_the_card_says_what_was_reached():
    rows = [
        {"request": "subset", "degradations": 2, "measure": "followed", "count": 9, "input": None, "value": 0.8},
        {"request": "subset", "degradations": 2, "measure": "chance", "count": 9, "input": None, "value": 0.25},
        {"request": "wrong", "degradations": 1, "measure": "no_harm", "count": 9, "input": None, "value": 36.0},
        {"request": "kind", "degradations": "rain", "measure": "psnr", "count": 9, "input": 20.0, "value": 24.5},
        {"request": "kind_empty", "degradations": "rain", "measure": "psnr", "count": 9, "input": 20.0, "value": 24.0},
    ]
    about = {"label": "tiny", "kind": "PromptMamba", "digest": "0123456789abcdef" * 4, "parameters": 1017388}
    found = {
        "model": {**about, "phase": "finetune", "reads_prompts": True, "config": {"size": "tiny"}},
        "limit": None,
        "sets": {
            "noise": [
                _line(bar={"psnr": 29.5, "gain": None, "blind": 0.15}),
                _line(bar={"psnr": 30.5, "gain": None, "blind": 0.15}),
                _line(bar={"psnr": 29.5, "gain": None, "blind": 0.05}),
            ],
            "blur": [_line(name="blur", bar={"psnr": None, "gain": 12.0, "blind": None})],
        },
        "skipped": {"jpeg": "no folder LIVE1 there"},
        "requests": {"set": "CBSD68", "crop": 256, "images": 9, "rows": rows},
        "speed": [_speed(0.25), _speed(1.0, seconds=4.5)],
    }
    record = {"hours": 9.5, "hardware": "2 cores", "data": [{"name": "CID22", "licence": "CC BY-SA 4.0"}]}
    text = markdown(found, {**record, "curve": [[h, 25 + h / 10] for h in range(1, 11)]}, {}, "python x.py")
    lines = text.splitlines()
    noise = [line for line in lines if line.startswith("| CBSD68, noise")]
    assert [line.split("|")[-2].strip() for line in noise] == ["reached", "missed by 0.50 dB", "missed by 0.05 dB"]
    assert "| 68 | 20.00 | **30.00** | +10.00 | 29.90 | TV 27.00 |" in noise[0]
    assert any("| +12.0 | missed by 2.00 dB |" in line for line in lines)
    assert any("adherence | 9 | 0.80 | 0.25 | 0.85 | missed by 0.05 |" in line for line in lines)
    assert any("PSNR to the input, dB | 9 | 36.00 |  | 35 | reached |" in line for line in lines)
    assert "| rain | 9 | 20.00 | **24.50** | +4.50 | 24.00 | +4.0 | reached |" in lines
    assert "4 s (missed by 0.50 s), 1.5 GiB (reached)" in text and "38 % from its mean (bar: 5 %, missed)" in text
    assert "Not measured: jpeg (no folder LIVE1 there)." in lines
    assert "| CID22 | CC BY-SA 4.0 |" in lines and "| hardware | 2 cores |" in lines and "| hours | 9.5 |" in lines
    assert "The last fifth of the hours of training brought +0.20 dB." in lines
    runs = [{"name": "a", "iterations": 1500, "hours": 1.5}, {"name": "b", "iterations": 20, "hours": 0.25}]
    told = markdown(found, {"phases": runs}, {}).splitlines()
    assert "| a | 1,500 | 1.50 |" in told and "| together |  | 1.75 |" in told
    assert "1,017,388" in text and "# Model card: PromptMamba tiny" == lines[0] and "A trial" not in text
    text = markdown(found, None, {})
    assert "no record of its training" in text and "does not say what it was trained on" in text


def test_the_command(folder, tmp_path, checkpoint, net, small, capsys):
    spec = importlib.util.spec_from_file_location("model_card_script", ROOT / "scripts" / "model_card.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"hours": 2, "curve": [[0, 20], [1, 24], [2, 25]]}))
    words = ["--model", str(checkpoint), "--eval", str(folder), "-o", str(tmp_path / "CARD.md"), "--quick"]
    words += ["--work", str(tmp_path / "work"), "--training", str(record), "--parts", "rain", "pictures"]
    assert script.main(words) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == [
        *("CARD.md", "model_card_examples.jpg", "model_card_failures.jpg", "model_card_curve.svg")
    ]
    text = written[0].read_text(encoding="utf-8")
    for path in written[1:]:
        assert f"(docs/images/{path.name})" in text
    with Image.open(written[2]) as picture:
        assert picture.width > 900
    (line,) = (e for e in ElementTree.parse(written[3]).getroot() if e.tag.endswith("polyline"))
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points) and points[0][1] > points[1][1] > points[2][1]
    assert str(tmp_path) not in text  # nothing of this machine

    for change, said in (
        (["--eval", str(tmp_path / "none")], "no such folder"),
        (["--parts", "niose"], "did you mean 'noise'"),
        (["--model", "nothing.pth"], "no such network file"),
        (["--training", str(tmp_path / "CARD.md")], "must hold a JSON object"),
    ):
        assert script.main([*words, *change]) == 2
        err = capsys.readouterr().err.splitlines()
        assert len(err) == 1 and said in err[0]


def test_parts_are_those_of_the_help():
    assert set(PARTS) == {*SETS, "requests", "pictures", "speed"}


def test_pictures_are_left_out_where_there_are_none(tmp_path):
    about = {"label": "x", "kind": "Net", "digest": "0" * 64, "parameters": 1, "phase": None, "config": {}}
    found = {"model": {**about, "reads_prompts": False}, "limit": 6, "sets": {}, "skipped": {}}
    paths = write_card(found, None, tmp_path / "sub" / "card.md")
    assert [path.name for path in paths] == ["card.md"] and list((tmp_path / "sub").iterdir()) == paths
    text = paths[0].read_text(encoding="utf-8")
    assert "it takes none" in text and "only the first 6 images" in text and "![" not in text
