"""The pages of `prompt-mamba study`, from consent to report, driven as participants would."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="the study needs Starlette and uvicorn: pip install 'prompt-mamba-arch[study]'")

from prompt_mamba_arch.study import Design, Materials, Store
from prompt_mamba_arch.study.report import write_report
from prompt_mamba_arch.study.server import create
from prompt_mamba_arch.web import serving

DESIGN = Design(comparisons=3, shared=3, ratings=2, checks=1)
ORDER = {"good": 0, "poor": 1}


@pytest.fixture
def study(tmp_path, photos):
    """(address, store) of a study of two methods and three images."""
    rng = np.random.default_rng(0)
    for method, sigma in (("good", 1), ("poor", 50), ("inputs", 60)):
        (tmp_path / "results" / method).mkdir(parents=True)
        for name in sorted(photos)[:3]:
            noisy = (photos[name] + rng.normal(0, sigma, photos[name].shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / "results" / method / f"{name}.png")
    lines = (json.dumps({"key": name, "prompts": ["take the grain out"]}) for name in sorted(photos)[:3])
    (tmp_path / "results" / "prompts.jsonl").write_text("\n".join(lines))
    materials, store = Materials(tmp_path / "results", crop=128), Store(tmp_path / "study.sqlite")
    store.use(materials, DESIGN)
    with serving(create(store, materials, DESIGN, cache=tmp_path / "cache", contact="ada@example.org")) as address:
        yield address, store
    store.close()


def _key(trial):
    """What a careful participant presses, who sees what is better."""
    if trial.kind == "rating":
        return str(5 - 4 * ORDER[trial.left])
    if trial.kind == "check":
        return {"left": "ArrowRight", "right": "ArrowLeft"}[trial.spoiled]
    return "a" if trial.left == "good" else "b"


def test_from_consent_to_report(visit, study, tmp_path):
    address, store = study
    page = visit(address)
    assert "ada@example.org" in page.inner_text("main")
    page.click("text=Begin")  # the box is not ticked: the browser does not let it through
    assert store.counts() == (0, 0)
    page.check("input[name=agree]")
    page.click("text=Begin")
    for position in range(6):
        page.wait_for_selector(f"text={position + 1} of 6")
        loaded = "[...document.querySelectorAll('.pictures img')].every(i => i.complete && i.naturalWidth === 128)"
        for _ in range(1200):  # wait_for_function would evaluate text, which the page forbids
            if page.evaluate(loaded):
                break
            page.wait_for_timeout(50)
        assert page.evaluate(loaded)
        assert not any(name in page.content() for name in ("good", "poor"))  # blind
        if position == 0:
            page.keyboard.press("z")
            assert page.locator("form.zoomed").count() == 1
            page.keyboard.press("z")
            page.locator("summary", has_text="photo before").click()
            page.wait_for_selector(".before img")
        page.keyboard.press(_key(store.trial(1, position)))
    page.wait_for_selector("text=Thank you")
    answers = store.answers()
    assert len(answers) == 6 and all(0 <= one.milliseconds < 300_000 for one in answers)
    assert store.counts() == (1, 1)
    write_report(store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "1 participants agreed" in text and "| good |" in text and "Following the prompt" in text


def test_going_on_on_a_phone_and_deleting(visit, study, phone):
    address, store = study
    page = visit(address)
    page.check("input[name=agree]")
    page.click("text=Begin")
    page.wait_for_selector("text=1 of 6")
    page.keyboard.press("b")
    page.wait_for_selector("text=2 of 6")
    page.click("text=Stop here")
    link = page.inner_text("footer a")
    elsewhere = visit(address, **phone, color_scheme="dark")
    elsewhere.goto(link)
    elsewhere.wait_for_selector("text=2 of 6")
    assert elsewhere.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert elsewhere.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
    for button in elsewhere.locator(".pictures button").all():
        box = button.bounding_box()
        assert box["height"] >= 40 and 0 <= box["x"] and box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= 844  # both can be seen and pressed without scrolling
    elsewhere.tap("text=A is better")
    elsewhere.wait_for_selector("text=3 of 6")
    page.reload()
    page.wait_for_selector("text=3 of 6")
    assert len(store.answers()) == 2
    page.click("text=Stop here")
    page.click("text=Delete all my answers")
    page.wait_for_selector("text=Your answers are deleted")
    assert store.answers() == [] and store.counts() == (0, 0)


def test_without_javascript(visit, study):
    address, store = study
    page = visit(address, java_script_enabled=False)
    page.check("input[name=agree]")
    page.click("text=Begin")
    page.click("text=B is better")
    page.wait_for_selector("text=2 of 6")
    assert [(one.answer, one.milliseconds) for one in store.answers()] == [("right", None)]
