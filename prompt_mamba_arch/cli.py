"""The command `prompt-mamba` under the package's own name; it lives in `prompt_mamba_cli`, which starts faster."""

from __future__ import annotations

from prompt_mamba_cli import main

__all__ = ["main"]
