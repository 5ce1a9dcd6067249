"""The properties that exact targets rest on, for every kind."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest

from prompt_mamba_arch.data import KINDS, check_recipe, every_target, render, sample_recipe, severity, severity_word
from prompt_mamba_arch.data.degradations import (
    DEGRADATIONS,
    PHYSICAL_ORDER,
    kinds_of,
    matlab_downscale,
    resize,
    sample_step,
)
from prompt_mamba_arch.data.degradations.noise import poisson_quantile
from prompt_mamba_arch.data.degradations.spec import Choice, Number
from prompt_mamba_arch.errors import UserError

# one of everything, in the physical order
FULL = [sample_step(kind, 7 + i) for i, kind in enumerate(PHYSICAL_ORDER)]


@pytest.fixture(scope="module")
def image(photos) -> np.ndarray:
    return photos["chelsea"][20:116, 30:142].astype(np.float32) / np.float32(255)  # (96, 112, 3)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * np.log10(float(np.mean((a.astype(np.float64) - b) ** 2)) + 1e-12)


def variants(kind: str) -> list[dict]:
    """A step for every value of the kind's first choice (noise model, hole shape …), or one step."""
    params = DEGRADATIONS[kind].params
    choices = [(name, p.values) for name, p in params.items() if isinstance(p, Choice)]
    if not choices:
        return [sample_step(kind, 3)]
    name, values = choices[0]
    return [sample_step(kind, 3, {name: value}) for value in values]


STEPS = [pytest.param(step, id=f"{kind}-{i}") for kind in KINDS for i, step in enumerate(variants(kind))]


# --- render ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_render_is_pure_and_changes_the_image(image, step):
    before, recipe = image.copy(), copy.deepcopy([step])
    first = render(image, recipe)
    assert first.dtype == np.float32 and first.shape == image.shape
    assert first.min() >= 0 and first.max() <= 1
    assert not np.array_equal(first, image)
    assert np.array_equal(first, render(image, recipe))
    assert np.array_equal(image, before) and recipe == [step]


@pytest.mark.parametrize("step", STEPS)
def test_result_is_what_an_8_bit_file_holds(image, step):
    out = render(image, [step])
    pixels = np.round(out * 255).astype(np.uint8)
    assert np.array_equal(pixels.astype(np.float32) / np.float32(255), out)


@pytest.mark.parametrize("seed", range(6))
def test_without_everything_is_the_clean_image(image, seed):
    fine = image * np.float32(0.99) + np.float32(1 / 300)  # not on the 8-bit grid
    recipe = sample_recipe(seed, count=(1, 4))
    out = render(fine, recipe, without=kinds_of(recipe))
    assert np.array_equal(out, fine) and out is not fine
    assert np.array_equal(render(fine, FULL, without=KINDS), fine)
    assert np.array_equal(render(fine, []), fine)
    assert np.array_equal(render(fine, [{"kind": "none"}]), fine)


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_a_kind_out_is_the_recipe_without_that_step(image, kind):
    shorter = [step for step in FULL if step["kind"] != kind]
    assert np.array_equal(render(image, FULL, without={kind}), render(image, shorter))


class Recorder:
    """A generator that notes what was drawn from it."""

    def __init__(self, seed: int):
        self.rng, self.drawn = np.random.Generator(np.random.PCG64(seed)), []

    def __getattr__(self, name):
        def draw(*args, **kwargs):
            value = getattr(self.rng, name)(*args, **kwargs)
            self.drawn.append((name, np.array(value)))
            return value

        return draw


@pytest.mark.parametrize("step", STEPS)
def test_draws_depend_on_the_size_and_not_on_the_pixels(photos, step):
    degradation = DEGRADATIONS[step["kind"]]
    params = check_recipe([step])[0]["params"]
    logs = []
    for picture in (photos["rocket"][:48, :40] / np.float32(255), np.zeros((48, 40, 3), np.float32)):
        recorder = Recorder(step["seed"])
        degradation.apply(np.ascontiguousarray(picture, np.float32), params, recorder)
        logs.append(recorder.drawn)
    assert [name for name, _ in logs[0]] == [name for name, _ in logs[1]]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(*logs))


