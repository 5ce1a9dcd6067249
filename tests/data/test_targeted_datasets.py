"""PromptDegradationDataset and PromptMixDataset."""

from __future__ import annotations

import json
import pickle
import random
import sys
import types
from collections import Counter

import numpy as np
import pytest
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import DataLoader

import prompt_mamba_arch
from prompt_mamba_arch.data import KINDS, decode, render, to_float, to_tensor
from prompt_mamba_arch.data.degradations import sample_step, severity_word
from prompt_mamba_arch.data.prompt_degradation_dataset import KIND_NAMES, level_prompt
from prompt_mamba_arch.data.prompt_mix_dataset import schedule
from prompt_mamba_arch.errors import UserError

SAMPLE_KEYS = {"lq", "gt", "prompt", "key", "lq_path", "gt_path", "present", "remove", "recipe"}


@pytest.fixture
def bank(monkeypatch):
    """A bank whose prompts say what was asked."""
    module = types.ModuleType("prompt_mamba_arch.prompts")

    def from_parameters(recipe, remove, rng, split="train", *, severity):
        assert set(severity) == {step["kind"] for step in recipe} and all(0 <= s <= 1 for s in severity.values())
        assert isinstance(rng, random.Random) and set(remove) <= {step["kind"] for step in recipe}
        return f"{split}: remove {','.join(sorted(remove)) or 'nothing'} {rng.randint(0, 999)}"

    module.from_parameters = from_parameters
    module.unrelated = lambda rng, split="train": f"{split}: unrelated {rng.randint(0, 999)}"
    monkeypatch.setitem(sys.modules, "prompt_mamba_arch.prompts", module)
    monkeypatch.setattr(prompt_mamba_arch, "prompts", module, raising=False)


def make(folders, **options):
    opt = {"name": "d", "type": "PromptDegradationDataset", "phase": "train", "dataroot_gt": str(folders.gt)}
    opt.update({"gt_size": 32} if options.get("phase", "train") == "train" else {})
    opt.update(options)
    return DATASET_REGISTRY.get("PromptDegradationDataset")(opt)


def named(vector) -> set[str]:
    return {kind for kind, value in zip(KINDS, vector.tolist()) if value}


def asked_of(prompt: str) -> set[str]:
    words = prompt.split()[2]
    return set() if words == "nothing" else set(words.split(","))


def unchanged(sample: dict) -> bool:
    return torch.equal(sample["gt"], sample["lq"])


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


def test_count_weights_say_how_often_each_number_is_drawn(paired_folders, bank):
    data = make(paired_folders, count=[1, 3], count_weights=[5, 0, 2], requests={"all": 1}, prompt_dropout=0)
    drawn = Counter(len(data.request(seed).recipe) for seed in range(700))
    assert set(drawn) == {1, 3} and 420 < drawn[1] < 580


# --- PromptDegradationDataset ---------------------------------------------------------------------------------------


def test_samples_are_complete_and_targets_exact(paired_folders, bank):
    data = make(paired_folders, phase="val", count=[1, 4])
    assert len(data) == 4
    for seed in range(12):
        data.seed = seed
        for index, key in enumerate(data.keys):
            sample = data[index]
            assert set(sample) == SAMPLE_KEYS and sample["key"] == key
            clean = to_float(decode((paired_folders.gt / f"{key}.png").read_bytes()))
            recipe, present, remove = json.loads(sample["recipe"]), named(sample["present"]), named(sample["remove"])
            assert present == {step["kind"] for step in recipe} and 1 <= len(present) <= 4
            assert torch.equal(sample["lq"], to_tensor(render(clean, recipe)))
            assert torch.equal(sample["gt"], to_tensor(render(clean, recipe, without=remove)))
            if not remove & present:
                assert torch.equal(sample["gt"], sample["lq"])
            if remove == present:
                assert torch.equal(sample["gt"], to_tensor(clean))
            if "unrelated" not in sample["prompt"]:
                assert asked_of(sample["prompt"]) == remove
            assert sample["prompt"].startswith("val: ")
            assert sample["lq_path"] == sample["gt_path"] == str(paired_folders.gt / f"{key}.png")


