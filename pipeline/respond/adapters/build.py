"""The configured adapters by the names that rules use: an entry of `respond.adapters`, or an endpoint as a webhook."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.tree import Endpoint, Respond
from pipeline.errors import ConfigError
from pipeline.respond.adapters import aws_apigateway, aws_iam, kong, tyk, unkey
from pipeline.respond.adapters.adapter import Adapter, Support
from pipeline.respond.adapters.settings import Adapters
from pipeline.respond.adapters.webhook import MATRIX, WebhookAdapter
from pipeline.respond.delivery.address import LookUp, system_look_up
from pipeline.respond.delivery.webhook import Poster
from schemas.incident import Rung


def adapters(respond: Respond, look_up: LookUp = system_look_up) -> dict[str, Adapter]:
    """All that are in use. Raises `ConfigError` for one that lacks a setting, and for a name that two have."""
    found = {**gateways(respond, look_up)}
    for endpoint in (each for each in respond.endpoints if each.kind == "webhook"):
        if endpoint.name in found:
            raise ConfigError(
                f"respond.endpoints: {endpoint.name!r} is the name of an adapter, too: rename the endpoint"
            )
        found[endpoint.name] = WebhookAdapter(_poster(respond, endpoint, look_up))
    return found


def gateways(respond: Respond, look_up: LookUp = system_look_up) -> dict[str, Adapter]:
    """Those of `respond.adapters`. Raises `ConfigError`."""
    given, timeouts_s = respond.adapters, (respond.connect_timeout_s, respond.total_timeout_s)
    require_credentials(given)
    found: dict[str, Adapter] = {}
    if given.kong.url:
        found["kong"] = kong.KongAdapter(given.kong, timeouts_s, look_up)
    if given.tyk.url:
        found["tyk"] = tyk.TykAdapter(given.tyk, timeouts_s, look_up)
    if given.unkey.url:
        found["unkey"] = unkey.UnkeyAdapter(given.unkey, timeouts_s, look_up)
    if given.aws_apigateway.region:
        found["aws_apigateway"] = aws_apigateway.AwsApiGatewayAdapter(given.aws_apigateway, timeouts_s, look_up)
    if given.aws_iam.access_key_id:
        found["aws_iam"] = aws_iam.AwsIamAdapter(given.aws_iam, timeouts_s, look_up)
    return found


def require_credentials(given: Adapters) -> None:
    """Raise `ConfigError` for an adapter that is in use and could only ever be turned away."""
    aws, iam = given.aws_apigateway, given.aws_iam
    missing = {
        "tyk.secret": given.tyk.url and not given.tyk.secret.reveal(),
        "unkey.root_key": given.unkey.url and not given.unkey.root_key.reveal(),
        "aws_apigateway.access_key_id": aws.region and not aws.access_key_id,
        "aws_apigateway.secret_access_key": aws.region and not aws.secret_access_key.reveal(),
        "aws_iam.secret_access_key": iam.access_key_id and not iam.secret_access_key.reveal(),
    }
    for name, wanting in missing.items():
        if wanting:
            raise ConfigError(f"respond.adapters.{name} is not set")


def matrices(given: Adapters) -> dict[str, Mapping[Rung, Support]]:
    """What every adapter can do with these settings, in use or not."""
    return {
        "webhook": MATRIX,
        "kong": kong.matrix(given.kong),
        "aws_apigateway": aws_apigateway.matrix(given.aws_apigateway),
        "aws_iam": aws_iam.matrix(given.aws_iam),
        "tyk": tyk.matrix(given.tyk),
        "unkey": unkey.matrix(given.unkey),
    }


def _poster(respond: Respond, endpoint: Endpoint, look_up: LookUp) -> Poster:
    return Poster(endpoint, respond.connect_timeout_s, respond.total_timeout_s, look_up=look_up)
