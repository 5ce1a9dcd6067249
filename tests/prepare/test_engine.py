"""What is the same for all datasets: interruptions, changed sources, cutting, names that collide, LMDBs, mistakes."""

from __future__ import annotations

import ast
import os
import re
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from trees import TREES, build, degraded, images, write, write_blocks

from prompt_mamba_arch.data import ImageSource
from prompt_mamba_arch.data.prompt_file import read_prompt_file
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prepare import Crop, Dataset, Layout, Subset, dataset, dataset_names, demo, engine, prepare
from prompt_mamba_arch.prepare.images import Shape, grid, shape_of
from prompt_mamba_arch.prepare.lmdb_writer import Entry, write_lmdb
from prompt_mamba_arch.prepare.spec import Pattern
from prompt_mamba_arch.prepare.tree import Tree
from prompt_mamba_cli import main

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts/data_preparation"


@pytest.fixture
def gopro(tmp_path, photos) -> tuple[Path, Path]:
    """Source and output of a miniature GoPro."""
    build(TREES["gopro"], tmp_path / "source", photos)
    return tmp_path / "source", tmp_path / "out"


def run(source: Path, out: Path, name: str = "gopro", **more):
    done = prepare(dataset(name), source, out, partial=True, **more)
    return {one.name: one for one in done}


def times(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in root.rglob("*")}


# -- patterns


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        (
            "train/{scene}/sharp/{name}",
            "GOPRO_Large/train/GOPR0372_07_00/sharp/000047.png",
            ("GOPR0372_07_00", "000047"),
        ),
        ("train/{scene}/sharp/{name}", "TRAIN/a/Sharp/1.PNG", ("a", "1")),
        ("X2/{name}x2", "DIV2K_train_LR_bicubic/X2/0001x2.png", ("0001",)),
        ("{scene:[^_/]+}_{haze}", "0025_0.8_0.1.jpg", ("0025", "0.8_0.1")),
        ("haze/{:part[0-9]+/|}{name}", "OTS/haze/part3/1.jpg", ("1",)),
        ("haze/{:part[0-9]+/|}{name}", "OTS/haze/1.jpg", ("1",)),
        ("{:gt|target}/{name:**}", "mine/target/a/b/1.tif", ("a/b/1",)),
    ],
)
def test_pattern_reads_a_path(pattern, path, values):
    assert Pattern(pattern).values(path) == values


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("train/{scene}/sharp/{name}", "train/a/b/sharp/1.png"),
        ("X2/{name}x2", "X2/0001x3.png"),
        ("{n:[0-9]+}", "a1.png"),
    ],
)
def test_pattern_refuses_what_does_not_fit(pattern, path):
    assert Pattern(pattern).values(path) is None


def test_a_layout_whose_roles_cannot_be_paired_is_a_mistake_of_the_description():
    with pytest.raises(ValueError, match="does not have all of its fields"):
        Layout("wrong", gt="gt/{scene}/{name}", lq="lq/{other}/{name}")


# -- layouts of others


