"""`prompt-mamba export`: a network for programs that do not have this package."""

from __future__ import annotations

import argparse
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake

HELP = "write a network as ONNX, torch.export, TorchScript or safetensors"
FORMATS = {"onnx": ".onnx", "torch": ".pt2", "torchscript": ".pt", "safetensors": ".safetensors"}
_TOLERANCE = 1e-3  # of values in [0, 1]; a quarter of a step of 8 bits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--format", choices=FORMATS, help="default: as the file's suffix says, " + ", ".join(FORMATS.values())
    )
    parser.add_argument(
        "--model", default="tiny", metavar="NAME_OR_PATH", help="a shipped network or a checkpoint (default: tiny)"
    )
    parser.add_argument("--opt", metavar="YML", help="the option file that trained it, for checkpoints that need it")
    parser.add_argument("--half", action="store_true", help="safetensors in float16")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")


def run(args: argparse.Namespace) -> int:
    target = Path(args.output).expanduser()
    by_suffix = {suffix: kind for kind, suffix in FORMATS.items()}
    kind = args.format or by_suffix.get(target.suffix.lower())
    if kind is None:
        raise Mistake(
            f"the suffix of {target.name!r} is none of {', '.join(by_suffix)}; say which --format it shall be"
        )
    if target.suffix.lower() in by_suffix and by_suffix[target.suffix.lower()] != kind:
        raise Mistake(f"{target.name!r} would be taken for another format; {kind} files end in {FORMATS[kind]}")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise Mistake(
            f"{str(target)!r} cannot be a file: " + ("it is a folder" if target.is_dir() else "no such folder")
        )
    if target.exists() and not args.overwrite:
        raise Mistake(f"{str(target)!r} exists already; add --overwrite to replace it")

    from prompt_mamba_arch.export import export

    difference = export(args.model, target, kind, option_file=args.opt, half=args.half)
    size = f"{target.stat().st_size / 1e6:.1f} MB"
    if difference is None:
        print(f"{str(target)!r} written ({kind}, {size}); it was not tried, as onnxruntime is not installed")
        return 0
    what = "weights differ" if kind == "safetensors" else "results differ from the network's"
    print(f"{str(target)!r} written ({kind}, {size}); its {what} by {difference:.1e} at most")
    return 0 if difference < _TOLERANCE or args.half else 1