def test_what_is_kept_is_the_same_with_and_without_the_rest(image):
    """Additive noise and holes can be compared pixel by pixel: the very same grains and the very same strokes."""
    rain, haze = sample_step("rain", 1), sample_step("haze", 2)
    noise = {"kind": "noise", "params": {"model": "gaussian", "sigma": 8}, "seed": 11}
    holes = {"kind": "holes", "params": {"shape": "brush", "amount": 0.3, "fill": "black"}, "seed": 12}
    recipe = [haze, rain, noise, holes]
    targets = every_target(image * np.float32(0.6) + np.float32(0.2), recipe)
    assert len(targets) == 16
    grains = []
    for rest in (set(), {"rain"}, {"haze"}, {"rain", "haze"}):
        noisy = targets[frozenset(rest | {"holes"})]
        grains.append(noisy - targets[frozenset(rest | {"holes", "noise"})])
        assert np.array_equal(
            targets[frozenset(rest)] == 0, np.where(render(np.ones_like(image), [holes]) == 0, True, noisy == 0)
        )
    for grain in grains[1:]:  # equal but for the rounding to 8 bits of both pictures, where nothing is clipped
        assert np.quantile(np.abs(grain - grains[0]), 0.99) < 1.01 / 255 * 2


def test_every_target_is_render_of_every_subset(image):
    recipe = sample_recipe(5, count=(3, 3))
    targets = every_target(image, recipe)
    removed = list(targets)
    assert len(removed) == 8 and removed[0] == frozenset() and removed[-1] == frozenset(kinds_of(recipe))
    for removed, target in targets.items():
        assert np.array_equal(target, render(image, recipe, without=removed))


def hashes() -> list[str]:
    y, x, c = np.mgrid[0:70, 0:90, 0:3]
    picture = ((y * 3 + x * 5 + c * 40 + (y // 9) * (x // 7) * 17) % 256).astype(np.float32) / np.float32(255)
    recipes = [[step] for kind in KINDS for step in variants(kind)] + [sample_recipe(s, count=(2, 4)) for s in range(6)]
    large = np.tile(picture, (6, 7, 1))  # large enough for OpenCV to share it out among threads
    rendered = [render(picture, recipe) for recipe in recipes] + [render(large, FULL)]
    return [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in rendered]


def test_another_process_with_more_threads_renders_the_same_bits():
    program = (
        "import sys, cv2; sys.path[:0] = sys.argv[1:]; cv2.setNumThreads(3); cv2.setRNGSeed(99)\n"
        "import test_degradations; print(' '.join(test_degradations.hashes()))"
    )
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    command = [sys.executable, "-c", program, here, os.path.dirname(os.path.dirname(here))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        assert done.stdout.split() == hashes()
    finally:
        cv2.setNumThreads(threads)


def test_global_generators_are_neither_used_nor_moved(image):
    random.seed(1), np.random.seed(1), cv2.setRNGSeed(1)
    first = render(image, FULL)
    states = random.getstate(), np.random.get_state()[1].copy()
    random.seed(2), np.random.seed(2), cv2.setRNGSeed(2)
    assert np.array_equal(first, render(image, FULL))
    random.seed(1), np.random.seed(1)
    sample_recipe(3), render(image, FULL)
    assert random.getstate() == states[0] and np.array_equal(np.random.get_state()[1], states[1])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 17), (16, 16), (33, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_small_images(kind, size):
    picture = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    for step in variants(kind) + [sample_step(kind, seed) for seed in range(8)]:
        out = render(picture, [step])
        assert out.shape == picture.shape and np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_parameters(kind, image):
    """The hard limits are limits of what can be rendered."""
    for corner in ("low", "high"):
        for step in variants(kind):
            params = DEGRADATIONS[kind].params
            extreme = {n: getattr(p, corner) for n, p in params.items() if isinstance(p, Number)}
            step = {**step, "params": {**step["params"], **extreme}}
            for picture in (image[:40, :48], np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)):
                out = render(picture, [step])
                assert np.isfinite(out).all() and 0 <= out.min() and out.max() <= 1


def test_views_and_flips_are_rendered_alike(image):
    flipped = image[:, ::-1].transpose(1, 0, 2)
    assert np.array_equal(render(flipped, FULL), render(np.ascontiguousarray(flipped), FULL))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.float32),
        np.zeros((0, 4, 3), np.float32),
        np.full((4, 4, 3), 1.5, np.float32),
        np.full((4, 4, 3), np.nan, np.float32),
        [[0.0]],
    ],
)
def test_render_refuses_what_is_no_image(bad):
    with pytest.raises(ValueError, match="image"):
        render(bad, [])


