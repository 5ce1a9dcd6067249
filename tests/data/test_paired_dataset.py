"""PromptPairedImageDataset: the same samples as BasicSR's dataset, prompts beside them, and plain messages."""

from __future__ import annotations

import copy
import pickle
import random
import shutil

import prompt_mamba_arch  # noqa: F401  isort: skip  (BasicSR can be imported only after it)
import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

from prompt_mamba_arch.data import KINDS
from prompt_mamba_arch.data.prompt_file import PromptEntry, write_prompt_file
from prompt_mamba_arch.data.prompt_paired_image_dataset import PromptPairedImageDataset
from prompt_mamba_arch.data.prompt_sources import write_lmdb_prompts
from prompt_mamba_arch.errors import UserError, plain_line


def options(folders, phase="train", **more):
    opt = {
        "name": "Tiny", "type": "PromptPairedImageDataset", "phase": phase, "scale": 1,
        "dataroot_gt": str(folders.gt), "dataroot_lq": str(folders.lq), "io_backend": {"type": "disk"},
    }  # fmt: skip
    if phase == "train":
        opt.update(gt_size=32, use_hflip=True, use_rot=True)
    opt.update(more)
    return opt


def as_lmdb(folders):
    for folder in (folders.gt, folders.lq):
        names = folders.names
        make_lmdb_from_imgs(str(folder), f"{folder}.lmdb", names, [name[:-4] for name in names], map_size=1 << 26)
    return {
        "dataroot_gt": f"{folders.gt}.lmdb", "dataroot_lq": f"{folders.lq}.lmdb", "io_backend": {"type": "lmdb"}
    }  # fmt: skip


def rewrite(path, change):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert cv2.imwrite(str(path), change(image))


@pytest.mark.parametrize("backend", ["disk", "lmdb"])
@pytest.mark.parametrize("more", [{}, {"color": "y"}, {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 1.0]}])
def test_equals_basicsr_from_the_same_seed(paired_folders, backend, more):
    roots = as_lmdb(paired_folders) if backend == "lmdb" else {}
    opt = options(paired_folders, **roots, **more)
    ours, theirs = PromptPairedImageDataset(opt), PairedImageDataset(copy.deepcopy(opt))
    order = [next(i for i, path in enumerate(theirs.paths) if key in path["gt_path"]) for key in ours.keys]
    for index in range(len(ours)):
        random.seed(index)
        sample = ours[index]
        random.seed(index)
        reference = theirs[order[index]]
        for image in ("lq", "gt"):
            if more.get("color"):  # the luma's three products are added in another order
                assert torch.allclose(sample[image], reference[image], atol=1e-6)
            else:
                assert torch.equal(sample[image], reference[image])
            assert sample[image].dtype == torch.float32 and sample[image].is_contiguous()
    assert opt["io_backend"] == {"type": backend}


def test_super_resolution_pairs_with_template_and_a_rest(paired_folders):
    for name in paired_folders.names:
        rewrite(paired_folders.gt / name, lambda image: image[:63, :62])
        rewrite(paired_folders.lq / name, lambda image: image[:15, :15])
        (paired_folders.lq / name).rename(paired_folders.lq / name.replace(".png", "x4.png"))
    more = {"scale": 4, "filename_tmpl": "{}x4"}
    validation = PromptPairedImageDataset(options(paired_folders, "val", **more))[0]
    assert validation["lq"].shape == (3, 15, 15) and validation["gt"].shape == (3, 60, 60)
    training = PromptPairedImageDataset(options(paired_folders, gt_size=24, **more))
    for sample in training:
        assert sample["lq"].shape == (3, 6, 6) and sample["gt"].shape == (3, 24, 24)
        # the patch is cut at the same place: the small one is where the large one is
        whole = torch.from_numpy(training.gt.read(sample["key"])).permute(2, 0, 1) / 255
        assert sample["gt"].mean() == pytest.approx(float(whole.mean()), abs=0.35)


