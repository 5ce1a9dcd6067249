"""Asks networks for what `cases` says, and measures what they do."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prompt_mamba_arch.data import KINDS, ImageSource, every_target, to_float
from prompt_mamba_arch.errors import UserError, check_keys, one_line, plain_line
from prompt_mamba_arch.metrics import targeted
from prompt_mamba_arch.probe.cases import Case, cases_of, identity
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.text.intent import reader_digest

__all__ = ["MEASURED", "Asked", "Probe", "Result", "labels_of", "network_digest", "probe"]

MEASURED = "measured.jsonl"  # one line for each case and network, in the output folder
_VERSION = 1  # another one where the same case would be measured otherwise

Targets = dict  # recipe as JSON -> {kinds removed: (H, W, 3) float32}


@dataclass(frozen=True)
class Asked:
    """A network that is probed.

    Attributes:
        label: its column in the tables.
        restorer: the network.
        digest: `network_digest`.
        reads: it takes prompts; one that does not is asked without.
    """

    label: str
    restorer: Restorer
    digest: str
    reads: bool


@dataclass(frozen=True)
class Result:
    """What was measured of one case of one image.

    Attributes:
        key: the image.
        case: what was asked.
        measured: for each network, in their order: measure -> value; None where there is none.
    """

    key: str
    case: Case
    measured: tuple[Mapping[str, float | None], ...]


@dataclass(frozen=True)
class Probe:
    """A folder, probed.

    Attributes:
        folder: of the clean images.
        asked: the networks.
        results: of all images that every network could be asked about.
        failed: image -> why it is not among them.
        settings: what else the results depend on.
    """

    folder: str
    asked: tuple[Asked, ...]
    results: tuple[Result, ...]
    failed: Mapping[str, str]
    settings: Mapping[str, object]

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(result.key for result in self.results))

    def clean(self, key: str) -> np.ndarray:
        """The clean image as it was probed: (H, W, 3) float32."""
        return _clean(ImageSource(self.folder), key, self.settings["crop"])


def probe(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    models: Sequence[str | os.PathLike] = ("tiny",),
    *,
    crop: int | None = None,
    limit: int | None = None,
    kinds: Sequence[str] | None = None,
    seed: int = 0,
    per_kind: bool = False,
    device: str = "auto",
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Probe:
    """Asks networks to restore the images of a folder in all ways of `cases.REQUESTS`.

    What was measured is kept in `output`, so that a run that was interrupted goes on, and another network, or more
    images, cost only themselves. The pixels and prompts are the same for every network.

    Args:
        folder: clean images.
        output: a folder, made if need be.
        models: names or paths, as `Restorer.from_pretrained` takes them.
        crop: take the middle of each image, at most so many pixels a side; default the whole image.
        limit: take so many images, the first in sorted order.
        kinds: degrade by these; default all.
        seed: another number, another benchmark.
        per_kind: each kind alone, too.
        device: as `Restorer.from_pretrained` takes it.
        tell: called with what the user should know, a line at a time.
        progress: called with (images done, images in all).

    Raises:
        UserError: no images, an unknown kind, a network that cannot be loaded or enlarges, or no image could be used.
    """
    kinds = KINDS if kinds is None else tuple(dict.fromkeys(kinds))
    check_keys(dict.fromkeys(kinds), KINDS, "kinds")
    source = ImageSource(folder)
    keys = source.keys[:limit]
    asked = _networks(models, device, tell)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    memory = _Memory(output / MEASURED)
    results: list[Result] = []
    failed: dict[str, str] = {}
    for done, key in enumerate(keys):
        progress(done, len(keys))
        try:
            digest = hashlib.sha256(source.read_bytes(key)).hexdigest()
            cases = cases_of(key, kinds, seed, per_kind=per_kind)
            results += _image(key, cases, lambda key=key: _clean(source, key, crop), asked, memory, f"{digest} {crop}")
        except (UserError, MemoryError) as error:
            failed[key] = plain_line(error) or "not enough memory for this image"
            tell(failed[key] if key in failed[key] else f"{key!r}: {failed[key]}")
    progress(len(keys), len(keys))
    if not results:
        raise UserError(f"none of the {len(keys)} images in {str(folder)!r} could be probed")
    settings = {"crop": crop, "seed": seed, "kinds": list(kinds), "per_kind": per_kind}
    return Probe(str(folder), tuple(asked), tuple(results), failed, settings)


def _networks(models: Sequence[str | os.PathLike], device: str, tell: Callable[[str], None]) -> list[Asked]:
    asked: list[Asked] = []
    labels = labels_of([str(model) for model in models])
    for model, label in zip(models, labels):
        restorer = Restorer.from_pretrained(model, device)
        if restorer.upscale != 1:
            raise UserError(f"the network {label!r} enlarges its input; the probe is for networks that do not")
        reads = bool(getattr(restorer.net, "has_text", False))
        if reads:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("ignore")
                warnings.simplefilter("always", UserWarning)
                restorer.embed("remove the noise")  # a missing encoder is said before any work is done
            for warning in caught:
                tell(one_line(warning.message))
        else:
            tell(f"the network {label!r} takes no prompts; it is asked everything without")
        asked.append(Asked(label, restorer, network_digest(restorer.net), reads))
    return asked


def labels_of(models: Sequence[str]) -> list[str]:
    """Short and different names for names and paths."""
    short = []
    for model in models:
        path = Path(model)
        is_file = path.suffix.lower() in (".pth", ".safetensors")
        folder = path.parent if is_file else path
        if folder.name == "models" and folder.parent.name:  # a run's folder of networks
            short.append(folder.parent.name)
        else:
            short.append(path.stem if is_file else path.name or model)
    if len(set(models)) < len(models):
        raise UserError("a network is named twice")
    return [name if short.count(name) == 1 else model for name, model in zip(short, models)]


def network_digest(net: torch.nn.Module) -> str:
    """A name for a network: of its arguments and all its weights, and of the reader of sentences that it depends on."""
    config = getattr(net, "config", {})
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    if config.get("wishes"):
        digest.update(reader_digest().encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _clean(source: ImageSource, key: str, crop: int | None) -> np.ndarray:
    image = source.read(key)
    if crop is not None:
        top, left = (max(size - crop, 0) // 2 for size in image.shape[:2])
        image = image[top : top + crop, left : left + crop]
    return to_float(np.ascontiguousarray(image))


def _image(
    key: str, cases: list[Case], clean: Callable[[], np.ndarray], asked: Sequence[Asked], memory: _Memory, pixels: str
) -> list[Result]:
    """Results of one image; `clean` is called only if something of it has not been measured before."""
    names = [[identity(case, pixels, one.digest, str(_VERSION)) for one in asked] for case in cases]
    if any(name not in memory.known for row in names for name in row):
        image = clean()
        targets: Targets = {}
        for number, one in enumerate(asked):
            run = functools.partial(_run, one, {})
            for case, row in zip(cases, names):
                if row[number] not in memory.known:
                    values = measure(case, image, targets, run)
                    memory.add(row[number], key, one.label, case, values)
            memory.flush()
    return [
        Result(key, case, tuple(memory.known[name] for name in row))
        for case, row in zip(cases, names)
    ]  # fmt: skip


def _run(one: Asked, outputs: dict, case: Case, lq: np.ndarray, prompt: str) -> np.ndarray:
    """The network's answer; `outputs` remembers them, so that no prompt is run twice on the same pixels."""
    prompt = prompt if one.reads else ""
    place = json.dumps(case.recipe), prompt
    if place not in outputs:
        outputs[place] = one.restorer.restore(lq, prompt)
    return outputs[place]


