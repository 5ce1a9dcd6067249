"""A study with people: which of two results is better, and does a result do what the sentence asks?

`materials` is what is compared, `plan` what one participant sees, `store` keeps every answer, `server` asks (it needs
the extra `study`), `statistics` and `report` tell what came out.
"""

from __future__ import annotations

from prompt_mamba_arch.study.materials import Materials
from prompt_mamba_arch.study.plan import Design, Trial
from prompt_mamba_arch.study.store import Store

__all__ = ["Design", "Materials", "Store", "Trial"]
