"""The page of `prompt-mamba app`, driven as a person would."""

from __future__ import annotations

import contextlib
import io
import re
import time

import numpy as np
import pytest
from bad_inputs import REFUSED
from PIL import Image

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'prompt-mamba-arch[app]'")

from prompt_mamba_arch.app import Limits, Workshop
from prompt_mamba_arch.app.server import create
from prompt_mamba_arch.restore import Restorer
from prompt_mamba_arch.web import serving


@pytest.fixture(scope="module")
def workshop(net, tmp_path_factory):
    limits = Limits(upload_bytes=300_000, pixels=100_000)
    return Workshop(Restorer(net), limits=limits, folder=tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def address(workshop):
    with serving(create(workshop)) as address:
        yield address


@pytest.fixture
def picture(tmp_path, photos):
    """(a PNG file of 192 x 192 pixels with EXIF, its pixels)."""
    pixels = photos["astronaut"]
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    Image.fromarray(pixels).save(tmp_path / "holiday.png", exif=exif.tobytes())
    return tmp_path / "holiday.png", pixels


@pytest.fixture
def open_page(visit, address):
    def open_page(**options):
        page = visit(address, **options)
        page.wait_for_selector("#pm-upload input[type=file]", state="attached")
        page.wait_for_selector("#pm-understood :text('whatever is wrong')")
        return page

    return open_page


def _send(page, path, content=None):
    if content is None:
        page.set_input_files("#pm-upload input[type=file]", str(path))
    else:
        file = {"name": path, "mimeType": "image/png", "buffer": content}
        page.set_input_files("#pm-upload input[type=file]", [file])


def _said(page, pattern):
    page.wait_for_function(
        "pattern => new RegExp(pattern).test(document.querySelector('#pm-status').innerText)", arg=pattern
    )
    return page.inner_text("#pm-status")


def _wish(page, text, understood):
    page.fill("#pm-wish textarea", text)
    page.wait_for_selector(f"#pm-understood :text('{understood}')")


def _restore(page):
    before = page.get_attribute(".pm-after", "src") if page.locator(".pm-after").count() else ""
    page.click("#pm-restore")
    page.wait_for_selector(f'.pm-after:not([src="{before}"])')
    return _said(page, "^Done")


def _download(page, name):
    href = page.locator("#pm-downloads a", has_text=name).get_attribute("href")
    answer = page.request.get(page.url + href)
    assert answer.ok, answer.text()
    return Image.open(io.BytesIO(answer.body())), answer.headers["content-disposition"]


def test_from_upload_to_download(open_page, picture):
    path, pixels = picture
    page = open_page()
    assert page.locator("#pm-restore").is_disabled()
    _send(page, path)
    assert "192 x 192 pixels" in _said(page, "Ready")
    _wish(page, "take the grain out, but keep the fog", "remove noise")
    page.click("#pm-correct button")
    page.wait_for_selector("#pm-keep input:checked")
    assert page.locator("#pm-remove input:checked").count() == page.locator("#pm-keep input:checked").count() == 1
    assert "remove noise" in _restore(page)
    image, disposition = _download(page, "PNG")
    assert image.size == (192, 192) and image.getexif()[0x010F] == "Camera"
    assert 'filename="holiday_restored.png"' in disposition
    first = np.asarray(image.convert("RGB"))
    assert not np.array_equal(first, pixels)

    # the same again; then on from the result; then all the way back
    page.click("#pm-go-on")
    _said(page, "next wish")
    _restore(page)
    assert not np.array_equal(np.asarray(_download(page, "PNG")[0].convert("RGB")), first)
    for state in ("detached", "visible"):
        page.click("#pm-undo")
        page.wait_for_selector(".pm-after", state=state)
    assert np.array_equal(np.asarray(_download(page, "PNG")[0].convert("RGB")), first)
    page.click("#pm-undo")
    page.wait_for_selector(".pm-after", state="detached")
    page.wait_for_selector("#pm-undo[disabled]")


def test_suggestions_and_correction(open_page, picture):
    page = open_page()
    _send(page, picture[0])
    _said(page, "Ready")
    page.click("#pm-suggestions button:has-text('take the grain out')")
    page.wait_for_selector("#pm-understood :text('remove noise')")
    assert page.input_value("#pm-wish textarea") == "take the grain out"
    page.click("#pm-correct button")
    page.locator("#pm-remove label", has_text="rain").last.click()
    page.wait_for_selector("#pm-understood :text('remove the image noise and the rain')")
    page.locator("#pm-keep label", has_text="noise").click()  # which unticks it above
    page.wait_for_selector("#pm-understood :text('remove the rain, keep the image noise')")
    assert page.locator("#pm-remove input:checked").count() == 1
    assert "remove the rain, keep the image noise" in _restore(page)
    page.locator("#pm-remove label", has_text="rain").last.click()
    page.wait_for_selector("#pm-understood [role=alert]:has-text('tick at least one')")
    page.click("#pm-restore")
    _said(page, "tick at least one")
    _wish(page, "what time is it?", "does not ask for restoration")
    assert "little or nothing should have changed" in _restore(page)


def test_by_keyboard_and_by_mouse(open_page, picture):
    page = open_page()
    _send(page, picture[0])
    _said(page, "Ready")
    page.focus("#pm-wish textarea")
    page.keyboard.type("take the grain out")
    page.keyboard.press("Enter")
    page.wait_for_selector(".pm-after")
    shown = "getComputedStyle(document.querySelector('.pm-stage')).getPropertyValue('--shown').trim()"
    page.focus(".pm-compare")
    page.keyboard.press("End")
    assert page.evaluate(shown) == "100%"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(shown) == "99%"
    # by mouse, too
    box = page.locator(".pm-pictures").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60, steps=4)
    page.mouse.up()
    assert float(page.input_value(".pm-compare")) == pytest.approx(25, abs=1)
    clip = page.evaluate("getComputedStyle(document.querySelector('.pm-after')).clipPath")
    assert re.search(r"0(px)? 2[45](\.\d+)?%", clip)
    page.focus(".pm-window")
    width = page.locator(".pm-pictures").bounding_box()["width"]
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.locator(".pm-pictures").bounding_box()["width"] == pytest.approx(2 * width, rel=0.01)
    assert page.inner_text(".pm-zoom") == "200 %"
    page.keyboard.press("0")
    assert page.inner_text(".pm-zoom") == "fit"
    page.focus(".pm-brush")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # size, clear, window, canvas
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "pm-canvas"
    page.keyboard.press("Space")
    assert page.input_value("#pm-mask textarea, #pm-mask input").startswith("data:image/png")


