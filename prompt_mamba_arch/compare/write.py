"""The files of a comparison."""

from __future__ import annotations

from pathlib import Path

from prompt_mamba_arch.compare import tables
from prompt_mamba_arch.compare.images import write_images
from prompt_mamba_arch.compare.report import report
from prompt_mamba_arch.compare.run import Comparison
from prompt_mamba_arch.errors import replace_on_success

__all__ = ["write_comparison"]


def write_comparison(found: Comparison, command: str | None = None) -> list[Path]:
    """Writes report.html, table.md, table.tex, summary.csv, scores.csv and `images/` into the plan's output folder."""
    folder = found.plan.output
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.html": report(found, command),
        "table.md": tables.markdown(found, command),
        "table.tex": tables.latex(found),
        "summary.csv": tables.summary_csv(found),
        "scores.csv": tables.scores_csv(found),
    }
    for name, text in texts.items():
        with replace_on_success(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    images = folder / "images"
    write_images(found, images)
    return [*(folder / name for name in texts), images]
