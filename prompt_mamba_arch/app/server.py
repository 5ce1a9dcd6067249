"""Serves the page, and beside it the pictures that it shows and the files that it offers."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from urllib.parse import quote

from prompt_mamba_arch.app.workshop import Workshop
from prompt_mamba_arch.errors import UserError, plain_line

__all__ = ["create"]

_ASSETS = Path(__file__).with_name("assets")
_SWEEP = 20.0  # seconds
_GRACE = 300.0  # seconds that an upload may wait to be read
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create(workshop: Workshop):
    """The page as an ASGI application, for any server of those. It deletes the photographs when it is shut down.

    Raises:
        UserError: Gradio is not installed.
    """
    uploads = workshop.sessions.folder / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # read when the page is built
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio as gr
        from fastapi import FastAPI
        from fastapi.responses import FileResponse, PlainTextResponse, Response
    except ImportError as error:
        raise UserError(
            f"the page needs Gradio ({error}); install it with: pip install 'prompt-mamba-arch[app]'"
        ) from None
    from prompt_mamba_arch.app.page import build

    stop = threading.Event()

    @contextlib.asynccontextmanager
    async def life(app):
        sweeper = threading.Thread(target=_sweep, args=(workshop, uploads, stop), daemon=True)
        sweeper.start()
        try:
            yield
        finally:
            stop.set()
            workshop.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/pictures/{name}")
    def picture(name: str) -> Response:
        path = workshop.sessions.picture(name)
        if path is None or not path.is_file():
            return PlainTextResponse("there is no such picture any more", 404, _HEADERS)
        return FileResponse(path, media_type="image/jpeg", headers=_HEADERS)

    @app.get("/downloads/{name}")
    def download(name: str) -> Response:
        picture, suffix = os.path.splitext(name)
        session = workshop.sessions.with_shown(picture)
        if session is None:
            return PlainTextResponse("that result is not there any more; make it again", 404, _HEADERS)
        try:
            path, lost = session.write(suffix.lower())
        except (UserError, OSError, MemoryError) as error:
            return PlainTextResponse(plain_line(error) or "there is not enough memory at present", 409, _HEADERS)
        headers = {**_HEADERS, "X-Not-Kept": quote("; ".join(lost))} if lost else _HEADERS
        return FileResponse(path, filename=session.file_name(suffix), headers=headers)

    @app.get("/stage/{name}")  # Gradio has /assets
    def asset(name: str) -> Response:
        if name not in ("stage.js", "stage.css"):
            return PlainTextResponse("there is no such file", 404)
        return FileResponse(_ASSETS / name, headers={"X-Content-Type-Options": "nosniff"})

    @app.get("/healthz")
    def health() -> dict:
        return {"people": len(workshop.sessions)}

    fonts = ["system-ui", "sans-serif"]
    theme = gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])  # none from elsewhere
    head = '<link rel="stylesheet" href="stage/stage.css"><script defer src="stage/stage.js"></script>'
    return gr.mount_gradio_app(
        app, build(workshop), path="/", max_file_size=workshop.limits.upload_bytes, show_error=True, footer_links=[],
        run_history=False, ssr_mode=False, mcp_server=False, pwa=False, theme=theme, head=head,
    )  # fmt: skip


def _sweep(workshop: Workshop, uploads: Path, stop: threading.Event) -> None:
    """Until `stop`: deletes what nobody touches, and uploads that were never read."""
    while not stop.wait(_SWEEP):
        workshop.sessions.sweep()
        old = time.time() - _GRACE
        with contextlib.suppress(OSError):  # a folder that is gone while it is looked through
            for path in uploads.rglob("*"):
                with contextlib.suppress(OSError):  # in use, or gone
                    if path.stat().st_mtime < old:
                        path.rmdir() if path.is_dir() else path.unlink()
