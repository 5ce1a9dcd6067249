#!/usr/bin/env python
"""Measures a network on public test sets and writes its model card.

    python scripts/model_card.py --model tiny --eval datasets/eval -o MODEL_CARD.md
    python scripts/model_card.py --model net_g_latest.pth --eval datasets/eval -o card.md --quick --parts noise requests

The folder of --eval holds the sets as folders: CBSD68, LIVE1, Set5 (HR, LR_bicubic/X2 and X4), Rain100L_sample (input,
target), SOTS_outdoor_sample (hazy, clear), CC15_part and PolyU_part (noisy, clean). What is not there is left out, and
the card says so. What has been measured is kept in --work and not measured again.

The record of the training is read from the .safetensors file's metadata `training`, or from --training: a JSON object
with `data` (a text, or a list of objects such as {"name", "images", "licence", "source"}), `phases` (a list of {"name",
"iterations", "hours", "validation"}, the last a list of [hours, iteration, dB]) or `curve` (a list of [hours, dB]), and
whatever else is to be said, such as `hardware`. scripts/ship_weights.py writes such records.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prompt_mamba_arch.errors import UserError, check_keys, plain_line
from prompt_mamba_arch.model_card.card import write_card
from prompt_mamba_arch.model_card.measure import PARTS, measure_all, training_record
from prompt_mamba_arch.model_card.speed import MEGAPIXELS

QUICK = 6  # images of each set


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH")
    parser.add_argument("--eval", required=True, metavar="DIR", help="holds the test sets")
    parser.add_argument("-o", "--output", required=True, metavar="CARD.md")
    parser.add_argument("--images", default="docs/images", help="folder for pictures, from the card's own")
    parser.add_argument("--work", default="results/model_card", metavar="DIR", help="keeps what was measured")
    parser.add_argument("--training", metavar="JSON", help="the record of the training, where the weights hold none")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--megapixels", nargs="+", type=float, default=list(MEGAPIXELS), help="sizes to be timed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--probed", type=int, metavar="N", help="only N images for the requests (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"a trial on the first {QUICK} images of each set")
    args = parser.parse_args(argv)
    try:
        check_keys(dict.fromkeys(args.parts), PARTS, "--parts")
        if not Path(args.eval).is_dir():
            raise UserError(f"no such folder: {args.eval!r}")
        record = training_record(args.model) if args.training is None else _read_record(args.training)
        found = measure_all(
            args.model,
            Path(args.eval),
            Path(args.work),
            limit=QUICK if args.quick else None,
            probed=args.probed,
            parts=args.parts,
            megapixels=[size for size in args.megapixels if size <= 1 or not args.quick],
            device=args.device,
            tell=lambda line: print(f"model_card: {line}", file=sys.stderr),
        )
        # without the places of one machine
        words = ["python", "scripts/model_card.py", "--model", Path(args.model).name, "--eval", "EVAL", "-o", "CARD.md"]
        words += ["--quick"] * args.quick + (["--probed", str(args.probed)] if args.probed else [])
        command = shlex.join(words)
        for path in write_card(found, record, args.output, args.images, command):
            print(path)
    except KeyboardInterrupt:
        print("model_card: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(f"model_card: {line}", file=sys.stderr)
        return 2
    return 0


def _read_record(path: str) -> dict:
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path!r} must hold a JSON object")
    return record


if __name__ == "__main__":
    raise SystemExit(main())
