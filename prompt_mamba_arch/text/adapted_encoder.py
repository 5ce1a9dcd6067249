"""The frozen text encoder with low-rank changes of its own: another reader of the same words, a hundredth the size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AdaptedEncoder"]

# the linear maps of one layer of BERT (Devlin et al., NAACL 2019), as its checkpoints name them: inputs, outputs
_MAPS = {
    "attention.self.query": ("dim", "dim"),
    "attention.self.key": ("dim", "dim"),
    "attention.self.value": ("dim", "dim"),
    "attention.output.dense": ("dim", "dim"),
    "intermediate.dense": ("dim", "inner"),
    "output.dense": ("inner", "dim"),
}
_EPS = 1e-12  # of BERT's layer norms


class AdaptedEncoder(nn.Module):
    """BERT's layers, each linear map with a trainable low-rank summand (LoRA, Hu et al., ICLR 2022).

    The encoder's weights are given to `attach`; they are shared with it, never changed, and in no state dict here. At
    initialisation the result is the encoder's own.

    Args:
        layers, dim, inner, heads: the encoder's.
        adapted: how many of the layers, counted from the top, have summands.
        rank: of the summands.
    """

    def __init__(self, *, layers: int = 6, dim: int = 384, inner: int = 1536, heads: int = 12, adapted: int = 3,
                 rank: int = 16):  # fmt: skip
        super().__init__()
        self.config = {
            "layers": layers, "dim": dim, "inner": inner, "heads": heads, "adapted": adapted, "rank": rank,
        }  # fmt: skip
        self.layers, self.heads, self.first = layers, heads, layers - adapted
        width = {"dim": dim, "inner": inner}
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for layer in range(self.first, layers):
            for name, (inputs, outputs) in _MAPS.items():
                key = _key(layer, name)
                self.down[key] = nn.Parameter(torch.randn(rank, width[inputs]) / width[inputs] ** 0.5)
                self.up[key] = nn.Parameter(torch.zeros(width[outputs], rank))
        self._weights: dict[str, Tensor] = {}
        self._merged: dict[str, Tensor] = {}

    def attach(self, weights: Mapping[str, Tensor]) -> AdaptedEncoder:
        """Takes the encoder's tensors, by the names of BERT's checkpoints.

        Raises:
            ValueError: a tensor is missing or of another shape.
        """
        names = [f"encoder.layer.{layer}.{name}.weight" for layer in range(self.layers) for name in _MAPS]
        for name in (*names, "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"):
            if name not in weights:
                raise ValueError(f"the text encoder has no {name}")
        for layer in range(self.first, self.layers):
            for name in _MAPS:
                weight, key = weights[f"encoder.layer.{layer}.{name}.weight"], _key(layer, name)
                if weight.shape != (len(self.up[key]), self.down[key].shape[1]):
                    raise ValueError(f"the text encoder's {name} has the shape {tuple(weight.shape)}")
        self._weights = {name: weight.detach() for name, weight in weights.items()}
        self._merged = {}
        return self

    @torch.no_grad()
    def merge(self) -> AdaptedEncoder:
        """Adds the summands to copies of the weights: reading is then as fast as the encoder. No training after it."""
        for layer in range(self.first, self.layers):
            for name in _MAPS:
                key = _key(layer, name)
                self._merged[key] = (
                    self._weights[f"encoder.layer.{layer}.{name}.weight"] + self.up[key] @ self.down[key]
                )
        return self

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states (B, L, dim) of the words `ids` (B, L); `mask` (B, L) is 0 where there is none."""
        w = self._weights
        seen = (mask > 0)[:, None, None, :]  # (B, 1, 1, L)
        with torch.no_grad():  # nothing is trained down here
            x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
            x = self._norm(x + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings.LayerNorm")
            for layer in range(self.first):
                x = self._layer(x, seen, layer)
        for layer in range(self.first, self.layers):
            x = self._layer(x, seen, layer)
        return x

    def _layer(self, x: Tensor, seen: Tensor, layer: int) -> Tensor:
        query, key, value = (
            self._map(x, layer, f"attention.self.{name}").unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )  # (B, heads, L, dim / heads)
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        y = self._map(y.transpose(1, 2).flatten(2), layer, "attention.output.dense")
        x = self._norm(x + y, f"encoder.layer.{layer}.attention.output.LayerNorm")
        y = self._map(functional.gelu(self._map(x, layer, "intermediate.dense")), layer, "output.dense")
        return self._norm(x + y, f"encoder.layer.{layer}.output.LayerNorm")

    def _map(self, x: Tensor, layer: int, name: str) -> Tensor:
        where = f"encoder.layer.{layer}.{name}"
        key, bias = _key(layer, name), self._weights[f"{where}.bias"]
        if key in self._merged:
            return functional.linear(x, self._merged[key], bias)
        y = functional.linear(x, self._weights[f"{where}.weight"], bias)
        if layer < self.first:
            return y
        return y + functional.linear(functional.linear(x, self.down[key]), self.up[key])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(x, x.shape[-1:], weight, bias, _EPS)


def _key(layer: int, name: str) -> str:
    return f"{layer}_{name.replace('.', '_')}"
