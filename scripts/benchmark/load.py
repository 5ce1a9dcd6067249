"""Many people at once, on this machine alone: does the study lose an answer, does a page fail, does memory grow?

    python scripts/benchmark/load.py study --users 50 --seconds 300
    python scripts/benchmark/load.py app --users 50 --seconds 300

It starts the command itself, on 127.0.0.1, on photographs that scikit-image ships. `study`: people answer all their
questions, pictures and all, and begin anew as others; every answer that was acknowledged must be in the database.
`app`: people send a photo, restore it, and download the result, again
and again; nobody may see another one's picture. More than the queue holds are told so, and come again.
"""

from __future__ import annotations

import argparse
import http.cookiejar
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

_SAMPLES = 20  # of memory


class Load:
    """What the people count together."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds
        self.counts: Counter = Counter()
        self.times: list[float] = []
        self.faults: list[str] = []
        self.acknowledged: list[tuple[str, int, str]] = []  # who, position, answer
        self._lock = threading.Lock()

    def over(self) -> bool:
        return time.monotonic() > self.end

    def note(self, what: str, seconds: float | None = None) -> None:
        with self._lock:
            self.counts[what] += 1
            if seconds is not None:
                self.times.append(seconds)

    def fault(self, error: object) -> None:
        with self._lock:
            self.faults.append(f"{type(error).__name__}: {error}"[:200])


def main() -> int:
    parser = argparse.ArgumentParser(description="Play many people at once, on this machine alone.")
    parser.add_argument("what", choices=("study", "app"))
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prompt_mamba_load_") as folder:
        return {"study": _study, "app": _app}[args.what](Path(folder), args.users, args.seconds)


def _start(*arguments: object) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "prompt_mamba_cli", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    if found is None:
        process.kill()
        sys.exit(f"it did not start: {line}")
    return process, found[0]


def _play(load: Load, users: int, person, process: subprocess.Popen) -> list[float]:
    """Runs `person(number)` in a thread for each; returns the server's memory in MB over time."""
    threads = [threading.Thread(target=person, args=(number,), daemon=True) for number in range(users)]
    for thread in threads:
        thread.start()
    memory, seconds = [], load.end - time.monotonic()
    while not load.over():
        time.sleep(seconds / _SAMPLES)
        memory.append(_memory(process.pid))
    for thread in threads:
        thread.join(timeout=120)
    return memory


