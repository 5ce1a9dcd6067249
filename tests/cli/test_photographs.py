"""Which photographs are restored into what, and by which of many processes."""

from __future__ import annotations

import itertools
import os

import pytest

from prompt_mamba_cli.arguments import Mistake
from prompt_mamba_cli.photographs import SUFFIXES, Job, Share, collect, mark_results, share_of, suffix_by_content


@pytest.fixture
def album(tmp_path, monkeypatch):
    """An album in the working directory."""
    names = (
        "2.png",
        "10.png",
        "a/1.jpg",
        "a/b/2.JPG",
        "a/b/notes.txt",
        "a/.hidden/3.jpg",
        "x/photo[1].png",
        "x/.4.png",
    )
    for name in names:
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "album"


def _found(inputs, output="out", **how):
    jobs, _ = collect(inputs, output, **how)
    return {str(job.source): str(job.target) for job in jobs}


def test_folders_are_mirrored(album):
    assert _found(["album"]) == {
        "album/2.png": "out/2.png",
        "album/10.png": "out/10.png",
        "album/a/1.jpg": "out/a/1.jpg",
        "album/a/b/2.JPG": "out/a/b/2.JPG",
        "album/x/photo[1].png": "out/x/photo[1].png",
    }


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("album/*.png", {"album/2.png": "out/2.png", "album/10.png": "out/10.png"}),
        ("album/**/*.jpg", {"album/a/1.jpg": "out/a/1.jpg"}),
        ("album/**/*.[jJ][pP][gG]", {"album/a/1.jpg": "out/a/1.jpg", "album/a/b/2.JPG": "out/a/b/2.JPG"}),
        ("album/?", {"album/a/1.jpg": "out/a/1.jpg", "album/a/b/2.JPG": "out/a/b/2.JPG",
                     "album/x/photo[1].png": "out/x/photo[1].png"}),
        ("*/x/*", {"album/x/photo[1].png": "out/album/x/photo[1].png"}),
        ("album/x/photo[1].png", {"album/x/photo[1].png": "out/photo[1].png"}),  # it is the file's name
    ],
)  # fmt: skip
def test_patterns(album, pattern, expected):
    (album.parent / "out").mkdir()
    assert _found([pattern]) == expected


def test_no_result_leaves_the_output_folder(album):
    (album.parent / "out").mkdir()
    assert _found(["album/a/../*.png"]) == {"album/a/../2.png": "out/2.png", "album/a/../10.png": "out/10.png"}
    with pytest.raises(Mistake, match=r"would both become 'out/2\.png'"):
        collect(["album/*/../2.png"], "out")


def test_several_inputs(album):
    found = _found(["album/10.png", "album/x", "album/a/*.jpg", "album/10.png"])
    assert found == {"album/10.png": "out/10.png", "album/a/1.jpg": "out/1.jpg",
                     "album/x/photo[1].png": "out/photo[1].png"}  # fmt: skip
    jobs, passed_over = collect(["album/2.png", "album/a/b/notes.txt"], "out")
    assert len(jobs) == 1 and "notes.txt" in passed_over[0] and len(passed_over) == 1


def test_what_a_folder_holds_and_is_not_restored_is_said(album):
    for name in ("IMG_1.HEIC", "a/raw.dng", "a/b/film.MP4", ".5.heic", "x/notes.pdf"):
        (album / name).touch()
    jobs, passed_over = collect(["album"], "out")
    assert len(jobs) == 5 and passed_over == [
        "in 'album', pictures of a kind that is not read (2: .dng, .heic) and films, which must be named one by one "
        "(1) are passed over"
    ]
    (album / "phone").mkdir()
    (album / "phone" / "1.heic").touch()
    with pytest.raises(Mistake, match=r"holds no images \(.*\); pictures of a kind that is not read \(1: \.heic\)"):
        collect(["album/phone"], "out")


