"""PromptMamba, a plugin for BasicSR: `import prompt_mamba_arch` registers its networks, datasets, models and metrics.

The order matters: first the mends without which BasicSR 1.4.2 cannot be imported, then the modules whose decorators
register. As in BasicSR, those are found by their file names, so that a new network is one new file.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from prompt_mamba_arch import compat
from prompt_mamba_arch.errors import UserError

__all__ = ["UserError", "__version__"]
__version__ = "0.1.0"

# sub-package -> the files in it that register something
_REGISTERING = {
    "archs": "*_arch.py",
    "data": "*_dataset.py",
    "losses": "*.py",
    "metrics": "*.py",
    "models": "*_model.py",
}


def _register() -> None:
    """Imports every registering module, always as `prompt_mamba_arch.<folder>.<file>`: a second name for the same file
    would register everything twice."""
    here = Path(__file__).resolve().parent
    for folder, pattern in _REGISTERING.items():
        for file in sorted((here / folder).glob(pattern)):
            if not file.stem.startswith("_"):
                importlib.import_module(f"{__name__}.{folder}.{file.stem}")


compat.apply()
_register()
