"""Prompt files and the other sources of prompts: what they give, and what they say about a mistake."""

from __future__ import annotations

import json
import pickle
import re

import lmdb
import numpy as np
import pytest
import torch

from prompt_mamba_arch.data import KINDS
from prompt_mamba_arch.data.image_source import ImageSource
from prompt_mamba_arch.data.prompt_file import PromptEntry, read_prompt_file, write_prompt_file
from prompt_mamba_arch.data.prompt_sources import TASKS, multi_hot, prompt_source, write_lmdb_prompts
from prompt_mamba_arch.errors import UserError

GOOD = '{"key": "a/0001", "prompts": ["remove the noise"]}'


@pytest.fixture
def lq_lmdb(tmp_path, photos):
    import cv2
    from basicsr.utils.lmdb_util import LmdbMaker

    maker = LmdbMaker(str(tmp_path / "lq.lmdb"), map_size=1 << 26)
    for key, name in (("a/0001", "chelsea"), ("b", "coffee")):
        image = photos[name][:32, :32]
        maker.put(cv2.imencode(".png", image[..., ::-1])[1].tobytes(), key, image.shape)
    maker.close()
    return tmp_path / "lq.lmdb"


def test_what_is_written_is_read_back(tmp_path):
    entries = [
        PromptEntry("a/0001.v2", ("remove the noise", "für mich"), "denoise", ("noise",), ("noise", "jpeg")),
        PromptEntry("b", ("leave it as it is",), remove=()),
    ]
    path = tmp_path / "prompts.jsonl"
    assert write_prompt_file(path, entries) == 2
    assert list(read_prompt_file(path).values()) == entries
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[1]) == {
        "key": "b", "prompts": ["leave it as it is"], "remove": []
    }  # fmt: skip


