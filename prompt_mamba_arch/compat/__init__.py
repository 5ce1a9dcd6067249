"""The only place that knows BasicSR's faults; nothing else in this package monkey-patches.

BasicSR 1.4.2 (August 2022) is a fine host with a few faults of its own and a few that age brought. `apply()` mends them
in memory, once per process, for BasicSR's own models and datasets as well as for ours; no file of BasicSR is touched.
Each mend is one small function whose docstring says the symptom:

    imports.py    what BasicSR imports no longer exists; two packages register one name
    options.py    the option file: safe and exact reading, mistakes found before a folder is made or renamed
    processes.py  processes and devices: gloo, SLURM, DDP on a CPU, a clean end, one log file per run
    resume.py     --auto_resume, resume_state and pretrained networks
    training.py   optimizers, learning rates, epochs, metrics
    order.py      the order of the training data, and each sample's random draws
    data.py       prefetching, LMDB, JPEG quality, broken images
"""

from __future__ import annotations

from prompt_mamba_arch.compat import imports

_applied = False


def apply() -> None:
    """Mends BasicSR in this process; a second call does nothing.

    Raises:
        ImportError: `basicsr` is not installed, or it is another project's package of the same name.
    """
    global _applied
    if _applied:
        return
    for mend in imports.BEFORE_BASICSR:
        mend()
    imports.require_basicsr()

    # these import basicsr, which is possible only now
    from prompt_mamba_arch.compat import data, options, order, processes, resume, training

    for module in (imports, options, processes, resume, training, data, order):
        for mend in module.MENDS:
            mend()
    _applied = True