def other_layouts(photos, root: Path) -> dict[str, tuple[str, str, dict[str, int]]]:
    """Writes trees as other projects arrange them; folder -> dataset, layout, pairs of each subset."""
    source = images(photos)

    def pairs(gt: str, lq: str, names) -> None:
        for name in names:
            clean = next(source)
            write(root / gt.format(name), clean)
            write(root / lq.format(name), degraded(clean, 1, 1))

    for part, folder in (("train", "train/GoPro"), ("test", "test/GoPro")):
        pairs(f"restormer/{folder}/target/{{}}.png", f"restormer/{folder}/input/{{}}.png", (f"{part}1", f"{part}2"))
    pairs("promptir/data/Train/Deblur/sharp/{}.png", "promptir/data/Train/Deblur/blur/{}.png", ("a", "b"))
    pairs("promptir/data/test/deblur/gopro/target/{}.png", "promptir/data/test/deblur/gopro/input/{}.png", ("c",))
    pairs("daclip/universal/train/motion-blurry/GT/{}.png", "daclip/universal/train/motion-blurry/LQ/{}.png", "ab")
    pairs("rain/data/Train/Derain/gt/norain-{}.png", "rain/data/Train/Derain/rainy/rain-{}.png", (1, 2, 10))
    pairs("rain/data/test/derain/Rain100L/target/{}.png", "rain/data/test/derain/Rain100L/input/{}.png", (1, 2))
    for name, hazy in (("0025", "part1/0025_0.8_0.04"), ("0025", "part1/0025_0.8_0.06"), ("3068", "part2/3068_1_0.2")):
        clean = next(source)
        write(root / f"haze/Train/Dehaze/original/{name}.png", clean)
        write(root / f"haze/Train/Dehaze/synthetic/{hazy}.jpg", clean)
    pairs("enhance/Train/Enhance/gt/{}.png", "enhance/Train/Enhance/low/{}.png", (2, 5))
    for name in ("00001.bmp", "5096.jpg"):
        write(root / f"clean/data/Train/Denoise/{name}", next(source))
    pairs("dpdd/test/DPDD/target/{}.png", "dpdd/test/DPDD/inputC/{}.png", ("1P0A1", "1P0A2"))
    return {
        "restormer": ("gopro", "MPRNet, Restormer", {"train": 2, "test": 2}),
        "promptir": ("gopro", "PromptIR, AdaIR", {"train": 2, "test": 1}),
        "daclip": ("gopro", "DA-CLIP", {"train": 2}),
        "rain": ("rain100", "PromptIR", {"L/train": 3, "L/test": 2}),
        "haze": ("reside", "PromptIR, AdaIR", {"ots": 3}),
        "enhance": ("lol", "AdaIR", {"v1/train": 2}),
        "clean": ("bsd400-wed", "PromptIR, AdaIR", {"train": 2}),
        "dpdd": ("dpdd", "Restormer", {"test": 2}),
    }


def test_what_others_have_prepared_is_recognised_as_it_lies(tmp_path, photos):
    for folder, (name, layout, counts) in other_layouts(photos, tmp_path).items():
        done = run(tmp_path / folder, tmp_path / "out" / folder, name)
        assert {key: one.images for key, one in done.items() if one.layout} == counts, folder
        assert all(layout in one.layout for one in done.values() if one.layout), folder


def test_nafnets_lmdbs_are_recognised_and_not_cut_again(gopro, tmp_path, photos):
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    source = images(photos)
    pixels = {}
    for part, gt, lq in (("train", "sharp_crops", "blur_crops"), ("test", "target", "input")):
        (tmp_path / "naf" / part).mkdir(parents=True)
        for folder in (gt, lq):
            for name in ("0001_s001", "0001_s002"):
                pixels[part, folder, name] = next(source)
                write(tmp_path / part / folder / f"{name}.png", pixels[part, folder, name])
            names = ["0001_s001.png", "0001_s002.png"]
            make_lmdb_from_imgs(
                str(tmp_path / part / folder),
                str(tmp_path / f"naf/{part}/{folder}.lmdb"),
                names,
                [n[:-4] for n in names],
            )
    done = run(tmp_path / "naf", tmp_path / "out", lmdb=True)
    assert {one.layout for one in done.values()} == {"NAFNet's LMDBs"}
    read = ImageSource(tmp_path / "out/train/lq.lmdb", {"type": "lmdb"})
    assert list(read.keys) == ["0001_s001", "0001_s002"]
    for key in read.keys:
        assert np.array_equal(read.read(key), pixels["train", "blur_crops", key])


def test_the_innermost_folder_may_be_the_source(tmp_path, photos):
    """--source .../GOPRO_Large/train, and not its parent."""
    build(TREES["gopro"], tmp_path / "s", photos)
    done = run(tmp_path / "s/GOPRO_Large/train", tmp_path / "out")
    assert done["train"].images == 4 and not done["test"].layout


# -- names


