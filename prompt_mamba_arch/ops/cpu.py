"""Backend `cpu`: the C++ kernels of csrc/, as operators of torch.

The operators take and return plain tensors, know their results' shapes without running (torch.compile, torch.export)
and their derivatives. Backward needs the state at the start of every chunk of tokens, which forward keeps if asked to:
N / CHUNK numbers for each number of x, not N. Everything else is computed again. Derivatives of derivatives are left to
plain PyTorch.
"""

from __future__ import annotations

import ctypes

import torch

from prompt_mamba_arch.ops import compose, library, torch_scan

__all__ = ["scan", "scan_2d", "why_not"]

why_not: str | None = library.why_not

FORMS = {"general": 0, "tied": 1, "scalar": 2}
# tokens; what backward works on for a chunk must fit into the first-level cache
CHUNK = 32
CHANNEL_PADDING = 16  # SCAN_CHANNEL_PADDING in csrc/scan.h
_FAILURES = {1: "order must hold numbers of tokens, from 0 to L - 1", 2: "out of memory"}


def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, a_form):
    """`selective_scan` for CPU tensors of one type, float32 or float64. Returns y and the last state."""
    keep = _needs_gradient(u, delta, A, B, C, D, z, delta_bias)
    op = torch.ops.prompt_mamba.scan
    y, last, _ = op(u, delta, A, B, C, D, z, delta_bias, delta_softplus, a_form, keep)
    return y, last


def scan_2d(x, dbc, dt_weight, dt_bias, A, D, order, a_form):
    """`selective_scan_2d` for CPU tensors of one type, float32 or float64."""
    keep = _needs_gradient(x, dbc, dt_weight, dt_bias, A, D)
    return torch.ops.prompt_mamba.scan_2d(x, dbc, dt_weight, dt_bias, A, D, order, a_form, keep)[0]


def _needs_gradient(*tensors: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


# ---- the structures of csrc/scan.h ---------------------------------------------------------------------------------


class _View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("image", "group", "token", "channel"))]


class _Problem(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "groups", "channels", "tokens")),
        *((name, ctypes.c_int32) for name in ("states", "rank", "form", "softplus", "add_groups", "chunk")),
        *((name, _View) for name in ("x", "delta", "B", "C", "z", "y")),
        *((name, ctypes.c_void_p) for name in ("dt_weight", "bias", "A", "D", "order", "starts", "last")),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [
        ("dy", _View),
        ("dlast", ctypes.c_void_p),
        *((name, _View) for name in ("dx", "ddelta", "dB", "dC", "dz")),
        *((name, ctypes.c_void_p) for name in ("ddt_weight", "dbias", "dA", "dD")),
    ]


def _run(function: str, dtype: torch.dtype, *structures: ctypes.Structure) -> None:
    status = getattr(library.kernels, function)(
        *map(ctypes.byref, structures), int(dtype == torch.float64), torch.get_num_threads()
    )
    if status:
        raise RuntimeError(f"selective scan: {_FAILURES[status]}")


def _address(t: torch.Tensor | None) -> int | None:
    return None if t is None or t.numel() == 0 else t.data_ptr()


