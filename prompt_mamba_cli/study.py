"""`prompt-mamba study`: people compare methods, blind."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prompt_mamba_cli.arguments import Mistake, count, port

HELP = "ask people which of two methods' results is better, blind, and report what they say"
DATABASE = "study.sqlite"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parts = parser.add_subparsers(dest="part", metavar="serve|report", required=True)
    serve = parts.add_parser("serve", help="serve the questions", allow_abbrev=False)
    serve.add_argument(
        "-i", "--input", required=True, metavar="RESULTS",
        help="a folder of results: one folder in it for each method, equally named images in these; perhaps inputs/ "
        "and prompts.jsonl",
    )  # fmt: skip
    serve.add_argument(
        "-o", "--output", required=True, metavar="STUDY", help="the study's folder, new or one to go on with"
    )
    serve.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="only these (default: all)")
    serve.add_argument("--comparisons", type=count, default=30, metavar="N", help="a participant (default: 30)")
    serve.add_argument("--shared", type=_number, default=6, metavar="N", help="of these the same for all (default: 6)")
    serve.add_argument("--ratings", type=_number, default=10, metavar="N", help="of following prompts (default: 10)")
    serve.add_argument(
        "--checks", type=_number, default=3, metavar="N", help="of attention, a participant (default: 3)"
    )
    serve.add_argument("--participants", type=count, default=1000, metavar="N", help="at most (default: 1000)")
    serve.add_argument(
        "--crop", type=_number, default=512, metavar="N", help="show N pixels square; 0: all (default: 512)"
    )
    serve.add_argument("--consent", metavar="FILE", help="a text file with what participants agree to")
    serve.add_argument("--contact", default="", metavar="TEXT", help="whom participants can ask")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    serve.add_argument("--port", type=port, default=7870, help="default: 7870; 0 is any free one")
    serve.set_defaults(do=_serve)
    report = parts.add_parser("report", help="report what was answered so far", allow_abbrev=False)
    report.add_argument("-i", "--input", required=True, metavar="STUDY", help="the study's folder")
    report.add_argument("-o", "--output", metavar="FOLDER", help="receives the report (default: the study's folder)")
    report.set_defaults(do=_report)


def run(args: argparse.Namespace) -> int:
    return args.do(args)


def _serve(args: argparse.Namespace) -> int:
    results, folder = Path(args.input).expanduser(), Path(args.output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise Mistake(f"{str(folder)!r} is a file; a study is a folder")
    if results.is_dir() and folder.resolve().parent == results.resolve():
        raise Mistake("the study's folder would lie among the methods; name another one")
    consent = _consent(args.consent)

    from prompt_mamba_arch.study import Design, Materials, Store
    from prompt_mamba_arch.study.server import CONSENT, create
    from prompt_mamba_arch.web import address, is_loopback, listen, serve

    materials = Materials(results, args.methods, args.crop)
    design = Design(
        comparisons=args.comparisons, shared=args.shared, ratings=args.ratings, checks=args.checks,
        participants=args.participants,
    )  # fmt: skip
    listening = listen(args.host, args.port)
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / DATABASE)
    try:
        store.use(materials, design)
        app = create(
            store, materials, design, cache=folder / "pictures", consent=consent or CONSENT, contact=args.contact
        )
        if materials.incomplete:
            line = f"{len(materials.incomplete)} images are not in every method's folder and are passed over"
            print(f"prompt-mamba: {line}: {', '.join(materials.incomplete[:5])}", file=sys.stderr)
        if not is_loopback(args.host):
            line = "others can reach this study; what they answer travels unencrypted unless a proxy encrypts it"
            print(f"prompt-mamba: {line}", file=sys.stderr)
        print(
            f"{len(materials.methods)} methods, {len(materials.images)} images, {len(materials.prompts)} with prompts; "
            f"open {address(listening)} (Ctrl-C ends it; answers are in {str(folder / DATABASE)!r})",
            flush=True,
        )
        serve(app, listening)
    finally:
        store.close()
    return 0


def _report(args: argparse.Namespace) -> int:
    folder = Path(args.input).expanduser()
    if not (folder / DATABASE).is_file():
        raise Mistake(f"{str(folder)!r} holds no study ({DATABASE})")
    from prompt_mamba_arch.study import Store
    from prompt_mamba_arch.study.report import MARKDOWN, write_report

    target = Path(args.output).expanduser() if args.output else folder
    if target.exists() and not target.is_dir():
        raise Mistake(f"{str(target)!r} is a file; the report goes into a folder")
    store = Store(folder / DATABASE)
    try:
        written = write_report(store, target)
    finally:
        store.close()
    print((target / MARKDOWN).read_text(encoding="utf-8"))
    print(f"written to {str(target)!r}: {', '.join(path.name for path in written)}")
    if not any(path.suffix == ".png" for path in written):
        print("prompt-mamba: no plots, as Matplotlib is missing: pip install matplotlib", file=sys.stderr)
    return 0


def _consent(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise Mistake(f"{name!r} is no text file that can be read") from None
    if not text:
        raise Mistake(f"{name!r} is empty, and participants must know what they agree to")
    return text


def _number(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal() or len(text) > 5:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text!r}")
    return int(text)
