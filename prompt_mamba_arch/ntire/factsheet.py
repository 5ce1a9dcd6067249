"""The factsheet that a team sends with its code: method, complexity and training, in LaTeX with plain packages.

What only people know (names, affiliation) is left as dotted lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.errors import replace_on_success
from prompt_mamba_arch.ntire.measures import Measures
from prompt_mamba_arch.ntire.submission import TRACKS

__all__ = ["escaped", "write_factsheet"]

_SPECIAL = {
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
}
_KINDS = {
    "conv": "a depthwise 3x3 convolution with channel attention",
    "scan": "a gated selective scan (Mamba) over the image's pixels",
    "dense": "two full 3x3 convolutions",
}
_BLANKS = ("Team name", "Team leader", "Members", "Affiliation", "E-mail", "User name on Codabench", "Link to the code")


def write_factsheet(
    path: str | os.PathLike,
    track: str,
    team: int,
    name: str,
    net: PromptMamba,
    measures: Measures,
    options: Mapping | None = None,
    *,
    device: str = "cpu",
    extra_data: bool = False,
) -> None:
    """Writes the file.

    Args:
        measures: of the file that is handed in; device: where its time was taken.
        options: the option file of the training; without it the section on training is left to the team.
    """
    parts = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[margin=25mm]{geometry}",
        r"\usepackage{booktabs}",
        r"\begin{document}",
        rf"\section*{{NTIRE {escaped(TRACKS[track].title)}: team {team:02}, {escaped(name)}}}",
        r"\subsection*{Team}",
        *_rows([(blank, r"\dotfill") for blank in _BLANKS], raw=True),
        r"\subsection*{Method}",
        escaped(_method(net)),
        r"\subsection*{Complexity}",
        escaped(f"For an input of {measures.size} x {measures.size} pixels:"),
        "",
        *_rows(_complexity(measures, device)),
        r"\subsection*{Training}",
        *(_rows(list(_training(options))) if options else [r"\dotfill"]),
        r"\subsection*{Data}",
        "Data beyond that of the challenge was " + ("used." if extra_data else "not used."),
        r"\end{document}",
        "",
    ]
    with replace_on_success(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def escaped(text: str) -> str:
    """For LaTeX, as it stands."""
    text = "".join(_SPECIAL.get(letter, letter) for letter in text)
    return re.sub(r"(?<=\d) x (?=\d)|(?<=\d)x(?=\d)", r" $\\times$ ", text)


def _rows(rows: Sequence[tuple[str, str]], raw: bool = False) -> list[str]:
    lines = [rf"{escaped(name)} & {text if raw else escaped(text)} \\" for name, text in rows]
    return [
        r"\noindent\begin{tabular}{@{}lp{0.65\textwidth}@{}}",
        r"\toprule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _method(net: PromptMamba) -> str:
    config = net.config
    levels = len(config["enc_blocks"])
    if levels:
        depths = f"{config['enc_blocks']}, {config['middle_blocks']} and {config['dec_blocks']}"
        shape = f"a U of {levels + 1} levels with {depths} blocks in encoder, middle and decoder"
    else:
        shape = f"a plain stack of {config['middle_blocks']} blocks at the input's resolution"
    kinds = list(dict.fromkeys(kind for mixer in config["mixers"] for kind in mixer.split("+")))
    used = "; ".join(_KINDS[kind] for kind in kinds)
    tail = f"a pixel shuffle enlarges {net.upscale} times and adds the bicubic enlargement" if net.upscale > 1 else ""
    sentences = [
        f"The network is a PromptMamba: {shape}, {config['dim']} channels at the first level.",
        f"Levels, from the finest, consist of {', '.join(config['mixers'])} blocks: {used}."
        " Each block ends in a feed-forward layer with a simple gate, unless it is dense.",
    ]
    if "scan" in kinds:
        sentences.append(
            f"A scan has {config['directions']} directions, {config['d_state']} states and {config['expand']:g} times "
            "the block's channels; blocks take turns between rows and columns."
        )
    sentences.append(f"At the end {tail}." if tail else "The input is added to what the network computes.")
    if net.has_text:
        sentences.append("It was trained with text prompts; the submission runs with a fixed one or without.")
    return " ".join(sentences)


def _complexity(found: Measures, device: str) -> list[tuple[str, str]]:
    rows = [
        ("Parameters", f"{found.parameters / 1e6:.3f} M"),
        ("Convolutions and matrix products", f"{found.products / 1e9:.2f} G multiplications"),
        ("Selective scans", f"{found.scans / 1e9:.2f} G operations"),
        ("Activations", f"{found.activations / 1e6:.2f} M, of {found.convolutions} convolutions"),
        ("Runtime", f"{found.seconds * 1e3:.2f} ms on {device}"),
    ]
    if found.fvcore is not None:
        rows.insert(2, ("FLOPs by fvcore", f"{found.fvcore / 1e9:.2f} G"))
    if found.memory is not None:
        rows.append(("Peak memory", f"{found.memory / 2**20:.0f} MiB"))
    return rows


def _training(options: Mapping) -> Iterator[tuple[str, str]]:
    """What the option file says, in words; folders by their own name only."""
    data, train = options.get("datasets", {}).get("train", {}), options.get("train", {})
    yield "Images", ", ".join(_sources(data)) or "as the option file says"
    if "gt_size" in data:
        yield "Patches", f"{data['gt_size']} x {data['gt_size']} pixels of the target"
    if "batch_size_per_gpu" in data:
        yield "Batch", f"{data['batch_size_per_gpu']} for each GPU"
    turned = [word for key, word in (("use_hflip", "mirrored"), ("use_rot", "rotated")) if data.get(key)]
    if turned:
        yield "Augmentation", " and ".join(turned)
    yield "Iterations", str(train.get("total_iter", "?"))
    optimizer = dict(train.get("optim_g", {}))
    if optimizer:
        yield "Optimizer", f"{optimizer.pop('type', '?')}: {_listed(optimizer)}"
    scheduler = dict(train.get("scheduler", {}))
    if scheduler:
        yield "Schedule", f"{scheduler.pop('type', '?')}: {_listed(scheduler)}"
    losses = {key: dict(value) for key, value in train.items() if key.endswith("_opt") and isinstance(value, Mapping)}
    for loss in losses.values():
        yield "Loss", f"{loss.pop('type', '?')}: {_listed(loss)}"
    if train.get("ema_decay"):
        yield "Averaged weights", f"decay {train['ema_decay']}"
    start = options.get("path", {}).get("pretrain_network_g")
    if start:
        files = start if isinstance(start, list) else [start]
        told = ", ".join(PurePath(str(file)).name for file in files)
        yield "Starts from", told if len(files) == 1 else f"the mean of {told}"


def _sources(data: Mapping) -> list[str]:
    nested = [text for inner in data.get("datasets", ()) for text in _sources(inner)]
    root = PurePath(str(data["dataroot_gt"])).name if data.get("dataroot_gt") else ""
    own = [f"{data.get('name', root)} ({root})" if root else str(data["name"])] if root or data.get("name") else []
    return nested or own


def _listed(values: Mapping) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
