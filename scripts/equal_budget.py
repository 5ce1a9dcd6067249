"""Trains several networks of equal latency on the same data for the same budget, and compares them.

    python scripts/equal_budget.py -opt options/compare/equal_budget.yml --train CLEAN_IMAGES

For each network the size is taken, of those that the option file offers, whose latency is nearest to the reference's
(medians of interleaved passes). Then each is trained in the same two phases with the same seeds, so that all see the
same batches in the same order: first noise alone, then all kinds of damage; those that read sentences with requests,
the others with the whole repair as their target. At last `prompt-mamba compare` measures all of them, those that read
sentences also blind. What is done is kept in the output folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from prompt_mamba_arch.checkpoint_files import build_network
from prompt_mamba_arch.compare import compare, read_plan, write_comparison
from prompt_mamba_arch.compat.options import force_options, read_option_file
from prompt_mamba_arch.complexity import count
from prompt_mamba_arch.complexity.timing import medians, processor
from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean, plain_line, replace_on_success
from prompt_mamba_arch.models.two_phase_options import takes_prompts, text_parameters
from prompt_mamba_arch.restore import Restorer

ROOT = Path(__file__).resolve().parents[1]
_STUDY = ("networks", "latency", "training")
_TRAINING = {"first": 1500, "second": 6000, "hours": 1.0, "batch": 8, "pixels": 64, "threads": 1, "workers": 1}
_LATENCY = {"size": 256, "rounds": 5, "threads": 1, "reference": None}
# of the second phase's option file: what means nothing to a network without sentences
_PROMPTS_ONLY = ("prompt_dropout", "sentence_share", "text_gate_std", "intent_opt")


def fitted(networks: Mapping[str, Mapping], latency: Mapping[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """Name -> `{"network_g", "milliseconds", "parameters", "macs", "reads"}`, of the size nearest to the reference."""
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["asked"] == [networks, latency]:
            return known["found"]
    offered = {name: [{**net, **size} for size in sizes] for name, (net, sizes) in _split(networks).items()}
    built = {
        (n, i): Restorer(build_network(g, f"networks.{n}"), name=n)
        for n, gs in offered.items()
        for i, g in enumerate(gs)
    }
    x = torch.rand(1, 3, latency["size"], latency["size"])

    def run(restorer: Restorer):
        with torch.inference_mode():
            restorer.forward(x.to(restorer.device))

    device = next(iter(built.values())).device
    things = {f"{n} {i}": lambda r=r: run(r) for (n, i), r in built.items()}
    with tqdm(total=len(things) * (latency["rounds"] + 1), desc="latency", disable=None, leave=False) as bar:
        taken = medians(things, latency["rounds"], latency["threads"], device=device, tick=bar.update)
    reference = latency["reference"] or next(iter(networks))
    goal = taken[f"{reference} 0"]
    found = {}
    for name, sizes in offered.items():
        best = 0 if name == reference else min(range(len(sizes)), key=lambda i: abs(taken[f"{name} {i}"] - goal))
        restorer = built[name, best]
        counts = count(restorer.net, latency["size"], latency["size"], run=restorer.forward)
        found[name] = {
            "network_g": sizes[best],
            "milliseconds": 1e3 * taken[f"{name} {best}"],
            "parameters": counts.parameters,
            "macs": counts.macs,
            "reads": _reads(restorer.net),
        }
    _write(file, {"asked": [networks, latency], "machine": processor(), "found": found})
    return found


def _reads(net: torch.nn.Module) -> bool:
    """Whether a sentence can change what the network does: a PromptMamba may have all its text paths switched off."""
    return takes_prompts(net) and (bool(text_parameters(net)) or not hasattr(net, "text_parameters"))


def _split(networks: Mapping[str, Mapping]) -> dict[str, tuple[dict, list[dict]]]:
    """Name -> what all sizes share, and the sizes (`sizes:`, a list of arguments; default one)."""
    split = {}
    for name, options in networks.items():
        options = copy.deepcopy(dict(options))
        sizes = options.pop("sizes", None) or [{}]
        if not isinstance(options.get("type"), str) or not all(isinstance(size, Mapping) for size in sizes):
            raise UserError(f"networks.{name} must have a type, and `sizes` must be a list of arguments")
        split[name] = options, [dict(size) for size in sizes]
    return split


def option_files(name: str, network: Mapping, reads: bool, training: Mapping, images: str, out: Path) -> list[Path]:
    """Writes both phases' option files for one network, from those of the starter model."""
    files = []
    for phase, iterations in ((1, training["first"]), (2, training["second"])):
        opt = read_option_file(ROOT / "options" / "train" / "PromptMamba" / f"starter_phase{phase}.yml")
        opt["name"] = f"{_file_name(name)}_{phase}"
        opt["network_g"] = dict(network)
        data, train = opt["datasets"]["train"], opt["train"]
        data.update(dataroot_gt=images, batch_size_per_gpu=training["batch"], gt_size=training["pixels"])
        data["num_worker_per_gpu"] = training["workers"]
        opt["datasets"] = {"train": data}  # the comparison measures
        opt.pop("val", None)
        train["total_iter"] = iterations
        train["scheduler"]["periods"] = [iterations]
        train["warmup_iter"] = min(train["warmup_iter"], iterations // 10)
        opt["logger"].update(save_checkpoint_freq=max(1, iterations // 10), print_freq=max(1, iterations // 50))
        if phase == 2:
            opt["path"]["pretrain_network_g"] = str(_network(out, f"{_file_name(name)}_1"))
            if not reads:
                train["phase"] = "pretrain"
                data.update(requests={"all": 1}, prompts="none")
                data.pop("prompt_variety", None)
                for key in _PROMPTS_ONLY:
                    train.pop(key, None)
            elif network["type"] != "PromptMamba":
                train.pop("text_gate_std", None)  # of PromptMamba's gates
            if not network.get("wishes", False):
                train.pop("sentence_share", None)
        file = out / f"{opt['name']}.yml"
        text = yaml.safe_dump(_plain(opt), sort_keys=False)
        if file.exists() and file.read_text(encoding="utf-8") != text:
            # a trial of a few steps would pass for the study
            raise UserError(f"{str(out)!r} holds a training of {name} with other options; name another output")
        with replace_on_success(file) as path:
            path.write_text(text, encoding="utf-8")
        files.append(file)
    return files


def trained(name: str, files: Sequence[Path], training: Mapping, out: Path, tell) -> dict[str, dict[str, Any]]:
    """Trains what is not trained yet; run -> `{"seconds", "network", "finished"}`. Stops when the hours are over. The
    seconds of a run that was interrupted or failed are kept, and count."""
    record = out / f"{_file_name(name)}.json"
    known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for file in files:
        before = known.get(file.stem, {})
        if "network" in before:
            if not before.get("finished", True):
                break  # the hours are over
            continue
        spent = sum(one["seconds"] for one in known.values())
        start = time.perf_counter()
        try:
            finished = run_training(file, out, max(1.0, training["hours"] * 3600 - spent), training["threads"])
        except BaseException:  # an interruption, too
            taken = before.get("seconds", 0.0) + time.perf_counter() - start
            _write(record, {**known, file.stem: {"seconds": taken}})
            raise
        network = _network(out, file.stem)
        if not finished:
            network = _latest(network.parent, name)
            tell(f"{name}: the hours were over at {network.name}")
        taken = before.get("seconds", 0.0) + time.perf_counter() - start
        known[file.stem] = {"seconds": taken, "network": str(network), "finished": finished}
        _write(record, known)
        if not finished:
            break
    return known


def run_training(file: Path, out: Path, seconds: float, threads: int) -> bool:
    """In a process of its own; False if it did not finish in time."""
    command = [sys.executable, str(ROOT / "prompt_mamba_arch" / "train.py"), "-opt", str(file), "--root", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen([*command, "--auto_resume"], env=environment, stdout=subprocess.DEVNULL)
    try:
        if process.wait(timeout=seconds):
            raise UserError(f"training with {file} failed")
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return True


def comparison(options: Mapping, found: Mapping[str, Mapping], records: Mapping[str, Mapping], file: Path):
    """Writes the comparison's option file, with the trained networks as methods, and runs it."""
    methods: dict[str, dict] = {}
    for name, one in found.items():
        model = {"model": list(records[name].values())[-1]["network"]}
        methods[name] = model
        if one["reads"]:
            methods[f"{name}, blind"] = {**model, "prompt": "none"}
    rest = {key: value for key, value in options.items() if key not in _STUDY}
    plan = {**rest, "methods": {**methods, **(options.get("methods") or {})}}
    with replace_on_success(file) as path:
        path.write_text(yaml.safe_dump(_plain(plan), sort_keys=False), encoding="utf-8")
    return read_plan(file)


def table(found: Mapping[str, Mapping], records: Mapping[str, Mapping]) -> str:
    lines = [
        "| network | parameters | MACs | latency | training | reads |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, one in found.items():
        minutes = sum(part["seconds"] for part in records[name].values()) / 60
        done = "" if all(part["finished"] for part in records[name].values()) else ", stopped by the clock"
        lines.append(
            f"| {name} | {one['parameters'] / 1e6:.3f} M | {one['macs'] / 1e9:.2f} G | {one['milliseconds']:.0f} ms | "
            f"{minutes:.1f} min{done} | {'sentences' if one['reads'] else ''} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-opt", required=True, metavar="YML", help="options/compare/equal_budget.yml")
    parser.add_argument("--train", required=True, metavar="DIR", help="clean images; none of the test sets'")
    parser.add_argument("--force_yml", nargs="+", action="extend", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    try:
        return _run(args)
    except KeyboardInterrupt:
        print("equal_budget: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:
        line = plain_line(error)
        if line is None:
            raise
        print(f"equal_budget: {line}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    def tell(line: str) -> None:
        print(f"equal_budget: {line}", file=sys.stderr)

    options = read_option_file(args.opt)
    force_options(options, args.force_yml)
    sections = {"training": _TRAINING, "latency": _LATENCY}
    for key, known in sections.items():
        check_keys(options.get(key) or {}, known, key)
    training, latency = ({**known, **(options.get(key) or {})} for key, known in sections.items())
    networks = options.get("networks")
    if not isinstance(networks, Mapping) or not networks:
        raise UserError("the option file must have a section 'networks' with at least one entry")
    reference = latency["reference"]
    if reference is not None and reference not in networks:
        raise UserError(f"latency.reference names no network: {reference!r}{did_you_mean(reference, networks)}")
    if not Path(args.train).is_dir():
        raise UserError(f"no such folder: {args.train!r}")
    out = Path(str(options.get("output") or "results/compare/equal_budget")).expanduser().resolve()
    out.mkdir(parents=True, exist_ok=True)
    found = fitted(_plain(networks), _plain(latency), out / "latency.json")
    records = {}
    for name, one in tqdm(found.items(), desc="training", unit="network", disable=None):
        files = option_files(name, one["network_g"], one["reads"], training, str(Path(args.train).resolve()), out)
        records[name] = trained(name, files, training, out, tell)
    plan = comparison({**options, "output": str(out)}, found, records, out / "compare.yml")
    result = compare(plan, tell=tell)
    command = f"python scripts/equal_budget.py -opt {args.opt} --train CLEAN_IMAGES"
    write_comparison(result, command)
    text = f"{(out / 'table.md').read_text(encoding='utf-8')}\n## Budget\n\n{table(found, records)}"
    with replace_on_success(out / "table.md") as path:
        path.write_text(text, encoding="utf-8")
    print(text)
    return 1 if result.failed else 0


def _network(out: Path, run: str) -> Path:
    return out / "experiments" / run / "models" / "net_g_latest.pth"


def _latest(folder: Path, name: str) -> Path:
    numbered = [(int(p.stem.split("_")[-1]), p) for p in folder.glob("net_g_*.pth") if p.stem.split("_")[-1].isdigit()]
    if not numbered:
        raise UserError(f"{name}: the hours were over before the first checkpoint; raise training.hours")
    return max(numbered)[1]


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _write(file: Path, content: Mapping) -> None:
    with replace_on_success(file) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
