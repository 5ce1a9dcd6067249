"""The folder that a team hands in: one file with the network, its weights, and how the organisers load them.

The rules are those of the repositories NTIRE2025_ESR and NTIRE2026_ESR (efficient super-resolution) and
NTIRE2026_Dn50_challenge (denoising): one file in `models`, one in `model_zoo`, and a branch in `select_model` of
`test_demo.py`, which sets the range of the data and loads the weights. NTIRE2025_ImageSR_x4 and NTIRE2026_ImageSR_x4
(super-resolution) want a package in `models` with a function `main` that restores a folder, and a branch in `test.py`.
"""

from __future__ import annotations

import ast
import keyword
import os
import pprint
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.errors import UserError, replace_on_success
from prompt_mamba_arch.ntire.one_file import flatten

__all__ = ["TRACKS", "Submission", "Track", "add_branch", "install_submission", "network_file", "write_submission"]


class Track(NamedTuple):
    """Attributes: title; how much the network must enlarge; the organisers' repository, and their script; whether they
    want a function that restores a folder in the place of a network."""

    title: str
    upscale: int
    repository: str
    script: str = "test_demo.py"
    whole_folder: bool = False


TRACKS = {
    "esr": Track("Efficient Super-Resolution", 4, "NTIRE2025_ESR and NTIRE2026_ESR"),
    "sr_x4": Track("Image Super-Resolution x4", 4, "NTIRE2025_ImageSR_x4 and NTIRE2026_ImageSR_x4", "test.py", True),
    "dn50": Track("Image Denoising, sigma 50", 1, "NTIRE2026_Dn50_challenge"),
}


class Submission(NamedTuple):
    """The files that were written; `files` are all of them."""

    network: Path
    weights: Path
    archive: Path
    files: list[Path]


_STANDALONE = {
    "prompt_mamba_arch.ops.interface.selective_scan_2d": "prompt_mamba_arch.ntire.standalone.selective_scan_2d",
    "prompt_mamba_arch.ops.linear_map.linear": "prompt_mamba_arch.ntire.standalone.linear",
    "torch.nn.functional.scaled_dot_product_attention": "prompt_mamba_arch.ntire.standalone.attention",
}
_NETWORK = '''
class {name}({base}):
    """The network as it was trained: (B, {in_chans}, H, W) RGB in [0, 1] -> (B, {out_chans}, {scale}H, {scale}W)."""

    def __init__(self):
        super().__init__(
{arguments}
        )
'''
_PROMPTED = """        self.register_buffer("prompt", torch.zeros(1, self.text_dim))  # the request, with the weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x, self.prompt.expand(x.shape[0], -1))
"""
_BRANCH = """    elif model_id == {team}:
        from models.{stem} import {name}
        name, data_range = f"{{model_id:02}}_{name}", 1.0
        model_path = os.path.join('model_zoo', '{weights}')
        model = {name}()
        model.load_state_dict(torch.load(model_path), strict=True)
"""
_FOLDER_BRANCH = """    elif model_id == {team}:
        from models.{stem} import main as {name}
        name = f"{{model_id:02}}_{name}"
        model_path = os.path.join('model_zoo', '{stem}')
        model_func = {name}
"""
_MAIN = '''"""{name}: super-resolution of all images in a folder."""

import os

import cv2
import numpy as np
import torch

from .network import {name}


def main(model_dir, input_path, output_path, device=None):
    """Writes each image of `input_path`, four times as large, under its name into `output_path`.

    model_dir is the folder with the weights, or their file.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    weights = os.path.join(model_dir, "{weights}") if os.path.isdir(model_dir) else model_dir
    net = {name}()
    net.load_state_dict(torch.load(weights, map_location="cpu"), strict=True)
    net.eval().to(device)
    os.makedirs(output_path, exist_ok=True)
    for name in sorted(os.listdir(input_path)):
        if not name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp")):
            continue
        image = cv2.imread(os.path.join(input_path, name), cv2.IMREAD_COLOR)[..., ::-1]  # RGB
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device).float() / 255
        with torch.no_grad():
            y = net(x)[0].clamp(0, 1)
        restored = (255 * y).round().byte().permute(1, 2, 0).cpu().numpy()[..., ::-1]
        cv2.imwrite(os.path.join(output_path, os.path.splitext(name)[0] + ".png"), np.ascontiguousarray(restored))
'''
_README = """{title}: team {team:02}, {name}

{model}: the network, which needs torch and nothing else, on a GPU or without
{zoo}: its weights, {parameters:.3f} M parameters
select_model.txt: the branch for `select_model` in {script} of {repository}

The input is RGB in [0, 1] (data_range 1.0), of any size, in one piece (tile = None).
"""


