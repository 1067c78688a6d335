"""`/api/v1`: what programs do at night (a SOAR, a chat bot): see what is done to keys, take an act back, take a case.

A program is one of `[[console.people]]` with `machine = true`. Its token comes with every request, as `Authorization:
Bearer TOKEN`, and opens this and no page; a person's opens pages and not this. Neither cookies nor a proxy's headers
count here, so there is nothing that another site's form could ride on, and no form's token to fetch first.

    GET  acts?incident=&key=  viewer     what is under way, in force or waits for people, the oldest first
    GET  acts/ID              viewer     one act by its whole response id: `stage` and `undo` say how far it is
    POST acts/ID/undo         responder  {"reason": "..."}: 202 asked for, the responder does it; 200 it is undone
    GET  cases                viewer     those that are not closed, who waits longest first
    POST cases/ID/ack         responder  {"reason": "..."} or {}: 200

What is so already is answered alike and not said again, so every call may be repeated. Any other answer is
{"error": what is wrong, "do": what to do about it}. Each call is a row of `console_log`, as a click is (of callers
whom nobody knows 60 a minute).
"""

from __future__ import annotations

import logging
import time
from asyncio import sleep as pause
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.console.answers import Answers
from pipeline.console.board import Board
from pipeline.console.bodies import body_of
from pipeline.console.people import Door
from pipeline.console.visitor import Role, Visitor
from pipeline.errors import Fatal, Retry
from pipeline.respond.commands import act_row
from pipeline.respond.ledger.acts import Act
from pipeline.respond.ledger.standing import extend_of
from pipeline.respond.night.desk import case_row
from pipeline.respond.undoing import WRONGLY_REVOKED

log = logging.getLogger(__name__)

ROOT: Final = "/api/v1"
MAX_BODY_BYTES: Final = 4096
MOST: Final = 1000
AGAIN: Final = {"Retry-After": "5"}
REFUSED: Final = {401: {"WWW-Authenticate": 'Bearer realm="keywatch"'}, 503: AGAIN}
HOW_TO_COME_IN: Final = (
    "send Authorization: Bearer TOKEN, the token of one of [[console.people]] with machine = true; "
    "cookies and people's own tokens open pages only"
)
ADDRESSES: Final = "GET acts, GET acts/ID, POST acts/ID/undo, GET cases, POST cases/ID/ack, each below /api/v1/"
_INSTEAD: Final = {
    "revoke": WRONGLY_REVOKED,
    "open": "it is being carried out just now: ask again in some seconds",
    "pending": "nothing has been done yet: decline it in the console or by `keywatch respond refuse`",
}


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a POST."""

    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class Told(msgspec.Struct, frozen=True):
    """An answer. `words`: for the log."""

    status: int
    body: dict[str, Any]
    words: str = ""


Work = Callable[[Request, Said, Visitor, Board], Awaitable[Told]]


class Api:
    """The addresses. `board`: what reads and writes the decisions topic, None while it can't."""

    def __init__(self, door: Door, answers: Answers, board: Callable[[], Board | None]) -> None:
        self._door, self._answers, self._board = door, answers, board

    def routes(self) -> list[Route]:
        """For the console's application. What else is asked below `ROOT` is answered in words, too."""
        get, post = ["GET"], ["POST"]
        return [
            Route(ROOT + "/acts", self._call("viewer", _acts), methods=get),
            Route(ROOT + "/acts/{name}", self._call("viewer", _act), methods=get),
            Route(ROOT + "/acts/{name}/undo", self._call("responder", _undo), methods=post),
            Route(ROOT + "/cases", self._call("viewer", _cases), methods=get),
            Route(ROOT + "/cases/{name}/ack", self._call("responder", _ack), methods=post),
            Route(ROOT + "/{rest:path}", self._call("viewer", _nowhere), methods=["GET", "POST", "PUT", "DELETE"]),
        ]

    def _call(self, role: Role, work: Work) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visitor = self._door.machine(request.headers.get("authorization", ""))
            try:
                told = await self._answer(request, visitor, role, work)
            except Exception as error:  # what was done before it is to be on record all the same
                log.exception("%s %r", request.method, request.scope["path"])
                told = no(500, f"an error of the console's own: {type(error).__name__}", "its log has more")
            address = self._door.address_of(request.headers, request.client.host if request.client else "")
            return Response(
                msgspec.json.encode(told.body), told.status, REFUSED.get(told.status), "application/json",
                BackgroundTask(
                    self._answers.noted, visitor, request.method, request.scope["path"], told.status, address,
                    told.words,
                ),
            )  # fmt: skip

        return answer

    async def _answer(self, request: Request, visitor: Visitor | None, role: Role, work: Work) -> Told:
        if visitor is None:
            await self._door.hold_up(pause)
            return no(401, "the token is missing, wrong, or a person's", HOW_TO_COME_IN)
        if not visitor.may(role):
            return no(
                403, f"this needs the role {role}, yours is {visitor.role}", "have an admin change console.people"
            )
        said = await _said(request)
        if isinstance(said, Told):
            return said
        board = self._board()
        if board is None:
            return no(
                503, "the decisions topic can't be read just now", "send it again: the console finds it by itself"
            )
        try:
            return await work(request, said, visitor, board)
        except (Retry, Fatal) as error:
            return no(503, str(error), "send it again: what was taken is not done twice")


