"""Trains as an option file says, with BasicSR's loop and flags.

python prompt_mamba_arch/train.py -opt options/train/PromptMamba/NAME.yml [--auto_resume] [--force_yml KEY=VALUE ...]
python -m prompt_mamba_arch.train -opt ...
torchrun --nproc_per_node 2 -m prompt_mamba_arch.train -opt ... --launcher pytorch
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

if not __package__:  # run as a script: with this folder on the path its modules would exist under two names
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.path.dirname(here), *(entry for entry in sys.path if os.path.abspath(entry or ".") != here)]

# at the top: a spawned DataLoader worker runs this file first, and needs BasicSR mended to unpickle its datasets
from prompt_mamba_arch.launch import launch


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; see launch()."""
    from basicsr.train import train_pipeline

    return launch(train_pipeline, "Train as an option file says.", argv)


if __name__ == "__main__":
    sys.exit(main())
