from __future__ import annotations

import sys

from prompt_mamba_cli import main

if __name__ == "__main__":
    sys.exit(main())