def targets_of(case: Case, clean: np.ndarray, memory: Targets) -> dict[frozenset[str], np.ndarray]:
    """`every_target` of the case's recipe, rendered once."""
    place = json.dumps(case.recipe)
    if place not in memory:
        memory[place] = every_target(clean, case.recipe)
    return memory[place]


def measure(
    case: Case, clean: np.ndarray, memory: Targets, run: Callable[[Case, np.ndarray, str], np.ndarray]
) -> dict[str, float | None]:
    """Runs a network on one case; the names of what is measured are those of `report.MEASURES`.

    Args:
        memory: of targets, shared by the cases of one image.
        run: (case, degraded image, prompt) -> restored image.
    """
    targets = targets_of(case, clean, memory)
    lq, target = targets[frozenset()], targets[frozenset(case.remove)]
    outputs = [run(case, lq, prompt) for prompt in case.prompts]
    output = outputs[0]
    if case.request in ("right", "empty", "kind", "kind_empty"):
        values = {"psnr": targeted.psnr(output, target), "input_psnr": targeted.psnr(lq, target)}
    elif case.request == "subset":
        found = targeted.adherence(output, targets, case.remove)
        values = {
            "removed_error": targeted.removed_error(output, target),
            "input_removed_error": targeted.removed_error(lq, target),
            "kept_error": targeted.kept_error(output, target, clean),
            "kept_share": targeted.kept_share(output, target, clean),
            "followed": float(found.followed),
            "margin": found.margin,
            "chance": found.chance,
        }
    elif case.request == "paraphrased":
        errors = [targeted.psnr(output, target) for output in outputs]
        found = [targeted.adherence(output, targets, case.remove) for output in outputs]
        values = {
            "psnr": float(np.mean(errors)),
            "input_psnr": targeted.psnr(lq, target),
            "spread": max(errors) - min(errors),
            "agreement": _agreement(outputs),
            "followed": float(np.mean([one.followed for one in found])),
            "chance": found[0].chance,
        }
    elif case.request == "contradictory":
        to_input, to_target = targeted.no_harm(output, lq), targeted.psnr(output, target)
        values = {"to_input": to_input, "to_target": to_target, "nearer_input": float(to_input > to_target)}
    else:
        values = {"no_harm": targeted.no_harm(output, lq)}
    # what threads and processors round differently is beyond these digits
    return {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}


