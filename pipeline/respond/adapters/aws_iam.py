"""AWS IAM: access keys of users, by the Query API, signed with SigV4.

- suspend, revoke: UpdateAccessKey, `Inactive`. A revoked key stays, inactive; delete it by hand after 30 days.
- deny: an inline policy on the key's user that denies the rule's scopes, which must be IAM actions, or where it names
  none what a thief does first (after AWS' own AWSCompromisedKeyQuarantine policies). sts:GetCallerIdentity and
  sts:GetSessionToken are answered whatever a policy denies; what a session does is denied as its user's own calls are.
- fence: an inline policy on the user that denies everything from other networks, but for what AWS calls on his behalf.
- throttle, flag and rotate are not supported (CreateAccessKey would hand us the new secret, once).

IAM has no condition on the access key's id, so both policies hit the user: refused where he has another active key.
A password of the user's is hit, too. Policies have names of ours, so they are their own mark; a key's status has
none, so what was before is noted first (`peer.noted`). Temporary credentials (ASIA...) belong to
a role and are refused. A user's inline policies have 2,048 characters in all.
Least rights: iam:GetAccessKeyLastUsed, ListAccessKeys, UpdateAccessKey, GetUserPolicy, PutUserPolicy,
DeleteUserPolicy, on users below a path. Changes take effect within seconds, without a promise (eventual consistency).
Source: AWS API Reference, IAM 2010-05-08; IAM User Guide, "AWS: Denies access to AWS based on the source IP".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec

from pipeline.respond.adapters.adapter import Intent, NoteFirst, Outcome, Support, TryAgain
from pipeline.respond.adapters.peer import Peer, Stop, ailments, attempted, done, noted, recalled, refuse
from pipeline.respond.adapters.settings import AwsIam
from pipeline.respond.adapters.sigv4 import Signer
from pipeline.respond.delivery.address import LookUp, system_look_up
from pipeline.respond.delivery.caller import Answer
from schemas.incident import Rung

FORM: Final = "application/x-www-form-urlencoded; charset=utf-8"
POLICIES: Final[Mapping[Rung, str]] = {"deny": "keywatch-quarantine", "fence": "keywatch-fence"}
DANGEROUS: Final = (
    "cloudtrail:LookupEvents", "ec2:RequestSpotInstances", "ec2:RunInstances", "ec2:StartInstances", "iam:Add*",
    "iam:Attach*", "iam:Change*", "iam:Create*", "iam:Delete*", "iam:Detach*", "iam:Put*", "iam:Update*",
    "lambda:Create*", "lambda:Update*", "lightsail:Create*", "lightsail:Start*", "organizations:*", "account:*",
    "s3:DeleteBucket", "s3:DeleteObject*", "s3:PutBucketPolicy", "s3:PutLifecycleConfiguration", "ecs:Create*",
    "ecs:RegisterTaskDefinition", "ecs:RunTask", "bedrock:InvokeModel*", "bedrock:CreateModelInvocationJob",
    "bedrock:PutUseCaseForModelAccess", "ses:*", "sns:Publish", "sagemaker:Create*", "codebuild:CreateProject",
    "secretsmanager:GetSecretValue", "ssm:StartSession", "sts:AssumeRole", "sts:GetFederationToken",
)  # fmt: skip
MAX_POLICY: Final = 2048
MOST_NETWORKS: Final = 80  # /24 and /48 prefixes in a policy of that length; longer declared ones are refused by length
_KEY_ID: Final = re.compile(r"^AKIA[A-Z0-9]{12,124}$")
_ACTION: Final = re.compile(r"^[a-z0-9-]{1,64}:[A-Za-z0-9*?]{1,128}$")
_VERSION: Final = "2010-05-08"
_MEMBER: Final = re.compile(rb"<member>(.*?)</member>", re.DOTALL)


class Before(msgspec.Struct, frozen=True, omit_defaults=True):
    """The user; the status as it was; the policy that we put."""

    user: str
    status: str = ""
    policy: str = ""


def matrix(settings: AwsIam) -> Mapping[Rung, Support]:
    """What it can do; a rung that is absent is not supported."""
    delay_s = settings.delay_s
    return {
        "fence": Support("consumer", delay_s, undo=True, most_networks=MOST_NETWORKS),
        "deny": Support("consumer", delay_s, undo=True, own_scopes=DANGEROUS, by_route=True),
        "suspend": Support("key", delay_s, undo=True),
        "revoke": Support("key", delay_s, undo=False),
    }


class AwsIamAdapter:
    """Access keys of one account's users."""

    name = "aws_iam"

    def __init__(
        self,
        settings: AwsIam,
        timeouts_s: tuple[float, float],
        look_up: LookUp = system_look_up,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        signer = Signer(
            settings.access_key_id, settings.secret_access_key, settings.session_token, settings.region, "iam"
        )
        host = urlsplit(settings.url).netloc

        def sign(method: str, path: str, body: bytes) -> Mapping[str, str]:
            return signer.headers(method, host, path, body, clock(), {"Content-Type": FORM})

        self._peer = Peer(
            self.name, settings.url, sign, timeouts_s, allow_private=settings.allow_private, ca_file=settings.ca_file,
            look_up=look_up,
        )  # fmt: skip
        self._own_key = settings.access_key_id
        self.matrix = matrix(settings)

    async def attempt(self, intent: Intent) -> Outcome | TryAgain | NoteFirst:
        """Some readings and at most one writing."""
        return await attempted(self._undo(intent) if intent.direction == "undo" else self._apply(intent))

    async def check(self) -> list[str]:
        """Whether our own key may be looked up and its user's keys listed; changes can't be asked for without one."""

        async def reads() -> None:
            user = await self._user(self._own_key)
            if user is None:
                raise refuse("aws_iam: access_key_id is none that IAM knows")
            await self._statuses(user)

        return await ailments(reads())

    async def _apply(self, intent: Intent) -> Outcome:
        if intent.key_id == self._own_key:
            raise refuse("it is the key that keywatch itself acts with")
        user = await self._user(intent.key_id)
        statuses = await self._statuses(user) if user else {}
        if user is None or intent.key_id not in statuses:
            if intent.rung in ("suspend", "revoke"):
                return done("iam knows no such access key")
            raise refuse("iam knows no such access key")
        if intent.rung in POLICIES:
            return await self._put_policy(intent, user, statuses)
        before = "" if intent.rung == "revoke" else noted(intent, _text(Before(user, status=statuses[intent.key_id])))
        if statuses[intent.key_id] != "Active":
            return done("it was so already", before)
        await self._ask("UpdateAccessKey", UserName=user, AccessKeyId=intent.key_id, Status="Inactive")
        return done("made inactive", before)

    async def _undo(self, intent: Intent) -> Outcome:
        if not intent.before:
            user = await self._user(intent.key_id)
            if user is None:
                return done("nothing of ours is there")
            return await self._undo_unknown(intent, user)
        before = recalled(intent.before, Before, "restore the access key")
        if intent.rung in POLICIES:
            return await self._remove_policy(intent, before)
        statuses = await self._statuses(before.user)
        if intent.key_id not in statuses:
            raise refuse("iam knows no such access key any more")
        if statuses[intent.key_id] == "Active" or before.status != "Active":  # an undo never takes a key out of use
            return done("it was so already")
        await self._ask("UpdateAccessKey", UserName=before.user, AccessKeyId=intent.key_id, Status="Active")
        return done("restored as it was")

    async def _undo_unknown(self, intent: Intent, user: str) -> Outcome:
        """Of an act whose answer never came: a policy is known by its name and text, a status by nothing."""
        if intent.rung in POLICIES:
            return await self._remove_policy(intent, Before(user, policy=_policy(intent)))
        if (await self._statuses(user)).get(intent.key_id) == "Active":
            return done("nothing of ours is there")
        raise refuse("what was before is not known: make the access key active by hand")

    async def _put_policy(self, intent: Intent, user: str, statuses: dict[str, str]) -> Outcome:
        others = [key for key, status in statuses.items() if status == "Active" and key != intent.key_id]
        if others:
            raise refuse(f"it would hit {len(others)} more access keys of the same user")
        policy, name = _policy(intent), POLICIES[intent.rung]
        before = _text(Before(user, policy=policy))
        now = await self._policy_now(user, name)
        if now == policy:
            return done("it was so already", before)
        if now:
            raise refuse(f"the user has another policy {name}: undo the earlier act first")
        await self._ask("PutUserPolicy", UserName=user, PolicyName=name, PolicyDocument=policy)
        return done(f"policy {name} on its user", before)

    async def _remove_policy(self, intent: Intent, before: Before) -> Outcome:
        name = POLICIES[intent.rung]
        now = await self._policy_now(before.user, name)
        if not now:
            return done("nothing of ours is there")
        if now != before.policy:
            raise refuse(f"somebody changed the policy {name} meanwhile: remove it by hand")
        await self._ask("DeleteUserPolicy", UserName=before.user, PolicyName=name)
        return done("removed")

    async def _policy_now(self, user: str, name: str) -> str:
        answer = await self._call("GetUserPolicy", UserName=user, PolicyName=name)
        if answer.status == 404:
            return ""
        return unquote(_inner(self._good("GetUserPolicy", answer).body, b"PolicyDocument"))

    async def _user(self, key_id: str) -> str | None:
        """Whose access key it is; IAM itself says so for keys of the own account alone."""
        if not _KEY_ID.fullmatch(key_id):
            raise refuse("the id is none of a user's access key (AKIA...)")
        answer = await self._call("GetAccessKeyLastUsed", AccessKeyId=key_id)
        if answer.status == 404:
            return None
        return _inner(self._good("GetAccessKeyLastUsed", answer).body, b"UserName") or None

    async def _statuses(self, user: str) -> dict[str, str]:
        answer = self._good("ListAccessKeys", await self._call("ListAccessKeys", UserName=user))
        found = _MEMBER.findall(answer.body)
        return {_inner(each, b"AccessKeyId"): _inner(each, b"Status") for each in found}

    async def _ask(self, action: str, **parameters: str) -> None:
        self._good(action, await self._call(action, **parameters))

    async def _call(self, action: str, **parameters: str) -> Answer:
        body = urlencode({"Action": action, "Version": _VERSION, **parameters}, quote_via=quote)
        return await self._peer.call("POST", "/", body.encode(), FORM)

    def _good(self, action: str, answer: Answer) -> Answer:
        """The answer, if it is that action's. Raises `Stop`."""
        if not answer.ok:
            if b"<Code>Throttling</Code>" in answer.body:
                raise Stop(TryAgain("aws_iam asks to slow down", answer.retry_after_s))
            raise self._peer.stopped(answer)
        if b"<%bResponse" % action.encode() not in answer.body:
            raise Stop(Outcome("failed", f"aws_iam answered {answer.status} with what is no answer", "failed"))
        return answer


def _policy(intent: Intent) -> str:
    """The document, without blanks. Raises `Stop` where it would do nothing, everything, or is too long."""
    statement: dict[str, Any] = {"Effect": "Deny", "Resource": "*"}
    if intent.rung == "fence":
        if not intent.networks:
            raise refuse("a fence without a network would be a suspension")
        outside = {"NotIpAddress": {"aws:SourceIp": list(intent.networks)}, "Bool": {"aws:ViaAWSService": "false"}}
        statement |= {"Action": "*", "Condition": outside}
    else:
        if wrong := [scope for scope in intent.scopes if not _ACTION.fullmatch(scope)]:
            raise refuse(f"{len(wrong)} of its scopes are no IAM actions")
        statement |= {"Action": list(intent.scopes or DANGEROUS)}
    text = msgspec.json.encode({"Version": "2012-10-17", "Statement": [statement]}).decode()
    if len(text) > MAX_POLICY:
        raise refuse(f"the policy would have {len(text)} characters; IAM takes {MAX_POLICY}")
    return text


def _inner(xml: bytes, element: bytes) -> str:
    """The text of the first element of this name. Names, ids, statuses and documents are plain or percent-encoded."""
    found = re.search(b"<%b>([^<]*)</%b>" % (element, element), xml)
    return found[1].decode("utf-8", "replace") if found else ""


def _text(before: Before) -> str:
    return msgspec.json.encode(before).decode()
