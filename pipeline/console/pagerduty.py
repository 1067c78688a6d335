"""`POST /hooks/pagerduty`: what people do with a case in PagerDuty is done to it here, by PagerDuty's V3 webhooks.

`incident.acknowledged` acknowledges the case and `incident.resolved` closes it; `incident.unacknowledged` (its time to
act was over, or somebody gave it back) and `incident.reopened` let it wait again; all else is taken and left alone. A
body counts only if `X-PagerDuty-Signature` holds `v1=` and the HMAC-SHA256, in hex, of its bytes with
`console.pagerduty_secret` (there are several while PagerDuty rotates the secret). Of acknowledging and resolving only
what a person did is taken: our own, which PagerDuty tells us of as well, came through the Events API. That nobody is on
it any more we never say, so whoever says so is believed: at a time-out it is PagerDuty itself. What is older than an
hour is a replay. What is so already is not said again, so the two don't answer each other for ever. 401 signature, 400
no webhook, 503 no decisions topic: PagerDuty sends it again. Source: developer.pagerduty.com, Webhooks v3.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from pipeline.config.tree import Secret
from pipeline.console.board import Board
from pipeline.console.bodies import body_of
from pipeline.respond.delivery.notice import one_line
from pipeline.respond.night.records import Verb

log = logging.getLogger(__name__)

PATH: Final = "/hooks/pagerduty"
SIGNATURE: Final = "X-PagerDuty-Signature"
MAX_BODY_BYTES: Final = 262_144
MAX_AGE_S: Final = 3600.0
MAX_NAME: Final = 64
VERBS: Final[dict[str, Verb]] = {
    "incident.acknowledged": "ack", "incident.resolved": "close", "incident.unacknowledged": "unack",
    "incident.reopened": "reopen",
}  # fmt: skip
ANYBODY: Final = frozenset({"unack", "reopen"})
PERSON: Final = "user_reference"


class _Agent(msgspec.Struct, frozen=True):
    type: str = ""
    summary: str | None = ""


class _Data(msgspec.Struct, frozen=True):
    incident_key: str | None = None  # the `dedup_key` of our event: the case's id


class _Event(msgspec.Struct, frozen=True):
    event_type: str
    occurred_at: str
    agent: _Agent | None = None
    data: _Data = _Data()


class _Webhook(msgspec.Struct, frozen=True):
    event: _Event


class Word(msgspec.Struct, frozen=True):
    """What somebody did with a case in PagerDuty."""

    case_id: str
    verb: Verb
    by: str


def is_signed(body: bytes, header: str, secret: Secret) -> bool:
    """Whether one of the signatures is the secret's over this very body."""
    ours = hmac.new(secret.reveal().encode(), body, hashlib.sha256).hexdigest()
    given = [each.strip() for each in header.split(",")]
    return any(hmac.compare_digest(each.encode(), f"v1={ours}".encode()) for each in given)


def word_of(body: bytes, now_s: float) -> Word | None:
    """None for what is no person's word on a case, or too old. Raises ValueError for what is no webhook."""
    try:
        event = msgspec.json.decode(body, type=_Webhook).event
        age_s = now_s - datetime.fromisoformat(event.occurred_at).timestamp()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("no webhook of PagerDuty's V3") from error
    verb, agent, case_id = VERBS.get(event.event_type), event.agent, event.data.incident_key or ""
    person = agent is not None and agent.type == PERSON
    if verb is None or abs(age_s) > MAX_AGE_S or not (person or verb in ANYBODY):
        return None
    who = agent.summary or "somebody" if agent and person else "a time-out"
    return Word(case_id, verb, one_line(f"{who} in PagerDuty", MAX_NAME))


class Hook:
    """The endpoint. `board`: what writes to the decisions topic, None while it can't."""

    def __init__(
        self, secret: Secret, board: Callable[[], Board | None], now_s: Callable[[], float] = time.time
    ) -> None:
        self._secret, self._board, self._now_s = secret, board, now_s

    async def post(self, request: Request) -> Response:
        """One webhook."""
        try:
            body = await body_of(request, MAX_BODY_BYTES)
        except ClientDisconnect:
            return PlainTextResponse("the body did not come whole", 400)
        if body is None:
            return PlainTextResponse(f"more than {MAX_BODY_BYTES} bytes", 413)
        if not is_signed(body, request.headers.get(SIGNATURE, ""), self._secret):
            return PlainTextResponse("the signature is missing or wrong", 401)
        try:
            word = word_of(body, self._now_s())
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        board = self._board()
        if word is not None and board is None:
            return PlainTextResponse("the decisions topic can't be written", 503, {"Retry-After": "30"})
        if word is not None and board is not None and await board.say_of_case(word.case_id, word.verb, word.by):
            log.info("%s: %s by %s", word.case_id, word.verb, word.by)
        return PlainTextResponse("taken")
