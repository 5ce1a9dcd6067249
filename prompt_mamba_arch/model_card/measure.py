"""Measures all that a model card says, and keeps it, so that an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from prompt_mamba_arch.errors import UserError, one_line, replace_on_success
from prompt_mamba_arch.model_card.evaluate import evaluate, references
from prompt_mamba_arch.model_card.sets import SETS, Missing
from prompt_mamba_arch.model_card.speed import MEGAPIXELS, measure_speed
from prompt_mamba_arch.photographs import Photographs
from prompt_mamba_arch.probe import draw_sheets, probe, summary
from prompt_mamba_arch.probe.measure import labels_of, network_digest
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.weights import shipped_file

__all__ = ["PARTS", "measure_all", "training_record"]

PARTS = (*SETS, "requests", "pictures", "speed")
_PROBED = "CBSD68"
_CROP = 256  # pixels of the probe's images
_PICTURE = 256  # pixels a side


def measure_all(
    model: str,
    eval_folder: Path,
    work: Path,
    *,
    limit: int | None = None,
    probed: int | None = None,
    parts: Sequence[str] = PARTS,
    megapixels: Sequence[float] = MEGAPIXELS,
    device: str = "auto",
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """All figures of one network.

    Args:
        model: name or path.
        eval_folder: holds the sets as folders, each of which may be missing.
        work: what was measured is kept here, by network.
        limit: only so many images of each set.
        probed: only so many images for the requests, which take more runs than all else; default as `limit`.
        parts: of `PARTS`.
        megapixels: sizes for the time and memory.
        tell: called with what the user should know, a line at a time.

    Returns:
        `{"model", "limit", "sets": {set: [line]}, "requests", "pictures", "speed", "skipped": {part: why}}`
    """
    restorer = Restorer.from_pretrained(model, device)
    if restorer.upscale != 1:
        raise UserError(f"the network {model!r} enlarges its input; model cards are for networks that do not")
    digest = network_digest(restorer.net)
    suffix = "" if limit is None else f"-{limit}"
    kept = _Kept(work / f"{digest[:12]}{suffix}" / "results.json")
    others = _Kept(work / f"references{suffix}.json")
    found: dict[str, Any] = {"model": _about(model, restorer, digest), "limit": limit, "sets": {}, "skipped": {}}
    for part in parts:
        try:
            if part in SETS:
                found["sets"][part] = _measure_set(part, eval_folder, restorer, kept, others, limit)
            elif part == "requests":
                found[part] = _requests(model, eval_folder, kept.folder / "requests", probed or limit, device, tell)
            elif part == "pictures":
                found[part] = [str(path) for path in _pictures(model, kept.folder / "pictures", device)]
            else:
                found[part] = _speed(model, megapixels, device, kept)
        except Missing as error:
            found["skipped"][part] = f"no folder {error} there"
        except UserError as error:
            found["skipped"][part] = one_line(error)
        if part in found["skipped"]:
            tell(f"{part} is left out: {found['skipped'][part]}")
    return found


def training_record(model: str) -> dict[str, Any] | None:
    """What a .safetensors file says under `training`; None where it says nothing.

    Raises:
        UserError: it is not a JSON object.
    """
    path = shipped_file(model) or Path(model).expanduser()
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get("training")
    if text is None:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"the training record in {str(path)!r} is not a JSON object")
    return record


def _about(model: str, restorer: Restorer, digest: str) -> dict[str, Any]:
    config = {name: value for name, value in getattr(restorer.net, "config", {}).items() if value is not None}
    return {
        "label": labels_of([model])[0],
        "kind": type(restorer.net).__name__,
        "digest": digest,
        "parameters": sum(parameter.numel() for parameter in restorer.net.parameters()),
        "phase": restorer.phase,
        "reads_prompts": bool(getattr(restorer.net, "has_text", False)),
        "config": json.loads(json.dumps(config, default=str)),
    }


def _measure_set(
    part: str, eval_folder: Path, restorer: Restorer, kept: _Kept, others: _Kept, limit: int | None
) -> list[dict[str, Any]]:
    reads = bool(getattr(restorer.net, "has_text", False))

    def ask(image: np.ndarray, prompt: str) -> np.ndarray:
        return restorer.restore(image, prompt if reads else "")

    lines = []
    for task in SETS[part](eval_folder):
        line = {"name": task.name, "prompt": task.prompt, "luma": task.luma}
        if task.bar is not None:
            line["bar"] = task.bar._asdict()
        if task.name not in kept:
            with tqdm(desc=task.name, unit="image", disable=None, leave=False) as bar:
                kept[task.name] = evaluate(task, ask, limit, bar.update)
        if task.name not in others:
            with tqdm(desc=f"{task.name}: other methods", unit="image", disable=None, leave=False) as bar:
                others[task.name] = references(task, limit, bar.update)
        lines.append({**line, **kept[task.name], "references": others[task.name]})
    return lines


def _requests(
    model: str, eval_folder: Path, output: Path, limit: int | None, device: str, tell: Callable[[str], None]
) -> dict[str, Any]:
    folder = eval_folder / _PROBED
    if not folder.is_dir():
        raise Missing(_PROBED)
    with tqdm(desc="requests", unit="image", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        found = probe(
            folder, output, [model], crop=_CROP, limit=limit, per_kind=True, device=device, tell=tell, progress=progress
        )
    rows = [{**row._asdict(), "value": row.values[0]} for row in summary(found)]
    return {"set": _PROBED, "crop": _CROP, "images": len(found.keys), "rows": rows}


def _pictures(model: str, output: Path, device: str) -> list[Path]:
    """Contact sheets of photographs that may be shown: those that scikit-image ships."""
    shipped = Photographs()
    photos = output / "photographs"
    photos.mkdir(parents=True, exist_ok=True)
    for name in shipped.keys:
        image = shipped.read(name)
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
        with replace_on_success(photos / f"{name}.png") as path:
            square.resize((_PICTURE, _PICTURE), Image.LANCZOS).save(path)
    return draw_sheets(probe(photos, output, [model], device=device), output)


def _speed(model: str, megapixels: Sequence[float], device: str, kept: _Kept) -> list[dict[str, Any]]:
    found = []
    for size in tqdm(megapixels, desc="speed", unit="size", disable=None, leave=False):
        name = f"speed {size:g} {device}"
        if name not in kept:
            kept[name] = measure_speed(model, size, rounds=3 if size <= 4 else 1, device=device)
        found.append(kept[name])
    return found


class _Kept:
    """A JSON file of what has been measured. Each entry is added to what the file holds then, as another process may
    measure other parts at the same time."""

    def __init__(self, path: Path):
        self.folder = path.parent
        self._path = path
        self._found = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            raise UserError(f"{str(self._path)!r} is damaged; remove it, and all is measured again") from None

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> Any:
        return self._found[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._found = {**self._read(), name: value}
        self.folder.mkdir(parents=True, exist_ok=True)
        with replace_on_success(self._path) as path:
            path.write_text(json.dumps(self._found, indent=1) + "\n", encoding="utf-8")