def test_windows_line_ends_byte_order_mark_and_blank_lines(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n" + GOOD.replace("0001", "0002").encode() + b"\r\n")
    assert list(read_prompt_file(path)) == ["a/0001", "a/0002"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "x", "prompts": ["p"]', "not a JSON object (Expecting ',' delimiter at column 30)"),
        ("[1]", 'not a JSON object like {"key": "0001"'),
        ('{"prompts": ["p"]}', "the field 'key' is missing"),
        ('{"key": "x"}', "the field 'prompts' is missing"),
        ('{"key": "", "prompts": ["p"]}', "key must be a non-empty text, not ''"),
        ('{"key": "x", "prompts": "p"}', "prompts must be a list of non-empty texts, not 'p'"),
        ('{"key": "x", "prompts": []}', "prompts must be a list of non-empty texts, not []"),
        ('{"key": "x", "prompts": ["p", " "]}', "prompts must be a list of non-empty texts"),
        ('{"key": "x", "prompts": ["p"], "task": 3}', "task must be a text, not 3"),
        ('{"key": "x", "prompts": ["p"], "remove": "noise"}', "remove must be a list of kinds (noise, defocus"),
        ('{"key": "x", "prompts": ["p"], "remove": ["nois"]}', "unknown kind 'nois'; did you mean 'noise'?"),
        ('{"key": "x", "prompts": ["p"], "presnt": []}', "unknown key 'presnt'"),
        (GOOD, "the key 'a/0001' is there already, in line 1"),
        ('{"key": "\\ud800', "not a JSON object"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_prompt_file(path)
    assert f"{path}, line 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_prompt_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the prompt file .*: No such file"):
        read_prompt_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="has no entry"):
        read_prompt_file(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"key": "x", "prompts": ["für"]}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 1: not UTF-8 text"):
        read_prompt_file(tmp_path / "latin.jsonl")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_prompt_file(path, [PromptEntry("a", ("p",))])
    for bad in (PromptEntry("b", ("",)), PromptEntry("a", ("q",))):
        with pytest.raises(UserError, match="entry 2"):
            write_prompt_file(path, [PromptEntry("a", ("new",)), bad])
    assert read_prompt_file(path)["a"].prompts == ("p",)
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_fixed_list_task_and_blind(lq_lmdb):
    lq = ImageSource(lq_lmdb, {"type": "lmdb"})
    assert prompt_source(None, lq).entry("b") == PromptEntry("b", ("",))
    assert prompt_source("", lq).entry("b").prompts == ("",)
    assert prompt_source("remove rain/haze.", lq).entry("b").prompts == ("remove rain/haze.",)
    assert prompt_source(["x", "y"], lq).entry("b").prompts == ("x", "y")
    denoise = prompt_source({"task": "denoise"}, lq).entry("b")
    assert denoise.remove == denoise.present == ("noise",) and len(denoise.prompts) > 2
    deblur = prompt_source({"task": "deblur"}, lq).entry("b")
    assert deblur.remove == ("defocus", "motion") and deblur.present is None
    assert set(TASKS) == {"denoise", "deblur", "dejpeg", "sr", "derain", "dehaze", "lowlight", "inpaint"}
    assert {kind for task in TASKS.values() for kind in task.remove} == set(KINDS)


def test_file_source_names_the_image_and_the_nearest_key(tmp_path, lq_lmdb):
    path = tmp_path / "p.jsonl"
    path.write_text(GOOD, encoding="utf-8")
    source = prompt_source(str(path), ImageSource(lq_lmdb, {"type": "lmdb"}))
    assert source.entry("a/0001").prompts == ("remove the noise",)
    with pytest.raises(UserError, match=r"no prompt for image 'a/0002' in .*p\.jsonl; did you mean 'a/0001'"):
        source.entry("a/0002")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("prompts/train.json", "looks like a file"),
        ("prompts.txt", "looks like a file"),
        ({"task": "denois"}, "did you mean 'denoise'"),
        ({"task": None}, "the tasks are denoise, deblur"),
        ({"tsk": "denoise"}, "unknown key 'tsk'"),
        ([], "prompts must be a .jsonl file"),
        (["a", ""], "prompts must be a .jsonl file"),
        (3, "prompts must be a .jsonl file"),
    ],
)
def test_a_wrong_option_is_explained(lq_lmdb, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        prompt_source(value, ImageSource(lq_lmdb, {"type": "lmdb"}))


def test_lmdb_side_keys_do_not_disturb_the_images(lq_lmdb, photos):
    entries = [
        PromptEntry("a/0001", ("remove the noise", "säubern"), remove=("noise",)),
        PromptEntry("b", ("remove the rain",)),
    ]
    assert write_lmdb_prompts(lq_lmdb, [PromptEntry("b", ("old",))]) == 1
    assert write_lmdb_prompts(lq_lmdb, entries) == 2
    lq = ImageSource(lq_lmdb, {"type": "lmdb"})
    source = pickle.loads(pickle.dumps(prompt_source("lmdb", lq)))
    assert [source.entry(entry.key) for entry in entries] == entries
    assert lq.keys == ("a/0001", "b")
    assert np.array_equal(lq.read("b"), photos["coffee"][:32, :32])
    with pytest.raises(UserError, match="already open in this process"):
        write_lmdb_prompts(lq_lmdb, entries)


def test_many_prompts_fit_into_a_lmdb_that_was_made_full(tmp_path):
    folder = tmp_path / "full.lmdb"
    with lmdb.open(str(folder), map_size=1 << 16) as environment, environment.begin(write=True) as transaction:
        for index in range(500):
            transaction.put(f"{index:05d}".encode(), b"not an image")
    (folder / "meta_info.txt").write_text("".join(f"{i:05d}.png (1,1,3) 1\n" for i in range(500)))
    assert write_lmdb_prompts(folder, [PromptEntry(f"{i:05d}", ("p" * 3000,)) for i in range(500)]) == 500


def test_lmdb_source_messages(tmp_path, lq_lmdb, paired_folders):
    with pytest.raises(UserError, match=r"no image 'c' in .*lq\.lmdb"):
        write_lmdb_prompts(lq_lmdb, [PromptEntry("c", ("p",))])
    with pytest.raises(UserError, match="needs the lq images in a LMDB"):
        prompt_source("lmdb", ImageSource(paired_folders.lq))
    with lmdb.open(str(lq_lmdb), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"b.prompt", b'{"key": "b", "prompts": "p"}')
    source = prompt_source("lmdb", ImageSource(lq_lmdb, {"type": "lmdb"}))
    with pytest.raises(UserError, match=r"no prompt for image 'a/0001': .*key 'a/0001\.prompt' is missing"):
        source.entry("a/0001")
    with pytest.raises(UserError, match=r"key 'b\.prompt': prompts must be a list"):
        source.entry("b")


def test_multi_hot_follows_the_order_of_kinds():
    hot = multi_hot(["haze", "noise"])
    assert hot.dtype == torch.float32
    assert [kind for kind, value in zip(KINDS, hot) if value] == ["noise", "haze"]
    assert multi_hot(None).tolist() == [0] * len(KINDS)
