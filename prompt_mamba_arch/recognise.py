"""Which of this package's networks weights belong to, and of which arguments, from their names and shapes: official
releases do not say."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

__all__ = ["recognise", "without_prefix"]

_PREFIXES = ("module.", "net.", "model.", "netG.", "net_g.", "generator.")


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without what distributed training or a training framework put before every name, also one inside
    another. `model.0.weight` keeps its prefix, as a list of layers is the network's own."""
    state = dict(state)
    while prefix := next((prefix for prefix in _PREFIXES if _stands_before_all(prefix, state)), None):
        state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def _stands_before_all(prefix: str, names: Collection[str]) -> bool:
    ends = [name[len(prefix) :] for name in names if name.startswith(prefix)]
    return bool(ends) and len(ends) == len(names) and not any(end[:1].isdigit() for end in ends)


def recognise(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """`type` and the constructor's arguments, or None if these are no weights of MambaIR, MambaIRv2, EFDN,
    InstructIR, PromptIR or TextPromptIR."""
    for mark, read in _MARKS.items():
        if mark in state:
            return read(state)
    return None


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many members the list at `prefix` has."""
    found = {int(m.group(1)) for name in state if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))}
    return max(found, default=-1) + 1


def _size(state: Mapping[str, Tensor], name: str, dim: int = 0) -> int:
    return state[name].shape[dim]


def _frame(state: Mapping[str, Tensor], blocks: str) -> dict[str, Any]:
    """The arguments of `ResidualGroupNet`."""
    depths = [_count(state, f"layers.{n}.residual_group.{blocks}") for n in range(_count(state, "layers"))]
    in_chans, upscale = _size(state, "conv_first.weight", 1), 1
    if "conv_up1.weight" in state:
        upsampler, upscale = "nearest+conv", 4
    elif "conv_before_upsample.0.weight" in state:
        upsampler = "pixelshuffle"
        for n in range(0, _count(state, "upsample"), 2):
            weight = state[f"upsample.{n}.weight"]
            upscale *= round((weight.shape[0] / weight.shape[1]) ** 0.5)
    elif "upsample.0.weight" in state:
        upsampler, upscale = "pixelshuffledirect", round((_size(state, "upsample.0.weight") / in_chans) ** 0.5)
    else:
        upsampler = ""
    return {
        "in_chans": in_chans,
        "upscale": upscale,
        "upsampler": upsampler,
        "embed_dim": _size(state, "conv_first.weight"),
        "depths": depths,
        "resi_connection": "1conv" if "conv_after_body.weight" in state else "3conv",
    }


def _mambair(state: Mapping[str, Tensor]) -> dict[str, Any]:
    scan = "layers.0.residual_group.blocks.0.self_attention"
    frame = _frame(state, "blocks")
    # the ratio is known from its product alone
    ratio = (_size(state, f"{scan}.out_norm.weight") + 0.5) / frame["embed_dim"]
    return {"type": "MambaIR", **frame, "d_state": _size(state, f"{scan}.A_logs", 1), "mlp_ratio": ratio}


def _mambairv2(state: Mapping[str, Tensor]) -> dict[str, Any]:
    layer = "layers.0.residual_group.layers.0"
    frame = _frame(state, "layers")
    gated = f"{layer}.convffn1.sg.conv.weight" in state
    kernel = f"{layer}.convffn1.{'sg.conv' if gated else 'dwconv.depthwise_conv.0'}.weight"
    table = ".win_mhsa.relative_position_bias_table"
    heads = [_size(state, f"layers.{n}.residual_group.layers.0{table}", 1) for n in range(len(frame["depths"]))]
    return {
        "type": "MambaIRv2",
        **frame,
        "num_heads": heads,
        "window_size": round(_size(state, f"{layer}{table}") ** 0.5 + 1) // 2,
        "d_state": _size(state, f"{layer}.embeddingA.weight", 1),
        "inner_rank": _size(state, f"{layer}.embeddingA.weight"),
        "num_tokens": _size(state, f"{layer}.assm.embeddingB.weight"),
        "convffn_kernel_size": _size(state, kernel, 2),
        "mlp_ratio": (_size(state, f"{layer}.assm.out_norm.weight") + 0.5) / frame["embed_dim"],
        "ffn": "gated" if gated else "conv",
        "qkv_bias": f"{layer}.wqkv.bias" in state,
    }


def _efdn(state: Mapping[str, Tensor]) -> dict[str, Any]:
    in_chans = _size(state, "head.weight", 1)
    upscale = round((_size(state, "tail.0.weight") / in_chans) ** 0.5)
    return {"type": "EFDN", "in_chans": in_chans, "upscale": upscale, "n_feats": _size(state, "head.weight")}


def _instructir(state: Mapping[str, Tensor]) -> dict[str, Any]:
    def depths(name: str) -> list[int]:
        return [_count(state, f"{name}.{n}") for n in range(_count(state, name))]

    head = "lm_head.fc1.weight" in state
    arguments = {
        "type": "InstructIR",
        "img_channel": _size(state, "intro.weight", 1),
        "width": _size(state, "intro.weight"),
        "enc_blk_nums": depths("encoders"),
        "middle_blk_num": _count(state, "middle_blks"),
        "dec_blk_nums": depths("decoders"),
        "txtdim": _size(state, "enc_cond.0.fc.weight", 1),
        "language_head": head,
    }
    if head:
        arguments["text_dim"] = _size(state, "lm_head.fc1.weight", 1)
        arguments["nclasses"] = _size(state, "lm_head.fc2.weight")
    return arguments


def _restormer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    levels = ["encoder_level1", "encoder_level2", "encoder_level3", "latent"]
    dim = _size(state, "patch_embed.proj.weight")
    hidden = _size(state, "encoder_level1.0.ffn.project_out.weight", 1)
    return {
        "inp_channels": _size(state, "patch_embed.proj.weight", 1),
        "out_channels": _size(state, "output.weight"),
        "dim": dim,
        "num_blocks": [_count(state, level) for level in levels],
        "num_refinement_blocks": _count(state, "refinement"),
        "heads": [_size(state, f"{level}.0.attn.temperature") for level in levels],
        "ffn_expansion_factor": 2.66 if hidden == int(dim * 2.66) else (hidden + 0.5) / dim,
    }


def _promptir(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"type": "PromptIR", **_restormer(state), "extra_parameters": "chnl_reduce1.weight" in state}


def _textpromptir(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"type": "TextPromptIR", **_restormer(state), "text_dim": _size(state, "linear1.weight", 1)}


# a name that only this network has -> how to read its arguments
_MARKS = {
    "layers.0.residual_group.layers.0.assm.embeddingB.weight": _mambairv2,
    "layers.0.residual_group.blocks.0.self_attention.A_logs": _mambair,
    "cells.0.conv2.rep_conv.weight": _efdn,
    "enc_cond.0.fc.weight": _instructir,
    "encoder_level1.0.attn.linear1.weight": _textpromptir,
    "prompt1.prompt_param": _promptir,
}
