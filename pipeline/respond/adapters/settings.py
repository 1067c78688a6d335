"""The adapters' settings: `[respond.adapters.kong]` and so on. An adapter whose address is empty is not in use.

Credentials may be given as `<name>_file`, too. `delay_s` is the usual time until every node of that gateway obeys.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pipeline.config.setting import Name, Seconds, Secret

Region = Annotated[str, Meta(pattern=r"^([a-z]{2}(-[a-z]+)+-\d{1,2})?$")]
Header = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class Kong(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Kong, by its Admin API; in use where `url` is set."""

    url: str = ""  # of the Admin API
    token: Secret = Secret("")  # of the Admin API, where it wants one
    token_header: Header = "Kong-Admin-Token"  # noqa: S105  in which the token goes
    quarantine_consumer: Name = "keywatch-quarantine"  # credentials that are taken out of use are moved to it
    allow_private: bool = True  # an Admin API belongs into a network of one's own
    ca_file: str = ""  # PEM of who signed its certificate; "" is the system's
    delay_s: Seconds = 10.0  # twice Kong's db_update_frequency


class Tyk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tyk, by the gateway's own API; in use where `url` is set."""

    url: str = ""  # of the gateway's own API
    secret: Secret = Secret("")  # the gateway's API secret
    allow_private: bool = True  # its API belongs into a network of one's own
    ca_file: str = ""  # as of Kong
    delay_s: Seconds = 20.0  # twice the gateway's cache of sessions


class Unkey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unkey, by its API; in use where `url` is set."""

    url: str = ""  # https://api.unkey.com
    root_key: Secret = Secret("")  # with the rights that `pipeline/respond/adapters/unkey.py` lists
    handover_dir: str = ""  # rotate: the new key's secret is written here, readable by its owner alone; "" is no rotate
    overlap_s: Annotated[float, Meta(ge=0, le=30 * 86_400)] = (
        604_800.0  # rotate without an end: the old key's last days
    )
    allow_private: bool = False  # private addresses and plain http
    ca_file: str = ""  # as of Kong
    delay_s: Seconds = 60.0  # until every region obeys


class AwsApiGateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AWS API Gateway's keys and usage plans; in use where `region` is set."""

    region: Region = ""  # of the API; "" is not in use
    access_key_id: str = ""  # of a user or role for Keywatch alone
    secret_access_key: Secret = Secret("")  # of the same
    session_token: Secret = Secret("")  # of a role's temporary credentials
    url: str = ""  # "" is AWS' own for the region
    allow_private: bool = False  # private addresses and plain http
    ca_file: str = ""  # as of Kong
    delay_s: Seconds = 60.0  # until every node obeys


class AwsIam(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Access keys of AWS IAM; in use where `access_key_id` is set."""

    access_key_id: str = ""  # of a user or role for Keywatch alone; "" is not in use
    secret_access_key: Secret = Secret("")  # of the same
    session_token: Secret = Secret("")  # of a role's temporary credentials
    region: Region = "us-east-1"  # where requests are signed for: us-east-1 outside of China and GovCloud
    url: str = "https://iam.amazonaws.com"  # of the IAM API
    allow_private: bool = False  # private addresses and plain http
    ca_file: str = ""  # as of Kong
    delay_s: Seconds = 60.0  # until every region obeys


class Adapters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kong: Kong = Kong()
    tyk: Tyk = Tyk()
    unkey: Unkey = Unkey()
    aws_apigateway: AwsApiGateway = AwsApiGateway()
    aws_iam: AwsIam = AwsIam()


class Enforcement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[respond.enforcement]`: after an act its key's requests are watched (`enforcement/proof.py`)."""

    watch: bool = True  # needs the right to read topics.requests
    skew_s: Annotated[float, Meta(ge=0, le=300)] = 5.0  # how far gateways' clocks may be from the broker's
    watch_s: Annotated[float, Meta(ge=60, le=30 * 86_400)] = 86_400.0  # how long after an act
    unproven_s: Annotated[float, Meta(ge=1, le=86_400)] = 900.0  # silence for so long is told
