"""The library spandrel (github.com/chaiNNer-org/spandrel) as this package uses it: architectures by name, and official
checkpoints of which it tells architecture and hyper-parameters.

Networks with licences that restrict their use (Restormer, CodeFormer and others) are in spandrel-extra-arches.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prompt_mamba_arch.errors import UserError, check_keys, did_you_mean, one_line

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

__all__ = ["arch_names", "build", "describe", "like_type", "read_checkpoint", "recognise"]

# in spandrel-extra-arches, which may not be installed
RESTRICTED = (
    *("AdaCode", "CodeFormer", "DDColor", "FeMaSR", "M3SNet", "MAT", "MIRNet2", "MPRNet", "Restormer", "SRFormer"),
)
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def _spandrel():
    try:
        import spandrel
    except ImportError:
        raise UserError(
            "networks of other architectures need the library spandrel: pip install spandrel, or the extra 'peers'"
        ) from None
    try:
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
    except ImportError:
        pass
    return spandrel


@functools.lru_cache(maxsize=None)  # noqa: UP033
def _table() -> dict[str, tuple[Any, type[nn.Module]]]:
    """Name -> the architecture and its class; one that has several classes is known by their names."""
    table = {}
    for support in _spandrel().MAIN_REGISTRY.architectures():
        arch = support.architecture
        module = sys.modules[type(arch).__module__]
        named = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
        classes = {name: it for name, it in named.items() if inspect.isclass(it) and issubclass(it, nn.Module)}
        if len(classes) == 1:
            (table[str(arch.id)],) = ((arch, it) for it in classes.values())
        table.update({name: (arch, it) for name, it in classes.items()})
    return table


def arch_names() -> list[str]:
    """Every `arch` that `build` knows here.

    Raises:
        UserError: spandrel is not installed.
    """
    return sorted(_table(), key=str.lower)


def build(arch: str, arguments: Mapping[str, Any]) -> tuple[nn.Module, ImageModelDescriptor]:
    """A new network of that architecture, of its own constructor's arguments, and what spandrel knows of it.

    Raises:
        UserError: no such architecture or argument (the nearest is named), values that it refuses, or a network of
            masks or other things than an image.
    """
    kind, cls = _find(arch)
    where = f"network_g (SpandrelArch, arch {arch})"
    known = inspect.signature(cls).parameters
    check_keys(arguments, known, where)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise UserError(f"{where} lacks {name!r}")
    try:
        net = cls(**arguments)
    except Exception as error:  # whatever a foreign constructor makes of a wrong value
        raise UserError(f"{where}: these arguments are refused ({one_line(error)[:160]})") from error
    try:
        descriptor = kind.load(dict(net.state_dict()))
    except Exception as error:
        raise UserError(
            f"{where}: spandrel cannot read the network back from its weights ({one_line(error)[:160]}); take "
            "arguments nearer to a published network's"
        ) from error
    return net, _of_images(descriptor, where)


def _find(arch: str) -> tuple[Any, type[nn.Module]]:
    table = _table()
    for name, found in table.items():
        if name.lower() == str(arch).lower():
            return found
    for name in RESTRICTED:
        if name.lower() == str(arch).lower():
            raise UserError(
                f"the architecture {name} has a licence that restricts its use: pip install spandrel-extra-arches, or "
                "the extra 'peers-restricted'"
            )
    variants = [name for name, (kind, _) in table.items() if str(kind.id).lower() == str(arch).lower()]
    if variants:
        raise UserError(f"the architecture {arch} has several networks: arch is one of {', '.join(variants)}")
    near = {name.lower(): name for name in (*table, *RESTRICTED)}
    hint = did_you_mean(str(arch).lower(), near)
    for low, name in near.items():
        hint = hint.replace(f"'{low}'", f"'{name}'")
    raise UserError(f"spandrel knows no architecture {arch!r}{hint or '; there are ' + ', '.join(arch_names())}")


def like_type(name: object, registered: Iterable[str]) -> str:
    """`did_you_mean` for the `type` of a network: among those that are registered, and spandrel's, which are written
    `{type: SpandrelArch, arch: NAFNet}`."""
    try:
        others = [*arch_names(), *RESTRICTED]
    except UserError:  # it is not installed
        others = []
    written = {other.lower(): f"{{type: SpandrelArch, arch: {other}}}" for other in others}
    written.update({own.lower(): repr(own) for own in registered})
    near = difflib.get_close_matches(str(name).lower(), written, n=1)
    return f"; did you mean {written[near[0]]}?" if near else ""


def read_checkpoint(path: str | os.PathLike) -> ImageModelDescriptor:
    """An official checkpoint: the network, with its weights, and what spandrel knows of it.

    Raises:
        UserError: no such file, a damaged one, or a network that spandrel does not know.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"network: there is no file {str(path)!r}")
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"network: {str(path)!r} must be a file {', '.join(SUFFIXES)}")
    loader = _spandrel().ModelLoader(device="cpu")
    try:
        state = loader.load_state_dict_from_file(str(file))
    except Exception as error:  # RuntimeError, UnpicklingError, SafetensorError ...: it depends on the damage
        raise UserError(f"network: {str(path)!r} is damaged ({one_line(error)[:160]})") from error
    found = recognise(state)
    if found is None:
        raise UserError(f"network: {str(path)!r} holds no network that spandrel knows; name its type and arguments")
    return found


def recognise(state: Mapping[str, Tensor]) -> ImageModelDescriptor | None:
    """The network that these weights belong to, with them; None if spandrel knows none.

    Raises:
        UserError: it is a network of masks, or the weights do not fit the architecture that they look like.
    """
    spandrel = _spandrel()
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError:
        return None
    except Exception as error:
        raise UserError(f"network: spandrel cannot load these weights ({one_line(error)[:160]})") from error
    return _of_images(found, "network")


def describe(descriptor: ImageModelDescriptor) -> dict[str, Any]:
    """`arch` and the arguments that build such a network again, plain ones."""
    arguments = getattr(descriptor.model, "hyperparameters", {})
    plain = {name: value for name, value in arguments.items() if _is_plain(value)}
    names = [name for name, (_, cls) in _table().items() if cls is type(descriptor.model)]
    return {"arch": names[0] if names else str(descriptor.architecture.id), **plain}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _of_images(descriptor: Any, where: str) -> ImageModelDescriptor:
    if not isinstance(descriptor, _spandrel().ImageModelDescriptor):
        raise UserError(f"{where}: {descriptor.architecture.name} fills holes and needs a mask; only images go here")
    return descriptor
