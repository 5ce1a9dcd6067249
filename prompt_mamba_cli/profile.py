"""`prompt-mamba profile`: what networks cost."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake, count

HELP = "measure networks: parameters, operations with those of the scans, activations, memory, latency"
_SUFFIXES = (".md", ".csv", ".json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "networks", nargs="*", default=["tiny"], metavar="NETWORK",
        help="a shipped network's name, a checkpoint, an option file, a registered architecture (SwinIR), or its "
        "arguments as YAML: '{type: SwinIR, upscale: 4}' (default: tiny)",
    )  # fmt: skip
    parser.add_argument(
        "--size", nargs="+", type=_size, default=[(256, 256)], metavar="N|WxH", help="pixels (default: 256)"
    )
    parser.add_argument("--rounds", type=_rounds, default=7, metavar="N", help="runs of each, 0 for none (default: 7)")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="of the CPU (default: 1)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory, which takes a process each")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("-o", "--output", metavar="FILE", help=f"also write a file: {', '.join(_SUFFIXES)}")


def run(args: argparse.Namespace) -> int:
    target = None if args.output is None else Path(args.output).expanduser()
    if target is not None:
        if target.suffix.lower() not in _SUFFIXES:
            raise Mistake(f"the suffix of {target.name!r} is none of {', '.join(_SUFFIXES)}")
        if not target.absolute().parent.is_dir():
            raise Mistake(f"no such folder: {str(target.parent)!r}")

    from tqdm import tqdm

    from prompt_mamba_arch.complexity import profile, to_markdown

    runs = args.rounds and args.rounds + 1
    total = len(args.networks) * len(args.size) * (1 + runs + (not args.no_memory))
    with tqdm(total=total, disable=None, leave=False) as bar:
        found = profile(
            args.networks,
            args.size,
            rounds=args.rounds,
            threads=args.threads,
            device=args.device,
            memory=not args.no_memory,
            tell=lambda line: tqdm.write(f"prompt-mamba: {line}", file=sys.stderr),
            tick=bar.update,
        )
    text = to_markdown(found)
    print(text, end="")
    if target is not None:
        _write(target, found, text)
    return 0


def _write(target: Path, found: list, text: str) -> None:
    import csv
    import io
    import json

    from prompt_mamba_arch.complexity.profile import to_rows
    from prompt_mamba_arch.errors import replace_on_success

    rows = to_rows(found)
    if target.suffix.lower() == ".json":
        text = json.dumps(rows, indent=1) + "\n"
    elif target.suffix.lower() == ".csv":
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    with replace_on_success(target) as path:
        path.write_text(text, encoding="utf-8")


def _size(text: str) -> tuple[int, int]:
    """(height, width)"""
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    width, height = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not (width and height):
        raise argparse.ArgumentTypeError(f"must be pixels, 256 or 1920x1080, not {text!r}")
    return height, width


def _rounds(text: str) -> int:
    return 0 if text == "0" else count(text)