def test_validation_depends_on_the_key_alone(paired_folders, bank):
    first = [make(paired_folders, phase="val")[i] for i in range(4)]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    again = make(paired_folders, phase="test", prompt_split="val")
    assert all(same(first[i], again[i]) for i in (3, 0, 2, 1, 0))
    (paired_folders.gt / "astronaut.png").unlink()  # other indices, same keys
    fewer = make(paired_folders, phase="val")
    assert all(same(sample, first[i + 1]) for i, sample in enumerate(fewer[i] for i in range(3)))
    other = make(paired_folders, phase="val", seed=1)
    assert any(not torch.equal(other[i]["lq"], fewer[i]["lq"]) for i in range(3))
    cropped = make(paired_folders, phase="val", gt_size=40)[0]
    assert cropped["lq"].shape == (3, 40, 40) and cropped["recipe"] == fewer[0]["recipe"]


def test_a_limited_variety_of_prompts_leaves_the_rest_as_it_is(paired_folders, bank):
    def prompts(**options):
        requests = {"all": 1, "subset": 1, "none": 1}
        data = make(paired_folders, phase="val", kinds=["noise", "jpeg"], count=2, requests=requests, **options)
        return [data.request(seed) for seed in range(300)]

    free, few = prompts(), prompts(prompt_variety=2)
    assert [(r.recipe, r.remove) for r in few] == [(r.recipe, r.remove) for r in free]
    for remove in {r.remove for r in few}:
        texts = {r.prompt for r in few if r.remove == remove}
        assert len(texts) <= 2 < len({r.prompt for r in free if r.remove == remove})


def test_training_draws_come_from_pythons_generator(paired_folders, bank):
    data = make(paired_folders, use_hflip=True, use_rot=True)
    random.seed(3)
    first = [data[i % 4] for i in range(8)]
    random.seed(3), np.random.seed(0), torch.manual_seed(0)
    assert all(same(a, b) for a, b in zip(first, [data[i % 4] for i in range(8)]))
    assert any(not torch.equal(first[i]["lq"], first[i + 4]["lq"]) for i in range(4))
    assert all(s["lq"].shape == s["gt"].shape == (3, 32, 32) and s["lq"].dtype == torch.float32 for s in first)


@pytest.mark.parametrize(
    ("request_", "check"),
    [
        ("all", lambda s: named(s["remove"]) == named(s["present"]) and not torch.equal(s["gt"], s["lq"])),
        ("subset", lambda s: set() < named(s["remove"]) < named(s["present"])),
        ("none", lambda s: "nothing" in s["prompt"] and not named(s["remove"]) and unchanged(s)),
        ("unrelated", lambda s: "unrelated" in s["prompt"] and not named(s["remove"]) and unchanged(s)),
        ("absent", lambda s: len(named(s["remove"]) - named(s["present"])) == 1 and unchanged(s)),
    ],
)
def test_each_request(paired_folders, bank, request_, check):
    data = make(paired_folders, requests={request_: 1}, count=3, prompt_dropout=0)
    assert all(check(data[i % 4]) for i in range(12))


def test_shares_of_requests_and_of_blind_samples(paired_folders, bank):
    data = make(paired_folders, requests={"all": 1, "none": 1}, prompt_dropout=0.25, count=[1, 2])
    drawn = [data.request(seed) for seed in range(1200)]
    blind = [r for r in drawn if r.prompt == ""]
    assert 240 < len(blind) < 360
    assert all(set(r.remove) == {step["kind"] for step in r.recipe} for r in blind)  # blind means: everything
    prompted = [r for r in drawn if r.prompt]
    assert 0.42 < sum(not r.remove for r in prompted) / len(prompted) < 0.58


def test_options_reach_the_recipe(paired_folders, bank):
    data = make(
        paired_folders,
        kinds={"noise": 3, "rain": 1},
        ranges={"noise": {"model": "gaussian", "sigma": [20, 22]}},
        count=1,
    )
    recipes = [data.request(seed).recipe for seed in range(200)]
    kinds = Counter(step["kind"] for recipe in recipes for step in recipe)
    assert set(kinds) == {"noise", "rain"} and 0.62 < kinds["noise"] / 200 < 0.88
    sigmas = [recipe[0]["params"]["sigma"] for recipe in recipes if recipe[0]["kind"] == "noise"]
    assert 20 <= min(sigmas) and max(sigmas) <= 22


def test_clean_images_are_asked_for_what_is_not_there(paired_folders, bank):
    data = make(paired_folders, kinds=["none"], prompt_dropout=0.3)
    for _ in range(12):
        sample = data[0]
        assert not named(sample["present"]) and torch.equal(sample["lq"], sample["gt"]) and sample["recipe"] == "[]"


def test_without_prompts_every_sample_is_blind(paired_folders):
    data = make(paired_folders, prompts="none", phase="val")
    for i in range(4):
        assert data[i]["prompt"] == "" and torch.equal(data[i]["present"], data[i]["remove"])


