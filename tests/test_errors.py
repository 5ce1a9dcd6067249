from __future__ import annotations

import errno

import pytest
from torch.utils.data import DataLoader, Dataset

from prompt_mamba_arch.errors import UserError, check_keys, plain_line, replace_on_success


def test_check_keys_names_the_nearest_valid_key():
    check_keys({"phase": "pretrain"}, ["phase", "prompt_dropout"], "train")
    with pytest.raises(UserError) as raised:
        check_keys({"prompt_dropuot": 0.1}, ["phase", "prompt_dropout"], "train")
    assert str(raised.value) == "unknown key 'prompt_dropuot' in train; did you mean 'prompt_dropout'?"


def test_check_keys_lists_all_when_none_is_near_and_refuses_what_is_no_section():
    with pytest.raises(UserError, match="unknown key 'zzz' in val; valid keys are metrics, suffix"):
        check_keys({"zzz": 1}, ["suffix", "metrics"], "val")
    with pytest.raises(UserError, match="train must be a section of keys and values, not 3"):
        check_keys(3, ["suffix"], "train")


class Failing(Dataset):
    def __init__(self, exc: Exception):
        self.exc = exc

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        raise self.exc


def from_worker(exc: Exception) -> Exception:
    with pytest.raises(type(exc)) as raised:
        next(iter(DataLoader(Failing(exc), num_workers=1)))
    assert "Traceback" in str(raised.value)
    return raised.value


def test_plain_line_is_one_line_for_the_users_mistakes_only():
    assert plain_line(UserError("bad\n  thing")) == "bad thing"
    assert plain_line(FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b")) == (
        "No such file or directory: '/a/b'"
    )
    assert plain_line(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    for bug in (ValueError("x"), KeyError("x"), RuntimeError("x"), OSError("x")):
        assert plain_line(bug) is None


def test_plain_line_sees_through_a_dataloader_worker():
    assert plain_line(from_worker(UserError("key '0001': corrupt image /d/0001.png"))) == (
        "key '0001': corrupt image /d/0001.png"
    )
    line = plain_line(from_worker(FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b")))
    assert line == "No such file or directory: '/a/b'"
    assert plain_line(from_worker(ValueError("a bug"))) is None


def test_replace_on_success_leaves_the_old_file_or_the_whole_new_one(tmp_path):
    target = tmp_path / "net.pth"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replace_on_success(target) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with replace_on_success(str(target)) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".pth" and temporary.name.startswith(".")
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


def test_shared_fixtures_are_real_pairs(photos, paired_folders):
    for photo in photos.values():
        assert photo.shape == (192, 192, 3) and photo.dtype == "uint8" and photo.std() > 10
    assert paired_folders.names == sorted(f"{name}.png" for name in photos)
    assert sorted(path.name for path in paired_folders.lq.iterdir()) == paired_folders.names
