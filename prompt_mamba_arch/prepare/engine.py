"""Prepares a downloaded dataset: from the files as they lie to what an option file points at.

    OUT/<subset>/gt/KEY.png          clean images: links to the source's files, or sub-images cut from them
    OUT/<subset>/lq/KEY.png          degraded ones of the same names; lq_x4, lq_left ... where there are several
    OUT/<subset>/meta_info.txt       names and sizes, as BasicSR writes them: 0001.png (480,480,3)
    OUT/<subset>/prompts.jsonl       what to ask for, see `prompt_mamba_arch.data.prompt_file`
    OUT/<subset>/gt.lmdb, lq.lmdb    the same as LMDBs, if asked for
    OUT/problems.txt                 what is missing or broken, if anything is
    OUT/.prepare/                    what is done already

Names are flat, without dots and blanks, as BasicSR's tools need them: `GOPR0372_07_00-000047`. Every file appears whole
or not at all, so an interrupted run is continued by the next one, and a second one changes nothing. The source is only
read.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from prompt_mamba_arch.data.image_source import decode
from prompt_mamba_arch.data.prompt_file import PromptEntry
from prompt_mamba_arch.data.prompt_sources import TASKS
from prompt_mamba_arch.errors import UserError, did_you_mean, replace_on_success
from prompt_mamba_arch.prepare.images import Piece, Shape, encode, grid, reduced, shape_of
from prompt_mamba_arch.prepare.lmdb_writer import Entry, write_lmdb
from prompt_mamba_arch.prepare.pairing import Found, Item, find
from prompt_mamba_arch.prepare.spec import Crop, Dataset, Subset
from prompt_mamba_arch.prepare.state import Record, State
from prompt_mamba_arch.prepare.tree import Stamp, Tree
from prompt_mamba_arch.prepare.work import in_order
from prompt_mamba_arch.prompts.writers import BankWriter, Brief, Writer, write_prompts

__all__ = ["Prepared", "prepare", "write_if_new"]

AS_PUBLISHED = "as published"
_MARGIN = 64  # pixels by which a clean image may be larger than the one that shows its middle


@dataclass
class Prepared:
    """What a subset has become.

    Attributes:
        name: the subset's.
        layout: whose arrangement was found; "" if nothing was.
        images: pairs (or clean images) that are prepared.
        pieces: files in each folder; as many as images, if they are not cut.
        roles: the folders.
        problems: what is missing or broken, one line each.
        notes: what is worth a line.
        written: files, links and LMDBs that this run has made.
    """

    name: str
    layout: str = ""
    images: int = 0
    pieces: int = 0
    roles: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: int = 0


class _Output(NamedTuple):
    """A file to be there. Attributes: role; name, with extension; piece, if not the whole image; scale, of `reduce`."""

    role: str
    name: str
    piece: Piece | None = None
    scale: int | None = None


def prepare(
    dataset: Dataset,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    only: Sequence[str] = (),
    crop: Crop | str | None = AS_PUBLISHED,
    lmdb: bool = False,
    copy: bool = False,
    partial: bool = False,
    task: str | None = None,
    count: int = 4,
    writer: Callable[[str], Writer] = BankWriter,
    writer_name: str = "parameters",
    jobs: int = 1,
    workers: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Prepared]:
    """Prepares what is found of a dataset.

    Args:
        source: the folder with the unpacked archives.
        out: the folder for the prepared data; made if it is not there.
        only: names of subsets; default all.
        crop: sub-images for training; None for whole images; default what the dataset's description says.
        lmdb: also LMDBs.
        copy: copies of the files instead of links to them.
        partial: fewer images than published are no problem.
        task: of `prompt_mamba_arch.data.prompt_sources.TASKS`, instead of what the description says.
        count: prompts for each image; 0 for no prompt file.
        writer: gives the writer of prompts for a split of the bank of phrases; `writer_name` goes into the state.
        jobs: images at a time for writers that wait for an answer.
        workers: images at a time.
        tell: receives lines about what is worth knowing.
        progress: receives (what is done, images done, images in all).

    Returns:
        One for each subset; those that are not in the source have no layout.

    Raises:
        UserError: nothing of the dataset is there, `out` is of other settings, or a file cannot be written.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if source.exists() and out.exists() and os.path.samefile(source, out):
        raise UserError("--source and --out are the same folder; the prepared data needs one of its own")
    if out.exists() and not out.is_dir():
        raise UserError(f"{str(out)!r} is a file; the prepared data goes into a folder")
    names = [subset.name for subset in dataset.subsets]
    for name in only:
        if name not in names:
            hint = did_you_mean(name, names) or f"; it has {', '.join(names)}"
            raise UserError(f"{dataset.title} has no subset {name!r}{hint}")
    if task is not None:
        if task not in TASKS:
            hint = did_you_mean(task, TASKS) or f"; there are {', '.join(TASKS)}"
            raise UserError(f"no task {task!r}{hint}")
        changed = {"task": task, "remove": TASKS[task].remove, "present": None, "say": ()}
        dataset = replace(dataset, subsets=tuple(replace(subset, **changed) for subset in dataset.subsets))
    source = source.absolute()
    tree = Tree(source, leave_out=out)
    founds = [find(tree, subset, partial=partial) for subset in dataset.subsets if not only or subset.name in only]
    if not any(found.layout for found in founds):
        wanted = {p.text for found in founds for layout in found.subset.layouts[:1] for p in layout.files.values()}
        raise UserError(
            f"nothing of {dataset.title} is below {str(source)!r} ({len(tree)} images): no path there is like "
            f"{' or '.join(sorted(wanted)[:3])}"
        )
    done = []
    for found in founds:
        one = Prepared(found.subset.name, problems=list(found.problems), notes=list(found.notes))
        done.append(one)
        if found.layout is None:
            continue
        one.layout, one.roles = found.layout.name, found.roles
        if found.subset.reduce:
            one.roles = ("gt", *(f"lq_x{scale}" for scale in found.subset.reduce))
        job = _Job(dataset, found, one, tree, out, crop, copy, workers, progress)
        records = job.images()
        prompts = job.prompts(records, count, writer, writer_name, jobs, tell) if count else {}
        if lmdb:
            job.lmdbs(records, prompts)
        job.finish()
    _note_problems(out / "problems.txt", names, done)
    return done


