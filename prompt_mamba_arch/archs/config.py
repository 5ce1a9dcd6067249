"""PromptMamba's arguments: what the named sizes fill in, and which values are possible."""

from __future__ import annotations

import re

from prompt_mamba_arch.errors import UserError, did_you_mean

__all__ = ["SIZES", "resolve"]

# Restoration at the image's own resolution: a U of three levels on 2x2-unshuffled pixels. Convolution where tokens are
# many; scans where they are few, and each of them sees the whole image.
_U_SHAPE = {"unshuffle": 2, "mixers": ["conv", "scan", "scan"]}
# Super-resolution: one level at the low resolution, where convolution and scan take turns.
_PLAIN = {"unshuffle": 1, "mixers": ["conv+scan"], "enc_blocks": [], "dec_blocks": []}

# name -> (arguments for upscale 1, arguments for upscale 2, 3 and 4)
SIZES = {
    "tiny": (
        # settled by scripts/benchmark/ablation.py on a CPU, where dense convolutions are the cheapest at the fine level
        {
            **_U_SHAPE,
            "mixers": ["dense", "scan", "scan"],
            "dim": 48,
            "enc_blocks": [2, 1],
            "middle_blocks": 2,
            "dec_blocks": [1, 2],
            "text_width": 64,
        },
        {**_PLAIN, "dim": 48, "middle_blocks": 16, "text_width": 64},
    ),
    "small": (
        {**_U_SHAPE, "dim": 48, "enc_blocks": [2, 4], "middle_blocks": 8, "dec_blocks": [4, 2], "text_width": 128},
        {**_PLAIN, "dim": 96, "middle_blocks": 40, "text_width": 96},
    ),
    "base": (
        {**_U_SHAPE, "dim": 64, "enc_blocks": [4, 6], "middle_blocks": 16, "dec_blocks": [6, 4], "text_width": 128},
        {**_PLAIN, "dim": 144, "middle_blocks": 60, "text_width": 128},
    ),
    "large": (
        {**_U_SHAPE, "dim": 96, "enc_blocks": [4, 8], "middle_blocks": 16, "dec_blocks": [8, 4], "text_width": 192},
        {**_PLAIN, "dim": 192, "middle_blocks": 80, "text_width": 128},
    ),
}


def resolve(size: str | None, arguments: dict) -> dict:
    """The arguments with those that are None filled in by the size, as plain types.

    Raises:
        UserError: no such size, or an argument has a value it cannot have.
    """
    size = "tiny" if size is None else size
    if size not in SIZES:
        raise UserError(f"unknown size {size!r}: the sizes are {', '.join(SIZES)}{did_you_mean(size, SIZES)}")
    filled = SIZES[size][0 if arguments["upscale"] == 1 else 1]
    config = {name: filled.get(name) if value is None else value for name, value in arguments.items()}
    config = {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in config.items()}
    _check(config)
    return config


def _check(config: dict) -> None:
    def demand(possible: bool, name: str, what: str) -> None:
        if not possible:
            raise UserError(f"PromptMamba: {name} must be {what}, not {config[name]!r}")

    def whole(value: object, least: int) -> bool:
        return type(value) is int and value >= least

    flags = "local_conv gate scan_norm text_scan text_gate text_attention text_route wishes use_checkpoint".split()
    counts = "in_chans out_chans dim unshuffle d_state num_experts text_dim text_width text_tokens".split()
    for name in counts:
        demand(whole(config[name], 1), name, "a whole number from 1")
    for name in ("middle_blocks", "semantic_scan"):
        demand(whole(config[name], 0), name, "a whole number from 0")
    for name in flags:
        demand(type(config[name]) is bool, name, "true or false")
    for name in ("expand", "ffn_ratio"):
        value = config[name]
        demand(type(value) in (int, float) and int(config["dim"] * value) >= 2, name, "a number that leaves channels")
    demand(type(config["residual_scale"]) in (int, float), "residual_scale", "a number")
    demand(config["upscale"] in (1, 2, 3, 4), "upscale", "1, 2, 3 or 4")
    demand(config["directions"] in (1, 2, 4), "directions", "1, 2 or 4")
    demand(config["a_form"] in ("general", "tied", "scalar"), "a_form", "general, tied or scalar")

    in_chans, out_chans = config["in_chans"], config["out_chans"]
    demand(in_chans == 1 or in_chans >= out_chans, "in_chans", f"1 or at least out_chans ({out_chans})")
    blocks = config["enc_blocks"]
    demand(isinstance(blocks, list) and all(whole(n, 0) for n in blocks), "enc_blocks", "a list of whole numbers")
    levels = len(blocks)
    blocks = config["dec_blocks"]
    ok = isinstance(blocks, list) and len(blocks) == levels and all(whole(n, 0) for n in blocks)
    demand(ok, "dec_blocks", f"a list of {levels} whole numbers, one for each of enc_blocks")
    mixers = config["mixers"]
    ok = isinstance(mixers, list) and len(mixers) == levels + 1
    ok = ok and all(re.fullmatch(r"(conv|scan|dense)(\+(conv|scan|dense))*", str(mixer)) for mixer in mixers)
    kinds = "each dense, conv, scan or a cycle such as conv+scan"
    demand(ok, "mixers", f"a list of {levels + 1} levels, finest first, {kinds}")
