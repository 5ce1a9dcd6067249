"""`prompt-mamba app` and `prompt-mamba study`: what is refused before anything is served, and the report."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def results(tmp_path, save):
    for method in ("one", "two"):
        save(tmp_path / "results" / method / "a.png")
    return tmp_path / "results"


@pytest.mark.parametrize("command", ["app", "study"])
def test_a_port_that_is_taken_is_said_in_a_line(run, results, tmp_path, command):
    pytest.importorskip("uvicorn", reason="the study needs Starlette and uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        more = ["serve", "-i", results, "-o", tmp_path / "study"] if command == "study" else []
        _, err = run(command, *more, "--port", port, code=2)
    assert len(err) == 1 and f"port {port}: another program has it" in err[0]
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    "arguments, said",
    [(["--port", "70000"], "0 to 65535"), (["--max-seconds", "0"], "from 1 on"), (["--jobs", "x"], "from 1 on"),
     (["--model", "missing", "--port", "0"], "no network named 'missing'")],
)  # fmt: skip
def test_wrong_arguments_of_the_page(run, arguments, said):
    _, err = run("app", *arguments, code=2)
    assert len(err) == 1 and said in err[0]


def test_studies_that_cannot_be(run, results, tmp_path):
    def refused(said, *arguments):
        out, err = run("study", *arguments, code=2)
        assert out == "" and len(err) == 1 and said in err[0], err

    refused("serve|report")
    refused("no such folder", "serve", "-i", tmp_path / "missing", "-o", tmp_path / "study")
    refused("among the methods", "serve", "-i", results, "-o", results / "study")
    refused("did you mean 'one'", "serve", "-i", results, "-o", tmp_path / "study", "--methods", "one", "ones")
    refused("holds no study", "report", "-i", tmp_path / "missing")
    (tmp_path / "empty.txt").write_text(" ")
    consent = ["serve", "-i", results, "-o", tmp_path / "study", "--consent"]
    refused("must know what they agree to", *consent, tmp_path / "empty.txt")
    refused("no text file", *consent, results / "one" / "a.png")


def test_report(run, results, tmp_path, listing):
    from prompt_mamba_arch.study import Design, Materials, Store

    (tmp_path / "study").mkdir()
    store = Store(tmp_path / "study" / "study.sqlite")
    materials, design = Materials(results), Design(comparisons=1, checks=0)
    store.use(materials, design)
    _, err = run("study", "report", "-i", tmp_path / "study", code=2)
    assert "nobody has answered yet" in err[0]
    who = store.participant(store.begin(materials, design, ""))
    trial = store.trial(who, 0)
    store.answer(who, 0, "left")
    store.close()
    out, _ = run("study", "report", "-i", tmp_path / "study", "-o", tmp_path / "report", code=0)
    other = trial.right
    assert f"| {trial.left} | – | 100 % (21 % to 100 %; 1) |" in out and f"| {other} | 0 %" in out
    assert "answers.csv" in listing(tmp_path / "report")
