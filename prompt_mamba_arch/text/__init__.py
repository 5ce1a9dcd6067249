"""Prompts as text: the frozen encoder that turns them into vectors, and what they ask for."""

from __future__ import annotations

from prompt_mamba_arch.text.encoder import TextEncoder
from prompt_mamba_arch.text.intent import Intent, describe, read_intent, read_intents
from prompt_mamba_arch.text.wish import WISHES, Wish, wish_vectors

__all__ = ["WISHES", "Intent", "TextEncoder", "Wish", "describe", "read_intent", "read_intents", "wish_vectors"]
