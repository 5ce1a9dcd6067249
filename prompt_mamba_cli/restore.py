"""`prompt-mamba restore`: photographs, one or a folder of them."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake, strength, tile

HELP = "restore a photograph, or all in a folder"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # those of prompt_mamba_arch.image_io


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", required=True, metavar="IN", help="a photograph or a folder of them")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="a file or a folder")
    parser.add_argument("-p", "--prompt", help="what to do, in plain words; without it: remove whatever is wrong")
    parser.add_argument(
        "--model", default="tiny", metavar="NAME_OR_PATH", help="a shipped network or a checkpoint (default: tiny)"
    )
    parser.add_argument(
        "--opt",
        metavar="YML",
        help="the option file that trained the network, for checkpoints that do not say what they hold (BasicSR's own)",
    )
    parser.add_argument(
        "--strength", type=strength, default=1.0, metavar="S", help="scales what is changed, 0 to 2 (default: 1)"
    )
    parser.add_argument(
        "--tile", type=tile, default="auto", metavar="auto|none|N", help="side of the tiles in pixels (default: auto)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")


def run(args: argparse.Namespace) -> int:
    source, target = (Path(path).expanduser() for path in (args.input, args.output))
    folder = source.is_dir()
    jobs = _folder_jobs(source, target) if folder else _file_job(source, target, args.output)
    _check_targets(jobs, args.overwrite)

    from tqdm import tqdm

    from prompt_mamba_arch.errors import plain_line
    from prompt_mamba_arch.restore import Restorer

    restorer = Restorer.from_pretrained(args.model, args.device, args.opt)
    notes = _check_prompt(restorer, args.prompt)  # once, not for every image
    failed = 0
    # bars only on a terminal: elsewhere stderr holds what went wrong, and nothing else
    with tqdm(total=len(jobs), unit="image", disable=None if folder else True) as images:
        for note in notes:
            tqdm.write(f"prompt-mamba: {note}", file=sys.stderr)
        for original, restored in jobs:
            try:
                _restore_one(restorer, original, restored, args, show_tiles=not folder)
            except Exception as error:
                line = "not enough memory for this image" if isinstance(error, MemoryError) else plain_line(error)
                if line is None or not folder:
                    raise
                failed += 1
                where = "" if str(original) in line else f"{str(original)!r}: "
                tqdm.write(f"prompt-mamba: {where}{line}", file=sys.stderr)
            images.update()
    request = f"{args.prompt!r}" if args.prompt and args.prompt.strip() else "no prompt, so whatever is wrong"
    done = f"{len(jobs) - failed} of {len(jobs)} images" if folder else repr(str(source))
    print(f"{done} restored to {str(jobs[0][1] if not folder else target)!r} ({restorer.device}; {request})")
    return 1 if failed else 0


def _check_prompt(restorer, prompt: str | None) -> list[str]:
    """Warnings about it, in plain words; UserError if the network cannot follow any."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        restorer.embed(prompt)
    return [" ".join(str(warning.message).split()) for warning in caught]


def _restore_one(restorer, original: Path, restored: Path, args: argparse.Namespace, show_tiles: bool) -> None:
    from tqdm import tqdm

    from prompt_mamba_arch.image_io import read_photo, write_photo

    photo = read_photo(original)
    with tqdm(unit="tile", disable=None if show_tiles else True, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.refresh()

        pixels = restorer.restore(photo.pixels, args.prompt, args.strength, args.tile, progress)
    restored.parent.mkdir(parents=True, exist_ok=True)
    for note in (*photo.notes, *write_photo(restored, photo.with_pixels(pixels))):
        tqdm.write(f"prompt-mamba: {str(original)!r}: {note}", file=sys.stderr)


def _folder_jobs(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """(photograph, where its restoration goes) for all below a folder."""
    if target.exists() and not target.is_dir():
        raise Mistake(f"{str(target)!r} is a file, and a folder is restored into a folder")
    here, there = source.resolve(), target.resolve()
    if here == there:
        raise Mistake("the output folder is the input folder; name another one, so that no original is lost")
    found = []
    for folder, inside, files in os.walk(source):
        # what is hidden is not the user's photographs, and results of an earlier run are not input
        inside[:] = [name for name in inside if not name.startswith(".") and Path(folder, name).resolve() != there]
        photos = [name for name in files if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
        found += [Path(folder, name) for name in photos]
    if not found:
        raise Mistake(f"the folder {str(source)!r} holds no images ({', '.join(SUFFIXES)})")
    return [(path, target / path.relative_to(source)) for path in sorted(found, key=_natural)]


def _file_job(source: Path, target: Path, output: str) -> list[tuple[Path, Path]]:
    if not source.is_file():
        raise Mistake(f"no such file or folder: {str(source)!r}")
    if target.is_dir() or output.endswith(("/", os.sep)):
        target = target / source.name
    if target.suffix.lower() not in SUFFIXES:
        raise Mistake(f"cannot write {target.name!r}: its suffix must be one of {', '.join(SUFFIXES)}")
    return [(source, target)]


def _check_targets(jobs: Iterable[tuple[Path, Path]], overwrite: bool) -> None:
    """Before any work is done: no original is overwritten, nothing else unasked, and the folder can be written to."""
    there = [target for _, target in jobs if target.exists()]
    if there:
        originals = {_identity(source): source for source, _ in jobs}
        for target in there:
            if _identity(target) in originals:
                raise Mistake(f"the output {str(target)!r} is an input; name another, so that no original is lost")
        if not overwrite:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise Mistake(f"{str(there[0])!r}{more} exists already; add --overwrite to replace it")
    for folder in {target.parent for _, target in jobs}:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise Mistake(f"{str(nearest)!r} is a file, not a folder to write into")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise Mistake(f"the folder {str(nearest)!r} cannot be written to")


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file: links, other cases of letters where the disk ignores them."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _natural(path: Path) -> list:
    """2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path).lower())]