# --- recipes --------------------------------------------------------------------------------------------------------


def test_recipes_are_plain_json_and_repeatable(image):
    for seed in range(40):
        recipe = sample_recipe(seed, count=(1, 4))
        text = json.dumps(recipe)
        assert json.loads(text) == recipe == sample_recipe(seed, count=(1, 4))
        assert 1 <= len(recipe) <= 4 and len(set(kinds_of(recipe))) == len(recipe)
        places = [PHYSICAL_ORDER.index(step["kind"]) for step in recipe]
        assert places == sorted(places)
        assert all(set(step) == {"kind", "params", "seed"} for step in recipe)
    assert np.array_equal(render(image, recipe), render(image, text))
    assert sample_recipe(1) != sample_recipe(2)


def test_sampling_options():
    recipes = [sample_recipe(s, {"noise": 3, "jpeg": 1, "rain": 0}, 1) for s in range(400)]
    kinds = [step["kind"] for recipe in recipes for step in recipe]
    assert len(kinds) == 400 and set(kinds) == {"noise", "jpeg"}
    assert 0.68 < kinds.count("noise") / 400 < 0.82
    assert all(len(sample_recipe(s, ["noise", "jpeg"], (4, 4))) == 2 for s in range(5))
    assert sample_recipe(0, count=0) == [] == sample_recipe(0, ["none"], 2)
    some = [sample_recipe(s, {"none": 1, "noise": 1}, 1) for s in range(100)]
    assert 30 < sum(recipe == [] for recipe in some) < 70
    orders = {tuple(step["kind"] for step in sample_recipe(s, count=9, order="random")) for s in range(5)}
    assert len(orders) == 5
    fixed = [sample_recipe(s, ["noise"], 1, ranges={"noise": {"model": "film", "sigma": [20, 21]}}) for s in range(20)]
    assert {recipe[0]["params"]["model"] for recipe in fixed} == {"film"}
    assert all(20 <= recipe[0]["params"]["sigma"] <= 21 for recipe in fixed)
    scales = {sample_step("lowres", s, {"scale": [2, 3, 4]})["params"]["scale"] for s in range(40)}
    assert scales == {2, 3, 4}


def test_fixing_a_parameter_leaves_the_other_draws():
    free, fixed = sample_step("haze", 5), sample_step("haze", 5, {"density": 3})
    assert fixed["params"] == {**free["params"], "density": 3} and fixed["seed"] == free["seed"]


