"""Materials, questions, answers, and the pages by HTTP."""

from __future__ import annotations

import collections
import io
import json
import random
import re

import numpy as np
import pytest
from PIL import Image

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.study import Design, Materials, Store
from prompt_mamba_arch.study.plan import draw
from prompt_mamba_arch.study.report import write_report

DESIGN = Design(comparisons=5, shared=2, ratings=2, checks=2)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "study.sqlite")
    yield store
    store.close()


def test_materials(results, tmp_path):
    Image.new("RGB", (9, 9)).save(results / "good" / "more.png")
    found = Materials(results, crop=64)
    assert found.methods == ("good", "middling", "poor") and len(found.images) == 4
    assert found.incomplete == ("more",) and len(found.prompts) == 3
    sizes = {found.shown_size(image) for image in found.images}
    assert sizes == {(64, 64)}
    original = np.asarray(Image.open(results / "good" / "coffee.png"))
    with Image.open(found.picture("coffee", "good", False, tmp_path / "cache")) as shown:
        shown = np.asarray(shown)
    places = np.lib.stride_tricks.sliding_window_view(original, (64, 64, 3))[..., 0, :, :, :]
    assert sum(np.array_equal(shown, place) for row in places for place in row) == 1  # cut out, otherwise untouched


def test_the_same_place_is_cut_out_of_every_method(results, tmp_path):
    flat = np.tile(np.arange(120, dtype=np.uint8)[None, :, None], (96, 1, 3))
    for method in ("good", "poor"):
        Image.fromarray(flat).save(results / method / "coffee.png")
    found = Materials(results, crop=50)
    files = [found.picture("coffee", method, False, tmp_path / "cache") for method in ("good", "poor")]
    assert files[0] != files[1] and files[0].read_bytes() == files[1].read_bytes()
    spoiled = np.asarray(Image.open(found.picture("coffee", "good", True, tmp_path / "cache")))
    assert spoiled.shape == (50, 50, 3) and len(np.unique(spoiled)) < 10