def test_patches_of_a_pair_are_cut_and_turned_alike(paired_folders):
    for name in paired_folders.names:
        rewrite(paired_folders.lq / name, lambda image: np.arange(64 * 64 * 3, dtype=np.uint16).reshape(64, 64, 3))
        rewrite(paired_folders.gt / name, lambda image: np.kron(
            np.arange(64 * 64 * 3, dtype=np.uint16).reshape(64, 64, 3), np.ones((2, 2, 1), np.uint16)))  # fmt: skip
    for sample in PromptPairedImageDataset(options(paired_folders, scale=2, gt_size=32)):
        assert torch.equal(sample["gt"], sample["lq"].repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_prompts_are_drawn_in_training_and_the_first_one_in_validation(paired_folders, tmp_path):
    entries = [
        PromptEntry(name[:-4], (f"first {name}", "second", "third"), remove=("noise",), present=("noise", "jpeg"))
        for name in paired_folders.names
    ]
    write_prompt_file(tmp_path / "p.jsonl", entries)
    prompts = str(tmp_path / "p.jsonl")
    training = PromptPairedImageDataset(options(paired_folders, prompts=prompts))
    assert {training[0]["prompt"] for _ in range(40)} == {"first astronaut.png", "second", "third"}
    sample = PromptPairedImageDataset(options(paired_folders, "val", prompts=prompts))[1]
    assert sample["prompt"] == "first chelsea.png" and sample["key"] == "chelsea"
    assert sample["lq_path"] == str(paired_folders.lq / "chelsea.png")
    assert [kind for kind, hot in zip(KINDS, sample["remove"]) if hot] == ["noise"]
    assert [kind for kind, hot in zip(KINDS, sample["present"]) if hot] == ["noise", "jpeg"]


def test_prompts_in_the_lmdb_and_one_lmdb_for_both_roots(paired_folders):
    roots = as_lmdb(paired_folders)
    write_lmdb_prompts(roots["dataroot_lq"], [PromptEntry(name[:-4], (name,)) for name in paired_folders.names])
    opt = options(paired_folders, "val", prompts="lmdb", **roots)
    opt["dataroot_gt"] = opt["dataroot_lq"]
    first, second = PromptPairedImageDataset(opt), PromptPairedImageDataset(opt)  # one environment for all
    assert first[0]["prompt"] == "astronaut.png" and torch.equal(first[0]["gt"], first[0]["lq"])
    assert torch.equal(second[3]["lq"], pickle.loads(pickle.dumps(first))[3]["lq"])
    assert PairedImageDataset(copy.deepcopy(opt))[0]["lq"].shape == (3, 64, 64)


def test_meta_info_file_selects_and_orders(paired_folders, tmp_path):
    (tmp_path / "meta.txt").write_text("rocket.png (64,64,3)\nchelsea.png (64,64,3)\n")
    dataset = PromptPairedImageDataset(options(paired_folders, meta_info_file=str(tmp_path / "meta.txt")))
    assert dataset.keys == ("rocket", "chelsea")
    roots = as_lmdb(paired_folders)
    opt = options(paired_folders, meta_info_file=str(tmp_path / "meta.txt"), **roots)
    assert PromptPairedImageDataset(opt).keys == ("rocket", "chelsea")


def test_sub_folders_dots_and_other_extensions(paired_folders):
    (paired_folders.gt / "a").mkdir()
    (paired_folders.lq / "a").mkdir()
    shutil.copy(paired_folders.gt / "coffee.png", paired_folders.gt / "a" / "0001.v2.png")
    cv2.imwrite(str(paired_folders.lq / "a" / "0001.v2.bmp"), cv2.imread(str(paired_folders.lq / "coffee.png")))
    dataset = PromptPairedImageDataset(options(paired_folders, "val"))
    assert dataset.keys == ("a/0001.v2", "astronaut", "chelsea", "coffee", "rocket")
    assert torch.equal(dataset[0]["lq"], dataset[3]["lq"])


def test_sixteen_bit_gray_and_alpha(paired_folders):
    rewrite(paired_folders.gt / "astronaut.png", lambda image: image.astype(np.uint16) * 256 + 7)
    rewrite(paired_folders.gt / "chelsea.png", lambda image: image[..., 0])
    rewrite(paired_folders.gt / "coffee.png", lambda image: np.dstack([image, image[..., :1]]))
    dataset = PromptPairedImageDataset(options(paired_folders, "val"))
    bits, gray, alpha = (dataset[index]["gt"] for index in range(3))
    assert torch.equal((bits * 65535).round() % 256, torch.full_like(bits, 7))
    assert torch.equal(gray[0], gray[2]) and alpha.shape == (3, 64, 64)


def test_through_basicsr_loader_with_workers(paired_folders):
    roots = as_lmdb(paired_folders)
    more = {"prompts": {"task": "denoise"}, "use_shuffle": True, "num_worker_per_gpu": 2, "batch_size_per_gpu": 2,
            "dataset_enlarge_ratio": 1, "prefetch_mode": None, "pin_memory": False}  # fmt: skip
    opt = options(paired_folders, **roots, **more)
    dataset = build_dataset(opt)
    assert isinstance(dataset, PromptPairedImageDataset) and dataset[0]["prompt"]  # read before the workers start
    batches = list(build_dataloader(dataset, opt, num_gpu=0, seed=3))
    assert [batch["lq"].shape for batch in batches] == [(2, 3, 32, 32)] * 2
    assert sorted(key for batch in batches for key in batch["key"]) == list(dataset.keys)
    assert batches[0]["remove"].shape == (2, len(KINDS)) and isinstance(batches[0]["prompt"][0], str)
    spawned = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert next(iter(spawned))["gt"].shape == (4, 3, 32, 32)


def break_image(folders, tmp_path):
    path = folders.lq / "coffee.png"
    path.write_bytes(path.read_bytes()[:-500])


def test_a_damaged_image_is_one_plain_line_even_from_a_worker(paired_folders, tmp_path):
    break_image(paired_folders, tmp_path)
    dataset = PromptPairedImageDataset(options(paired_folders, "val"))
    with pytest.raises(UserError) as caught:
        list(torch.utils.data.DataLoader(dataset, num_workers=1))
    line = plain_line(caught.value)
    assert line.startswith("image 'coffee' (") and str(paired_folders.lq / "coffee.png") in line
    assert "damaged" in line and "Traceback" not in line


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (lambda f, t: (f.lq / "rocket.png").unlink(), {}, r"no lq image for 'rocket' \(.*gt/rocket\.png\)"),
        (lambda f, t: (f.lq / "rocket.png").rename(f.lq / "roket.png"), {}, "did you mean 'roket'"),
        (lambda f, t: (f.gt / "rocket.png").unlink(), {}, r"no gt image for 'rocket' \(.*lq/rocket\.png\) in .*gt"),
        (lambda f, t: None, {"filename_tmpl": "{}x4"}, r"there is no 'astronautx4' in .*lq"),
        (lambda f, t: None, {"filename_tmpl": "x4"}, r"filename_tmpl must have \{\} once"),
        (lambda f, t: None, {"dataroot_lq": "/nowhere"}, "dataroot_lq: no such folder: /nowhere"),
        (lambda f, t: None, {"dataroot_gt": None}, "the key 'dataroot_gt' is missing"),
        (lambda f, t: None, {"gt_size": None}, "the key 'gt_size' is missing"),
        (lambda f, t: None, {"gt_size": "64"}, "gt_size must be a whole number, not '64'"),
        (lambda f, t: None, {"gt_size": 30, "scale": 4}, "gt_size 30 is not a multiple of scale 4"),
        (lambda f, t: None, {"use_flip": True}, r"unknown key 'use_flip' in dataset Tiny; did you mean 'use_hflip'"),
        (lambda f, t: None, {"use_rot": "yes"}, "use_rot must be true or false"),
        (lambda f, t: None, {"mean": [0.5] * 3}, "give both mean and std"),
        (lambda f, t: None, {"color": "gray"}, "color must be y or rgb"),
        (lambda f, t: write_prompt_file(t / "p.jsonl", [PromptEntry("rocke", ("p",))]), {"prompts": "p.jsonl"},
         r"no prompt for image 'astronaut' in p\.jsonl \(image .*gt/astronaut\.png\)"),
    ],
)  # fmt: skip
def test_mistakes_found_at_construction(paired_folders, tmp_path, monkeypatch, change, more, message):
    monkeypatch.chdir(tmp_path)
    change(paired_folders, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        PromptPairedImageDataset(options(paired_folders, **more))
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_fit(paired_folders):
    with pytest.raises(UserError, match=r"image 'astronaut' is 64x64 .*smaller than gt_size 128.*gt/astronaut\.png"):
        PromptPairedImageDataset(options(paired_folders, gt_size=128))[0]
    with pytest.raises(UserError, match=r"image 'astronaut': gt is 64x64 and lq 64x64 .*scale 2 \(.*astronaut\.png"):
        PromptPairedImageDataset(options(paired_folders, "val", scale=2))[0]
    rewrite(paired_folders.gt / "astronaut.png", lambda image: image[:, :63])
    with pytest.raises(UserError, match="gt is 63x64 and lq 64x64"):
        PromptPairedImageDataset(options(paired_folders, "val"))[0]


@pytest.mark.parametrize("backend", ["disk", "lmdb"])
def test_a_second_view_is_stacked(paired_folders, tmp_path, backend):
    """As the left and the right view of a dual-pixel sensor: six channels, cropped and turned together."""
    right = tmp_path / "right"
    shutil.copytree(paired_folders.lq, right)
    for name in paired_folders.names:
        rewrite(right / name, lambda image: 255 - image)
    roots = {}
    if backend == "lmdb":
        names = paired_folders.names
        make_lmdb_from_imgs(str(right), f"{right}.lmdb", names, [name[:-4] for name in names], map_size=1 << 26)
        roots = as_lmdb(paired_folders)
    view = f"{right}.lmdb" if backend == "lmdb" else str(right)
    stacked = PromptPairedImageDataset(options(paired_folders, **roots, dataroot_lq_2=view))
    single = PromptPairedImageDataset(options(paired_folders, **roots))
    for index in range(len(single)):
        random.seed(index)
        both = stacked[index]
        random.seed(index)
        alone = single[index]
        assert both["lq"].shape == (6, 32, 32)
        assert torch.equal(both["gt"], alone["gt"]) and torch.equal(both["lq"][:3], alone["lq"])
        assert torch.allclose(both["lq"][3:], 1 - alone["lq"], atol=1e-6)


def test_views_that_do_not_fit_are_told(paired_folders, tmp_path):
    right = tmp_path / "right"
    shutil.copytree(paired_folders.lq, right)
    name = paired_folders.names[0]
    rewrite(right / name, lambda image: image[:60])
    stacked = PromptPairedImageDataset(options(paired_folders, phase="val", dataroot_lq_2=str(right)))
    with pytest.raises(UserError, match=r"'astronaut': the degraded images differ.*64x64 in .*64x60 in .*right"):
        stacked[0]
    with pytest.raises(UserError, match="for dataroot_lq alone"):
        PromptPairedImageDataset(options(paired_folders, dataroot_lq_2=str(right), mean=[0.5] * 3, std=[0.5] * 3))
    (right / name).unlink()
    with pytest.raises(UserError, match=r"no lq image for 'astronaut'.* in .*right"):
        PromptPairedImageDataset(options(paired_folders, dataroot_lq_2=str(right)))


def test_the_middle_in_multiples(paired_folders):
    """The crop of the all-in-one benchmarks: `crop_img(image, base=16)` takes off half of the rest at each side."""
    for folder in paired_folders:
        for name in paired_folders.names:
            rewrite(folder / name, lambda image: image[:59, :50])
    whole = PromptPairedImageDataset(options(paired_folders, phase="val"))[1]
    part = PromptPairedImageDataset(options(paired_folders, phase="val", centre_multiple=16))[1]
    for role in ("lq", "gt"):  # 59 = 48 + 11, 50 = 48 + 2
        assert torch.equal(part[role], whole[role][:, 5:53, 1:49])
    patch = PromptPairedImageDataset(options(paired_folders, centre_multiple=16))[1]
    assert patch["lq"].shape == (3, 32, 32)  # training takes its patches from all of it
    with pytest.raises(UserError, match="is 50x59, smaller than centre_multiple 64"):
        PromptPairedImageDataset(options(paired_folders, phase="val", centre_multiple=64))[1]