def test_prompts_of_the_parameters_in_steps(paired_folders):
    words = {"slight", "moderate", "heavy"}
    data = make(paired_folders, prompts="levels", kinds=["noise", "jpeg", "rain"], count=[1, 2], prompt_dropout=0,
                requests={"all": 1, "subset": 1, "none": 1})  # fmt: skip
    seen = set()
    for seed in range(40):
        request = data.request(seed)
        steps = [step for step in request.recipe if step["kind"] in request.remove]
        names = {"noise": "noise", "jpeg": "jpeg artifacts", "rain": "rain"}
        expected = ", ".join(f"{severity_word(step)} {names[step['kind']]}" for step in steps)
        assert request.prompt == (expected or "no degradation")
        seen |= {part.split()[0] for part in request.prompt.split(", ")}
    assert seen == words | {"no"}
    assert level_prompt([sample_step("noise", 1)], []) == "no degradation"
    assert set(KIND_NAMES) == set(KINDS)


def test_prompts_of_a_file_by_what_they_ask(paired_folders, bank, tmp_path):
    file = tmp_path / "pool.jsonl"
    lines = [
        {"key": "a", "prompts": ["no more grain", "denoise"], "remove": ["noise"]},
        {"key": "b", "prompts": ["it rains"], "remove": ["rain"]},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    data = make(paired_folders, prompts=str(file), kinds=["noise", "rain", "haze"], count=[1, 2], prompt_dropout=0)
    for seed in range(60):
        request = data.request(seed)
        expected = {("noise",): {"no more grain", "denoise"}, ("rain",): {"it rains"}}.get(request.remove)
        assert request.prompt in expected if expected else request.prompt.startswith("train: ")
    lines[0].pop("remove")
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match="'a' does not say what to remove"):
        make(paired_folders, prompts=str(file))


