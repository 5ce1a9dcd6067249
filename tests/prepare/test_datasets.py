"""Every dataset, from a tree as its archive unpacks to two iterations of training with its own option file.

The trees have what real ones have: folders with equal names in them, Thumbs.db, a PNG that was cut off, a missing
partner, extensions in capitals.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from trees import SIDE, TREES, build

from prompt_mamba_arch import train as trainer
from prompt_mamba_arch.compat.options import read_option_file
from prompt_mamba_arch.data import ImageSource
from prompt_mamba_arch.data.degradations.resample import matlab_downscale
from prompt_mamba_arch.data.prompt_file import parse_entry, read_prompt_file
from prompt_mamba_arch.prepare import dataset, dataset_names
from prompt_mamba_cli import main

OPTIONS = Path(__file__).resolve().parents[2] / "options"
# dataset -> the folder that the option files expect, and the option files that train on it
PLACES = {
    "div2k": ("DIV2K", ["DIV2K_SRx4"]), "flickr2k": ("Flickr2K", ["Flickr2K_SRx4"]), "lsdir": ("LSDIR", ["LSDIR_SRx4"]),
    "gopro": ("GoPro", ["GoPro"]), "hide": ("HIDE", ["HIDE"]), "realblur": ("RealBlur", ["RealBlur_J"]),
    "dpdd": ("DPDD", ["DPDD_single", "DPDD_dual_pixel"]), "sidd": ("SIDD", ["SIDD"]),
    "bsd400-wed": ("BSD400-WED", ["BSD400_WED"]), "rain100": ("Rain100", ["Rain100L"]),
    "rain13k": ("Rain13K", ["Rain13K"]), "reside": ("RESIDE", ["RESIDE"]), "lol": ("LOL", ["LOL"]),
    "cdd11": ("CDD-11", ["CDD11"]), "universal": ("universal", ["universal"]), "sr-benchmarks": ("SR", []),
    "photographs": ("photographs", ["photographs_SRx4"]), "pairs": ("mine", ["pairs"]),
}  # fmt: skip
SMALL = {"size": "tiny", "dim": 8, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "mixers": ["conv", "scan"]}


class Made:
    """A tree with its quirks, and what was prepared from it.

    Attributes:
        root: the working directory of the option files; the data is in root/datasets.
        cut_off, lonely: (subset, key) of the pair with a broken file, and of the one without a partner.
    """

    def __init__(self, name: str, root: Path, photos):
        self.name, self.root = name, root
        self.tree = TREES[name]
        self.source, self.out = root / "sources" / name, root / "datasets" / PLACES[name][0]
        self.written = build(self.tree, self.source, photos)
        self._add_quirks()
        self.before = snapshot(self.source)
        self.command = ["prepare", name, "--source", str(self.source), "--out", str(self.out), "--lmdb"]
        self.command += ["--workers", "2", *(("--task", "denoise") if name == "pairs" else ())]

    def _add_quirks(self) -> None:
        folders = {path.parent for path in self.source.rglob("*") if path.is_file()}
        for folder in folders:
            (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
            (folder / "._0001.png").write_bytes(b"not an image")
        subset, pairs = next((n, p) for n, p in self.tree.subsets.items() if n not in ("val", "valid"))
        keys = list(pairs)
        role = next((r for r in pairs[keys[0]] if r != "gt"), "gt")
        broken = self.source / pairs[keys[0]][role]
        broken.write_bytes(broken.read_bytes()[:-30])
        self.cut_off = (subset, keys[0], pairs[keys[0]][role])
        self.lonely = None
        if role != "gt":
            # DPDD's pairs have no names in common, so there it has to be another subset's
            where = "val" if self.name == "dpdd" else subset
            key = list(self.tree.subsets[where])[-1]
            # nothing tells of a degraded image that is gone where the clean one may be another subset's, or has others
            missing = self.tree.subsets[where][key]["gt" if self.name in ("dpdd", "hide", "reside") else role]
            (self.source / missing).unlink()
            self.lonely = (where, key, missing)
        capitals = self.source / pairs[keys[1]]["gt"]
        if ".PNG" not in capitals.name and capitals.exists():
            capitals.rename(capitals.with_suffix(capitals.suffix.upper()))

    def left(self) -> dict[str, list[str]]:
        """Subset -> keys that can be prepared."""
        gone = {one[2] for one in (self.cut_off, self.lonely) if one}
        return {
            name: sorted(key for key, files in pairs.items() if not gone.intersection(files.values()))
            for name, pairs in self.tree.subsets.items()
        }


def snapshot(root: Path) -> dict[str, tuple]:
    """Path -> what must not change."""
    state = {}
    for path in sorted(root.rglob("*")):
        one = path.lstat()
        data = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        state[str(path)] = (one.st_size if path.is_file() else 0, one.st_mtime_ns, one.st_ino, data)
    return state


@pytest.fixture(scope="module")
def made(tmp_path_factory, photos):
    """made(name): the dataset, prepared once."""
    root, done = tmp_path_factory.mktemp("prepare"), {}

    def make(name: str) -> Made:
        if name not in done:
            done[name] = Made(name, root, photos)
            done[name].code = main(done[name].command)
        return done[name]

    return make


def expected(one: Made, subset: str, key: str, role: str) -> np.ndarray:
    """Pixels of the source, (H, W, 3) RGB."""
    files = one.tree.subsets[subset][key]
    if role.startswith("lq_x") and role not in files:  # made by the command
        return matlab_downscale(expected(one, subset, key, "gt"), int(role[4:]))
    path = one.source / files[role]
    if ".mat/" in files[role]:
        return one.written[files[role]]
    path = path if path.exists() else path.with_suffix(path.suffix.upper())
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), cv2.COLOR_BGR2RGB)


def test_every_dataset_has_a_tree_an_option_file_and_a_script():
    assert set(TREES) == set(PLACES) == set(dataset_names())
    shipped = {file.stem.removeprefix("train_") for file in (OPTIONS / "train/PromptMamba/datasets").glob("*.yml")}
    assert shipped == {stem for _, stems in PLACES.values() for stem in stems}


@pytest.mark.parametrize("name", TREES)
def test_prepares_what_is_whole_and_says_what_is_not(name, made):
    one = made(name)
    assert one.code == 1
    told = (one.out / "problems.txt").read_text()
    assert one.cut_off[2] in told and ("ends too early" in told or "not an image" in told)
    if one.lonely and name == "dpdd":
        assert "val: no gt images at all: nothing fits val_c/target/{name}" in told
    elif one.lonely:
        stem = Path(one.lonely[2]).stem
        assert any(stem in line and line.endswith("missing") for line in told.splitlines()), told
    if name not in ("universal", "photographs", "pairs"):
        assert "are published" in told
    assert snapshot(one.source) == one.before
    for subset, keys in one.left().items():
        folder = one.out / subset
        roles = [path.name for path in folder.iterdir() if path.is_dir() and path.suffix != ".lmdb"] if keys else []
        for role in roles:
            disk = ImageSource(folder / role)
            lmdb = ImageSource(folder / f"{role}.lmdb", {"type": "lmdb"})
            crop = dataset(name).subsets[[s.name for s in dataset(name).subsets].index(subset)].crop
            suffix = "_s001" if crop else ""
            assert list(disk.keys) == list(lmdb.keys) == [key + suffix for key in keys]
            for key in keys:
                pixels = expected(one, subset, key, role)
                assert np.array_equal(disk.read(key + suffix), pixels), (subset, key, role)
                assert np.array_equal(lmdb.read(key + suffix), pixels), (subset, key, role)
        if keys:
            check_prompts(one, folder, [key + suffix for key in keys], "lq" if "lq" in roles else sorted(roles)[-1])
            meta = (folder / "meta_info.txt").read_text().splitlines()
            assert len(meta) == len(keys) and all(f"({SIDE},{SIDE},3)" in line for line in meta)


def check_prompts(one: Made, folder: Path, keys: list[str], role: str) -> None:
    entries = read_prompt_file(folder / "prompts.jsonl")
    assert list(entries) == keys
    lmdb = ImageSource(folder / f"{role}.lmdb", {"type": "lmdb"})
    for key, entry in entries.items():
        assert len(set(entry.prompts)) == 4
        assert parse_entry(bytes(lmdb.read_entry(f"{key}.prompt")), key) == entry
    if "snow" in folder.name:
        assert all("snow" in prompt for entry in entries.values() for prompt in entry.prompts)


@pytest.mark.parametrize("name", TREES)
def test_a_second_run_changes_nothing(name, made):
    one = made(name)
    before = snapshot(one.out)
    assert main(one.command) == 1
    assert snapshot(one.out) == before


RUNS = [(name, stem) for name, (_, stems) in PLACES.items() for stem in stems]


@pytest.mark.parametrize("backend", ["disk", "lmdb"])
@pytest.mark.parametrize(("name", "stem"), RUNS, ids=[stem for _, stem in RUNS])
def test_trains_with_its_option_file(name, stem, backend, made, tmp_path, monkeypatch, capsys):
    one = made(name)
    if name in ("div2k", "flickr2k", "lsdir", "photographs"):
        made("sr-benchmarks")
    monkeypatch.chdir(one.root)
    opt = small(read_option_file(OPTIONS / f"train/PromptMamba/datasets/train_{stem}.yml"), backend)
    file = tmp_path / "small.yml"
    text = yaml.safe_dump(plain(opt), sort_keys=False)
    file.write_text(text.replace("DPDD/val/", "DPDD/test/"))  # DPDD/val is the one with the missing partner
    assert trainer.main(["-opt", str(file), "--root", str(tmp_path)]) == 0, capsys.readouterr().err[-300:]
    saved = torch.load(tmp_path / "experiments" / opt["name"] / "models/net_g_latest.pth", weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["params"].values())
    if stem == "DPDD_dual_pixel":
        assert saved["params"]["intro.weight"].shape[1] % 6 == 0


def small(opt: dict, backend: str) -> dict:
    """The option file with small numbers; from LMDBs also with prompts, that is, as phase 2."""
    opt["num_gpu"] = 0
    for section in opt["datasets"].values():
        shrink(section, opt["scale"], backend)
    keep = {key: opt["network_g"][key] for key in ("type", "upscale", "in_chans") if key in opt["network_g"]}
    opt["network_g"] = {**keep, **SMALL}
    opt["train"].update(total_iter=2, phase="pretrain" if backend == "disk" else "finetune")
    opt["val"]["val_freq"] = 2
    opt["logger"].update(print_freq=1, save_checkpoint_freq=2, use_tb_logger=False)
    return opt


def shrink(section: dict, scale: int, backend: str) -> None:
    for nested in section.get("datasets", ()):
        shrink(nested, scale, backend)
    for key, value in {
        "num_worker_per_gpu": 0,
        "batch_size_per_gpu": 2,
        "gt_size": 12 * scale,
        "dataset_enlarge_ratio": 9,
    }.items():
        if key in section:
            section[key] = value
    if backend == "lmdb" and "dataroot_gt" in section:
        section["io_backend"] = {"type": "lmdb"}
        for key in section:
            if key.startswith("dataroot"):
                section[key] += ".lmdb"
        if section["type"] == "PromptPairedImageDataset":
            section["prompts"] = "lmdb"


def plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


BENCHMARKS = sorted((OPTIONS / "test/PromptMamba/benchmarks").glob("*.yml"))
MIXTURES = sorted((OPTIONS / "train/PromptMamba").glob("*allinone*.yml"))


@pytest.mark.parametrize("file", [*BENCHMARKS, *MIXTURES], ids=lambda file: file.stem)
def test_option_files_point_at_the_prepared_layout(file, made, monkeypatch):
    """The data sets of the tests and of the mixture, with the paths as they ship: each is built, and gives a sample."""
    from basicsr.data import build_dataset

    for name in PLACES:
        made(name)
    opt = read_option_file(file)
    monkeypatch.chdir(made("gopro").root)
    for section, data in opt["datasets"].items():
        data.update(phase=section.split("_")[0], scale=opt["scale"])
        if section == "train":
            for one in data["datasets"]:
                one["gt_size"] = 12
        sample = build_dataset(data)[0]
        channels = 6 if file.stem == "dpdd_dual_pixel" else 3
        assert sample["lq"].shape[0] == channels and sample["gt"].shape[0] == 3
        if section != "train":
            assert sample["prompt"]
