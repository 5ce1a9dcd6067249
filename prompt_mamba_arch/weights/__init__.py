"""The trained networks that come with the package, by name: `tiny` is `tiny.safetensors` in this folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped_file", "shipped_models"]

_FOLDER = Path(__file__).parent


def shipped_models() -> list[str]:
    """Names that `Restorer.from_pretrained` knows, and `path.pretrain_network_g` of an option file."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def shipped_file(name: str) -> Path | None:
    return _FOLDER / f"{name}.safetensors" if name in shipped_models() else None
