"""`prompt-mamba restore`: photographs, one or many, or a film."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake, count, filled, prompt, share, strength, tile
from prompt_mamba_cli.photographs import Job, check_targets, collect, is_film, mark_results, share_of, suffix_by_content

HELP = "restore a photograph, or many, or a film"
_STREAM = "-"
_SHOWN = 100  # characters of a prompt


class _Voice:
    """Where lines go, and how files are called in them."""

    def __init__(self, out=None, names: Mapping[Path, str] | None = None):
        self._out = out or sys.stdout
        self._names = {repr(str(path)): name for path, name in (names or {}).items()}

    def named(self, line: str) -> str:
        for path, name in self._names.items():
            line = line.replace(path, name)
        return line

    def tell(self, line: str) -> None:
        print(self.named(line), file=self._out, flush=True)

    def warn(self, lines: Sequence[str], write=None) -> None:
        """On stderr, each in a line of its own; `write` does it where a bar is shown."""
        for line in lines:
            line = f"prompt-mamba: {self.named(line)}"
            print(line, file=sys.stderr, flush=True) if write is None else write(line, file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i", "--input", required=True, nargs="+", type=filled, metavar="IN",
        help="photographs, folders of them, patterns such as 'photos/**/*.jpg', - for standard input, or a film",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=filled, metavar="OUT", help="a file, a folder, or - for standard output"
    )
    parser.add_argument(
        "-p", "--prompt", type=prompt, action="append", metavar="PROMPT",
        help="what to do, in plain English; without it: remove whatever is wrong. Given several times: in turn",
    )  # fmt: skip
    parser.add_argument(
        "--model", default="tiny", metavar="NAME_OR_PATH", help="a shipped network or a checkpoint (default: tiny)"
    )
    parser.add_argument(
        "--opt",
        metavar="YML",
        help="the option file that trained the network, for checkpoints that do not say what they hold (BasicSR's own)",
    )
    parser.add_argument(
        "--strength", type=strength, default=1.0, metavar="S", help="scales what is changed, 0 to 2 (default: 1)"
    )
    parser.add_argument(
        "--tile", type=tile, default="auto", metavar="auto|none|N", help="side of the tiles in pixels (default: auto)"
    )
    parser.add_argument("--ensemble", action="store_true", help="mean of eight turned versions: better, 8 times slower")
    parser.add_argument("--half", action="store_true", help="half precision where the device gains by it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--compare", action="store_true", help="beside each result, a picture of before and after")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="photographs at a time (default: 1)")
    parser.add_argument(
        "--share", type=share, metavar="I/N|all",
        help="only this part of the photographs, 2/4 the second of four; default: as torchrun or SLURM says, else all",
    )  # fmt: skip
    parser.add_argument("--no-times", action="store_true", help="results are as new as they are, not as the photograph")
    there = parser.add_mutually_exclusive_group()
    there.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    there.add_argument("--skip-existing", action="store_true", help="leave out what has a result; so a run is resumed")


def run(args: argparse.Namespace) -> int:
    if _STREAM in (args.output, *args.input):
        return _with_streams(args)
    jobs, passed_over = collect(args.input, args.output, args.compare)
    if is_film(jobs[0].source) and (args.compare or args.dry_run):
        raise Mistake("--compare and --dry-run are for photographs, not for films")
    voice = _Voice()
    voice.warn(passed_over)
    return _restore(args, jobs, voice)


def _restore(args: argparse.Namespace, jobs: Sequence[Job], voice: _Voice) -> int:
    single = len(jobs) == 1 and not Path(args.input[0]).expanduser().is_dir()
    originals = [job.source for job in jobs]
    mine = share_of(args.share, os.environ)
    if mine is not None:
        jobs = mine.of(jobs)
        voice.tell(f"{mine}: {len(jobs)} of {_images(len(originals))}")
    wanted = [job for job in jobs if not (args.skip_existing and job.target.exists())]
    skipped = len(jobs) - len(wanted)
    check_targets(wanted, originals, args.overwrite or args.skip_existing)
    if not wanted:
        voice.tell("nothing to do" + f": {_images(skipped)} restored already" * bool(skipped))
        return 0

    from prompt_mamba_arch import batch  # takes seconds

    wish = _wish(args)
    restorer = batch.load(wish)
    voice.warn(_check_prompts(restorer, args.prompt))  # once, not for every image
    _tell_understood(args.prompt or (), restorer.told_wishes, voice)
    if args.half and restorer.half is None:
        voice.warn([f"half precision would gain nothing on {restorer.device}; it computes in float32"])
    if args.dry_run:
        return _tell_plan(restorer, wanted, args, voice)
    if args.output != _STREAM:
        mark_results(args.input, args.output)
    start = time.monotonic()
    failed = _work(restorer, wanted, wish, args.jobs, single, voice)
    request = ", then ".join(map(_quoted, args.prompt or ()))
    how = f"{restorer.device}; {request or 'no prompt, so whatever is wrong'}"
    if single:
        how = how if request else _chosen(restorer, how)
        voice.tell(f"{str(wanted[0].source)!r} restored to {str(wanted[0].target)!r} ({how})")
        return 0
    taken = _duration(time.monotonic() - start)
    done = f"{len(wanted) - failed} of {len(wanted)} images restored to {args.output!r} in {taken} ({how})"
    others = [f"{failed} failed"] * bool(failed) + [f"{skipped} were there already"] * bool(skipped)
    voice.tell("; ".join([done, *others]))
    return 1 if failed else 0


def _chosen(restorer, how: str) -> str:
    """With what was seen to be wrong with a photograph, if that was looked for and found."""
    from prompt_mamba_arch.sight import what_is_wrong

    wish = what_is_wrong(restorer.seen)
    return f"{restorer.device}; no prompt, so I chose to {wish.sentence()}" if wish.remove else how


def _quoted(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…") if text else "whatever is wrong"


def _images(number: int) -> str:
    return f"{number} image" + "s" * (number != 1)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _wish(args: argparse.Namespace):
    from prompt_mamba_arch.batch import Wish

    neighbours, place = _neighbours()
    return Wish(
        model=args.model, device=args.device, option_file=args.opt, half=args.half, prompts=tuple(args.prompt or ()),
        strength=args.strength, tile=args.tile, ensemble=args.ensemble, overwrite=args.overwrite,
        keep_times=not args.no_times, neighbours=neighbours, place=place,
    )  # fmt: skip


def _neighbours() -> tuple[int, int]:
    """How many processes share this machine as torchrun or SLURM has it, and which of them this is."""
    for count_name, place_name in (("LOCAL_WORLD_SIZE", "LOCAL_RANK"), ("SLURM_STEP_TASKS_PER_NODE", "SLURM_LOCALID")):
        counted = re.match(r"\d+", os.environ.get(count_name, ""))  # SLURM: 4(x2),3
        place = os.environ.get(place_name, "")
        if counted and place.isdecimal():
            return max(int(counted.group()), 1), int(place)
    return 1, 0


def _check_prompts(restorer, prompts: Sequence[str] | None) -> list[str]:
    """Warnings about them, in plain words; UserError if the network cannot follow any."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        for text in prompts or ():
            restorer.embed(text)
    return list(dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught))


