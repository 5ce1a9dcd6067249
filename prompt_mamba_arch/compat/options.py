"""The option file and the command line: read safely and exactly, and checked before a folder is made or renamed."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import basicsr
import basicsr.test
import basicsr.train
import torch
import yaml
from basicsr.models.sr_model import SRModel
from basicsr.utils import options as basicsr_options
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

from prompt_mamba_arch.compat.imports import UnknownName
from prompt_mamba_arch.errors import UserError, check_keys, check_number, did_you_mean, one_line
from prompt_mamba_arch.weights import shipped_file

# ------------------------------------------------------------------------------------------------- reading YAML


class OptionLoader(yaml.SafeLoader):
    """YAML for option files: plain data only, numbers as people write them, sections in the file's order."""


def _construct_section(loader: OptionLoader, node: yaml.MappingNode) -> Iterator[OrderedDict]:
    section = OrderedDict()
    yield section  # filled afterwards, as an anchor may refer to it
    written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for key in {key for key in written if written.count(key) > 1}:
        warnings.warn(f"key {key!r} is given twice in {node.start_mark}; the last one counts", stacklevel=2)
    loader.flatten_mapping(node)
    section.update(loader.construct_pairs(node, deep=True))


OptionLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_section)
# PyYAML knows floats only with a point and a signed exponent: 1e-4 and 5e3 would be strings
OptionLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def mend_yaml_loader() -> None:
    """`yaml.CLoader` runs code that an option file names (`!!python/object/apply`) and reads 1e-4 and 5e3 as
    strings."""
    _, dumper = basicsr_options.ordered_yaml()
    basicsr_options.ordered_yaml = lambda: (OptionLoader, dumper)


