"""`keywatch console`: the night shift's web page. Server-rendered; it reads without JavaScript.

GET pages need a sign-in, POSTs a role and the form's token; programs have addresses of their own (`api.py`). Everything
that is shown is escaped, nothing is loaded from anywhere else, and each request is in `console_log`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import jinja2
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.config.tree import Config
from pipeline.config.tree import Console as Settings
from pipeline.console import acts, board, pagerduty, pages, side
from pipeline.console.answers import Answers
from pipeline.console.api import Api
from pipeline.console.board import Board, Link
from pipeline.console.headers import HERE, Headers, static
from pipeline.console.people import COOKIE, Door
from pipeline.console.renewals import Renewals
from pipeline.console.side import Side
from pipeline.console.visitor import Role, Visitor
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.health import Health, serve
from pipeline.intake.http import is_loopback
from pipeline.metrics import REGISTRY

log = logging.getLogger(__name__)

MAX_FORM_BYTES: Final = 16_384
STOP_S: Final = 5.0
REACH_S: Final = 2.0
"""A page waits so long for what was just said to be read back."""
POLICY: Final[dict[str, Any]] = {"misses": 1, "patience_s": 10.0}
"""Its switches have to be there: it is the first to go without what ClickHouse has."""
_PATH: Final = re.compile(r"/(?![/\\])[!-~]*")
OTHER_SESSION: Final = "this form is of another session: load the page again"
Page = Callable[[Answers, Request], tuple[str, dict[str, Any]] | None]
"""The template's name and what it shows; None where what was asked for is not there."""
Act = Callable[[FormData, Visitor], Awaitable[str]]


