"""Installs the package `prompt_mamba_arch` (distribution `prompt-mamba-arch`).

BasicSR's own build asks for torch in an isolated environment, that is, for a second download of it. Installing torch
first and then this package with `--no-build-isolation` avoids that; `scripts/install.sh` does it in the right order.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def read_version() -> str:
    text = (HERE / "prompt_mamba_arch" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


setup(
    name="prompt-mamba-arch",
    version=read_version(),
    description="A BasicSR plugin that restores an image as a sentence asks, with a state-space (Mamba) network",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.13",  # BasicSR 1.4.2 cannot be built on Python 3.13
    packages=find_packages(include=["prompt_mamba_arch", "prompt_mamba_arch.*"]),
    include_package_data=True,
    install_requires=[
        "basicsr==1.4.2",
        "torch>=2.1",
        "torchvision>=0.16",
        "transformers>=4.40",
        "safetensors>=0.4",
        "numpy",
        "scipy",
        "opencv-python>=4.8",
        "pillow>=10",
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
        "app": ["gradio>=5"],
        "dev": ["pytest>=8", "ruff>=0.6", "scikit-image>=0.22", "lpips>=0.1.4"],
    },
    entry_points={"console_scripts": ["prompt-mamba=prompt_mamba_arch.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
