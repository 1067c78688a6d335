"""Tyk: keys of a gateway in hash mode, by its own API (`/tyk/keys/{hash}?hashed=true`, header `x-tyk-authorization`).

A key is known to us by its hash, as Tyk's analytics have it (`intake.key_field = "hash"`); a gateway that does not hash
its keys is refused, since there the id in our stream would be the key. Tyk keeps one session per key, which is read,
changed and written whole:

- suspend, revoke: `is_inactive`. A revoked key stays, inactive; delete it by hand after 30 days.
- throttle: `rate`, `per` and `allowance`. Refused where a policy or a limit per API rules instead of the session's.
- fence is not supported: Tyk's lists of addresses belong to an API, not to a key, and would hit every other key of it.
- deny is not supported: a session whose last access right is taken may use every API (`allow_master_keys`).

What we did stands in the session's `meta_data` (`keywatch`), so that a resumed attempt knows its own work, and it goes
with the undo. `suppress_reset=1` keeps the quota as used as it was. Source: TykTechnologies/tyk 31e219beb,
gateway/api.go, user/session.go, internal/policy/apply.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, Support, TryAgain
from pipeline.respond.adapters.peer import Peer, ailments, attempted, done, mark, recalled, refuse
from pipeline.respond.adapters.settings import Tyk
from pipeline.respond.delivery.address import LookUp, system_look_up
from schemas.incident import Rung

Session = dict[str, Any]
MARK: Final = "keywatch"
_HASH: Final = re.compile(r"^[0-9a-f]{8,64}$")  # murmur32, murmur64, murmur128 or sha256
_UNKNOWN_HASH: Final = "00000000"
_NOT_HASHED: Final = (
    "tyk does not hash its keys, so that the id in the stream would be the key itself: set hash_keys in tyk.conf and "
    "issue new keys"
)


class Before(msgspec.Struct, frozen=True):
    """Fields as they were, and as we set them; None is absent."""

    was: dict[str, Any]
    set: dict[str, Any]


def matrix(settings: Tyk) -> Mapping[Rung, Support]:
    """What it can do; a rung that is absent is not supported."""
    delay_s = settings.delay_s
    return {
        "throttle": Support("key", delay_s, undo=True),
        "suspend": Support("key", delay_s, undo=True),
        "revoke": Support("key", delay_s, undo=False),
    }


class TykAdapter:
    """Sessions of one gateway."""

    name = "tyk"

    def __init__(self, settings: Tyk, timeouts_s: tuple[float, float], look_up: LookUp = system_look_up) -> None:
        def sign(method: str, path: str, body: bytes) -> Mapping[str, str]:
            return {"x-tyk-authorization": settings.secret.reveal()}

        self._peer = Peer(
            self.name, settings.url, sign, timeouts_s, allow_private=settings.allow_private, ca_file=settings.ca_file,
            look_up=look_up,
        )  # fmt: skip
        self.matrix = matrix(settings)

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        """One reading and at most one writing of the session."""
        return await attempted(self._undo(intent) if intent.direction == "undo" else self._apply(intent))

    async def check(self) -> list[str]:
        """Whether it answers, believes us, and hashes its keys. The right to change keys is that of its one secret."""

        async def hashes() -> None:
            await self._session(_UNKNOWN_HASH)

        return await ailments(hashes())

    async def _apply(self, intent: Intent) -> Outcome:
        session = await self._session(intent.key_id)
        if session is None:
            if intent.rung == "throttle":
                raise refuse("tyk knows no such key")
            return done("tyk knows no such key")
        ours = _ours(session)
        if intent.rung in ours and ours[intent.rung]["act"] == mark(intent):
            return done("it was so already", _text(ours[intent.rung]))
        if intent.rung in ours:
            raise refuse(f"{intent.rung} is in force by an earlier act: undo that first")
        wanted = _wanted(intent, session)
        if not ours and all(session.get(name) == value for name, value in wanted.items()):
            return done("it was so already")
        before = {name: session.get(name) for name in wanted}
        entry = {"act": mark(intent), "was": before, "set": wanted}
        await self._write(intent.key_id, session | wanted, ours | {intent.rung: entry})
        return done(f"{intent.rung} is set", _text(entry))

    async def _undo(self, intent: Intent) -> Outcome:
        session = await self._session(intent.key_id)
        if session is None:
            raise refuse("tyk knows no such key any more")
        ours = _ours(session)
        if not intent.before and intent.rung not in ours:
            return done("nothing of ours is there")
        text = intent.before or _text(ours[intent.rung])
        before = recalled(text, Before, "restore the key")
        rest = {rung: entry for rung, entry in ours.items() if rung != intent.rung}
        now = {name: _plain(session.get(name)) for name in before.set}
        if now == {name: _plain(value) for name, value in before.was.items()} and intent.rung not in ours:
            return done("it was so already")
        if later := [rung for rung, entry in rest.items() if entry["set"].keys() & before.set.keys()]:
            raise refuse(f"{later[0]} holds it: undo that first")
        if now != {name: _plain(value) for name, value in before.set.items()}:
            raise refuse("somebody changed the key meanwhile: restore it by hand")
        restored = {name: value for name, value in session.items() if name not in before.was}
        restored |= {name: value for name, value in before.was.items() if value is not None}
        await self._write(intent.key_id, restored, rest)
        return done("restored as it was")

    async def _session(self, key_hash: str) -> Session | None:
        if not _HASH.fullmatch(key_hash):
            raise refuse("the id is no hash of a Tyk key")
        answer = await self._peer.call("GET", _path(key_hash))
        if answer.status == 400:
            raise refuse(_NOT_HASHED)
        if answer.status == 404:
            return None
        if not answer.ok:
            raise self._peer.stopped(answer)
        return self._peer.read(answer, Session)

    async def _write(self, key_hash: str, session: Session, ours: dict[str, Any]) -> None:
        meta = {name: value for name, value in (session.get("meta_data") or {}).items() if name != MARK}
        meta |= {MARK: ours} if ours else {}
        written = {name: value for name, value in session.items() if name != "meta_data"} | (
            {"meta_data": meta} if meta else {}
        )
        await self._peer.ask(dict[str, Any], "PUT", f"{_path(key_hash)}&suppress_reset=1", written)


def _path(key_hash: str) -> str:
    return f"/tyk/keys/{key_hash}?hashed=true"


def _ours(session: Session) -> dict[str, Any]:
    found = (session.get("meta_data") or {}).get(MARK)
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """Tyk leaves out what is zero: 0, false and absent are one."""
    return value or None


def _wanted(intent: Intent, session: Session) -> dict[str, Any]:
    if intent.rung != "throttle":
        return {"is_inactive": True}
    if session.get("apply_policies") or session.get("apply_policy_id"):
        raise refuse("its rate comes from a policy: the session's own would have no effect")
    if any((right or {}).get("limit", {}).get("rate") for right in (session.get("access_rights") or {}).values()):
        raise refuse("it has limits per API: the session's own would have no effect")
    if intent.limit_per_s <= 0:
        raise refuse("a throttle needs a limit above 0")
    rate, per = float(session.get("rate") or 0), float(session.get("per") or 0)
    if rate > 0 and per > 0 and rate / per <= intent.limit_per_s:
        return {"rate": session["rate"], "per": session["per"]}  # narrow enough: never widened
    rate = round(intent.limit_per_s * 60)
    return {"rate": max(rate, 1), "per": 60, "allowance": max(rate, 1)}


def _text(entry: dict[str, Any]) -> str:
    return msgspec.json.encode({"was": entry["was"], "set": entry["set"]}).decode()
