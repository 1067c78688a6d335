"""What is told to whom, and when: endpoints, cases, the watch over Keywatch itself, the drill ([respond])."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from pipeline.config.setting import Seconds, Secret
from pipeline.errors import ConfigError
from pipeline.times import micros

Kind = Literal["webhook", "cloudevents", "ocsf", "alertmanager", "pagerduty", "slack", "email"]

SYSTEM: Final = ("protection.lost", "protection.restored", "endpoint.disabled", "drill.failed", "promotion.lost")
"""About Keywatch itself: goes to everybody who has not chosen for himself."""
CALLS: Final = ("response.done", "response.failed", "response.waiting")
"""What Keywatch did to a key, could not do, or must not do without people: to everybody, too."""
ACTS: Final = (*CALLS, "response.undone")
"""That an act was taken back or its time was over: nobody is got up for that."""
PROOFS: Final = ("response.broken", "response.unproven")
"""Whether gateways obey. People get what is broken as their case (it is critical, and open again until taken)."""
LIFE: Final = ("rotation.due", "deletion.due")
"""About keys that nobody has to get up for: goes to machines, the chat and by mail, never to the pager."""
CHANGES: Final = ("incident.opened", "incident.escalated", "incident.closed")
CASES: Final = ("case.opened", "case.escalated", "case.acknowledged", "case.closed")
USUAL: Final[dict[Kind, tuple[str, ...]]] = {
    "webhook": (*CHANGES, *SYSTEM, *ACTS, *PROOFS, *LIFE),
    "cloudevents": (*CHANGES, *SYSTEM, *ACTS, *PROOFS, *LIFE),
    "ocsf": (*CHANGES, *SYSTEM, *ACTS, *PROOFS),
    "alertmanager": (*CHANGES, *SYSTEM, *ACTS, *PROOFS, "response.enforced"),  # what ends its alerts, too
    "pagerduty": (*CASES, *SYSTEM, *CALLS),
    "slack": (*CASES, *SYSTEM, *ACTS, "response.unproven", *LIFE),
    "email": (*CASES, *SYSTEM, *ACTS, "response.unproven", *LIFE),
}
"""One incident is a message to a machine; to people one case is one page."""
USUALLY: Final = "usual"
EVENTS: Final = frozenset({*CHANGES, "incident.extended", *CASES, *SYSTEM, *ACTS, *PROOFS, *LIFE, "response.enforced"})

PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where is told what. `check` says what each kind needs."""

    name: str  # as `respond endpoints` lists it
    url: str = ""  # e-mail: smtp://host:587 (STARTTLS) or smtps://host:465; alertmanager: https://.../api/v2/alerts
    secret: Secret = Secret("")  # webhook: whsec_...; PagerDuty: routing key; e-mail: password; else a bearer token
    kind: Kind = "webhook"  # in which shape
    events: tuple[str, ...] = ("usual",)  # what its kind usually gets; [] is nothing: a target of acts alone
    old_secret: Secret = Secret("")  # webhook: signs beside `secret`, while receivers change over
    old_secret_until: str = ""  # RFC 3339
    secret_url: Secret = Secret("")  # instead of `url` where the URL itself is the secret, as Slack's is
    username: str = ""  # e-mail
    sender: str = ""  # e-mail: From
    recipients: tuple[str, ...] = ()  # e-mail: To
    allow_private: bool = False  # demo, tests, your own network: private targets and plain http

    @property
    def target(self) -> str:
        """The URL to call; may be a secret."""
        usual = PAGERDUTY_URL if self.kind == "pagerduty" else ""
        return self.secret_url.reveal() or self.url or usual

    @property
    def wanted(self) -> frozenset[str]:
        """The events that it gets."""
        usual = USUAL[self.kind] if USUALLY in self.events else ()
        return frozenset({*usual, *self.events} - {USUALLY})


class Cases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[respond.cases]: which incidents are one page, and when it is told again."""

    window_s: Annotated[float, Meta(gt=0, le=3 * 86_400)] = 3600.0  # since the case's last incident
    page_from: Annotated[str, Meta(pattern="^(medium|high|critical)$")] = (
        "high"  # the least severity that calls somebody
    )
    escalate_after_s: Seconds = 900.0  # without acknowledgement
    escalations: Annotated[int, Meta(ge=0, le=10)] = 3  # how often it is told again


class Drill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[respond.drill]: a decoy key of yours is abused through your own gateway. `url` "" is no drill."""

    url: str = ""  # a harmless path behind the real gateway
    key_id: str = ""  # the decoy's public id, declared `decoy` in the catalogue
    key: Secret = Secret("")  # the decoy itself, as a client sends it
    header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+$")] = "Authorization"  # in which the key goes
    requests: Annotated[int, Meta(ge=1, le=100)] = 3  # how many
    limit_s: Annotated[float, Meta(ge=1, le=900)] = 120.0  # until detection (and act) must be there
    act: bool = False  # whether the key must also be acted on
    allow_private: bool = False  # private addresses and plain http


class Night(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[respond.night]: what pages by itself when Keywatch does not see."""

    blind_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 300.0  # judged so late, or by nobody; 0 is off
    look_every_s: Seconds = 15.0  # how often it asks who judges
    console_url: str = ""  # your own page of an incident: {incident_id} and {key_id} are put in
    numbers_within_s: Annotated[float, Meta(ge=0, le=10)] = 1.0  # a message waits so long for ClickHouse; 0: no numbers


def check(endpoint: Endpoint) -> None:
    """Raises ConfigError for an endpoint that lacks what its kind needs; addresses and secrets are judged later."""
    where = f"respond.endpoints {endpoint.name!r} ({endpoint.kind})"
    for missing in _missing(endpoint):
        raise ConfigError(f"{where}: {missing}")
    if unknown := sorted(set(endpoint.events) - EVENTS - {USUALLY}):
        raise ConfigError(f"{where}: unknown event {unknown[0]}; there are usual, {', '.join(sorted(EVENTS))}")
    if bool(endpoint.old_secret) != bool(endpoint.old_secret_until):
        raise ConfigError(f"{where}: old_secret and old_secret_until go together")
    try:
        micros(endpoint.old_secret_until)
    except ValueError:
        raise ConfigError(f"{where}: old_secret_until is no RFC 3339 time") from None


def _missing(endpoint: Endpoint) -> list[str]:
    needs = {
        "webhook": (("secret", endpoint.secret),),
        "pagerduty": (("secret (the routing key)", endpoint.secret),),
        "email": (("sender", endpoint.sender), ("recipients", endpoint.recipients)),
    }.get(endpoint.kind, ())
    missing = [f"{name} is needed" for name, value in needs if not value]
    if not endpoint.target:
        missing.append("url is needed" if endpoint.kind != "slack" else "secret_url (or secret_url_file) is needed")
    return missing
