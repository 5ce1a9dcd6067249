"""Where the console command `prompt-mamba` starts. What it does is in prompt_mamba_arch/cli.py.

Importing `prompt_mamba_arch.cli` would import the package first, with torch and BasicSR: seconds, only to print a help
text. So that one file is loaded by its path; it imports the package when work begins.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if "__mp_main__" in sys.modules:  # a spawned DataLoader worker runs this first; BasicSR's datasets need the mends
    import prompt_mamba_arch  # noqa: F401


def main() -> int:
    """Returns the exit code; see main() in prompt_mamba_arch/cli.py."""
    package = importlib.util.find_spec("prompt_mamba_arch")  # found, not imported
    file = Path(package.origin).with_name("cli.py")
    spec = importlib.util.spec_from_file_location("prompt_mamba_cli_commands", file)
    commands = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(commands)
    return commands.main()