def network_file(net: PromptMamba, name: str, prompt: torch.Tensor | None = None) -> tuple[str, dict]:
    """A Python file with a class `name` that has no arguments, and the state that it loads, on the CPU in float32.

    Args:
        prompt: `(text_dim,)`, the embedding of a request that the network shall follow; None is blind.

    Raises:
        UserError: `name` is none for a class, or the network has no text and there is a prompt.
    """
    if type(net) is not PromptMamba:
        raise UserError(f"only a PromptMamba can be exported, not a {type(net).__name__}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"the name of a network must be letters and digits, the first a letter, not {name!r}")
    if prompt is not None and not net.has_text:
        raise UserError("the network has no text path, so it cannot follow a prompt")
    source, base = flatten(PromptMamba.__module__, PromptMamba.__name__, _STANDALONE, reserved=(name,))
    config = {**net.config, "use_checkpoint": False}
    arguments = "".join(f"            {key}={pprint.pformat(value, compact=True)},\n" for key, value in config.items())
    source += "\n" + _NETWORK.format(
        name=name,
        base=base,
        in_chans=config["in_chans"],
        out_chans=config["out_chans"],
        scale="" if net.upscale == 1 else f"{net.upscale} ",
        arguments=arguments.rstrip("\n"),
    )
    state = {key: tensor.detach().cpu().float().contiguous() for key, tensor in net.state_dict().items()}
    if prompt is not None:
        source += _PROMPTED
        state["prompt"] = prompt.detach().cpu().float().reshape(1, net.text_dim).contiguous()
    return source, state


def write_submission(
    folder: str | os.PathLike,
    track: str,
    team: int,
    name: str,
    net: PromptMamba,
    prompt: torch.Tensor | None = None,
) -> Submission:
    """Writes the network's file and its weights below `models` and `model_zoo`, `select_model.txt`, `README.txt`, and
    all of them again in `teamNN_NAME.zip`. Files of that name are replaced.

    Raises:
        UserError: the network does not fit the track, or as `network_file`.
    """
    where = TRACKS[track]
    if net.upscale != where.upscale:
        raise UserError(f"track {track} needs a network with upscale {where.upscale}, this one has {net.upscale}")
    if (net.config["in_chans"], net.config["out_chans"]) != (3, 3):
        raise UserError(f"track {track} needs a network that reads and writes RGB")
    source, state = network_file(net, name, prompt)
    stem, weights = f"team{team:02}_{name}", f"team{team:02}_{name.lower()}.pth"
    told = {"team": team, "name": name, "stem": stem, "weights": weights}
    if where.whole_folder:
        model, zoo = f"models/{stem}/network.py", f"model_zoo/{stem}/{weights}"
        texts = {f"models/{stem}/__init__.py": _MAIN.format(**told), "select_model.txt": _FOLDER_BRANCH.format(**told)}
    else:
        model, zoo = f"models/{stem}.py", f"model_zoo/{weights}"
        texts = {"select_model.txt": _BRANCH.format(**told)}
    parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    texts["README.txt"] = _README.format(
        **told, **{**where._asdict(), "title": f"NTIRE {where.title}"}, model=model, zoo=zoo, parameters=parameters
    )
    texts[model] = source
    folder = Path(folder)
    paths = [folder / place for place in (*texts, zoo)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    for place, text in texts.items():
        with replace_on_success(folder / place) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with replace_on_success(folder / zoo) as temporary:
        torch.save(state, temporary)
    archive = folder / f"{stem}.zip"
    with replace_on_success(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            file.write(path, path.relative_to(folder).as_posix())
    return Submission(folder / model, folder / zoo, archive, [*paths, archive])


def install_submission(archive: str | os.PathLike, template: str | os.PathLike, track: str) -> None:
    """Puts the files of a submission's archive into a clone of the organisers' repository, the branch into its script.

    Raises:
        UserError: as `add_branch`; then nothing is changed.
    """
    template = Path(template)
    script = template / TRACKS[track].script
    with zipfile.ZipFile(archive) as file:
        changed = add_branch(script.read_text(encoding="utf-8"), file.read("select_model.txt").decode("utf-8"))
        for place in file.namelist():
            if place.startswith(("models/", "model_zoo/")):
                (template / place).parent.mkdir(parents=True, exist_ok=True)
                with replace_on_success(template / place) as temporary:
                    temporary.write_bytes(file.read(place))
    with replace_on_success(script) as temporary:
        temporary.write_text(changed, encoding="utf-8")


def add_branch(source: str, branch: str) -> str:
    """The organisers' script with a branch before the last `else` of its `select_model`; once is enough.

    Raises:
        UserError: it has no such function, or another branch for the team.
    """
    if branch in source:
        return source
    functions = [f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef) and f.name == "select_model"]
    chains = [statement for function in functions for statement in function.body if isinstance(statement, ast.If)]
    if not chains:
        raise UserError("the organisers' script has no function select_model that asks for model_id")
    last = chains[0]
    tests = [ast.dump(last.test)]
    while len(last.orelse) == 1 and isinstance(last.orelse[0], ast.If):
        last = last.orelse[0]
        tests.append(ast.dump(last.test))
    if ast.dump(ast.parse("if 0: pass\n" + _dedent(branch)).body[0].orelse[0].test) in tests:
        raise UserError("the organisers' script has another branch for this team already")
    lines = source.splitlines(keepends=True)
    end = last.body[-1].end_lineno
    return "".join([*lines[:end], branch, *lines[end:]])


def _dedent(branch: str) -> str:
    return "".join(line[4:] for line in branch.splitlines(keepends=True))
