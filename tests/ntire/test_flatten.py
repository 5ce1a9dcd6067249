"""One file for a network: that it needs nothing of ours, computes the same, and follows names as Python does."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import subprocess
import sys
import warnings

import pytest
import torch
from mamba_ssm_stand_in import install, pretended_cuda

from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.ntire import flatten, network_file

NO_TEXT = {"text_scan": False, "text_gate": False, "text_attention": False, "text_route": False}
U = {"dim": 8, "enc_blocks": [1, 1], "middle_blocks": 1, "dec_blocks": [1, 1], "text_width": 8}
PLAIN = {"dim": 8, "middle_blocks": 3, "text_width": 8}
CONFIGS = {
    "restoration": {**U},
    "restoration without text": {**U, **NO_TEXT},
    "x4": {**PLAIN, "upscale": 4},
    "x4 without text": {**PLAIN, "upscale": 4, **NO_TEXT},
    "x2, one direction": {**PLAIN, "upscale": 2, "directions": 1},
    "x3, tied": {**PLAIN, "upscale": 3, "a_form": "tied", "num_experts": 3},
    "scalar, four directions": {**U, "a_form": "scalar", "directions": 4, "d_state": 4, "expand": 2.0},
    "all convolutions": {**U, "mixers": ["dense", "conv", "conv+dense"], "unshuffle": 1, "gate": False},
    "bare scans": {**U, "mixers": ["scan"] * 3, "gate": False, "local_conv": False, "scan_norm": False},
    "gray, with a mask": {**U, "in_chans": 1, "out_chans": 3},
}
# what the organisers' machine has not got
_BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("prompt_mamba_arch", "basicsr", "mamba_ssm", "numpy", "cv2", "transformers"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
"""


def trained(**config):
    """A network whose every parameter matters."""
    torch.manual_seed(0)
    net = PromptMamba(**config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def test_it_runs_where_nothing_of_ours_is(tmp_path):
    """All configurations in one process that can import torch alone."""
    cases = []
    for number, config in enumerate(CONFIGS.values()):
        net = trained(**config)
        source, state = network_file(net, f"Net{number}")
        (tmp_path / f"net{number}.py").write_text(source, encoding="utf-8")
        x = torch.rand(2, net.config["in_chans"], 13, 18)
        with torch.no_grad():
            cases.append({"state": state, "x": x, "y": net(x)})
    torch.save(cases, tmp_path / "cases.pth")
    program = f"""{_BLOCKED}
import importlib, torch
sys.path.insert(0, {str(tmp_path)!r})
for number, case in enumerate(torch.load({str(tmp_path / "cases.pth")!r})):
    net = getattr(importlib.import_module(f"net{{number}}"), f"Net{{number}}")()
    net.load_state_dict(case["state"], strict=True)
    with torch.no_grad():
        print((net.eval()(case["x"]) - case["y"]).abs().max().item())
assert not any(name.startswith(("prompt_mamba", "basicsr", "numpy", "mamba_ssm")) for name in sys.modules)
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    differences = [float(line) for line in done.stdout.split()]
    assert len(differences) == len(CONFIGS) and max(differences) < 1e-5, dict(zip(CONFIGS, differences))


def load(tmp_path, source, name):
    return getattr(load_module(tmp_path, source, name), name)


def load_module(tmp_path, source, name):
    path = tmp_path / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_torch_and_python_are_imported():
    source, _ = network_file(trained(**CONFIGS["restoration"]), "Net")
    tree = ast.parse(source)
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "torch", "torch.nn.functional", "torch.utils.checkpoint"
    } if sys.version_info >= (3, 10) else True  # fmt: skip
    assert "REGISTRY" not in source and "F.scaled_dot" not in source and "ctypes" not in imported


def test_with_a_prompt(tmp_path):
    net = trained(**CONFIGS["restoration"])
    prompt = torch.nn.functional.normalize(torch.randn(384), dim=0)
    source, state = network_file(net, "Net", prompt)
    flat = load(tmp_path, source, "Net")()
    flat.load_state_dict(state, strict=True)
    x = torch.rand(3, 3, 9, 12)
    with torch.no_grad():
        expected = net(x, prompt.expand(3, -1))
        assert (flat.eval()(x) - expected).abs().max() < 1e-5
        assert (net(x) - expected).abs().max() > 1e-4


def test_it_can_be_trained_and_has_gradients_like_ours(tmp_path):
    net = trained(**CONFIGS["x4"])
    source, state = network_file(net, "Net")
    flat = load(tmp_path, source, "Net")()
    flat.load_state_dict(state)
    x = torch.rand(1, 3, 8, 8)
    for one in (net, flat):
        one(x).square().sum().backward()
    for (name, ours), (_, theirs) in zip(net.named_parameters(), flat.named_parameters()):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4), name


def test_counters_can_trace_it(tmp_path):
    """The organisers count operations in a trace."""
    source, state = network_file(trained(**CONFIGS["x4 without text"]), "Net")
    flat = load(tmp_path, source, "Net")().eval()
    flat.load_state_dict(state)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # it is traced for one size
            traced = torch.jit.trace(flat, x, check_trace=False)
        assert torch.allclose(traced(x), flat(x), atol=1e-6)


# ---- CUDA kernels, where there are any ------------------------------------------------------------------------------


def flat_network(tmp_path, **config):
    """A flattened network, with weights, and its module."""
    source, state = network_file(trained(**config), "Net")
    module = load_module(tmp_path, source, "Net")
    net = module.Net()
    net.load_state_dict(state)
    return net.eval(), module


@pytest.fixture
def kernel_for_all(monkeypatch):
    """Loads a network, for whose scans tensors of the CPU count as tensors of a GPU with mamba-ssm's kernels."""

    def load_it(tmp_path, **config):
        kernel = install(monkeypatch)
        net, module = flat_network(tmp_path, **config)
        choose = module._sequence_scan
        monkeypatch.setattr(module, "_sequence_scan", lambda on_cuda, *others: choose(True, *others))
        return net, kernel, lambda: monkeypatch.setattr(module, "_sequence_scan", choose)

    return load_it


FORMS = ["x4 without text", "x2, one direction", "x3, tied", "scalar, four directions", "bare scans"]


@pytest.mark.parametrize("name", FORMS)
def test_the_kernels_give_what_plain_pytorch_gives(tmp_path, kernel_for_all, name):
    net, kernel, without = kernel_for_all(tmp_path, **CONFIGS[name])
    x = torch.rand(2, 3, 9, 14)
    results = []
    for _ in range(2):
        y = net(x)
        net.zero_grad()
        y.square().sum().backward()
        results.append(
            {"y": y.detach(), **{key: p.grad.clone() for key, p in net.named_parameters() if p.grad is not None}}
        )
        calls = len(kernel.calls)
        without()
    scans = sum(hasattr(module, "A_log") for module in net.modules())
    assert calls == scans > 0  # one for all directions of an image, and none without
    for key, value in results[1].items():
        torch.testing.assert_close(
            results[0][key], value, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_half_precision_reaches_the_kernels_as_float32(tmp_path, kernel_for_all):
    """The module in their place asks for it, and for numbers that lie densely along the tokens."""
    net, kernel, without = kernel_for_all(tmp_path, **CONFIGS["x4 without text"])
    x = torch.rand(1, 3, 8, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        y = net.bfloat16()(x)
        assert y.dtype == torch.bfloat16 and {call["u"].dtype for call in kernel.calls} == {torch.float32}
        without()
        torch.testing.assert_close(y, net(x))


@pytest.mark.parametrize("there", [True, False])
def test_cuda_tensors_alone_ask_for_the_kernels(tmp_path, monkeypatch, there):
    """On a pretended GPU. Numbers in float64 stay with PyTorch."""
    kernel = install(monkeypatch)
    if not there:
        kernel.module.selective_scan_cuda = None  # built without its extension
    net, module = flat_network(tmp_path, **CONFIGS["x2, one direction"])
    with torch.no_grad():
        net(torch.rand(1, 3, 8, 8))
        assert not kernel.calls
        with pretended_cuda(), torch.device("cuda"):
            y = module.Net().eval()(torch.rand(2, 3, 8, 8, device="cuda"))
            assert y.device.type == "cuda" and y.shape == (2, 3, 16, 16)
            assert [call["u"].device.type for call in kernel.calls] == ["cuda"] * len(kernel.calls)
            calls = len(kernel.calls)
            assert calls == (sum(hasattr(part, "A_log") for part in net.modules()) if there else 0)
    for others in ((torch.float64, 8), (torch.float32, 257)):  # what the kernels cannot do
        assert module._sequence_scan(True, *others).func is module.compose_sequence_scan
    assert module.cuda_find_kernel()[0] is (kernel.module.selective_scan_fn if there else None)


def test_a_trace_has_no_kernel_in_it(tmp_path, kernel_for_all):
    net, kernel, _ = kernel_for_all(tmp_path, **CONFIGS["x2, one direction"])
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(net, x, check_trace=False)
        assert not kernel.calls
        torch.testing.assert_close(traced(x), net(x))
    assert kernel.calls


def test_mamba_ssm_is_not_looked_for_at_import(tmp_path, monkeypatch):
    """The rule: the file imports torch and nothing else. Where the package is broken, PyTorch does."""
    asked = []

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "mamba_ssm":
                asked.append(name)
                raise ImportError("undefined symbol")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "mamba_ssm"]:
        monkeypatch.delitem(sys.modules, name)
    net, module = flat_network(tmp_path, **CONFIGS["x2, one direction"])
    net(torch.rand(1, 3, 8, 8))
    assert not asked
    for _ in range(2):
        assert module._sequence_scan(True, torch.float32, 8).func is module.compose_sequence_scan
        assert asked == ["mamba_ssm"]  # once


@pytest.mark.parametrize("name", ["PromptMamba", "Block", "UserError"])
def test_the_class_may_have_the_name_of_one_of_ours(tmp_path, name):
    net = trained(**CONFIGS["x4 without text"])
    source, state = network_file(net, name)
    flat = load(tmp_path, source, name)()
    flat.load_state_dict(state, strict=True)
    x = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        assert (flat.eval()(x) - net(x)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["", "2net", "my-net", "class", "a b"])
def test_names_that_are_none(name):
    with pytest.raises(UserError, match="name"):
        network_file(trained(**CONFIGS["x4 without text"]), name)


def test_a_prompt_needs_text():
    with pytest.raises(UserError, match="prompt"):
        network_file(trained(**CONFIGS["x4 without text"]), "Net", torch.zeros(384))


# ---- following names -----------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a package that is taken for ours: package({"a": source, ...}) -> its name."""
    numbers = itertools.count()

    def package(**modules):
        name = f"flattened_{os.getpid()}_{next(numbers)}_{tmp_path.name}".replace("-", "_")
        folder = tmp_path / name
        folder.mkdir()
        for module, source in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(source.replace("PACKAGE", name), encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return package


def run(source):
    names = {"__name__": "flat"}
    exec(compile(source, "flat", "exec"), names)
    return names


def test_names_of_one_spelling_are_kept_apart(package):
    name = package(
        a="from PACKAGE import b, c\nfrom PACKAGE.c import limit as most\n\n# Twice.\nlimit = 2\n\n\n"
        "def both(scan):\n    '''scan is an argument.'''\n    return b.scan(scan) + c.scan(scan) + limit + most\n",
        b="limit = 10\n\n\ndef scan(x):\n    limited = limit\n    return x * limited\n",
        c="import math\n\nlimit = 100\n\n\ndef scan(x):\n    limit = 1000\n    return math.floor(x) + limit\n\n\n"
        "def unused():\n    return 'nobody needs this'\n",
    )  # fmt: skip
    source, called = flatten(f"{name}.a", "both")
    assert run(source)[called](3) == 3 * 10 + (3 + 1000) + 2 + 100
    assert "nobody" not in source and "# Twice." in source and name not in source


def test_scopes_are_pythons(package):
    name = package(
        a="from PACKAGE.b import value, items\n\n\nclass Thing:\n    value = 1\n\n    def outer(self):\n"
        "        return value\n\n    def inner(self):\n        return [value for value in items] + [self.value]\n\n"
        "    def lambdas(self):\n        return (lambda value=value: value)() , (lambda: value)()\n\n"
        "    def text(self):\n        return f'{value} {items!r}'\n",
        b="value = 7\nitems = [value + 1]\n",
    )  # fmt: skip
    source, called = flatten(f"{name}.a", "Thing")
    thing = run(source)[called]()
    assert thing.outer() == 7 and thing.inner() == [8, 1] and thing.lambdas() == (7, 7) and thing.text() == "7 [8]"


def test_others_stand_in(package):
    name = package(
        a="import math as m\nfrom PACKAGE import b\n\n\ndef f(x):\n    return m.floor(x) + m.ceil(x) + b.g(x)\n",
        b="def g(x):\n    return 10 * x\n",
        c="def ceil(x):\n    return 1000\n\n\ndef g(x):\n    return 100 * x\n",
    )
    source, called = flatten(f"{name}.a", "f", {"math.ceil": f"{name}.c.ceil", f"{name}.b.g": f"{name}.c.g"})
    assert run(source)[called](1.5) == 1 + 1000 + 150


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f():\n    from PACKAGE import b\n    return b\n", "within a definition"),
        ("from PACKAGE.b import *\n\n\ndef f():\n    return x\n", "cannot be followed"),
        ("if True:\n    x = 1\n\n\ndef f():\n    return x\n", "'x'"),
        ("from PACKAGE import b\n\n\ndef f():\n    return b\n", "itself"),
        ("from PACKAGE.b import y\n\n\ndef f():\n    return y\n", "'y'"),
        ("x = 1\nx = 2\n\n\ndef f():\n    return x\n", "twice"),
    ],
)
def test_what_cannot_be_followed_is_said(package, source, said):
    name = package(a=source, b="x = 1\n")
    with pytest.raises(ValueError, match=said):
        flatten(f"{name}.a", "f")
