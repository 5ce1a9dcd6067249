"""Language models as writers: a server that misbehaves in every way, a run that is killed, a local model of rubbish."""

from __future__ import annotations

import email.utils
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prompt_mamba_arch import cli
from prompt_mamba_arch.data.prompt_file import read_prompt_file
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.prompts.llm import Endpoint, LocalModel, ModelWriter, endpoint_key, messages, parse_answer
from prompt_mamba_arch.prompts.mentions import fault
from prompt_mamba_arch.prompts.writers import Brief, Said, write_prompts

ROOT = Path(__file__).resolve().parents[2]
BRIEFS = [Brief(f"{n:04}", ("noise",), ("noise", "jpeg")) for n in range(8)]
KEY = "key-of-nobody-0123456789"


class Server:
    """Chat completions on loopback. `script` says how the next requests are met; after it, all are met well.

    An item is a number (status), ("after", status, Retry-After), a name of a method, or ("says", content).
    """

    def __init__(self):
        self.script: list = []
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.times: list[float] = []
        self.numbers = itertools.count()
        self.pause = 0.0
        self.closing = threading.Event()
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.times.append(time.monotonic())
                    outer.requests.append({"path": self.path, **body})
                    outer.headers.append(dict(self.headers))
                    what = outer.script.pop(0) if outer.script else "well"
                try:
                    outer.meet(self, body, what)
                except (BrokenPipeError, ConnectionResetError):  # the other side did not wait
                    self.close_connection = True

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def meet(self, handler, body, what):
        if isinstance(what, int):
            self.send(handler, what, f'{{"error": "key {KEY} is no good\nsecond line"}}')
        elif isinstance(what, str):
            getattr(self, what)(handler, body)
        elif what[0] == "after":
            self.send(handler, what[1], "", {"Retry-After": what[2]})
        else:
            self.says(handler, what[1])

    @staticmethod
    def send(handler, status, text, headers=()):
        data = text.encode()
        handler.send_response(status)
        for name, value in dict(headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def says(self, handler, content):
        self.send(handler, 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}))

    def well(self, handler, body):
        self.closing.wait(self.pause)
        wanted = int(re.search(r"Write (\d+)", body["messages"][-1]["content"])[1])
        self.says(handler, json.dumps([f"take the grain out, take {next(self.numbers)}" for _ in range(wanted)]))

    def no_json(self, handler, body):
        self.send(handler, 200, '{"choices": [')

    def no_chat(self, handler, body):
        self.send(handler, 200, '{"object": "list"}')

    def page(self, handler, body):
        self.send(handler, 200, "<html>502 Bad Gateway</html>")

    def null(self, handler, body):
        self.says(handler, None)

    def hangs(self, handler, body):
        self.closing.wait(5)
        handler.close_connection = True

    def drips(self, handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not self.closing.wait(0.05):
            handler.wfile.write(b" ")

    def cut(self, handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [{"mess')
        handler.wfile.flush()
        handler.connection.shutdown(2)
        handler.close_connection = True

    def floods(self, handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 65536)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def endpoint(server):
    def endpoint(**options):
        return Endpoint(server.url, "m", **{"wait": 0.01, "timeout": 5.0, **options})

    return endpoint


def ask(endpoint):
    return endpoint([{"role": "user", "content": "Write 2 texts"}], random.Random(0))


# ---- the server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [429, 500, 503, 408, "no_json", "no_chat", "page", "cut", "hangs", "drips"])
def test_trouble_that_passes(server, endpoint, trouble):
    server.script = [trouble, trouble]
    start = time.monotonic()
    assert len(json.loads(ask(endpoint(timeout=1.0 if trouble in ("hangs", "drips") else 5.0)))) == 2
    assert len(server.requests) == 3 and time.monotonic() - start < 20


@pytest.mark.parametrize("trouble", [429, 500, "page", "cut", "drips"])
def test_trouble_that_stays_is_given_up(server, endpoint, trouble):
    server.script = [trouble] * 9
    with pytest.raises(UserError, match=r"\(3 tries\)") as raised:
        ask(endpoint(tries=3, timeout=1.0, key=KEY))
    assert len(server.requests) == 3 and KEY not in str(raised.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_would_fail_again_is_not_tried_again(server, endpoint, status):
    server.script = [status]
    with pytest.raises(UserError, match=str(status)) as raised:
        ask(endpoint(key=KEY))
    assert len(server.requests) == 1 and KEY not in str(raised.value) and "\n" not in str(raised.value)


def test_no_server():
    with pytest.raises(UserError, match="cannot be reached"):
        ask(Endpoint("http://127.0.0.1:9/v1", "m", tries=2, wait=0.01))


def test_a_flood_is_left(server, endpoint):
    server.script = ["floods"]
    with pytest.raises(UserError, match="256 kB"):
        ask(endpoint(timeout=30.0))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server, endpoint, form):
    date = email.utils.formatdate(time.time() + 4, usegmt=True)  # whole seconds, and the first request takes its time
    server.script = [("after", 429, "1" if form == "seconds" else date)]
    ask(endpoint())
    assert server.times[1] - server.times[0] >= 0.8


def test_a_wait_of_hours_is_refused(server, endpoint):
    server.script = [("after", 429, "7200")]
    with pytest.raises(UserError, match="7200 seconds"):
        ask(endpoint())
    server.script = [("after", 429, "when the moon is full")]
    ask(endpoint())


def test_waits_grow(server, endpoint):
    server.script = [500] * 4
    ask(endpoint(wait=0.08))
    waits = [after - before for before, after in zip(server.times, server.times[1:])]
    assert waits[0] >= 0.04 and waits[2] >= 0.16 and waits[3] >= 0.32


def test_what_is_sent(server, endpoint, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    ask(endpoint(key=KEY, temperature=0.7))
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.requests[0]["path"] == "/v1/chat/completions"
    assert server.requests[0]["model"] == "m" and server.requests[0]["temperature"] == 0.7
    ask(Endpoint(server.url + "/chat/completions/", "m"))
    assert "Authorization" not in server.headers[1] and server.requests[1]["path"] == "/v1/chat/completions"
    assert "temperature" not in server.requests[1]


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("PROMPT_MAMBA_LLM_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert endpoint_key() is None
    monkeypatch.setenv("OPENAI_API_KEY", "one")
    assert endpoint_key() == "one"
    monkeypatch.setenv("PROMPT_MAMBA_LLM_KEY", " two\n")
    assert endpoint_key() == "two"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://[::1/v1"])
def test_no_url(url):
    with pytest.raises(UserError, match="http://localhost:8000/v1"):
        Endpoint(url, "m")


def test_a_password_in_the_url_is_not_told():
    with pytest.raises(UserError) as raised:
        ask(Endpoint(f"http://user:{KEY}@127.0.0.1:9/v1?k={KEY}", "m", tries=1))
    assert KEY not in str(raised.value)


# ---- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        '["a b", "c"]',
        '\n ["a  b", "c"]\n',
        '```json\n["a b", "c"]\n```',
        'Here they are:\n```\n["a b", "c"]\n```\nAnything else?',
        '<think>["no", "not this"]</think>["a b", "c"]',
    ],
)
def test_answers_that_are_read(answer):
    assert parse_answer(answer) == ["a b", "c"]


@pytest.mark.parametrize(
    "answer", ["", "a", "[", '["a", 1]', '{"a": "b"}', "[]", '["a", " "]', "1. a\n2. b", "[" * 100000, '["a"] ["b"]']
)
def test_answers_that_are_not(answer):
    with pytest.raises(ValueError, match="JSON list"):
        parse_answer(answer)


def test_what_will_not_do_is_asked_for_again(server, endpoint):
    server.script = [
        "null",
        ("says", "Sure! 1. remove the noise"),
        ("says", '["remove the grain", "remove the grain and the rain", "Remove the GRAIN!", "make it nice"]'),
    ]
    said = Said(["less noise"])
    found = ModelWriter(endpoint(), asks=4).write(BRIEFS[0], 3, said, random.Random(0))
    assert found.texts[0] == "remove the grain" and found.from_bank == 0 and len(set(found.texts)) == 3
    last = server.requests[-1]["messages"]
    assert "speaks of rain" in last[-1]["content"] and "given already" in last[-1]["content"]
    assert "Write 2 others" in last[-1]["content"] and len(last) == 4


def test_the_bank_fills_what_a_model_cannot(server, endpoint, tmp_path):
    server.script = [("says", '["remove the noise", "remove the haze", "2"]')] * 6
    lines = []
    written = write_prompts(tmp_path / "p.jsonl", BRIEFS[:2], ModelWriter(endpoint()), count=3, tell=lines.append)
    assert written.from_bank == 5 and len(server.requests) == 6
    assert len(lines) == 2 and "image '0001': 3 of 3 prompts are the bank's" in lines[1]
    entries = read_prompt_file(tmp_path / "p.jsonl")
    assert entries["0000"].prompts[0] == "remove the noise" and "remove the haze" not in entries["0000"].prompts


def test_what_a_model_is_told():
    system, user = messages(Brief("a", ("noise", "rain"), None, None, None, {"rain": 0.9}), 4, random.Random(0))
    assert system["role"] == "system" and "JSON list" in system["content"]
    assert "Write 4 short texts" in user["content"] and "noise or grain; rain" in user["content"]
    assert "rain: heavy" in user["content"] and "blur" not in user["content"]
    assert "exactly as it is" in messages(Brief("a", ()), 1, random.Random(0))[1]["content"]


# ---- files ---------------------------------------------------------------------------------------------------------


def check_file(path, briefs=BRIEFS, count=4):
    entries = read_prompt_file(path)
    assert list(entries) == [brief.key for brief in briefs]
    texts = [text for entry in entries.values() for text in entry.prompts]
    assert len({text.lower() for text in texts}) == len(texts) == count * len(briefs)
    assert not any(fault(text, ["noise"]) for text in texts)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_server_in_every_mood(server, endpoint, tmp_path, jobs):
    server.script = [
        *(429, "well", 500, "no_json", "well", "cut", ("says", "no list"), "page", "well"),
        *("drips", "well", 503, ("says", '["remove the blur"]'), ("after", 429, "0.1"), "no_chat"),
    ]
    steps = []
    write_prompts(
        tmp_path / "p.jsonl", BRIEFS, ModelWriter(endpoint(timeout=1.0), asks=9), jobs=jobs,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    check_file(tmp_path / "p.jsonl")
    assert steps == [(n, 8) for n in range(9)] and not server.script


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_server_that_dies_half_way(server, endpoint, tmp_path, jobs):
    path, part = tmp_path / "p.jsonl", tmp_path / "p.jsonl.part"
    server.script = ["well"] * 4 + [500] * 40
    with pytest.raises(UserError, match=r"answers 500 \(3 tries\); 4 of 8 images are done and kept in "):
        write_prompts(path, BRIEFS, ModelWriter(endpoint(tries=3)), jobs=jobs)
    kept = part.read_bytes().splitlines()[1:]
    assert len(kept) == 4 and not path.exists()
    server.script = []
    asked = len(server.requests)
    written = write_prompts(path, BRIEFS, ModelWriter(endpoint()), jobs=jobs)
    assert written.resumed == 4 and len(server.requests) - asked == 4
    assert set(kept) <= set(path.read_bytes().splitlines()) and not part.exists()
    check_file(path)


def test_the_process_is_killed(server, tmp_path, paired_folders, capfd, monkeypatch):
    """SIGKILL in the middle; the second run asks only for the rest, and keeps every line."""
    names = [f"{path.stem}_{n}" for path in sorted(paired_folders.lq.glob("*.png")) for n in range(3)]
    for name in names:
        (paired_folders.lq / f"{name}.png").write_bytes((paired_folders.lq / "coffee.png").read_bytes())
    path, part = tmp_path / "p.jsonl", tmp_path / "p.jsonl.part"
    command = ["prompts", "-i", str(paired_folders.lq), "-o", str(path), "--remove", "noise", "--count", "2"]
    command += ["--writer", "llm", "--url", server.url, "--model", "m"]
    server.pause = 0.15
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prompt_mamba_cli", *command],
            cwd=ROOT, env={**os.environ, "PROMPT_MAMBA_LLM_KEY": KEY}, stdout=log, stderr=log,
        )  # fmt: skip
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up and process.poll() is None:
            if part.exists() and len(part.read_bytes().splitlines()) >= 6:
                break
            time.sleep(0.02)
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait()
    assert KEY not in (tmp_path / "log").read_text() and server.headers[0]["Authorization"] == f"Bearer {KEY}"
    kept = [line for line in part.read_bytes().splitlines(keepends=True)[1:] if line.endswith(b"\n")]
    assert 5 <= len(kept) < 16 and not path.exists(), (tmp_path / "log").read_text()
    with open(part, "ab") as file:  # the kernel may have cut the last line anywhere
        file.write(b'{"key": "rocket", "pro')
    server.pause = 0.0
    asked = len(server.requests)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert cli.main(command) == 0
    out, err = capfd.readouterr()
    assert "2 prompts for each of 16 images" in out and f"{len(kept)} of 16 images are done already" in err
    assert len(server.requests) - asked == 16 - len(kept) and KEY not in out + err
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 16 and set(kept) <= set(lines) and not part.exists()
    check_file(path, [Brief(key, ("noise",)) for key in read_prompt_file(path)], 2)


# ---- a local model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A folder with a language model that has learned nothing."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llm")
    words = ["<unk>", "<eos>", *'[ ] " , remove the noise rain and grain please write texts'.split()]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_positions=64, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_a_local_model_of_rubbish(tiny_model, tmp_path):
    model = LocalModel(str(tiny_model), "cpu", most_tokens=20)
    conversation = messages(BRIEFS[0], 2, random.Random(0))
    answers = [model(conversation, random.Random(seed)) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2] and answers[0].strip()  # it does write, and the seed decides
    lines = []
    written = write_prompts(tmp_path / "p.jsonl", BRIEFS[:3], ModelWriter(model), count=2, tell=lines.append)
    assert written.from_bank == 6 and len(lines) == 3 and "was not a JSON list" in lines[0]
    assert len(read_prompt_file(tmp_path / "p.jsonl")) == 3


def test_a_local_model_is_asked_in_its_own_form(tiny_model):
    model = LocalModel(str(tiny_model), "cpu", most_tokens=4)
    model._tokenizer.chat_template = "{% for m in messages %}noise {{ m['role'] }} {% endfor %}grain"
    ids, mask = model._encode([{"role": "user", "content": "remove the rain"}])
    words = model._tokenizer.convert_ids_to_tokens(ids[0])
    assert words == ["noise", "<unk>", "grain"] and mask.tolist() == [[1, 1, 1]]
