"""What the page does, without the page: sessions, limits, restoring, and the collection of bad inputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from bad_inputs import NAMES, PROMPTS, REFUSED, RESTORED
from PIL import Image
from test_region import drawn

from prompt_mamba_arch.app import Limits
from prompt_mamba_arch.app.session import Sessions
from prompt_mamba_arch.app.workshop import Stopped
from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.text import Wish


@pytest.fixture
def sent(tmp_path, photo):
    """A photograph as it was sent, with metadata."""
    path = tmp_path / "sent.jpg"
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    Image.fromarray(photo).save(path, quality=95, exif=exif.tobytes(), dpi=(300, 300))
    return path


@pytest.fixture
def session(workshop, sent):
    return workshop.sessions.open("me", sent, "holiday.jpg")


def _pixels(version):
    return np.array(version.pixels)


def test_requests_are_tried_on_the_same_photo_until_one_goes_on(workshop, session):
    original = _pixels(session.original)
    first = workshop.restore(session, "remove the noise")
    assert session.shown is first and session.base is session.original and session.can_undo and session.can_go_on
    again = workshop.restore(session, "remove the noise")
    assert np.array_equal(again.pixels, first.pixels)  # done to the photograph, not to the result
    session.go_on()
    assert session.base is again and not session.can_go_on
    further = workshop.restore(session, "remove the noise")
    assert not np.array_equal(further.pixels, again.pixels)
    for base, shown in ((again, again), (session.original, again), (session.original, first)):
        session.undo()
        assert (session.base, session.shown) == (base, shown)
    session.undo()
    assert session.shown is session.original and not session.can_undo
    session.undo()  # nothing left
    assert np.array_equal(_pixels(session.original), original)


def test_versions_that_nobody_can_reach_are_deleted(make_workshop, sent):
    workshop = make_workshop(steps=2)
    session = workshop.sessions.open("me", sent, "a.jpg")
    for _ in range(4):
        workshop.restore(session, "")
        session.write(".jpg")
        session.write(".png")
        session.go_on()
    for kind, number in (("version*", 2), ("*.jpg", 3 + 2), ("result*.png", 2)):
        # where undo leads, and what is shown; the photograph's picture beside those
        assert len(list(workshop.sessions.folder.rglob(kind))) == number, kind
    for _ in range(9):
        session.undo()
    assert session.shown.number == 3 and session.picture(session.shown.picture).is_file()


def test_strength_and_progress(workshop, session):
    told = []
    assert np.array_equal(workshop.restore(session, "", strength=0).pixels, session.original.pixels)
    workshop.restore(session, "", progress=lambda done, tiles: told.append((done, tiles)))
    assert told == [(1, 1)]


def test_only_the_brushed_region_changes(workshop, session):
    painted = np.zeros((70, 90), bool)
    painted[10:40, 20:60] = True
    before = _pixels(session.original)
    after = _pixels(workshop.restore(session, "remove the noise", mask=drawn(painted)))
    assert np.array_equal(after[~painted], before[~painted])
    assert (after[20:30, 30:50] != before[20:30, 30:50]).mean() > 0.5


def test_downloads_keep_what_belongs_to_the_photo(workshop, session):
    shown = workshop.restore(session, "remove the noise")
    path, lost = session.write(".jpg")
    with Image.open(path) as image:
        assert image.format == "JPEG" and image.size == (90, 70) and image.info["dpi"] == (300, 300)
        assert image.getexif()[0x010F] == "Camera"
    assert lost == [] and session.file_name(".jpg") == "holiday_restored.jpg"
    path, _ = session.write(".png")
    assert np.array_equal(np.asarray(Image.open(path)), shown.pixels)
    with pytest.raises(UserError, match="written as"):
        session.write("/../x")


def test_corrections(workshop):
    wish = "take the grain out"
    assert workshop.request(wish, ["noise"], []) == (wish, False)
    assert workshop.request(wish, ["rain"], ["noise"]) == ("remove the rain, keep the image noise", True)
    with pytest.raises(UserError, match="nothing is ticked"):
        workshop.request(wish, [], [])


def test_stop_and_time_limit(make_workshop, sent, monkeypatch):
    now = [0.0]
    workshop = make_workshop(clock=lambda: now[0], seconds=10)
    session = workshop.sessions.open("me", sent, "a.jpg")
    monkeypatch.setattr("prompt_mamba_arch.app.workshop._TILE", 64)  # several tiles
    with pytest.raises(Stopped):
        workshop.restore(session, "", progress=lambda done, tiles: session.stopped.set())
    with pytest.raises(UserError, match="longer than 10 seconds"):
        workshop.restore(session, "", progress=lambda done, tiles: now.__setitem__(0, 11.0))
    with pytest.raises(UserError, match="no photo here"):  # left meanwhile
        workshop.restore(session, "", progress=lambda done, tiles: workshop.sessions.end("me") if done == tiles else 0)
    assert len(workshop.sessions) == 0


def test_idle_and_left_sessions_leave_nothing(make_workshop, sent):
    now = [0.0]
    workshop = make_workshop(clock=lambda: now[0], idle_seconds=100, sessions=2)
    workshop.sessions.open("idle", sent, "a.jpg")
    now[0] = 90.0
    workshop.sessions.open("busy", sent, "b.jpg")
    with pytest.raises(UserError, match="too many people"):
        workshop.sessions.open("third", sent, "c.jpg")
    workshop.sessions.open("busy", sent, "again.jpg")  # takes the place of one's own
    now[0] = 110.0
    assert workshop.sessions.sweep() == 1 and len(workshop.sessions) == 1
    with pytest.raises(UserError, match="no photo here"):
        workshop.sessions.get("idle")
    workshop.sessions.end("busy")
    assert not any(path.is_file() for path in workshop.sessions.folder.rglob("*"))
    workshop.close()
    assert not workshop.sessions.folder.exists()


def test_what_a_killed_page_left_is_deleted(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = tmp_path / f"prompt_mamba_app_{int(gone.stdout)}_aa"
    here = tmp_path / f"prompt_mamba_app_{os.getpid()}_bb"
    for folder in (left, here, tmp_path / "other"):
        folder.mkdir()
    sessions = Sessions(tmp_path, Limits())
    assert not left.exists() and here.exists() and (tmp_path / "other").exists()
    sessions.close()


def test_limits(make_workshop, sent):
    workshop = make_workshop(pixels=1000, upload_bytes=10_000_000, prompt_length=20)
    with pytest.raises(UserError, match=r"'big\.jpg' has 90 x 70 pixels, too many for this page"):
        workshop.sessions.open("me", sent, "big.jpg")
    with pytest.raises(UserError, match="21 characters"):
        workshop.understand("x" * 21)
    with pytest.raises(UserError, match="at most 0 MB can be sent"):
        make_workshop(upload_bytes=100).sessions.open("me", sent, "big.jpg")
    with pytest.raises(UserError, match="pixels must be a number from 1"):
        Limits(pixels=0)
    assert len(workshop.sessions) == 0


# ---- the collection of bad inputs


@pytest.mark.parametrize("name", REFUSED)
def test_refused(workshop, tmp_path, name):
    """In a plain line that names the person's file and no folder of the server; what was there before stays."""
    suffix, content, said = REFUSED[name]
    path = tmp_path / "upload" / f"sent{suffix}"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        workshop.sessions.open("me", path, f"my photo{suffix}")
    line = str(caught.value)
    assert re.search(said, line) and f"my photo{suffix}" in line and str(tmp_path) not in line and len(line) < 300
    assert "\n" not in line and len(workshop.sessions) == 0
    assert not any(path.is_file() for path in workshop.sessions.folder.rglob("*"))


