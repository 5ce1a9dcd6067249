"""The page, drawn with Gradio: what is shown where, and which function of `Workshop` a button calls."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path

import gradio as gr
from anyio import CapacityLimiter

from prompt_mamba_arch.app.session import Session
from prompt_mamba_arch.app.wish import LABELS, Understood
from prompt_mamba_arch.app.workshop import Workshop
from prompt_mamba_arch.errors import plain_line
from prompt_mamba_arch.image_io import SUFFIXES
from prompt_mamba_arch.text import Wish

__all__ = ["build"]

_SUGGESTIONS = (
    "take the grain out",
    "remove the haze",
    "brighten it up",
    "wash the rain away",
    "sharpen the blur",
    "clean up the JPEG blocks",
    "fix the scratches",
    "fix whatever is wrong",
)
_START = "Drop a photo, say what is wrong with it, and press Restore."
_SLOW = "The photo is large; this may take a while."
_LARGE = 8_000_000  # pixels
_FORMATS = (".png", ".jpg", ".tif", ".webp")


def build(workshop: Workshop) -> gr.Blocks:
    """The page for a workshop; `server.create` serves it, with the pictures and files that it links to."""
    limits = workshop.limits
    boxes = [(label, kind) for kind, label in LABELS.items()]
    # Only what takes long goes through Gradio's queue: its client drops an event that is sent between the last word of
    # the queue's stream and the stream's end, and wishes are read at every key.
    quiet = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}

    with gr.Blocks(title="PromptMamba", analytics_enabled=False, delete_cache=(60, round(limits.idle_seconds))) as page:
        gr.HTML(
            "<h1>PromptMamba</h1><p>Say what is wrong with a photo, and get the photo back. "
            "Photos are deleted when you leave.</p>",
            elem_id="pm-title",
        )
        with gr.Row(elem_id="pm-main"):
            with gr.Column(scale=5, min_width=300):
                stage = gr.HTML("", elem_id="pm-stage")
                status = gr.HTML(_said(_START), elem_id="pm-status")
                upload = gr.File(
                    label=f"Photo, at most {limits.upload_bytes / 2**20:.0f} MB, {limits.pixels / 1e6:.3g} megapixels",
                    file_types=list(SUFFIXES),
                    height=150,
                    elem_id="pm-upload",
                )
            with gr.Column(scale=4, min_width=300):
                wish = gr.Textbox(
                    label="What should be done?",
                    placeholder="take the grain out, but keep the fog",
                    lines=1,  # so that Enter restores
                    max_lines=4,
                    elem_id="pm-wish",
                    submit_btn=False,
                )
                with gr.Row(elem_id="pm-suggestions"):
                    suggestions = [gr.Button(text, size="sm", min_width=60) for text in _SUGGESTIONS]
                understood = gr.HTML(_understood_html(workshop.understand("")), elem_id="pm-understood")
                with gr.Row():
                    restore = gr.Button("Restore", variant="primary", interactive=False, elem_id="pm-restore", scale=2)
                    stop = gr.Button("Stop", elem_id="pm-stop", min_width=80)
                with gr.Accordion("Not what you meant? Correct it", open=False, elem_id="pm-correct"):
                    remove = gr.CheckboxGroup(boxes, value=list(LABELS), label="This shall go", elem_id="pm-remove")
                    keep = gr.CheckboxGroup(boxes, value=[], label="This shall stay", elem_id="pm-keep")
                strength = gr.Slider(
                    0, 2, value=1, step=0.05, label="Strength", elem_id="pm-strength",
                    info="0 changes nothing, 1 is what the network says, more exaggerates",
                )  # fmt: skip
                with gr.Row():
                    undo = gr.Button("Undo", interactive=False, elem_id="pm-undo", min_width=80)
                    go_on = gr.Button("Go on from the result", interactive=False, elem_id="pm-go-on")
                downloads = gr.HTML("", elem_id="pm-downloads")
        mask = gr.Textbox("", elem_id="pm-mask", elem_classes="pm-hidden", label="brushed region")
        # the wish that the boxes were last filled for; a gr.State would change before the page has the boxes
        read_for = gr.Textbox("", elem_classes="pm-hidden", label="wish that the boxes are for")

        shown = [stage, status, restore, undo, go_on, downloads, mask]

        def view(session: Session, said: str) -> list:
            """What `shown` shows now."""
            return [
                _stage_html(session, workshop.restorer.upscale == 1),
                _said(said),
                gr.update(interactive=True),
                gr.update(interactive=session.can_undo),
                gr.update(interactive=session.can_go_on),
                _downloads_html(session),
                "",
            ]

        def kept(session: Session | None, said: str) -> list:
            """The photo and the brush stay as they are, and what went wrong is said."""
            ready = gr.update(interactive=session is not None)
            return [gr.skip(), _said(said, wrong=True), ready, *[gr.skip()] * 3, gr.skip()]

        def there(request: gr.Request) -> Session | None:
            try:
                return workshop.sessions.get(request.session_hash)
            except Exception:
                return None

        def open_photo(path: str | None, request: gr.Request):
            if not path:
                return [None, *[gr.skip()] * len(shown)]
            sent = Path(path)
            try:
                session = workshop.sessions.open(request.session_hash, sent, sent.name)
            except Exception as error:
                return [None, *kept(there(request), _line(error))]
            finally:
                with contextlib.suppress(OSError):  # it has been read
                    sent.unlink()
            height, width = session.base.pixels.shape[:2]
            notes = [f"Ready: {width} x {height} pixels.", *(f"Note: {note}." for note in session.notes)]
            return [None, *view(session, " ".join(notes + [_SLOW] * (height * width > _LARGE)))]

        def read_wish(text: str):
            try:
                known = workshop.understand(text)
            except Exception as error:
                return [_said(_line(error), wrong=True), gr.skip(), gr.skip(), gr.skip()]
            return [_understood_html(known), list(known.remove), list(known.keep), text]

        def corrected(text: str, going: list, staying: list):
            try:
                request, differs = workshop.request(text, going, staying)
            except Exception as error:
                return _said(_line(error), wrong=True)
            if not differs:
                return _understood_html(workshop.understand(text))
            return f"<p>You corrected it: <b>{escape(request or 'remove whatever is wrong')}</b></p>"

        def run(
            text: str, going: list, staying: list, filled_for: str, power: float, painted: str, request: gr.Request,
            progress: gr.Progress = gr.Progress(),  # noqa: B008  Gradio's way to pass it in
        ):  # fmt: skip
            try:
                session = workshop.sessions.get(request.session_hash)
                known = workshop.understand(text)
                wanted, wish = text, None
                if filled_for == text:  # else they still say what an earlier wish was understood as
                    wanted, differs = workshop.request(text, going, staying)
                    wish = Wish(going) if differs else None

                def tell(done: int, tiles: int) -> None:
                    progress((done, tiles), desc="restoring", unit="tiles")

                def wait(ahead: int) -> None:
                    progress(0, desc=f"waiting for {ahead + 1} other photo{'s' * (ahead > 0)}")

                progress(0, desc="restoring")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # a long wish; the page cannot show it better
                    workshop.restore(
                        session, wanted, wish=wish, strength=power, mask=painted, progress=tell, waiting=wait
                    )
            except Exception as error:
                return kept(there(request), _line(error))
            if wanted != text:
                said = f"Done: {wanted or 'whatever is wrong'}."
            elif known.asks == "restoration" or not text.strip():
                said = f"Done: {known.sentence}."
            else:
                said = f"Done, but {known.sentence}: little or nothing should have changed."
            return view(session, f"{said} Not right? Change the wish and press Restore again.")

        def step(action: Callable[[Session], None], said: str):
            def handler(request: gr.Request):
                try:
                    session = workshop.sessions.get(request.session_hash)
                    action(session)
                except Exception as error:
                    return kept(there(request), _line(error))
                return view(session, said)

            return handler

        def halt(request: gr.Request) -> None:
            session = there(request)
            if session is not None:
                session.stopped.set()

        def leave(request: gr.Request) -> None:
            workshop.sessions.end(request.session_hash)

        upload.upload(
            open_photo, upload, [upload, *shown], concurrency_limit=2, show_progress_on=stage, api_visibility="private"
        )
        reading = {"fn": read_wish, "inputs": wish, "outputs": [understood, remove, keep, read_for]}
        wish.change(**reading, trigger_mode="always_last", **quiet)
        for button in suggestions:
            button.click(lambda text=button.value: text, None, wish, **quiet)
        ticked = {"inputs": [wish, remove, keep], "outputs": understood}
        # what is ticked in one group is unticked in the other
        remove.input(lambda a, b: [kind for kind in b if kind not in a], [remove, keep], keep, **quiet).then(
            corrected, **ticked, **quiet
        )
        keep.input(lambda a, b: [kind for kind in b if kind not in a], [keep, remove], remove, **quiet).then(
            corrected, **ticked, **quiet
        )
        work = {
            "fn": run,
            "inputs": [wish, remove, keep, read_for, strength, mask],
            "outputs": shown,
            # who waits is up to the workshop: Gradio's queue would turn away those, too, who only open a photo
            "concurrency_limit": limits.jobs + limits.waiting + 1,
            "show_progress_on": stage,
            "api_visibility": "private",
            "trigger_mode": "once",
        }
        gr.on([restore.click, wish.submit], **work)
        stop.click(halt, None, None, **quiet)
        undo.click(step(Session.undo, "One step back."), None, shown, **quiet)
        go_on.click(step(Session.go_on, "The next wish is done to this result."), None, shown, **quiet)
        page.unload(leave)
    page.queue(max_size=10 * limits.sessions, default_concurrency_limit=8, api_open=False)
    # threads that wait for their turn must not stop the others; `launch`, which is not used, would set this
    page.limiter = CapacityLimiter(limits.jobs + limits.waiting + 40)
    page.state_session_capacity = 4 * limits.sessions  # tabs that Gradio remembers, 10,000 otherwise
    return page


def _line(error: Exception) -> str:
    """What went wrong, in a line for people."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for this photo at present"
    line = plain_line(error)
    if line is None:
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)  # for who runs the page
        return "something went wrong here, and whoever runs this page can read what; your photo is as it was"
    return re.sub(r"'[^']*" + re.escape(os.sep) + r"([^']*)'", r"'\1'", line)  # no folders of the server


