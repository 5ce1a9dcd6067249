"""Modules that BasicSR imports and that no longer exist, and names that two packages register."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import warnings

from prompt_mamba_arch.errors import UserError, did_you_mean, one_line


class UnknownName(UserError, KeyError):
    """Nothing is registered under a name. Also a KeyError, as BasicSR's registries raise."""

    __str__ = Exception.__str__  # KeyError's would put the sentence in quotes


def _alias(name: str, **attributes: object) -> None:
    """Offers a module `name` with the given attributes, unless it can be imported."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules[name] = module


def mend_functional_tensor() -> None:
    """torchvision 0.17 dropped `transforms.functional_tensor`: every `import basicsr` fails in data/degradations.py."""
    from torchvision.transforms.functional import rgb_to_grayscale

    _alias("torchvision.transforms.functional_tensor", rgb_to_grayscale=rgb_to_grayscale)


def mend_scipy_filters() -> None:
    """SciPy 2 drops `scipy.ndimage.filters`, which metrics/niqe.py and data/data_util.py import."""
    from scipy.ndimage import convolve, gaussian_filter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        _alias("scipy.ndimage.filters", convolve=convolve, gaussian_filter=gaussian_filter)


class _LooseVersion:
    """The part of `distutils.version.LooseVersion` that compares release numbers such as 0.29.1+cpu."""

    def __init__(self, version: str):
        self.release = tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0]))

    def __ge__(self, other: _LooseVersion) -> bool:
        return self.release >= other.release

    def __lt__(self, other: _LooseVersion) -> bool:
        return self.release < other.release


def mend_distutils() -> None:
    """Python 3.12 has `distutils` only where setuptools is installed; archs/arch_util.py imports it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        _alias("distutils")
        _alias("distutils.version", LooseVersion=_LooseVersion)


def require_basicsr() -> None:
    """Some projects (Restormer, BasicSR's forks) carry an own package `basicsr`; from their folder it hides BasicSR."""
    import basicsr

    try:
        from basicsr.utils.registry import ARCH_REGISTRY  # noqa: F401
    except ImportError:
        raise ImportError(
            f"the package basicsr in {next(iter(basicsr.__path__))} is not BasicSR 1.4.2 but another project's copy; "
            "start from another folder, or pip install basicsr==1.4.2"
        ) from None


# ---------------------------------------------------------------------------------------------------- registries


def _source(thing: object) -> str:
    try:
        return inspect.getsourcefile(thing) or ""
    except TypeError:
        return ""


def mend_registry_clash() -> None:
    """A name registered twice ends in "An object named 'X' was already registered", which does not say by whom.

    The same file imported under a second module name, and a reloaded module, are no clash: there is one class. Two
    packages with one name for a network, dataset or model are an error that names both. Two metrics or losses of one
    name are usually the same function (many packages register calculate_lpips): the first one stays, the second gets
    its package's name as suffix, as BasicSR's own `register(suffix=...)` does, and a warning says which is which.
    """
    from basicsr.utils.registry import Registry

    def _do_register(self: Registry, name: str, obj: object, suffix: str | None = None) -> None:
        if isinstance(suffix, str):
            name = f"{name}_{suffix}"
        owner = self._obj_map.get(name)
        if owner is None or owner.__module__ == obj.__module__:
            self._obj_map[name] = obj
            return
        if _source(owner) and _source(owner) == _source(obj):
            return
        clash = f"{obj.__module__} registers the {self._name} {name!r}, but {owner.__module__} already owns that name"
        if self._name not in ("metric", "loss"):
            raise UserError(f"{clash}; import only one of the two packages")
        other = f"{name}_{obj.__module__.split('.')[0]}"
        self._obj_map[other] = obj
        warnings.warn(f"{clash}; it is available as {other!r}", stacklevel=4)

    Registry._do_register = _do_register


def mend_registry_get() -> None:
    """An unknown type prints "Name X is not found, use name: X_basicsr!" and then raises a bare KeyError."""
    from basicsr.utils.registry import Registry

    from prompt_mamba_arch.peers import like_type

    def get(self: Registry, name: str, suffix: str = "basicsr") -> object:
        for candidate in (name, f"{name}_{suffix}"):
            if candidate in self._obj_map:
                return self._obj_map[candidate]
        near = like_type if self._name == "arch" else did_you_mean
        hint = near(name, self.keys()) or f"; known ones are {', '.join(sorted(self.keys()))}"
        raise UnknownName(one_line(f"unknown {self._name} type {name!r}{hint}"))

    Registry.get = get


BEFORE_BASICSR = (mend_functional_tensor, mend_scipy_filters, mend_distutils)
MENDS = (mend_registry_clash, mend_registry_get)
