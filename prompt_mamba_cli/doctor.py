"""`prompt-mamba doctor`: what works here, what does not, and what mends it."""

from __future__ import annotations

import argparse
import sys

HELP = "say what this installation can do, what it lacks and what mends that, and test it"
_SIGNS = {"good": "  ok", "poor": "note", "bad": "FAIL"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="the network to test (default: the shipped one)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--no-test", action="store_true", help="look only; the test takes about ten seconds")


def run(args: argparse.Namespace) -> int:
    """0 if everything works, however slowly; else 1."""
    try:
        from prompt_mamba_arch.doctor import examine, try_out
    except ImportError as error:  # whose line is all that can be said
        name = (error.name or "").partition(".")[0]
        _tell("bad", "packages", f"{' '.join(str(error).split())} (Python {sys.version.split()[0]}, {sys.executable})")
        print(f"      -> {'pip install ' + name if name else 'bash scripts/install.sh'}")
        return 1
    failed = False
    for finding in examine():
        failed |= _show(finding)
    if not args.no_test:
        for finding in try_out(args.model, args.device):
            failed |= _show(finding)
    return 1 if failed else 0


def _show(finding) -> bool:
    _tell(finding.state, finding.name, finding.value)
    if finding.mend is not None:
        print(f"      -> {finding.mend}", flush=True)
    return finding.state == "bad"


def _tell(state: str, name: str, value: str) -> None:
    print(f"{_SIGNS[state]}  {name}: {value}", flush=True)
