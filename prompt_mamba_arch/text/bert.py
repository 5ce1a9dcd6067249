"""BERT's encoder for inference: the forward pass of `transformers.BertModel` on the weights of its model folder.

Importing transformers' own model costs about a second, which a command line that encodes one sentence would spend on
every start; reading the weights and running them costs a tenth of that. Devlin et al., "BERT: Pre-training of Deep
Bidirectional Transformers for Language Understanding", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Bert"]


class Bert:
    """Token ids and mask in, last hidden states out.

    Args:
        folder: a model folder with `model.safetensors`.
        config: the content of its config.json; `Bert.supports(config)` must hold.
        device: where to compute.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], device: torch.device):
        from safetensors.torch import load_file

        self.heads: int = config["num_attention_heads"]
        self.layers: int = config["num_hidden_layers"]
        self.eps: float = config["layer_norm_eps"]
        weights = load_file(folder / "model.safetensors", device=str(device))
        # checkpoints of models with a head store the encoder under "bert."
        self.weights = {name.removeprefix("bert."): value.float() for name, value in weights.items()}

    @staticmethod
    def supports(config: Mapping[str, Any]) -> bool:
        return (
            config.get("model_type") == "bert"
            and config.get("hidden_act") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and not config.get("is_decoder", False)
        )

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask `(B, L)` integers, mask 1 for a token and 0 for padding -> `(B, L, dim)` float32."""
        weights = self.weights
        x = F.embedding(ids, weights["embeddings.word_embeddings.weight"])  # (B, L, dim)
        x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm("embeddings", x + weights["embeddings.token_type_embeddings.weight"][0])
        mask = mask.bool()[:, None, None]  # (B, 1, 1, L): what every token may look at
        for index in range(self.layers):
            layer = f"encoder.layer.{index}"
            q, k, v = (
                self._linear(f"{layer}.attention.self.{name}", x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )  # each (B, heads, L, dim / heads)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
            x = self._norm(f"{layer}.attention.output", x + self._linear(f"{layer}.attention.output.dense", attended))
            hidden = F.gelu(self._linear(f"{layer}.intermediate.dense", x))
            x = self._norm(f"{layer}.output", x + self._linear(f"{layer}.output.dense", hidden))
        return x

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.LayerNorm.weight"], self.weights[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)
