"""User agents to families."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clients import LONGEST, NEWEST, family, version

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"
CASES = {
    "": "",
    "-": "",
    "curl/8.4.0": "curl",
    "python-requests/2.31.0": "python-requests",
    "Boto3/1.28.1 md/Botocore#1.31 Python/3.11": "Boto3",
    "aws-cli/2.13 Python/3.11 Linux/5.10 botocore/2.0": "aws-cli",
    "Go-http-client/1.1": "Go-http-client",
    "okhttp/4.9.3": "okhttp",
    CHROME: "Chrome",
    CHROME + " Edg/120.0": "Edge",
    "Mozilla/5.0 (Macintosh) AppleWebKit/605.1 (KHTML, like Gecko) Version/17 Safari/605.1": "Safari",
    "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0": "Firefox",
    "PostmanRuntime/7.36": "Postman",
    "kube-probe/1.27": "kube",
    "[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12]": "aws-sdk",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://example.org)": "Googlebot",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0)": "bot",
    "acme-billing/3.2 (linux)": "acme-billing",
    "x9k2j4h6q8/1": "other",
    "???": "other",
}


@pytest.mark.parametrize(("user_agent", "name"), CASES.items())
def test_a_user_agent_has_a_family_without_version(user_agent: str, name: str) -> None:
    assert family(user_agent) == name


@given(st.text(max_size=512))
def test_any_text_has_a_short_family(user_agent: str) -> None:
    name = family(user_agent)
    assert len(name) <= LONGEST
    assert name.isascii()


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_routine_upgrade_changes_no_family(major: int, minor: int) -> None:
    assert family(f"acme-sync/{major}.{minor}") == "acme-sync"
    assert family(CHROME.replace("120.0", f"{major}.{minor}")) == "Chrome"


@pytest.mark.parametrize(
    ("user_agent", "major"),
    [
        ("", 0), ("-", 0), ("curl/8.4.0", 8), ("curl", 0), ("Boto3/1.28.1 md/Botocore#1.31", 1), (CHROME, 120),
        (CHROME + " Edg/119.0", 119), ("PostmanRuntime/7.36", 7), ("acme-billing/3.2 (linux)", 3), ("acme/v12", 12),
        ("[S3Console/0.4, aws-internal/3 aws-sdk-java/1.12]", 1), ("acme-billing (3 nodes)", 0), ("acme/20260101", 0),
        ("Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 Safari/605.1", NEWEST), ("curl/999", NEWEST),
    ],
)  # fmt: skip
def test_the_major_version_is_that_of_what_named_the_family(user_agent: str, major: int) -> None:
    assert version(user_agent) == major


@given(st.text(max_size=200))
def test_no_user_agent_has_a_version_beyond_a_byte(user_agent: str) -> None:
    assert 0 <= version(user_agent) <= NEWEST
