"""Demo: photographs that scikit-image ships, with noise and scratches; nothing is downloaded.

    python scripts/data_preparation/demo.py --out DIR [--lmdb] [--photo-only]

The same as `prompt-mamba prepare demo`; --about tells what it writes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "demo", *sys.argv[1:]]))
