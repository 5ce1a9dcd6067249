"""The network behind `read_intent`: the text encoder, adapted, and a head that reads its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prompt_mamba_arch.text.adapted_encoder import AdaptedEncoder

__all__ = ["ASKS", "IntentHead", "IntentNetwork"]

ASKS = ("restoration", "nothing", "unrelated")


class IntentNetwork(nn.Module):
    """Words in, logits out. Its state dict has the encoder's changes and the head, not the encoder.

    Args:
        kinds: their names.
        width: of the head.
        dropout: in training, in the head.
        encoder: arguments of `AdaptedEncoder`.
    """

    def __init__(
        self, *, kinds: Sequence[str], width: int = 64, dropout: float = 0.2, encoder: Mapping[str, int] | None = None
    ):
        super().__init__()
        self.kinds = tuple(kinds)
        self.encoder = AdaptedEncoder(**(encoder or {}))
        self.head = IntentHead(kinds=kinds, text_dim=self.encoder.config["dim"], width=width, dropout=dropout)
        self.config = {"kinds": list(kinds), "width": width, "encoder": self.encoder.config}

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The logits of `IntentHead`, for words as `TextEncoder.tokens` gives them: both (B, L)."""
        return self.head(self.encoder(ids, mask), mask.float())

    @torch.no_grad()
    def probabilities(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, 2 kinds + 4): remove, keep, everything, asks."""
        remove, keep, everything, asks = self.head.chances(*self(ids, mask))
        return torch.cat((remove, keep, everything[:, None], asks), 1)


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
    """

    def __init__(
        self,
        *,
        kinds: Sequence[str],
        text_dim: int = 384,
        width: int = 64,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.kinds = tuple(kinds)
        self.config = {"kinds": list(kinds), "text_dim": text_dim, "width": width}
        count = len(self.kinds)
        self.states_dropout, self.dropout = nn.Dropout(dropout), nn.Dropout(dropout / 2)
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
            mask: (B, L) float, 1 where there is a word.
        """
        seen, hidden = mask[..., None], mask[..., None] == 0
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
