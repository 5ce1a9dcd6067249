"""Prompts as text: the frozen encoder that turns them into vectors."""

from __future__ import annotations

from prompt_mamba_arch.text.encoder import TextEncoder

__all__ = ["TextEncoder"]
