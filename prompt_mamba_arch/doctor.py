"""What this installation can do, what it lacks, the command that mends it, and a short test of the whole."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

import prompt_mamba_arch
from prompt_mamba_arch.checkpoint_files import shipped_models
from prompt_mamba_arch.errors import UserError, one_line
from prompt_mamba_arch.memory import free_memory
from prompt_mamba_arch.ops import cuda, library, selective_scan
from prompt_mamba_arch.restore import Restorer

__all__ = ["Finding", "examine", "try_out"]

GOOD, POOR, BAD = "good", "poor", "bad"
_DISTRIBUTION = "prompt-mamba-arch"
# what a report of a fault should tell
_PACKAGES = (
    "basicsr",
    "torch",
    "torchvision",
    "numpy",
    "opencv-python",
    "pillow",
    "transformers",
    "safetensors",
    "lmdb",
)
_EXTRAS = {  # extra -> a package of it
    **{"lpips": "lpips", "video": "av", "export": "onnxruntime", "app": "gradio", "study": "starlette"},
    **{"peers": "spandrel", "large": "pyvips"},
}
_BUILD = (
    "python setup.py build_ext --inplace --force  (in a clone; else install the package again, with a C++ compiler)"
)
_CUDA_TORCH = "pip install --force-reinstall torch torchvision  (https://pytorch.org names the index for your driver)"
_SIGMA = 25  # of the noise in the test, of 255
_SECONDS = 5.0  # for the restoration; with loading and the encoder about ten


class Finding(NamedTuple):
    """One thing that was looked at."""

    state: str
    """`good`; `poor`: it works, and could work better; `bad`: something does not work."""
    name: str
    value: str
    mend: str | None = None
    """The command that makes it good."""


def examine() -> Iterator[Finding]:
    """Everything that can be told without computing."""
    yield Finding(GOOD, "version", f"{prompt_mamba_arch.__version__}, Python {platform.python_version()}, "
                  f"{platform.system()} {platform.machine()}")  # fmt: skip
    yield from _packages()
    yield _processor()
    yield _scan_on_cpu()
    yield from _gpu()
    yield from _memory()
    yield _text_encoder()
    names = shipped_models()
    if names:
        yield Finding(GOOD, "networks", ", ".join(names))
    else:
        yield Finding(POOR, "networks", "none is shipped with this version; name your own with --model")


def _packages() -> Iterator[Finding]:
    versions = {name: _version(name) for name in _PACKAGES}
    yield Finding(GOOD, "packages", ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    here = {extra: _version(name) for extra, name in _EXTRAS.items()}
    value = ", ".join(f"{extra} ({_EXTRAS[extra]} {version})" for extra, version in here.items() if version) or "none"
    missing = [extra for extra, version in here.items() if not version]
    if missing:
        value += f"; without {', '.join(missing)}: pip install 'prompt-mamba-arch[{','.join(missing)}]' brings them"
    yield Finding(GOOD, "extras", value)
    try:
        from packaging.requirements import Requirement

        required = [Requirement(text) for text in importlib.metadata.requires(_DISTRIBUTION) or ()]
    except (ImportError, importlib.metadata.PackageNotFoundError):  # a source tree that was not installed
        return
    for requirement in required:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        wanted = f"{requirement.name}{requirement.specifier}"
        if version is None:
            yield Finding(BAD, "packages", f"{wanted} is missing", f"pip install '{wanted}'")
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding(BAD, "packages", f"{wanted} is needed, this is {version}", f"pip install '{wanted}'")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # OpenCV has several names for one package
        return _version(f"{name}-headless") if name == "opencv-python" else None


def _processor() -> Finding:
    threads, cores = torch.get_num_threads(), _cores()
    value = f"{threads} of {cores} cores are used"
    if threads >= cores or cores == 1:
        return Finding(GOOD, "threads", value)
    named = next((name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ), None)
    if named is None:  # as torch chooses: processors that share a core gain nothing
        return Finding(GOOD, "threads", value)
    return Finding(POOR, "threads", f"{value}, since {named} is {os.environ[named]}", f"unset {named}")


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _scan_on_cpu() -> Finding:
    if library.kernels is not None:
        return Finding(GOOD, "scan, CPU", f"C++ kernels ({library.kernels.pm_scan_instruction_set().decode()})")
    why = library.why_not or ""
    mend = _BUILD
    if "NO_KERNELS" in why:
        mend = "unset PROMPT_MAMBA_NO_KERNELS"
    elif "INSTRUCTION_SET" in why:
        mend = "unset PROMPT_MAMBA_INSTRUCTION_SET"
    elif "torch 2.4" in why:
        mend = "pip install 'torch>=2.4'"
    return Finding(POOR, "scan, CPU", f"plain PyTorch, several times slower: {why}", mend)


def _gpu() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        if torch.backends.mps.is_available():
            yield Finding(GOOD, "GPU", "of Apple (--device mps); the CPU is taken unless it is asked for")
        elif shutil.which("nvidia-smi") is None and not os.path.exists("/proc/driver/nvidia/version"):
            yield Finding(GOOD, "GPU", "none here; the CPU is taken")
        elif torch.version.cuda is None:
            yield Finding(POOR, "GPU", "there is an NVIDIA driver, and this torch was built without CUDA", _CUDA_TORCH)
        else:
            why = f"there is an NVIDIA driver, and torch for CUDA {torch.version.cuda} finds no GPU that it can use"
            yield Finding(
                POOR, "GPU", why, "nvidia-smi  (says whether the GPU is seen and which CUDA its driver knows)"
            )
        return
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Finding(GOOD, "GPU", f"{found.name}, {_gigabytes(found.total_memory)}")
    why = cuda.why_not()
    if why is None:
        yield Finding(GOOD, "scan, GPU", f"mamba-ssm {_version('mamba-ssm') or ''}".strip())
    else:
        mend = why[why.index("MAMBA_KEEP") :] if "MAMBA_KEEP" in why else (
            "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation --no-cache-dir 'prompt-mamba-arch[cuda]'"
        )  # fmt: skip
        yield Finding(POOR, "scan, GPU", f"plain PyTorch, several times slower: {one_line(why)[:200]}", mend)


def _memory() -> Iterator[Finding]:
    for device in ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))):
        free = free_memory(torch.device(device))
        state = GOOD if free > 1e9 else POOR
        mend = None if state == GOOD else "--tile 256  (smaller tiles take less), or close other programs"
        yield Finding(state, f"free memory, {device}", _gigabytes(free), mend)


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB"


def _text_encoder() -> Finding:
    from prompt_mamba_arch.text.encoder import find_model

    try:
        return Finding(GOOD, "text encoder", str(find_model()))
    except UserError as error:
        line = str(error)
        _, found, command = line.rpartition("install it with: ")
        return Finding(BAD, "text encoder", line, command if found else None)


# ---- the test ------------------------------------------------------------------------------------------------------


def try_out(model: str | None = None, device: str = "auto", seconds: float = _SECONDS) -> Iterator[Finding]:
    """A test of the whole on a photograph: scan, sentence encoder, network.

    Args:
        model: as `Restorer.from_pretrained`; None: the first that is shipped, or an untrained one.
        seconds: for restoring; the first pass is made in any case.
    """
    yield _try_scan()
    encoded = _try_encoder()
    yield encoded
    yield from _try_network(model, device, seconds, with_text=encoded.state == GOOD)


def _try_scan() -> Finding:
    random = np.random.default_rng(0)
    batch, channels, states, length = 1, 8, 4, 300
    shapes = [(batch, channels, length)] * 2 + [(channels, states)] + [(batch, states, length)] * 2
    u, delta, A, B, C = (torch.from_numpy(random.standard_normal(shape)).float() for shape in shapes)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    worst = 0.0
    for device in devices:
        given = [t.to(device) for t in (u, delta.abs() / 10, -A.abs(), B, C)]
        try:
            found, expected = (selective_scan(*given, backend=name).cpu() for name in ("auto", "reference"))
        except Exception as error:  # a fault of a library: whatever it is, the user is told and not left
            return Finding(BAD, "test of the scan", f"fails on {device}: {one_line(error)[:200]}", _BUILD)
        worst = max(worst, (found - expected).abs().max().item())
    value = f"differs from the reference by {worst:.1e} at most"
    return Finding(GOOD, "test of the scan", value) if worst < 1e-3 else Finding(
        BAD, "test of the scan", value + ", which is too much", _BUILD
    )  # fmt: skip


def _try_encoder() -> Finding:
    """Sentences that mean the same must be nearer than others."""
    from prompt_mamba_arch.text import TextEncoder

    try:
        start = time.perf_counter()
        noise, grain, soup = TextEncoder().encode(
            ["remove the noise", "take the grain out of this photo", "a recipe for tomato soup"]
        )
        taken = time.perf_counter() - start
    except UserError as error:
        line = str(error)
        _, found, command = line.rpartition("install it with: ")
        return Finding(BAD, "test of the encoder", line, command if found else None)
    near, far = float(noise @ grain), float(noise @ soup)
    value = f"likeness of two requests for the same {near:.2f}, of others {far:.2f}; loaded in {taken:.1f} s"
    return Finding(GOOD if near > far + 0.1 else BAD, "test of the encoder", value)


def _try_network(model: str | None, device: str, seconds: float, with_text: bool) -> Iterator[Finding]:
    photograph = _photograph()
    if photograph is None:
        yield Finding(POOR, "test of restoring", "left out: no photograph is here", "pip install scikit-image")
        return
    if model is None and shipped_models():
        model = shipped_models()[-1] if "tiny" not in shipped_models() else "tiny"
    try:
        restorer = Restorer.from_pretrained(model, device) if model else _untrained(device)
    except UserError as error:
        yield Finding(BAD, "test of restoring", str(error))
        return
    noise = np.random.default_rng(0).normal(0, _SIGMA, photograph.shape)
    noisy = (photograph + noise).round().clip(0, 255).astype(np.uint8)
    prompt = "remove the noise" if with_text and restorer.takes_prompts else None
    restorer.restore(noisy[:64, :64], prompt)  # what is loaded once
    times = []
    while not times or sum(times) + times[-1] < seconds:
        start = time.perf_counter()
        restored = restorer.restore(noisy, prompt)
        times.append(time.perf_counter() - start)
    per_megapixel = min(times) / (photograph.shape[0] * photograph.shape[1] / 1e6)
    speed = f"{per_megapixel:.2g} s a megapixel on {restorer.device}"
    if model is None:
        yield Finding(GOOD, "test of restoring", f"an untrained network of the size tiny runs, {speed}")
        return
    before, after = _psnr(noisy, photograph), _psnr(restored, photograph) if restorer.upscale == 1 else None
    if after is None:
        yield Finding(GOOD, "test of restoring", f"{model} runs, {speed}")
        return
    value = f"{model} brings a noisy photograph from {before:.1f} to {after:.1f} dB; {speed}"
    yield Finding(GOOD if after > before + 1 else POOR, "test of restoring", value)


def _photograph() -> np.ndarray | None:
    """(256, 256, 3) uint8, of those that scikit-image ships; BasicSR brings that along."""
    try:
        from skimage import data

        return np.ascontiguousarray(data.astronaut()[:256, 100:356])
    except Exception:  # not installed, or a version that fetches its data from a network
        return None


def _untrained(device: str) -> Restorer:
    from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba

    torch.manual_seed(0)
    return Restorer(PromptMamba.from_size("tiny"), name="untrained", device=device)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(np.float64) - b).mean()))