@pytest.mark.parametrize("pattern", ["album/*", "album/**", "*"])
def test_what_a_pattern_stands_for_and_is_not_restored_is_said(album, pattern):
    for name in ("IMG_1.HEIC", "a/raw.dng", "a/b/film.MP4"):
        (album / name).touch()
    jobs, passed_over = collect([pattern], "out")
    assert len(jobs) == 5 and passed_over == [
        f"for {pattern!r}, pictures of a kind that is not read (2: .dng, .heic) and films, which must be named one by "
        "one (1) are passed over"
    ]


def test_folders_that_cannot_be_read_are_said(album, monkeypatch):
    scandir = os.scandir

    def refusing(place):
        if os.path.basename(place) == "a":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refusing)  # as root everything can be read
    jobs, passed_over = collect(["album"], "out")
    assert len(jobs) == 3 and passed_over == ["in 'album', folders that cannot be read (1: 'album/a') are passed over"]
    jobs, passed_over = collect(["album/*"], "out")
    assert len(jobs) == 3 and passed_over == [
        "for 'album/*', folders that cannot be read (1: 'album/a') are passed over"
    ]
    with pytest.raises(Mistake, match=r"holds no images \(.*\); folders that cannot be read \(1: 'album/a'\)"):
        collect(["album/a"], "out")


def test_a_pattern_for_one_file_may_name_its_result(album):
    assert _found(["album/1*.png"], "better.png") == {"album/10.png": "better.png"}
    assert _found(["album/1*.png"], "folder") == {"album/10.png": "folder/10.png"}


def test_natural_order(album):
    assert list(_found(["album/*.png"])) == ["album/2.png", "album/10.png"]


@pytest.mark.parametrize("pattern", ["album", "album/**", "album/**/*.jpg", "*"])
def test_results_of_an_earlier_run_are_no_input(album, pattern):
    before = _found([pattern], "album/out")
    for target in before.values():
        path = album.parent / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.with_name(path.name + ".compare.jpg").touch()
    assert before and _found([pattern], "album/out") == before
    assert collect([pattern], "album/out")[1] == []
    assert _found(["album/out/**/*.jpg"], "album/out/again")  # unless they are asked for


@pytest.mark.parametrize("pattern", ["album", "album/**", "album/**/*.*", "*"])
def test_results_of_another_run_are_no_input_and_it_is_said(album, pattern):
    before = _found([pattern])
    mark_results([pattern], "album/restored")
    for name in ("restored/2.png", "restored/a/1.jpg", "2.png.compare.jpg", "x/10.TIF.compare.jpg"):
        path = album / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    jobs, passed_over = collect([pattern], "out")
    assert {str(job.source): str(job.target) for job in jobs} == before
    assert len(passed_over) == 1 and passed_over[0].endswith(", results of earlier runs (4) are passed over")
    named = ["album/restored", "album/2.png.compare.jpg", "album/restored/*.png"]  # unless they are asked for
    assert [len(_found([name])) for name in named] == [2, 1, 1]


def test_results_of_results_are_results(album):
    mark_results(["album"], "album/first")
    mark_results(["album/first"], "album/second")
    (album / "second" / "2.png").touch()
    assert len(_found(["album"])) == 5


def test_a_folder_of_ones_own_pictures_is_never_taken_for_results(album):
    mark_results(["album"], "album/a")
    mark_results(["album"], "out")
    mark_results(["album/2.png"], "album/one")
    mark_results(["album/2*.png"], "album/better.png")
    assert len(_found(["album"])) == 5 and not {"out", "one", "better.png"} & set(os.listdir(album))
    with pytest.raises(Mistake, match="is the input folder"):
        collect(["album/2.png", "album/a"], "album/a")


def test_a_shell_brings_the_output_folder(album):
    mark_results(["album/2.png", "album/10.png", "album/a", "album/x"], "album/restored")
    jobs, passed_over = collect(["album/2.png", "album/a", "album/restored"], "album/restored")
    assert len(jobs) == 3 and passed_over == ["'album/restored' is passed over: the results go there"]
    (album / "restored" / "2.png").touch()
    jobs, passed_over = collect(["album/2.png", "album/a", "album/restored"], "out")
    assert len(jobs) == 3 and passed_over == ["'album/restored' is passed over: it holds results of an earlier run"]
    assert len(collect(["album/restored", "album/x/photo[1].png"], "out")[0]) == 2  # meant


