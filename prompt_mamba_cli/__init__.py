"""The command `prompt-mamba`: one file for each command, `prompt-mamba restore` in restore.py and so on.

This is a package of its own because importing `prompt_mamba_arch` brings torch and BasicSR, which takes seconds; so
help and mistakes in the arguments come at once. Nothing here imports it at the top; commands do when work begins.

A command's file has
    HELP: one line;
    add_arguments(parser): what it understands;
    run(args) -> int: the exit code. It raises `Mistake` for what is wrong in the arguments.
and its name is in `COMMANDS` below.
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "main"]

# in the order in which the help lists them: for people, for researchers, for trainers
COMMANDS = (
    *("restore", "app", "intent", "doctor"),
    *("probe", "compare", "study", "profile", "pnp"),
    *("prompts", "prepare", "export", "ntire"),
)
_BASICSR = {
    "train": "train as an option file says (BasicSR's flags: -opt FILE ...)",
    "test": "test as an option file says (BasicSR's flags: -opt FILE ...)",
}
_EXAMPLES = """examples:
  prompt-mamba restore -i photo.jpg -o better.png -p "take the grain out"
  prompt-mamba restore -i holiday/ -o holiday_restored/ --model net_g_latest.pth
  prompt-mamba restore -i 'photos/**/*.jpg' -o restored/ --jobs 4 --skip-existing --compare
  prompt-mamba app
  prompt-mamba intent "take the grain out, but keep the fog"
  prompt-mamba doctor
  prompt-mamba probe -i clean/ -o probed/ --crop 256 --limit 20 --per-kind
  prompt-mamba compare -opt options/compare/starter.yml
  prompt-mamba study serve -i results/ -o study/
  prompt-mamba profile tiny SwinIR net_g_latest.pth --size 256 1024x768
  prompt-mamba pnp -i blurred.png -o sharp.png --operator blur --blur 1.6
  prompt-mamba prompts -i noisy/ -o prompts.jsonl --remove noise
  prompt-mamba prepare gopro --source GOPRO_Large/ --out datasets/GoPro --lmdb
  prompt-mamba export -o net.onnx
  prompt-mamba ntire --track esr --team 7 --name MyNet --checkpoint net_g_latest.pth -o submission/
  prompt-mamba train -opt options/train/PromptMamba/train_PromptMamba_tiny_phase1.yml
  prompt-mamba test -opt options/test/PromptMamba/test_PromptMamba_tiny.yml
"""

if "__mp_main__" in sys.modules:  # a spawned DataLoader worker runs this first; BasicSR's datasets need the mends
    import prompt_mamba_arch  # noqa: F401


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 1 if some images failed; 2 after a mistake; 130 after Ctrl-C."""
    from prompt_mamba_cli.arguments import Mistake

    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a file's name is no reason to stop
    try:
        if argv and argv[0] in _BASICSR:  # their flags are BasicSR's
            from prompt_mamba_arch import test, train

            return (train if argv[0] == "train" else test).main(argv[1:])
        args = _parser().parse_args(argv)
        return args.run(args)
    except KeyboardInterrupt:
        return _refuse("interrupted", 130)
    except MemoryError:
        return _refuse("not enough memory", 2)
    except Mistake as error:
        return _refuse(str(error), 2)
    except Exception as error:
        from prompt_mamba_arch.errors import plain_line

        line = plain_line(error)
        if line is None:
            raise
        return _refuse(line, 2)


def _refuse(line: str, code: int) -> int:
    print(f"prompt-mamba: {line}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    from prompt_mamba_cli.arguments import Parser

    parser = Parser(
        prog="prompt-mamba",
        description="Restores photographs as a sentence asks.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        command = importlib.import_module(f"prompt_mamba_cli.{name}")
        one = commands.add_parser(name, help=command.HELP, description=command.HELP, allow_abbrev=False)
        command.add_arguments(one)
        one.set_defaults(run=command.run)
    for name, text in _BASICSR.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser
