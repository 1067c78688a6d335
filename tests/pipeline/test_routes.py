"""Paths to route templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fields import fields_of
from pipeline.routes import LONGEST, MOST_SEGMENTS, template, with_fewer_ids
from schemas.event import Event

CASES = {
    "": "",
    "/": "/",
    "/v1/users": "/v1/users",
    "/v1/users/4711": "/v1/users/{id}",
    "/v1/users/4711?token=x": "/v1/users/{id}",
    "/files/123e4567-e89b-12d3-a456-426614174000/raw": "/files/{uuid}/raw",
    "/blobs/9f86d081884c7d659a2feaa0c55ad015": "/blobs/{hex}",
    "/blobs/0xdeadbeef01": "/blobs/{hex}",
    "/face/decade": "/face/decade",
    "/customers/cus_9s6XKzkNRiz8i3": "/customers/cus_{id}",
    "/orders/order-10023": "/orders/order-{id}",
    "/mail/anna@example.org": "/mail/{email}",
    "/mail/anna%40example.org": "/mail/{email}",
    "/days/2026-01-31/report": "/days/{date}/report",
    "/hosts/192.0.2.1": "/hosts/{ip}",
    "/v2beta1/s3/oauth2/sha256": "/v2beta1/s3/oauth2/sha256",
    "/geo/52.5/-13": "/geo/{number}/{number}",
    "/q/" + "x" * 60: "/q/{long}",
    "/t/eyJhbGciOiJIUzI1NiJ9": "/t/{token}",
    "/ListObjectsV2WithPrefix": "/ListObjectsV2WithPrefix",
    "/wp-login.php": "/wp-login.php",
    "//double//slash/": "/double/slash",
    "/a/b/c/d/e/f/g/h/i/j": "/a/b/c/d/e/f/g/h/{rest}",
}


@pytest.mark.parametrize(("path", "route"), CASES.items())
def test_what_names_one_object_becomes_a_placeholder(path: str, route: str) -> None:
    assert template(path) == route


@given(st.text(max_size=1024))
def test_any_path_gives_a_bounded_template_and_the_same_again(path: str) -> None:
    route = template(path)
    assert len(route) <= LONGEST
    assert route.count("/") <= MOST_SEGMENTS + 1
    assert template(path) == route


@given(st.integers(min_value=0), st.uuids(), st.binary(min_size=8, max_size=20))
def test_ids_of_every_kind_give_one_route(number: int, unique: object, raw: bytes) -> None:
    assert template(f"/v1/things/{number}/x") == "/v1/things/{id}/x"
    assert template(f"/v1/things/{unique}") == "/v1/things/{uuid}"
    assert template(f"/v1/things/{raw.hex()}") in {"/v1/things/{hex}", "/v1/things/{id}", f"/v1/things/{raw.hex()}"}


def shortened(paths: list[str]) -> list[str]:
    told = fields_of([Event(key_id="k", ts_us=0, path=path) for path in paths])
    return list(with_fewer_ids(*told.span("path")))


@given(
    st.lists(
        st.text(alphabet="/ab-_%19?#.\nf\u0663", max_size=40) | st.from_regex(r"(/v1)?/[0-9]{1,5}(/x)?", fullmatch=True)
    )
)
def test_paths_with_fewer_ids_have_the_same_templates(paths: list[str]) -> None:
    assert [template(path) for path in shortened(paths)] == [template(path) for path in paths]


def test_ids_that_are_new_with_every_event_leave_one_text() -> None:
    paths = [f"/v1/orders/{n}/lines/0f0e0d0c-0000-4000-8000-{n:012x}" for n in range(50)]
    assert set(shortened(paths)) == {"/v1/orders/{id}/lines/{uuid}"}
