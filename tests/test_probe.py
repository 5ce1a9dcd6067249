"""The probe: what it asks, what it measures, and that it remembers what it has measured."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import prompt_mamba_arch.text
from prompt_mamba_arch import prompts
from prompt_mamba_arch.archs.prompt_mamba_arch import PromptMamba
from prompt_mamba_arch.data import KINDS
from prompt_mamba_arch.data.degradations import kinds_of
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.metrics.targeted import psnr
from prompt_mamba_arch.probe import cases, draw_sheets, probe, summary, write_report
from prompt_mamba_arch.probe.cases import PHRASINGS, Case, cases_of, identity
from prompt_mamba_arch.probe.measure import MEASURED, measure, network_digest, targets_of
from prompt_mamba_arch.probe.report import MEASURES
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.text import intent
from prompt_mamba_cli import main


class FakeEncoder:
    """Sentences as random directions; the real encoder has tests of its own."""

    def encode(self, texts):
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") for text in texts]
        rows = [torch.randn(384, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    monkeypatch.setattr(prompt_mamba_arch.text, "TextEncoder", FakeEncoder)


@pytest.fixture
def folder(tmp_path, photos):
    """Two photographs of different sizes and one that is damaged."""
    path = tmp_path / "clean"
    path.mkdir()
    Image.fromarray(photos["coffee"][:60, :72]).save(path / "a.png")
    Image.fromarray(photos["rocket"][:40, :48]).save(path / "b.png")
    (path / "c.png").write_bytes((path / "a.png").read_bytes()[:300])
    return path


@pytest.fixture
def runs(monkeypatch):
    """Counts what networks are asked."""
    asked = []
    restore = Restorer.restore

    def counting(self, image, prompt=None, *args, **options):
        asked.append((self.name, prompt))
        return restore(self, image, prompt, *args, **options)

    monkeypatch.setattr(Restorer, "restore", counting)
    return asked


# -- what is asked


def test_what_is_asked_follows_from_key_and_seed():
    found = cases_of("0001")
    assert found == cases_of("0001") != cases_of("0002")
    assert cases_of("0001", seed=1) != found
    more = cases_of("0001", per_kind=True)
    assert more[: len(found)] == found
    assert [case.kinds for case in more[len(found) :]] == [(kind,) for kind in KINDS for _ in range(2)]
    names = [identity(case, "pixels", "weights") for case in more]
    assert len(set(names)) == len(names)
    assert identity(found[0], "pixels", "other weights") not in names


@pytest.mark.parametrize("kinds", [KINDS, ("noise", "jpeg"), ("rain",)])
def test_requests_mean_what_their_targets_are(kinds):
    for key in map(str, range(12)):
        found = cases_of(key, kinds)
        asked = {(case.request, len(case.kinds)): case for case in found}
        assert len(asked) == len(found) and all(set(case.kinds) <= set(kinds) for case in found)
        for (request, count), case in asked.items():
            assert case.kinds == kinds_of(case.recipe)
            assert all(case.prompts) or request in ("empty", "clean")
            if request in ("right", "empty"):
                assert case.remove == case.kinds and count >= 1
            elif request == "subset":
                assert set(case.remove) < set(case.kinds) and case.remove
            elif request == "paraphrased":
                same = asked["subset" if len(kinds) > 1 else "right", count]
                assert case.remove == same.remove and case.prompts[0] == same.prompts[0]
                assert len({text.casefold() for text in case.prompts}) == PHRASINGS
            elif request == "contradictory":
                assert case.remove == case.kinds and count == 1
            else:
                assert case.remove == ()
        counts = [count for request, count in asked if request == "right"]
        assert counts == [1, 2, 3][: len(kinds)]
        assert {request for request, _ in asked} >= set(MEASURES) - {"subset", "kind", "kind_empty"}


def test_wrong_requests_name_what_is_not_there(monkeypatch):
    written = []
    write = prompts.from_parameters

    def noting(recipe, remove, *args, **options):
        written.append((kinds_of(recipe), tuple(remove), options))
        return write(recipe, remove, *args, **options)

    monkeypatch.setattr(cases.prompts, "from_parameters", noting)
    seen = set()
    for key in map(str, range(60)):
        for case in cases_of(key, ("lowlight", "noise", "rain")):
            if case.request == "wrong":
                seen.add(case.kinds)
    wrong = [(told, remove) for told, remove, options in written if options.get("generic") is False]
    assert len(wrong) > 60 and seen >= {("lowlight",), ("noise",), ("rain",)}
    for told, remove in wrong:
        assert len(remove) == 1 and remove[0] in told
        # a dark picture has noise of its own
        assert told != ("noise", "lowlight") or remove == ("lowlight",)


# -- what is measured


@pytest.fixture(scope="module")
def clean(photos):
    return photos["astronaut"][:64, :64].astype(np.float32) / np.float32(255)


def test_an_oracle_has_full_marks_and_one_that_ignores_prompts_has_not(clean):
    memory = {}
    for case in cases_of("x", ("noise", "rain", "haze"), per_kind=True):
        targets = targets_of(case, clean, memory)
        lq, target = targets[frozenset()], targets[frozenset(case.remove)]

        def oracle(asked, image, prompt, case=case, lq=lq, target=target):
            assert asked is case and image is lq and prompt in case.prompts
            return target

        values = measure(case, clean, memory, oracle)
        best = {"psnr": 100, "removed_error": 100, "kept_error": 100, "kept_share": 1, "followed": 1, "no_harm": 100}
        best |= {"spread": 0, "agreement": 100, "to_target": 100, "nearer_input": 0}
        for name, value in best.items():
            assert values.get(name, value) == value, (case.request, name)
        assert {one.name for one in MEASURES[case.request]} <= set(values)
        if case.remove and case.request != "contradictory":
            before = values.get("input_psnr", values.get("input_removed_error"))
            assert before == pytest.approx(psnr(lq, target), abs=1e-3) and before < 60
        everything = measure(case, clean, memory, lambda asked, image, prompt: clean)
        if case.request == "subset":
            assert values["chance"] == 1 / 2 ** len(case.kinds) and values["margin"] > 30
            assert everything["followed"] == 0 and everything["margin"] < -30 and everything["kept_share"] == 0
        if case.request in ("wrong", "leave_alone", "unrelated"):
            assert everything["no_harm"] == pytest.approx(psnr(clean, lq), abs=1e-3)


def test_phrasings_are_compared_with_one_another(clean):
    case = Case("paraphrased", cases_of("x", ("rain",))[0].recipe, ("rain",), ("a", "b", "c"))
    outputs = {text: np.clip(clean + np.float32(step), 0, 1) for text, step in zip("abc", (0, 0.05, 0.1))}
    values = measure(case, clean, {}, lambda asked, image, prompt: outputs[prompt])
    pairs = [np.mean((x.astype(np.float64) - y) ** 2) for x, y in itertools.combinations(outputs.values(), 2)]
    assert values["agreement"] == pytest.approx(-10 * math.log10(np.mean(pairs)), abs=1e-3)
    errors = [psnr(output, clean) for output in outputs.values()]
    assert values["spread"] == pytest.approx(errors[0] - errors[2], abs=1e-3)
    assert values["psnr"] == pytest.approx(np.mean(errors), abs=1e-3)


# -- the whole


def test_a_folder_is_probed_once(folder, tmp_path, checkpoint, net, runs):
    out = tmp_path / "out"
    lines, steps = [], []
    options = {"crop": 48, "kinds": ["noise", "haze"], "tell": lines.append}
    found = probe(folder, out, [checkpoint], progress=lambda *step: steps.append(step), **options)
    assert found.keys == ["a", "b"] and list(found.failed) == ["c"]
    assert len(lines) == 1 and "'c'" in lines[0] and "damaged" in lines[0]
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert found.clean("a").shape == (48, 48, 3) and found.clean("b").shape == (40, 48, 3)
    different = {(r.key, str(r.case.recipe), text) for r in found.results for text in r.case.prompts}
    assert len(runs) == len(different)
    rows = summary(found)

    done = len(runs)
    again = probe(folder, out, [checkpoint], **options)
    assert len(runs) == done and summary(again) == rows and again.results == found.results
    text = (out / MEASURED).read_text()
    (out / MEASURED).write_text(text[:-40])  # as if it had been stopped while writing
    assert summary(probe(folder, out, [checkpoint], **options)) == rows and len(runs) == done + 1

    torch.manual_seed(1)
    other = tmp_path / "other.pth"
    other_net = PromptMamba(**net.config)
    torch.save({"params": other_net.state_dict(), "network_g": {"type": "PromptMamba", **net.config}}, other)
    del runs[:]
    both = probe(folder, out, [checkpoint, other], **options)
    assert {name for name, _ in runs} == {str(other)} and len(runs) == done
    assert [one.label for one in both.asked] == ["net_g_latest", "other"]
    assert [row.values[0] for row in summary(both)] == [row.values[0] for row in rows]

    (out / MEASURED).unlink()
    assert probe(folder, out, [other], **options).results == probe(folder, tmp_path / "new", [other], **options).results


def test_another_reader_of_sentences_is_another_network(tmp_path, monkeypatch):
    """What wishes a network is told depends on it, so nothing that was measured with the old one is taken again."""
    small = {"dim": 8, "enc_blocks": [1], "middle_blocks": 1, "dec_blocks": [1], "mixers": ["conv", "scan"]}
    told, reads = (PromptMamba(**small, wishes=wishes) for wishes in (True, False))
    before = network_digest(told), network_digest(reads)
    assert before == (network_digest(told), network_digest(reads))
    monkeypatch.setattr(intent, "_FILE", tmp_path / "intent.safetensors")
    intent._FILE.write_bytes(b"another one")
    assert network_digest(told) != before[0] and network_digest(reads) == before[1]


def test_reports_and_pictures(folder, tmp_path, checkpoint, net):
    other = tmp_path / "blind.pth"
    config = {**net.config, "text_scan": False, "text_gate": False, "text_attention": False}
    blind = PromptMamba(**config)
    torch.save({"params": blind.state_dict(), "network_g": {"type": "PromptMamba", **config}}, other)
    lines = []
    options = {"kinds": ["jpeg", "holes", "noise"], "per_kind": True, "tell": lines.append}
    found = probe(folder, tmp_path / "out", [checkpoint, other], **options)
    assert any("takes no prompts" in line and "'blind'" in line for line in lines)
    rows = summary(found)
    assert {row.request for row in rows} == set(MEASURES)
    for row in rows:
        assert row.count == 2 and len(row.values) == 2 and all(math.isfinite(value) for value in row.values)
    pick = {(row.request, row.degradations, row.measure): row for row in rows}
    raw = [r.measured[0]["psnr"] for r in found.results if r.case.request == "kind" and r.case.kinds == ("holes",)]
    assert pick["kind", "holes", "psnr"].values[0] == pytest.approx(np.mean(raw))
    # without prompts, a request that names everything is the empty one
    assert pick["right", 2, "psnr"].values[1] == pick["empty", 2, "psnr"].values[1]
    assert pick["subset", 2, "chance"].values == (0.25, 0.25)
    assert pick["wrong", 1, "no_harm_worst"].values[0] <= pick["wrong", 1, "no_harm"].values[0]

    paths = [*write_report(found, tmp_path / "out"), *draw_sheets(found, tmp_path / "out")]
    names = ["report.md", "results.csv", "figures.json", "sheet.jpg", "failures_1.jpg", "failures_2.jpg"]
    assert [path.name for path in paths] == names
    markdown = paths[0].read_text(encoding="utf-8")
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} <= {8, 10}  # 5 + 2 columns; 3 + 6 for the kinds
    assert f"| holes | 2 | {pick['kind', 'holes', 'psnr'].input:.2f} | {np.mean(raw):.2f} |" in markdown
    assert "Left out: c (" in markdown and "Without prompts, as they take none: blind." in markdown
    figures = json.loads(paths[2].read_text())
    assert figures["images"] == 2 and figures["left_out"] == ["c"] and figures["seed"] == 0
    assert figures["models"]["net_g_latest"]["reads_prompts"] and not figures["models"]["blind"]["reads_prompts"]
    assert len(figures["rows"]) == len(rows)
    assert figures["rows"][0]["values"]["blind"] == rows[0].values[1]
    with open(paths[1], newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * len(found.results)
    assert float(table[0]["psnr"]) == found.results[0].measured[0]["psnr"] and table[0]["no_harm"] == ""
    with Image.open(paths[3]) as sheet, Image.open(paths[4]) as failures:
        assert sheet.format == "JPEG" and sheet.width > failures.width
        page = np.asarray(sheet).astype(int)
    # the first row's first picture is the degraded image
    shown = next(r for r in found.results if r.case.request == "subset" and r.key == "a" and len(r.case.kinds) == 3)
    lq = targets_of(shown.case, found.clean("a"), {})[frozenset()]
    assert abs(page[24 : 24 + 60, 6 : 6 + 72] - lq * 255).mean() < 12


def test_the_command(folder, tmp_path, checkpoint, capsys):
    arguments = ["probe", "-i", str(folder), "--model", str(checkpoint), "--crop", "32", "--kinds", "noise"]
    assert main([*arguments, "-o", str(tmp_path / "one"), "--limit", "2"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("# What was asked") and "report.md" in shown.out and "adherence" in shown.out
    assert main([*arguments, "-o", str(tmp_path / "two")]) == 1
    assert "c.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"-i": "nowhere"}, "no such folder"),
        ({"-i": "empty"}, "no images"),
        ({"-o": "clean/a.png"}, "is a file"),
        ({"-o": "clean/out"}, "inside the input folder"),
        ({"--kinds": "niose"}, "did you mean 'noise'"),
        ({"--model": "nothing"}, "no network named"),
        ({"--crop": "0"}, "whole number"),
        ({"--limit": "-1"}, "whole number"),
    ],
)
def test_mistakes_are_said_in_one_line(folder, tmp_path, checkpoint, capsys, change, said):
    (tmp_path / "empty").mkdir()
    options = {"-i": "clean", "-o": "out", "--model": str(checkpoint), **change}
    where = {"-i", "-o"}
    words = [w for name, value in options.items() for w in (name, str(tmp_path / value) if name in where else value)]
    try:
        code = main(["probe", *words])
    except SystemExit as error:  # as argparse leaves
        code = error.code
    err = capsys.readouterr().err.splitlines()
    assert code == 2 and len(err) == 1 and said in err[0], err


def test_networks_that_cannot_be_probed(folder, tmp_path, net):
    config = {**net.config, "upscale": 2}
    torch.save(
        {"params": PromptMamba(**config).state_dict(), "network_g": {"type": "PromptMamba", **config}},
        tmp_path / "x2.pth",
    )
    with pytest.raises(UserError, match="'x2' enlarges"):
        probe(folder, tmp_path / "out", [tmp_path / "x2.pth"])
    broken = PromptMamba(**net.config)
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    torch.save({"params": broken.state_dict(), "network_g": {"type": "PromptMamba", **net.config}}, tmp_path / "n.pth")
    with pytest.raises(UserError, match="none of the 1 images"):
        probe(folder, tmp_path / "out", [tmp_path / "n.pth"], limit=1)
