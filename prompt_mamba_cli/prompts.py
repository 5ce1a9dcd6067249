"""`prompt-mamba prompts`: a prompt file for a folder or a LMDB."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake, count

HELP = "write requests for a folder or LMDB of images, from the bank of phrases or with a language model"

_WRITERS = ("parameters", "llm", "transformers")
_URL, _MODEL = "PROMPT_MAMBA_LLM_URL", "PROMPT_MAMBA_LLM_MODEL"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", "--input", required=True, metavar="IN", help="a folder of images, or a LMDB")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the prompt file, JSON Lines")
    parser.add_argument(
        "--remove", nargs="*", metavar="KIND",
        help="what to ask for: noise, defocus, motion, jpeg, lowres, rain, haze, lowlight, holes; without a kind: that "
        "the image be left as it is",
    )  # fmt: skip
    parser.add_argument(
        "--present", nargs="+", metavar="KIND", help="all that is in the images, if that is known; the rest shall stay"
    )
    parser.add_argument("--task", metavar="NAME", help="kept in the file; denoise, deblur ... also say what to remove")
    parser.add_argument(
        "--recipes", metavar="FILE",
        help='what was done to each image, JSON Lines: {"key": "0001", "recipe": [{"kind": "noise", "params": {...}}], '
        '"remove": ["noise"]}; without "remove": all of it',
    )  # fmt: skip
    parser.add_argument("--count", type=count, default=4, metavar="N", help="requests for each image (default: 4)")
    parser.add_argument(
        "--split", default="train", choices=("train", "val", "test"), help="of the bank of phrases (default: train)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another number, other requests (default: 0)")
    add_writer_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there already")


def add_writer_arguments(parser: argparse.ArgumentParser) -> None:
    """Of commands that write prompts."""
    parser.add_argument(
        "--writer", default="parameters", choices=_WRITERS,
        help="parameters: from the bank; llm: a server with OpenAI's interface; transformers: a local model "
        "(default: parameters)",
    )  # fmt: skip
    parser.add_argument(
        "--url", help=f"of the server, such as http://localhost:8000/v1 (default: {_URL}); its key is taken from "
        "PROMPT_MAMBA_LLM_KEY, else OPENAI_API_KEY",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="NAME", help=f"the server's name of it, or a folder or name for transformers ({_MODEL})"
    )
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="questions to a server at a time")
    parser.add_argument(
        "--timeout", type=_seconds, default=120.0, metavar="S", help="seconds for one answer (default: 120)"
    )
    parser.add_argument(
        "--tries", type=count, default=6, metavar="N", help="until a server that fails is given up (default: 6)"
    )
    parser.add_argument("--temperature", type=_seconds, metavar="T", help="for the model (default: its own)")
    parser.add_argument("--device", default="auto", help="for transformers: auto, cpu, cuda ... (default: auto)")


def run(args: argparse.Namespace) -> int:
    source, target = Path(args.input).expanduser(), Path(args.output).expanduser()
    if args.remove is None and args.task is None and args.recipes is None:
        raise Mistake("say what to ask for: --remove KIND ..., --task NAME or --recipes FILE")
    if args.recipes is not None and args.present is not None:
        raise Mistake("--recipes says what is present; leave out --present")
    if not source.is_dir():
        raise Mistake(f"no such folder: {str(source)!r}")
    if target.is_dir():
        raise Mistake(f"{str(target)!r} is a folder; name a file such as {str(target / 'prompts.jsonl')!r}")
    if target.exists() and not args.overwrite:
        raise Mistake(f"{str(target)!r} exists already; add --overwrite to replace it")
    url, model = server(args)

    from tqdm import tqdm

    from prompt_mamba_arch.prompts.writers import write_prompts

    briefs = _briefs(args, source)
    by = writer(args, url, model, args.split)
    with tqdm(unit="image", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.refresh()

        written = write_prompts(
            target,
            briefs,
            by,
            count=args.count,
            split=args.split,
            seed=args.seed,
            jobs=args.jobs,
            tell=lambda line: tqdm.write(f"prompt-mamba: {line}", file=sys.stderr),
            progress=progress,
        )
    line = f"{args.count} prompts for each of {written.images} images written to {str(target)!r}"
    if written.from_bank:
        line += f"; {written.from_bank} are the bank's in the place of the model's"
    if written.repeated:
        line += f"; {written.repeated} are another image's, too, as the bank has no more"
    print(line)
    return 0


def server(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """URL and model, from the arguments or the environment."""
    if args.writer == "parameters":
        if args.url or args.model:
            raise Mistake("--url and --model are for --writer llm or transformers")
        return None, None
    model = args.model or os.environ.get(_MODEL)
    if not model:
        raise Mistake(f"--writer {args.writer} needs --model (or {_MODEL})")
    if args.writer == "transformers":
        if args.url:
            raise Mistake("--url is for --writer llm")
        return None, model
    url = args.url or os.environ.get(_URL)
    if not url:
        raise Mistake(f"--writer llm needs --url, such as http://localhost:8000/v1 (or {_URL})")
    return url, model


def writer(args: argparse.Namespace, url: str | None, model: str | None, split: str):
    """That the arguments ask for, with what `server` gave."""
    from prompt_mamba_arch.prompts.llm import Endpoint, LocalModel, ModelWriter, endpoint_key
    from prompt_mamba_arch.prompts.writers import BankWriter

    if args.writer == "parameters":
        return BankWriter(split)
    if args.writer == "transformers":
        temperature = 1.0 if args.temperature is None else args.temperature
        return ModelWriter(LocalModel(model, args.device, temperature=temperature), split)
    endpoint = Endpoint(
        url, model, endpoint_key(), timeout=args.timeout, tries=args.tries, temperature=args.temperature
    )
    return ModelWriter(endpoint, split)


def _briefs(args: argparse.Namespace, source: Path) -> list:
    """What each image's prompts shall say."""
    from prompt_mamba_arch.data import ImageSource
    from prompt_mamba_arch.data.degradations.recipe import kinds_of
    from prompt_mamba_arch.data.prompt_sources import TASKS
    from prompt_mamba_arch.errors import UserError, did_you_mean
    from prompt_mamba_arch.prompts.writers import Brief

    remove = None if args.remove is None else _kinds(args.remove, "--remove")
    if remove is None and args.recipes is None:
        if args.task not in TASKS:
            hint = did_you_mean(args.task, TASKS)
            raise UserError(f"--task {args.task} does not say what to remove; add --remove KIND ...{hint}")
        remove = TASKS[args.task].remove
    present = None if args.present is None else _kinds(args.present, "--present")
    if present is not None and not set(remove).issubset(present):
        raise UserError(f"--present must have all of --remove, {' '.join(remove)}")
    backend = "lmdb" if (source / "data.mdb").is_file() else "disk"
    keys = ImageSource(source, {"type": backend}, label="--input").keys
    if args.recipes is None:
        return [Brief(key, remove, present, args.task) for key in keys]
    recipes = _read_recipes(Path(args.recipes).expanduser())
    briefs = []
    for key in keys:
        if key not in recipes:
            raise UserError(f"no recipe for image '{key}' in {args.recipes}{did_you_mean(key, recipes)}")
        recipe, wish, severities = recipes[key]
        present = kinds_of(recipe)
        wish = wish if wish is not None else remove if remove is not None else present
        absent = sorted(set(wish).difference(present))
        if absent:
            raise UserError(f"image '{key}': its recipe in {args.recipes} has no {', '.join(absent)} to be removed")
        briefs.append(Brief(key, wish, present, args.task, recipe, severities))
    return briefs


