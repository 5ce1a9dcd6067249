"""`prompt-mamba pnp`: reconstruction from a known operator."""

from __future__ import annotations

import argparse
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake, count

HELP = "reconstruct an image when it is known what was done to it: holes, a blur, a reduction (extra pnp)"
_OPERATORS = ("inpaint", "blur", "sr")
_ALGORITHMS = ("dpir", "diffpir", "ddrm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", required=True, metavar="FILE", help="the damaged image")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--operator", required=True, choices=_OPERATORS, help="what was done to it")
    parser.add_argument("--mask", metavar="FILE", help="inpaint: an image, bright where something is to be filled")
    kernel = parser.add_mutually_exclusive_group()
    kernel.add_argument("--kernel", metavar="FILE", help="blur: the kernel as an image")
    kernel.add_argument("--blur", type=_number, metavar="S", help="blur: a Gaussian of that sigma, in pixels")
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), help="sr: how many times larger")
    parser.add_argument("--noise", type=_number, default=2.0, metavar="S", help="its noise, of 255 (default: 2)")
    parser.add_argument("--algorithm", choices=_ALGORITHMS, default="dpir", help="of deepinv (default: dpir)")
    parser.add_argument("--steps", type=count, metavar="N", help="of diffpir and ddrm (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of what diffpir and ddrm draw (default: 0)")
    parser.add_argument("-p", "--prompt", default="remove the noise", help="how the network is asked to denoise")
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="the denoiser (default: tiny)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")


def run(args: argparse.Namespace) -> int:
    needed = {"inpaint": args.mask, "blur": args.kernel or args.blur, "sr": args.scale}
    flags = {"inpaint": "--mask", "blur": "--kernel or --blur", "sr": "--scale"}
    if needed[args.operator] is None:
        raise Mistake(f"--operator {args.operator} needs {flags[args.operator]}")
    for name, value in needed.items():
        if name != args.operator and value is not None:
            raise Mistake(f"{flags[name]} is for --operator {name}")
    target = Path(args.output).expanduser()
    if not target.absolute().parent.is_dir():
        raise Mistake(f"no such folder: {str(target.parent)!r}")

    import dataclasses

    import numpy as np

    from prompt_mamba_arch import pnp
    from prompt_mamba_arch.classical import gaussian_kernel
    from prompt_mamba_arch.image_io import read_photo, write_photo
    from prompt_mamba_arch.restore import Restorer

    photo = read_photo(args.input)
    full = np.iinfo(photo.pixels.dtype).max
    image = photo.pixels.astype(np.float32) / full
    if photo.alpha is not None:
        raise Mistake(f"{args.input!r} must be an image without transparency")
    denoiser = pnp.as_denoiser(Restorer.from_pretrained(args.model, args.device), args.prompt)
    options = {"sigma": args.noise / 255, "algorithm": args.algorithm, "steps": args.steps, "seed": args.seed}
    if args.operator == "inpaint":
        mask = read_photo(args.mask).pixels
        found = pnp.inpaint(denoiser, image, mask.mean(axis=2) < np.iinfo(mask.dtype).max / 2, **options)
    elif args.operator == "blur":
        kernel = gaussian_kernel(args.blur) if args.kernel is None else read_photo(args.kernel).pixels.mean(axis=2)
        found = pnp.deblur(denoiser, image, kernel, **options)
    else:
        found = pnp.enlarge(denoiser, image, args.scale, **options)
    pixels = np.rint(found * full).astype(photo.pixels.dtype)
    for line in write_photo(target, dataclasses.replace(photo, pixels=pixels)):
        print(f"prompt-mamba: {line}")
    print(f"written to {str(target)!r}: {pixels.shape[1]} x {pixels.shape[0]} pixels")
    return 0


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 255:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value
