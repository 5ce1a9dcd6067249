"""A miniature of the organisers' harness, and small networks to hand in."""

from __future__ import annotations

import torch

from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba

# ours, and what it stands on, as if not installed
BLOCKER = """class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("prompt_mamba_arch", "basicsr", "mamba_ssm"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Blocked())


"""
# In the manner of test_demo.py, from its documentation: one chain of branches on model_id that give the network, its
# name and the range of its data; pictures are read as RGB, and what comes out is rounded and cut to 8 bits.
HARNESS = (
    """
import argparse, glob, json, os, sys
import cv2
import numpy as np
import torch


"""
    + BLOCKER
    + """def select_model(args, device):
    model_id = args.model_id
    if model_id == 0:
        name, data_range = f"{model_id:02}_identity", 1.0
        model = torch.nn.Identity()
    elif model_id == 1:
        pass
    else:
        raise NotImplementedError(f"Model {model_id} is not implemented.")

    model.eval()
    tile = None
    for k, v in model.named_parameters():
        v.requires_grad = False
    model = model.to(device)
    return model, name, data_range, tile


def main(args):
    model, name, data_range, tile = select_model(args, torch.device("cpu"))
    folder = os.path.join(args.save_dir, name)
    os.makedirs(folder)
    for path in sorted(glob.glob(os.path.join(args.data_dir, "*.png"))):
        image = np.ascontiguousarray(cv2.imread(path)[..., ::-1])
        x = torch.from_numpy(image.transpose(2, 0, 1) / (255.0 / data_range)).float()[None]
        y = model(x)[0].clamp(0, data_range).numpy().transpose(1, 2, 0) * 255.0 / data_range
        cv2.imwrite(os.path.join(folder, os.path.basename(path)), y.round().astype(np.uint8)[..., ::-1])
    counted = sum(p.numel() for p in model.parameters()), sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    with open("results.json", "w") as file:
        json.dump({name: counted}, file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, kind in (("--data_dir", str), ("--save_dir", str), ("--model_id", int)):
        parser.add_argument(name, type=kind)
    main(parser.parse_args())
"""
)


def network(**config):
    torch.manual_seed(0)
    net = PromptMamba(dim=8, middle_blocks=2, text_width=8, **config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return net


def save(net, path):
    torch.save({"params": net.state_dict(), "network_g": {"type": "PromptMamba", **net.config}}, path)
    return path
