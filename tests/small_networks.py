"""A small one of every network that the package registers, as sections `network_g`, for the tests that go over all."""

from __future__ import annotations

import torch

RESTORMER = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]}
GROUPS = {"embed_dim": 12, "d_state": 4, "depths": [2, 1]}
V2 = {**GROUPS, "num_heads": [2, 3], "window_size": 4, "inner_rank": 4, "num_tokens": 5}
U = {"dim": 8, "enc_blocks": [1], "middle_blocks": 2, "dec_blocks": [1], "mixers": ["conv", "scan"], "text_width": 8}
NAF = {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1], "txtdim": 6}
# of every network at least one small one
SMALL = {
    "PromptMamba": {"type": "PromptMamba", **U, "text_dim": 10},
    "MambaIR": {"type": "MambaIR", **GROUPS, "upscale": 1},
    "MambaIR light x2": {"type": "MambaIR", **GROUPS, "upscale": 2, "drop_path_rate": 0.0},
    "MambaIR base x3": {"type": "MambaIR", **GROUPS, "upscale": 3, "size": "base", "resi_connection": "3conv"},
    "MambaIRv2": {"type": "MambaIRv2", **V2, "upscale": 1, "ffn": "conv"},
    "MambaIRv2 light x4": {"type": "MambaIRv2", **V2, "upscale": 4},
    "MambaIRv2 base x2": {"type": "MambaIRv2", **V2, "upscale": 2, "size": "base"},
    "MambaIRv2 real x4": {"type": "MambaIRv2", **V2, "upscale": 4, "upsampler": "nearest+conv", "qkv_bias": False},
    "EFDN": {"type": "EFDN", "n_feats": 16, "upscale": 2},
    "EFDN x1": {"type": "EFDN", "n_feats": 14, "upscale": 1},
    "InstructIR": {"type": "InstructIR", **NAF, "text_dim": 10},
    "InstructIR without its head": {"type": "InstructIR", **NAF, "language_head": False},
    "PromptIR": {"type": "PromptIR", **RESTORMER, "dim": 12, "heads": [1, 2, 1, 4]},
    "PromptIR without prompts": {"type": "PromptIR", **RESTORMER, "decoder": False},
    "TextPromptIR": {"type": "TextPromptIR", **RESTORMER, "text_dim": 10},
    "SpandrelArch": {"type": "SpandrelArch", "arch": "NAFNet", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    "SpandrelArch x2": {
        **{"type": "SpandrelArch", "arch": "SwinIR", "upscale": 2, "upsampler": "pixelshuffledirect"},
        **{"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4, "img_size": 16, "mlp_ratio": 2.0},
    },
}


def shaken(net: torch.nn.Module) -> torch.nn.Module:
    """As if trained: what starts at zero, or as a repetition, has values."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            if name.endswith("attention.1.bias"):  # so narrow a network has one neuron here, which could be silent
                parameter.fill_(0.5)
    return net
