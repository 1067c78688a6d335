"""Signatures equal those of AWS' published suite (aws-sig-v4-test-suite, as botocore's tests carry it)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.config.setting import Secret
from pipeline.respond.adapters.sigv4 import Signer

NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIGNER = Signer(
    "AKIDEXAMPLE", Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), Secret(""), "us-east-1", "service"
)  # fmt: skip
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SPACED = {"My-Header1": " value1", "My-Header2": ' "a   b   c"'}


@pytest.mark.parametrize(("method", "path", "headers", "body", "signature"), [
    ("GET", "/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),  # get-vanilla
    ("GET", f"/?{UNRESERVED}={UNRESERVED}", {}, b"",  # get-vanilla-query-unreserved
     "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"),
    ("POST", "/", FORM, b"Param1=value1",  # post-x-www-form-urlencoded
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
    ("GET", "/\u1234", {}, b"", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),  # get-utf8
    ("GET", "/", SPACED, b"",  # get-header-value-trim
     "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"),
])  # fmt: skip
def test_a_request_is_signed_as_aws_publishes_it(
    method: str, path: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    signed = SIGNER.headers(method, "example.amazonaws.com", path, body, NOW, headers)
    names = ";".join(sorted(["host", "x-amz-date", *(name.lower() for name in headers)]))
    assert signed["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def test_a_session_token_is_sent_and_signed() -> None:
    signer = Signer("AKIDEXAMPLE", Secret("secret"), Secret("token"), "us-east-1", "service")
    signed = signer.headers("GET", "example.amazonaws.com", "/", b"", NOW, {})
    assert signed["X-Amz-Security-Token"] == "token"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in signed["Authorization"]


def test_the_signer_does_not_show_its_secrets() -> None:
    assert "wJalr" not in repr(SIGNER)