def test_meta_info_lmdb_and_workers(paired_folders, bank, tmp_path):
    import lmdb

    names = ["coffee.png", "rocket.png"]
    (tmp_path / "meta.txt").write_text("\n".join(names))
    part = make(paired_folders, phase="val", meta_info_file=str(tmp_path / "meta.txt"))
    assert part.keys == ("coffee", "rocket")
    root = tmp_path / "gt.lmdb"
    with lmdb.open(str(root), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for name in names:
            transaction.put(name[:-4].encode(), (paired_folders.gt / name).read_bytes())
    (root / "meta_info.txt").write_text("\n".join(f"{name} (64,64,3) 1" for name in names))
    stored = make(paired_folders, phase="val", dataroot_gt=str(root), io_backend={"type": "lmdb"}, prompts="none")
    blind = make(paired_folders, phase="val", meta_info_file=str(tmp_path / "meta.txt"), prompts="none")
    for a, b in zip((stored[0], stored[1]), (blind[0], blind[1])):
        assert torch.equal(a["lq"], b["lq"]) and torch.equal(a["gt"], b["gt"]) and a["recipe"] == b["recipe"]
    assert same(pickle.loads(pickle.dumps(stored))[1], stored[1])
    batches = list(DataLoader(blind, batch_size=2, num_workers=1))
    assert torch.equal(batches[0]["lq"][1], blind[1]["lq"]) and batches[0]["key"] == ["coffee", "rocket"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_dropuot": 0.1}, "did you mean 'prompt_dropout'"),
        ({"kinds": ["niose"]}, "did you mean 'noise'"),
        ({"kinds": []}, "kinds"),
        ({"kinds": {"noise": 0}}, "kinds"),
        ({"ranges": {"noise": {"sigma": [5, 500]}}}, "ranges.noise.sigma"),
        ({"count": [3, 1]}, "count"),
        ({"count": 2.5}, "count"),
        ({"count": [1, 3], "count_weights": [1, 1]}, "count_weights must be 3 numbers"),
        ({"count": [1, 2], "count_weights": [0, 0]}, "count_weights must be 2 numbers"),
        ({"order": "phyical"}, "physical"),
        ({"requests": {"al": 1}}, "did you mean 'all'"),
        ({"requests": {"all": 0}}, "at least one weight"),
        ({"requests": {"all": -1}}, "weight of all"),
        ({"prompt_dropout": 1.5}, "between 0 and 1"),
        ({"prompt_split": "dev"}, "train, val or test"),
        ({"prompts": "banc"}, "bank, levels, none"),
        ({"scale": 2}, "scale: 1"),
        ({"gt_size": None}, "gt_size"),
        ({"dataroot_gt": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_options_are_refused_at_construction(paired_folders, options, message):
    with pytest.raises(UserError, match=message):
        make(paired_folders, **options)


def test_a_small_image_is_named(paired_folders):
    with pytest.raises(UserError, match=r"'astronaut' is 64x64 .*gt_size 65.*astronaut\.png"):
        make(paired_folders, gt_size=65, prompts="none")[0]


# --- PromptMixDataset -----------------------------------------------------------------------------------------------


def mix(sections, **options):
    opt = {"name": "m", "type": "PromptMixDataset", "phase": "train", "scale": 1, "datasets": sections, **options}
    return DATASET_REGISTRY.get("PromptMixDataset")(opt)


def sections_of(folders):
    gt, lq = str(folders.gt), str(folders.lq)
    return [
        {"type": "PromptDegradationDataset", "dataroot_gt": gt, "gt_size": 32, "weight": 3, "prompts": "none"},
        {"type": "PromptPairedImageDataset", "dataroot_gt": gt, "dataroot_lq": lq, "gt_size": 32, "prompts": "denoise"},
        {
            "type": "PairedImageDataset",
            "dataroot_gt": gt,
            "dataroot_lq": lq,
            "gt_size": 32,
            "io_backend": {"type": "disk"},
            "use_hflip": False,
            "use_rot": False,
        },
    ]


def test_mixed_samples_share_a_batch(paired_folders):
    sections = sections_of(paired_folders)
    data = mix(sections, length=20)
    assert len(data) == 20 and sections == sections_of(paired_folders)
    counts = Counter(data.locate(i)[0] for i in range(20))
    assert counts == {0: 12, 1: 4, 2: 4}
    for _ in range(2):  # BasicSR's dataset takes its io_backend apart at the first sample
        batch = next(iter(DataLoader(data, batch_size=20)))
        assert set(batch) == SAMPLE_KEYS and batch["lq"].shape == (20, 3, 32, 32)
        assert set(batch["prompt"]) == {"", "denoise"}
        assert batch["present"].shape == batch["remove"].shape == (20, len(KINDS))
        assert all(batch["key"])


def test_every_item_of_every_dataset_comes_by_default(paired_folders):
    data = mix(sections_of(paired_folders))
    assert len(data) == 20  # the datasets of weight 1/5 have 4 items
    seen = {data.locate(i) for i in range(len(data))}
    assert seen == {(d, i) for d in range(3) for i in range(4)}
    assert [data.locate(i) for i in range(20)] == [mix(sections_of(paired_folders)).locate(i) for i in range(20)]


def test_schedule_is_even():
    plan = schedule([5, 3, 2], 1000)
    which = plan[:, 0]
    assert np.bincount(which).tolist() == [500, 300, 200]
    for d, share in enumerate((0.5, 0.3, 0.2)):
        turns = plan[which == d, 1]
        assert np.array_equal(turns, np.arange(len(turns)))
        assert np.abs(np.cumsum(which == d) - share * np.arange(1, 1001)).max() <= 1.5
    assert np.bincount(schedule([1, 1, 1], 10)[:, 0]).tolist() == [4, 3, 3]
    assert len(schedule([1e-6, 1], 5)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.clear(), "empty"),
        (lambda s: s[0].update(type="PromptDegradatonDataset"), "did you mean 'PromptDegradationDataset'"),
        (lambda s: s[0].update(weight=0), r"datasets\[1\]: weight"),
        (lambda s: s[1].update(gt_size=16), r"one gt_size .*\[16, 32\]"),
        (lambda s: s[0].update(prompt="x"), "unknown key 'prompt'"),
        (lambda s: s.append("noise"), r"datasets\[4\] must be a section"),
    ],
)
def test_wrong_mixes_are_refused(paired_folders, change, message):
    sections = sections_of(paired_folders)
    change(sections)
    with pytest.raises(UserError, match=message):
        mix(sections)


def test_the_middle_in_multiples(paired_folders, bank):
    from prompt_mamba_arch.data import ImageSource

    part = make(paired_folders, phase="val", kinds=["none"], centre_multiple=48, prompts="none")[0]
    image = ImageSource(paired_folders.gt).read(part["key"])
    assert (part["gt"] * 255).round().byte().permute(1, 2, 0).numpy().tolist() == image[8:56, 8:56].tolist()
    with pytest.raises(UserError, match="is 64x64, smaller than centre_multiple 80"):
        make(paired_folders, phase="val", kinds=["none"], centre_multiple=80, prompts="none")[0]
    small = make(paired_folders, phase="val", kinds=["none"], centre_multiple=48, gt_size=20, prompts="none")[0]
    assert small["gt"].shape == (3, 20, 20)
