"""Kong: key-auth credentials, by the Admin API of a Kong with a database.

A key-auth credential has no switch, and deleting it can't be undone without the secret, which is not ours to keep.
What is exact instead:

- suspend, revoke: the credential itself is moved to a quarantine consumer whose requests are all terminated with 403.
  It hits this credential alone, needs no secret, and the undo moves it back to its owner. In the log its refused
  requests go on to carry its id. A revoked credential stays there; delete it by hand after 30 days.
- throttle, fence, flag: rate-limiting, ip-restriction and request-transformer on the consumer, so they hit all of its
  credentials. Refused where it has others. A consumer's plug-in REPLACES those of the same name on routes, services
  and globally, and is itself replaced by one on consumer and route. So nothing is done where another would be
  replaced, but for a throttle, which takes over the narrowest of their limits. Each node counts by itself.
- rotate: a second credential for the same consumer; its owner reads the new key from Kong. The undo deletes it. Kong
  lets no credential end at a time: Keywatch revokes the old one at the deadline, or when its traffic has moved.
- deny is not supported: Kong knows no scopes of a key.

Marks of ours are tags of the credential and of the plug-in, written in the same request as the change itself.
Without a database (DB-less, and data planes of hybrid mode) the Admin API can't write: refused with what to do.
Source: Kong/kong 22246ef28c, kong/api/endpoints.lua, kong/plugins/*/{schema,daos,handler}.lua.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, Support, TryAgain
from pipeline.respond.adapters.peer import Peer, Stop, ailments, attempted, done, mark, noted, recalled, refuse
from pipeline.respond.adapters.settings import Kong
from pipeline.respond.delivery.address import LookUp, system_look_up
from schemas.incident import Rung

NAMES: Final = uuid.UUID("6b657977-6174-6368-8000-6b6f6e670000")
"""Namespace of the ids that we give to plug-ins and credentials: the same act makes the same entity again."""

PLUGINS: Final[Mapping[Rung, str]] = {
    "throttle": "rate-limiting", "fence": "ip-restriction", "flag": "request-transformer",
}  # fmt: skip
HEADER: Final = "X-Keywatch-Flag"
WINDOWS_S: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 2_592_000, "year": 31_536_000}
OTHER_CREDENTIALS: Final = ("basic-auth", "jwt", "hmac-auth", "oauth2")
MAX_PAGES: Final = 50
_FROM, _TAG = "keywatch-from-", "keywatch-act-"
_NO_DATABASE: Final = (
    "kong runs without a database: its Admin API can't write. Act through the control plane's Admin API, or change the "
    "declarative configuration by the webhook adapter"
)


class Ref(msgspec.Struct, frozen=True):
    """A foreign key."""

    id: str


class Credential(msgspec.Struct, frozen=True):
    """A key-auth credential without its key, which is left out when the answer is read."""

    id: str
    consumer: Ref
    tags: tuple[str, ...] | None = None


class Plugin(msgspec.Struct, frozen=True):
    """One plug-in's entry."""

    id: str
    name: str
    config: dict[str, Any]
    enabled: bool = True
    consumer: Ref | None = None
    route: Ref | None = None
    service: Ref | None = None
    tags: tuple[str, ...] | None = None


class _Page(msgspec.Struct, frozen=True):
    data: tuple[Plugin, ...]
    next: str | None = None


class _Credentials(msgspec.Struct, frozen=True):
    data: tuple[Ref, ...]
    next: str | None = None


class _Configuration(msgspec.Struct, frozen=True):
    database: str
    role: str = "traditional"
    db_update_frequency: float = 5.0
    db_update_propagation: float = 0.0


class _Node(msgspec.Struct, frozen=True):
    configuration: _Configuration


