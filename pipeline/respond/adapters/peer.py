"""A gateway's API as the adapters call it: typed answers, and every way of not getting one said in words.

What stops an attempt is raised as `Stop` inside of an adapter and never leaves it (`attempted`). Words are ours alone:
no part of an answer's body, of a header or of a credential is ever in them, nor in a metric.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, TryAgain
from pipeline.respond.delivery.address import AddressError, LookUp, system_look_up
from pipeline.respond.delivery.caller import Answer, Caller

T = TypeVar("T")
MAX_ANSWER_BYTES: Final = 4 << 20  # lists of plug-ins
Sign = Callable[[str, str, bytes], Mapping[str, str]]
"""Method, path with query and body to the headers that carry the credential."""


class Stop(Exception):
    """An attempt's end, on its way out of the adapter."""

    def __init__(self, answer: Outcome | TryAgain | NoteFirst) -> None:
        super().__init__(answer.words)
        self.answer = answer


async def attempted(steps: Awaitable[Outcome]) -> Outcome | TryAgain | NoteFirst:
    """The outcome of an adapter's steps, whether they went to their end or were stopped."""
    try:
        return await steps
    except Stop as stop:
        return stop.answer


async def ailments(*steps: Awaitable[None]) -> list[str]:
    """What went wrong in some checks, one line each; for `Adapter.check`."""
    found = []
    for step in steps:
        try:
            await step
        except Stop as stop:
            found.append(stop.answer.words)
    return found


def refuse(words: str) -> Stop:
    """It is not done, and not for lack of trying."""
    return Stop(Outcome("failed", words, "refused"))


def done(words: str, before: str = "", new_key_id: str = "") -> Outcome:
    """It is so now."""
    return Outcome("done", words, "done", before, new_key_id)


class Peer:
    """One server's API. Raises `ConfigError` where its URL or CA file can't be used. `name` is the metric's label."""

    def __init__(
        self,
        name: str,
        url: str,
        sign: Sign,
        timeouts_s: tuple[float, float],
        *,
        allow_private: bool,
        ca_file: str = "",
        look_up: LookUp = system_look_up,
    ) -> None:
        self.name, self._sign = name, sign
        connect_s, total_s = timeouts_s
        try:
            self._caller = Caller(
                url.rstrip("/"), connect_s, total_s, allow_private=allow_private, tls_only=True, look_up=look_up,
                tls=_trust(ca_file), max_answer_bytes=MAX_ANSWER_BYTES,
            )  # fmt: skip
        except (AddressError, OSError) as error:
            raise ConfigError(f"respond.adapters.{name}: {error}") from error

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return self._caller.url

    async def call(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> Answer:
        """One request, whatever comes of it."""
        with METRICS.adapter_seconds.labels(self.name).time():
            headers = {"Content-Type": kind} if body else {}
            headers |= self._sign(method, path, body)
            answer = await self._caller.call(method, headers, body or None, path)
        METRICS.adapter_calls.labels(self.name, answer.outcome).inc()
        return answer

    async def ask(self, type_: type[T], method: str, path: str, body: Any = None) -> T:
        """The answer's JSON as a type. Raises `Stop` for anything but a 2xx that can be read."""
        answer = await self.call(method, path, b"" if body is None else msgspec.json.encode(body))
        if not answer.ok:
            raise self.stopped(answer)
        return self.read(answer, type_)

    async def find(self, type_: type[T], path: str) -> T | None:
        """The same for a GET whose 404 means that there is none."""
        answer = await self.call("GET", path)
        if answer.status == 404:
            return None
        if not answer.ok:
            raise self.stopped(answer)
        return self.read(answer, type_)

    def read(self, answer: Answer, type_: type[T]) -> T:
        """The answer's JSON as a type. Raises `Stop`."""
        try:
            return msgspec.json.decode(answer.body, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Stop(
                Outcome("failed", f"{self.name} answered {answer.status} with what is no answer", "failed")
            ) from None

    def stopped(self, answer: Answer) -> Stop:
        """What an answer that is no success means."""
        if answer.passing:
            return Stop(TryAgain(f"{self.name} {answer.words}", answer.retry_after_s))
        words = f"{self.name} {answer.words}"
        if answer.status in (401, 403):
            words += ": its credential is wrong or lacks the right"
        return Stop(Outcome("failed", words, "failed"))


def _trust(ca_file: str) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=ca_file) if ca_file else None


def noted(intent: Intent, before: str) -> str:
    """What was there, as noted before anything was changed. Raises `Stop` to have `before` noted where nothing is yet.

    For peers that have no place for a mark of ours: an attempt that goes on after a crash could not know its own work.
    """
    if not intent.before:
        raise Stop(NoteFirst(before))
    return intent.before


def mark(intent: Intent) -> str:
    """16 hex digits that name an act on the peer's side: a resumed attempt knows its own work by them."""
    return hashlib.sha256(intent.act_id.encode()).hexdigest()[:16]


def recalled(before: str, type_: type[T], what: str) -> T:
    """The undo's `before` as its adapter's type. Raises `Stop` where there is none."""
    try:
        return msgspec.json.decode(before, type=type_)
    except msgspec.MsgspecError:
        raise refuse(f"what was before is not known: {what} by hand") from None
