"""The study's pages: consent, questions, thanks. Plain HTML; works without JavaScript, by keyboard, on phones."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs

from prompt_mamba_arch.errors import UserError
from prompt_mamba_arch.study.materials import INPUT, Materials
from prompt_mamba_arch.study.plan import RATING, SIDES, Design
from prompt_mamba_arch.study.store import Store

__all__ = ["CONSENT", "create"]

CONSENT = """
You will see pictures side by side that different programs have made of the same photo, and be asked which is better.
Some pictures come with the sentence that asked for them.

Taking part is voluntary, and you may stop at any time. You stay anonymous: what is stored is your answers, the time
each took, and when you began, under a random number. No name, no address of your computer, no other data.

You can delete all your answers at the end of each page, as long as you have this browser or your link.
"""

_HERE = Path(__file__).parent
_COOKIE = "participant"
_DAYS = 90
_FORM = 16 << 10  # bytes
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_RATINGS = {"1": "not at all", "2": "a little", "3": "partly", "4": "mostly", "5": "fully"}


def create(
    store: Store, materials: Materials, design: Design, *, cache: Path, consent: str = CONSENT, contact: str = ""
):
    """The study as an ASGI application.

    Args:
        cache: a folder for the pictures as they are shown.
        consent: what participants agree to; paragraphs are separated by empty lines.
        contact: whom they can ask.

    Raises:
        UserError: Starlette or Jinja is not installed.
    """
    try:
        import jinja2
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import Request
        from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles
    except ImportError as error:
        raise UserError(
            f"the study needs {error.name}; install it with: pip install 'prompt-mamba-arch[study]'"
        ) from None
    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True)
    text = f"{consent}\n\nQuestions: {contact}" if contact else consent
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip()) if part]

    count = len(materials.methods)
    comparisons = min(design.comparisons, len(materials.images) * count * (count - 1) // 2) + design.checks
    rated = min(design.ratings, len(materials.prompts) * count)

    def page(name: str, status: int = 200, **values) -> Response:
        return HTMLResponse(pages.get_template(name).render(**values), status, headers=_HEADERS)

    def said(line: str, status: int) -> Response:
        return page("message.html", status, line=line[:1].upper() + line[1:])

    def go(path: str) -> Response:
        return RedirectResponse(path, 303, headers=_HEADERS)

    def who(request: Request) -> int | None:
        token = request.cookies.get(_COOKIE, "")
        return store.participant(token) if token else None

    def remember(response: Response, token: str, request: Request) -> Response:
        response.set_cookie(
            _COOKIE, token, max_age=_DAYS * 86400, httponly=True, samesite="lax", secure=request.url.scheme == "https"
        )
        return response

    async def form(request: Request) -> dict[str, str] | None:
        """None if it is too long."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _FORM:
                return None
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
        return {name: values[0] for name, values in fields.items()}

    def begin_page(request: Request) -> Response:
        if who(request) is not None:
            return go("/question")
        return page("consent.html", paragraphs=paragraphs, comparisons=comparisons, ratings=rated)  # fmt: skip

    async def begin(request: Request) -> Response:
        fields = await form(request)
        if fields is None or fields.get("agree") != "yes":
            return said("to take part, tick the box that says that you agree", 400)
        if await run_in_threadpool(who, request) is not None:  # sent twice
            return go("/question")
        try:
            token = await run_in_threadpool(store.begin, materials, design, text)
        except UserError as error:
            return said(str(error), 403)
        return remember(go("/question"), token, request)

    def resume(request: Request) -> Response:
        token = request.path_params["token"]
        if store.participant(token) is None:
            return said("this link belongs to nobody (any more)", 404)
        return remember(go("/question"), token, request)

    def question(request: Request) -> Response:
        participant = who(request)
        if participant is None:
            return go("/")
        position, total, trial = store.progress(participant)
        link = f"{str(request.base_url).rstrip('/')}/go/{request.cookies[_COOKIE]}"
        if trial is None:
            return page("thanks.html", link=link)
        height, width = materials.shown_size(trial.image)
        return page(
            "question.html", position=position, total=total, rating=trial.kind == RATING, ratings=_RATINGS,
            prompt=materials.prompts.get(trial.image), has_input=materials.has_input(trial.image), link=link,
            width=width, height=height,
        )  # fmt: skip

    async def answer(request: Request) -> Response:
        participant = await run_in_threadpool(who, request)
        if participant is None:
            return go("/")
        fields = await form(request) or {}
        position, taken = fields.get("position", ""), fields.get("milliseconds", "")
        if not re.fullmatch(r"[0-9]{1,6}", position):
            return said("there is no such question", 400)
        milliseconds = int(taken) if re.fullmatch(r"[0-9]{1,9}", taken) else None
        try:
            await run_in_threadpool(store.answer, participant, int(position), fields.get("answer", ""), milliseconds)
        except UserError as error:
            return said(str(error), 400)
        return go("/question")

    def picture(request: Request) -> Response:
        """Of a question of this participant; whose result it is, is nowhere to be seen."""
        participant = who(request)
        position, side = request.path_params["position"], request.path_params["side"]
        trial = None if participant is None else store.trial(participant, min(position, 10**6))
        known = trial is not None and (side == "left" or (side == "right" and trial.kind != RATING))
        if not known and not (trial is not None and side == "input" and materials.has_input(trial.image)):
            return said("there is no such picture", 404)
        method = {"left": trial.left, "right": trial.right, "input": INPUT}[side]
        path = materials.picture(trial.image, method, side in SIDES and trial.spoiled == side, cache)
        # no date and no ETag of the file: they would tell which pictures are the same
        return Response(path.read_bytes(), media_type="image/png", headers=_HEADERS)

    async def withdraw(request: Request) -> Response:
        participant = await run_in_threadpool(who, request)
        if participant is not None:
            await run_in_threadpool(store.withdraw, participant)
        response = said("your answers are deleted; thank you for your time", 200)
        response.delete_cookie(_COOKIE)
        return response

    def icon(request: Request) -> Response:
        return Response(status_code=204)

    def health(request: Request) -> Response:
        begun, finished = store.counts()
        return JSONResponse({"begun": begun, "finished": finished}, headers=_HEADERS)

    def lost(request: Request, error: Exception) -> Response:
        return said("there is no such page", 404)

    return Starlette(
        routes=[
            Route("/", begin_page),
            Route("/begin", begin, methods=["POST"]),
            Route("/go/{token}", resume),
            Route("/question", question),
            Route("/answer", answer, methods=["POST"]),
            Route("/picture/{position:int}/{side}", picture),
            Route("/withdraw", withdraw, methods=["POST"]),
            Route("/healthz", health),
            Route("/favicon.ico", icon),  # browsers ask for it unasked
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        exception_handlers={404: lost},
    )
