#!/usr/bin/env bash
# Builds the C++ kernels of the scan with AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the sources, and
# runs their tests. Any finding ends the run with an error.
#   bash scripts/sanitize_kernels.sh [pytest arguments]
# PYTHON  an interpreter that has the package's requirements and pytest (default: .venv's, else python3); CXX  GCC or Clang
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo "$PWD/.venv/bin/python" || echo python3)}
cxx=${CXX:-g++}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r prompt_mamba_arch tests setup.py pyproject.toml README.md "$copy"
cd "$copy"
rm -f prompt_mamba_arch/ops/_scan.*

flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
CXX=$cxx CC=$cxx CFLAGS=$flags CXXFLAGS=$flags LDFLAGS=$flags PROMPT_MAMBA_KERNELS=require \
    "$python" setup.py -q build_ext --inplace 2>&1 | { grep -E "error|warning: the C" || true; }

# the interpreter itself is not instrumented: its runtime is loaded first. Leaks are Python's own, at exit.
export LD_PRELOAD="$("$cxx" -print-file-name=libasan.so) $("$cxx" -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=$copy
"$python" -c "from prompt_mamba_arch.ops import available_backends; assert 'cpu' in available_backends()"
"$python" -m pytest -p no:cacheprovider -q tests/ops/test_scan_kernels.py tests/ops/test_scan_parity.py "$@"
