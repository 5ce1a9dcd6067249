"""The web page: a photograph and a wish go in, the restored photograph comes out.

Everything that can be wrong is here and works without a browser: what one person has on the table (`session`), the
limits, reading and correcting a wish (`wish`), the brushed region (`region`), and `Workshop`, which has them all.
`page` draws them with Gradio and `server` serves them; both need the extra `app`.
"""

from __future__ import annotations

from prompt_mamba_arch.app.limits import Limits
from prompt_mamba_arch.app.session import Session, Sessions
from prompt_mamba_arch.app.wish import Understood, understand, write_request
from prompt_mamba_arch.app.workshop import Workshop

__all__ = ["Limits", "Session", "Sessions", "Understood", "Workshop", "understand", "write_request"]