def _dense(*tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """The caller keeps these alive while the kernels read them."""
    return tuple(None if t is None else t.contiguous() for t in tensors)


# ---- sequences -----------------------------------------------------------------------------------------------------


def _per_channel(t: torch.Tensor | None, channels: int) -> _View:
    """A `(B, G * channels, L)` tensor."""
    if t is None:
        return _View()
    image, channel, token = t.stride()
    return _View(t.data_ptr(), image, channel * channels, token, channel)


def _per_state(t: torch.Tensor) -> _View:
    """A `(B, G, N, L)` tensor."""
    image, group, state, token = t.stride()
    return _View(t.data_ptr(), image, group, token, state)


def _starts_shape(images: int, groups: int, channels: int, tokens: int, states: int, keep: bool) -> tuple[int, ...]:
    padded = (channels + CHANNEL_PADDING - 1) // CHANNEL_PADDING * CHANNEL_PADDING
    return (images, groups, (tokens + CHUNK - 1) // CHUNK, states, padded) if keep else (0,)


def _scan_results(u, A, B, keep):
    (images, dim, tokens), (groups, states) = u.shape, B.shape[1:3]
    starts = u.new_empty(_starts_shape(images, groups, dim // groups, tokens, states, keep))
    return torch.empty_like(u), u.new_empty(images, dim, states), starts


def _scan_problem(u, delta, A, B, C, D, z, delta_bias, softplus, form, y, last, starts) -> _Problem:
    (images, dim, tokens), (groups, states) = u.shape, B.shape[1:3]
    channels = dim // groups
    return _Problem(
        images, groups, channels, tokens, states, 0, FORMS[form], softplus, 0, CHUNK,
        _per_channel(u, channels), _per_channel(delta, channels), _per_state(B), _per_state(C),
        _per_channel(z, channels), _per_channel(y, channels),
        None, _address(delta_bias), _address(A), _address(D), None, _address(starts), _address(last),
    )  # fmt: skip


def _scan(u, delta, A, B, C, D, z, delta_bias, softplus, form, keep):
    y, last, starts = results = _scan_results(u, A, B, keep)
    A, D, delta_bias = _dense(A, D, delta_bias)
    _run(
        "pm_scan_forward", u.dtype, _scan_problem(u, delta, A, B, C, D, z, delta_bias, softplus, form, y, last, starts)
    )
    return results


def _scan_fake(u, delta, A, B, C, D, z, delta_bias, softplus, form, keep):
    return _scan_results(u, A, B, keep)


def _scan_gradients(u, delta, A, B, C, D, z, delta_bias):
    """Empty tensors for the gradients; of no length for what is not given."""
    nothing = u.new_empty(0)
    like = [torch.empty_like(t) if t is not None else nothing.clone() for t in (u, delta, z)]
    dense = [t.new_empty(t.shape) if t is not None else nothing.clone() for t in (A, B, C, D, delta_bias)]
    (du, ddelta, dz), (dA, dB, dC, dD, dbias) = like, dense
    return du, ddelta, dA, dB, dC, dD, dz, dbias


def _scan_backward(dy, dlast, u, delta, A, B, C, D, z, delta_bias, starts, softplus, form):
    gradients = _scan_gradients(u, delta, A, B, C, D, z, delta_bias)
    du, ddelta, dA, dB, dC, dD, dz, dbias = gradients
    channels = u.shape[1] // B.shape[1]
    A, D, delta_bias, dlast = _dense(A, D, delta_bias, dlast)
    problem = _scan_problem(u, delta, A, B, C, D, z, delta_bias, softplus, form, None, None, starts)
    out = _Gradients(
        _per_channel(dy, channels), _address(dlast),
        _per_channel(du, channels), _per_channel(ddelta, channels), _per_state(dB), _per_state(dC),
        _per_channel(None if z is None else dz, channels),
        None, _address(dbias), _address(dA), _address(dD),
    )  # fmt: skip
    _run("pm_scan_backward", u.dtype, problem, out)
    return gradients


def _scan_backward_fake(dy, dlast, u, delta, A, B, C, D, z, delta_bias, starts, softplus, form):
    return _scan_gradients(u, delta, A, B, C, D, z, delta_bias)


def _scan_setup(ctx, inputs, output):
    *tensors, ctx.softplus, ctx.form, ctx.kept = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])


def _scan_derivative(ctx, dy, dlast, _):
    *tensors, starts = ctx.saved_tensors
    if dy is None and dlast is None:
        return (None,) * 11
    if not ctx.kept:
        raise RuntimeError("prompt_mamba::scan was called with keep=False: there is nothing to differentiate")
    if torch.is_grad_enabled():  # create_graph: the gradients will be differentiated themselves
        return *_differentiable_gradients(_sequence, tensors, (ctx.softplus, ctx.form), (dy, dlast)), None, None, None
    dy = torch.zeros_like(tensors[0]) if dy is None else dy
    gradients = torch.ops.prompt_mamba.scan_backward(dy, dlast, *tensors, starts, ctx.softplus, ctx.form)
    return *(g if t is not None else None for g, t in zip(gradients, tensors)), None, None, None


# ---- images --------------------------------------------------------------------------------------------------------


def _tokens(t: torch.Tensor) -> _View:
    """A `(B, L, D)` tensor, the same for all directions."""
    image, token, channel = t.stride()
    return _View(t.data_ptr(), image, 0, token, channel)


def _parts(dbc: torch.Tensor, rank: int, states: int) -> list[_View]:
    """Low-rank delta, B and C in a `(B, L, K, R + 2N)` tensor."""
    image, token, direction, channel = dbc.stride()
    starts = (dbc.data_ptr() + first * channel * dbc.element_size() for first in (0, rank, rank + states))
    return [_View(start, image, direction, token, channel) for start in starts]


def _sizes_2d(x, dbc, dt_weight) -> tuple[int, int, int, int, int, int]:
    (images, tokens, channels), (directions, _, rank) = x.shape, dt_weight.shape
    return images, directions, channels, tokens, (dbc.shape[-1] - rank) // 2, rank


def _scan_2d_results(x, dbc, dt_weight, keep):
    return torch.empty_like(x), x.new_empty(_starts_shape(*_sizes_2d(x, dbc, dt_weight)[:5], keep))


def _problem_2d(x, dbc, dt_weight, dt_bias, A, D, order, form, y, starts) -> _Problem:
    *_, states, rank = sizes = _sizes_2d(x, dbc, dt_weight)
    return _Problem(
        *sizes, FORMS[form], 1, 1, CHUNK,
        _tokens(x), *_parts(dbc, rank, states), _View(), _tokens(y) if y is not None else _View(),
        _address(dt_weight), _address(dt_bias), _address(A), _address(D), _address(order), _address(starts), None,
    )  # fmt: skip


def _scan_2d(x, dbc, dt_weight, dt_bias, A, D, order, form, keep):
    y, starts = results = _scan_2d_results(x, dbc, dt_weight, keep)
    dt_weight, dt_bias, A, D, order = _dense(dt_weight, dt_bias, A, D, order)
    _run("pm_scan_forward", x.dtype, _problem_2d(x, dbc, dt_weight, dt_bias, A, D, order, form, y, starts))
    return results


def _scan_2d_fake(x, dbc, dt_weight, dt_bias, A, D, order, form, keep):
    return _scan_2d_results(x, dbc, dt_weight, keep)


def _scan_2d_gradients(x, dbc, dt_weight, dt_bias, A, D):
    return torch.empty_like(x), *(t.new_empty(t.shape) for t in (dbc, dt_weight, dt_bias, A, D))


def _scan_2d_backward(dy, x, dbc, dt_weight, dt_bias, A, D, order, starts, form):
    dx, ddbc, ddt_weight, ddt_bias, dA, dD = gradients = _scan_2d_gradients(x, dbc, dt_weight, dt_bias, A, D)
    *_, states, rank = _sizes_2d(x, dbc, dt_weight)
    dt_weight, dt_bias, A, D, order = _dense(dt_weight, dt_bias, A, D, order)
    problem = _problem_2d(x, dbc, dt_weight, dt_bias, A, D, order, form, None, starts)
    out = _Gradients(
        _tokens(dy), None, _tokens(dx), *_parts(ddbc, rank, states), _View(),
        _address(ddt_weight), _address(ddt_bias), _address(dA), _address(dD),
    )  # fmt: skip
    _run("pm_scan_backward", x.dtype, problem, out)
    return gradients


def _scan_2d_backward_fake(dy, x, dbc, dt_weight, dt_bias, A, D, order, starts, form):
    return _scan_2d_gradients(x, dbc, dt_weight, dt_bias, A, D)


def _scan_2d_setup(ctx, inputs, output):
    *tensors, ctx.form, ctx.kept = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])