def test_low_light_brings_no_second_noise():
    for seed in range(30):
        recipe = {s["kind"]: s["params"] for s in sample_recipe(seed, ["noise", "lowlight"], 2)}
        assert recipe["lowlight"]["photons"] == 0
        (alone,) = sample_recipe(seed, ["lowlight"], 1)
        assert alone["params"]["photons"] > 0


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([{"kind": "nosie"}], "did you mean 'noise'"),
        ([{"kind": "noise", "params": {"sigmma": 3}}], "did you mean 'sigma'"),
        ([{"kind": "noise", "params": {"sigma": 300}}], "recipe step 1 .noise..sigma must be between 0 and 100"),
        ([{"kind": "noise", "params": {"sigma": "25"}}], "must be a number"),
        ([{"kind": "noise", "params": {"model": "gausian"}}], "did you mean 'gaussian'"),
        ([{"kind": "jpeg", "params": {"quality": 30.5}}], "whole number"),
        ([{"kind": "jpeg", "params": {"quality": float("inf")}}], "between 1 and 100, not inf"),
        ([{"kind": "noise"}, {"kind": "rain", "sed": 3}], "recipe step 2; did you mean 'seed'"),
        ([{"kind": "rain", "seed": -1}], "seed"),
        ([{"kind": "none", "params": {"sigma": 3}}], "sigma"),
        ({"kind": "noise"}, "list of steps"),
        ("[{", "not JSON"),
        (["noise"], "section of keys"),
    ],
)
def test_wrong_recipes_are_refused_in_one_line(recipe, message):
    with pytest.raises(UserError, match=message) as caught:
        render(np.zeros((2, 2, 3), np.float32), recipe)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_are_refused():
    picture = np.zeros((2, 2, 3), np.float32)
    with pytest.raises(UserError, match="did you mean 'rain'"):
        render(picture, [], without={"rian"})
    with pytest.raises(UserError, match="did you mean 'defocus'"):
        sample_recipe(0, ["defocos"])
    with pytest.raises(UserError, match="weight of noise"):
        sample_recipe(0, {"noise": -1})
    with pytest.raises(UserError, match="did you mean 'random'"):
        sample_recipe(0, order="randm")
    with pytest.raises(UserError, match="count"):
        sample_recipe(0, count=(3, 1))
    for ranges, message in (
        ({"noise": {"sigma": [50, 5]}}, "range"),
        ({"noise": {"sigma": [5, 500]}}, "between 0 and 100"),
        ({"niose": {}}, "did you mean 'noise'"),
        ({"noise": {"sgma": 1}}, "did you mean 'sigma'"),
        ({"noise": {"model": ["film", "fim"]}}, "did you mean 'film'"),
    ):
        with pytest.raises(UserError, match=message):
            sample_recipe(0, ranges=ranges)


def test_left_out_parameters_have_defaults(image):
    for kind in KINDS:
        (step,) = check_recipe([{"kind": kind}])
        assert step["seed"] == 0 and set(step["params"]) == set(DEGRADATIONS[kind].params)
        assert np.array_equal(render(image, [{"kind": kind}]), render(image, [step]))


# --- severity -------------------------------------------------------------------------------------------------------

# (kind, what is fixed, parameter, from slight to heavy)
GROWING = [
    *[("noise", {"model": m}, "sigma", (4, 8, 15, 25, 35, 45)) for m in ("gaussian", "poisson", "camera", "film")],
    *[("defocus", {"shape": s}, "radius", (0.8, 1.5, 2.5, 4, 6)) for s in ("disc", "gaussian")],
    *[("motion", {"path": s, "angle": 30}, "length", (3, 6, 10, 16, 30)) for s in ("shake", "line")],
    *[("jpeg", {"format": f}, "quality", (90, 70, 45, 25, 10)) for f in ("jpeg", "webp")],
    ("jpeg", {"quality": 30}, "chroma", ("4:4:4", "4:2:0")),
    *[("lowres", {"down": d, "up": "bicubic"}, "scale", (1.5, 2, 3, 4)) for d in ("bicubic", "area", "lanczos")],
    ("rain", {}, "amount", (5, 15, 40, 90)),
    ("rain", {}, "brightness", (0.2, 0.5, 0.9)),
    ("rain", {}, "length", (10, 25, 60)),
    ("rain", {}, "veil", (0.02, 0.1, 0.3)),
    ("haze", {}, "density", (0.2, 0.5, 1, 2)),
    ("haze", {}, "slope", (0.9, 0.6, 0.2)),
    ("lowlight", {}, "stops", (0.5, 1, 2, 3, 4.5)),
    ("lowlight", {"stops": 1}, "photons", (100_000, 8_000, 500)),
    *[("holes", {"shape": s}, "amount", (0.05, 0.3, 0.6, 0.95)) for s in ("brush", "scratches", "text", "blocks")],
]