@pytest.mark.parametrize("name", RESTORED)
def test_restored(workshop, tmp_path, name):
    suffix, content, said = RESTORED[name]
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(content)
    session = workshop.sessions.open("me", path, path.name)
    assert said in (None, "") or any(said in note for note in session.notes)
    workshop.restore(session, "")
    result, _ = session.write(suffix)
    with Image.open(path) as before, Image.open(result) as after:
        after.load()
        assert before.size == after.size and after.format == Image.registered_extensions()[suffix]


@pytest.mark.parametrize("name", [*NAMES, "..", "", "/etc/passwd", "C:\\Windows\\x.jpg", "a/../../b.png", "\ud800.png"])
def test_odd_names(workshop, sent, name):
    """Nothing is written under the name that somebody sends, and downloads have one that no system trips over."""
    session = workshop.sessions.open("me", sent, name)
    found = session.file_name(session.suffix)
    assert re.fullmatch(r'[^/\\\x00-\x1f<>:"|?*]+_restored\.(png|jpg)', found) and not found.startswith(".")
    assert len(found.encode()) < 255
    session.write(session.suffix)
    folders = {path.parent.parent for path in workshop.sessions.folder.rglob("*") if path.is_file()}
    assert folders == {workshop.sessions.folder}


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.filterwarnings("ignore:the prompt")
def test_odd_prompts(workshop, session, name):
    prompt = PROMPTS[name]
    if len(prompt) > workshop.limits.prompt_length:
        with pytest.raises(UserError, match="at most 10,000 are read"):
            workshop.restore(session, prompt)
        return
    known = workshop.understand(prompt)
    assert len(known.sentence) < 300 and "\n" not in known.sentence
    assert workshop.restore(session, prompt).pixels.shape == (70, 90, 3)


def test_what_was_ticked_is_what_a_network_with_wishes_is_told(workshop, session):
    told = []
    workshop.restorer.restore = lambda image, asked, *rest, look: told.append(asked) or image
    workshop.restore(session, "remove the rain, keep the haze", wish=Wish({"rain"}))
    workshop.restorer.told_wishes = True
    workshop.restore(session, "remove the rain, keep the haze", wish=Wish({"rain"}))
    workshop.restore(session, "")
    assert told == ["remove the rain, keep the haze", Wish({"rain"}), None]
