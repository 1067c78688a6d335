"""The generic adapter: one signed webhook to the service that owns the keys. Every rung, if that service can.

**The contract.** A POST signed as Standard Webhooks 1.0.0 says, its type `key.<rung>` or `key.<rung>.undo`, with

    {"type": "key.fence", "timestamp": "<when it was granted>", "data": {
        "key_id", "key_version", "incident_id", "response_id", "rung", "reason",
        "until"?: RFC 3339, when it ends by itself (rotate: the old key's end)
        "networks"?: [CIDR], fence: where the key goes on working
        "scopes"?: [text], deny                       "limit_per_s"?: number, throttle
        "before"?: text, undo: what you answered when it was applied}}

and the header `Idempotency-Key`, the same at every attempt. It names a state to be set, not an event: what is so
already is `done`, what is so no more is set again. The answer is 2xx with

    {"status": "revoked" | "scheduled" | "refused" | "done", "before"?: text, "new_key_id"?: text, "reason"?: text}

`before` (at most `MAX_BEFORE` characters, never a secret: it is kept in the audit) comes back with the undo, which has
to restore exactly that, and to answer `refused` where somebody changed it meanwhile. Keep it by `Idempotency-Key`: a
repeated order gets the answer of the first one, `before` and `new_key_id` included, for the first answer may have been
lost with whoever asked. An undo without `before` is of an order whose answer never came: restore what you kept. After a
`key.rotate` that you answered with a `new_key_id` the old key's end comes as `key.revoke`: at `until`, later where a
person has put that off, or when its traffic has moved; a secret that keeps its key's id is yours to end. 404 (no such
key) and 409 (it is so already) are a success where a key is to be taken out of use. A version of the key that was
replaced since is yours to refuse. 408, 425, 429, 5xx and silence are tried again, 410 disables the endpoint, anything
else is final.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from pipeline.metrics import METRICS
from pipeline.respond.adapters.adapter import Intent, Outcome, Support, TryAgain
from pipeline.respond.audit import rfc3339
from pipeline.respond.delivery.caller import GONE, Answer
from pipeline.respond.delivery.webhook import Poster
from schemas.incident import Rung

MAX_BEFORE: Final = 4096
DELAY_S: Final = 5.0  # until the target's gateways obey; that of `respond.adapters.webhook.delay_s` counts
MATRIX: Final[Mapping[Rung, Support]] = {
    "flag": Support("key", DELAY_S, undo=True),
    "throttle": Support("key", DELAY_S, undo=True),
    "fence": Support("key", DELAY_S, undo=True),
    "deny": Support("key", DELAY_S, undo=True),
    "suspend": Support("key", DELAY_S, undo=True),
    "rotate": Support("key", DELAY_S, undo=True, ends_old="keywatch"),
    "revoke": Support("key", DELAY_S, undo=False),
}
_OUT_OF_USE: Final = frozenset({"suspend", "revoke"})
_ALREADY: Final = {404: "the target knows no such key", 409: "it was so already"}


class WebhookAdapter:
    """Acts through one endpoint. `rungs`: those that its owner says it obeys; all by default."""

    name = "webhook"

    def __init__(self, poster: Poster, rungs: Iterable[Rung] = (), delay_s: float = DELAY_S) -> None:
        self._poster, self.gone = poster, False
        wanted = frozenset(rungs) or frozenset(MATRIX)
        self.matrix: Mapping[Rung, Support] = {
            rung: replace(row, delay_s=delay_s) for rung, row in MATRIX.items() if rung in wanted
        }

    async def attempt(self, intent: Intent) -> Outcome | TryAgain:
        """One message."""
        if self.gone:
            return Outcome("failed", "the endpoint answered 410 and is disabled", "failed")
        headers = {"Idempotency-Key": intent.act_id}
        with METRICS.adapter_seconds.labels(self.name).time():
            answer = await self._poster.post(message_id(intent), message(intent), headers)
        METRICS.adapter_calls.labels(self.name, answer.outcome).inc()
        self.gone = answer.status == GONE
        if answer.ok:
            return read_answer(answer, intent)
        if answer.status in _ALREADY and intent.rung in _OUT_OF_USE and intent.direction == "apply":
            return Outcome("done", _ALREADY[answer.status], "done")
        if answer.passing:
            return TryAgain(answer.words, answer.retry_after_s)
        return Outcome("failed", answer.words, "failed")

    async def check(self) -> list[str]:
        """Nothing can be asked of it without telling it to act; its URL and secret were judged when it was made."""
        return ["the endpoint answered 410 and is disabled: correct its url"] if self.gone else []


class _Said(msgspec.Struct, frozen=True):
    status: str
    before: str = ""
    new_key_id: str = ""


_WORDS: Final = {
    "revoked": "revoked", "done": "done", "scheduled": "scheduled by the target", "refused": "the target refused",
}  # fmt: skip


def read_answer(answer: Answer, intent: Intent) -> Outcome:
    """What a 2xx means. A body that doesn't keep the contract is taken for done, as the status says, and told so."""
    try:
        said = msgspec.json.decode(answer.body, type=_Said)
    except msgspec.MsgspecError:
        return Outcome("done", f"answered {answer.status} without a status: unproven", "done")
    if said.status == "refused":
        return Outcome("failed", _WORDS["refused"], "refused")
    before = said.before if intent.direction == "apply" else ""
    if len(before) > MAX_BEFORE:
        return Outcome("done", f"done, but `before` has more than {MAX_BEFORE} characters: no undo", "done")
    text = _WORDS.get(said.status, f"answered {answer.status} with an unknown status: unproven")
    label = "scheduled" if said.status == "scheduled" else "done"
    return Outcome("done", text, label, before, said.new_key_id)


def message_id(intent: Intent) -> str:
    """The `webhook-id`, the same at every attempt."""
    return f"rsp_{intent.response_id}" + ("_undo" if intent.direction == "undo" else "")


def message_type(intent: Intent) -> str:
    """key.revoke, key.fence.undo, ..."""
    return f"key.{intent.rung}" + (".undo" if intent.direction == "undo" else "")


def message(intent: Intent) -> bytes:
    """The body; nothing in it depends on when or by whom it is sent, so that a resumed act sends equal bytes."""
    data: dict[str, Any] = {
        "key_id": intent.key_id,
        "key_version": intent.key_version,
        "incident_id": intent.incident_id,
        "response_id": intent.response_id,
        "rung": intent.rung,
        "reason": intent.reason,
    }
    until = rfc3339(intent.until_s) if intent.until_s else ""
    optional = {
        "until": until, "networks": intent.networks, "scopes": intent.scopes, "limit_per_s": intent.limit_per_s,
        "before": intent.before if intent.direction == "undo" else "",
    }  # fmt: skip
    data |= {name: value for name, value in optional.items() if value}
    return msgspec.json.encode({"type": message_type(intent), "timestamp": intent.granted_at, "data": data})