def _agreement(outputs: Sequence[np.ndarray]) -> float:
    """PSNR in dB between two of the outputs, from the mean squared difference over all pairs."""
    if len(outputs) < 2:
        return targeted.MAX_DB
    # the mean squared difference of pairs is 2 n / (n - 1) times the variance
    variance = float(np.var(np.stack(outputs).astype(np.float64), axis=0).mean())
    mse = 2 * len(outputs) / (len(outputs) - 1) * variance
    return targeted.MAX_DB if mse <= 10 ** (-targeted.MAX_DB / 10) else -10 * math.log10(mse)


class _Memory:
    """What has been measured, in a file of JSON lines to which each image adds.

    Attributes:
        known: identity of case, image and network -> what was measured.
    """

    def __init__(self, path: Path):
        self._path = path
        self.known: dict[str, dict] = {}
        self._new: list[str] = []
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return
        except UnicodeDecodeError:
            raise UserError(f"{str(path)!r} is damaged; remove it, and all is measured again") from None
        for line in lines:
            try:
                entry = json.loads(line)
                self.known[entry["id"]] = entry["measured"]
            except (ValueError, KeyError, TypeError):  # cut off when a run was stopped: it is measured again
                continue

    def add(self, name: str, key: str, label: str, case: Case, values: Mapping[str, float | None]) -> None:
        self.known[name] = dict(values)
        told = {"request": case.request, "kinds": case.kinds, "remove": case.remove, "prompts": case.prompts}
        self._new.append(json.dumps({"id": name, "image": key, "model": label, **told, "measured": values}))

    def flush(self) -> None:
        if self._new:
            with open(self._path, "a", encoding="utf-8") as file:
                # the line before may have been cut off
                file.write("\n" * (file.tell() > 0) + "\n".join(self._new))
            self._new.clear()
