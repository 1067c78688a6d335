"""`keywatch investigate`, `keywatch leaks ...`: the answers in words, in files, as JSON.

Each function prints and returns the exit code: 0, or 1 where what was asked for isn't there.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from pipeline import moments, private
from pipeline.asking import document, hunt, investigate, queries
from pipeline.asking.answers import Shown, connected, print_json, say_line, show_table, width
from pipeline.asking.investigate import KEY_DAYS, Case, span_of
from pipeline.asking.investigate_words import document as report
from pipeline.asking.queries import DAY_US
from pipeline.config.tree import Config
from pipeline.errors import ConfigError, Fatal, Retry
from pipeline.keys import leaks
from pipeline.secrets import key_id_of_secret

MISSING: Final = 1
ANSWER_S: Final = 30.0


def print_investigation(
    config: Config, subject: str, span: tuple[str, str], files: tuple[str, str], output: str
) -> int:
    """`span`: --from, --to; `files`: --html, --md. Raises ConfigError, Fatal, Retry."""
    if output not in ("text", "json"):
        raise ConfigError(f"unknown output '{output}'; there are text and json")
    with connected(config.clickhouse) as client:
        case = case_of(client, subject, *span)
    if case is None:
        sys.stderr.write(
            f"keywatch: {subject!r} is no key that was used, nor the beginning of exactly one incident's id: "
            "`keywatch incidents` lists them\n"
        )
        return MISSING
    blocks = report(case)
    html, markdown = files
    if html:
        private.write(Path(html), document.page(blocks, f"Investigation of {case.key_id}").encode())
    if markdown:
        private.write(Path(markdown), document.markdown(blocks).encode())
    if output == "json":
        return print_json(case)
    if html or markdown:
        return say_line(f"written: {' '.join(name for name in files if name)}")
    sys.stdout.write(document.terminal(blocks, width()))
    return 0


def case_of(client: Client, subject: str, from_: str, to: str) -> Case | None:
    """Of an incident: its span, unless one is named; of a key: the last 7 days of its use. None: neither is known."""
    incident = queries.find_incident(client, subject)
    if incident is not None:
        begin, end = span_of(queries.brought_up_to_date(client, incident))
        key_id, named = incident.key_id, incident.incident_id
    else:
        last = queries.last_used(client, [subject])
        if not last:
            return None
        key_id, named = subject, ""
        end = last[0].last_used_us + 1
        begin = end - KEY_DAYS * DAY_US
    if to:
        end = _us(to, "--to", hunt.as_of_us(client))
        begin = end - KEY_DAYS * DAY_US
    if from_:
        begin = _us(from_, "--from", end)
    if begin >= end:
        raise ConfigError("--from must lie before --to")
    return investigate.investigate(client, key_id, begin, end, named)


def _us(text: str, option: str, now_us: int) -> int:
    """A time, or a span before `now_us`."""
    if text[-1:] in moments.SPANS_S:
        return now_us - round(moments.span(text, option).total_seconds() * 1e6)
    return moments.us_of(moments.moment(text, option, moments.at_us(now_us)))


# -- leaks ---------------------------------------------------------------------------------------------------------


def print_leaks(config: Config, output: str) -> int:
    """The newest reports. Raises Fatal, Retry."""
    with connected(config.clickhouse) as client:
        found = leaks.leaks(client)
    if output == "json":
        return print_json(found)
    if not found:
        return say_line("nothing was reported as leaked")
    return show_table("reported as public", [msgspec.structs.asdict(row) for row in found], _LEAKS, len(_LEAKS) - 1)


def print_leak(config: Config, leak_id: str, output: str) -> int:
    """One report: has a stranger used the key since, and what did he touch? From a day before the report on."""
    with connected(config.clickhouse) as client:
        found = leaks.leaks(client, leak_id, 2) if leak_id else []
        if len(found) != 1:
            sys.stderr.write(
                f"keywatch: {leak_id!r} is not the beginning of exactly one leak's id: `keywatch leaks list`\n"
            )
            return MISSING
        leak = found[0]
        end = max(hunt.as_of_us(client), leak.at_us) + 1
        case = investigate.investigate(client, leak.key_id, leak.at_us - DAY_US, end) if leak.key_id else None
    if output == "json":
        return print_json({"leak": leak, "answer": answer(case), "case": case})
    say_line(f"{leak.leak_id}: {leak.feed}, {moments.of_us(leak.at_us)}, {leak.kind or 'kind not told'}")
    say_line(f"  at: {leak.url or 'no place'}")
    say_line(f"  key: {leak.key_id or 'none of ours'}")
    say_line(f"  {answer(case)}")
    if case is not None and case.strangers:
        sys.stdout.write(document.terminal(report(case), width()))
    elif case is not None:
        say_line(f"  all of it: {document.shell('keywatch', 'investigate', '--', leak.key_id)}")
    return 0


def answer(case: Case | None) -> str:
    """In one sentence."""
    if case is None:
        return "it matches no key, so nobody can have used it here"
    strangers, requests = case.strangers, sum(source.requests for source in case.sources)
    if not requests:
        return "nobody has used the key since the day before the report"
    if not case.normal.active_hours:
        return f"{requests:,} requests since the day before the report, and nothing before to tell strangers by"
    if not strangers:
        return f"no stranger has used it: {requests:,} requests since the day before the report, all from known sources"
    good = sum(source.succeeded for source in strangers)
    routes = len({route.route for route in case.routes})
    return (
        f"a stranger HAS used it: {sum(s.requests for s in strangers):,} requests ({good:,} succeeded) from "
        f"{len(strangers)} new sources, on {routes} routes"
    )


def report_leak(config: Config, key_id: str, digest: str, url: str, reason: str) -> int:
    """Say it to the running intake, with `leaks.token`. Raises ConfigError, Fatal, Retry."""
    if bool(key_id) == bool(digest):
        raise ConfigError("give either --key-id or --hash (keywatch leaks hash makes it)")
    if not config.leaks.token:
        raise ConfigError(
            "leaks.token is needed: the same that the intake with leaks.enabled has; "
            "how to set both up: deploy/docs/howto/respond-to-a-leak.md"
        )
    if not config.leaks.url.startswith(("http://", "https://")):
        raise ConfigError("leaks.url must begin with http:// or https://")
    body = {"url": url, "reason": reason} | ({"key_id": key_id} if key_id else {"hash": digest})
    headers = {"Authorization": f"Bearer {config.leaks.token.reveal()}", "Content-Type": "application/json"}
    request = urllib.request.Request(config.leaks.url, json.dumps(body).encode(), headers)  # noqa: S310 (checked above)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answered:  # noqa: S310
            (told,) = json.load(answered)
    except urllib.error.HTTPError as error:
        words = error.read(500).decode("utf-8", "replace").strip()
        raise (Retry if error.code == 503 else Fatal)(f"{config.leaks.url}: {error.code} {words}") from None
    except OSError as error:
        raise Retry(f"{config.leaks.url} does not answer: {error}") from None
    if not told["key_id"]:
        say_line(f"kept as {told['leak_id']}, but it matches no key: is its secret_hash declared?")
        return MISSING
    say_line(f"{told['key_id']} is known as leaked: {told['leak_id']}")
    return say_line(f"  who used it: {document.shell('keywatch', 'leaks', 'show', told['leak_id'])}")


def print_hash(config: Config) -> int:
    """The keyed hash of a secret on stdin, for the catalogue's `secret_hash`: never on the command line."""
    if not config.intake.pepper:
        raise ConfigError("intake.pepper is needed: the hash is keyed with it")
    if sys.stdin.isatty():
        import getpass

        secret = getpass.getpass("the secret: ")
    else:
        secret = sys.stdin.readline().strip()
    if not secret:
        raise ConfigError("no secret on stdin")
    return say_line(key_id_of_secret(secret, config.intake.pepper.reveal()))


_LEAKS: Final[tuple[Shown, ...]] = (
    ("leak", lambda row: str(row["leak_id"])[:12], "left"),
    ("when", lambda row: moments.of_us(row["at_us"]), "left"),
    ("key", lambda row: str(row["key_id"]) or "none of ours", "left"),
    ("by", lambda row: str(row["feed"]), "left"),
    ("where, why", lambda row: f"{row['url']} {row['reason']}".strip() or "-", "left"),
)