def test_only_the_brushed_region_is_restored(open_page, picture):
    path, pixels = picture
    page = open_page()
    _send(page, path)
    _said(page, "Ready")
    page.click(".pm-brush")
    box = page.locator(".pm-pictures").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.35, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    _restore(page)
    changed = (np.asarray(_download(page, "PNG")[0].convert("RGB")) != pixels).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 40 < rows.min() and rows.max() < 85 and 40 < columns.min() and columns.max() < 95 and changed.sum() > 200


def test_what_cannot_be_read_is_refused_in_plain_words(open_page, picture):
    page = open_page()
    for number, name in enumerate(("zero bytes", "truncated JPEG", "huge header", "HTML page", "archive")):
        suffix, content, said = REFUSED[name]
        _send(page, f"bad{number}{suffix}", content)
        line = _said(page, f"bad{number}.*({said})")
        assert "/" not in line and "Traceback" not in line
        assert page.get_attribute("#pm-status p", "role") == "alert" and page.locator(".pm-stage").count() == 0
    large = io.BytesIO()
    Image.new("RGB", (400, 300)).save(large, "PNG")
    _send(page, "large.png", large.getvalue())
    _said(page, "400 x 300 pixels, too many for this page")
    noise = np.random.default_rng(0).integers(0, 256, (310, 320, 3), dtype=np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).save(large, "BMP")
    _send(page, "heavy.bmp", large.getvalue() + bytes(200_000))
    page.wait_for_selector("text=/exceed|too large|at most|maximum/i >> visible=true")
    assert page.locator(".pm-stage").count() == 0
    page.reload()
    page.wait_for_selector("#pm-upload input[type=file]", state="attached")
    _send(page, picture[0])  # and it goes on
    _said(page, "Ready")


