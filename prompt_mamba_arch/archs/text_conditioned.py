"""What networks that read sentences share: how they are given a prompt, and how a blind one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from prompt_mamba_arch.errors import UserError

__all__ = ["TextConditioned", "pad_zeros"]


class TextConditioned(nn.Module):
    """Base of networks whose `forward(x, prompt=None)` takes an embedding (B, text_dim) beside the image.

    None, and a row of zeros, is blind: the published networks have no such mode, and their checkpoints no parameter
    for it, so blindness is the embedding of length zero. Training with `train.prompt_dropout` teaches it.
    """

    has_text = True
    text_dim: int
    text_modules: tuple[str, ...] = ()
    """How the names of the modules begin that read the prompt, wherever in the network they are."""

    def text_parameters(self) -> Iterator[str]:
        """Names of the parameters of the text path."""
        for name, _ in self.named_parameters():
            if any(part.startswith(self.text_modules) for part in name.split(".")[:-1]):
                yield name

    def prompt_or_blind(self, x: torch.Tensor, prompt: torch.Tensor | None) -> torch.Tensor:
        """(B, text_dim), of the type of the parameters.

        Raises:
            UserError: the prompt has another shape.
        """
        kind = next(self.parameters()).dtype
        if prompt is None:
            return torch.zeros(x.shape[0], self.text_dim, dtype=kind, device=x.device)
        if tuple(prompt.shape) != (x.shape[0], self.text_dim):
            raise UserError(
                f"the network expects a prompt embedding of shape ({x.shape[0]}, {self.text_dim}), not "
                f"{tuple(prompt.shape)}: text_dim must be the text encoder's, and there is one prompt an image"
            )
        return prompt.to(kind)


def pad_zeros(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pads right and bottom with zeros so that height and width divide by `multiple`."""
    missing = [-size % multiple for size in x.shape[-2:]]
    return F.pad(x, (0, missing[1], 0, missing[0])) if any(missing) else x