def read_option_file(path: str | os.PathLike) -> OrderedDict:
    """The option file's sections.

    Raises:
        UserError: there is no such file, or it is not YAML (with the line), or not sections of keys and values.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"-opt: there is no option file {str(path)!r}")
    try:
        opt = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=OptionLoader)
    except UnicodeDecodeError:
        raise UserError(f"{path}: an option file must be UTF-8 text") from None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        what = getattr(exc, "problem", None) or str(exc)
        if "python/" in what:
            what = f"an option file holds plain data, {what}"
        raise UserError(one_line(f"{path}{f', line {mark.line + 1}' if mark else ''}: {what}")) from None
    if not isinstance(opt, dict):
        raise UserError(f"{path}: an option file holds sections of keys and values")
    return opt


# --------------------------------------------------------------------------------------------------- --force_yml


def read_value(text: str) -> object:
    """A value of the command line as the option file would read it: `1e-4`, `-1`, `true`, `~`, `[1, 2]`, text."""
    text = text.strip()
    if text.lower() == "none":
        return None
    if text.startswith("!!float"):
        text = text[len("!!float") :].strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    loader = OptionLoader(text if quoted or text[:1] in ("[", "{") else "")
    try:
        if quoted or text[:1] in ("[", "{"):
            return loader.get_single_data()
        # resolved, not parsed: `a: b`, `#1` and `C:\x` stay text
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        plain = tag.rsplit(":", 1)[-1] in ("int", "float", "bool", "null")
        return loader.construct_object(yaml.ScalarNode(tag, text)) if plain else text
    except yaml.YAMLError:
        raise UserError(f"--force_yml: cannot read the value {text!r}") from None
    finally:
        loader.dispose()


def force_options(opt: dict, entries: Sequence[str]) -> None:
    """Sets `section:key=value` entries in the options. A new key is accepted, a new section is not, as in BasicSR.

    Raises:
        UserError: an entry has no `=`, or names a section that the file does not have.
    """
    for entry in entries:
        keys, equals, value = entry.partition("=")
        if not equals:
            raise UserError(f"--force_yml {entry}: write it as section:key=value")
        *sections, last = [key.strip() for key in keys.split(":")]
        here = opt
        for depth, key in enumerate(sections):
            if not isinstance(here.get(key), dict):
                where = ":".join(sections[:depth]) or "the option file"
                raise UserError(f"--force_yml {entry}: no section {key!r} in {where}{did_you_mean(key, here)}")
            here = here[key]
        here[last] = read_value(value)


# ------------------------------------------------------------------------------------------------------- checks

# what BasicSR's loop reads without asking whether it is there
_NEEDED = {
    True: {
        "": ("name", "model_type", "num_gpu", "datasets", "path", "train", "logger"),
        "train": ("total_iter",),
        "logger": ("print_freq", "save_checkpoint_freq"),
        "datasets.train": ("name", "type", "num_worker_per_gpu", "batch_size_per_gpu"),
    },
    False: {"": ("name", "model_type", "num_gpu", "datasets", "path")},
}
# section -> key -> the least whole number that it can be
_WHOLE = {
    "": {"manual_seed": 0},
    "train": {"total_iter": 0, "warmup_iter": -1},
    "logger": {"print_freq": 1, "save_checkpoint_freq": 1},
    "val": {"val_freq": 1},
    "datasets.train": {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1},
}
_LARGEST_SEED = 2**32 - 1001  # each process adds its number, each worker another
_REDUCED = ("L1Loss", "MSELoss", "CharbonnierLoss")  # with three ways to do so
_PATH_KEYS = ("pretrain_network", "strict_load", "resume", "param_key")


def _section(opt: Mapping, name: str) -> object:
    here = opt
    for key in filter(None, name.split(".")):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def _check_needed(opt: Mapping, is_train: bool) -> None:
    for name, keys in _NEEDED[is_train].items():
        section = _section(opt, name)
        where = name or "the option file"
        if not isinstance(section, Mapping):
            raise UserError(f"the option file has no section {name!r}")
        for key in keys:
            if section.get(key) is None:
                raise UserError(f"{where} lacks {key!r}")
    for key in ("datasets", "path", "train", "logger", "val"):
        if not isinstance(opt.get(key, {}), Mapping):
            raise UserError(f"{key} must be a section of keys and values, not {opt[key]!r}")


def _check_values(opt: dict) -> None:
    """Values of the wrong kind are a TypeError or a division by zero where they are first needed, which may be after
    the first thousand iterations; a run without a name writes into the folder of all runs."""
    name = opt["name"]
    if not isinstance(name, str) or name in ("", ".", "..") or any(sign in name for sign in "/\\"):
        raise UserError(f"name must be a text that can name a folder, in quotes if it is a number, not {name!r}")
    for where, keys in _WHOLE.items():
        section = _section(opt, where)
        for key, least in keys.items() if isinstance(section, Mapping) else ():
            most = _LARGEST_SEED if key == "manual_seed" else float("inf")
            check_number(section, key, least, most, whole=True, where=where)
            if section.get(key) is not None:
                section[key] = int(section[key])
            else:
                section.pop(key, None)
    train_set = _section(opt, "datasets.train")
    if isinstance(train_set, Mapping):
        check_number(train_set, "dataset_enlarge_ratio", 0, above=True, where="datasets.train")
    for key, section in (opt.get("train") or {}).items():
        if key.endswith("_opt") and isinstance(section, Mapping):
            check_number(section, "loss_weight", float("-inf"), where=f"train.{key}")
            ways = (None, "none", "mean", "sum")
            if section.get("type") in _REDUCED and section.get("reduction") not in ways:
                raise UserError(f"train.{key}.reduction: {section['reduction']!r} is not one of none, mean, sum")
    for where in ("train.scheduler", "val.metrics"):
        if not isinstance(_section(opt, where), (Mapping, type(None))):
            raise UserError(f"{where} must be a section of keys and values, not {_section(opt, where)!r}")
    if not isinstance(_section(opt, "train.scheduler.type"), (str, type(None))):
        raise UserError(f"train.scheduler.type must be a text, not {_section(opt, 'train.scheduler.type')!r}")
    for key, value in (_section(opt, "train.scheduler") or {}).items():
        for number in value if isinstance(value, list) else [value] if key == "gamma" else ():
            check_number({key: number}, key, float("-inf"), where="train.scheduler")
    for key, metric in (_section(opt, "val.metrics") or {}).items():
        if isinstance(metric, Mapping):
            check_number(metric, "crop_border", 0, whole=True, where=f"val.metrics.{key}")
            if metric.get("crop_border") is not None:
                metric["crop_border"] = int(metric["crop_border"])
    for key, value in opt["path"].items():
        if key.startswith("pretrain_network") and not isinstance(value, (str, list, type(None))):
            raise UserError(f"path.{key} must name a file, not {value!r}")


def _fill_in(opt: dict, is_train: bool) -> None:
    """A test file without val.suffix or val.save_img ends in a KeyError after the work, `path.key: ~` in a TypeError,
    and a null `val` or persistent_workers without workers (validation never has any) in others."""
    if opt.get("val") is None:
        opt.pop("val", None)
    if not is_train:
        opt.setdefault("val", OrderedDict())
    if "val" in opt:
        opt["val"].setdefault("save_img", not is_train)
        opt["val"].setdefault("suffix", None)
        if is_train and not opt["val"].get("val_freq"):
            raise UserError("val lacks 'val_freq', the number of iterations between validations")
    if is_train:
        opt["logger"].setdefault("use_tb_logger", False)
    for name, dataset in opt["datasets"].items():
        if name != "train" or not dataset.get("num_worker_per_gpu"):
            dataset["persistent_workers"] = False
    for key in [key for key, value in opt["path"].items() if value is None and not any(k in key for k in _PATH_KEYS)]:
        del opt["path"][key]


def _check_devices(opt: Mapping) -> None:
    """num_gpu: 1 or prefetch_mode: cuda without a GPU fail deep in torch, after an existing run has been renamed."""
    num_gpu = opt["num_gpu"]
    if num_gpu != "auto" and (not isinstance(num_gpu, int) or isinstance(num_gpu, bool) or num_gpu < 0):
        raise UserError(f"num_gpu must be a number of GPUs or auto, not {num_gpu!r}")
    if num_gpu not in ("auto", 0) and not torch.cuda.is_available():
        raise UserError(f"num_gpu: {num_gpu}, but PyTorch finds no GPU here; write num_gpu: auto (or 0 for the CPU)")
    on_gpu = torch.cuda.is_available() and num_gpu != 0
    for name, dataset in opt["datasets"].items():
        where, mode = f"datasets.{name}.prefetch_mode", dataset.get("prefetch_mode")
        if mode not in (None, "cpu", "cuda"):
            raise UserError(f"{where}: {mode!r} is not one of ~, cpu, cuda")
        if mode == "cuda" and not on_gpu:
            raise UserError(f"{where}: cuda, but this run uses no GPU; write prefetch_mode: cpu or ~")
        if mode == "cuda" and name == "train" and dataset.get("pin_memory") is not True:
            raise UserError(f"{where}: cuda needs pin_memory: true beside it")


def _check_type(registry: Registry, section: object, where: str) -> object:
    if not isinstance(section, Mapping) or not section.get("type"):
        raise UserError(f"{where} lacks 'type'")
    try:
        return registry.get(section["type"])
    except UnknownName as exc:
        raise UserError(f"{where}: {exc}") from None


def _check_arguments(factory: object, section: Mapping, where: str) -> None:
    """Keys of a section that become arguments: refuses unknown ones and names missing ones, as far as it can be
    seen."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    check_keys({key: 0 for key in section if key != "type"}, [p.name for p in parameters], where)
    for p in parameters:
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in section:
            raise UserError(f"{where} ({section['type']}) lacks {p.name!r}")


