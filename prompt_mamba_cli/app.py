"""`prompt-mamba app`: restoring photographs in the browser."""

from __future__ import annotations

import argparse
import sys

from prompt_mamba_cli.arguments import at_least_one, count, port

HELP = "restore photographs in the browser"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="tiny", metavar="NAME_OR_PATH", help="a shipped network or a checkpoint (default: tiny)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, which only this machine reaches)"
    )
    parser.add_argument("--port", type=port, default=7860, help="default: 7860; 0 is any free one")
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    parser.add_argument(
        "--max-megabytes", type=at_least_one, default=64, metavar="N", help="of one photo's file (default: 64)"
    )
    parser.add_argument(
        "--max-megapixels", type=at_least_one, default=50, metavar="N", help="of one photo (default: 50)"
    )
    parser.add_argument(
        "--max-seconds", type=at_least_one, default=600, metavar="N", help="of one restoration (default: 600)"
    )
    parser.add_argument("--jobs", type=count, default=1, metavar="N", help="restorations at a time (default: 1)")
    parser.add_argument("--queue", type=count, default=20, metavar="N", help="how many may wait (default: 20)")
    parser.add_argument("--people", type=count, default=100, metavar="N", help="photos at a time (default: 100)")
    parser.add_argument(
        "--idle-minutes", type=at_least_one, default=30, metavar="N",
        help="after which a photo that nobody touches is deleted (default: 30)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from prompt_mamba_arch.web import address, is_loopback, listen, serve

    listening = listen(args.host, args.port)
    from prompt_mamba_arch.app import Limits, Workshop  # takes seconds
    from prompt_mamba_arch.app.server import create
    from prompt_mamba_arch.restore import Restorer

    limits = Limits(
        upload_bytes=round(args.max_megabytes * 2**20), pixels=round(args.max_megapixels * 1e6),
        seconds=args.max_seconds, jobs=args.jobs, waiting=args.queue, sessions=args.people,
        idle_seconds=args.idle_minutes * 60,
    )  # fmt: skip
    workshop = Workshop(Restorer.from_pretrained(args.model, args.device), limits=limits)
    try:
        app = create(workshop)
        if not is_loopback(args.host):
            line = "others can reach this page; photos and wishes travel unencrypted unless a proxy encrypts them"
            print(f"prompt-mamba: {line}", file=sys.stderr)
        where = address(listening)
        print(f"{args.model} on {workshop.restorer.device}; open {where} (Ctrl-C ends it)", flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(where)
        serve(app, listening)
    finally:
        workshop.close()
    return 0
