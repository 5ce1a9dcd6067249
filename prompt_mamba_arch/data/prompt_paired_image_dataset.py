"""Pairs of degraded and clean images, with prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from basicsr.utils import rgb2ycbcr
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from prompt_mamba_arch.data.dataset_options import check_dataset_keys, is_training, option
from prompt_mamba_arch.data.image_source import ImageSource, key_of, read_meta_info, to_float, to_tensor
from prompt_mamba_arch.data.prompt_sources import multi_hot, prompt_source
from prompt_mamba_arch.data.transforms import augment, random_corner
from prompt_mamba_arch.errors import UserError, did_you_mean

__all__ = ["PromptPairedImageDataset"]

_LQ = ("dataroot_lq", "dataroot_lq_2", "dataroot_lq_3")


@DATASET_REGISTRY.register()
class PromptPairedImageDataset(Dataset):
    """BasicSR's PairedImageDataset with prompts, and with pairs matched by name.

    An image's key is its path below `dataroot_gt` without extension ("a/0001"); the two files of a pair may have
    different extensions. Images are decoded, cropped and only then converted to float, which is faster and gives the
    same samples as BasicSR from the same seed (scripts/benchmark/dataset.py). 16-bit images keep their precision.

    Args:
        opt: the dataset section of the option file. BasicSR's general keys, and:
            dataroot_gt, dataroot_lq (str): folders, or LMDB folders with `io_backend: {type: lmdb}`.
            dataroot_lq_2, dataroot_lq_3 (str): more degraded images of each clean one, such as the second view of a
                dual-pixel sensor. Their channels are stacked: the network has `in_chans: 6`, or 9.
            io_backend (dict): `{type: disk}` (default) or `{type: lmdb}`.
            meta_info_file (str): names of the gt images to use, one a line; default all.
            filename_tmpl (str): name of the lq image from the gt image's, without extension. Default "{}".
            prompts: a .jsonl file, `lmdb`, a text, a list of texts, `{task: denoise}` …: see
                `prompt_mamba_arch.data.prompt_sources`. Default: blind.
            centre_multiple (int): keep the middle of both images, with sides that are multiples of it (of gt pixels);
                validation only. Benchmarks of all-in-one restoration use 16.
            gt_size (int): side of the square training patch in gt pixels, a multiple of scale. Required in training.
            use_hflip, use_rot (bool): random mirroring; random flip and transposition. Training only. Default false.
            color (str): `y` for the luma channel only, else RGB.
            mean, std (list[float]): normalisation of the tensors, per channel, both or none.

    A sample is a dict with `lq`, `gt`: float32 `(3, H, W)`, RGB in [0, 1], lq with three channels for each folder;
    `prompt`: str, "" if blind (training draws one of the image's prompts, validation takes the first); `key`,
    `lq_path`, `gt_path`: str; `remove`, `present`: float32 `(len(KINDS),)` multi-hot, zeros where the prompt source
    does not say.

    Raises:
        UserError: at construction for a wrong option, a missing partner or a missing prompt; when a sample is read for
            a damaged image, or sizes that do not fit `scale` or `gt_size`. The message has the key and the path.
    """

    own_keys = (
        "dataroot_gt",
        *_LQ,
        "meta_info_file",
        "filename_tmpl",
        "prompts",
        "centre_multiple",
        "gt_size",
        "use_hflip",
        "use_rot",
        "color",
        "mean",
        "std",
    )

    def __init__(self, opt: Mapping[str, Any]):
        super().__init__()
        check_dataset_keys(opt, self.own_keys)
        self.opt = opt
        self.training = is_training(opt)
        self.scale = option(opt, "scale", int, default=1, minimum=1)
        self.gt_size = option(opt, "gt_size", int, required=self.training, minimum=1)
        if self.training and self.gt_size % self.scale:
            raise UserError(f"gt_size {self.gt_size} is not a multiple of scale {self.scale}")
        self.multiple = option(opt, "centre_multiple", int, minimum=1)
        if self.multiple is not None and self.multiple % self.scale:
            raise UserError(f"centre_multiple {self.multiple} is not a multiple of scale {self.scale}")
        self.use_hflip = option(opt, "use_hflip", bool, default=False)
        self.use_rot = option(opt, "use_rot", bool, default=False)
        self.luma = _is_luma(opt)

        backend = opt.get("io_backend")
        keys = None
        if opt.get("meta_info_file") is not None:
            keys = [key_of(name) for name in read_meta_info(opt["meta_info_file"])]
        self.gt = ImageSource(option(opt, "dataroot_gt", str, required=True), backend, keys=keys, label="dataroot_gt")
        roots = {key: option(opt, key, str, required=key == _LQ[0]) for key in _LQ}
        self.views = [ImageSource(root, backend, label=key) for key, root in roots.items() if root is not None]
        self.lq = self.views[0]
        self.mean, self.std = _mean_and_std(opt)
        if self.mean is not None and len(self.views) > 1:
            raise UserError("mean and std are for dataroot_lq alone")
        self.keys = self.gt.keys
        template = option(opt, "filename_tmpl", str, default="{}")
        pairs = [_pair(self.gt, view, template, keys is None) for view in self.views]
        self.lq_keys = pairs[0]  # the other views' are the same
        self.prompts = prompt_source(opt.get("prompts"), self.lq)
        for key in self.keys:
            self._entry(key)  # a missing prompt is found now and not hours into the training

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> dict[str, Any]:
        key = self.keys[index]
        gt, lq = self._fit(key, self.gt.read(key), self._read_lq(key))
        if self.multiple is not None and not self.training:
            gt, lq = self._middle(key, gt, lq)
        if self.training:
            gt, lq = self._random_patch(key, gt, lq)
            gt, lq = augment([gt, lq], self.use_hflip, self.use_rot)
        entry = self._entry(key)
        prompt = random.choice(entry.prompts) if self.training and len(entry.prompts) > 1 else entry.prompts[0]
        return {
            "lq": self._to_tensor(lq),
            "gt": self._to_tensor(gt),
            "prompt": prompt,
            "key": key,
            "lq_path": self.lq.path(self.lq_keys[key]),
            "gt_path": self.gt.path(key),
            "remove": multi_hot(entry.remove),
            "present": multi_hot(entry.present),
        }

    def _entry(self, key: str):
        try:
            return self.prompts.entry(key)
        except UserError as error:
            raise UserError(f"{error} (image {self.gt.path(key)})") from None

    def _read_lq(self, key: str) -> np.ndarray:
        """(H, W, 3) for each view, stacked."""
        images = [view.read(self.lq_keys[key]) for view in self.views]
        if len(images) == 1:
            return images[0]
        if len({(image.shape, image.dtype) for image in images}) > 1:
            told = ", ".join(f"{_size(i)} in {v.path(self.lq_keys[key])}" for i, v in zip(images, self.views))
            raise UserError(f"image '{key}': the degraded images differ in size or bits: {told}")
        return np.concatenate(images, axis=2)

    def _middle(self, key: str, gt: np.ndarray, lq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = (side // self.multiple * self.multiple for side in gt.shape[:2])
        if not height or not width:
            raise UserError(f"image '{key}' is {_size(gt)}, smaller than centre_multiple {self.multiple}")
        # in lq's pixels, so that both show the same
        top, left = ((side - inner) // 2 // self.scale for side, inner in zip(gt.shape, (height, width)))
        scale = self.scale
        lq = lq[top : top + height // scale, left : left + width // scale]
        return gt[top * scale : top * scale + height, left * scale : left * scale + width], lq

    def _fit(self, key: str, gt: np.ndarray, lq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cuts the rest that an integer division by scale left at gt's right and bottom edge."""
        height, width = lq.shape[0] * self.scale, lq.shape[1] * self.scale
        if not (0 <= gt.shape[0] - height < self.scale and 0 <= gt.shape[1] - width < self.scale):
            raise UserError(
                f"image '{key}': gt is {_size(gt)} and lq {_size(lq)} (width x height), which does not fit scale "
                f"{self.scale} ({self.gt.path(key)}, {self.lq.path(self.lq_keys[key])})"
            )
        return gt[:height, :width], lq

    def _random_patch(self, key: str, gt: np.ndarray, lq: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size, scale = self.gt_size // self.scale, self.scale
        if min(lq.shape[:2]) < size:
            raise UserError(
                f"image '{key}' is {_size(gt)} (width x height), smaller than gt_size {self.gt_size}: "
                f"make gt_size smaller or remove {self.gt.path(key)}"
            )
        top, left = random_corner(lq.shape[0], lq.shape[1], size)
        lq = lq[top : top + size, left : left + size]
        top, left, size = top * scale, left * scale, size * scale
        return gt[top : top + size, left : left + size], lq

    def _to_tensor(self, image: np.ndarray) -> torch.Tensor:
        if self.luma:
            views = np.split(to_float(image), image.shape[2] // 3, axis=2)
            image = np.stack([rgb2ycbcr(np.ascontiguousarray(view), y_only=True) for view in views], axis=2)
        tensor = to_tensor(image)
        return tensor if self.mean is None else normalize(tensor, self.mean, self.std, inplace=True)


def _pair(gt: ImageSource, lq: ImageSource, template: str, all_of_lq: bool) -> dict[str, str]:
    """gt key -> lq key. `all_of_lq`: every lq image whose name fits the template must have its gt image too."""
    if template.count("{}") != 1 or "{" in template.replace("{}", "") or "/" in template:
        raise UserError(f"filename_tmpl must have {{}} once, where the gt image's name goes, not '{template}'")
    before, after = template.split("{}")
    pairs = {}
    for key in gt.keys:
        folder, slash, name = key.rpartition("/")
        partner = f"{folder}{slash}{before}{name}{after}"
        if partner not in lq:
            raise UserError(
                f"no lq image for '{key}' ({gt.path(key)}): there is no '{partner}' in {lq.root}"
                f"{did_you_mean(partner, lq.keys)}"
            )
        pairs[key] = partner
    if all_of_lq:
        used = set(pairs.values())
        fits = re.compile(rf"(?:.*/)?{re.escape(before)}[^/]*{re.escape(after)}")
        lonely = [key for key in lq.keys if key not in used and fits.fullmatch(key)]
        if lonely:
            raise UserError(
                f"no gt image for '{lonely[0]}' ({lq.path(lonely[0])}) in {gt.root}"
                + (f", nor for {len(lonely) - 1} others" if len(lonely) > 1 else "")
                + "; to use a part of the lq images, list the gt images in a meta_info_file"
            )
    return pairs


def _mean_and_std(opt: Mapping[str, Any]) -> tuple[list[float] | None, list[float] | None]:
    mean, std = option(opt, "mean", list), option(opt, "std", list)
    if (mean is None) != (std is None):
        raise UserError("give both mean and std, or none of them")
    return mean, std


def _is_luma(opt: Mapping[str, Any]) -> bool:
    color = opt.get("color")
    if color not in (None, "rgb", "y"):
        raise UserError(f"color must be y or rgb, not {color!r}")
    return color == "y"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