def _said(line: str, wrong: bool = False) -> str:
    """A line that screen readers speak, too."""
    role, kind = ("alert", "pm-wrong") if wrong else ("status", "pm-fine")
    return f'<p role="{role}" class="{kind}">{escape(line[:1].upper() + line[1:])}</p>'


def _understood_html(known: Understood) -> str:
    doubt = "" if known.sure else " <span>I am not sure.</span>"
    return f'<p role="status">I understood: <b>{escape(known.sentence)}</b>.{doubt}</p>'


def _stage_html(session: Session, with_brush: bool) -> str:
    """Before and after, one over the other; `assets/stage.js` moves them."""
    before, after = session.base, session.shown
    height, width = after.pixels.shape[:2]
    both = after is not before
    pictures = [f'<img class="pm-before" src="pictures/{before.picture}" alt="before" draggable="false">']
    if both:
        pictures.append(f'<img class="pm-after" src="pictures/{after.picture}" alt="after" draggable="false">')
        pictures.append('<div class="pm-line" aria-hidden="true"></div>')
    brush = (
        """
  <button type="button" class="pm-brush" aria-pressed="false">Brush a region</button>
  <label class="pm-brushing">size <input type="range" class="pm-size" min="2" max="30" value="8"
    aria-label="size of the brush"></label>
  <button type="button" class="pm-clear pm-brushing">Clear</button>"""
        if with_brush
        else ""
    )
    compare = (
        '<label class="pm-sides"><span>before</span><input type="range" class="pm-compare" min="0" max="100" '
        'value="50" aria-label="how much of the photo before is shown"><span>after</span></label>'
    )
    return f"""
<div class="pm-stage{" pm-both" if both else ""}" data-width="{width}" data-height="{height}">
 <div class="pm-tools" role="toolbar" aria-label="view">
  <button type="button" class="pm-out" aria-label="zoom out">−</button>
  <output class="pm-zoom" aria-live="polite">fit</output>
  <button type="button" class="pm-in" aria-label="zoom in">+</button>
  <button type="button" class="pm-fit">Fit</button>{brush}
 </div>
 <div class="pm-window" tabindex="0" role="group" aria-label="photo; plus and minus zoom, arrow keys move it">
  <div class="pm-pictures" style="aspect-ratio: {width} / {height}">
   {"".join(pictures)}
   <canvas class="pm-canvas" tabindex="-1"
    aria-label="brushed region; arrow keys move the brush, space paints"></canvas>
  </div>
 </div>
 {compare if both else ""}
</div>"""


def _downloads_html(session: Session) -> str:
    """Links to the shown version at full size; the photograph's own format first."""
    if session.shown is session.original:
        return ""
    first = session.suffix
    others = [suffix for suffix in _FORMATS if SUFFIXES[suffix] != SUFFIXES.get(first)]
    links = [
        f'<a href="downloads/{session.shown.picture}{suffix}" download>{SUFFIXES[suffix]}</a>'
        for suffix in (first, *others)
    ]
    return f"<p>Download at full size, with the photo's metadata: {' '.join(links)}</p>"