def _memory(process: int) -> float:
    """Resident MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _tell(load: Load, memory: list[float]) -> None:
    times = sorted(load.times)
    if times:
        half, most = times[len(times) // 2], times[int(len(times) * 0.95)]
        print(f"waited: {half:.2f} s (median), {most:.2f} s (95 % less), {times[-1]:.2f} s (longest)")
    print(f"memory in MB: {' '.join(f'{value:.0f}' for value in memory)}")
    quarter = max(len(memory) // 4, 1)
    second, last = np.mean(memory[quarter : 2 * quarter]), np.mean(memory[-quarter:])
    print(f"second quarter {second:.0f} MB, last quarter {last:.0f} MB: {last - second:+.0f} MB")
    for fault, often in Counter(load.faults).most_common(5):
        print(f"{often} x {fault}")


# ---- the study


def _study(folder: Path, users: int, seconds: float) -> int:
    _results(folder / "results")
    process, base = _start("study", "serve", "-i", folder / "results", "-o", folder / "study", "--participants", 9999,
                           "--comparisons", 20, "--ratings", 5)  # fmt: skip
    load = Load(seconds)
    try:
        memory = _play(load, users, lambda number: _participants(load, base), process)
    finally:
        process.kill()  # -9: it has no time to write anything more
        process.wait()
    from prompt_mamba_arch.study import Store

    store = Store(folder / "study" / "study.sqlite")
    kept = {(one.participant, one.position): one.answer for one in store.answers()}
    lost = 0
    for token, position, answer in load.acknowledged:
        lost += kept.get((store.participant(token), position)) != answer
    begun, finished = store.counts()
    store.close()
    print(f"study: {users} people at a time for {seconds:.0f} s, {begun} participants, {finished} answered everything")
    print(f"{len(load.acknowledged)} answers acknowledged, {lost} of them lost; {load.counts['picture']} pictures; "
          f"{len(load.faults)} requests failed")  # fmt: skip
    _tell(load, memory)
    return 1 if lost or load.faults else 0


def _results(folder: Path) -> None:
    from skimage import data

    rng = np.random.default_rng(0)
    lines = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = getattr(data, name)()[:300, :420, :3]
        for method, sigma in (("one", 5), ("two", 10), ("three", 20), ("inputs", 40)):
            (folder / method).mkdir(parents=True, exist_ok=True)
            noisy = (photo + rng.normal(0, sigma, photo.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / method / f"{name}.png")
        lines.append(f'{{"key": "{name}", "prompts": ["take the grain out"]}}')
    (folder / "prompts.jsonl").write_text("\n".join(lines))


def _participants(load: Load, base: str) -> None:
    """One after another, as long as it lasts."""
    while not load.over():
        jar = http.cookiejar.CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

        def ask(path: str, opener=opener, **fields) -> bytes:
            start = time.monotonic()
            data = urllib.parse.urlencode(fields).encode() if fields else None
            with opener.open(base + path, data, timeout=120) as answer:
                found = answer.read()
            load.note("request", time.monotonic() - start)
            return found

        try:
            page = ask("begin", agree="yes").decode()
            token = next(cookie.value for cookie in jar)
            while "Thank you" not in page and not load.over():
                for picture in re.findall(r'src="/(picture/[^"]+)"', page):
                    if not ask(picture).startswith(b"\x89PNG"):
                        raise ValueError("no picture")
                    load.note("picture")
                position = re.search(r'name="position" value="(\d+)"', page)[1]
                answer = "4" if 'class="scale"' in page else ("left", "right")[int(position) % 2]
                page = ask("answer", position=position, answer=answer).decode()
                load.acknowledged.append((token, int(position), answer))
        except Exception as error:
            load.fault(error)


# ---- the page


def _app(folder: Path, users: int, seconds: float) -> int:
    from skimage import data

    photo = data.astronaut()[:128, 130:258]
    for number in range(users):  # each has their own, told apart by the colour of a corner
        mine = photo.copy()
        mine[:32, :32] = (5 * number % 256, 255 - 5 * number % 256, 40)
        Image.fromarray(mine).save(folder / f"{number}.png")
    process, base = _start("app", "--people", 2 * users)
    load = Load(seconds)
    left = Path(tempfile.gettempdir())
    try:
        memory = _play(load, users, lambda number: _visitor(load, base, folder / f"{number}.png", number), process)
        time.sleep(10)  # who has left is noticed
        with urllib.request.urlopen(f"{base}healthz", timeout=60) as answer:
            people = answer.read().decode()
        files = [p for p in left.glob(f"prompt_mamba_app_{process.pid}_*/**/*") if p.is_file() and p.stat().st_size]
        process.terminate()
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
    after = list(left.glob(f"prompt_mamba_app_{process.pid}_*"))
    for path in after:
        shutil.rmtree(path, ignore_errors=True)
    print(f"app: {users} people at a time for {seconds:.0f} s: {load.counts['visit']} visits, "
          f"{load.counts['restored']} photos restored and downloaded, {load.counts['wrong']} of them somebody else's, "
          f"{load.counts['turned away']} times turned away by the queue, {len(load.faults)} failures")  # fmt: skip
    print(f"after they left: {people}, {len(files)} files; after the end: {len(after)} folders")
    _tell(load, memory)
    return 1 if load.faults or load.counts["wrong"] or after else 0


def _visitor(load: Load, base: str, path: Path, number: int) -> None:
    """Sends a photo, restores and downloads it, leaves, and comes again."""
    while not load.over():
        try:
            _visit(load, base, path, number)
            load.note("visit")
        except Exception as error:
            if not load.over():
                load.fault(error)
        time.sleep(0.2)


def _visit(load: Load, base: str, path: Path, number: int) -> None:
    with _Tab(base) as tab:
        sent = tab.send(path)
        said = tab.call(tab.open_photo, sent)
        if "Ready" not in said:
            raise ValueError(said[:150])
        for _ in range(2):
            start = time.monotonic()
            said = tab.call(tab.run, "take the grain out", ["noise"], [], None, 1, "")
            link = re.search(r"downloads/[\w-]+\.png", said)
            if link is None and "waiting already" in said:
                load.note("turned away")
                time.sleep(1)
                continue
            if link is None:
                raise ValueError(re.sub(r"<[^>]*>", "", said)[:150])
            with urllib.request.urlopen(base + link[0], timeout=120) as answer:
                image = np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(int)
            load.note("restored", time.monotonic() - start)
            expected = np.array((5 * number % 256, 255 - 5 * number % 256, 40))
            if np.abs(image[8:24, 8:24].mean((0, 1)) - expected).max() > 25:
                load.note("wrong")
            if load.over():
                break


class _Tab:
    """A browser's tab as the server sees it: Gradio's own requests, as its functions are closed to other programs."""

    def __init__(self, base: str):
        self._base = f"{base}gradio_api/"
        self._name = uuid.uuid4().hex
        config = json.loads(self._get("config", base))
        found = {(len(one["inputs"]), len(one["outputs"])): one["id"] for one in config["dependencies"]}
        self.open_photo, self.run = found[1, 8], found[6, 7]

    def __enter__(self) -> _Tab:
        # open as long as the tab is
        self._beat = urllib.request.urlopen(f"{self._base}heartbeat/{self._name}", timeout=300)
        return self

    def __exit__(self, *error: object) -> None:
        self._beat.close()

    def _get(self, path: str, base: str | None = None, data: bytes | None = None, kind: str = "application/json"):
        request = urllib.request.Request((base or self._base) + path, data, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.read()

    def send(self, path: Path) -> dict:
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
        data = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        (there,) = json.loads(self._get("upload", None, data, f"multipart/form-data; boundary={edge}"))
        return {"path": there, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def call(self, function: int, *values: object) -> str:
        """What the function gave back, as text."""
        join = {"data": values, "fn_index": function, "session_hash": self._name, "trigger_id": None}
        try:
            self._get("queue/join", None, json.dumps(join).encode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        with urllib.request.urlopen(f"{self._base}queue/data?session_hash={self._name}", timeout=300) as stream:
            for line in stream:
                if line.startswith(b"data:"):
                    news = json.loads(line[5:])
                    if news["msg"] == "process_completed":
                        return str(news["output"].get("data") or news["output"])
        raise ValueError("the stream ended early")


if __name__ == "__main__":
    sys.exit(main())
