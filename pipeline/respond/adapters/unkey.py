"""Unkey: API v2 with a root key that may read, update and (for rotate) create and delete keys of its APIs.

- suspend, revoke: `keys.updateKey`, enabled = false. A revoked key stays, disabled; delete it by hand after 30 days.
- throttle: one more rate limit of ours, applied by itself at each verification, beside those that the key has.
- rotate: `keys.rerollKey`: a new key with the old one's permissions, limits and identity; the old one expires at the
  end of the overlap. Unkey shows the new secret once; it goes into a file of `handover_dir` and nowhere else. The undo
  deletes the new key (softly) and gives the old one its end back.
- fence and deny are not supported: a key has no networks, and its permissions may come by roles that others share.

What we did stands in the key's `meta` (`keywatch`), so that a resumed attempt knows its own work; verification shows
`meta` to the API that asks, so it holds ids of acts and nothing else. Disabling took up to 60 s in unkeyed/unkey#2587.
Source: unkeyed/unkey fc99b6b925, svc/api/openapi/spec/paths/v2/keys.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, Support, TryAgain
from pipeline.respond.adapters.peer import Peer, Stop, ailments, attempted, done, mark, recalled, refuse
from pipeline.respond.adapters.settings import Unkey
from pipeline.respond.delivery.address import LookUp, system_look_up
from schemas.incident import Rung

MARK: Final = "keywatch"
LIMIT_NAME: Final = "keywatch"
_KEY_ID: Final = re.compile(r"^[A-Za-z0-9_]{3,255}$")
_UNKNOWN_KEY: Final = "key_keywatch_check"


class Limit(msgspec.Struct, frozen=True, rename="camel"):
    """A rate limit as updateKey takes it; getKey's has an id beside."""

    name: str
    limit: int
    duration: int  # milliseconds
    auto_apply: bool


class Found(msgspec.Struct, frozen=True, rename="camel"):
    """What we read of a key. Its secret is never asked for."""

    key_id: str
    enabled: bool
    meta: dict[str, Any] = {}
    expires: int = 0
    ratelimits: tuple[Limit, ...] = ()


class Rerolled(msgspec.Struct, frozen=True, rename="camel"):
    """The new key; `key` is its secret and leaves by the handover file alone."""

    key_id: str
    key: str

    def __repr__(self) -> str:
        return f"Rerolled({self.key_id!r}, ********)"


class _GetKey(msgspec.Struct, frozen=True):
    data: Found


class _RerollKey(msgspec.Struct, frozen=True):
    data: Rerolled


class _Nothing(msgspec.Struct, frozen=True):
    pass


