"""Which photographs a command is about, and where their results go. Standard library only."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from prompt_mamba_cli.arguments import Mistake

__all__ = [
    "SUFFIXES", "Job", "Share", "check_targets", "collect", "is_film", "mark_results", "share_of", "suffix_by_content",
]  # fmt: skip

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # those of prompt_mamba_arch.image_io
FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")  # those of prompt_mamba_arch.video
_READ_FILMS = (*FILMS, ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".mts", ".m2ts", ".ogv")
# pictures that are not read; in a folder of photographs they would be missed
_OTHER_PICTURES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".gif", ".psd"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
_COMPARISON = ".compare.jpg"  # ends the name of a picture of before and after
# lies in an output folder among the photographs: what is there is no input for whoever takes the whole
_MARK = ".prompt_mamba_results"


class Job(NamedTuple):
    source: Path
    target: Path
    comparison: Path | None = None
    """Where the picture of before and after goes, if one is wanted."""


# ---- what is restored into what ------------------------------------------------------------------------------------


def collect(inputs: Sequence[str], output: str, compare: bool = False) -> tuple[list[Job], list[str]]:
    """The jobs, in natural order, and what was passed over, in plain words.

    Args:
        inputs: files, folders, and patterns such as `photos/**/*.jpg`; a file that has a pattern for a name is that
            file.
        output: a file for one photograph, or a folder. What lies below an input folder, or below the part of a pattern
            that has no wildcard, lies likewise below the output folder. Results, of this run or an earlier one, are
            taken only if they are named: as files, or by their folder.

    Raises:
        Mistake: there is no such input, nothing in it, or two photographs have the same result.
    """
    target = Path(output).expanduser()
    found: dict[Path, Path] = {}  # photograph -> its path below the output folder
    alone = None  # the photograph, if a file is named by itself
    passed_over = []
    for text in inputs:
        source = Path(text).expanduser()
        if source.is_dir():
            if target.exists() and not target.is_dir():
                raise Mistake(f"{str(target)!r} is a file, and a folder is restored into a folder")
            brought = _brought_by_a_shell(source, inputs)
            if source.resolve() == target.resolve():
                if brought:
                    passed_over.append(f"{text!r} is passed over: the results go there")
                    continue
                raise Mistake("the output folder is the input folder; name another one, so that no original is lost")
            if brought:
                passed_over.append(f"{text!r} is passed over: it holds results of an earlier run")
                continue
            inside, said = _below(source, target, passed := _PassedOver()), passed.said()
            if not inside:
                more = f"; {said}" if said else ""
                raise Mistake(f"the folder {str(source)!r} holds no images ({', '.join(SUFFIXES)}){more}")
            passed_over += [f"in {text!r}, {said}"] * bool(said)
            for path in inside:
                found.setdefault(path, path.relative_to(source))
        elif source.is_file():
            if len(inputs) == 1:
                alone = source
            if len(inputs) > 1 and source.suffix.lower() not in SUFFIXES:  # a shell's * brings them
                passed_over.append(f"{text!r} is passed over: its suffix is none of {', '.join(SUFFIXES)}")
            elif _is_comparison(source.name) and text[: -len(_COMPARISON)] in inputs:  # and these
                passed_over.append(f"{text!r} is passed over: it shows before and after")
            else:
                found.setdefault(source, Path(source.name))
        elif glob.has_magic(text):
            matches, said = _matches(text, target, passed := _PassedOver()), passed.said()
            if not matches:
                more = f"; {said}" if said else ""
                raise Mistake(f"no image matches {text!r} ({', '.join(SUFFIXES)}){more}")
            passed_over += [f"for {text!r}, {said}"] * bool(said)
            for path, place in matches:
                found.setdefault(path, place)
        else:
            raise Mistake(f"no such file or folder: {text!r}")
    if not found:
        raise Mistake(f"none of the {len(inputs)} inputs is an image ({', '.join(SUFFIXES)})")
    if len(found) == 1 and alone is None and not any(Path(text).expanduser().is_dir() for text in inputs):
        alone = next(iter(found))  # of a pattern, which may be meant for one file
        alone = alone if target.suffix.lower() in SUFFIXES else None
    jobs = [_alone(alone, target, output)] if alone else _into_folder(found, target)
    if compare:
        jobs = [job._replace(comparison=job.target.with_name(job.target.name + _COMPARISON)) for job in jobs]
    _check_distinct(jobs)
    return jobs, passed_over


def _alone(source: Path, target: Path, output: str) -> Job:
    if target.is_dir() or output.endswith(("/", os.sep)) or not (target.suffix or target.exists()):
        target = target / source.name
    suffixes = FILMS if is_film(source) else SUFFIXES
    if target.suffix.lower() not in suffixes:
        raise Mistake(f"cannot write {target.name!r}: its suffix must be one of {', '.join(suffixes)}")
    return Job(source, target)


def is_film(path: Path) -> bool:
    return path.suffix.lower() in _READ_FILMS


def _into_folder(found: Mapping[Path, Path], target: Path) -> list[Job]:
    if target.exists() and not target.is_dir():
        raise Mistake(f"{str(target)!r} is a file, and {len(found)} images are restored into a folder")
    if target.suffix.lower() in SUFFIXES and not target.exists() and len(found) > 1:
        raise Mistake(f"the output {str(target)!r} looks like a file, and {len(found)} images need a folder")
    return [Job(path, target / found[path]) for path in sorted(found, key=_natural)]


class _PassedOver:
    """What was met and is not restored: films and pictures that are not read, folders that cannot be, and results of
    earlier runs."""

    def __init__(self) -> None:
        self.missed: set[Path] = set()
        self.unreadable: set[Path] = set()
        self.results: set[Path] = set()

    def said(self) -> str:
        """In plain words; empty if there is nothing."""
        films = sum(map(is_film, self.missed))
        kinds = sorted({path.suffix.lower() for path in self.missed if not is_film(path)})
        folders = sorted(map(str, self.unreadable))
        said = []
        if kinds:
            said.append(f"pictures of a kind that is not read ({len(self.missed) - films}: {', '.join(kinds)})")
        if films:
            said.append(f"films, which must be named one by one ({films})")
        if folders:
            said.append(f"folders that cannot be read ({len(folders)}: {folders[0]!r}{', …' * (len(folders) > 1)})")
        if self.results:
            said.append(f"results of earlier runs ({len(self.results)})")
        return " and ".join(said) + " are passed over" if said else ""


def _below(folder: Path, target: Path, passed: _PassedOver) -> list[Path]:
    """The photographs below a folder, without what is hidden and what lies in `target`."""
    there, found = target.resolve(), []
    for place, inside, files in os.walk(folder, onerror=lambda error: passed.unreadable.add(Path(error.filename))):
        if _MARK in files and Path(place) != folder:
            inside.clear()
            passed.results.update(path for path in Path(place).rglob("*") if _looks_like_photograph(path.name))
            continue
        inside[:] = [name for name in inside if not name.startswith(".") and Path(place, name).resolve() != there]
        for name in files:
            if _is_comparison(name):
                passed.results.add(Path(place, name))
            elif _looks_like_photograph(name):
                found.append(Path(place, name))
            elif _is_missed(name):
                passed.missed.add(Path(place, name))
    return found


def _matches(pattern: str, target: Path, passed: _PassedOver) -> list[tuple[Path, Path]]:
    """(photograph, its path below the output folder) for all that a pattern stands for."""
    pattern = os.path.expanduser(pattern)
    fixed = _fixed(pattern)
    there, here = target.resolve(), fixed.resolve()
    for_results = there == here or there in here.parents  # results of this command are input only for such a pattern
    found = []
    for match in glob.glob(pattern, recursive=True):
        path = Path(match)
        if not for_results and there in (path.resolve(), *path.resolve().parents):
            continue
        if path.is_dir():
            photos = _below(path, target, passed)
        else:
            photos = [path] * _looks_like_photograph(path.name)
            passed.missed.update([path] * _is_missed(path.name))
        for photo in photos:
            if _is_result(photo, fixed):
                passed.results.add(photo)
                continue
            place = photo.relative_to(fixed)
            found.append((photo, Path(photo.name) if ".." in place.parts else place))  # never out of the folder
    return found


def _fixed(pattern: str) -> Path:
    """The part of a pattern that has no wildcard."""
    parts = Path(pattern).parts
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def _is_result(photo: Path, fixed: Path) -> bool:
    """Whether it is a comparison, or lies in a folder of results below `fixed`."""
    inner = itertools.takewhile(lambda place: place != fixed, photo.parents)
    return _is_comparison(photo.name) or any((place / _MARK).exists() for place in inner)


def _brought_by_a_shell(folder: Path, inputs: Sequence[str]) -> bool:
    """Whether it holds results, and what lies beside it, which are none, is named, too, as by a shell's `*`."""
    others = (Path(text).expanduser() for text in inputs)
    beside = (it for it in others if it.parent == folder.parent and it != folder and not (it / _MARK).exists())
    return (folder / _MARK).exists() and any(beside)


