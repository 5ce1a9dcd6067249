"""What a prompt asks for: which degradations shall go, which shall stay, and whether it asks for restoration at all."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.text.encoder import TextEncoder

__all__ = ["ASKS", "Intent", "IntentHead", "describe", "load_head", "read_intent", "read_intents"]

ASKS = ("restoration", "nothing", "unrelated")

_FILE = Path(__file__).with_name("intent.safetensors")
_BATCH = 64
_WORDS = {
    "defocus": "focus blur",
    "motion": "motion blur",
    "jpeg": "compression artifacts",
    "lowres": "low resolution",
    "lowlight": "darkness",
    "holes": "missing or covered parts",
}
_BLURS = ("defocus", "motion")


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


def read_intent(prompt: str) -> Intent:
    """What the prompt asks for. An empty one asks for everything, as everywhere here."""
    if not isinstance(prompt, str):
        raise TypeError("read_intent takes one string; read_intents takes several")
    return read_intents([prompt])[0]


def read_intents(prompts: Sequence[str]) -> list[Intent]:
    """As `read_intent`, for many prompts: faster than one by one.

    Raises:
        UserError: the text encoder or the shipped file cannot be read.
    """
    head = load_head()
    written = [prompt for prompt in dict.fromkeys(prompts) if prompt.strip()]
    known = {}
    for start in range(0, len(written), _BATCH):
        batch = written[start : start + _BATCH]
        for prompt, row in zip(batch, head.probabilities(_encoder().token_states(batch)).tolist()):
            known[prompt] = _intent(prompt, head.kinds, row)
    return [known[p] if p in known else _blind(p, head.kinds) for p in prompts]


def describe(intent: Intent) -> str:
    """One plain sentence: "remove noise (0.97), keep motion blur"; "this does not ask for restoration (0.98)"."""
    asks = max(intent.asks, key=intent.asks.get)
    if not intent.prompt.strip():
        return "remove whatever is wrong (no prompt)"
    if asks == "unrelated":
        return f"this does not ask for restoration ({intent.asks[asks]:.2f})"
    keep = _named({kind: value for kind, value in intent.keep.items() if value >= 0.5})
    staying = f", keep {', '.join(keep)}" if keep else ""
    if asks == "nothing":
        return f"leave the photograph as it is ({intent.asks[asks]:.2f}){staying}"
    if intent.everything >= 0.5:
        return f"remove whatever is wrong ({intent.everything:.2f}){staying}"
    going = _named({kind: value for kind, value in intent.remove.items() if value >= 0.5})
    if going:
        return "remove " + ", ".join(f"{name} ({value:.2f})" for name, value in going.items()) + staying
    name, value = next(iter(_named(intent.remove).items()))
    return f"this asks for restoration, but not clearly of what: most likely {name} ({value:.2f}){staying}"


def _named(values: dict[str, float]) -> dict[str, float]:
    """Names for people -> value, the surest first; both blurs become one "blur"."""
    values = dict(values)
    if all(kind in values for kind in _BLURS) and abs(values["defocus"] - values["motion"]) < 0.25:
        values["blur"] = max(values.pop(kind) for kind in _BLURS)
    surest = sorted(values, key=values.get, reverse=True)
    return {_WORDS.get(kind, kind): values[kind] for kind in surest}


class IntentHead(nn.Module):
    """Reads the states of the words, as "keep the grain" and "remove the grain" have much the same sentence embedding.

    What is meant and what shall be done with it are read apart, so that every kind profits from what was learned about
    "but leave the ..., please" with another: each word says which kinds it speaks of; a kind's place in the sentence is
    where it is spoken of most; and what stands near that place (two convolutions) tells whether it shall go or stay.

    Args:
        kinds: their names.
        text_dim: width of the encoder's states.
        width: of what is computed here.
        dropout: in training, of the states' numbers.
        word_dropout: in training, of whole words.
    """

    def __init__(
        self,
        *,
        kinds: Sequence[str],
        text_dim: int = 384,
        width: int = 64,
        dropout: float = 0.4,
        word_dropout: float = 0.1,
    ):
        super().__init__()
        self.kinds = tuple(kinds)
        self.config = {"kinds": list(kinds), "text_dim": text_dim, "width": width}
        count = len(self.kinds)
        self.states_dropout, self.dropout = nn.Dropout(dropout), nn.Dropout(dropout / 2)
        self.word_dropout = word_dropout
        self.topic = nn.Linear(text_dim, count)
        self.topic_deep = nn.Sequential(nn.Linear(text_dim, width), nn.GELU(), nn.Linear(width, count))
        self.focus = nn.Parameter(torch.ones(()))
        self.presence_bias = nn.Parameter(torch.full((count,), -1.0))
        self.narrow = nn.Linear(text_dim, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.near = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(2))
        self.look = nn.Linear(width, 1)
        self.role = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Dropout(dropout / 2), nn.Linear(width, 2))
        self.gist = nn.Sequential(
            nn.Dropout(dropout / 2),
            nn.Linear(2 * width + text_dim, width),
            nn.GELU(),
            nn.Dropout(dropout / 2),
            nn.Linear(width, 1 + len(ASKS)),
        )
        # calibration: what the logits of presence, role, everything and asks are divided by
        self.register_buffer("temperature", torch.ones(4))

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits, divided by the temperatures: a kind is spoken of (B, kinds); it shall go or stay (B, kinds, 2);
        all that is wrong is meant (B,); what is asked for (B, 3).

        Args:
            states: the encoder's (B, L, text_dim).
            mask: (B, L), 1 where there is a word.
        """
        seen = mask
        if self.training:
            seen = mask * (torch.rand_like(mask) >= self.word_dropout)
            seen[:, 0] = 1  # [CLS]: something must be left
        seen, hidden = seen[..., None], seen[..., None] == 0
        dropped = self.states_dropout(states)

        topic = (self.topic(dropped) + self.topic_deep(dropped)).masked_fill(hidden, -1e4)  # (B, L, kinds)
        place = (topic * nn.functional.softplus(self.focus)).softmax(1)
        presence = (place * topic).sum(1) + self.presence_bias

        x = nn.functional.gelu(self.narrow(dropped)) * seen  # (B, L, width)
        for norm, near in zip(self.norms, self.near):
            y = near((norm(x) * seen).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(nn.functional.gelu(y)) * seen
        looked = (self.look(x).masked_fill(hidden, -1e4).softmax(1) * x).sum(1)
        sentence = torch.cat((looked, x.masked_fill(hidden, -1e4).amax(1)), 1)  # (B, 2 width)
        there = torch.einsum("blk,blw->bkw", place, x)
        role = self.role(torch.cat((there, sentence[:, None].expand(-1, there.shape[1], -1)), 2))
        embedding = nn.functional.normalize((states * mask[..., None]).sum(1), dim=1)  # as TextEncoder.encode's
        gist = self.gist(torch.cat((sentence, embedding * 8), 1))
        t = self.temperature
        return presence / t[0], role / t[1], gist[:, 0] / t[2], gist[:, 1:] / t[3]

    @staticmethod
    def chances(presence: Tensor, role: Tensor, everything: Tensor, asks: Tensor) -> tuple[Tensor, ...]:
        """From logits to probabilities: remove and keep (B, kinds), everything (B,), asks (B, 3). A kind goes if it is
        named as what shall go, or if everything shall go and it is not named as what shall stay."""
        asks = asks.softmax(1)
        go, stay = (presence.sigmoid()[..., None] * role.softmax(2)).unbind(2)
        everything = asks[:, 0] * everything.sigmoid()
        remove = asks[:, :1] * go + (1 - go) * everything[:, None] * (1 - stay)
        return remove, (1 - asks[:, 2:]) * stay, everything, asks

    @torch.no_grad()
    def probabilities(self, states: Sequence[Tensor]) -> Tensor:
        """(B, 2 kinds + 4): remove, keep, everything, asks. `states`: (words, text_dim) of each prompt."""
        padded = nn.utils.rnn.pad_sequence([s.float() for s in states], batch_first=True)
        lengths = torch.tensor([len(s) for s in states])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).float()
        remove, keep, everything, asks = self.chances(*self(padded, mask))
        return torch.cat((remove, keep, everything[:, None], asks), 1)


def load_head(path: Path = _FILE) -> IntentHead:
    """The shipped head, read once per process. Its `training_record` is the record of its training.

    Raises:
        UserError: there is no such file, or it is not one of `scripts/train_intent.py`.
    """
    return _load_head(Path(path))


@functools.lru_cache(maxsize=2)
def _load_head(path: Path) -> IntentHead:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            head = IntentHead(**json.loads(metadata["head"]))
            head.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})
            head.training_record = json.loads(metadata["training"])
    except FileNotFoundError:
        raise UserError(f"intent: {path} is missing; install the package anew") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"intent: {path} is damaged or no intent head ({one_line(error)}); install anew") from None
    return head.eval().requires_grad_(False)


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
