"""The command `prompt-mamba`: restore photographs, train, test.

Nothing of the package is imported at the top: it takes seconds, and help and mistakes in the arguments come at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["main"]

_EXAMPLES = """examples:
  prompt-mamba restore -i photo.jpg -o better.png -p "take the grain out" --model net_g_latest.pth
  prompt-mamba restore -i holiday/ -o holiday_restored/ --model net_g_latest.pth
  prompt-mamba train -opt options/train/PromptMamba/train_PromptMamba_tiny_phase1.yml
  prompt-mamba test -opt options/test/PromptMamba/test_PromptMamba_tiny.yml
"""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # those of image_io.SUFFIXES
_MIN_TILE = 64  # that of restore.py


class _Mistake(Exception):
    """In the arguments; the text is the line to print."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 if some images of a folder failed; 2 after a mistake; 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv and argv[0] in ("train", "test"):  # their flags are BasicSR's
            from prompt_mamba_arch import test, train

            return (train if argv[0] == "train" else test).main(argv[1:])
        return _restore(_parser().parse_args(argv))
    except KeyboardInterrupt:
        return _refuse("interrupted", 130)
    except MemoryError:
        return _refuse("not enough memory for this image", 2)
    except _Mistake as error:
        return _refuse(str(error), 2)
    except Exception as error:
        from prompt_mamba_arch.errors import plain_line

        line = plain_line(error)
        if line is None:
            raise
        return _refuse(line, 2)


def _refuse(line: str, code: int) -> int:
    print(f"prompt-mamba: {line}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"prompt-mamba: {' '.join(message.split())} (see {self.prog} --help)\n")


def _strength(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 2, not {text!r}")
    return value


def _tile(text: str) -> str | int:
    if text in ("auto", "none"):
        return text
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < _MIN_TILE:
        raise argparse.ArgumentTypeError(f"must be auto, none or a number of pixels from {_MIN_TILE} on, not {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="prompt-mamba",
        description="Restores photographs as a sentence asks.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    restore = commands.add_parser("restore", help="restore a photograph, or all in a folder", allow_abbrev=False)
    restore.add_argument("-i", "--input", required=True, metavar="IN", help="a photograph or a folder of them")
    restore.add_argument("-o", "--output", required=True, metavar="OUT", help="a file or a folder")
    restore.add_argument("-p", "--prompt", help="what to do, in plain words; without it: remove whatever is wrong")
    restore.add_argument(
        "--model", default="tiny", metavar="NAME_OR_PATH", help="a shipped network or a checkpoint (default: tiny)"
    )
    restore.add_argument(
        "--opt",
        metavar="YML",
        help="the option file that trained the network, for checkpoints that do not say what they hold (BasicSR's own)",
    )
    restore.add_argument(
        "--strength", type=_strength, default=1.0, metavar="S", help="scales what is changed, 0 to 2 (default: 1)"
    )
    restore.add_argument(
        "--tile", type=_tile, default="auto", metavar="auto|none|N", help="side of the tiles in pixels (default: auto)"
    )
    restore.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    restore.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    commands.add_parser("train", help="train as an option file says (BasicSR's flags: -opt FILE ...)", add_help=False)
    commands.add_parser("test", help="test as an option file says (BasicSR's flags: -opt FILE ...)", add_help=False)
    return parser


def _restore(args: argparse.Namespace) -> int:
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
        raise _Mistake(f"{str(target)!r} is a file, and a folder is restored into a folder")
    here, there = source.resolve(), target.resolve()
    if here == there:
        raise _Mistake("the output folder is the input folder; name another one, so that no original is lost")
    found = []
    for folder, inside, files in os.walk(source):
        # what is hidden is not the user's photographs, and results of an earlier run are not input
        inside[:] = [name for name in inside if not name.startswith(".") and Path(folder, name).resolve() != there]
        photos = [name for name in files if not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES]
        found += [Path(folder, name) for name in photos]
    if not found:
        raise _Mistake(f"the folder {str(source)!r} holds no images ({', '.join(_SUFFIXES)})")
    return [(path, target / path.relative_to(source)) for path in sorted(found, key=_natural)]


def _file_job(source: Path, target: Path, output: str) -> list[tuple[Path, Path]]:
    if not source.is_file():
        raise _Mistake(f"no such file or folder: {str(source)!r}")
    if target.is_dir() or output.endswith(("/", os.sep)):
        target = target / source.name
    if target.suffix.lower() not in _SUFFIXES:
        raise _Mistake(f"cannot write {target.name!r}: its suffix must be one of {', '.join(_SUFFIXES)}")
    return [(source, target)]


def _check_targets(jobs: Iterable[tuple[Path, Path]], overwrite: bool) -> None:
    """Before any work is done: no original is overwritten, nothing else unasked, and the folder can be written to."""
    there = [target for _, target in jobs if target.exists()]
    if there:
        originals = {_identity(source): source for source, _ in jobs}
        for target in there:
            if _identity(target) in originals:
                raise _Mistake(f"the output {str(target)!r} is an input; name another, so that no original is lost")
        if not overwrite:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise _Mistake(f"{str(there[0])!r}{more} exists already; add --overwrite to replace it")
    for folder in {target.parent for _, target in jobs}:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            raise _Mistake(f"{str(nearest)!r} is a file, not a folder to write into")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise _Mistake(f"the folder {str(nearest)!r} cannot be written to")


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of one file: links, other cases of letters where the disk ignores them."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _natural(path: Path) -> list:
    """2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path).lower())]