class Before(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the undo needs: the credential's consumer; for a plug-in its id and what we set; for rotate the new id."""

    consumer: str
    plugin: str = ""
    config: dict[str, Any] = {}
    new_key_id: str = ""


def matrix(settings: Kong) -> Mapping[Rung, Support]:
    """What it can do; a rung that is absent is not supported."""
    delay_s = settings.delay_s
    return {
        "flag": Support("consumer", delay_s, undo=True),
        "throttle": Support("consumer", delay_s, undo=True),
        "fence": Support("consumer", delay_s, undo=True),
        "suspend": Support("key", delay_s, undo=True),
        "rotate": Support("key", delay_s, undo=True, ends_old="keywatch"),
        "revoke": Support("key", delay_s, undo=False),
    }


class KongAdapter:
    """One Kong cluster's credentials."""

    name = "kong"

    def __init__(self, settings: Kong, timeouts_s: tuple[float, float], look_up: LookUp = system_look_up) -> None:
        def sign(method: str, path: str, body: bytes) -> Mapping[str, str]:
            token = settings.token.reveal()
            return {settings.token_header: token} if token else {}

        self._settings = settings
        self._peer = Peer(
            self.name, settings.url, sign, timeouts_s, allow_private=settings.allow_private, ca_file=settings.ca_file,
            look_up=look_up,
        )  # fmt: skip
        self.matrix = matrix(settings)

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        """Some readings and at most one writing of the thing itself."""
        return await attempted(self._undo(intent) if intent.direction == "undo" else self._apply(intent))

    async def check(self) -> list[str]:
        """Its database, how quickly its nodes follow, and whether what we read may be read."""
        return await ailments(self._follows(), self._reads("/key-auths?size=1"), self._reads("/plugins?size=1"))

    async def _follows(self) -> None:
        node = await self._with_database()
        needed_s = node.db_update_frequency + node.db_update_propagation
        if self._settings.delay_s < needed_s:
            raise refuse(
                f"kong's nodes ask for changes every {needed_s:g} s: set respond.adapters.kong.delay_s to at least that"
            )

    async def _reads(self, path: str) -> None:
        await self._peer.ask(_Credentials, "GET", path)

    async def _with_database(self) -> _Configuration:
        node = (await self._peer.ask(_Node, "GET", "/")).configuration
        if node.database == "off" or node.role == "data_plane":
            raise refuse(_NO_DATABASE)
        return node

    async def _credential(self, key_id: str) -> Credential | None:
        try:
            uuid.UUID(key_id)
        except ValueError:
            raise refuse("the id is none of a Kong credential, which is a UUID") from None
        return await self._peer.find(Credential, f"/key-auths/{key_id}")

    async def _apply(self, intent: Intent) -> Outcome:
        await self._with_database()
        credential = await self._credential(intent.key_id)
        if credential is None:
            if intent.rung in ("suspend", "revoke"):
                return done("kong knows no such credential")
            raise refuse("kong knows no such credential")
        if intent.rung in ("suspend", "revoke"):
            return await self._quarantine(intent, credential)
        if any(tag.startswith(_FROM) for tag in credential.tags or ()):
            raise refuse("it is in quarantine: undo that first")
        if intent.rung == "rotate":
            return await self._rotate(intent, credential)
        return await self._put_plugin(intent, credential.consumer.id)

    async def _undo(self, intent: Intent) -> Outcome:
        await self._with_database()
        if intent.rung == "suspend":
            return await self._release(intent)
        if intent.rung == "rotate":
            before = recalled(intent.before, Before, "delete the new credential")
            return await self._drop(f"/consumers/{before.consumer}/key-auth/{before.new_key_id}")
        before = recalled(intent.before, Before, "") if intent.before else await self._as_it_would_be(intent)
        plugin = await self._peer.find(Plugin, f"/plugins/{before.plugin}") if before.plugin else None
        if plugin is None:
            return done("nothing of ours is there")
        if not plugin.enabled or not _holds(plugin.config, before.config):
            raise refuse("somebody changed the plug-in meanwhile: remove it by hand")
        return await self._drop(f"/plugins/{before.plugin}")

    async def _as_it_would_be(self, intent: Intent) -> Before:
        """What this act has set, if it has: for an undo of one whose answer never came."""
        credential = await self._credential(intent.key_id)
        if credential is None:
            return Before("")
        name, consumer = PLUGINS[intent.rung], credential.consumer.id
        rivals = [each.config for each in await self._plugins() if _is_rival(each, name)]
        return Before(consumer, _plugin_id(consumer, name), _config(intent, rivals))

    async def _drop(self, path: str) -> Outcome:
        answer = await self._peer.call("DELETE", path)
        if not answer.ok and answer.status != 404:
            raise self._peer.stopped(answer)
        return done("removed")

    # Suspend and revoke: whose the credential is.

    async def _quarantine(self, intent: Intent, credential: Credential) -> Outcome:
        prison = await self._prison()
        tags = credential.tags or ()
        owner = _owner(tags)
        ours = _TAG + intent.rung + "-" + mark(intent)
        if credential.consumer.id == prison and ours in tags:
            return done("it was so already", _text(Before(owner)) if owner else "")
        owner = owner if credential.consumer.id == prison else credential.consumer.id
        kept = [tag for tag in tags if not tag.startswith(_FROM)]
        tags_now = [*kept, *([_FROM + owner] if owner else []), ours]
        await self._peer.ask(
            Credential, "PATCH", f"/key-auths/{credential.id}", {"consumer": {"id": prison}, "tags": tags_now}
        )
        return done("moved to the quarantine consumer", _text(Before(owner)) if owner else "")

    async def _release(self, intent: Intent) -> Outcome:
        credential = await self._credential(intent.key_id)
        if credential is None:
            raise refuse("kong knows no such credential any more")
        tags = credential.tags or ()
        owner = recalled(intent.before, Before, "").consumer if intent.before else _owner(tags)
        if not owner or credential.consumer.id == owner:
            return done("it was so already" if owner else "nothing of ours is there")
        if credential.consumer.id != await self._prison():
            raise refuse("somebody moved the credential to another consumer meanwhile")
        if any(tag.startswith(_TAG + "revoke-") for tag in tags):
            raise refuse("revoke holds it: move it back by hand")
        if await self._peer.find(Ref, f"/consumers/{owner}") is None:
            raise refuse("its consumer was deleted meanwhile")
        kept = [tag for tag in tags if not tag.startswith((_FROM, _TAG))]
        body = {"consumer": {"id": owner}, "tags": kept}
        await self._peer.ask(Credential, "PATCH", f"/key-auths/{credential.id}", body)
        return done("moved back to its consumer")

    async def _prison(self) -> str:
        """The quarantine consumer's id, surely terminated: without its plug-in a moved credential would go on."""
        name = self._settings.quarantine_consumer
        consumer = await self._peer.find(Ref, f"/consumers/{name}")
        if consumer is None:
            consumer = await self._peer.ask(Ref, "PUT", f"/consumers/{name}", {"tags": ["keywatch"]})
        plugin_id = _plugin_id(consumer.id, "request-termination")
        config = {"status_code": 403, "message": "This API key is taken out of use."}
        plugin = await self._peer.find(Plugin, f"/plugins/{plugin_id}")
        if plugin is None or not plugin.enabled or not _holds(plugin.config, config):
            body = {"name": "request-termination", "consumer": {"id": consumer.id}, "config": config, "enabled": True}
            await self._peer.ask(Plugin, "PUT", f"/plugins/{plugin_id}", body)
        return consumer.id

    async def _rotate(self, intent: Intent, credential: Credential) -> Outcome:
        new_id = str(uuid.uuid5(NAMES, intent.act_id))
        before = noted(intent, _text(Before(credential.consumer.id, new_key_id=new_id)))
        path = f"/consumers/{credential.consumer.id}/key-auth/{new_id}"
        if await self._peer.find(Ref, path) is None:  # a second PUT would make another secret
            await self._peer.ask(Ref, "PUT", path, {"tags": [f"keywatch-after-{credential.id}"]})
        return done(f"new credential {new_id}; its owner reads the key from kong", before, new_id)

    # Throttle, fence and flag: a plug-in on the consumer.

    async def _put_plugin(self, intent: Intent, consumer: str) -> Outcome:
        name = PLUGINS[intent.rung]
        await self._sole_credential(intent.key_id, consumer)
        plugin_id, mine = _plugin_id(consumer, name), _TAG + mark(intent)
        others = [each for each in await self._plugins() if each.name == name and each.enabled]
        for each in others:
            if each.consumer and each.consumer.id == consumer and each.id != plugin_id:
                raise refuse(f"the consumer has a {name} plug-in of its own: change it by hand")
        rivals = [each.config for each in others if _is_rival(each, name)]
        config = _config(intent, rivals)
        before = _text(Before(consumer, plugin_id, config))
        ours = next((each for each in others if each.id == plugin_id), None)
        if ours is not None and mine in (ours.tags or ()) and _holds(ours.config, config):
            return done("it was so already", before)
        if ours is not None:
            raise refuse(f"{intent.rung} is in force by an earlier act: undo that first")
        body = {
            "name": name,
            "consumer": {"id": consumer},
            "config": config,
            "tags": ["keywatch", mine],
            "enabled": True,
        }
        await self._peer.ask(Plugin, "PUT", f"/plugins/{plugin_id}", body)
        return done(f"{name} on its consumer", before)

    async def _sole_credential(self, key_id: str, consumer: str) -> None:
        """Raises `Stop` where the consumer has any other credential: the plug-in would hit that, too."""
        others = 0
        for kind in ("key-auth", *OTHER_CREDENTIALS):
            found = await self._peer.find(_Credentials, f"/consumers/{consumer}/{kind}?size=100")
            others += sum(each.id != key_id for each in found.data) if found else 0
        if others:
            raise refuse(f"it would hit {others} more credentials of the same consumer")

    async def _plugins(self) -> list[Plugin]:
        found: list[Plugin] = []
        path = "/plugins?size=1000"
        for _ in range(MAX_PAGES):
            page = await self._peer.ask(_Page, "GET", path)
            found += page.data
            if not page.next:
                return found
            path = page.next
        raise Stop(Outcome("failed", "kong has more plug-ins than can be looked through", "failed"))


def _plugin_id(consumer: str, name: str) -> str:
    return str(uuid.uuid5(NAMES, f"{consumer}/{name}"))


def _is_rival(plugin: Plugin, name: str) -> bool:
    """Whether a plug-in of this name on a consumer would replace it."""
    return plugin.name == name and plugin.enabled and plugin.consumer is None


def _owner(tags: tuple[str, ...]) -> str:
    """The consumer from which a credential in quarantine came."""
    return next((tag.removeprefix(_FROM) for tag in tags if tag.startswith(_FROM)), "")


def _config(intent: Intent, rivals: list[dict[str, Any]]) -> dict[str, Any]:
    """What the plug-in is to be, given those of the same name that it would replace. Raises `Stop`."""
    if intent.rung == "throttle":
        return _limits(intent.limit_per_s, rivals)
    if rivals:
        raise refuse(
            f"{PLUGINS[intent.rung]} is in use on routes, services or globally: one on the consumer replaces it"
        )
    if intent.rung == "flag":
        return {"remove": {"headers": [HEADER]}, "add": {"headers": [f"{HEADER}:{intent.incident_id}"]}}
    if not intent.networks:
        raise refuse("a fence without a network would be a suspension")
    return {"allow": list(intent.networks), "status": 403, "message": "This API key is fenced to its usual networks."}


def _limits(limit_per_s: float, rivals: list[dict[str, Any]]) -> dict[str, Any]:
    if limit_per_s <= 0:
        raise refuse("a throttle needs a limit above 0")
    window = next(name for name, length_s in WINDOWS_S.items() if limit_per_s * length_s >= 1)
    limits: dict[str, Any] = {window: int(limit_per_s * WINDOWS_S[window])}
    for name in WINDOWS_S:
        given = [rival[name] for rival in rivals if rival.get(name)]
        if given:
            limits[name] = min([*given, *([limits[name]] if name in limits else [])])
    widest = max(limits.values())
    for name in reversed(WINDOWS_S):  # kong takes no limit of a shorter window above that of a longer one
        if name in limits:
            widest = limits[name] = min(limits[name], widest)
    return limits | {"limit_by": "consumer", "policy": "local", "fault_tolerant": True}


def _holds(config: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether all of `wanted` is so in a config that Kong has filled up with defaults."""
    for name, value in wanted.items():
        now = config.get(name)
        if isinstance(value, dict):
            if not isinstance(now, dict) or not _holds(now, value):
                return False
        elif (sorted(now or []) != sorted(value)) if isinstance(value, list) else now != value:
            return False
    return True


def _text(before: Before) -> str:
    return msgspec.json.encode(before).decode()
