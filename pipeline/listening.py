"""What of a configuration listens beyond this machine, and who may then do what: `keywatch doctor`'s ports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pipeline.config.tree import Config
from pipeline.finding import Finding

METRICS: Final = (
    "whoever reaches it reads metrics, nobody can write",
    "let only Prometheus and the orchestrator reach that port",
)
OPEN: Final = {
    ("intake", "http_host"): (
        "whoever has intake.http_token writes events, in plain HTTP",
        "let only the gateway, or the TLS before it, reach that port",
    ),
    ("console", "host"): (
        "people with a token, and the proxy, reach pages and forms, in plain HTTP",
        "let only what ends TLS reach that port",
    ),
}
"""(who may do what, what to do about it), where it isn't metrics."""


def beyond(config: Config) -> Iterator[Finding]:
    """One finding for every `...host` of the configuration that others can reach; none where all is on loopback."""
    from pipeline.intake.http import is_loopback

    for section, field, host, port in listeners(config):
        if is_loopback(host):
            continue
        about, where = "metrics" if field == "metrics_host" else section, f"{section}.{field} is {host}, port {port}"
        if refused := _refused(config, section, field):
            yield Finding("fail", about, f"{where}: {refused[0]}", refused[1])
        else:
            may, advice = OPEN.get((section, field), METRICS)
            yield Finding("warn", about, f"{where}: {may}", advice)


def listeners(config: Config) -> Iterator[tuple[str, str, str, int]]:
    """(section, setting, host, port) of everything that can listen."""
    for section in config.__struct_fields__:
        part = getattr(config, section)
        for field in getattr(part, "__struct_fields__", ()):
            port = f"{field.removesuffix('host')}port"
            if field.endswith("host") and hasattr(part, port):
                yield section, field, getattr(part, field), getattr(part, port)


def _refused(config: Config, section: str, field: str) -> tuple[str, str] | None:
    """(why the process will not start so, what to do)."""
    if (section, field) == ("intake", "http_host") and not config.intake.http_token:
        advice = "set intake.http_token_file, or intake.http_host to 127.0.0.1"
        return "without a token intake --from http will not start", advice
    if (section, field) == ("console", "host") and not config.console.secure_cookie:
        advice = "put TLS before it and set console.secure_cookie, or console.host to 127.0.0.1"
        return "without console.secure_cookie the console will not start", advice
    return None