@pytest.mark.parametrize(("kind", "fixed", "name", "values"), GROWING)
def test_severity_grows_with_the_visible_damage(image, kind, fixed, name, values):
    steps = [{"kind": kind, "params": {**fixed, name: value}, "seed": 21} for value in values]
    severities = [severity(step) for step in steps]
    assert all(a < b for a, b in zip(severities, severities[1:])), severities
    assert 0 <= severities[0] and severities[-1] <= 1
    quality = [psnr(render(image, [step]), image) for step in steps]
    assert all(a > b for a, b in zip(quality, quality[1:])), quality


@pytest.mark.parametrize("kind", KINDS)
def test_severity_ranks_random_draws_as_psnr_does(image, kind):
    from scipy.stats import spearmanr

    steps = [sample_step(kind, 100 + seed) for seed in range(40)]
    severities = [severity(step) for step in steps]
    quality = [psnr(render(image, [step]), image) for step in steps]
    assert spearmanr(severities, quality)[0] < -0.55


@pytest.mark.parametrize("kind", KINDS)
def test_default_draws_are_slight_moderate_and_heavy(kind):
    words = [severity_word(sample_step(kind, seed)) for seed in range(300)]
    assert all(words.count(word) >= 12 for word in ("slight", "moderate", "heavy")), {w: words.count(w) for w in words}


def test_severity_words():
    def word(sigma):
        return severity_word({"kind": "noise", "params": {"sigma": sigma}})

    assert [word(s) for s in (5, 16, 17, 33, 34, 100)] == ["slight"] * 2 + ["moderate"] * 2 + ["heavy"] * 2
    assert severity({"kind": "none"}) == 0


# --- the kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gaussian", "poisson", "camera", "film"])
def test_sigma_is_the_standard_deviation_at_mid_grey(model):
    grey = np.full((160, 160, 3), 0.5, np.float32)
    for extra in ({}, {"blotch": 0.8}) if model == "camera" else ({},):
        recipe = [{"kind": "noise", "params": {"model": model, "sigma": 12, **extra}, "seed": 4}]
        assert np.std(render(grey, recipe) * 255) == pytest.approx(12, rel=0.08)


def test_noise_models_differ_as_their_names_say():
    grey = np.full((128, 128, 3), 0.5, np.float32)
    dark, bright = grey * 0.3, grey * 1.7

    def residue(model, picture=grey):
        recipe = [{"kind": "noise", "params": {"model": model, "sigma": 12}, "seed": 4}]
        return render(picture, recipe).astype(np.float64) - picture

    def neighbours(noise):
        return np.corrcoef(noise[:, :-1, 1].ravel(), noise[:, 1:, 1].ravel())[0, 1]

    def colours(noise):
        return np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]

    assert residue("poisson", bright).std() > 1.4 * residue("poisson", dark).std()
    assert abs(residue("gaussian", bright).std() / residue("gaussian", dark).std() - 1) < 0.05
    assert residue("film", grey).std() > 1.5 * residue("film", dark * 0.3).std()
    assert abs(neighbours(residue("gaussian"))) < 0.05 and neighbours(residue("camera")) > 0.15
    assert abs(colours(residue("gaussian"))) < 0.05 and colours(residue("film")) > 0.9
    assert abs(colours(residue("camera"))) > 0.05


