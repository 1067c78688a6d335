"""Every address of the console, also one that comes later, asks who is there, but for those that are named here."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from pipeline.config.tree import Person, Secret
from pipeline.console import app
from tests.console.filled import TOKENS, config

OPEN = {("GET", "/sign-in"), ("POST", "/sign-in"), ("GET", "/livez")}
"""Beside files of the package: the way in, and whether the process runs."""
NOBODY = "http://127.0.0.1:9"
"""Whoever is let in finds no database."""


@pytest.fixture(scope="module")
def console() -> Starlette:
    """With all that may be switched on."""
    made = config(NOBODY)
    machine = Person(name="bot", role="viewer", token=Secret("viewer-token-of-a-machine"), machine=True)
    people = msgspec.structs.replace(
        made.console, people=(*made.console.people, machine), pagerduty_secret=Secret("of-pagerduty")
    )
    return app.make_app(msgspec.structs.replace(made, console=people))


def addresses(console: Starlette) -> Iterator[tuple[str, str]]:
    """(method, path) of all routes, with something in the place of each parameter."""
    for route in console.routes:
        if isinstance(route, Route):
            path = route.path.replace(":path", "")
            for name in route.param_convertors:
                path = path.replace(f"{{{name}}}", "a" * 32)
            yield from ((method, path) for method in sorted(route.methods or ()) if method != "HEAD")


def test_nobody_is_let_in_anywhere_without_a_token(console: Starlette) -> None:
    seen = set(addresses(console))
    assert seen > OPEN
    client = TestClient(console, base_url="http://127.0.0.1")
    for method, path in seen - OPEN:
        answer = client.request(method, path, follow_redirects=False)
        led = answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")
        assert led or answer.status_code in (401, 403), f"{method} {path} is answered {answer.status_code}"


def test_a_form_that_another_site_made_is_refused_whoever_is_signed_in(console: Starlette) -> None:
    client = TestClient(console, base_url="http://127.0.0.1")
    assert client.post("/sign-in", data={"token": TOKENS["admin"]}, follow_redirects=False).status_code == 303
    forms = {path for method, path in addresses(console) if method == "POST"} - {"/sign-in"}
    assert len(forms) > 7
    refused = {path: client.post(path, follow_redirects=False).status_code for path in forms}
    assert set(refused.values()) <= {401, 403}, refused
