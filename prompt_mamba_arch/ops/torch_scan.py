"""Backend `torch`: a scan in plain PyTorch, for any device.

The sequence is cut into segments. For a segment, all that does not depend on the state before is computed for all
tokens at once, tokens first and channels last in memory; what is left for each token is one multiply-add, in place.
Where it is dear to start an operation (CUDA), a segment is cut into chunks that are scanned at once, each from a state
of zero; then the states at the chunks' ends are carried from chunk to chunk, and each token adds what its chunk started
with. Nothing is divided by a decay, so no decay is too fast (formulations with cumulative sums of logarithms overflow).

With gradients, only the inputs and the state before each segment are kept. Backward computes the rest again, segment by
segment: memory is O(L D) and not O(L D N).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from prompt_mamba_arch.ops import reference

__all__ = ["scan"]

SHORTEST = 32  # tokens of a segment, at least: N / SHORTEST numbers are kept for each number of u
# numbers (tokens B D N) of a segment: on a CPU, a few tensors of them should fit into the second-level cache
SEGMENT = {"cpu": 2**17, "cuda": 2**24}


def scan(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Arguments and result as `reference.scan`. Differentiable any number of times, the first time fast."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (u, delta, A, B, C)):
        return _Scan.apply(u, delta, A, B, C)
    y, last, _ = _forward(u, delta, A, B, C)
    return y, last


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C):
        y, last, starts = _forward(u, delta, A, B, C, keep_starts=True)
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        ctx.set_materialize_grads(False)
        return y, last

    @staticmethod
    def backward(ctx, dy, dlast):
        u, delta, A, B, C, *starts = ctx.saved_tensors
        if dy is None and dlast is None:
            return (None,) * 5
        if dy is None:
            dy = torch.zeros_like(u)
        if torch.is_grad_enabled():  # create_graph: the gradients will be differentiated themselves
            return _differentiable_gradients(ctx.needs_input_grad, (u, delta, A, B, C), dy, dlast)
        return _gradients(u, delta, A, B, C, starts, dy, dlast)


def _differentiable_gradients(needed, inputs, dy, dlast):
    """The gradients once more, by the reference: autograd knows how to differentiate that."""
    inputs = [t.view_as(t) for t in inputs]  # told apart, should a tensor have been given for two of them
    outputs = [(out, d) for out, d in zip(reference.scan(*inputs), (dy, dlast)) if d is not None]
    wanted = [t for t, need in zip(inputs, needed) if need]
    values, weights = zip(*outputs)
    found = iter(torch.autograd.grad(values, wanted, weights, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)


def _forward(u, delta, A, B, C, keep_starts=False):
    batch, dim, groups, states = *u.shape[:2], *B.shape[1:3]
    h, ys, starts = u.new_zeros(batch, groups, states, dim // groups), [], []
    rates = _rates(A, groups)
    for part in _segments(u, states):
        if keep_starts:
            starts.append(h)
        u_s, delta_s, B_s, C_s = (_tokens_first(t, part, groups) for t in (u, delta, B, C))
        hs = _states(u_s, delta_s, rates, B_s, h)[1]
        ys.append(_over_states(C_s, hs).flatten(2).permute(1, 2, 0))
        h = hs[-1].clone()  # a view would keep the whole segment alive
    y = torch.cat(ys, dim=-1) if ys else torch.zeros_like(u)
    return y, h.transpose(2, 3).reshape(batch, dim, states), starts


def _gradients(u, delta, A, B, C, starts, dy, dlast):
    batch, groups, states = B.shape[:3]
    rates = _rates(A, groups)  # (G, N, D/G)
    drates = torch.zeros_like(rates)
    du, ddelta, dB, dC = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (u, delta, B, C))
    dh = None if dlast is None else dlast.view(batch, groups, -1, states).transpose(2, 3)
    for part, start in zip(reversed(list(_segments(u, states))), reversed(starts)):
        u_s, delta_s, B_s, C_s, dy_s = (_tokens_first(t, part, groups) for t in (u, delta, B, C, dy))
        decay, hs = _states(u_s, delta_s, rates, B_s, start)
        dhs = C_s.unsqueeze(-1) * dy_s.unsqueeze(-2)  # (S, B, G, N, D/G)
        if dh is not None:
            dhs[-1] += dh
        _recur(dhs, decay, backwards=True)
        dC[..., part] = _over_channels(hs, dy_s)
        dB[..., part] = _over_channels(dhs, delta_s * u_s)
        dx = _over_states(B_s, dhs)
        du[..., part] = (dx * delta_s).flatten(2).permute(1, 2, 0)
        # the gradient of delta * A
        dexponent = dhs.mul_(decay)
        dh = dexponent[0].clone()
        dexponent[1:] *= hs[:-1]
        dexponent[0] *= start
        drates += (dexponent * delta_s.unsqueeze(-2)).sum((0, 1))
        ddelta[..., part] = torch.addcmul((dexponent.mul_(rates)).sum(-2), dx, u_s).flatten(2).permute(1, 2, 0)
    return du, ddelta, drates.transpose(1, 2).reshape(A.shape), dB, dC


def _segments(u: torch.Tensor, states: int) -> Iterator[slice]:
    batch, dim, length = u.shape
    tokens = max(SHORTEST, SEGMENT.get(u.device.type, SEGMENT["cuda"]) // max(1, batch * dim * states))
    return (slice(first, min(first + tokens, length)) for first in range(0, length, tokens))


def _rates(A: torch.Tensor, groups: int) -> torch.Tensor:
    """A as `(G, N, D/G)`."""
    return A.reshape(groups, -1, A.shape[1]).transpose(1, 2).contiguous()


def _tokens_first(t: torch.Tensor, part: slice, groups: int) -> torch.Tensor:
    """A segment of `(B, D, L)` as `(S, B, G, D/G)`, of `(B, G, N, L)` as `(S, B, G, N)`."""
    t = t[..., part]
    return t.reshape(len(t), groups, -1, t.shape[-1]).permute(3, 0, 1, 2).contiguous()


def _states(u, delta, rates, B, start):
    """The decays exp(delta A) of a segment and its states, both `(S, B, G, N, D/G)`."""
    decay = (delta.unsqueeze(-2) * rates).exp_()
    hs = B.unsqueeze(-1) * (delta * u).unsqueeze(-2)
    hs[0].addcmul_(decay[0], start)
    _recur(hs, decay)
    return decay, hs


# Sums, not matrix products: those are slower for matrices this small, and may be rounded to TF32 or bfloat16


def _over_states(weights: torch.Tensor, hs: torch.Tensor) -> torch.Tensor:
    """The sum over n of weights `(S, B, G, N)` times hs `(S, B, G, N, D/G)`."""
    return (weights.unsqueeze(-1) * hs).sum(-2)


def _over_channels(hs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum over the channels of hs `(S, B, G, N, D/G)` times weights `(S, B, G, D/G)`, as `(B, G, N, S)`."""
    return (hs * weights.unsqueeze(-2)).sum(-1).permute(1, 2, 3, 0)


