#!/usr/bin/env bash
# From nothing to a restored photograph: installs into a virtual environment and restores one photograph with the
# starter model, as two sentences and no sentence ask. Under a minute after the installation.
# Everything it writes is under quickstart/. scripts/quickstart_train.sh trains a small network of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
out=quickstart/photo
bash scripts/install.sh
python=$venv/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$("$python" -c "import os; print(min(4, os.cpu_count() or 1))")}

say() { printf '\n== %s\n' "$*"; }
rm -rf "$out"
say "a dark photograph with grain"
"$venv/bin/prompt-mamba" prepare demo --out "$out" --photo-only
for wish in "take the grain out" "brighten it up"; do
    say "prompt-mamba restore -p \"$wish\""
    "$venv/bin/prompt-mamba" restore -i "$out/photo.png" -o "$out/${wish// /_}.png" -p "$wish"
done
say "against what was asked for"
"$python" scripts/quickstart_report.py "$out" tiny