def _kinds(names: list[str], where: str) -> tuple[str, ...]:
    """In their usual order, each once."""
    from prompt_mamba_arch.data import KINDS
    from prompt_mamba_arch.errors import check_keys

    check_keys(dict.fromkeys(names), KINDS, where)
    return tuple(kind for kind in KINDS if kind in names)


def _read_recipes(path: Path) -> dict[str, tuple]:
    """Key -> (recipe, kinds to remove or None, {kind: severity})."""
    from prompt_mamba_arch.data import check_recipe, severity
    from prompt_mamba_arch.errors import UserError, check_keys

    found: dict[str, tuple] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                fields = json.loads(line)
            except ValueError:
                raise UserError(f"{where}: not a JSON object") from None
            check_keys(fields, ("key", "recipe", "remove"), where)
            if not isinstance(fields.get("key"), str) or "recipe" not in fields:
                raise UserError(f"{where}: 'key', a text, and 'recipe' must be there")
            if fields["key"] in found:
                raise UserError(f"{where}: the key '{fields['key']}' is there already")
            try:
                recipe = check_recipe(fields["recipe"])
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            wish = fields.get("remove")
            if wish is not None:
                if not isinstance(wish, list):
                    raise UserError(f"{where}: 'remove' must be a list of kinds, not {wish!r}")
                wish = _kinds([str(kind) for kind in wish], f"{where}, remove")
            severities: dict[str, float] = {}
            for step in recipe:
                if step["kind"] != "none":
                    severities[step["kind"]] = max(severity(step), severities.get(step["kind"], 0.0))
            found[fields["key"]] = recipe, wish, severities
    return found


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value
