#!/usr/bin/env bash
# Trains the starter model: noise alone, then all kinds of damage with requests that name them. Started again, it goes on where it was.
#
#   bash scripts/train_starter.sh CLEAN_IMAGES VALIDATION_IMAGES [OUTPUT]
#
# The folders are searched with their sub-folders; images for validation are at least 256 pixels a side and not among
# those for training. OUTPUT (default: the clone) receives experiments/; PYTHON is the interpreter (default: .venv's).
# Its optimizer comes with the extra `muon` (bash scripts/install.sh muon).
set -euo pipefail
train=$(realpath "$1") val=$(realpath "$2")
cd "$(dirname "$0")/.."
out=${3:-.}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$("$python" -c "import os; print(max(1, (os.cpu_count() or 2) - 1))")}

# the later phases' optimizer, of which the first would not say that it is missing or too old
"$python" - <<'CHECK' || exit 2
import sys

from prompt_mamba_arch.compat.training import muon
from prompt_mamba_arch.errors import UserError

try:
    muon()
except UserError as error:
    sys.exit(f"train_starter: {error}, or bash scripts/install.sh muon")
CHECK

network() { echo "$out/experiments/starter_$1/models/net_g_latest.pth"; }
before=
for phase in phase1 phase2 phase2_long; do
    if [ ! -e "$(network $phase)" ]; then
        data=("datasets:train:dataroot_gt=$train")
        [ -n "$before" ] && data+=("datasets:val:dataroot_gt=$val" "datasets:val_2:dataroot_gt=$val"
            "path:pretrain_network_g=$(network $before)")
        "$python" prompt_mamba_arch/train.py -opt "options/train/PromptMamba/starter_$phase.yml" --root "$out" \
            --auto_resume --force_yml "${data[@]}"
    fi
    before=$phase
done
