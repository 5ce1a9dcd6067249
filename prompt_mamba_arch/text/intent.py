"""What a prompt asks for: which degradations shall go, which shall stay, and whether it asks for restoration at all."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.text.encoder import TextEncoder
from prompt_mamba_arch.text.intent_network import ASKS, IntentNetwork

__all__ = ["Intent", "describe", "load_network", "read_intent", "read_intents", "reader_digest"]

_FILE = Path(__file__).with_name("intent.safetensors")
_BATCH = 64
_REMEMBERED = 4096
_remembered: OrderedDict[str, list[float]] = OrderedDict()  # prompt -> a row of IntentNetwork.probabilities
_lock = threading.Lock()
_WORDS = {
    "defocus": "focus blur",
    "motion": "motion blur",
    "jpeg": "compression artifacts",
    "lowres": "low resolution",
    "lowlight": "darkness",
    "holes": "missing or covered parts",
}
BLURS = ("defocus", "motion")


@dataclass(frozen=True)
class Intent:
    """What a prompt asks for. All numbers are probabilities.

    Attributes:
        remove: kind -> that it shall go; "fix this photo" asks for all kinds.
        keep: kind -> that it is said to stay.
        everything: that it asks for whatever is wrong, without naming it (but for `keep`).
        asks: "restoration", "nothing" (to leave all as it is) and "unrelated" -> that it asks for this; sums to 1.
    """

    prompt: str
    remove: dict[str, float]
    keep: dict[str, float]
    everything: float
    asks: dict[str, float]

    @property
    def is_restoration(self) -> float:
        """That something shall be restored: neither "leave it as it is" nor "what is the time?"."""
        return self.asks["restoration"]

    @property
    def meant(self) -> str:
        """The likeliest of `asks`, which is acted on."""
        return max(self.asks, key=self.asks.get)

    @property
    def clear(self) -> bool:
        """Whether it says what to do: what shall go, or to leave all as it is."""
        if self.meant == "restoration":
            return max(self.everything, *self.remove.values()) >= 0.5
        return self.meant == "nothing"

    @property
    def named(self) -> frozenset[str]:
        """The kinds of `remove` that are clearly to go; where none is, the likeliest, with both blurs if they are about
        as likely."""
        clear = frozenset(kind for kind, value in self.remove.items() if value >= 0.5)
        if clear:
            return clear
        likeliest = max(self.remove, key=self.remove.get)
        return frozenset(BLURS if likeliest in BLURS and _any_blur(self.remove) else (likeliest,))


def read_intent(prompt: str) -> Intent:
    """What the prompt asks for. An empty one asks for everything, as everywhere here."""
    if not isinstance(prompt, str):
        raise TypeError("read_intent takes one string; read_intents takes several")
    return read_intents([prompt])[0]


def read_intents(prompts: Sequence[str]) -> list[Intent]:
    """As `read_intent`, for many prompts: several times as fast as one by one. The last few thousand are remembered.

    Raises:
        UserError: the text encoder or the shipped file cannot be read.
    """
    if isinstance(prompts, str):
        raise TypeError("read_intents takes a list of prompts; read_intent takes one string")
    network = load_network()
    written = [prompt for prompt in dict.fromkeys(prompts) if prompt.strip()]
    with _lock:
        rows = {prompt: _remembered[prompt] for prompt in written if prompt in _remembered}
        unseen = sorted((prompt for prompt in written if prompt not in rows), key=len)  # like lengths, little padding
        for start in range(0, len(unseen), _BATCH):
            batch = unseen[start : start + _BATCH]
            rows.update(zip(batch, network.probabilities(*_encoder().tokens(batch)).tolist()))
        for prompt in written:
            _remembered[prompt] = rows[prompt]
            _remembered.move_to_end(prompt)
        while len(_remembered) > _REMEMBERED:
            _remembered.popitem(last=False)
    return [_intent(p, network.kinds, rows[p]) if p in rows else _blind(p, network.kinds) for p in prompts]


def describe(intent: Intent) -> str:
    """One plain sentence: "remove noise (0.97), keep motion blur"; "this does not ask for restoration (0.98)"."""
    if not intent.prompt.strip():
        return "remove whatever is wrong (no prompt)"
    if intent.meant == "unrelated":
        return f"this does not ask for restoration ({intent.asks['unrelated']:.2f})"
    keep = _named({kind: value for kind, value in intent.keep.items() if value >= 0.5})
    staying = f", keep {', '.join(keep)}" if keep else ""
    if intent.meant == "nothing":
        return f"leave the photograph as it is ({intent.asks['nothing']:.2f}){staying}"
    if intent.everything >= 0.5:
        return f"remove whatever is wrong ({intent.everything:.2f}){staying}"
    going = ", ".join(f"{name} ({p:.2f})" for name, p in _named({k: intent.remove[k] for k in intent.named}).items())
    if intent.clear:
        return f"remove {going}{staying}"
    return f"this asks for restoration, but not clearly of what: most likely {going}{staying}"


def _any_blur(values: dict[str, float]) -> bool:
    return all(kind in values for kind in BLURS) and abs(values["defocus"] - values["motion"]) < 0.25


def _named(values: dict[str, float]) -> dict[str, float]:
    """Names for people -> value, the surest first; both blurs become one "blur"."""
    values = dict(values)
    if _any_blur(values):
        values["blur"] = max(values.pop(kind) for kind in BLURS)
    surest = sorted(values, key=values.get, reverse=True)
    return {_WORDS.get(kind, kind): values[kind] for kind in surest}


def load_network(path: Path = _FILE) -> IntentNetwork:
    """The shipped network, read once per process. Its `training_record` is the record of its training.

    Raises:
        UserError: there is no such file, or it is not one of `scripts/train_intent.py`, or there is no text encoder.
    """
    return _load_network(Path(path))


def reader_digest() -> str:
    """Of the shipped network's file: another one reads sentences otherwise. Empty where it is missing."""
    return hashlib.sha256(_FILE.read_bytes()).hexdigest() if _FILE.is_file() else ""


@functools.lru_cache(maxsize=2)
def _load_network(path: Path) -> IntentNetwork:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            network = IntentNetwork(**json.loads(metadata["network"]))
            network.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})
            network.training_record = json.loads(metadata["training"])
    except FileNotFoundError:
        raise UserError(f"intent: {path} is missing; install the package anew") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"intent: {path} is damaged or no intent network ({one_line(error)}); install anew") from None
    network.eval().requires_grad_(False)
    network.encoder.attach(_encoder().weights()).merge()
    return network


@functools.lru_cache(maxsize=1)
def _encoder() -> TextEncoder:
    return TextEncoder()


def _intent(prompt: str, kinds: Sequence[str], row: Sequence[float]) -> Intent:
    count = len(kinds)
    return Intent(
        prompt=prompt,
        remove=dict(zip(kinds, row[:count])),
        keep=dict(zip(kinds, row[count : 2 * count])),
        everything=row[2 * count],
        asks=dict(zip(ASKS, row[2 * count + 1 :])),
    )


def _blind(prompt: str, kinds: Sequence[str]) -> Intent:
    asks = {name: float(name == "restoration") for name in ASKS}
    return Intent(prompt, dict.fromkeys(kinds, 1.0), dict.fromkeys(kinds, 0.0), 1.0, asks)