def _tell_understood(prompts: Sequence[str], acted_on: bool, voice: _Voice) -> None:
    """What the prompts were taken for, and how sure that is; before the work, so that it can be stopped. If this is
    what is `acted_on`, also how to say better what is not clear."""
    import warnings

    from prompt_mamba_arch.errors import UserError
    from prompt_mamba_arch.text import describe, read_intents

    written = [text for text in prompts if text.strip()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they have been said
            intents = read_intents(written) if written else []
    except UserError as error:  # the photographs are restored all the same
        voice.warn([str(error)])
        return
    for intent in intents:
        of = f" by {_quoted(intent.prompt)}" if len(prompts) > 1 else ""
        more = "" if intent.meant == "restoration" else "; little or nothing should change"
        voice.tell(f"I understood{of}: {describe(intent)}{more}")
    unclear = [intent for intent in intents if not intent.clear]
    if acted_on and unclear:
        guess = ", so this is a guess" * any(intent.meant == "restoration" for intent in unclear)
        voice.warn([
            f"not clear: {', '.join(_quoted(intent.prompt) for intent in unclear)}{guess}; say in plain English what "
            'shall go, such as "remove the noise" or "sharpen it"; without -p, whatever is wrong goes'
        ])  # fmt: skip


def _work(restorer, jobs: Sequence[Job], wish, processes: int, single: bool, voice: _Voice) -> int:
    """Returns how many failed; of a single one, the failure is raised."""
    from prompt_mamba_arch import batch

    failed, finished, parts = 0, 0, {}
    with _bar(len(jobs)) as bar:

        def show() -> None:
            bar.n = finished + sum(parts.values())
            if len(jobs) > 1:
                bar.set_postfix_str(f"{finished} of {_images(len(jobs))}" + f", {failed} failed" * bool(failed), False)
            bar.refresh()

        def say(job: Job, lines: Sequence[str]) -> None:
            known = str(job.source)
            voice.warn([line if known in line else f"{known!r}: {line}" for line in lines], bar.write)

        def tell(news) -> None:
            nonlocal failed, finished
            parts[news.job] = news.done
            if news.over:
                del parts[news.job]
                finished += 1
                failed += news.failure is not None
                say(jobs[news.job], news.notes if news.failure is None else [news.failure])
            show()

        show()
        if single:

            def progress(done: int, tiles: int) -> None:
                parts[0] = done / tiles
                show()

            say(jobs[0], batch.restore_file(restorer, jobs[0], wish, progress))
        else:
            batch.restore_files(restorer, jobs, wish, tell, processes)
    return failed


def _bar(images: int):
    """Of images, in fractions. Only on a terminal: elsewhere stderr holds what went wrong, and nothing else."""
    from tqdm import tqdm

    # smoothing 0: the remaining time by the mean of all so far; tiles at the edge of an image are faster than others
    shape = "{percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"
    return tqdm(total=images, bar_format=shape, disable=None, leave=images > 1, smoothing=0)


def _tell_plan(restorer, jobs: Sequence[Job], args: argparse.Namespace, voice: _Voice) -> int:
    """What would be done. The headers are read, so much of what cannot be read is found."""
    from prompt_mamba_arch.errors import plain_line
    from prompt_mamba_arch.image_io import read_size

    failed = 0
    for job in jobs:
        try:
            height, width = read_size(job.source)
        except Exception as error:
            line = plain_line(error)
            if line is None:
                raise
            failed += 1
            voice.warn([line])
            continue
        side = restorer.tile_side((height, width), args.tile)
        way = "in one piece" if side >= max(height, width) else f"in tiles of {side} pixels"
        results = " and ".join(repr(str(path)) for path in job[1:] if path is not None)
        voice.tell(f"{str(job.source)!r} ({width} x {height} pixels, {way}) would become {results}")
    voice.tell(f"{len(jobs) - failed} of {_images(len(jobs))} would be restored; nothing was done")
    return 1 if failed else 0


# ---- standard input and output -------------------------------------------------------------------------------------


def _with_streams(args: argparse.Namespace) -> int:
    """One photograph, by way of files: formats are read and written from both ends."""
    if len(args.input) > 1:
        raise Mistake("standard input and output carry one photograph; name one input")
    from_stream, to_stream = args.input[0] == _STREAM, args.output == _STREAM
    if to_stream and (args.compare or args.skip_existing):
        raise Mistake("--compare and --skip-existing need a file to write, and standard output is none")
    if to_stream and sys.stdout.isatty():
        raise Mistake("standard output is the terminal; direct it into a file or another program")
    if not to_stream and (Path(args.output).expanduser().is_dir() or args.output.endswith(("/", os.sep))):
        raise Mistake("what comes from standard input has no name; name a file as the output")
    with tempfile.TemporaryDirectory(prefix="prompt_mamba_") as folder:
        source, suffix = _received(Path(folder)) if from_stream else _named(args.input[0])
        target = Path(folder) / f"result{suffix}" if to_stream else None
        jobs = [Job(source, target)] if to_stream else collect([str(source)], args.output, args.compare)[0]
        names = {source: "standard input"} if from_stream else {}
        voice = _Voice(sys.stderr if to_stream else None, {**names, target: "standard output"} if to_stream else names)
        alone = argparse.Namespace(**{**vars(args), "share": "all", "no_times": args.no_times or from_stream})
        try:
            code = _restore(alone, jobs, voice)
        except Mistake as error:
            raise Mistake(voice.named(str(error))) from None
        except Exception as error:
            from prompt_mamba_arch.errors import plain_line

            line = plain_line(error)
            if line is None:
                raise
            raise Mistake(voice.named(line)) from None
        if target is not None and not args.dry_run:
            _send(target)
        return code


def _received(folder: Path) -> tuple[Path, str]:
    """Standard input in a file, and the suffix of its format."""
    if sys.stdin.isatty():
        raise Mistake("a photograph is expected from standard input: ... < photo.jpg")
    path = folder / "received"
    with open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    if path.stat().st_size == 0:
        raise Mistake("standard input is empty")
    suffix = _suffix(path, "standard input")
    return path.rename(path.with_suffix(suffix)), suffix


def _named(name: str) -> tuple[Path, str]:
    path = Path(name).expanduser()
    if not path.is_file():
        raise Mistake(f"{name!r} is no photograph, and only one can go to standard output")
    return path, _suffix(path, repr(name))


def _suffix(path: Path, name: str) -> str:
    with open(path, "rb") as file:
        suffix = suffix_by_content(file.read(16))
    if suffix is None:
        raise Mistake(f"{name} is not an image that can be read (PNG, JPEG, WebP, TIFF, BMP)")
    return suffix


def _send(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would say it again at its end
        raise Mistake("who was to receive the result has stopped reading") from None
