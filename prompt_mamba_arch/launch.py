"""What the two launchers share: flags, the folder that receives results, and mistakes said in one plain line."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch.distributed as dist

from prompt_mamba_arch.compat import options
from prompt_mamba_arch.errors import plain_line

__all__ = ["default_root", "launch"]


def default_root() -> Path:
    """The folder that receives experiments/, results/ and tb_logger/: the clone's when the package runs from its source
    tree (setup.py lies beside it), else the working directory."""
    clone = Path(__file__).resolve().parent.parent
    return clone if (clone / "setup.py").is_file() else Path.cwd()


def _speaks_for(line: str) -> bool:
    """Whether this process is the one of a distributed run that prints `line`.

    Once the processes know each other, the first that comes with a line prints it (all may have the same mistake, or
    one alone a corrupt image). Before, they read the same option file: the first of each machine speaks.
    """
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(Exception):  # the store may be gone with its process; rather twice than never
            store = dist.distributed_c10d._get_default_store()
            return store.add(f"prompt_mamba_arch/{line}", 1) == 1
        return True
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"


def launch(pipeline: Callable[[str], None], what: str, argv: Sequence[str] | None = None) -> int:
    """Runs one of BasicSR's pipelines with BasicSR's flags and `--root`.

    Args:
        pipeline: takes the root folder, reads the other flags from sys.argv.
        what: the line of `--help` that says what this is for.
        argv: the arguments (default: the command line's).

    Returns:
        The exit code: 0; 2 after a mistake of the user's, which has been printed in one line; 130 after Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    program = sys.argv[0]
    before = sys.argv
    try:
        parser = options.option_parser(description=what, allow_abbrev=False)
        parser.add_argument("--root", metavar="DIR", help="folder for experiments/, results/ and tb_logger/")
        root = parser.parse_args(argv).root
        root = Path(root).expanduser().resolve() if root else default_root()
        # BasicSR parses sys.argv itself and copies it into the run's option file
        sys.argv = [program, *_without_root(argv)]
        pipeline(str(root))
    except KeyboardInterrupt:
        print("prompt-mamba: interrupted", file=sys.stderr, flush=True)
        return 130
    except Exception as exc:
        line = plain_line(exc)
        if line is None:
            raise
        if _speaks_for(line):
            print(f"prompt-mamba: {line}", file=sys.stderr, flush=True)
        return 2
    finally:
        sys.argv = before
    return 0


def _without_root(argv: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for argument in argv:
        if skip or argument.startswith("--root="):
            skip = False
        elif argument == "--root":
            skip = True
        else:
            kept.append(argument)
    return kept
