"""`prompt-mamba intent`: what a request is understood to ask for."""

from __future__ import annotations

import argparse
import json
import sys

from prompt_mamba_cli.arguments import Mistake

HELP = "say what a request asks for: what shall go, what shall stay, or that it asks for no restoration"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="+", metavar="PROMPT", help="a request in quotes, or several; - reads lines")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with all probabilities")


def run(args: argparse.Namespace) -> int:
    prompts = [line for prompt in args.prompt for line in (_lines() if prompt == "-" else [prompt])]
    if not prompts:
        raise Mistake("there is no request on standard input")

    from prompt_mamba_arch.text import describe, read_intents

    for intent in read_intents(prompts):
        sentence = describe(intent)
        if args.json:
            print(json.dumps(_plain(intent, sentence), ensure_ascii=False), flush=True)
        elif len(prompts) == 1:
            print(sentence)
        else:
            print(f"{' '.join(intent.prompt.split())}: {sentence}", flush=True)
    return 0


def _lines() -> list[str]:
    return [line.strip() for line in sys.stdin if line.strip()]


def _plain(intent, sentence: str) -> dict:
    def rounded(values):
        return {name: round(value, 4) for name, value in values.items()}

    return {
        "prompt": intent.prompt,
        "sentence": sentence,
        "is_restoration": round(intent.is_restoration, 4),
        "asks": rounded(intent.asks),
        "everything": round(intent.everything, 4),
        "remove": rounded(intent.remove),
        "keep": rounded(intent.keep),
    }