def _is_comparison(name: str) -> bool:
    stem = name[: -len(_COMPARISON)]
    return name.endswith(_COMPARISON) and Path(stem).suffix.lower() in SUFFIXES and not name.startswith(".")


def mark_results(inputs: Sequence[str], output: str) -> None:
    """Marks an output folder that lies among the photographs, so that later runs know results when they meet them; a
    folder that holds other files already is not marked, nor is one for a single photograph."""
    target = Path(output).expanduser()
    sources = [Path(text).expanduser() for text in inputs]
    with contextlib.suppress(OSError):  # a hint, for whose sake no run shall fail
        if target.suffix.lower() in SUFFIXES or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            return
        if len(sources) == 1 and sources[0].is_file():
            return
        roots = [it if it.is_dir() else it.parent if it.exists() else _fixed(str(it)) for it in sources]
        if any(root.resolve() in target.resolve().parents or (root / _MARK).exists() for root in roots):
            target.mkdir(parents=True, exist_ok=True)
            (target / _MARK).touch()


def _looks_like_photograph(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _is_missed(name: str) -> bool:
    """Whether somebody may have meant it, too."""
    return not name.startswith(".") and Path(name).suffix.lower() in (*_READ_FILMS, *_OTHER_PICTURES)


def _natural(path: Path) -> list:
    """2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path).lower())]


def _check_distinct(jobs: Iterable[Job]) -> None:
    made: dict[Path, Path] = {}
    for source, *results in jobs:
        for result in results:
            if result is not None and made.setdefault(result, source) != source:
                raise Mistake(f"{str(made[result])!r} and {str(source)!r} would both become {str(result)!r}")


def check_targets(jobs: Sequence[Job], originals: Iterable[Path], overwrite: bool) -> None:
    """Before any work is done: no original is overwritten, nothing else unasked, and the folder can be written to.

    Raises:
        Mistake: names the first file or folder.
    """
    there = [path for job in jobs for path in job[1:] if path is not None and path.exists()]
    if there:
        known = {_identity(source): source for source in originals}
        for target in there:
            if _identity(target) in known:
                raise Mistake(f"the output {str(target)!r} is an input; name another, so that no original is lost")
        if not overwrite:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise Mistake(f"{str(there[0])!r}{more} exists already; add --overwrite to replace it")
    for folder in {job.target.parent for job in jobs}:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise Mistake(f"{str(nearest)!r} is a file, not a folder to write into")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise Mistake(f"the folder {str(nearest)!r} cannot be written to")


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file: links, other cases of letters where the disk ignores them."""
    found = path.stat()
    return found.st_dev, found.st_ino


def suffix_by_content(start: bytes) -> str | None:
    """The suffix for a file that begins so, or None."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    signs = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II": ".tif", b"MM": ".tif", b"BM": ".bmp"}
    return next((suffix for sign, suffix in signs.items() if start.startswith(sign)), None)


# ---- who restores what ---------------------------------------------------------------------------------------------


class Share(NamedTuple):
    """Part `index` of `count` of the work; `said` is how that was told."""

    index: int
    count: int
    said: str

    def of(self, jobs: Sequence[Job]) -> list[Job]:
        """Every count-th job: shares differ by one at most, have no job in common and are the same in every run."""
        return list(jobs[self.index :: self.count])

    def __str__(self) -> str:
        return f"share {self.index + 1} of {self.count} ({self.said})"


def share_of(wish: str | None, environment: Mapping[str, str]) -> Share | None:
    """This process's share where many work on the same list: as told (`2/4` is the second of four, `all` all of it), or
    as torchrun and SLURM say in the environment. None: all of it.

    Under srun it is the task, in a job array the array's task, in both every task of every array's task has a share.

    Raises:
        Mistake: numbers that do not fit together.
    """
    if wish == "all":
        return None
    if wish is not None:
        index, count = (int(part) for part in wish.split("/"))
        return Share(index - 1, count, "--share") if count > 1 else None
    inner = _numbered(environment, "RANK", "WORLD_SIZE")
    # a batch script has SLURM_PROCID, too; what it starts without srun runs once, not once a task
    in_step = "SLURM_JOB_ID" not in environment or {"SLURM_STEP_ID", "SLURM_STEPID"} & set(environment)
    if inner is None and in_step:
        tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        inner = _numbered(environment, "SLURM_PROCID", tasks)
    outer = _array_task(environment)
    found = [share for share in (outer, inner) if share is not None and share.count > 1]
    if len(found) < 2:
        return found[0] if found else None
    index, count = outer.index * inner.count + inner.index, outer.count * inner.count
    return Share(index, count, f"{outer.said}, {inner.said}")


def _numbered(environment: Mapping[str, str], index: str, count: str) -> Share | None:
    if index not in environment or count not in environment:
        return None
    try:
        share = Share(int(environment[index]), int(environment[count]), index)
    except ValueError:
        share = Share(-1, 0, index)
    if not 0 <= share.index < share.count:
        told = f"{index}={environment[index]}, {count}={environment[count]}"
        raise Mistake(f"the environment says {told}, which names no share; --share all ignores it")
    return share


def _array_task(environment: Mapping[str, str]) -> Share | None:
    """Array tasks may be numbered from 1, or in steps."""
    names = ("ID", "COUNT", "MIN", "MAX", "STEP")
    told = {name: environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in names}
    if not told["ID"] or not told["COUNT"]:
        return None
    try:
        number, count = int(told["ID"]), int(told["COUNT"])
        first = int(told["MIN"] or 0)
        last = int(told["MAX"] or first + count - 1)
    except ValueError:
        number = first = last = count = -1
    step = (last - first) // max(count - 1, 1) or 1
    index = (number - first) // step
    if count < 1 or first + index * step != number or first + (count - 1) * step != last or not 0 <= index < count:
        raise Mistake(
            f"the array's task {told['ID']} of {told['COUNT']} has no place in a regular row; use an array such as "
            "0-9, or say which share this is with --share 3/10"
        )
    return Share(index, count, "SLURM_ARRAY_TASK_ID")
