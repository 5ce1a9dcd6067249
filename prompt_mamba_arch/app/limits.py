"""What one person may ask of the page, and how many may at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.image_io import read_size

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """All are at least 1.

    Attributes:
        upload_bytes: of one photograph's file.
        pixels: of one photograph, and of a result.
        seconds: that one restoration may take.
        jobs: restorations at a time.
        waiting: restorations that may wait for their turn.
        sessions: people with a photograph on the table.
        idle_seconds: after which a photograph that nobody touches is deleted.
        steps: that can be undone.
        prompt_length: characters of a wish.
    """

    upload_bytes: int = 64 << 20
    pixels: int = 50_000_000
    seconds: float = 600
    jobs: int = 1
    waiting: int = 20
    sessions: int = 100
    idle_seconds: float = 1800
    steps: int = 10
    prompt_length: int = 10_000

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 1:
                raise UserError(f"the limit {field.name} must be a number from 1 on, not {value!r}")

    def check_upload(self, path: Path) -> None:
        """Refuses a file by its size and by what its header says of its pixels, before any of them is decoded.

        Raises:
            UserError: too large, or no image.
        """
        size = path.stat().st_size if path.is_file() else 0
        if size > self.upload_bytes:
            raise UserError(
                f"{str(path)!r} has {size / 2**20:.0f} MB; at most {self.upload_bytes / 2**20:.0f} MB can be sent"
            )
        height, width = read_size(path)
        self.check_pixels(height, width, repr(str(path)))

    def check_pixels(self, height: int, width: int, what: str) -> None:
        """Raises UserError for too many pixels of `what`."""
        if height * width > self.pixels:
            raise UserError(
                f"{what} has {width} x {height} pixels, too many for this page: at most "
                f"{self.pixels / 1e6:.3g} megapixels; the command `prompt-mamba restore` takes larger ones"
            )

    def check_prompt(self, prompt: str) -> None:
        """Raises UserError for one that is too long."""
        if len(prompt) > self.prompt_length:
            raise UserError(
                f"the wish has {len(prompt):,} characters, and at most {self.prompt_length:,} are read; say it shorter"
            )
