#!/usr/bin/env bash
# From nothing to a restored photograph: installs into a virtual environment, degrades real photographs, trains both
# phases of a small network through BasicSR's loop, tests it, restores a photograph that it was not trained on.
# About five minutes of work on two cores after the installation. Everything it writes is under quickstart/.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
out=quickstart
bash scripts/install.sh
python=$venv/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$("$python" -c "import os; print(min(4, os.cpu_count() or 1))")}

say() { printf '\n== %s\n' "$*"; }
rm -rf "$out"/{data,experiments,results,tb_logger,restored.png}
say "photographs"
"$venv/bin/prompt-mamba" prepare demo --out "$out/data"
say "phase 1: images, no text"
"$python" prompt_mamba_arch/train.py -opt options/train/PromptMamba/quickstart_phase1.yml --root "$out"
say "phase 2: sentences"
"$python" prompt_mamba_arch/train.py -opt options/train/PromptMamba/quickstart_phase2.yml --root "$out"
say "test"
"$python" prompt_mamba_arch/test.py -opt options/test/PromptMamba/quickstart.yml --root "$out"
say "a photograph that it has not seen"
checkpoint=$out/experiments/quickstart_phase2/models/net_g_latest.pth
"$venv/bin/prompt-mamba" restore -i "$out/data/photo.png" -o "$out/restored.png" -p "take the grain out" --model "$checkpoint"
"$python" scripts/quickstart_report.py "$out/data" "$checkpoint"
