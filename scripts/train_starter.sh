#!/usr/bin/env bash
# Trains the starter model: noise alone, then all kinds of damage, then requests. Started again, it goes on where it was.
#
#   bash scripts/train_starter.sh CLEAN_IMAGES VALIDATION_IMAGES [OUTPUT]
#
# The folders are searched with their sub-folders; images for validation are at least 256 pixels a side and not among
# those for training. OUTPUT (default: the clone) receives experiments/; PYTHON is the interpreter (default: .venv's).
set -euo pipefail
train=$(realpath "$1") val=$(realpath "$2")
cd "$(dirname "$0")/.."
out=${3:-.}
python=${PYTHON:-.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$("$python" -c "import os; print(max(1, (os.cpu_count() or 2) - 1))")}

for phase in 0 1 2; do
    [ -e "$out/experiments/starter_phase$phase/models/net_g_latest.pth" ] && continue
    data=("datasets:train:dataroot_gt=$train")
    [ $phase -ge 1 ] && data+=("datasets:val:dataroot_gt=$val")
    [ $phase -ge 2 ] && data+=("datasets:val_2:dataroot_gt=$val")
    [ $phase -ge 1 ] && data+=("path:pretrain_network_g=$out/experiments/starter_phase$((phase - 1))/models/net_g_latest.pth")
    "$python" prompt_mamba_arch/train.py -opt "options/train/PromptMamba/starter_phase$phase.yml" --root "$out" \
        --auto_resume --force_yml "${data[@]}"
done
