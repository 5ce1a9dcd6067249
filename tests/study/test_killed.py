"""`prompt-mamba study` as a process: killed while people answer, and started again."""

from __future__ import annotations

import contextlib
import http.cookiejar
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from prompt_mamba_arch.study import Design, Materials, Store
from prompt_mamba_arch.study.server import create
from prompt_mamba_arch.web import serving

pytest.importorskip("uvicorn", reason="the study needs Starlette and uvicorn: pip install 'prompt-mamba-arch[study]'")


@contextlib.contextmanager
def _server(results, folder):
    command = [sys.executable, "-m", "prompt_mamba_cli", "study", "serve", "-i", results, "-o", folder, "--port", "0",
               "--comparisons", "12", "--checks", "2", "--ratings", "9"]  # fmt: skip
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+/", process.stdout.readline())[0]
        yield process, address
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class _Person:
    """Answers until there is nothing left, or nobody there to answer to."""

    def __init__(self):
        jar = http.cookiejar.CookieJar()
        self._open = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar)).open
        self.acknowledged = []
        self.finished = False

    def _ask(self, address, **fields):
        data = urllib.parse.urlencode(fields).encode() if fields else None
        with self._open(address, data, timeout=20) as answer:
            return answer.read().decode()

    def begin(self, base):
        self._ask(f"{base}begin", agree="yes")

    def answer(self, base):
        with contextlib.suppress(OSError, urllib.error.URLError, http.client.HTTPException):
            while True:
                page = self._ask(f"{base}question")
                if "Thank you" in page:
                    self.finished = True
                    return
                position = int(re.search(r'name="position" value="(\d+)"', page)[1])
                answer = "3" if 'class="scale"' in page else "left"
                self._ask(f"{base}answer", position=position, answer=answer)  # its reply is the next question
                self.acknowledged.append(position)


def test_kill_9_loses_no_answer(results, tmp_path):
    people = [_Person() for _ in range(4)]
    with _server(results, tmp_path / "study") as (process, base):
        for person in people:
            person.begin(base)
        threads = [threading.Thread(target=person.answer, args=(base,)) for person in people]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 120
        while sum(len(person.acknowledged) for person in people) < 20:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    assert not any(person.finished for person in people)
    store = Store(tmp_path / "study" / "study.sqlite")
    stored = {(one.participant, one.position) for one in store.answers()}
    told = {(who, position) for who, person in enumerate(people, 1) for position in person.acknowledged}
    assert len(told) >= 20 and told <= stored
    # the rest is answered after a new start (in this process, which is quicker), by the same participants
    materials, design = Materials(results), Design(comparisons=12)
    store.use(materials, design)
    with serving(create(store, materials, design, cache=tmp_path / "study" / "pictures")) as base:
        for person in people:
            person.answer(base)
    assert all(person.finished for person in people)
    assert store.counts() == (4, 4) and {(o.participant, o.position) for o in store.answers()} >= stored
    store.close()