class Console:
    """The application's handlers."""

    def __init__(self, config: Config, answers: Answers, door: Door, link: Link) -> None:
        self.config, self.answers, self.door, self.link = config, answers, door, link
        self._renewals = Renewals(door.now_s)
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters.update(
            when=pages.when, ago=pages.ago, number=pages.number, span=pages.span, moment=pages.moment, day=pages.day,
            declared=pages.declared,
        )  # fmt: skip
        self._templates.globals.update(static=static)

    def app(self) -> Starlette:
        """With all routes."""
        get, post = partial(Route, methods=["GET"]), partial(Route, methods=["POST"])
        routes: list[Any] = [
            get("/", self._page(pages.incidents)),
            get("/incidents/{incident}", self._page(pages.incident)),
            get("/incidents/{incident}/now", self._page(pages.incident_now)),
            get("/keys", self._page(pages.keys)),
            get("/keys/{key:path}", self._page(pages.key)),
            get("/manifest/{key:path}", self._page(pages.of_key)),
            get("/policy", self._page(pages.policy)),
            get("/log", self._page(pages.log, "admin")),
            get("/sign-in", self._sign_in_page),
            post("/sign-in", self._sign_in),
            post("/sign-out", self._sign_out),
            post("/incidents/{incident}/judge", self._act("responder", self._judge)),
            post("/mute", self._act("responder", self._mute)),
            post("/unmute", self._act("responder", self._unmute)),
            post("/undo", self._act("responder", self._undo)),
            post("/sign", self._act("responder", self._sign)),
            post("/switch", self._act("admin", self._switch)),
            post("/simulate", self._act("admin", self._simulate)),
            get("/livez", lambda _: PlainTextResponse("ok")),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]
        if secret := self.config.console.pagerduty_secret:
            routes.append(post(pagerduty.PATH, pagerduty.Hook(secret, lambda: self.link.board).post))
        if any(each.machine for each in self.config.console.people):
            routes += Api(self.door, self.answers, lambda: self.link.board).routes()
        app = Starlette(routes=routes, lifespan=self._following)
        app.add_middleware(Headers)
        return app

    @asynccontextmanager
    async def _following(self, _: Starlette) -> AsyncIterator[None]:
        """The topics are followed while the application runs, and found again when they were lost."""
        following = [
            asyncio.create_task(self.link.follow(), name="board"),
            asyncio.create_task(self.answers.side.follow(), name="side"),
            asyncio.create_task(self.answers.reach.follow(), name="reach"),
        ]
        try:
            yield
        finally:
            for task in following:
                task.cancel()
            await asyncio.wait(following, timeout=STOP_S)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _page(self, page: Page, role: Role = "viewer") -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visitor = self._visitor(request)
            if visitor is None:
                return _to_sign_in(request, request.url.path)
            if not visitor.may(role):
                return self._refused(request, visitor, f"this page is for the role {role}, yours is {visitor.role}")
            acts = self._acts(request.path_params.get("incident", ""), visitor)  # here: the ledger is the loop's
            try:
                found, alone = await self._found(page, request)
            except (Retry, Fatal) as error:
                log.warning("no answer for %s: %s", request.url.path, error)
                response = self._without(page, request, visitor, acts)
            else:
                of_page = (found, request, visitor, acts)
                response = self._rendered(*of_page) if alone else await run_in_threadpool(self._rendered, *of_page)
            if not self._renewals.is_known(request, visitor.name, response.status_code):
                response.background = self._noting(request, visitor, response.status_code)
            return response

        return answer

    def _said(self, request: Request, visitor: Visitor) -> str:
        """What this console has answered to this session's form; a link that somebody made says nothing."""
        said, mark = (request.query_params.get(name, "") for name in ("said", "mark"))
        return said if hmac.compare_digest(self.door.mark(visitor, said).encode(), mark.encode()) else ""

    def _acts(self, incident: str, visitor: Visitor) -> dict[str, Any]:
        """What is in force and waits, of one incident or of all."""
        now = self.link.board
        if now is None:
            nothing: dict[str, Any] = {"in_force": [], "waiting": [], "stopped": "", "simulating": "", "breaker": False}
            return {"connected": False, "stage": "", **nothing}
        waiting = [(each, *board.texts(each.ticket, visitor.name)) for each in now.waiting(incident)]
        return {
            "connected": True, "in_force": now.in_force(incident), "waiting": waiting, "stopped": now.stopped,
            "simulating": now.simulating, "breaker": now.breaker, "stage": now.stage(self.config.respond),
        }  # fmt: skip

    async def _found(self, page: Page, request: Request) -> tuple[tuple[str, dict[str, Any]] | None, bool]:
        """What a page shows; and True where it shows what is known without ClickHouse: silent, or not to be waited for.

        No thread for that: those that wait for a silent server may be all there are, and requests would pile up.
        """
        if self.answers.reach.silent:
            return page(self.answers.without(), request), True
        asked = asyncio.ensure_future(run_in_threadpool(page, self.answers, request))
        if await self.answers.reach.outlasts(asked, **(POLICY if page is pages.policy else {})):
            return await asked, False
        return page(self.answers.without(), request), True

    def _without(self, page: Page, request: Request, visitor: Visitor, acts: dict[str, Any]) -> Response:
        """Where ClickHouse is away: what the topics tell, and what can be done. On the loop: the books are its own."""
        now, shown = self.link.board, {"acts": acts, "said": self._said(request, visitor), "at": request.url.path}
        if page is pages.incident:
            case = now.case_of(request.path_params["incident"]) if now else None
            of_key = [each.key_id for each in (*acts["in_force"], *(one for one, *_ in acts["waiting"]))]
            known = pages.incident_without(self.answers, request, case, of_key)
            return self._html("incident_away.html", visitor, 503, **shown, **known)
        cases = now.cases() if now else ()
        if page is pages.key:
            key = request.path_params["key"]
            shown["acts"] = acts | {
                "in_force": [each for each in acts["in_force"] if each.key_id == key],
                "waiting": [each for each in acts["waiting"] if each[0].key_id == key],
            }
            return self._html("key_away.html", visitor, 503, **shown, **pages.key_without(self.answers, request, cases))
        return self._html("away.html", visitor, 503, **shown, cases=pages.case_rows(cases))

    def _rendered(
        self, found: tuple[str, dict[str, Any]] | None, request: Request, visitor: Visitor, acts: dict[str, Any]
    ) -> Response:
        if found is None:
            return self._html("missing.html", visitor, 404, words="There is nothing of this name")
        name, shown = found
        said = self._said(request, visitor)
        return self._html(name, visitor, said=said, acts=acts, at=request.url.path, **shown)

    def _html(self, name: str, visitor: Visitor | None, status: int = 200, **shown: Any) -> Response:
        token = self.door.form_token(visitor) if visitor else ""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        text = self._templates.get_template(name).render(
            **({"at": ""} | shown), visitor=visitor, form_token=token, now=now
        )
        return HTMLResponse(text, status)

    # -- signing in --------------------------------------------------------------------------------------------------

    def _visitor(self, request: Request) -> Visitor | None:
        return self.door.recognise(request.cookies.get(COOKIE, ""), request.headers, _peer(request))

    async def _sign_in_page(self, request: Request) -> Response:
        return self._html("sign_in.html", None, wrong=False, to=_own(request.query_params.get("to", "")))

    async def _sign_in(self, request: Request) -> Response:
        form = await _form(request)
        visitor = self.door.sign_in(str(form.get("token", "")).strip())
        if visitor is None:
            await self.door.hold_up()
            response = self._html("sign_in.html", None, 403, wrong=True, to=_own(_text(form, "to")))
        else:
            response = RedirectResponse(_own(_text(form, "to")), 303)
            response.set_cookie(
                COOKIE, self.door.cookie(visitor), max_age=int(self.config.console.session_s), httponly=True,
                samesite="lax",  # a message's link comes from another site; forms carry a token of their session
                secure=self.config.console.secure_cookie, path="/",
            )  # fmt: skip
        response.background = self._noting(request, visitor, response.status_code, "sign-in")
        return response

    async def _sign_out(self, request: Request) -> Response:
        visitor = self._visitor(request)
        if visitor is not None and not self.door.is_own_form(visitor, _text(await _form(request), "form_token")):
            return self._refused(request, visitor, OTHER_SESSION)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(COOKIE, path="/")
        if visitor is not None:
            response.background = self._noting(request, visitor, 303, "sign-out")
        return response

    # -- acting ------------------------------------------------------------------------------------------------------

    def _act(self, role: Role, act: Callable[[Request, FormData, Visitor], Awaitable[str]]) -> Any:
        async def answer(request: Request) -> Response:
            visitor = self._visitor(request)
            if visitor is None:
                return _to_sign_in(request, "/")
            form = await _form(request)
            if not self.door.is_own_form(visitor, str(form.get("form_token", ""))):
                return self._refused(request, visitor, OTHER_SESSION)
            if not visitor.may(role):
                return self._refused(request, visitor, f"this needs the role {role}, yours is {visitor.role}")
            try:
                said = await act(request, form, visitor)
            except ConfigError as error:
                return self._refused(request, visitor, str(error), 400)
            except (Retry, Fatal) as error:
                return self._refused(request, visitor, f"not done: {error}", 503)
            response = RedirectResponse(_back(_text(form, "back"), said, self.door.mark(visitor, said)), 303)
            response.background = self._noting(request, visitor, 303, said)
            return response

        return answer

    def _refused(self, request: Request, visitor: Visitor, words: str, status: int = 403) -> Response:
        response = self._html("missing.html", visitor, status, words=words)
        response.background = self._noting(request, visitor, status, words)
        return response

    async def _judge(self, request: Request, form: FormData, visitor: Visitor) -> str:
        incident = request.path_params["incident"]
        words = [_text(form, name) for name in ("verdict", "reason", "until")]
        return await acts.judge(self.answers, incident, words[0], words[1], words[2], visitor.name)

    async def _mute(self, request: Request, form: FormData, visitor: Visitor) -> str:
        key, until, reason = (_text(form, name) for name in ("key", "until", "reason"))
        cases = self.link.board.cases() if self.link.board else ()
        known = any(key in case.keys for case in cases)
        words, seq = await acts.mute(self.answers, key, until, reason, visitor.name, known)
        await self.answers.side.reach(seq, REACH_S)
        return words

    async def _unmute(self, request: Request, form: FormData, visitor: Visitor) -> str:
        key, detector, owner = (_text(form, name) for name in ("key", "detector", "owner"))
        words, seq = await acts.unmute(self.config, self.answers.side.controls, (key, detector, owner), visitor.name)
        await self.answers.side.reach(seq, REACH_S)
        return words

    async def _undo(self, request: Request, form: FormData, visitor: Visitor) -> str:
        response, reason = _text(form, "response"), acts.needed(_text(form, "reason"))
        return await self._board().undo(response, reason, visitor.name)

    async def _sign(self, request: Request, form: FormData, visitor: Visitor) -> str:
        ticket, signature, reason = (_text(form, name) for name in ("ticket", "signature", "reason"))
        return await self._board().sign(ticket, _text(form, "yes") == "yes", signature, reason, visitor.name)

    async def _switch(self, request: Request, form: FormData, visitor: Visitor) -> str:
        reason = acts.needed(_text(form, "reason"))
        return await self._board().switch(_text(form, "stop") == "yes", reason, visitor.name)

    async def _simulate(self, request: Request, form: FormData, visitor: Visitor) -> str:
        reason = acts.needed(_text(form, "reason"))
        return await self._board().simulate(_text(form, "on") == "yes", reason, visitor.name)

    def _board(self) -> Board:
        if self.link.board is None:
            raise Retry("the decisions topic can't be read just now: the console tries again by itself")
        return self.link.board

    def _noting(self, request: Request, visitor: Visitor | None, status: int, detail: str = "") -> BackgroundTask:
        address = self.door.address_of(request.headers, _peer(request))
        path = request.scope["path"]  # not of its URL: that has the caller's query, and may not be made of it
        return BackgroundTask(self.answers.noted, visitor, request.method, path, status, address, detail)


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


