"""`prompt-mamba probe`: how well networks do what they are asked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake

HELP = "measure how well networks follow right, wrong, empty and contradictory prompts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", required=True, metavar="FOLDER", help="clean photographs")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="receives tables and pictures; keeps what was measured"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        default=["tiny"],
        metavar="NAME_OR_PATH",
        help="shipped networks or checkpoints, one column each (default: tiny)",
    )
    parser.add_argument("--crop", type=_pixels, metavar="N", help="only the middle N pixels square of each photograph")
    parser.add_argument("--limit", type=_pixels, metavar="N", help="only the first N photographs")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="degrade by these (default: all nine)")
    parser.add_argument("--per-kind", action="store_true", help="a table of each kind alone, too")
    parser.add_argument("--seed", type=int, default=0, help="another number, another benchmark (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")


def run(args: argparse.Namespace) -> int:
    source, target = (Path(path).expanduser() for path in (args.input, args.output))
    if not source.is_dir():
        raise Mistake(f"no such folder: {str(source)!r}")
    if target.exists() and not target.is_dir():
        raise Mistake(f"{str(target)!r} is a file; the results go into a folder")
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise Mistake("the output folder is inside the input folder, where its pictures would be input; name another")

    from tqdm import tqdm

    from prompt_mamba_arch.probe import draw_sheets, probe, write_report
    from prompt_mamba_arch.probe.report import MARKDOWN

    with tqdm(unit="image", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.refresh()

        found = probe(
            source,
            target,
            args.model,
            crop=args.crop,
            limit=args.limit,
            kinds=args.kinds,
            seed=args.seed,
            per_kind=args.per_kind,
            device=args.device,
            tell=lambda line: tqdm.write(f"prompt-mamba: {line}", file=sys.stderr),
            progress=progress,
        )
    written = [*write_report(found, target), *draw_sheets(found, target)]
    print((target / MARKDOWN).read_text(encoding="utf-8"))
    print(f"written to {str(target)!r}: {', '.join(path.name for path in written)}")
    return 1 if found.failed else 0


def _pixels(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)