def _note_problems(file: Path, subsets: Sequence[str], done: Sequence[Prepared]) -> None:
    """Those of this run, and what an earlier one has said of subsets that this one was not asked for."""
    told = {one.name: [f"{one.name}: {problem}\n" for problem in one.problems] for one in done}
    if file.exists():
        for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True):
            name = line.partition(": ")[0]
            if name in subsets and name not in {one.name for one in done}:
                told.setdefault(name, []).append(line)
    lines = "".join(line for name in subsets for line in told.get(name, ()))
    write_if_new(file, lines.encode("utf-8", "surrogateescape"))


class _Job:
    """One subset."""

    def __init__(
        self,
        dataset: Dataset,
        found: Found,
        done: Prepared,
        tree: Tree,
        out: Path,
        crop: Crop | str | None,
        copy: bool,
        workers: int,
        progress: Callable[[str, int, int], None],
    ):
        self.found, self.done, self.tree, self.copy, self.workers = found, done, tree, copy, workers
        self.subset: Subset = found.subset
        self.folder = out / found.subset.name
        self.progress = progress
        if found.layout.cut or found.subset.split != "train":
            self.crop = None
        else:
            self.crop = found.subset.crop if crop == AS_PUBLISHED else crop
        self.scales = {role: self.subset.scale(role) for role in found.roles if role != "gt"}
        size = None if self.crop is None else [self.crop.size, self.crop.step]
        settings = {"dataset": dataset.name, "crop": size, "copy": copy}
        self.private = out / ".prepare"
        self.slug = found.subset.name.replace("/", "__")
        self.state = State(self.private / f"{self.slug}.jsonl", settings, tree.root)
        self.fresh = self.state.source in (None, str(tree.root))  # else links point at where the source was
        self.there: dict[str, set[str]] = {}
        self.lock = threading.Lock()

    # -- images

    def images(self) -> list[Record]:
        """Checks, links, cuts; the records of those that are prepared."""
        for role in self.done.roles:
            (self.folder / role).mkdir(parents=True, exist_ok=True)
            self.there[role] = set(os.listdir(self.folder / role))
        records = []
        total = len(self.found.items)
        try:
            for number, (_, record) in enumerate(in_order(self._image, self.found.items, self.workers), start=1):
                known = self.state.records.get(record.key)
                if record is not known:
                    self._remove(known, kept=() if record.problem else self._outputs(record))
                    self.state.add(record)
                if record.problem:
                    self.done.problems.append(record.problem)
                else:
                    records.append(record)
                self.progress(f"{self.subset.name}: images", number, total)
            self.state.settle()
        finally:
            self.state.close()
        self._sweep(records)
        self.done.images = len(records)
        lines = []
        for record in records:
            for output in self._outputs(record):
                if output.role == "gt":
                    height, width, channels = self._shape(record, output)
                    lines.append(f"{output.name} ({height},{width},{channels})\n")
        self.done.pieces = len(lines)
        self.done.written += write_if_new(self.folder / "meta_info.txt", "".join(lines).encode())
        return records

    def _image(self, item: Item) -> Record:
        """Runs in a thread. The record that is known already, if it is the same."""
        known = self.state.records.get(item.key)
        record = self._prepared(item, known)
        return known if known == record else record

    def _prepared(self, item: Item, known: Record | None) -> Record:
        try:
            files = {role: (path, self.tree.stamp(path)) for role, path in item.files.items()}
        except OSError as error:  # a link to nowhere
            files = {role: (path, Stamp(-1, -1)) for role, path in item.files.items()}
            return Record(item.key, files, {}, f"{error.filename} cannot be read ({error.strerror or error})")
        # what was broken is looked at again: that a disk answers now, or a file may be read, leaves its stamp as it was
        whole = known is not None and known.files == files and not known.problem
        if whole and self.fresh and all(output.name in self.there[output.role] for output in self._outputs(known)):
            return known
        read, shapes = {}, {}
        for role, path in item.files.items():
            try:
                read[role] = self.tree.read(path)
                shapes[role] = shape_of(read[role])
            except OSError as error:
                return Record(item.key, files, {}, f"{path} cannot be read ({error.strerror or error})")
            except UserError as error:
                return Record(item.key, files, {}, f"{path}: {error}")
        problem = self._fit(item, shapes)
        if problem:
            return Record(item.key, files, {}, problem)
        record = Record(item.key, files, shapes)
        changed = known is not None and known.files != files
        try:
            self._place(record, read, again=changed or not self.fresh)
        except UserError as error:
            return Record(item.key, files, {}, f"{next(iter(item.files.values()))}: {error}")
        return record

    def _fit(self, item: Item, shapes: Mapping[str, Shape]) -> str:
        for role, scale in self.scales.items():
            gt, lq = shapes["gt"], shapes[role]
            rest = gt.height - lq.height * scale, gt.width - lq.width * scale
            if self.subset.centre and all(0 <= side <= _MARGIN for side in rest):
                continue
            if not all(0 <= side < scale for side in rest):
                return (
                    f"{item.files['gt']} is {gt} and {item.files[role]} {lq} (width x height), which does not fit "
                    f"scale {scale}"
                )
        return ""

    def _outputs(self, record: Record) -> list[_Output]:
        if self.subset.reduce:
            made = {"gt": 1, **{f"lq_x{scale}": scale for scale in self.subset.reduce}}
            return [_Output(role, f"{record.key}.png", scale=scale) for role, scale in made.items()]
        if self.crop is not None:
            in_gt = [[side * self.subset.scale(role) for side in shape[:2]] for role, shape in record.shapes.items()]
            pieces = grid(Shape(*map(min, zip(*in_gt)), 3), self.crop, self.subset.scales)
            return [
                _Output(role, f"{record.key}{piece.suffix}.png", piece) for role in record.files for piece in pieces
            ]
        outputs = [
            _Output(role, record.key + os.path.splitext(path)[1].lower()) for role, (path, _) in record.files.items()
        ]
        if self.subset.centre and record.shapes and record.shapes["gt"][:2] != record.shapes["lq"][:2]:
            gt, lq = record.shapes["gt"], record.shapes["lq"]
            middle = Piece("", (gt.height - lq.height) // 2, (gt.width - lq.width) // 2, lq.height, lq.width)
            outputs[[output.role for output in outputs].index("gt")] = _Output("gt", f"{record.key}.png", middle)
        return outputs

    def _shape(self, record: Record, output: _Output) -> Shape:
        """Of what is written."""
        scale = 1 if output.role == "gt" else self.subset.scale(output.role)
        if output.piece is not None:
            return Shape(output.piece.height // scale, output.piece.width // scale, 3)
        if output.scale is not None:
            height, width = (side // 12 * 12 // output.scale for side in record.shapes["gt"][:2])
            return Shape(height, width, 3)
        return record.shapes[output.role]

    def _place(self, record: Record, read: Mapping[str, bytes], again: bool) -> None:
        decoded = {}
        for output in self._outputs(record):
            if output.name in self.there[output.role] and not again:
                continue
            target = os.path.join(self.folder, output.role, output.name)
            made_of = "gt" if output.scale is not None else output.role
            if output.piece is None and output.scale is None:
                self._whole(target, record.files[output.role][0], read[output.role])
            else:
                if made_of not in decoded:
                    decoded[made_of] = decode(read[made_of], "which")
                image = decoded[made_of]
                if output.piece is not None:
                    scale = 1 if output.role == "gt" else self.subset.scale(output.role)
                    _, top, left, height, width = output.piece
                    image = image[top // scale : (top + height) // scale, left // scale : (left + width) // scale]
                else:
                    image = reduced(image, output.scale)
                with replace_on_success(target) as temporary:
                    temporary.write_bytes(encode(image))
            with self.lock:
                self.done.written += 1

    def _whole(self, target: str, path: str, data: bytes) -> None:
        if not self.copy and not self.tree.contained(path):
            with contextlib.suppress(OSError):  # one is there already, or there can be none
                os.symlink(self.tree.path(path), target)
                return
        with replace_on_success(target) as temporary:
            if self.copy or self.tree.contained(path):
                temporary.write_bytes(data)
                return
            try:
                temporary.symlink_to(self.tree.path(path))
            except OSError:  # Windows asks for a privilege; some file systems have no links
                temporary.write_bytes(data)

    def _remove(self, record: Record | None, kept: Iterable[_Output]) -> None:
        """Removes what was made of an image, but for what is there to stay."""
        if record is None or not record.shapes:
            return
        staying = {(output.role, output.name) for output in kept}
        for role, name in ((output.role, output.name) for output in self._outputs(record)):
            if role in self.there and (role, name) not in staying:
                (self.folder / role / name).unlink(missing_ok=True)
                self.there[role].discard(name)

    def _sweep(self, records: Sequence[Record]) -> None:
        """Removes what an earlier run made of images that are not there now. Other files are left."""
        wanted = {role: set() for role in self.done.roles}
        for record in records:
            for output in self._outputs(record):
                wanted[output.role].add(output.name)
        current = {record.key for record in records}
        for key, record in list(self.state.records.items()):
            if key in current or not record.shapes:
                continue
            self._remove(record, kept=[_Output(role, name) for role, names in wanted.items() for name in names])
            self.state.forget(key)
        for role, names in wanted.items():
            strange = sorted(name for name in self.there[role] - names if not name.startswith("."))
            if strange:
                self.done.problems.append(
                    f"{self.folder / role} has {len(strange)} files that are not from this source, {strange[0]} for "
                    "one; remove them"
                )

    # -- prompts

    def prompts(
        self,
        records: Sequence[Record],
        count: int,
        writer: Callable[[str], Writer],
        writer_name: str,
        jobs: int,
        tell: Callable[[str], None],
    ) -> dict[str, str]:
        """Key of a file -> its line in the prompt file, which is written if it is not as it should be."""
        subset = self.subset
        keys = [record.key for record in records]
        if not keys or not (subset.say or subset.task):
            return {}
        if subset.say:
            said = {key: _drawn(key, subset, count) for key in keys}
        else:
            said = self._asked(keys, count, writer, writer_name, jobs, tell)
        lines = {}
        for record in records:
            for output in self._outputs(record):
                if output.role == "gt":
                    key = os.path.splitext(output.name)[0]
                    lines[key] = PromptEntry(
                        key,
                        tuple(said[record.key]),
                        subset.task,
                        None if subset.say else subset.remove,
                        None if subset.say else subset.present or subset.remove or None,
                    ).to_json()
        data = "".join(f"{line}\n" for line in lines.values()).encode("utf-8")
        self.done.written += write_if_new(self.folder / "prompts.jsonl", data)
        return lines

    def _asked(
        self,
        keys: list[str],
        count: int,
        writer: Callable[[str], Writer],
        writer_name: str,
        jobs: int,
        tell: Callable[[str], None],
    ) -> dict[str, list[str]]:
        """From the writer, once for an image: its sub-images share them."""
        file = self.private / f"{self.slug}.prompts.jsonl"
        settings = self.private / f"{self.slug}.prompts.json"
        subset = self.subset
        wish = json.dumps(
            {"count": count, "split": subset.split, "writer": writer_name, "remove": subset.remove, "keys": len(keys)}
        )
        if file.exists() and settings.exists() and settings.read_text(encoding="utf-8") == wish:
            said = _read_said(file)
            if list(said) == keys:
                return said
        briefs = [Brief(key, subset.remove, subset.present or subset.remove, subset.task) for key in keys]
        write_prompts(
            file,
            briefs,
            writer(subset.split),
            count=count,
            split=subset.split,
            jobs=jobs,
            tell=tell,
            progress=lambda done, total: self.progress(f"{subset.name}: prompts", done, total),
        )
        write_if_new(settings, wish.encode("utf-8"))
        return _read_said(file)

    # -- LMDBs

    def lmdbs(self, records: Sequence[Record], prompts: Mapping[str, str]) -> None:
        """One for each folder; prompts beside the degraded images, or beside the clean ones if there are no others."""
        if not records:
            return
        for role in self.done.roles:
            entries = []
            for record in records:
                stamps = [stamp for _, stamp in record.files.values()]
                for output in self._outputs(record):
                    if output.role == role:
                        key = os.path.splitext(output.name)[0]
                        file = self.folder / role / output.name
                        entries.append(Entry(key, file, self._shape(record, output), (*stamps, output.piece)))
            beside = prompts if role != "gt" or len(self.done.roles) == 1 else {}
            what = f"{self.subset.name}: {role}.lmdb"
            self.done.written += write_lmdb(
                self.folder / f"{role}.lmdb",
                entries,
                beside,
                workers=self.workers,
                progress=functools.partial(self._lmdb_progress, what, len(entries)),
            )

    def _lmdb_progress(self, what: str, total: int, done: int) -> None:
        self.progress(what, done, total)

    def finish(self) -> None:
        if self.done.images == 0 and not self.done.problems:
            self.done.problems.append("no image of it is left")


def _drawn(key: str, subset: Subset, count: int) -> list[str]:
    """Of the subset's own sentences, the same ones each time."""
    rng = random.Random(f"{subset.name} {key}")
    return rng.sample(subset.say, min(count, len(subset.say)))


def _read_said(file: Path) -> dict[str, list[str]]:
    with open(file, encoding="utf-8") as lines:
        return {fields["key"]: fields["prompts"] for fields in map(json.loads, lines)}


def write_if_new(path: Path, data: bytes) -> bool:
    """Writes the file if it would change, removes it if there is nothing to write; whether something was written."""
    if not data:
        path.unlink(missing_ok=True)
        return False
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_on_success(path) as temporary:
        temporary.write_bytes(data)
    return True