def no(status: int, error: str, do: str) -> Told:
    """What is wrong, and what to do."""
    return Told(status, {"error": error, "do": do}, error)


async def _said(request: Request) -> Said | Told:
    """What a POST says, or what is wrong with it; no more than `MAX_BODY_BYTES` are ever held."""
    if request.method != "POST":
        return Said()
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return no(415, "the body is no JSON", "send Content-Type: application/json")
    try:
        body = await body_of(request, MAX_BODY_BYTES)
        if body is None:
            return no(413, f"more than {MAX_BODY_BYTES} bytes", 'send {"reason": "..."} and nothing else')
        return msgspec.json.decode(body, type=Said)
    except ClientDisconnect:
        return no(400, "the body did not come whole", "send it again")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return no(400, f"the body: {error}", 'send {"reason": "..."} of at most 1000 characters and nothing else')


async def _acts(request: Request, _: Said, __: Visitor, board: Board) -> Told:
    key, incident = (request.query_params.get(name, "") for name in ("key", "incident"))
    found = board.going_on(incident, key)
    return Told(200, {"acts": [_told(act, board) for act in found[:MOST]], "more": max(0, len(found) - MOST)})


async def _act(request: Request, _: Said, __: Visitor, board: Board) -> Told:
    act = board.act(request.path_params["name"])
    return Told(200, _told(act, board)) if act else _unknown_act()


async def _undo(request: Request, said: Said, visitor: Visitor, board: Board) -> Told:
    act = board.act(request.path_params["name"])
    if act is None:
        return _unknown_act()
    if not _is_taken(act):
        if not said.reason.strip():
            return no(400, "say why: the next one on call will ask", 'send {"reason": "..."}')
        verdict = await board.take_back(act, said.reason, visitor.name)
        if not verdict.granted and not _is_taken(act):  # else another was quicker with the same wish
            return no(409, f"not undone: {verdict.reason}", _instead(act))
    if act.stage == "undone":
        return Told(200, _told(act, board), "is undone")
    return Told(202, _told(act, board), f"being undone: {said.reason}")


async def _cases(_: Request, __: Said, ___: Visitor, board: Board) -> Told:
    now_us = int(time.time() * 1e6)
    found = board.cases()
    return Told(200, {"cases": [case_row(case, now_us) for case in found[:MOST]], "more": max(0, len(found) - MOST)})


async def _ack(request: Request, said: Said, visitor: Visitor, board: Board) -> Told:
    case = board.case(request.path_params["name"])
    if case is None:
        return no(404, "no case has this id", "GET /api/v1/cases lists them; messages carry theirs as case_id")
    if case.state == "closed":
        return no(409, "the case is closed: nobody waits", "nothing: what goes on opens it again, or a new one")
    taken = await board.say_of_case(case.case_id, "ack", visitor.name, said.reason)
    return Told(
        200, case_row(case, int(time.time() * 1e6)), f"acknowledged: {said.reason}" if taken else "was so already"
    )


async def _nowhere(_: Request, __: Said, ___: Visitor, ____: Board) -> Told:
    return no(404, "nothing is at this address", ADDRESSES)


def _unknown_act() -> Told:
    return no(
        404, "no act has this response id",
        "GET /api/v1/acts?incident=ID lists what is in force; an act that is over is forgotten after a day",
    )  # fmt: skip


def _instead(act: Act) -> str:
    if act.stands and act.used_us:
        return f"put its end off by `{extend_of(act)}`; what deletes a key in use is signed, in a terminal"
    case = "revoke" if act.proposal.rung == "revoke" and act.stage != "pending" else act.stage
    return _INSTEAD.get(case, "nothing: it is not in force")


def _is_taken(act: Act) -> bool:
    """Whether it is undone, or being so: a second wish changes nothing."""
    return act.stage == "undone" or (act.undo is not None and act.undo.stage == "open")


def _told(act: Act, board: Board) -> dict[str, Any]:
    """The fields of `keywatch respond holds -o json`, and what has become of its undo: open, failed, done or ""."""
    undo = {"undo": act.undo.stage, "undo_by": act.undo.asked.by} if act.undo else {"undo": "", "undo_by": ""}
    return {**act_row(act), "outcome": act.outcome, "can_undo": board.can_undo(act), **undo}
