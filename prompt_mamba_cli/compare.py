"""`prompt-mamba compare`: methods beside each other, as an option file says."""

from __future__ import annotations

import argparse
import shlex
import sys

HELP = "compare methods on the same pixels: tables, significance, pictures, quality against cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-opt", required=True, metavar="YML", help="option file; options/compare has some, commented")
    parser.add_argument(
        "--force_yml", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="for example limit=5"
    )


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from prompt_mamba_arch.compare import compare, read_plan, write_comparison

    plan = read_plan(args.opt, args.force_yml)
    with tqdm(unit="image", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        found = compare(plan, tell=lambda line: tqdm.write(f"prompt-mamba: {line}", file=sys.stderr), progress=progress)
    words = ["prompt-mamba", "compare", "-opt", args.opt]
    command = shlex.join(words + (["--force_yml", *args.force_yml] if args.force_yml else []))
    written = write_comparison(found, command)
    print((plan.output / "table.md").read_text(encoding="utf-8"))
    names = (f"{path.name}/" if path.is_dir() else path.name for path in written)
    print(f"written to {str(plan.output)!r}: {', '.join(names)}")
    return 1 if found.failed else 0
