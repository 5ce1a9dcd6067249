"""Backend `torch`: a chunked scan in plain PyTorch, for any device.

The sequence is cut into segments, a segment into chunks. All chunks of a segment are scanned at once, token by token,
from a state of zero; then the states at the chunks' ends are carried from chunk to chunk, and each token adds what its
chunk started with. That is 2 sqrt(segment) steps instead of one a token. Nothing is divided by a decay, so no decay is
too fast (formulations with cumulative sums of logarithms overflow).

With gradients, a segment keeps its inputs and its first state, and recomputes the rest in the backward pass: memory is
O(L D) and not O(L D N).
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

__all__ = ["scan"]

SEGMENT = 1024  # tokens
CHUNK = 32


def scan(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Arguments and result as `reference.scan`."""
    h, ys = u.new_zeros(u.shape[0], *A.shape), []
    remember = torch.is_grad_enabled() and any(t.requires_grad for t in (u, delta, A, B, C))
    for parts in zip(*(t.split(SEGMENT, dim=-1) for t in (u, delta, B, C))):
        if remember:
            y, h = checkpoint(_segment, *parts, A, h, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _segment(*parts, A, h)
        ys.append(y)
    return (torch.cat(ys, dim=-1) if ys else u * 0), h


def _segment(u, delta, B, C, A, h):
    """One segment, from state h `(B, D, N)`."""
    batch, dim, length = u.shape
    groups, states = B.shape[1:3]
    chunk = min(CHUNK, length)
    pad = -length % chunk
    if pad:  # delta = 0 leaves the state as it is
        u, delta, B, C = (torch.nn.functional.pad(t, (0, pad)) for t in (u, delta, B, C))
    # c chunks of t tokens, time first: (t, B, G, D/G, c, N) or broadcastable to it
    per_channel = [t.view(batch, groups, dim // groups, -1, chunk, 1).permute(4, 0, 1, 2, 3, 5) for t in (u, delta)]
    per_state = [t.reshape(batch, groups, 1, states, -1, chunk).permute(5, 0, 1, 2, 4, 3) for t in (B, C)]
    (u, delta), (B, C) = per_channel, per_state
    decay = torch.exp(delta * A.view(groups, dim // groups, 1, states))
    state, product = (delta * u * B).unbind(0), decay.unbind(0)
    states_, products = [state[0]], [product[0]]
    for a, b in zip(product[1:], state[1:]):
        states_.append(a * states_[-1] + b)
        products.append(a * products[-1])
    # what each chunk starts with
    h = h.view(batch, groups, dim // groups, states)
    starts = []
    for a, b in zip(products[-1].unbind(3), states_[-1].unbind(3)):
        starts.append(h)
        h = a * h + b
    starts = torch.stack(starts, dim=3)  # (B, G, D/G, c, N)
    y = torch.stack([((s + p * starts) * c).sum(-1) for s, p, c in zip(states_, products, C.unbind(0))], dim=-1)
    return y.reshape(batch, dim, -1)[..., :length], h.reshape(batch, dim, states)