def test_what_the_page_asks_by_itself_takes_no_photo_away(open_page, picture):
    page, held = open_page(), []

    def hold(route):
        if "holiday.png" in (route.request.post_data or ""):
            route.continue_()
        else:
            held.append(route)

    page.route("**/queue/join*", hold)
    page.reload()
    page.wait_for_selector("#pm-upload input[type=file]", state="attached")
    _send(page, picture[0])
    _said(page, "Ready")
    for route in held:
        route.continue_()
    page.wait_for_timeout(1000)
    assert "Ready" in page.inner_text("#pm-status") and page.locator(".pm-stage").count() == 1


def test_enter_before_the_wish_has_been_read(open_page, picture):
    page, held = open_page(), []
    _send(page, picture[0])
    _said(page, "Ready")
    _wish(page, "what time is it?", "does not ask for restoration")  # nothing is ticked
    page.route("**/run/*", lambda route: held.append((route, route.fetch())))
    page.fill("#pm-wish textarea", "take the grain out")
    while not held:
        page.wait_for_timeout(50)
    page.press("#pm-wish textarea", "Enter")
    assert "remove noise" in _said(page, "^Done")
    for route, answer in held:
        route.fulfill(response=answer)
    page.wait_for_selector("#pm-understood :text('remove noise')")


_LATE_STREAM = """
const now = window.fetch;
window.fetch = async (...request) => {
  const answer = await now(...request);
  if (!answer.url.includes("queue/data")) return answer;
  const late = new TransformStream({
    async transform(text, out) {
      for (const message of text.split(/(?<=\\n\\n)/)) {
        out.enqueue(message);
        await new Promise((done) => setTimeout(done, 400));
      }
    },
  });
  const body = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(late).pipeThrough(new TextEncoderStream());
  return new Response(body, { status: answer.status, headers: answer.headers });
};
"""


def test_restore_is_heard_just_after_the_wish_was_read(open_page, picture):
    """Gradio's client drops an event that it sends between the last word of its stream and the stream's end."""
    page = open_page()
    page.add_init_script(_LATE_STREAM)
    page.reload()
    page.wait_for_selector("#pm-upload input[type=file]", state="attached")
    _send(page, picture[0])
    _said(page, "Ready")
    page.wait_for_timeout(1000)
    _wish(page, "take the grain out", "remove noise")
    page.press("#pm-wish textarea", "Enter")
    page.wait_for_selector(".pm-after")
    page.wait_for_timeout(1000)
    page.click("#pm-go-on")
    _said(page, "next wish")
    page.click("#pm-restore")
    _said(page, "^Done")


def test_on_a_phone_in_the_dark(open_page, picture, phone, workshop):
    page = open_page(**phone, color_scheme="dark")
    _send(page, picture[0])
    _said(page, "Ready")
    page.tap("#pm-suggestions button:has-text('brighten it up')")
    page.wait_for_selector("#pm-understood :text('remove darkness')")
    _restore(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
    for name in ("#pm-wish textarea", "#pm-restore", "#pm-undo", ".pm-stage", ".pm-compare", ".pm-in"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["height"] >= 30, name
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert max(red, green, blue) < 80
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.querySelector('#pm-status p')).color"))[:3]
    )
    assert min(red, green, blue) > 150

    # who leaves, leaves nothing
    assert len(workshop.sessions) >= 1 and any(path.suffix == ".npy" for path in workshop.sessions.folder.rglob("*"))
    page.context.close()
    deadline = time.monotonic() + 60
    while (len(workshop.sessions) or _left(workshop.sessions.folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(workshop.sessions) == 0 and _left(workshop.sessions.folder) == []


def _left(folder):
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):  # they are being deleted
            return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return folder