def _check_types(opt: Mapping, is_train: bool) -> None:
    """Misspelt types and network arguments end in a KeyError or TypeError, after an existing run has been renamed."""
    try:
        model = MODEL_REGISTRY.get(opt["model_type"])
    except UnknownName as exc:
        raise UserError(f"model_type: {exc}") from None
    if hasattr(model, "check_options"):  # a model may know more about its sections
        model.check_options(opt, is_train)
    for key, value in opt["path"].items():
        if isinstance(value, list) and key.startswith("pretrain_network"):
            if not getattr(model, "averages_networks", False):
                raise UserError(f"path.{key}: {opt['model_type']} takes one file; PromptTwoPhaseModel averages several")
            if not value:
                raise UserError(f"path.{key} is an empty list; name a file, or write ~ for none")
    if _section(opt, "val.self_ensemble") and model.__module__.startswith("basicsr."):
        raise UserError(f"val.self_ensemble: {opt['model_type']} knows no such thing; PromptTwoPhaseModel does")
    if issubclass(model, SRModel) and opt.get("network_g") is None:
        raise UserError(f"the option file has no section 'network_g'{did_you_mean('network_g', opt)}")
    for key, section in opt.items():
        if key.startswith("network_") and section is not None:
            _check_arguments(_check_type(ARCH_REGISTRY, section, key), section, key)
    for key, section in (opt.get("train") or {}).items() if is_train else ():
        if key.endswith("_opt") and isinstance(section, Mapping) and "type" in section:
            _check_type(LOSS_REGISTRY, section, f"train.{key}")
    for key, section in (_section(opt, "val.metrics") or {}).items():
        _check_type(METRIC_REGISTRY, section, f"val.metrics.{key}")