class Before(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the undo restores, by rung: enabled; or the limit that was added; or the old end and the new key."""

    enabled: bool = True
    limit: Limit | None = None
    expires: int = 0
    new_key_id: str = ""


def matrix(settings: Unkey) -> Mapping[Rung, Support]:
    """What it can do; a rung that is absent is not supported. Rotate needs a place for the new secret."""
    delay_s = settings.delay_s
    rotate: dict[Rung, Support] = (
        {"rotate": Support("key", delay_s, undo=True, ends_old="gateway")} if settings.handover_dir else {}
    )
    return {
        "throttle": Support("key", delay_s, undo=True),
        "suspend": Support("key", delay_s, undo=True),
        **rotate,
        "revoke": Support("key", delay_s, undo=False),
    }


class UnkeyAdapter:
    """Keys of one workspace."""

    name = "unkey"

    def __init__(
        self,
        settings: Unkey,
        timeouts_s: tuple[float, float],
        look_up: LookUp = system_look_up,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        def sign(method: str, path: str, body: bytes) -> Mapping[str, str]:
            return {"Authorization": f"Bearer {settings.root_key.reveal()}"}

        self._settings, self._now_s = settings, now_s
        self._peer = Peer(
            self.name, settings.url, sign, timeouts_s, allow_private=settings.allow_private, ca_file=settings.ca_file,
            look_up=look_up,
        )  # fmt: skip
        self.matrix = matrix(settings)

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        """One reading and at most two writings."""
        return await attempted(self._undo(intent) if intent.direction == "undo" else self._apply(intent))

    async def check(self) -> list[str]:
        """Whether the root key may read keys; the right to update them can't be asked for without updating one."""

        async def reads() -> None:
            await self._key(_UNKNOWN_KEY)

        async def hands_over() -> None:
            folder = self._settings.handover_dir
            if folder and not os.access(folder, os.W_OK | os.X_OK):
                raise refuse(f"unkey: handover_dir {folder} can't be written to")

        return await ailments(reads(), hands_over())

    async def _apply(self, intent: Intent) -> Outcome:
        key = await self._key(intent.key_id)
        if key is None:
            if intent.rung in ("suspend", "revoke"):
                return done("unkey knows no such key")
            raise refuse("unkey knows no such key")
        ours = _ours(key)
        entry = ours.get(intent.rung)
        if entry and entry["act"] == mark(intent):
            return self._again(intent, entry)
        if entry:
            raise refuse(f"{intent.rung} is in force by an earlier act: undo that first")
        if intent.rung == "rotate":
            return await self._rotate(intent, key)
        if intent.rung == "throttle":
            return await self._throttle(intent, key)
        if not key.enabled and not ours:
            return done("it was so already")
        before = Before(enabled=key.enabled)
        await self._update(
            key.key_id, {"enabled": False, "meta": _meta(key, ours | {intent.rung: _entry(intent, before)})}
        )
        return done("disabled", _text(before))

    def _again(self, intent: Intent, entry: dict[str, Any]) -> Outcome:
        before = msgspec.convert(entry["before"], Before)
        if intent.rung == "rotate" and not before.new_key_id:
            raise refuse(
                "a new key was made, but its secret got lost on the way: delete it by hand, then rotate by hand"
            )
        return done("it was so already", _text(before), before.new_key_id)

    async def _throttle(self, intent: Intent, key: Found) -> Outcome:
        if any(each.name == LIMIT_NAME for each in key.ratelimits):
            raise refuse(f"the key has a rate limit '{LIMIT_NAME}' that is not of this act")
        if intent.limit_per_s <= 0:
            raise refuse("a throttle needs a limit above 0")
        limit = Limit(LIMIT_NAME, max(1, round(intent.limit_per_s * 60)), 60_000, auto_apply=True)
        before = Before(limit=limit)
        await self._update(key.key_id, {
            "ratelimits": [*key.ratelimits, limit],
            "meta": _meta(key, _ours(key) | {"throttle": _entry(intent, before)}),
        })  # fmt: skip
        return done("one more rate limit", _text(before))

    async def _rotate(self, intent: Intent, key: Found) -> Outcome:
        """The mark goes first: if the answer gets lost the secret is lost with it, and no second key is made."""
        ours, pending = _ours(key), Before(expires=key.expires)
        await self._update(key.key_id, {"meta": _meta(key, ours | {"rotate": _entry(intent, pending)})})
        overlap_s = max(0.0, intent.until_s - self._now_s()) if intent.until_s else self._settings.overlap_s
        body = {"keyId": key.key_id, "expiration": int(overlap_s * 1000)}
        new = (await self._peer.ask(_RerollKey, "POST", "/v2/keys.rerollKey", body)).data
        hand_over(Path(self._settings.handover_dir), new)
        await self._update(new.key_id, {"meta": _meta(key, {})})  # a reroll copies meta: our mark is not the new key's
        before = Before(expires=key.expires, new_key_id=new.key_id)
        await self._update(key.key_id, {"meta": _meta(key, ours | {"rotate": _entry(intent, before)})})
        return done(f"new key {new.key_id}, its secret is in handover_dir", _text(before), new.key_id)

    async def _undo(self, intent: Intent) -> Outcome:
        key = await self._key(intent.key_id)
        if key is None:
            raise refuse("unkey knows no such key any more")
        ours = _ours(key)
        if not intent.before and intent.rung not in ours:
            return done("nothing of ours is there")
        text = intent.before or msgspec.json.encode(ours[intent.rung]["before"]).decode()
        before = recalled(text, Before, "restore the key")
        rest = {rung: entry for rung, entry in ours.items() if rung != intent.rung}
        if intent.rung not in ours:
            if not _is_restored(intent.rung, key, before):
                raise _changed()
            return done("it was so already")
        if intent.rung == "rotate":
            if before.new_key_id:
                await self._delete(before.new_key_id)
            await self._update(key.key_id, {"expires": before.expires or None, "meta": _meta(key, rest)})
            if not before.new_key_id:  # the old one must not end: that is restored in any case
                return done("restored, but a new key may have been made whose id is not known: delete it by hand")
        elif intent.rung == "throttle":
            if before.limit not in key.ratelimits:
                raise _changed()
            kept = [each for each in key.ratelimits if each != before.limit]
            await self._update(key.key_id, {"ratelimits": kept, "meta": _meta(key, rest)})
        elif key.enabled:
            raise _changed()
        elif "revoke" in rest:
            raise refuse("revoke holds it: enable it by hand")
        else:
            await self._update(key.key_id, {"enabled": before.enabled, "meta": _meta(key, rest)})
        return done("restored as it was")

    async def _key(self, key_id: str) -> Found | None:
        if not _KEY_ID.fullmatch(key_id):
            raise refuse("the id is none of an Unkey key")
        answer = await self._peer.call(
            "POST", "/v2/keys.getKey", msgspec.json.encode({"keyId": key_id, "decrypt": False})
        )
        if answer.status == 404:
            return None
        if not answer.ok:
            raise self._peer.stopped(answer)
        return self._peer.read(answer, _GetKey).data

    async def _update(self, key_id: str, changes: dict[str, Any]) -> None:
        await self._peer.ask(_Nothing, "POST", "/v2/keys.updateKey", {"keyId": key_id, **changes})

    async def _delete(self, key_id: str) -> None:
        answer = await self._peer.call(
            "POST", "/v2/keys.deleteKey", msgspec.json.encode({"keyId": key_id, "permanent": False})
        )
        if not answer.ok and answer.status != 404:
            raise self._peer.stopped(answer)


def hand_over(folder: Path, new: Rerolled) -> None:
    """Write the new secret where its owner fetches it, readable by the owner of the process alone, whole or not."""
    if not _KEY_ID.fullmatch(new.key_id):
        raise refuse("unkey named the new key in a way that is no file name: its secret is lost")
    partial = folder / f".{new.key_id}.partial"
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(new.key)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(folder / new.key_id)
    except OSError as error:
        words = (
            f"new key {new.key_id} was made, but handover_dir can't be written ({error.strerror}): its secret is lost"
        )
        raise Stop(Outcome("failed", words, "failed", new_key_id=new.key_id)) from None


def _ours(key: Found) -> dict[str, Any]:
    found = key.meta.get(MARK)
    return found if isinstance(found, dict) else {}


def _meta(key: Found, ours: dict[str, Any]) -> dict[str, Any] | None:
    """The owner's with ours, or null where nothing is left."""
    rest = {name: value for name, value in key.meta.items() if name != MARK}
    return rest | ({MARK: ours} if ours else {}) or None


def _entry(intent: Intent, before: Before) -> dict[str, Any]:
    return {"act": mark(intent), "before": msgspec.to_builtins(before)}


def _is_restored(rung: Rung, key: Found, before: Before) -> bool:
    if rung == "suspend":
        return key.enabled == before.enabled
    if rung == "rotate":
        return key.expires == before.expires  # the new key is deleted before that
    return rung == "throttle" and all(each.name != LIMIT_NAME for each in key.ratelimits)


def _changed() -> Stop:
    return refuse("somebody changed the key meanwhile: restore it by hand")


def _text(before: Before) -> str:
    return msgspec.json.encode(before).decode()
