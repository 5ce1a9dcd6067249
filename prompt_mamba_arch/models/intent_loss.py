"""An auxiliary loss on what a network makes of prompts."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn

from prompt_mamba_arch.data.kinds import KINDS
from prompt_mamba_arch.errors import UserError

__all__ = ["IntentLoss"]


class IntentLoss(nn.Module):
    """Binary cross-entropy of the kinds that a prompt asks to remove, told by one linear layer from the network's text
    features, so that these separate by what is asked for (the intent head of InstructIR, Conde et al., ECCV 2024).

    The features are taken from the network's own forward pass. The layer is trained with the network; it is part of the
    training state, and of no checkpoint. It starts at zero, so nothing is drawn at random.

    Args:
        net: a network with `text_embed`, a module that maps embeddings (B, text_dim) to text features (B, width).
        loss_weight: what the loss is multiplied by.

    Raises:
        UserError: the network has no `text_embed`, or it is frozen.
    """

    def __init__(self, net: nn.Module, *, loss_weight: float):
        super().__init__()
        embed = getattr(net, "text_embed", None)
        if embed is None:
            raise UserError(f"train.intent_opt: {type(net).__name__} has no text features; remove it")
        if not any(parameter.requires_grad for parameter in embed.parameters()):
            raise UserError("train.intent_opt trains text_embed, which train.freeze keeps as it is; remove one of them")
        self.loss_weight = loss_weight
        self.tell = nn.Linear(net.config["text_width"], len(KINDS))
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)
        self._features: Tensor | None = None
        embed.register_forward_hook(self._listen)

    def _listen(self, module: nn.Module, inputs: tuple, features: Tensor) -> None:
        self._features = features

    def feed(self, remove: Tensor, known: Tensor) -> None:
        """The truth of a batch: the kinds to remove (B, kinds), and the rows (B,) for which they are known."""
        self._remove = remove.float()
        self._share = known.float() * (len(known) / known.sum().clamp(min=1))  # mean over the known rows

    def forward(self, part: slice) -> Tensor:
        """The loss of these rows, which the network has just seen. The mean over a batch's rows is the batch's loss."""
        told = self.tell(self._features.float())
        self._features = None
        each = nn.functional.binary_cross_entropy_with_logits(told, self._remove[part], reduction="none").mean(1)
        return self.loss_weight * (each * self._share[part]).mean()

    def average_gradients(self, processes: int) -> None:
        """Over the processes: the layer is outside the network that DDP looks after."""
        for parameter in self.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= processes