def test_materials_that_cannot_be_compared(results, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Materials(tmp_path / "missing")
    with pytest.raises(UserError, match="did you mean 'good'"):
        Materials(results, methods=["god"])
    with pytest.raises(UserError, match="two methods"):
        Materials(results, methods=["good"])
    Image.new("RGB", (5, 5)).save(results / "poor" / "coffee.png")
    with pytest.raises(UserError, match="'coffee' have different sizes: good 120 x 96, middling 120 x 96, poor 5 x 5"):
        Materials(results)


def test_questions_are_balanced_and_mixed(results):
    materials = Materials(results)
    asked, sides, firsts = collections.Counter(), collections.Counter(), collections.Counter()
    design = Design(comparisons=6, shared=2, ratings=3, checks=2)
    everybody = []
    for person in range(60):
        trials = draw(materials, design, asked, random.Random(person))
        kinds = [trial.kind for trial in trials]
        assert kinds.count("pair") == 6 and kinds.count("check") == 2 and kinds[-3:] == ["rating"] * 3
        assert kinds[0] == "pair" and all(trial.left != trial.right for trial in trials if trial.kind == "pair")
        assert all(trial.image in materials.prompts for trial in trials if trial.kind == "rating")
        mine = [
            (t.image, *(sorted((t.left, t.right)) if t.right else (t.left, ""))) for t in trials if t.kind != "check"
        ]
        assert len(set(mine)) == len(mine)  # nothing twice
        everybody.append(set(mine))
        asked.update(mine)
        sides.update(trial.spoiled for trial in trials if trial.kind == "check")
        firsts.update(trial.left < trial.right for trial in trials if trial.kind == "pair")
    shared = [one for one, often in asked.items() if one[2] and often == 60]
    others = [often for one, often in asked.items() if one[2] and often < 60]
    assert len(shared) == 2 and len(others) == 10 and max(others) - min(others) <= 1
    rated = [often for one, often in asked.items() if not one[2]]
    assert len(rated) == 9 and max(rated) - min(rated) <= 1
    assert min(sides["left"], sides["right"]) > 35 and min(firsts.values()) > 130


def test_answers_are_kept_once_and_can_be_withdrawn(results, store):
    materials = Materials(results)
    store.use(materials, DESIGN)
    token = store.begin(materials, DESIGN, "consent")
    other = store.participant(store.begin(materials, DESIGN, "consent"))
    me = store.participant(token)
    assert store.participant("somebody else") is None
    progress = store.progress(me)
    assert (progress.position, progress.total) == (0, 9) and progress.trial.kind == "pair"
    store.answer(me, 0, "left", 1234)
    store.answer(me, 0, "right", 1)  # sent twice: the first counts
    store.answer(other, 0, "right")
    assert [one.answer for one in store.answers()] == ["left", "right"]
    assert store.progress(me).position == 1
    for position, answer in ((1, "both"), (1, "3"), (99, "left"), (8, "left"), (8, "6")):
        with pytest.raises(UserError):
            store.answer(me, position, answer)
    store.withdraw(me)
    assert store.participant(token) is None and [one.participant for one in store.answers()] == [other]
    assert store.counts() == (1, 0)


def test_a_study_belongs_to_its_materials(results, store, tmp_path):
    store.use(Materials(results), DESIGN)
    store.use(Materials(results), Design(comparisons=2))  # the design may change
    with pytest.raises(UserError, match="other images, methods, prompts or another crop"):
        store.use(Materials(results, crop=10), DESIGN)
    (tmp_path / "no.sqlite").write_text("this is no database, and long enough to be looked at as one")
    with pytest.raises(UserError, match="not a study"):
        Store(tmp_path / "no.sqlite")


def test_a_full_study_turns_people_away(results, store):
    design = Design(comparisons=1, participants=1)
    store.begin(Materials(results), design, "")
    with pytest.raises(UserError, match="all the participants"):
        store.begin(Materials(results), design, "")
    with pytest.raises(UserError, match="comparisons must be a whole number from 1"):
        Design(comparisons=0)


# ---- pages


@pytest.fixture
def client(results, store, tmp_path):
    testclient = pytest.importorskip("starlette.testclient", reason="the study's pages need Starlette and httpx")
    from prompt_mamba_arch.study.server import create

    materials = Materials(results)
    store.use(materials, DESIGN)
    app = create(store, materials, DESIGN, cache=tmp_path / "pictures", contact="Ada <ada@example.org>")
    return testclient.TestClient(app)


def _begin(client):
    assert client.post("/begin", data={"agree": "yes"}).status_code == 200


def _answer(client, answer, **more):
    page = client.get("/question").text
    position = re.search(r'name="position" value="(\d+)"', page)[1]
    return client.post("/answer", data={"position": position, "answer": answer, **more})


def test_nothing_before_consent(client, store):
    assert "Ada &lt;ada@example.org&gt;" in client.get("/").text
    assert client.get("/question").url.path == "/" and client.get("/picture/0/left").status_code == 404
    assert client.post("/begin", data={}).status_code == 400
    assert client.post("/answer", data={"position": "0", "answer": "left"}).url.path == "/"
    assert store.counts() == (0, 0)


def test_from_consent_to_thanks(client, store):
    _begin(client)
    page = client.get("/question")
    assert "good" not in page.text.replace("google", "") and "middling" not in page.text  # blind
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for position in range(9):
        trial = store.trial(1, position)
        page = client.get("/question").text
        assert f"{position + 1} of 9" in page and "<b>now</b>" not in page
        for side in ("left", "right", "input"):
            picture = client.get(f"/picture/{position}/{side}")
            assert picture.status_code == (404 if side == "right" and trial.kind == "rating" else 200)
            if picture.status_code == 200:
                assert Image.open(io.BytesIO(picture.content)).size == (120, 96)
                assert not {"etag", "last-modified"} & set(picture.headers)
        assert _answer(client, "4" if trial.kind == "rating" else "right", milliseconds="800").status_code == 200
    assert "Thank you" in client.get("/question").text and len(store.answers()) == 9 and store.counts() == (1, 1)


def test_going_on_with_the_link_elsewhere(client, store):
    _begin(client)
    _answer(client, "left")
    link = re.search(r'href="[^"]*(/go/[\w-]+)"', client.get("/question").text)[1]
    client.cookies.clear()
    assert client.get("/question").url.path == "/"
    assert "2 of 9" in client.get(link).text
    assert client.get("/go/nobody").status_code == 404
    assert "deleted" in client.post("/withdraw").text and store.answers() == []


def test_bad_requests_change_nothing(client, store):
    _begin(client)
    for data in ({"position": "0"}, {"position": "-1", "answer": "left"}, {"position": "x" * 99, "answer": "left"},
                 {"position": "0", "answer": "'; DROP TABLE answers; --"}, {"answer": "left"},
                 {"position": "0", "answer": "left", "more": "x" * 20_000}):  # fmt: skip
        assert client.post("/answer", data=data).status_code == 400
    for path in ("/picture/0/up", "/picture/99999999999999999999/left", "/static/../store.py", "/nothing", "/go/%00"):
        assert client.get(path).status_code == 404
    assert store.answers() == [] and "1 of 9" in client.get("/question").text


def test_report(client, store, tmp_path):
    with pytest.raises(UserError, match="nobody has answered yet"):
        write_report(store, tmp_path / "report")
    for person in range(4):
        client.cookies.clear()
        _begin(client)
        me = store.counts()[0]
        for position in range(9):
            trial = store.trial(me, position)
            order = {"good": 0, "middling": 1, "poor": 2}
            if trial.kind == "rating":
                answer = str(5 - 2 * order[trial.left])
            elif trial.kind == "check":
                answer = {"left": "right", "right": "left"}[trial.spoiled]
            else:
                answer = "left" if order[trial.left] < order[trial.right] else "right"
            if person == 3:  # always the same key
                answer = "1" if trial.kind == "rating" else trial.spoiled or "left"
            _answer(client, answer)
    written = write_report(store, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "4 participants" in text and "1 failed more than a third of their attention checks" in text
    assert "15 comparisons and 6 ratings by 3 of them count" in text
    assert re.search(r"\| good \|.*\n\| middling \|.*\n\| poor \|", text)  # in this order
    names = {path.name for path in written}
    assert {"report.md", "ranking.csv", "preferences.csv", "agreement.csv", "ratings.csv", "answers.csv"} <= names
    assert len((tmp_path / "report" / "answers.csv").read_text().splitlines()) == 1 + 4 * 9
    if pytest.importorskip("matplotlib", reason="plots need Matplotlib"):
        for name in ("ranking.png", "preferences.png", "ratings.png"):
            assert Image.open(tmp_path / "report" / name).size[0] > 300


def test_prompts_file_with_a_mistake_is_named(results):
    (results / "prompts.jsonl").write_text(json.dumps({"key": "coffee"}))
    with pytest.raises(UserError, match="prompts"):
        Materials(results)