async def _form(request: Request) -> FormData:
    if int(request.headers.get("content-length") or MAX_FORM_BYTES + 1) > MAX_FORM_BYTES:
        return FormData()
    return await request.form(max_files=0, max_fields=20, max_part_size=MAX_FORM_BYTES)


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip()[:1000] if isinstance(value, str) else ""


def _back(path: str, said: str, mark: str) -> str:
    """The page of this console that the form was on, with what came of it and our mark; never another site's."""
    return f"{_own(path)}?{urlencode({'said': said, 'mark': mark})}"


def _own(path: str) -> str:
    """The path, if it is one of this console: no other site's, nothing that a browser reads as one; else the first."""
    return path if _PATH.fullmatch(path) else "/"


def _to_sign_in(request: Request, to: str) -> Response:
    """The whole browser goes there, also where htmx asked for a part of a page: then it comes back to that page."""
    if "hx-request" in request.headers:
        try:
            to = urlsplit(request.headers.get("hx-current-url", "")).path
        except ValueError:  # no browser says so
            to = "/"
        return Response(status_code=401, headers={"HX-Redirect": f"/sign-in?{urlencode({'to': to})}"})
    return RedirectResponse(f"/sign-in?{urlencode({'to': to})}", 303)


def make_app(
    config: Config, now_s: Callable[[], float] = time.time, link: Link | None = None, of_keys: Side | None = None
) -> Starlette:
    """The console; without a link, or a side, it follows the broker's topics. Raises ConfigError for people in vain."""
    link, of_keys = link or Link(partial(board.connected, config)), of_keys or Side(partial(side.connected, config))
    return Console(config, Answers(config, of_keys), Door(config.console, now_s), link).app()


def main(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Raises ConfigError where others could reach it by plain http."""
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    settings = config.console
    if not is_loopback(settings.host) and not settings.secure_cookie:
        raise ConfigError(
            f"console.host {settings.host} is reached by others: put TLS before it and set console.secure_cookie"
        )
    app = make_app(config)
    log.info("console on http://%s:%d", settings.host, settings.port)
    serving = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=5, limit_concurrency=200,
    )  # fmt: skip
    server = uvicorn.Server(serving)
    with suppress(KeyboardInterrupt):  # SIGINT is an end like any other
        asyncio.run(_watched(server.serve, settings))
    return 0 if server.started else STARTUP_FAILURE


async def _watched(serve_pages: Callable[[], Awaitable[None]], settings: Settings) -> None:
    """The pages, and beside them /metrics, /livez and /readyz for those who look after the process."""
    health = Health(max_poll_s=math.inf)  # it polls nothing
    health.recovered(True)
    watching = await serve(health, REGISTRY, settings.metrics_host, settings.metrics_port, "console")
    try:
        await serve_pages()
    finally:
        await watching.close()
