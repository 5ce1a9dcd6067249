"""Clean images, degraded on the fly, with requests whose targets are exact."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from prompt_mamba_arch.data.dataset_options import check_dataset_keys, is_training, option
from prompt_mamba_arch.data.degradations import (
    check_kinds,
    check_ranges,
    kinds_of,
    render_pair,
    sample_recipe,
    sample_step,
    severity,
    severity_word,
)
from prompt_mamba_arch.data.degradations.spec import weighted
from prompt_mamba_arch.data.image_source import ImageSource, key_of, read_meta_info, to_float, to_tensor
from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.data.prompt_file import read_prompt_file
from prompt_mamba_arch.data.prompt_sources import multi_hot
from prompt_mamba_arch.data.transforms import augment, random_corner
from prompt_mamba_arch.errors import UserError, check_keys

__all__ = ["REQUESTS", "PromptDegradationDataset", "Request"]

# what is asked for -> how often by default
REQUESTS = {"all": 0.35, "subset": 0.4, "none": 0.1, "unrelated": 0.1, "absent": 0.05}

# what `prompts: levels` calls the kinds
KIND_NAMES = {
    **{"noise": "noise", "defocus": "defocus blur", "motion": "motion blur", "jpeg": "jpeg artifacts"},
    **{"lowres": "low resolution", "rain": "rain", "haze": "haze", "lowlight": "low light", "holes": "holes"},
}


class Request(NamedTuple):
    """One draw: what is done to the image, what the prompt asks to remove, and the prompt ("" is blind)."""

    recipe: list[dict]
    remove: tuple[str, ...]
    prompt: str


@DATASET_REGISTRY.register()
class PromptDegradationDataset(Dataset):
    """Each clean image is degraded by a random recipe, and a prompt asks to remove all of it, some of it or nothing.

    The target is the same recipe rendered without what the prompt asks to remove: what should stay is in it, from the
    same draws. A blind sample (no prompt) has the clean image as its target.

    In training everything is drawn from Python's `random`. In validation everything follows from the image's key and
    the option `seed` alone, so every method, process and machine sees the same pixels, in any order.

    Args:
        opt: the dataset section of the option file. BasicSR's general keys, and:
            dataroot_gt (str): folder of clean images, or LMDB folder with `io_backend: {type: lmdb}`.
            meta_info_file (str): names of the images to use, one a line; default all.
            gt_size (int): side of the square patch; required in training (random), optional in validation (middle).
                The patch is cut before it is degraded.
            centre_multiple (int): keep the middle of the image, with sides that are multiples of it; validation only.
                Benchmarks of all-in-one restoration use 16.
            use_hflip, use_rot (bool): random mirroring; random flip and transposition. Training only. Default false.
            kinds: list of kinds, or {kind: weight}; default all, equally often. "none" is the image as it is.
            ranges (dict): {kind: {parameter: value, [low, high] or list}} instead of the default draws.
            count: number of degradations of an image, [least, most] or a number; default [1, 3].
            count_weights: how often each number from the least to the most is drawn, as [5, 3, 2]; default equally.
            order (str): `physical` (default) or `random`.
            requests (dict): weights of
                `all` (remove everything), `subset` (some of several kinds, keep the rest; with one kind as `all`),
                `none` (leave it as it is), `unrelated` (nothing to do with restoration), `absent` (remove what is not
                there). The last three have the degraded image as their target. Default: see `REQUESTS`; a key left out
                is weight 0.
            prompts: `bank` (default: written from the parameters, see `prompt_mamba_arch.prompts`), `levels` (the
                parameters themselves in three steps, "heavy noise, slight haze", as PromptSR's), `none` (every
                sample blind), or a .jsonl prompt file whose entries say `remove`: a sample takes one of the file's
                prompts that ask for the same kinds, and one of the bank's where the file has none.
            prompt_split (str): `train`, `val` or `test` phrasings of the bank; default as the phase.
            prompt_variety (int): the bank's wordings of one wish for one damage; default: no limit. Each new sentence
                has to be embedded, which takes a few milliseconds on a CPU; known ones cost nothing.
            prompt_dropout (float): share of samples made blind; default 0.1 in training, 0 in validation.
            seed (int): another number, another validation set. Default 0.

    A sample is a dict with `lq`, `gt`: float32 `(3, H, W)`, RGB in [0, 1]; `prompt`: str; `key`, `lq_path`, `gt_path`:
    str (both the clean image's file); `present`, `remove`: float32 `(len(KINDS),)` multi-hot: what is in the image,
    what is asked for; `recipe`: JSON, for `prompt_mamba_arch.data.render`.

    Raises:
        UserError: at construction for a wrong option; when a sample is read for a damaged or too small image.
    """

    own_keys = (
        "dataroot_gt",
        "meta_info_file",
        "gt_size",
        "centre_multiple",
        "use_hflip",
        "use_rot",
        "kinds",
        "ranges",
        "count",
        "count_weights",
        "order",
        "requests",
        "prompts",
        "prompt_split",
        "prompt_variety",
        "prompt_dropout",
        "seed",
    )

    def __init__(self, opt: Mapping[str, Any]):
        super().__init__()
        check_dataset_keys(opt, self.own_keys)
        self.opt = opt
        self.training = is_training(opt)
        if option(opt, "scale", int, default=1, minimum=1) != 1:
            raise UserError(
                "PromptDegradationDataset needs scale: 1 (its images of low resolution are brought back to size)"
            )
        self.gt_size = option(opt, "gt_size", int, required=self.training, minimum=1)
        self.multiple = option(opt, "centre_multiple", int, minimum=1)
        self.use_hflip = option(opt, "use_hflip", bool, default=False)
        self.use_rot = option(opt, "use_rot", bool, default=False)
        self.kinds = check_kinds(opt.get("kinds"))
        self.ranges = check_ranges(opt.get("ranges") or {})
        self.count = _count(opt.get("count", (1, 3)))
        self.count_weights = _count_weights(opt.get("count_weights"), self.count)
        self.order = option(opt, "order", str, default="physical")
        self.requests = _requests(opt.get("requests"))
        phase = opt.get("phase", "train")
        self.split = option(opt, "prompt_split", str, default=phase if phase in ("train", "val") else "test")
        if self.split not in ("train", "val", "test"):
            raise UserError(f"prompt_split must be train, val or test, not {self.split!r}")
        self.variety = option(opt, "prompt_variety", int, minimum=1)
        self.dropout = _share(opt, "prompt_dropout", 0.1 if self.training else 0.0)
        self.seed = option(opt, "seed", int, default=0)
        self.by_level = opt.get("prompts") == "levels"
        self.pool = _prompt_pool(opt.get("prompts", "bank"))
        if self.pool is None:  # no prompts at all
            self.dropout = 1.0
        sample_recipe(0, self.kinds, self.count, ranges=self.ranges, order=self.order)  # refuses what is wrong now

        keys = None
        if opt.get("meta_info_file") is not None:
            keys = [key_of(name) for name in read_meta_info(opt["meta_info_file"])]
        root = option(opt, "dataroot_gt", str, required=True)
        self.images = ImageSource(root, opt.get("io_backend"), keys=keys, label="dataroot_gt")
        self.keys = self.images.keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        key = self.keys[index]
        image = self._patch(key, self.images.read(key))
        if self.training:
            (image,) = augment([image], self.use_hflip, self.use_rot)
        request = self.request(random.getrandbits(48) if self.training else self._seed_of(key))
        clean = to_float(np.ascontiguousarray(image))
        lq, gt = render_pair(clean, request.recipe, request.remove)
        path = self.images.path(key)
        return {
            "lq": to_tensor(lq),
            "gt": to_tensor(gt),
            "prompt": request.prompt,
            "key": key,
            "lq_path": path,
            "gt_path": path,
            "present": multi_hot(kinds_of(request.recipe)),
            "remove": multi_hot(request.remove),
            "recipe": json.dumps(request.recipe),
        }

    def request(self, seed: int) -> Request:
        """The recipe, the kinds to remove and the prompt that follow from `seed`."""
        rng = random.Random(seed)
        count = self.count
        if self.count_weights is not None:
            count = weighted(rng.random(), range(count[0], count[1] + 1), self.count_weights)
        recipe = sample_recipe(rng.getrandbits(48), self.kinds, count, ranges=self.ranges, order=self.order)
        present = kinds_of(recipe)
        blind = rng.random() < self.dropout
        asked = weighted(rng.random(), tuple(self.requests), tuple(self.requests.values()))
        if blind:
            return Request(recipe, present, "")
        if asked == "subset" and len(present) > 1:
            remove = tuple(sorted(rng.sample(present, rng.randint(1, len(present) - 1)), key=KINDS.index))
        elif asked in ("all", "subset") and present:
            remove = present
        elif asked in ("none", "unrelated") or len(present) == len(KINDS):
            remove = ()
        else:  # a wish for what is not there; also all one can ask of a clean image
            remove = (rng.choice([kind for kind in KINDS if kind not in present]),)
            # the writer is told of what is there, too: a wish for everything would have another target
            told = [*recipe, sample_step(remove[0], rng.getrandbits(48), self.ranges.get(remove[0]))]
            return Request(recipe, remove, self._write(told, remove, rng))
        if asked == "unrelated":
            return Request(recipe, (), self._unrelated(rng))
        return Request(recipe, remove, self._write(recipe, remove, rng))

    def _write(self, recipe: list[dict], remove: Collection[str], rng: random.Random) -> str:
        if self.by_level:
            return level_prompt(recipe, remove)
        written = self.pool.get(frozenset(remove))
        if written:
            return rng.choice(written)
        from prompt_mamba_arch import prompts  # only those who use the bank read it

        rng = self._words(rng)
        severities = {step["kind"]: severity(step) for step in recipe}
        return prompts.from_parameters(recipe, remove, rng, split=self.split, severity=severities)

    def _unrelated(self, rng: random.Random) -> str:
        from prompt_mamba_arch import prompts

        # these say nothing of the image, so there would be only as many as `variety`
        return prompts.unrelated(self._words(rng, times=100), split=self.split)

    def _words(self, rng: random.Random, times: int = 1) -> random.Random:
        return rng if self.variety is None else random.Random(rng.randrange(self.variety * times))

    def _seed_of(self, key: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{key}".encode()).digest()[:6], "big")

    def _patch(self, key: str, image: np.ndarray) -> np.ndarray:
        size = self.gt_size
        height, width = image.shape[:2]
        if self.multiple is not None and not self.training:
            if min(height, width) < self.multiple:
                raise UserError(f"image '{key}' is {width}x{height}, smaller than centre_multiple {self.multiple}")
            image = _middle(image, height // self.multiple * self.multiple, width // self.multiple * self.multiple)
            height, width = image.shape[:2]
        if size is None:
            return image
        if min(height, width) < size:
            raise UserError(
                f"image '{key}' is {width}x{height} (width x height), smaller than gt_size {size}: "
                f"make gt_size smaller or remove {self.images.path(key)}"
            )
        if not self.training:
            return _middle(image, size, size)
        top, left = random_corner(height, width, size)
        return image[top : top + size, left : left + size]


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _count(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(pair, (list, tuple))
        or len(pair) != 2
        or any(isinstance(n, bool) or not isinstance(n, int) for n in pair)
        or not 0 <= pair[0] <= pair[1]
    ):
        raise UserError(f"count must be a number or [least, most], as [1, 3], not {value!r}")
    return tuple(pair)


def _count_weights(value: Any, count: tuple[int, int]) -> list[float] | None:
    if value is None:
        return None
    numbers = count[1] - count[0] + 1
    good = isinstance(value, (list, tuple)) and len(value) == numbers
    if not good or any(type(w) not in (int, float) or w < 0 for w in value) or not 0 < sum(value) < float("inf"):
        raise UserError(f"count_weights must be {numbers} numbers, one for each count from {count[0]} to {count[1]}")
    return list(value)


def _requests(value: Any) -> dict[str, float]:
    if value is None:
        return dict(REQUESTS)
    check_keys(value, REQUESTS, "requests")
    for name, weight in value.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise UserError(f"requests: the weight of {name} must be a number from 0 on, not {weight!r}")
    if not sum(value.values()) > 0:
        raise UserError("requests: at least one weight must be greater than 0")
    return {name: float(value.get(name, 0)) for name in REQUESTS}


def _share(opt: Mapping[str, Any], key: str, default: float) -> float:
    value = opt.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f"{key} must be between 0 and 1, not {value!r}")
    return float(value)


def level_prompt(recipe: Iterable[Mapping[str, Any]], remove: Collection[str]) -> str:
    """The degradations to remove with their strengths in three steps: "moderate motion blur, heavy noise".

    The prompts of PromptSR (Chen et al. 2023, arXiv:2311.14282) are the parameters of the degradations, discretised.
    """
    words = [f"{severity_word(step)} {KIND_NAMES[step['kind']]}" for step in recipe if step["kind"] in remove]
    return ", ".join(words) if words else "no degradation"


def _prompt_pool(value: Any) -> dict[frozenset[str], list[str]] | None:
    """{kinds asked to remove: prompts} of a prompt file; empty for the bank; None for no prompts."""
    if value in ("bank", "levels"):
        return {}
    if value in (None, "none"):
        return None
    if not isinstance(value, str) or not value.lower().endswith(".jsonl"):
        raise UserError(f"prompts must be bank, levels, none or a .jsonl prompt file, not {value!r}")
    pool: dict[frozenset[str], list[str]] = {}
    for entry in read_prompt_file(value).values():
        if entry.remove is None:
            raise UserError(f"{os.path.basename(value)}: the entry '{entry.key}' does not say what to remove")
        pool.setdefault(frozenset(entry.remove), []).extend(entry.prompts)
    return pool