def _recur(x: torch.Tensor, decay: torch.Tensor, backwards: bool = False) -> None:
    """In place, token after token: x[t] += decay[t] x[t - 1]; backwards: x[t] += decay[t + 1] x[t + 1]."""
    chunks = _chunks(x)
    if chunks > 1 and backwards:
        turned = x.flip(0)
        _recur(turned, decay.roll(-1, 0).flip(0))
        x.copy_(turned.flip(0))
        return
    if chunks > 1:
        steps = len(x) // chunks
        whole = chunks * steps
        xs, decays = (t[:whole].unflatten(0, (chunks, steps)) for t in (x, decay))
        _one_by_one(xs.transpose(0, 1), decays.transpose(0, 1))
        product = decays.cumprod(1)
        _one_by_one(xs[:, -1], product[:, -1])
        xs[1:, :-1].addcmul_(product[1:, :-1], xs[:-1, -1:])
        x, decay = x[whole - 1 :], decay[whole - 1 :]  # the few tokens left
    _one_by_one(x, decay, backwards)


def _one_by_one(x, decay, backwards=False):
    rows, decays = x.unbind(0), decay.unbind(0)
    if backwards:
        rows, decays = rows[::-1], decays[:0:-1]
    else:
        decays = decays[1:]
    for before, row, factor in zip(rows, rows[1:], decays):
        row.addcmul_(factor, before)


def _chunks(x: torch.Tensor) -> int:
    """Into how many parts to cut a segment of len(x) tokens."""
    return 1 if x.device.type == "cpu" else math.isqrt(len(x))
