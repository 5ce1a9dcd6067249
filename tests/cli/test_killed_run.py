"""A folder's restoration that is killed: what was finished is whole and stays, and the same command does the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image


@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_9_loses_no_finished_file(tmp_path, run, save, model, jobs):
    names = [f"{number}.png" for number in range(40)]
    for name in names:
        save(tmp_path / "in" / name, (120, 90))
    arguments = ["restore", "-i", tmp_path / "in", "-o", tmp_path / "out", "--model", model]
    command = [sys.executable, "-m", "prompt_mamba_cli", *map(str, arguments), "--jobs", str(jobs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def finished():
        there = os.listdir(tmp_path / "out") if (tmp_path / "out").exists() else []
        return {name for name in there if not name.startswith(".")}  # those are not finished

    try:
        deadline = time.monotonic() + 120
        while len(finished()) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        # at its end, those that worked for it have ended, too: they have the other end of the same pipe
        process.communicate(timeout=60)
    before = {}
    for name in finished():
        with Image.open(tmp_path / "out" / name) as image:
            image.load()
            assert image.size == (120, 90)
        before[name] = (tmp_path / "out" / name).stat().st_ino
    assert 3 <= len(before) < len(names)
    out, _ = run(*arguments, "--skip-existing", code=0)
    assert f"{len(before)} were there already" in out and finished() == set(names)
    assert all((tmp_path / "out" / name).stat().st_ino == inode for name, inode in before.items())