def test_equal_names_in_different_folders_are_kept_apart(tmp_path, photos):
    source = images(photos)
    for folder, name in (("a", "1"), ("b", "1"), ("a b", "1"), ("a_b", "1"), ("a.b", "1"), ("B", "1")):
        clean = next(source)
        write(tmp_path / f"s/gt/{folder}/{name}.png", clean)
        write(tmp_path / f"s/lq/{folder}/{name}.png", degraded(clean, 1, 1))
    done = run(tmp_path / "s", tmp_path / "out", "pairs", task="denoise", lmdb=True)
    keys = ImageSource(tmp_path / "out/train/gt").keys
    assert done["train"].images == len({key.casefold() for key in keys}) == 6
    assert "a-1" in keys and "b-1" not in keys  # B-1 is the same to some file systems
    for key in keys:
        assert "." not in key and " " not in key and key.isascii()
    sums = {ImageSource(tmp_path / "out/train/gt").read(key).tobytes() for key in keys}
    assert len(sums) == 6


# -- again, after an interruption, after a change


def test_interrupted_it_goes_on(gopro, monkeypatch):
    source, out = gopro
    place, placed = engine._Job._place, []

    def fail_at_third(job, record, read, again):
        if len(placed) == 2:
            raise KeyboardInterrupt
        placed.append(record.key)
        place(job, record, read, again)

    monkeypatch.setattr(engine._Job, "_place", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(source, out, lmdb=True)
    half = times(out)
    assert len(list((out / "train/gt").iterdir())) == 2
    monkeypatch.setattr(engine._Job, "_place", place)
    done = run(source, out, lmdb=True)
    assert done["train"].images == 4 and not done["train"].problems
    kept = {path: time for path, time in half.items() if path.endswith(".png")}
    assert kept and all(times(out)[path] == time for path, time in kept.items())
    before = times(out)
    assert all(one.written == 0 for one in run(source, out, lmdb=True).values())
    assert times(out) == before


def test_a_cut_off_line_of_the_state_is_written_again(gopro):
    source, out = gopro
    run(source, out)
    state = out / ".prepare/train.jsonl"
    whole = state.read_bytes()
    state.write_bytes(whole[:-20])
    assert run(source, out)["train"].images == 4
    assert state.read_bytes() == whole


def test_changed_repaired_and_removed_files_are_noticed(gopro, photos):
    source, out = gopro
    folder = source / "GOPRO_Large/train/GOPR0372_07_00"
    good = (folder / "blur/000047.png").read_bytes()
    (folder / "blur/000047.png").write_bytes(good[:-1])
    (problem,) = run(source, out, lmdb=True)["train"].problems
    assert "blur/000047.png: the PNG ends too early" in problem
    assert len(ImageSource(out / "train/lq.lmdb", {"type": "lmdb"})) == 3
    (folder / "blur/000047.png").write_bytes(good)
    done = run(source, out, lmdb=True)["train"]
    assert not done.problems and done.images == 4 and not (out / "problems.txt").exists()
    assert len(ImageSource(out / "train/lq.lmdb", {"type": "lmdb"})) == 4
    for role in ("blur", "sharp", "blur_gamma"):
        (folder / role / "000048.png").unlink()
    assert run(source, out, lmdb=True)["train"].images == 3
    for role in ("gt", "lq", "lq_gamma"):
        assert len(ImageSource(out / "train" / role)) == 3
        assert len(ImageSource(out / f"train/{role}.lmdb", {"type": "lmdb"})) == 3
    assert len(read_prompt_file(out / "train/prompts.jsonl")) == 3


def test_what_breaks_later_is_taken_out_again(gopro, photos):
    source, out = gopro
    for crop in (None, Crop(32, 32)):
        folder = out / ("whole" if crop is None else "cut")
        before = run(source, folder, crop=crop)["train"]
        assert not before.problems
        file = source / "GOPRO_Large/train/GOPR0372_07_00/blur/000047.png"
        good = file.read_bytes()
        file.write_bytes(good[:-1])
        for _ in range(2):
            done = run(source, folder, crop=crop)["train"]
            assert len(done.problems) == 1 and "blur/000047.png: the PNG ends too early" in done.problems[0]
            for role in ("gt", "lq", "lq_gamma"):
                assert not list((folder / "train" / role).glob("GOPR0372_07_00-000047*"))
                assert len(list((folder / "train" / role).iterdir())) == done.pieces < before.pieces
        file.write_bytes(good)
        after = run(source, folder, crop=crop)["train"]
        assert not after.problems and after.pieces == before.pieces


def test_a_file_that_could_not_be_read_is_tried_again(gopro, monkeypatch):
    """Once it may be read, it is the same file of the same time."""
    source, out = gopro
    read = Tree.read

    def refused(tree, path):
        if path.endswith("blur/000047.png"):
            raise PermissionError(13, "Permission denied")
        return read(tree, path)

    monkeypatch.setattr(Tree, "read", refused)
    assert run(source, out)["train"].problems
    monkeypatch.setattr(Tree, "read", read)
    done = run(source, out)["train"]
    assert not done.problems and done.images == 4 and run(source, out)["train"].written == 0


def test_problems_of_a_subset_stay_noted_while_another_is_prepared(gopro):
    source, out = gopro
    for part in ("train", "test"):
        next((source / f"GOPRO_Large/{part}").rglob("sharp/*.png")).write_bytes(b"")
    run(source, out, only=["train"])
    run(source, out, only=["test"])
    told = (out / "problems.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in told] == ["train", "test"]


def test_a_source_that_has_moved_is_linked_anew(gopro, photos):
    source, out = gopro
    done = run(source, out, crop=None)
    assert done["train"].images == 4
    source.rename(source.with_name("elsewhere"))
    assert not next((out / "train/gt").iterdir()).exists()
    assert run(source.with_name("elsewhere"), out, crop=None)["train"].images == 4
    assert all(path.exists() for path in (out / "train/gt").iterdir())


def test_files_of_others_are_left_and_told(gopro):
    source, out = gopro
    run(source, out)
    (out / "train/gt/mine.png").write_bytes(b"mine")
    (problem,) = run(source, out)["train"].problems
    assert "1 files that are not from this source, mine.png" in problem
    assert (out / "train/gt/mine.png").read_bytes() == b"mine"


def test_other_settings_are_refused(gopro):
    source, out = gopro
    run(source, out)
    with pytest.raises(UserError, match=r"was prepared with other settings.*another --out"):
        run(source, out, crop=Crop(16, 8))


def test_copies_do_not_need_the_source(gopro):
    source, out = gopro
    run(source, out, copy=True, crop=None)
    shutil.rmtree(source)
    assert ImageSource(out / "train/lq").read("GOPR0372_07_00-000047").shape == (48, 48, 3)


# -- cutting


def test_sub_images_are_basicsrs(tmp_path, photos):
    """Positions and names of BasicSR's extract_subimages.py, sides that leave a rest included."""
    photo = np.tile(photos["astronaut"], (1, 2, 1))[:150, :205]
    write(tmp_path / "s/train/GOPR1/sharp/1.png", photo)
    write(tmp_path / "s/train/GOPR1/blur/1.png", degraded(photo, 1, 3))
    done = run(tmp_path / "s", tmp_path / "out", crop=Crop(64, 32), workers=3)["train"]

    def spaces(side: int) -> list[int]:
        starts = list(np.arange(0, side - 64 + 1, 32))
        return starts if side - (starts[-1] + 64) <= 0 else [*starts, side - 64]

    places = [(top, left) for top in spaces(150) for left in spaces(205)]
    assert done.pieces == len(places)
    source = ImageSource(tmp_path / "out/train/gt")
    assert list(source.keys) == [f"GOPR1-1_s{number:03d}" for number in range(1, len(places) + 1)]
    for key, (top, left) in zip(source.keys, places):
        assert np.array_equal(source.read(key), photo[top : top + 64, left : left + 64])
    prompts = read_prompt_file(tmp_path / "out/train/prompts.jsonl")
    assert list(prompts) == list(source.keys)
    assert len({entry.prompts for entry in prompts.values()}) == 1  # those of one image share them


def test_sub_images_of_all_scales_show_the_same():
    scales = {"lq_x2": 2, "lq_x3": 3, "lq_x4": 4}
    pieces = grid(Shape(1356, 2040, 3), Crop(480, 240), scales)
    assert len(pieces) == 5 * 8 and pieces[-1][1:] == (1356 - 480, 2040 - 480, 480, 480)
    assert all(number % 12 == 0 for piece in pieces for number in piece[1:])
    small = grid(Shape(50, 100, 3), Crop(480, 240), scales)
    assert [piece[1:] for piece in small] == [(0, 0, 48, 96)]


def test_low_resolution_is_cut_alike(tmp_path, photos):
    clean = photos["coffee"][:96, :144]
    write(tmp_path / "s/DIV2K_train_HR/0001.png", clean)
    write(tmp_path / "s/DIV2K_train_LR_bicubic/X4/0001x4.png", clean[::4, ::4])
    run(tmp_path / "s", tmp_path / "out", "div2k", crop=Crop(48, 24))
    gt, lq = ImageSource(tmp_path / "out/train/gt"), ImageSource(tmp_path / "out/train/lq_x4")
    assert gt.keys == lq.keys and len(gt) == 15
    assert all(np.array_equal(gt.read(key)[::4, ::4], lq.read(key)) for key in gt.keys)


def test_the_middle_of_a_larger_clean_image_is_taken(tmp_path, photos):
    clean = photos["chelsea"][:60, :70]
    write(tmp_path / "SOTS/indoor/gt/1400.png", clean)
    write(tmp_path / "SOTS/indoor/hazy/1400_1.png", clean[10:50, 10:60])
    done = run(tmp_path / "SOTS", tmp_path / "out", "reside")["sots/indoor"]
    assert not done.problems
    assert np.array_equal(ImageSource(tmp_path / "out/sots/indoor/gt").read("1400_1"), clean[10:50, 10:60])


# -- checks


def test_sizes_that_do_not_fit_are_told(gopro, photos):
    source, out = gopro
    write(source / "GOPRO_Large/train/GOPR0372_07_00/blur/000047.png", photos["rocket"][:40, :48])
    done = run(source, out)["train"]
    assert done.images == 3 and "is 48x48 and" in done.problems[0] and "48x40 (width x height)" in done.problems[0]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda d: d[: len(d) // 2], "ends too early"),
        (lambda d: b"", "empty"),
        (lambda d: b"<html>" + d, "not an image"),
        (lambda d: d[:200] + bytes([d[200] ^ 255]) + d[201:], "damaged at byte"),
    ],
)
def test_damage_is_found_without_decoding(photos, damage, what):
    data = cv2.imencode(".png", photos["coffee"])[1].tobytes()
    assert shape_of(data) == (192, 192, 3)
    with pytest.raises(UserError, match=what):
        shape_of(damage(data))


def test_sizes_of_other_formats(photos):
    photo = photos["coffee"][:40, :64]
    for ending in (".jpg", ".bmp", ".webp", ".tif"):
        assert shape_of(cv2.imencode(ending, photo)[1].tobytes()) == (40, 64, 3)
    jpeg = cv2.imencode(".jpg", photo)[1].tobytes()
    turned = (
        jpeg[:2] + b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0" + jpeg[2:]
    )
    assert shape_of(turned) == (64, 40, 3)
    with pytest.raises(UserError, match="JPEG ends too early"):
        shape_of(jpeg[:-300])


def test_a_link_to_nowhere_is_told(gopro):
    source, out = gopro
    file = source / "GOPRO_Large/train/GOPR0372_07_00/blur/000047.png"
    file.unlink()
    file.symlink_to("gone.png")
    for _ in range(2):
        done = run(source, out)["train"]
        assert done.images == 3 and "blur/000047.png cannot be read (No such file" in done.problems[0]


def test_counts_are_compared_with_the_published_ones(gopro):
    source, out = gopro
    done = prepare(dataset("gopro"), source, out)
    assert [one.problems for one in done] == [
        ["4 pairs found, 2103 are published"],
        ["4 pairs found, 1111 are published"],
    ]
    assert "train: 4 pairs found" in (out / "problems.txt").read_text()


def test_a_second_unpacking_beside_the_first_is_left_alone(gopro, photos):
    source, out = gopro
    shutil.copytree(source / "GOPRO_Large", source / "copy/GOPRO_Large")
    done = run(source, out)["train"]
    assert done.images == 4 and any("left alone" in note for note in done.notes)


def test_ordered_pairs_refuse_to_guess(tmp_path, photos):
    build(TREES["dpdd"], tmp_path / "s", photos)
    (tmp_path / "s/dd_dp_dataset_canon/train_c/target/1P0A0917.png").unlink()
    (problem,) = run(tmp_path / "s", tmp_path / "out", "dpdd")["train"].problems
    assert "2 of train_c/target/{name}" in problem and "cannot be told" in problem


def test_a_missing_list_is_told(tmp_path, photos):
    build(TREES["realblur"], tmp_path / "s", photos)
    (tmp_path / "s/RealBlur_J_test_list.txt").unlink()
    done = run(tmp_path / "s", tmp_path / "out", "realblur")
    assert done["J/test"].images == 0 and "RealBlur_J_test_list.txt is missing" in done["J/test"].problems[0]
    assert done["J/train"].images == 4 and not done["J/train"].problems


def test_a_broken_list_or_array_is_one_line(tmp_path, photos, capsys):
    build(TREES["lsdir"], tmp_path / "s", photos)
    (tmp_path / "s/LSDIR/train_X4.json").write_text('[{"path": 1}]')
    assert main(["prepare", "lsdir", "--source", str(tmp_path / "s"), "--out", str(tmp_path / "o")]) == 2
    assert "train_X4.json is not as it should be" in capsys.readouterr().err
    (tmp_path / "t").mkdir()
    write_blocks(tmp_path / "t/ValidationGtBlocksSrgb.mat", [np.zeros((8, 8, 3), np.uint8)])
    (tmp_path / "t/ValidationNoisyBlocksSrgb.mat").write_bytes(b"MATLAB 5.0")
    assert main(["prepare", "sidd", "--source", str(tmp_path / "t"), "--out", str(tmp_path / "o")]) == 2
    assert "cannot read" in capsys.readouterr().err


# -- LMDBs


def test_basicsr_reads_the_folder_and_the_lmdb(gopro):
    from basicsr.data.paired_image_dataset import PairedImageDataset

    source, out = gopro
    run(source, out, lmdb=True, crop=None)
    base = {"name": "x", "phase": "val", "scale": 1}
    meta = {"meta_info_file": str(out / "train/meta_info.txt"), "filename_tmpl": "{}"}
    folders = {
        "dataroot_gt": str(out / "train/gt"),
        "dataroot_lq": str(out / "train/lq"),
        "io_backend": {"type": "disk"},
    }
    disk = PairedImageDataset({**base, **folders, **meta})
    lmdbs = {key: f"{value}.lmdb" for key, value in folders.items() if key != "io_backend"}
    lmdb = PairedImageDataset({**base, **lmdbs, "io_backend": {"type": "lmdb"}})
    assert len(disk) == len(lmdb) == 4
    for index in range(4):
        a, b = disk[index], lmdb[index]
        assert (a["gt"] == b["gt"]).all() and (a["lq"] == b["lq"]).all()
        assert Path(a["gt_path"]).stem == b["gt_path"]


def test_a_lmdb_that_was_begun_is_continued(tmp_path, photos, monkeypatch):
    from prompt_mamba_arch.prepare import lmdb_writer

    entries = []
    for number, image in zip(range(6), images(photos)):
        write(tmp_path / f"{number}.png", image)
        entries.append(Entry(f"k{number}", tmp_path / f"{number}.png", Shape(48, 48, 3), (number,)))
    read, kept = [], lmdb_writer._stored

    def stored(entry):
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(entry.key)
        return kept(entry)

    monkeypatch.setattr(lmdb_writer, "_stored", stored)
    with pytest.raises(KeyboardInterrupt):
        write_lmdb(tmp_path / "a.lmdb", entries, {"k1": "{}"}, workers=1)
    assert not (tmp_path / "a.lmdb").exists() and (tmp_path / "a.lmdb.part").is_dir()
    read.clear()
    assert write_lmdb(tmp_path / "a.lmdb", entries, {"k1": "{}"}, workers=1)
    assert read == ["k4", "k5"]  # the others were kept
    source = ImageSource(tmp_path / "a.lmdb", {"type": "lmdb"})
    assert list(source.keys) == [f"k{n}" for n in range(6)]
    assert np.array_equal(source.read("k2"), ImageSource(tmp_path, keys=["2"]).read("2"))
    assert source.read_entry("k1.prompt") == b"{}"
    assert not write_lmdb(tmp_path / "a.lmdb", entries, {"k1": "{}"}, workers=1)


# -- the command


def test_what_is_not_there_is_one_line(tmp_path, gopro, capsys):
    source, out = gopro
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    cases = [
        (["gopr", "--source", "x", "--out", "y"], "no dataset 'gopr'; did you mean 'gopro'?"),
        (["gopro"], "needs --source DIR and --out DIR"),
        (["gopro", "--source", str(tmp_path / "none"), "--out", str(out)], "no such folder"),
        (["gopro", "--source", str(tmp_path / "empty"), "--out", str(out)], "nothing of GoPro is below"),
        (["gopro", "--source", str(source), "--out", str(source)], "the same folder"),
        (["gopro", "--source", str(source), "--out", str(tmp_path / "file")], "is a file"),
        (["gopro", "--source", str(source), "--out", str(out), "--only", "tran"], "did you mean 'train'?"),
        (["pairs", "--source", str(source), "--out", str(out), "--task", "denois"], "did you mean 'denoise'?"),
        (["demo", "--source", str(source), "--out", str(out)], "has its own photographs"),
        (["demo"], "needs --out DIR"),
        (["gopro", "--source", str(source), "--out", str(out), "--photo-only"], "is for prepare demo"),
    ]
    for argv, line in cases:
        assert main(["prepare", *argv]) == 2, argv
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1, (argv, said)
    with pytest.raises(SystemExit):
        main(["prepare", "gopro", "--crop", "0"])
    assert "480:240" in capsys.readouterr().err


def test_out_may_lie_in_the_source(gopro):
    source, _ = gopro
    for _ in range(2):  # the second time, what is prepared must not be taken for the source
        assert run(source, source / "prepared", crop=None)["train"].images == 4


def test_only_a_subset_without_prompts(gopro, capsys):
    source, out = gopro
    argv = [
        "prepare",
        "gopro",
        "--source",
        str(source),
        "--out",
        str(out),
        "--only",
        "test",
        "--prompts",
        "0",
        "--partial",
    ]
    assert main(argv) == 0
    assert "test: 4 pairs in gt, lq, lq_gamma (as it unpacks)" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [".prepare", "test"]
    assert not (out / "test/prompts.jsonl").exists()
    assert main(argv) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_prompts_from_a_language_model(gopro, capsys, monkeypatch):
    """The writer is the one of `prompt-mamba prompts`; here its server answers with sentences for the task."""
    import http.server
    import json

    lock, asked = threading.Lock(), []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                asked.append(1)
                number = len(asked)
            texts = [f"take the motion blur out of picture number {number} {word}" for word in ("a", "b", "c", "d")]
            body = json.dumps(
                {"choices": [{"message": {"content": json.dumps(texts)}, "finish_reason": "stop"}]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source, out = gopro
    argv = ["prepare", "gopro", "--source", str(source), "--out", str(out), "--only", "test", "--partial"]
    url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        assert main([*argv, "--writer", "llm", "--url", url, "--model", "m"]) == 0, capsys.readouterr().err
        assert asked
        entries = read_prompt_file(out / "test/prompts.jsonl")
        assert any("picture number" in prompt for entry in entries.values() for prompt in entry.prompts)
        asked.clear()
        assert main([*argv, "--writer", "llm", "--url", url, "--model", "m"]) == 0
        assert not asked  # they are there
    finally:
        server.shutdown()


def test_list_and_about(capsys):
    assert main(["prepare", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in [*dataset_names(), "demo"])
    assert main(["prepare", "DPDD", "--about"]) == 0
    assert "dual-pixel" in capsys.readouterr().out


@pytest.mark.parametrize("name", dataset_names())
def test_each_script_says_where_the_data_comes_from(name):
    file = SCRIPTS / f"{name.replace('-', '_')}.py"
    tree = ast.parse(file.read_text())
    about = dataset(name).about.strip()
    assert ast.get_docstring(tree, clean=False).startswith(about)
    for word in ("ink", "ize", "icence", "itation", "Prepared:"):
        assert word in about
    assert f'"{name}"' in file.read_text()


def test_the_page_names_every_dataset_and_only_option_files_that_exist():
    page = (SCRIPTS / "README.md").read_text()
    options = SCRIPTS.parents[1] / "options"
    for name in dataset_names():
        assert f"prompt-mamba prepare {name} --" in page, name
    trained = set(re.findall(r"OPT/(train_\w+\.yml)", page))
    assert trained == {file.name for file in (options / "train/PromptMamba/datasets").glob("*.yml")}
    tested = set(re.findall(r"\b(\w+\.yml)`", page)) - trained
    assert tested <= {file.name for file in (options / "test/PromptMamba/benchmarks").glob("*.yml")}
    for file in re.findall(r"-opt (options/\S+\.yml)", page):
        assert (options.parent / file).is_file()


# -- the demo


def test_the_demo_is_a_prepared_dataset(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "TRAIN", ("coffee",))  # the others take their time
    monkeypatch.setattr(demo, "TEST", ("chelsea",))
    out = tmp_path / "demo"
    assert main(["prepare", "demo", "--out", str(out), "--lmdb"]) == 0
    before = times(out)
    from prompt_mamba_arch.data.prompt_paired_image_dataset import PromptPairedImageDataset

    opt = {"name": "demo", "phase": "train", "gt_size": 64, "scale": 1}
    folders = {"dataroot_gt": str(out / "train/gt"), "dataroot_lq": str(out / "train/lq")}
    disk = PromptPairedImageDataset({**opt, **folders, "prompts": str(out / "train/prompts.jsonl")})
    lmdbs = {key: f"{value}.lmdb" for key, value in folders.items()}
    lmdb = PromptPairedImageDataset({**opt, **lmdbs, "io_backend": {"type": "lmdb"}, "prompts": "lmdb"})
    assert len(disk) == len(lmdb) == 6 and disk[0]["remove"].sum() >= 1
    key = disk.keys[0]
    assert np.array_equal(disk.lq.read(key), lmdb.lq.read(key))
    assert not np.array_equal(disk.lq.read(key), disk.gt.read(key))
    entries = read_prompt_file(out / "test/prompts.jsonl")
    assert set(entries) == set(ImageSource(out / "test/gt").keys)
    assert main(["prepare", "demo", "--out", str(out), "--lmdb"]) == 0
    assert times(out) == before and "nothing to do" in capsys.readouterr().out


def test_a_description_of_ones_own(tmp_path, photos):
    """The engine takes any description, not only those that ship."""
    write(tmp_path / "s/good/1.png", photos["coffee"][:24, :24])
    write(tmp_path / "s/bad/1.png", photos["coffee"][:24, :24] // 2)
    subset = Subset("all", (Layout("mine", gt="good/{name}", lq="bad/{name}"),), 1, "lowlight", ("lowlight",))
    (done,) = prepare(Dataset("mine", "Mine", (subset,)), tmp_path / "s", tmp_path / "out")
    assert done.images == 1 and not done.problems
    (entry,) = read_prompt_file(tmp_path / "out/all/prompts.jsonl").values()
    assert entry.remove == ("lowlight",) and entry.task == "lowlight"
    assert os.path.islink(tmp_path / "out/all/gt/1.png")