def test_a_shell_brings_the_comparisons(album):
    (album / "2.png.compare.jpg").touch()
    jobs, passed_over = collect(["album/2.png", "album/2.png.compare.jpg"], "out")
    assert len(jobs) == 1 and passed_over == ["'album/2.png.compare.jpg' is passed over: it shows before and after"]


def test_no_run_fails_for_the_sake_of_a_mark(album, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (album / "box").mkdir()
    monkeypatch.setattr(type(album), "iterdir", refuse)
    mark_results(["album"], "album/box")
    mark_results(["gone.png", "album"], "album/new")


def test_comparisons_lie_beside_the_results(album):
    jobs, _ = collect(["album"], "out", compare=True)
    assert jobs[0].comparison.as_posix() == "out/2.png.compare.jpg"
    (album / "2.png.compare.jpg").touch()
    with pytest.raises(Mistake, match=r"would both become 'out/2\.png\.compare\.jpg'"):
        collect(["album", "album/2.png.compare.jpg"], "out", compare=True)


_TORCH = {"RANK": "2", "WORLD_SIZE": "4"}
_SRUN = {"SLURM_PROCID": "1", "SLURM_NTASKS": "3"}
_ARRAY = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1",
          "SLURM_ARRAY_TASK_MAX": "9"}  # fmt: skip


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        (_TORCH, (2, 4)),
        (_SRUN, (1, 3)),
        ({**_TORCH, **_SRUN}, (2, 4)),  # torchrun started by srun counts all processes
        ({**_SRUN, "SLURM_JOB_ID": "7"}, None),  # a batch script, outside of srun
        ({**_SRUN, "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, (1, 3)),
        ({**_SRUN, "SLURM_JOB_ID": "7", "SLURM_STEPID": "0", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, (3, 4)),
        (_ARRAY, (1, 3)),
        ({**_ARRAY, "SLURM_ARRAY_TASK_ID": "9"}, (2, 3)),
        ({**_ARRAY, **_TORCH}, (1 * 4 + 2, 12)),
        ({**_ARRAY, "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_MAX": "5"}, None),
    ],
)
def test_shares_by_environment(environment, expected):
    share = share_of(None, environment)
    assert (share and share[:2]) == expected
    assert share_of("all", environment) is None
    assert share_of("2/5", environment)[:2] == (1, 5)


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "4", "WORLD_SIZE": "4"},
        {"RANK": "-1", "WORLD_SIZE": "4"},
        {"RANK": "x", "WORLD_SIZE": "4"},
        {**_ARRAY, "SLURM_ARRAY_TASK_ID": "6"},
        {**_ARRAY, "SLURM_ARRAY_TASK_MAX": "11"},  # 1,5,11, say
        {**_ARRAY, "SLURM_ARRAY_TASK_MIN": "?"},
    ],
)
def test_shares_that_make_no_sense(environment):
    with pytest.raises(Mistake, match="--share"):
        share_of(None, environment)


@pytest.mark.parametrize("count", [1, 3, 7, 20])
def test_shares_are_the_whole_and_have_nothing_in_common(count, tmp_path):
    jobs = [Job(tmp_path / f"{i}.png", tmp_path / f"out/{i}.png") for i in range(11)]
    parts = [Share(index, count, "").of(jobs) for index in range(count)]
    assert sorted(itertools.chain(*parts)) == sorted(jobs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_formats_are_told_by_the_first_bytes(tmp_path):
    from PIL import Image

    for suffix in SUFFIXES:
        Image.new("RGB", (4, 4)).save(tmp_path / f"a{suffix}")
        found = suffix_by_content((tmp_path / f"a{suffix}").read_bytes()[:16])
        assert found == {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix, suffix)
    assert suffix_by_content(b"RIFF1234AVI ") is None and suffix_by_content(b"") is None
