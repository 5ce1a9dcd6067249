"""What is written: the figures are there, the page needs nothing else, programs can read the rest."""

from __future__ import annotations

import base64
import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from prompt_mamba_arch import cli
from prompt_mamba_arch.compare import tables, write_comparison
from prompt_mamba_arch.compare.plots import Point, scatter
from prompt_mamba_arch.compare.report import crop_of_interest
from prompt_mamba_arch.restore import Restorer

ROOT_METHODS = {"A & B_c": {"opencv": "median"}, "wide|er": {"opencv": "bilateral"}}


@pytest.fixture
def found(run, checkpoint):
    methods = {"net": {"model": str(checkpoint), "prompt": "<oracle>"}, **ROOT_METHODS}
    tasks = {"noise25": {"set": "noise25"}, "jpeg10": {"set": "jpeg10"}}
    return run(methods=methods, tasks=tasks, cost={"size": 32, "rounds": 1}, report={"examples": 2, "pixels": 40})


class Page(HTMLParser):
    VOID = ("meta", "img", "line", "circle")

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_files(found, tmp_path):
    written = write_comparison(found, "prompt-mamba compare -opt plan.yml")
    assert sorted(path.name for path in written) == [
        *("images", "report.html", "scores.csv", "summary.csv", "table.md", "table.tex")
    ]
    texts = {path.name: path.read_text(encoding="utf-8") for path in written if path.is_file()}

    page = Page(texts["report.html"])
    assert not page.open
    images = [attributes["src"] for tag, attributes in page.found if tag == "img"]
    assert len(images) == (2 + 1) * 5  # two and one images; input, three methods, target
    for source in images:
        kind, data = source.split(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert kind == "data:image/png;base64" and image.size == (40, 40)
    assert not re.search(r"(src|href)=.(?!data:)|url\(|@import|<link|fetch\(", texts["report.html"])
    assert sum(tag == "svg" for tag, _ in page.found) == 2 and "&lt;oracle&gt;" in texts["report.html"]
    assert "<oracle>" not in texts["report.html"] and str(tmp_path) not in texts["report.html"]

    rows = list(csv.DictReader(io.StringIO(texts["scores.csv"])))
    assert len(rows) == (3 + 1) * 4
    for row in rows:
        (one,) = (r for r in found.rows[row["task"]] if r.method == row["method"])
        assert float(row["value"]) == one.scores[row["metric"]][row["image"]] and row["told"] == one.asked
    summary = list(csv.DictReader(io.StringIO(texts["summary.csv"])))
    assert summary[0]["method"] == "input" and len(summary) == 8
    means = [float(row["mean"]) for row in summary[1:4]]
    assert means == sorted(means, reverse=True)
    assert {row["difference"] == "" for row in summary if row["method"] == "net"} == {True}

    lines = texts["table.md"].splitlines()
    assert "| input |" in texts["table.md"] and any(line.startswith("| wide\\|er |") for line in lines)
    assert len({line.replace("\\|", "").count("|") for line in lines if line.startswith("| ") and "told" in line}) == 1
    best = max(row.mean("psnr") for row in found.rows["noise25"][1:])
    assert f"**{best:.2f}**" in texts["table.md"]
    assert r"A \& B\_c" in texts["table.tex"] and texts["table.tex"].count(r"\begin{") == texts["table.tex"].count(
        r"\end{"
    )


def test_costs(found):
    costs = found.costs
    assert costs["net"].parameters == sum(p.numel() for p in _net(found).parameters()) and costs["net"].macs > 0
    assert costs["A & B_c"].parameters is None and costs["A & B_c"].seconds > 0
    table = tables.cost_table(found)
    assert [row[0].text for row in table.rows] == list(costs) and table.header[-1] == "time for 32 x 32"


def _net(found):
    return Restorer.from_pretrained(found.plan.methods["net"]["model"]).net


def test_the_command(plan, tmp_path, capsys):
    plan(methods=ROOT_METHODS)
    assert cli.main(["compare", "-opt", str(plan.path), "--force_yml", "limit=1", "name=short"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# short") and "(1 images" in out and "report.html" in out
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_crop_is_where_results_differ():
    one = np.zeros((50, 60, 3), np.uint8)
    other = one.copy()
    other[30:36, 44:50] = 200
    rows, columns = crop_of_interest({"input": one, "a": one, "b": other, "target": one}, 10)
    assert rows.start <= 30 and rows.stop >= 36 and columns.start <= 44 and columns.stop >= 50
    assert rows.stop - rows.start == columns.stop - columns.start == 10
    assert crop_of_interest({"input": one, "a": one, "target": one}, 99) == (slice(0, 50), slice(0, 50))


def test_plots_place_points():
    points = [Point("a", 1.0, 20.0, "#111"), Point("b", 100.0, 30.0, "#222"), Point("c", 100.0, 30.0, "#333")]
    text = scatter(points, "ms", "psnr", level=19.0)
    circles = [tuple(map(float, found)) for found in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert circles[0][0] < circles[1][0] and circles[0][1] > circles[1][1] and circles[1] == circles[2]
    labels = {name: float(y) for y, name in re.findall(r'y="([\d.]+)">([abc])<', text)}
    assert abs(labels["b"] - labels["c"]) >= 12
    assert scatter(points[:1], "ms", "psnr").count("<circle") == 1
