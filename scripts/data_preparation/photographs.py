"""Photographs of your own, reduced for training super-resolution.

Link, size, licence, citation: yours

It lies as a folder of clean images, with any folders inside:

    photos/0001.png      photos/holiday/0001.JPG

Prepared: train, with gt, cut to a multiple of 12 pixels, and lq_x2, lq_x3 and lq_x4, made from it by MATLAB's bicubic,
as the benchmarks of super-resolution are. What lies in folders inside is kept apart: holiday-0001.

    python scripts/data_preparation/photographs.py --source DIR --out DIR [--lmdb] [--workers N]

The same as `prompt-mamba prepare photographs`, whose --help tells the other options.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", "photographs", *sys.argv[1:]]))