def test_poisson_quantile_against_scipy():
    from scipy.stats import norm, poisson

    z = np.linspace(-3.5, 3.5, 71)
    assert not poisson_quantile(np.zeros(71), z).any()
    for mean in (0.02, 0.3, 1.0, 2.9, 4.0, 20.0, 300.0):
        exact = poisson.ppf(norm.cdf(z), mean)
        ours = poisson_quantile(np.full(z.shape, mean), z)
        assert np.abs(ours - exact).max() <= (0 if mean < 3 else 1)
        counts = poisson_quantile(np.full(20000, mean), np.random.default_rng(0).standard_normal(20000))
        assert counts.mean() == pytest.approx(mean, rel=0.06)
        assert counts.var() == pytest.approx(mean, rel=0.15)


def test_blur_keeps_light_and_place():
    point = np.zeros((61, 61, 3), np.float32)
    point[30, 30] = 1
    steps = [s for kind in ("defocus", "motion") for s in variants(kind)]
    for step in steps:
        params = {**step["params"], "linear": False}
        spread = DEGRADATIONS[step["kind"]].apply(point, params, np.random.default_rng(step["seed"]))[..., 0]
        y, x = np.mgrid[0:61, 0:61]
        assert spread.sum() == pytest.approx(1, abs=1e-4)
        assert (spread * y).sum() == pytest.approx(30, abs=0.05) and (spread * x).sum() == pytest.approx(30, abs=0.05)


def test_low_light_is_exposure_in_linear_light():
    grey = np.full((8, 8, 3), 0.5, np.float32)
    dark = render(grey, [{"kind": "lowlight", "params": {"stops": 2, "tint": 0, "photons": 0}}])
    assert dark[0, 0, 1] == pytest.approx(0.2562, abs=1 / 255)  # sRGB of 0.2140 / 4


def test_jpeg_is_the_encoders(image):
    step = {"kind": "jpeg", "params": {"quality": 20, "chroma": "4:4:4"}}
    pixels = np.round(image * 255).astype(np.uint8)[..., ::-1]
    flags = [cv2.IMWRITE_JPEG_QUALITY, 20, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    decoded = cv2.imdecode(cv2.imencode(".jpg", pixels, flags)[1], cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(np.round(render(image, [step]) * 255).astype(np.uint8), decoded)
    shifted = render(image, [{**step, "params": {**step["params"], "grid_x": 3}}])
    assert not np.array_equal(shifted, render(image, [step]))


def test_holes_hide_and_leave_the_rest(image):
    for shape in ("brush", "blocks", "scratches", "text"):
        step = {"kind": "holes", "params": {"shape": shape, "amount": 0.5, "fill": "white"}, "seed": 3}
        out = render(image, [step])
        untouched = np.all(out == image, axis=-1).mean()
        assert 0.5 < untouched < 0.99
        assert np.all(out[np.any(out != image, axis=-1)] >= image[np.any(out != image, axis=-1)] - 1 / 255)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_resize_is_matlabs(photos, scale):
    from basicsr.utils.matlab_functions import imresize

    picture = photos["coffee"][:96, :120].astype(np.float64) / 255
    assert np.abs(resize(picture, 96 // scale, 120 // scale) - imresize(picture.copy(), 1 / scale)).max() < 1e-5
    assert np.abs(resize(picture, 96 * scale, 120 * scale) - imresize(picture.copy(), scale)).max() < 1e-4
    pixels = photos["coffee"][:96, :120]
    ours = matlab_downscale(pixels, scale).astype(int)
    theirs = np.clip(np.round(imresize(picture.copy(), 1 / scale) * 255), 0, 255).astype(int)
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 1  # MATLAB rounds after each axis


def test_area_is_opencvs_and_constants_stay(image):
    small = cv2.resize(image, (37, 29), interpolation=cv2.INTER_AREA)
    assert np.abs(resize(image, 29, 37, "area") - small).max() < 1e-5
    for method in ("bicubic", "area", "lanczos", "bilinear", "nearest"):
        for shape in ((1, 1), (1, 5), (7, 2)):
            flat = np.full((*shape, 3), 0.25, np.float64)
            assert np.allclose(resize(flat, 5, 3, method), 0.25)
