"""The command `prompt-mamba`: restore photographs, train, test."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from prompt_mamba_arch.errors import UserError, plain_line

__all__ = ["main"]

_EXAMPLES = """examples:
  prompt-mamba restore -i photo.jpg -o better.png -p "take the grain out" --model net_g_latest.pth
  prompt-mamba restore -i holiday/ -o holiday_restored/ --model net_g_latest.pth
  prompt-mamba train -opt options/train/PromptMamba/train_PromptMamba_tiny_phase1.yml
  prompt-mamba test -opt options/test/PromptMamba/test_PromptMamba_tiny.yml
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 if some images of a folder failed; 2 after a mistake; 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in ("train", "test"):  # their flags are BasicSR's
        from prompt_mamba_arch import test, train

        return (train if argv[0] == "train" else test).main(argv[1:])
    args = _parser().parse_args(argv)
    try:
        return _restore(args)
    except KeyboardInterrupt:
        print("prompt-mamba: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(f"prompt-mamba: {line}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"prompt-mamba: {message} (see {self.prog} --help)\n")


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
        "--strength", type=float, default=1.0, metavar="S", help="scales what is changed, 0 to 2 (default: 1)"
    )
    restore.add_argument(
        "--tile", default="auto", metavar="auto|none|N", help="side of the tiles in pixels (default: auto)"
    )
    restore.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    restore.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    commands.add_parser("train", help="train as an option file says (BasicSR's flags: -opt FILE ...)", add_help=False)
    commands.add_parser("test", help="test as an option file says (BasicSR's flags: -opt FILE ...)", add_help=False)
    return parser


def _restore(args: argparse.Namespace) -> int:
    jobs = _jobs(Path(args.input).expanduser(), args.output, args.overwrite)
    tile = int(args.tile) if re.fullmatch(r"\d+", args.tile) else args.tile
    if tile not in ("auto", "none") and not isinstance(tile, int):
        raise UserError(f"--tile must be auto, none or a number of pixels, not {args.tile!r}")
    if not 0 <= args.strength <= 2:
        raise UserError(f"--strength must be from 0 to 2, not {args.strength:g}")

    # here, so that mistakes in the arguments are told at once
    from tqdm import tqdm

    from prompt_mamba_arch.restore import Restorer

    restorer = Restorer.from_pretrained(args.model, args.device)
    request = f'"{args.prompt}"' if args.prompt and args.prompt.strip() else "no prompt, so whatever is wrong"
    print(f"{restorer.name} on {restorer.device}: {request}", file=sys.stderr)
    failed = 0
    many = len(jobs) > 1
    with tqdm(total=len(jobs), unit="image", disable=not many) as images:
        for source, target in jobs:
            try:
                _restore_one(restorer, source, target, args, tile, show_tiles=not many)
            except Exception as error:
                line = plain_line(error)
                if line is None or not many:
                    raise
                failed += 1
                tqdm.write(f"prompt-mamba: {line}", file=sys.stderr)
            images.update()
    if many:
        print(f"{len(jobs) - failed} of {len(jobs)} images restored to {args.output}", file=sys.stderr)
    else:
        print(f"restored to {jobs[0][1]}", file=sys.stderr)
    return 1 if failed else 0


def _restore_one(restorer, source: Path, target: Path, args: argparse.Namespace, tile, show_tiles: bool) -> None:
    from tqdm import tqdm

    from prompt_mamba_arch.image_io import read_photo, write_photo

    photo = read_photo(source)
    with tqdm(unit="tile", disable=not show_tiles, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.refresh()

        pixels = restorer.restore(photo.pixels, args.prompt, args.strength, tile, progress)
    target.parent.mkdir(parents=True, exist_ok=True)
    for note in (*photo.notes, *write_photo(target, photo.with_pixels(pixels))):
        tqdm.write(f"{source.name}: {note}", file=sys.stderr)


def _jobs(source: Path, output: str, overwrite: bool) -> list[tuple[Path, Path]]:
    """(photograph, where its restoration goes), checked before any work is done."""
    from prompt_mamba_arch.image_io import SUFFIXES

    target = Path(output).expanduser()
    if source.is_dir():
        files = [p for p in source.rglob("*") if p.is_file() and not p.name.startswith(".")]
        found = [p for p in files if p.suffix.lower() in SUFFIXES and target.resolve() not in p.resolve().parents]
        if not found:
            raise UserError(f"the folder {str(source)!r} holds no images ({', '.join(SUFFIXES)})")
        if target.exists() and not target.is_dir():
            raise UserError(f"{output!r} is a file, and a folder is restored into a folder")
        if target.resolve() == source.resolve():
            raise UserError("the output folder is the input folder; name another one, so that no original is lost")
        jobs = [(p, target / p.relative_to(source)) for p in sorted(found, key=_natural)]
    elif source.exists():
        if target.is_dir() or output.endswith(("/", "\\")):
            target = target / source.name
        if target.suffix.lower() not in SUFFIXES:
            raise UserError(f"cannot write {target.name!r}: its suffix must be one of {', '.join(SUFFIXES)}")
        if target.exists() and target.resolve() == source.resolve():
            raise UserError("the output is the input; name another file, so that the original is not lost")
        jobs = [(source, target)]
    else:
        raise UserError(f"no such file or folder: {str(source)!r}")
    there = [target for _, target in jobs if target.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{str(there[0])!r}{more} exists already; add --overwrite to replace it")
    return jobs


def _natural(path: Path) -> list:
    """2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path).lower())]
