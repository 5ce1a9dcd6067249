"""`prompt-mamba ntire`: what a team hands in to an NTIRE challenge."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake

HELP = "write an NTIRE submission: the network in one file, its weights, the archive of results"

# track -> the organisers' script, as in prompt_mamba_arch.ntire
_TRACKS = {"esr": "test_demo.py", "sr_x4": "test.py", "dn50": "test_demo.py"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--track", required=True, choices=tuple(_TRACKS),
        help="esr: efficient super-resolution x4; sr_x4: super-resolution x4; dn50: denoising, sigma 50",
    )  # fmt: skip
    parser.add_argument("--team", required=True, type=_team, metavar="N", help="the team's number, 1 to 99")
    parser.add_argument("--name", required=True, help="the network's name: letters and digits")
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="CKPT",
        help="the trained network, .pth or .safetensors, or a run's folder",
    )
    parser.add_argument("--opt", metavar="YML", help="the option file that trained it")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="receives the files")
    parser.add_argument("-p", "--prompt", help="a request that the network shall always follow (default: none)")
    parser.add_argument(
        "--template",
        metavar="FOLDER",
        help="a clone of the organisers' repository: put the files and the branch there, too",
    )
    parser.add_argument(
        "-i", "--input", metavar="FOLDER", help="the challenge's images: also write their results, for Codabench"
    )
    parser.add_argument("--target", metavar="FOLDER", help="what the results should be: also tell PSNR")
    parser.add_argument(
        "--perceptual", action="store_true",
        help="with --target, for sr_x4: also tell the score of the perceptual track, through pyiqa",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action="store_true",
        help="tell parameters, operations, activations and time for 256 x 256 pixels, and the score of esr",
    )  # fmt: skip
    parser.add_argument(
        "--factsheet",
        action="store_true",
        help="write factsheet.tex: the measures, and what --opt says of training",
    )
    parser.add_argument("--extra-data", action="store_true", help="say in readme.txt that more data was trained on")
    parser.add_argument("--description", default="", help="a line for readme.txt")
    parser.add_argument("--device", default="auto", help="for results and times: auto, cpu, cuda ... (default: auto)")


def run(args: argparse.Namespace) -> int:
    folder = Path(args.output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise Mistake(f"{str(folder)!r} is a file; the submission goes into a folder")
    script = _TRACKS[args.track]
    template = None if args.template is None else Path(args.template).expanduser()
    if template is not None and not (template / script).is_file():
        raise Mistake(f"the organisers' repository {args.template!r} has no {script}")
    source = None if args.input is None else Path(args.input).expanduser()
    if source is not None and not source.is_dir():
        raise Mistake(f"no such folder: {args.input!r}")

    if args.target is not None and source is None:
        raise Mistake("--target is for the results of --input")
    if args.target is not None and not Path(args.target).expanduser().is_dir():
        raise Mistake(f"no such folder: {args.target!r}")

    if args.perceptual and (args.track != "sr_x4" or args.target is None):
        raise Mistake("--perceptual is the score of track sr_x4, and compares with --target")

    from prompt_mamba_arch.checkpoint_files import load_network
    from prompt_mamba_arch.ntire import install_submission, write_submission

    net, phase = load_network(args.checkpoint, args.opt)
    embedding = None
    if args.prompt is not None and args.prompt.strip():
        from prompt_mamba_arch.restore import Restorer

        # what the network is told: the sentence's embedding, or the wish that the sentence was read to be
        embedding = Restorer(net, name=args.checkpoint, device="cpu", phase=phase).embed(args.prompt)
    written = write_submission(folder, args.track, args.team, args.name, net, embedding)
    print(f"written to {str(folder)!r}: {', '.join(path.relative_to(folder).as_posix() for path in written.files)}")
    if template is not None:
        install_submission(written.archive, template, args.track)
        print(f"put into {args.template!r}: python {script} --model_id {args.team} runs it")
    if source is not None:
        target = folder / f"{written.archive.stem}_results.zip"
        perceptual = None
        if args.perceptual:
            from prompt_mamba_arch.ntire import PerceptualScore

            perceptual = PerceptualScore(args.device)
        results = _results(args, net, source, target, perceptual)
        line = f"results written to {str(target)!r}: {results.seconds:.3f} s for an image"
        print(line if results.psnr is None else f"{line}, PSNR {results.psnr:.2f} dB")
        if perceptual is not None:
            _tell_perceptual(perceptual)
    if args.measure or args.factsheet:
        measures, device = _measured(args, written.network)
        if args.measure:
            _tell_measures(args, measures, device)
        if args.factsheet:
            from prompt_mamba_arch.compat.options import read_option_file
            from prompt_mamba_arch.ntire import write_factsheet

            options = None if args.opt is None else read_option_file(args.opt)
            path = folder / "factsheet.tex"
            write_factsheet(
                path, args.track, args.team, args.name, net, measures, options,
                device=device, extra_data=args.extra_data,
            )  # fmt: skip
            print(f"written to {str(path)!r}; the dotted lines are for the team to fill in")
    return 0


def _measured(args: argparse.Namespace, path: Path):
    """Of the file that is handed in: its scan is the one that the organisers will run. Also says on which device."""
    import torch
    from tqdm import tqdm

    from prompt_mamba_arch.ntire import load_network_file, measure

    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    with tqdm(unit="pass", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return measure(load_network_file(path), device=device, progress=progress), device


def _tell_measures(args: argparse.Namespace, found, device: str) -> None:
    from prompt_mamba_arch.ntire import esr_score

    lines = [
        ("parameters", f"{found.parameters / 1e6:.4f} M"),
        ("products", f"{found.products / 1e9:.4f} G, convolutions and matrix products"),
        ("scans", f"{found.scans / 1e9:.4f} G, which fvcore does not count"),
        ("fvcore", "not installed" if found.fvcore is None else f"{found.fvcore / 1e9:.4f} G"),
        ("activations", f"{found.activations / 1e6:.4f} M, of {found.convolutions} convolutions"),
        ("runtime", f"{found.seconds * 1e3:.2f} ms on {device}, mean of five"),
    ]
    if found.memory is not None:
        lines.append(("memory", f"{found.memory / 2**20:.1f} MiB"))
    if args.track == "esr":
        flops = found.products if found.fvcore is None else found.fvcore
        for year in (2025, 2026):
            score = esr_score(year, found.seconds * 1e3, flops / 1e9, found.parameters / 1e6)
            line = f"operations {score.flops:.4g}, parameters {score.parameters:.4g}; the baseline has 7.389"
            if found.memory is not None:  # a GPU
                line = f"{score.final:.4g} with this runtime, the organisers' being that of a RTX A6000: {line}"
            lines.append((f"score {year}", line))
    print(f"for {found.size} x {found.size} pixels:")
    for name, text in lines:
        print(f"  {name:<12} {text}")


def _tell_perceptual(perceptual) -> None:
    for reason in perceptual.missing.values():
        print(f"left out: {reason}")
    score = perceptual.score()
    told = ", ".join(f"{name} {value:.4f}" for name, value in perceptual.means().items())
    print(
        f"perceptual score {'none, as metrics are missing' if score is None else f'{score:.4f}'}: {told or 'nothing'}"
    )


def _results(args: argparse.Namespace, net, source: Path, target: Path, perceptual):
    from tqdm import tqdm

    from prompt_mamba_arch.data import ImageSource
    from prompt_mamba_arch.ntire import write_results
    from prompt_mamba_arch.restore import Restorer

    images = ImageSource(source, label="--input")
    targets = None if args.target is None else ImageSource(Path(args.target).expanduser(), label="--target")
    restorer = Restorer(net, name=args.checkpoint, device=args.device)
    with tqdm(unit="image", total=len(images), disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.n = done
            bar.refresh()

        return write_results(
            target,
            restorer,
            images,
            prompt=args.prompt,
            extra_data=args.extra_data,
            description=args.description or f"{args.name}, a PromptMamba network",
            targets=targets,
            luma=args.track == "sr_x4",
            perceptual=perceptual,
            progress=progress,
        )


def _team(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 99, not {text!r}")
    return int(text)
