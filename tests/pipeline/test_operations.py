"""Operations are told apart by what harm they can do, from their names alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.detector import (
    OPERATION_ADMIN,
    OPERATION_CREDENTIAL,
    OPERATION_DELETE,
    OPERATION_IDENTITY,
    OPERATION_READ,
    OPERATION_UNKNOWN,
    OPERATION_WRITE,
    OPERATIONS,
)
from pipeline.operations import operation


@pytest.mark.parametrize(
    ("method", "route", "kind"),
    [
        ("GET", "/v1/orders/{id}", OPERATION_READ),
        ("POST", "/v1/orders", OPERATION_WRITE),
        ("DELETE", "/v1/orders/{id}", OPERATION_DELETE),
        ("DELETE", "/v1/users/{id}", OPERATION_DELETE),
        ("GET", "/v1/users/{id}", OPERATION_READ),
        ("PATCH", "/v1/users/{id}/role", OPERATION_ADMIN),
        ("POST", "/v1/api-keys", OPERATION_CREDENTIAL),
        ("GET", "/v1/secrets/{id}", OPERATION_CREDENTIAL),
        ("GET", "/v1/me", OPERATION_IDENTITY),
        ("PUT", "/v1/me", OPERATION_WRITE),
        ("GET", "/v1/monkeys/{id}", OPERATION_READ),
        ("", "sts:GetCallerIdentity", OPERATION_IDENTITY),
        ("", "iam:CreateAccessKey", OPERATION_CREDENTIAL),
        ("", "secretsmanager:GetSecretValue", OPERATION_CREDENTIAL),
        ("", "cloudtrail:StopLogging", OPERATION_DELETE),
        ("", "iam:AttachUserPolicy", OPERATION_ADMIN),
        ("", "ec2:DescribeInstances", OPERATION_READ),
        ("", "cognito-idp:ListUsers", OPERATION_READ),
        ("", "", OPERATION_UNKNOWN),
        ("PURGE", "/", OPERATION_UNKNOWN),
    ],
)
def test_an_operation_is_classed_by_its_words_and_its_method(method: str, route: str, kind: int) -> None:
    assert operation(method, route) == kind


@given(st.text(max_size=16), st.text(max_size=256))
def test_every_text_has_a_class(method: str, route: str) -> None:
    assert 0 <= operation(method, route) < OPERATIONS
