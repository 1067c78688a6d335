"""Proof of enforcement: after an act its key's requests are watched until they say whether the gateway obeys.

For each act that the target confirmed, from `confirmed + allowance + skew` on (the adapter's usual delay, and what
clocks may differ by):

- a request that the act should have stopped and that went through (2xx, the gateway says authenticated) is `broken`:
  critical, whether it comes at once or a day later (keys that worked again after a gateway's restart:
  wso2/product-apim#9641);
- a refused one is `enforced`, with the time to effect;
- silence proves nothing: after `unproven_s` without either the act is `unproven`, until a request or a canary call.

What an act should have stopped: suspend and revoke everything; fence what comes from elsewhere than its networks; deny
its scopes, literally, or where they are IAM actions by the event's route, as CloudTrail has it, by pattern and in any
case; throttle more than twice its limit in a minute. What AWS answers whatever a policy denies (`WHATEVER`) says
nothing. Flag stops nothing and is not watched. Of a rotation the new key is: the first request with it that goes
through says `used`, and silence says nothing.

A request's time is the gateway's, but never later than its record's in the log, which the broker stamps: a gateway
whose clock is ahead can't make an early request a late one. A request from before the confirmation says nothing.

Pure: no clock, no I/O. One record after another in the log's order; each watch takes each offset once, so that reading
again (a seek back for another key) neither counts twice nor tells twice. Nothing is kept for a restart: the ledger's
acts in force are followed again, the log is read from their confirmation on (`witness.py`), and the same requests give
the same verdicts under the same ids.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Final, Literal

import msgspec

from pipeline.respond.adapters.adapter import Intent, Support
from pipeline.respond.audit import rfc3339
from pipeline.respond.delivery.notice import Notice, link_to, one_line
from schemas.event import Event
from schemas.incident import Rung
from schemas.response import Response

Word = Literal["enforced", "broken", "unproven", "used"]
WATCHED: Final = frozenset({"throttle", "fence", "deny", "suspend", "rotate", "revoke"})
REFUSED: Final = frozenset({401, 403, 429})
REFUSALS: Final = frozenset({"denied", "rate_limited", "invalid", "expired", "disabled"})
THROTTLE_SLACK: Final = 2.0  # nodes that count by themselves, and windows that don't begin at ours
MINUTE_US: Final = 60_000_000
MAX_TOLD: Final = 20  # verdicts of one act: a gateway that obeys now and then is told, but not for ever
MAX_WATCHES: Final = 10_000
WHATEVER: Final = frozenset({"sts:getcalleridentity", "sts:getsessiontoken", "s3:deleteobjects"})
"""Routes that go through under any fence or denial: no policy stops the first two, and a batch is answered with 200
though each of its objects was refused. Sources: AWS STS API Reference, GetCallerIdentity; IAM User Guide, "Permissions
for GetSessionToken"; Amazon S3 API Reference, DeleteObjects."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """One confirmed act and what it should have stopped. Times in microseconds, Unix time."""

    response_id: str
    incident_id: str
    revision: int
    key_id: str
    key_version: int
    rung: Rung
    confirmed_us: int
    allowance_us: int  # the adapter's delay until every node obeys
    until_us: int = 0  # when it ends by itself; 0 is never
    networks: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    by_route: bool = False  # the scopes are patterns of routes
    limit_per_s: float = 0.0
    partition: int = 0  # of the incident: who owns that watches

    @staticmethod
    def of(
        intent: Intent, confirmed_s: float, support: Support | None, revision: int = 0, partition: int = 0
    ) -> Watch:  # fmt: skip
        """What to watch after this intent was done. `confirmed_s`: when the target had said so, Unix time."""
        allowance_s = support.delay_s if support else 0.0
        return Watch(
            response_id=intent.response_id, incident_id=intent.incident_id, revision=revision, key_id=intent.key_id,
            key_version=intent.key_version, rung=intent.rung, confirmed_us=int(confirmed_s * 1e6),
            allowance_us=int(allowance_s * 1e6), until_us=int(intent.until_s * 1e6), networks=intent.networks,
            scopes=intent.scopes, by_route=support is not None and support.by_route, limit_per_s=intent.limit_per_s,
            partition=partition,
        )  # fmt: skip


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the stream says of one act. `at_us`: of the request that shows it; `effect_s`: after the confirmation."""

    watch: Watch
    word: Word
    at_us: int
    text: str
    effect_s: float = 0.0

    @property
    def message_id(self) -> str:
        """The same for the same request, from whichever responder and how often it is read."""
        return f"enf_{self.watch.response_id}_{self.word}_{self.at_us}"

    def response(self, policy_version: str = "") -> Response:
        """Its line in the audit."""
        of, stage = self.watch, self.word
        assert stage != "used", "nothing to tell"
        return Response(
            response_id=of.response_id, incident_id=of.incident_id, revision=of.revision, key_id=of.key_id,
            key_version=of.key_version, at=rfc3339(self.at_us / 1e6), stage=stage, verdict="allowed", rung=of.rung,
            reason=self.text, policy_version=policy_version,
        )  # fmt: skip

    def notice(self, console_url: str = "") -> Notice:
        """What endpoints are told: response.broken, and what has become of it; with the page where it is undone."""
        of = self.watch
        return Notice(
            message_id=self.message_id, event=f"response.{self.word}", subject=of.response_id,
            action="resolve" if self.word == "enforced" else "trigger",
            severity="critical" if self.word == "broken" else "info", at=rfc3339(self.at_us / 1e6),
            title=one_line(f"{of.rung} of {of.key_id} is {self.word}: {self.text}"), text=self.text,
            link=link_to(console_url, of.incident_id, of.key_id),
            about={
                "response_id": of.response_id, "incident_id": of.incident_id, "key_id": of.key_id,
                "key_version": str(of.key_version), "rung": of.rung,
            },
        )  # fmt: skip


@dataclass
class _State:
    """What is known of one watch."""

    watch: Watch
    networks: tuple[Network, ...]
    denied: re.Pattern[str] | None  # by route
    read_to: int = -1  # offset in the key's partition
    word: Word | None = None
    refused_us: int = 0  # the first refusal after the last request that went through
    passed_us: int = 0  # the last one that went through
    minutes: dict[int, int] = field(default_factory=dict)  # throttle: minute -> requests that went through
    told: int = 0

    @property
    def is_open(self) -> bool:
        """Whether silence would say something of it."""
        return self.word is None and self.watch.rung != "rotate"


class Enforcement:
    """All watches. `skew_s`: how far the gateways' clocks may be from the broker's."""

    def __init__(self, skew_s: float = 5.0, watch_s: float = 86_400.0, unproven_s: float = 900.0) -> None:
        self.skew_us, self.watch_us, self.unproven_us = int(skew_s * 1e6), int(watch_s * 1e6), int(unproven_s * 1e6)
        self._states: dict[str, dict[str, _State]] = {}  # key id -> response id

    def watch(self, watch: Watch, told: Word | None = None) -> bool:
        """Begin to watch, or go on; False where there is nothing to see. `told`: its last verdict, if known."""
        if watch.rung not in WATCHED or (watch.rung == "deny" and not watch.scopes):
            return False
        of_key = self._states.setdefault(watch.key_id, {})
        if watch.response_id not in of_key:
            networks = tuple(ipaddress.ip_network(each, strict=False) for each in watch.networks)
            denied = "|".join(map(translate, watch.scopes)) if watch.by_route else None
            pattern = re.compile(denied, re.IGNORECASE) if denied else None
            of_key[watch.response_id] = _State(watch, networks, pattern, word=told)
            self._bound()
        return True

    def follow(self, in_force: Iterable[Watch], now_us: int) -> None:
        """Watch what is in force, as the ledger says, and nothing else; let go of what was watched long enough."""
        wanted = {each.response_id: each for each in in_force if not self._is_over(each, now_us)}
        for watch in self.watched():
            if watch.response_id not in wanted:
                self.ended(watch.response_id)
        for watch in wanted.values():
            self.watch(watch)

    def ended(self, response_id: str) -> None:
        """It was undone: what goes through from now on is right."""
        for key_id, of_key in list(self._states.items()):
            if of_key.pop(response_id, None) and not of_key:
                del self._states[key_id]

    def watched(self) -> tuple[Watch, ...]:
        """All that is watched."""
        return tuple(state.watch for of_key in self._states.values() for state in of_key.values())

    def keys(self) -> frozenset[bytes]:
        """The keys of records that `seen` wants."""
        return frozenset(key_id.encode() for key_id in self._states)

    def seen(self, event: Event, offset: int, record_us: int) -> list[Verdict]:
        """What one request says, in the log's order. `record_us`: when the broker took its record, or -1."""
        at_us = min(event.ts_us, record_us) if record_us >= 0 else event.ts_us
        verdicts = []
        for state in self._states.get(event.key_id, {}).values():
            if offset > state.read_to:
                state.read_to = offset
                if verdict := self._judge(state, event, at_us):
                    verdicts.append(verdict)
        return verdicts

    def silent(self, now_us: int) -> list[Watch]:
        """What nothing has been seen of for so long that it matters."""
        states = [state for of_key in self._states.values() for state in of_key.values() if state.is_open]
        return [each.watch for each in states if now_us > self._silent_from_us(each.watch)]

    def due(self, now_us: int, read_us: Callable[[Watch], int] | None = None) -> list[Verdict]:
        """What silence says by now; forgets what has ended. `read_us`: up to when a key's log has been read, if known.

        What was written before and is not read yet is no silence: after a restart all of it is read again.
        """
        verdicts = []
        for state in [state for of_key in self._states.values() for state in of_key.values()]:
            watch, from_us = state.watch, self._silent_from_us(state.watch)
            if self._is_over(watch, now_us):
                self.ended(watch.response_id)
            elif state.is_open and min(now_us, read_us(watch) if read_us else now_us) > from_us:
                minutes = (now_us - watch.confirmed_us) // MINUTE_US
                text = f"no request has shown in {minutes} min whether the gateway obeys: make one with this key"
                verdicts += [verdict] if (verdict := _tell(state, "unproven", from_us, text)) else []
        return verdicts

    def _is_over(self, watch: Watch, now_us: int) -> bool:
        return now_us > watch.confirmed_us + self.watch_us or 0 < watch.until_us < now_us - self.unproven_us

    def _silent_from_us(self, watch: Watch) -> int:
        return self._from_us(watch) + self.unproven_us

    def _from_us(self, watch: Watch) -> int:
        return watch.confirmed_us + watch.allowance_us + self.skew_us

    def _judge(self, state: _State, event: Event, at_us: int) -> Verdict | None:
        watch = state.watch
        if watch.rung == "rotate":
            used = state.word is None and 200 <= event.status < 300 and event.outcome == "success"
            return _tell(state, "used", at_us, f"{watch.key_id} is in use") if used else None
        if at_us <= watch.confirmed_us or (watch.until_us and at_us >= watch.until_us - self.skew_us):
            return None
        if event.status in REFUSED or event.outcome in REFUSALS:
            return self._refused(state, event, at_us)
        if 200 <= event.status < 300 and event.outcome == "success" and _forbidden(state, event):
            return self._passed(state, at_us)
        return None

    def _passed(self, state: _State, at_us: int) -> Verdict | None:
        usual = at_us <= self._from_us(state.watch)
        if state.watch.rung == "throttle" and (usual or not self._too_many(state, at_us)):
            return None
        state.passed_us = max(state.passed_us, at_us)
        if at_us >= state.refused_us:
            state.refused_us = 0
        if usual or state.word == "broken":
            return None
        late_s = (at_us - state.watch.confirmed_us) / 1e6
        text = f"{state.watch.rung} is not enforced: a request went through {late_s:.1f} s after it was confirmed"
        return _tell(state, "broken", at_us, text)

    def _too_many(self, state: _State, at_us: int) -> bool:
        minute = at_us // MINUTE_US
        state.minutes[minute] = state.minutes.get(minute, 0) + 1
        for old in [each for each in state.minutes if each < minute - 10]:
            del state.minutes[old]
        return state.minutes[minute] > THROTTLE_SLACK * max(60 * state.watch.limit_per_s, 1.0) + 10

    def _refused(self, state: _State, event: Event, at_us: int) -> Verdict | None:
        if not _proves(state, event) or at_us <= state.passed_us:
            return None
        state.refused_us = min(state.refused_us or at_us, at_us)
        if state.word == "enforced" or at_us <= state.watch.confirmed_us + self.skew_us:
            return None
        effect_s = (state.refused_us - state.watch.confirmed_us) / 1e6
        text = f"{state.watch.rung} is enforced: refused {effect_s:.1f} s after it was confirmed"
        return _tell(state, "enforced", at_us, text, effect_s)

    def _bound(self) -> None:
        while sum(map(len, self._states.values())) > MAX_WATCHES:
            self.ended(min(self.watched(), key=lambda each: each.confirmed_us).response_id)


def _tell(state: _State, word: Word, at_us: int, text: str, effect_s: float = 0.0) -> Verdict | None:
    state.word, state.told = word, state.told + 1
    if state.told > MAX_TOLD:
        return None
    return Verdict(watch=state.watch, word=word, at_us=at_us, text=text, effect_s=effect_s)


def _forbidden(state: _State, event: Event) -> bool:
    """Whether the act should have stopped this request."""
    if state.watch.rung not in ("fence", "deny"):
        return True
    if event.route.casefold() in WHATEVER:
        return False
    if state.watch.rung == "fence":
        return _elsewhere(state, event)
    if state.denied:
        return bool(state.denied.match(event.route))
    return event.scope in state.watch.scopes


def _proves(state: _State, event: Event) -> bool:
    """Whether this refusal is the act's, as far as can be told: what goes through later takes it back."""
    limited = event.status == 429 or event.outcome == "rate_limited"
    if state.watch.rung == "throttle":
        return limited
    return not limited and _forbidden(state, event)


def _elsewhere(state: _State, event: Event) -> bool:
    """Whether it comes from outside of the fence; not where its address is not known."""
    try:
        address = ipaddress.ip_address(event.client_ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return bool(state.networks) and not any(address in network for network in state.networks)
