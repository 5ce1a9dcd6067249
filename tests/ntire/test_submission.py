"""What a team hands in: that a harness like the organisers' takes it unchanged, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from harness import HARNESS, network, save

from prompt_mamba_arch import cli
from prompt_mamba_arch.compat.options import read_option_file
from prompt_mamba_arch.data import ImageSource
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.ntire import (
    PerceptualScore,
    add_branch,
    esr_score,
    load_network_file,
    measure,
    network_file,
    write_results,
    write_submission,
)
from prompt_mamba_arch.ntire.factsheet import escaped
from prompt_mamba_arch.ntire.measures import _fvcore
from prompt_mamba_arch.ntire.perceptual import METRICS
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.text import TextEncoder, Wish

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def low(tmp_path, photos):
    """Two small pictures, named as the challenge's are; the names say nothing of each other's order."""
    folder = tmp_path / "low"
    folder.mkdir()
    for name, photo, size in (("0901x4", "coffee", (20, 30)), ("0902x4", "chelsea", (25, 17))):
        cv2.imwrite(str(folder / f"{name}.png"), photos[photo][: size[0], : size[1], ::-1])
    return folder


@pytest.fixture
def run(capfd):
    """`prompt-mamba ntire` -> (stdout, stderr)."""

    def run(*arguments, code=0):
        try:
            found = cli.main(["ntire", *map(str, arguments)])
        except SystemExit as error:
            found = error.code
        out, err = capfd.readouterr()
        assert found == code and "Traceback" not in err, err
        return out, err

    return run


@pytest.mark.parametrize(
    ("track", "prompt", "wishes"),
    [("esr", None, False), ("dn50", "remove the noise", False), ("dn50", "denoise", True)],
)
def test_the_organisers_harness_takes_it_unchanged(tmp_path, run, low, track, prompt, wishes):
    config = {"upscale": 4} if track == "esr" else {"enc_blocks": [1], "dec_blocks": [1], "mixers": ["conv", "scan"]}
    net = network(**config, wishes=wishes)
    template, out = tmp_path / "organisers", tmp_path / "out"
    template.mkdir()
    (template / "test_demo.py").write_text(HARNESS)
    arguments = ["--track", track, "--team", 7, "--name", "PromptMamba", "--checkpoint", save(net, tmp_path / "n.pth")]
    arguments += ["-o", out, "--template", template, "-i", low, "--device", "cpu", "--extra-data"]
    told, _ = run(*arguments, *(["-p", prompt] if prompt else []))
    assert "team07_PromptMamba.zip" in told and "results written" in told
    if prompt:
        sent = torch.load(out / "model_zoo" / "team07_promptmamba.pth")["prompt"][0]
        torch.testing.assert_close(sent, Wish({"noise"}).vector(384) if wishes else TextEncoder().encode([prompt])[0])

    # from the archive, as it is sent, in place of what --template has put there
    with zipfile.ZipFile(out / "team07_PromptMamba.zip") as archive:
        assert sorted(archive.namelist()) == [
            "README.txt", "model_zoo/team07_promptmamba.pth", "models/team07_PromptMamba.py", "select_model.txt"
        ]  # fmt: skip
        for place in archive.namelist()[-2:]:
            assert (template / place).read_bytes() == archive.read(place)
    done = subprocess.run(
        [sys.executable, "test_demo.py", "--data_dir", str(low), "--save_dir", "results", "--model_id", "7"],
        cwd=template, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert json.loads((template / "results.json").read_text())["07_PromptMamba"][0] == parameters

    restorer = Restorer(net, device="cpu")
    with zipfile.ZipFile(out / "team07_PromptMamba_results.zip") as archive:
        assert sorted(archive.namelist()) == ["0901x4.png", "0902x4.png", "readme.txt"]
        for name in ("0901x4.png", "0902x4.png"):
            expected = restorer.restore(cv2.imread(str(low / name))[..., ::-1].copy(), prompt).astype(int)
            theirs = cv2.imread(str(template / "results" / "07_PromptMamba" / name))[..., ::-1]
            sent = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            assert (sent == expected).all() and abs(theirs - expected).max() <= 1
            assert expected.std() > 5  # no black picture
        lines = archive.read("readme.txt").decode().splitlines()
    assert [line.partition(" : ")[0] for line in lines] == [
        "runtime per image [s]", "CPU[1] / GPU[0]", "Extra Data [1] / No Extra Data [0]", "Other description"
    ]  # fmt: skip
    assert float(lines[0].partition(" : ")[2]) > 0 and lines[1].endswith(": 1") and lines[2].endswith(": 1")

    arguments = arguments[: arguments.index("-i")]  # once more, without the results
    run(*arguments)
    assert (template / "test_demo.py").read_text().count("model_id == 7") == 1
    arguments[arguments.index("PromptMamba")] = "Another"
    before = sorted(template.rglob("*.p*"))
    _, err = run(*arguments, code=2)
    assert "another branch" in err and sorted(template.rglob("*.p*")) == before


def test_a_function_for_a_folder(tmp_path, run, low):
    """Track sr_x4: its branch gives a function, which gets folders."""
    net, template = network(upscale=4), tmp_path / "organisers"
    template.mkdir()
    (template / "test.py").write_text(
        "import os\n\n\ndef select_model(args, device):\n    model_id = args.model_id\n    if model_id == 0:\n"
        "        pass\n    else:\n        raise NotImplementedError\n\n    return model_func, model_path, name\n"
    )
    run(
        *("--track", "sr_x4", "--team", "12", "--name", "Net", "--checkpoint", save(net, tmp_path / "n.pth")),
        *("-o", tmp_path / "out", "--template", template),
    )
    program = (
        "import argparse, torch\nfrom test import select_model\n"
        "function, weights, name = select_model(argparse.Namespace(model_id=12), None)\n"
        f"function(model_dir=weights, input_path={str(low)!r}, output_path='sr/' + name, device=torch.device('cpu'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", HARNESS.partition("def select_model")[0] + program],
        cwd=template, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    restorer = Restorer(net, device="cpu")
    for name in ("0901x4.png", "0902x4.png"):
        expected = restorer.restore(cv2.imread(str(low / name))[..., ::-1].copy()).astype(int)
        found = cv2.imread(str(template / "sr" / "12_Net" / name))[..., ::-1]
        assert found.shape == expected.shape and abs(found - expected).max() <= 1


def test_the_branch_goes_before_the_last_else():
    branch = "    elif model_id == 9:\n        model = 9\n"
    changed = add_branch(HARNESS, branch)
    assert changed.replace(branch, "") == HARNESS and changed.index("== 1:") < changed.index("== 9:")
    names: dict = {}
    one = "def select_model(args, device):\n    if model_id == 0:\n        return 0\n    return 5\n"
    exec(add_branch(one, "    elif model_id == 9:\n        return 9\n"), names)
    names["model_id"] = 9
    assert names["select_model"](None, None) == 9
    for source in ("", "def select_model(args, device):\n    return 1\n"):
        with pytest.raises(UserError, match="select_model"):
            add_branch(source, branch)


@pytest.mark.parametrize(
    ("net", "track", "said"),
    [
        ({}, "esr", "upscale 4"),
        ({"upscale": 4}, "dn50", "upscale 1"),
        ({"upscale": 4, "in_chans": 1, "out_chans": 1}, "esr", "RGB"),
    ],
)
def test_a_network_of_another_track_is_refused(tmp_path, net, track, said):
    with pytest.raises(UserError, match=said):
        write_submission(tmp_path / "out", track, 1, "Net", network(**net))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--team", "0"), "--team"),
        (("--team", "100"), "--team"),
        (("--track", "sr_x2"), "--track"),
        (("--name", "my net"), "letters and digits"),
        (("--checkpoint", "/no/such.pth"), "/no/such.pth"),
        (("--input", "/no/such"), "/no/such"),
        (("--template", "/no/such"), "test_demo.py"),
        (("--target", "/no/such"), "--input"),
    ],
)
def test_mistakes_are_one_line(tmp_path, run, arguments, said):
    path = save(network(upscale=4), tmp_path / "n.pth")
    usual = ["--track", "esr", "--team", "1", "--name", "Net", "--checkpoint", path, "-o", tmp_path / "out"]
    out, err = run(*usual, *arguments, code=2)
    assert out == "" and len(err.splitlines()) == 1 and said in err, err
    assert not (tmp_path / "out").exists()


def test_results_that_could_not_be_scored(tmp_path, low):
    restorer = Restorer(network(upscale=4), device="cpu")
    (low / "deep").mkdir()
    cv2.imwrite(str(low / "deep" / "0903x4.png"), np.zeros((8, 8, 3), np.uint16))
    with pytest.raises(UserError, match="8 bits"):
        write_results(tmp_path / "r.zip", restorer, ImageSource(low))
    (low / "deep" / "0903x4.png").rename(low / "deep" / "0901x4.png")
    with pytest.raises(UserError, match="same name"):
        write_results(tmp_path / "r.zip", restorer, ImageSource(low))
    (low / "deep" / "0901x4.png").unlink()
    with pytest.raises(UserError, match="compare '0901x4'"):
        write_results(
            tmp_path / "r.zip", restorer, ImageSource(low), targets=ImageSource(low / "..", keys=["low/0901x4"])
        )
    assert not (tmp_path / "r.zip").exists() and not list(tmp_path.glob(".r*"))


# ---- measures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("luma", [False, True])
def test_psnr_is_the_organisers(tmp_path, low, photos, luma):
    """RGB or Y of ITU-R BT.601, rounded to 8 bits, without 4 pixels at each side; targets cut to multiples of 4."""
    high = tmp_path / "high"
    high.mkdir()
    restorer, expected = Restorer(network(upscale=4), device="cpu"), []
    for name in ("0901", "0902"):
        restored = restorer.restore(cv2.imread(str(low / f"{name}x4.png"))[..., ::-1].copy())
        target = np.random.default_rng(0).integers(0, 256, (restored.shape[0] + 3, restored.shape[1] + 2, 3), np.uint8)
        cv2.imwrite(str(high / f"{name}.png"), target[..., ::-1])
        pair = [image.astype(float) for image in (restored, target[: restored.shape[0], : restored.shape[1]])]
        if luma:
            pair = [image @ np.array([65.481, 128.553, 24.966]) / 255 + 16 for image in pair]
        difference = (pair[0] - pair[1])[4:-4, 4:-4]
        expected.append(10 * np.log10(255**2 / (difference**2).mean()))
    found = write_results(tmp_path / "r.zip", restorer, ImageSource(low), targets=ImageSource(high), luma=luma)
    assert found.seconds > 0 and found.psnr == pytest.approx(np.mean(expected), abs=0.01)


def test_the_perceptual_score_is_the_organisers(tmp_path, low, run, monkeypatch):
    """Of means over the images; what cannot be computed here is named, and then there is no score."""
    given = {"LPIPS": (0.1, 0.3), "DISTS": (0.2, 0.1), "CLIP-IQA": (0.5, 0.7), "MANIQA": (0.3, 0.4)}
    given.update({"MUSIQ": (60.0, 70.0), "NIQE": (4.0, 15.0)})
    seen = {name: [] for name in given}

    def metric(name):
        def compute(*images, device):
            seen[name].append(images)
            return given[name][len(seen[name]) - 1]

        return compute, name in ("LPIPS", "DISTS")

    assert {name: compares for name, (_, compares) in METRICS.items()} == {name: metric(name)[1] for name in given}
    for name in given:
        monkeypatch.setitem(METRICS, name, metric(name))
    high = tmp_path / "high"
    high.mkdir()
    for name, size in (("0901", (80, 120)), ("0902", (100, 68))):
        cv2.imwrite(str(high / f"{name}.png"), np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    arguments = ["--track", "sr_x4", "--team", 1, "--name", "Net", "-o", tmp_path / "out", "--device", "cpu"]
    arguments += ["--checkpoint", save(network(upscale=4), tmp_path / "n.pth"), "-i", low, "--target", high]
    told, _ = run(*arguments, "--perceptual")
    score = (1 - 0.2) + (1 - 0.15) + 0.6 + 0.35 + 0.65 + (10 - 9.5) / 10
    assert f"perceptual score {score:.4f}: LPIPS 0.2000" in told
    restored, target = seen["LPIPS"][0]
    assert len(seen["NIQE"][0]) == 1 and (seen["NIQE"][0][0] == restored).all()
    assert (target == cv2.imread(str(high / "0901.png"))).all() and restored.shape == target.shape

    def without_weights(image, device):
        raise UserError("metric musiq: pyiqa cannot get its network here")

    monkeypatch.setitem(METRICS, "MUSIQ", (without_weights, False))
    for images in seen.values():
        images.clear()
    told, _ = run(*arguments, "--perceptual")
    assert "left out: metric musiq: pyiqa cannot" in told and "score none, as metrics are missing: LPIPS 0.2000" in told
    assert "results written" in told and (tmp_path / "out" / "team01_Net_results.zip").exists()
    _, err = run(*arguments[:-2], "--perceptual", code=2)
    assert "--target" in err


def test_the_perceptual_score_takes_its_metrics_as_they_are(photos, monkeypatch):
    asked = []

    class One(torch.nn.Module):
        def forward(self, *images):
            assert all(image.shape == (1, 3, 40, 48) and image.max() <= 1 for image in images)
            return torch.tensor(0.5)

    def pyiqa_network(metric, device, mode=None):
        asked.append(metric)
        return One()

    monkeypatch.setattr("prompt_mamba_arch.metrics.iqa.pyiqa_network", pyiqa_network)
    monkeypatch.setattr("prompt_mamba_arch.metrics.dists.packaged", lambda device: None)
    found = PerceptualScore("cpu")
    image = np.ascontiguousarray(photos["coffee"][:40, :48, ::-1])
    found.add(image, image)
    assert sorted(asked) == ["clipiqa", "dists", "maniqa", "musiq", "niqe"]
    means = found.means()
    assert all(means[name] == 0.5 for name in METRICS if name != "LPIPS")
    if "LPIPS" not in found.missing:  # its package is optional
        assert means["LPIPS"] == pytest.approx(0, abs=1e-6)
        assert found.score() == pytest.approx(1 + 0.5 + 0.5 + 0.5 + 0.005 + 0.95, abs=1e-6)


def test_scores_are_those_of_the_rules():
    for year, (milliseconds, gflops, mparameters) in {2025: (16.69, 16.70, 0.276), 2026: (5.59, 9.83, 0.151)}.items():
        assert esr_score(year, milliseconds, gflops, mparameters) == pytest.approx((7.3891,) * 4, abs=1e-4)
    better = esr_score(2026, 5.59 / 2, 9.83, 0.151)
    assert better.runtime == pytest.approx(np.e) and better.final == pytest.approx(0.8 * np.e + 0.2 * np.e**2)
    assert esr_score(2025, 1e9, 1, 1).final == np.inf


def test_operations_are_counted(tmp_path, monkeypatch):
    """Against a count by hand, for a network of convolutions and for the scans of one that has them."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(5, 2, 1))
    found = measure(layers, size=100, runs=1)
    assert found.parameters == 3 * 5 * 9 + 5 + 5 * 2 + 2 and found.convolutions == 2
    assert found.products == (3 * 5 * 9 + 5 * 2) * 100**2 and found.activations == 7 * 100**2 and found.scans == 0
    assert found.seconds > 0 and found.memory is None

    monkeypatch.setattr("prompt_mamba_arch.ntire.measures._SMALL", (8, 16))
    net = network(upscale=4, d_state=3)  # conv and scan, 8 channels, 2 directions
    path = tmp_path / "net.py"
    source, state = network_file(net, "Net")
    path.write_text(source)
    flat = load_network_file(path)
    flat.load_state_dict(state, strict=True)
    theirs, ours = measure(flat, size=32, runs=1), measure(net, size=32, runs=1)
    assert theirs.products == ours.products
    assert theirs.scans == ours.scans == 9 * 32**2 * 8 * 3 * 2
    assert theirs.activations == ours.activations and theirs.parameters == ours.parameters
    direct = measure(flat, size=24, runs=1).products
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        flat(torch.rand(1, 3, 24, 24))
    assert direct == counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("file", "track"), [("train_PromptMamba_light_SRx4.yml", "esr"), ("train_PromptMamba_dn50.yml", "dn50")]
)
def test_the_shipped_options_are_for_the_tracks(tmp_path, monkeypatch, file, track):
    options = read_option_file(ROOT / "options" / "train" / "PromptMamba" / file)
    net = build_network(options["network_g"])
    assert not any(net.text_parameters()) and net.upscale == options["scale"]
    written = write_submission(tmp_path, track, 1, "Net", net)
    flat = load_network_file(written.network)
    flat.load_state_dict(torch.load(written.weights, weights_only=True), strict=True)
    if track == "esr":  # leaner than both baselines
        monkeypatch.setattr("prompt_mamba_arch.ntire.measures._SMALL", (8, 16))
        found = measure(flat, size=32, runs=1)
        assert found.parameters < 0.151e6 and (found.products + found.scans) * (256 // 32) ** 2 < 9.83e9


def test_what_fvcore_does_in_an_old_way_is_not_told(tmp_path, monkeypatch, recwarn):
    (tmp_path / "fvcore").mkdir()
    (tmp_path / "fvcore" / "__init__.py").touch()
    (tmp_path / "fvcore" / "nn.py").write_text("import warnings\nwarnings.warn('old', FutureWarning)\n")
    for name in ("fvcore", "fvcore.nn"):
        monkeypatch.setitem(sys.modules, name, None)  # so that afterwards it is as before
        del sys.modules[name]
    monkeypatch.syspath_prepend(tmp_path)
    assert _fvcore(torch.nn.Identity(), 8, torch.device("cpu")) is None  # it has no counter
    assert "old" not in [str(warning.message) for warning in recwarn]


def test_fvcore_counts_it(tmp_path, monkeypatch):
    pytest.importorskip("fvcore")
    monkeypatch.setattr("prompt_mamba_arch.ntire.measures._SMALL", (8, 16))
    layers = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert measure(layers, size=100, runs=1).fvcore == 3 * 5 * 9 * 100**2
    source, _ = network_file(network(upscale=4), "Net")
    (tmp_path / "net.py").write_text(source)
    found = measure(load_network_file(tmp_path / "net.py"), size=48, runs=1)
    assert found.fvcore == pytest.approx(found.products, rel=0.25)  # it counts norms, too


def test_measures_are_told(tmp_path, run, monkeypatch):
    import prompt_mamba_arch.ntire as ntire

    monkeypatch.setattr("prompt_mamba_arch.ntire.measures._SMALL", (8, 16))
    monkeypatch.setattr(ntire, "measure", lambda net, **options: measure(net, size=32, runs=1))
    net = network(upscale=4)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in net.modules())
    path = save(net, tmp_path / "n.pth")
    usual = ["--team", 1, "--name", "Net", "--checkpoint", path, "-o", tmp_path / "out", "--measure"]
    told, _ = run("--track", "esr", *usual)
    assert "score 2026" in told and "inf" not in told and f"of {convolutions} convolutions" in told
    assert not (tmp_path / "out" / "factsheet.tex").exists()
    options = ROOT / "options" / "train" / "PromptMamba" / "train_PromptMamba_light_SRx4.yml"
    told, _ = run("--track", "sr_x4", *usual, "--factsheet")
    assert "score" not in told and "runtime" in told
    text = (tmp_path / "out" / "factsheet.tex").read_text()
    assert "Super-Resolution" in text and "2 blocks" in text and "total" not in text
    net = build_network(read_option_file(options)["network_g"])
    usual[usual.index("--checkpoint") + 1] = save(net, tmp_path / "light.pth")
    run("--track", "esr", *usual, "--factsheet", "--opt", options, "--extra-data")
    text = (tmp_path / "out" / "factsheet.tex").read_text()
    for said in (
        r"DIV2K\_train\_HR\_sub",
        "256 $\\times$ 256",
        "AdamW: lr 0.001",
        "500000",
        "L1Loss",
        "was used.",
        "0.136 M",
    ):
        assert said in text, said
    assert "datasets/" not in text and str(tmp_path) not in text
    unescaped = re.sub(r"\\[{}_%&#$]", "", text)
    assert unescaped.count("{") == unescaped.count("}") and text.count(r"\begin{") == text.count(r"\end{")
    assert not re.search(r"(?<!\\)[#_%]", text)  # LaTeX would read them as commands


def test_any_text_is_safe_in_latex():
    assert escaped("a_b & 50% of {c}~\\d^e 3 x 4") == (
        r"a\_b \& 50\% of \{c\}\textasciitilde{}\textbackslash{}d\textasciicircum{}e 3 $\times$ 4"
    )