def _scan_2d_derivative(ctx, dy, _):
    if not ctx.kept:
        raise RuntimeError("prompt_mamba::scan_2d was called with keep=False: there is nothing to differentiate")
    if torch.is_grad_enabled():
        *tensors, order, _ = ctx.saved_tensors
        return *_differentiable_gradients(_image, tensors, (order, ctx.form), (dy,)), None, None, None
    gradients = torch.ops.prompt_mamba.scan_2d_backward(dy, *ctx.saved_tensors, ctx.form)
    return *gradients, None, None, None


# ---- derivatives of derivatives ------------------------------------------------------------------------------------


def _sequence(*arguments):
    return compose.sequence_scan(torch_scan.scan, *arguments)


def _image(*arguments):
    return (compose.image_scan(_sequence, *arguments),)


def _differentiable_gradients(function, tensors, others, gradients):
    """The gradients once more, by plain PyTorch: autograd knows how to differentiate that."""
    needed = [t is not None and t.requires_grad for t in tensors]
    # views tell tensors apart, should one have been given twice
    tensors = [t.view_as(t) if need else t for t, need in zip(tensors, needed)]
    given = [(out, d) for out, d in zip(function(*tensors, *others), gradients) if d is not None]
    values, weights = zip(*given)
    wanted = [t for t, need in zip(tensors, needed) if need]
    found = iter(torch.autograd.grad(values, wanted, weights, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in needed)


# ---- registration --------------------------------------------------------------------------------------------------

_SCHEMAS = {
    "scan": (
        "(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
        "bool delta_softplus, str a_form, bool keep) -> (Tensor y, Tensor last, Tensor starts)"
    ),
    "scan_backward": (
        "(Tensor dy, Tensor? dlast, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
        "Tensor? delta_bias, Tensor starts, bool delta_softplus, str a_form) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "scan_2d": (
        "(Tensor x, Tensor dbc, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor D, Tensor order, str a_form, "
        "bool keep) -> (Tensor y, Tensor starts)"
    ),
    "scan_2d_backward": (
        "(Tensor dy, Tensor x, Tensor dbc, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor D, Tensor order, "
        "Tensor starts, str a_form) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
}


def _register() -> torch.library.Library:
    operators = torch.library.Library("prompt_mamba", "DEF")
    for name, schema in _SCHEMAS.items():
        operators.define(name + schema)
        operators.impl(name, globals()[f"_{name}"], "CPU")
        torch.library.register_fake(f"prompt_mamba::{name}", globals()[f"_{name}_fake"], lib=operators)
    for name in ("scan", "scan_2d"):
        torch.library.register_autograd(
            f"prompt_mamba::{name}",
            globals()[f"_{name}_derivative"],
            setup_context=globals()[f"_{name}_setup"],
            lib=operators,
        )
    return operators


_OPERATORS = _register() if library.kernels is not None else None  # they exist as long as this object