def _check_datasets(opt: Mapping, is_train: bool) -> None:
    """A dataset section of another name is refused late or read as something else; so is a folder that is not there."""
    if not opt["datasets"]:
        raise UserError("datasets is empty")
    for name, dataset in opt["datasets"].items():
        where = f"datasets.{name}"
        if not isinstance(dataset, Mapping):
            raise UserError(f"{where} must be a section of keys and values, not {dataset!r}")
        known = name == "train" or name.split("_")[0] == "val" if is_train else name.split("_")[0] in ("test", "val")
        if not known:
            sections = "train, val, val_1, val_2" if is_train else "test, test_1, test_2"
            raise UserError(f"{where}: the sections of datasets are {sections} and so on")
        _check_type(DATASET_REGISTRY, dataset, where)
        if dataset.get("name") is None:
            raise UserError(f"{where} lacks 'name'")
        for key, value in dataset.items():
            if isinstance(value, str) and (key.startswith("dataroot") or key == "meta_info_file"):
                if not os.path.exists(os.path.expanduser(value)):
                    raise UserError(
                        f"{where}.{key}: there is no {'file' if key == 'meta_info_file' else 'folder'} {value!r}"
                    )


def _check_paths(opt: dict, root: str) -> None:
    """A misspelt key under `path` becomes a folder of that name. A path into experiments/ is meant from the root
    folder, whatever the working directory."""
    for key, value in opt["path"].items():
        if not any(part in key for part in _PATH_KEYS):
            valid = ("pretrain_network_g", "param_key_g", "strict_load_g", "resume_state", "ignore_resume_networks")
            raise UserError(
                f"unknown key {key!r} in path{did_you_mean(key, valid) or '; valid are ' + ', '.join(valid)}"
            )
        if key == "resume_state" or key.startswith("pretrain_network"):
            if isinstance(value, str):
                opt["path"][key] = _found(value, root, key)
            elif isinstance(value, list):
                opt["path"][key] = [_found(file, root, key) for file in value]


def _found(file: object, root: str, key: str) -> str:
    """The file, from here or from the root folder, or of a network that comes with the package."""
    found = [path for path in (Path(str(file)).expanduser(), Path(root, str(file)).expanduser()) if path.exists()]
    if not found and (shipped := shipped_file(str(file))) is not None:
        found = [shipped]
    if not found:
        raise UserError(f"path.{key}: there is no file {file!r}")
    return str(found[0])


