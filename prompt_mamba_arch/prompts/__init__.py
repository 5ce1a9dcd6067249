"""Requests as people write them: a bank of phrases, and writers that make prompts from it or with a language model.

The bank knows nothing of images and tensors. `prompt_mamba_arch.prompts.writers` and `…prompts.llm` make prompt files.
"""

from __future__ import annotations

from prompt_mamba_arch.prompts.compose import (
    Request,
    complaint,
    for_kinds,
    from_parameters,
    labelled,
    leave_alone,
    phrasings,
    unrelated,
)

__all__ = ["Request", "complaint", "for_kinds", "from_parameters", "labelled", "leave_alone", "phrasings", "unrelated"]
