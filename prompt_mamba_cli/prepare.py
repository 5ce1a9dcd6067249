"""`prompt-mamba prepare`: from a downloaded dataset to what an option file points at."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from prompt_mamba_cli import prompts
from prompt_mamba_cli.arguments import Mistake, count

HELP = "turn a downloaded dataset (GoPro, DIV2K, LSDIR ...) into what an option file points at"
_MOST_PROBLEMS = 20  # lines for each subset; all of them are in problems.txt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="NAME", help="gopro, div2k, lsdir ...; list shows all; demo makes a small set of its own"
    )
    parser.add_argument("--source", metavar="DIR", help="where the archives were unpacked; it is only read")
    parser.add_argument("--out", metavar="DIR", help="receives the prepared data")
    parser.add_argument("--about", action="store_true", help="show where to get the dataset and how it unpacks")
    parser.add_argument("--lmdb", action="store_true", help="also make LMDBs, with the prompts in them")
    parser.add_argument(
        "--workers", type=count, default=min(8, os.cpu_count() or 1), metavar="N",
        help="images at a time (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", default=(), metavar="SUBSET", help="such as train, or v1/test")
    parser.add_argument("--copy", action="store_true", help="copy files instead of linking to them")
    parser.add_argument(
        "--crop", type=_crop, default="as published", metavar="SIZE[:STEP]",
        help="sub-images for training, pixels of the clean image; none for whole images (default: as published)",
    )  # fmt: skip
    parser.add_argument(
        "--partial", action="store_true", help="a part of the dataset is enough: do not compare with published numbers"
    )
    parser.add_argument("--task", metavar="NAME", help="of the prompts, for pairs: denoise, deblur, dejpeg, sr ...")
    parser.add_argument(
        "--prompts", type=_number, default=4, metavar="N", help="for each image, 0 for no prompt file (default: 4)"
    )
    prompts.add_writer_arguments(parser)
    parser.add_argument("--photo-only", action="store_true", help="demo: one degraded photograph, nothing to train on")


def run(args: argparse.Namespace) -> int:
    if args.name == "list":
        return _list()
    if args.name == "demo":
        return _demo(args)
    from prompt_mamba_arch.prepare import dataset

    one = dataset(args.name)
    if args.about:
        print(one.about.rstrip())
        return 0
    if args.photo_only:
        raise Mistake("--photo-only is for prepare demo")
    if args.source is None or args.out is None:
        raise Mistake(f"prepare {one.name} needs --source DIR and --out DIR (--about tells where to get it)")
    return _prepare(args, one)


def _prepare(args: argparse.Namespace, one) -> int:
    from tqdm import tqdm

    from prompt_mamba_arch.prepare import Crop, prepare

    url, model = prompts.server(args)
    crop = args.crop if args.crop is None or isinstance(args.crop, str) else Crop(*args.crop)
    writers: dict[str, object] = {}

    def writer(split: str):
        if split not in writers:  # a local model is loaded once
            writers[split] = prompts.writer(args, url, model, split)
        return writers[split]

    with _Bars() as bars:
        done = prepare(
            one,
            args.source,
            args.out,
            only=args.only,
            crop=crop,
            lmdb=args.lmdb,
            copy=args.copy,
            partial=args.partial,
            task=args.task,
            count=args.prompts,
            writer=writer,
            writer_name=" ".join(filter(None, (args.writer, model))),
            jobs=args.jobs,
            workers=args.workers,
            tell=lambda line: tqdm.write(f"prompt-mamba: {line}", file=sys.stderr),
            progress=bars,
        )
    for subset in done:
        _report(subset)
    problems = sum(len(subset.problems) for subset in done)
    if problems:
        print(
            f"prompt-mamba: {problems} problems, all in {str(Path(args.out) / 'problems.txt')!r}; the rest is prepared",
            file=sys.stderr,
        )
    return 1 if problems else 0


class _Bars:
    """One progress bar after another, for each thing that is done."""

    def __init__(self):
        self._bar, self._what = None, ""

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if what != self._what:
            self.close()
            self._bar, self._what = tqdm(desc=what, total=total, unit="image", disable=None), what
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def _report(subset) -> None:
    if not subset.layout:
        print(f"{subset.name}: not there")
        return
    what = "images" if subset.roles == ("gt",) else "pairs"
    pieces = f", {subset.pieces} sub-images" if subset.pieces != subset.images else ""
    news = f"{subset.written} files written" if subset.written else "nothing to do"
    print(f"{subset.name}: {subset.images} {what}{pieces} in {', '.join(subset.roles)} ({subset.layout}); {news}")
    for note in subset.notes:
        print(f"{subset.name}: {note}")
    for problem in subset.problems[:_MOST_PROBLEMS]:
        print(f"prompt-mamba: {subset.name}: {problem}", file=sys.stderr)
    if len(subset.problems) > _MOST_PROBLEMS:
        print(f"prompt-mamba: {subset.name}: and {len(subset.problems) - _MOST_PROBLEMS} more", file=sys.stderr)


def _list() -> int:
    from prompt_mamba_arch.prepare import dataset, dataset_names

    for name in dataset_names():
        print(f"{name:14} {dataset(name).about.splitlines()[0]}")
    print(f"{'demo':14} Demo: photographs that scikit-image ships, degraded; for the quickstart and for tests.")
    return 0


def _demo(args: argparse.Namespace) -> int:
    if args.out is None and not args.about:
        raise Mistake("prepare demo needs --out DIR")
    if args.source is not None:
        raise Mistake("prepare demo has its own photographs; leave out --source")
    from tqdm import tqdm

    from prompt_mamba_arch.prepare.demo import ABOUT, make_demo

    if args.about:
        print(ABOUT)
        return 0
    with tqdm(unit="file", desc="demo", disable=None) as bar:
        made = make_demo(args.out, photo_only=args.photo_only, lmdb=args.lmdb, progress=bar.update)
    print(f"{made} files written to {args.out!r}" if made else f"{args.out!r}: nothing to do")
    return 0


def _crop(text: str) -> tuple[int, int] | str | None:
    if text == "none":
        return None
    if text == "as published":
        return text
    parts = re.fullmatch(r"([0-9]{1,5})(?::([0-9]{1,5}))?", text)
    if parts is None or not 0 < int(parts[1]) or not 0 < int(parts[2] or 1) <= int(parts[1]):
        raise argparse.ArgumentTypeError(f"must be none, or pixels such as 480 or 480:240 (size:step), not {text!r}")
    return int(parts[1]), int(parts[2] or parts[1])


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text!r}")
    return int(text)