def check_options(opt: dict, root: str, is_train: bool) -> None:
    """Finds the mistakes in an option file that BasicSR would find late or never, and fills in what it takes for
    granted.

    Raises:
        UserError: the first mistake, with the key where it stands.
    """
    _check_needed(opt, is_train)
    _check_datasets(opt, is_train)
    _check_values(opt)
    _fill_in(opt, is_train)
    _check_devices(opt)
    _check_types(opt, is_train)
    _check_paths(opt, root)


# ------------------------------------------------------------------------------------------------ command line


class OneLineParser(argparse.ArgumentParser):
    """Says a mistake in one plain line."""

    def error(self, message: str) -> None:
        raise UserError(f"{message} (see --help)")


def option_parser(**kwargs: object) -> argparse.ArgumentParser:
    """BasicSR's flags. `--local-rank` is how torch.distributed.launch spells it since torch 2.0."""
    parser = OneLineParser(**kwargs)
    parser.add_argument("-opt", required=True, metavar="YML", help="option file")
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm"], default="none", help="who starts the processes"
    )
    parser.add_argument(
        "--auto_resume", action="store_true", help="continue from the run's last training state, if any"
    )
    parser.add_argument("--debug", action="store_true", help="validate and save every 8 iterations, name debug_NAME")
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch; unused"
    )
    parser.add_argument(
        "--force_yml",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="for example train:optim_g:lr=1e-4",
    )
    return parser


@contextlib.contextmanager
def _swapped(thing: object, **values: object) -> Iterator[None]:
    """Sets attributes for the length of a block."""
    before = {name: getattr(thing, name) for name in values}
    try:
        for name, value in values.items():
            setattr(thing, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(thing, name, value)


def mend_parse_options() -> None:
    """`--force_yml` reads 1e-4 and -1 as strings, fails on '=' in a value and runs lists through eval; `--local-rank`
    is unknown; mistakes in the option file are found after an existing run has been renamed.

    The option file is read, forced and checked here; BasicSR's own function gets the result in place of its YAML
    loader.
    """
    original = basicsr_options.parse_options

    def parse_options(root_path: str, is_train: bool = True) -> tuple[dict, argparse.Namespace]:
        args = option_parser().parse_args()
        opt = read_option_file(args.opt)
        force_options(opt, args.force_yml)
        check_options(opt, root_path, is_train)

        class Prepared:  # what yaml.load() asks of a loader
            def __init__(self, stream: object):
                pass

            def get_single_data(self) -> dict:
                return opt

            def dispose(self) -> None:
                pass

        argv = [sys.argv[0], "-opt", str(Path(args.opt).expanduser()), "--launcher", args.launcher]
        argv += [f"--{flag}" for flag in ("auto_resume", "debug") if getattr(args, flag)]
        init_dist = basicsr_options.init_dist
        on_cpu = opt["num_gpu"] == 0 or not torch.cuda.is_available()
        with (
            _swapped(sys, argv=argv),
            _swapped(
                basicsr_options,
                ordered_yaml=lambda: (Prepared, None),
                init_dist=lambda launcher, **kwargs: init_dist(
                    launcher, **({**kwargs, "backend": "gloo"} if on_cpu else kwargs)
                ),
            ),
        ):
            # BasicSR expands ~ in a path, and fails on a list of them
            lists = {key: value for key, value in opt["path"].items() if isinstance(value, list)}
            opt["path"].update(dict.fromkeys(lists))
            opt, basicsr_args = original(root_path, is_train)
            opt["path"].update(lists)
        basicsr_args.force_yml = args.force_yml or None
        return opt, basicsr_args

    for module in (basicsr_options, basicsr.train, basicsr.test, basicsr):
        module.parse_options = parse_options


MENDS = (mend_yaml_loader, mend_parse_options)
